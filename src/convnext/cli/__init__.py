"""`convnext`: one file a verb. Results go to stdout, everything else to stderr.

Exit status: 0 done, 2 the user's mistake (one line), 1 ours, 130 stopped. torch loads inside the verbs, so that `--help`
answers at once.
"""

import errno
import os
import sys
from collections.abc import Sequence

from convnext.cli import (
    benchmark,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    models,
    paper,
    predict,
    recipes,
    roadmap,
    train,
)
from convnext.cli.options import Command, fields_apart, parser_of
from convnext.errors import ConvNeXtError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
VERBS: dict[str, Command] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "roadmap": roadmap,
    "convert": convert,
    "export": export,
    "benchmark": benchmark,
    "paper": paper,
    "models": models,
    "recipes": recipes,
    "demo": demo,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal cannot show end no command
        fields, others = fields_apart(sys.argv[1:] if arguments is None else arguments)
        args, rest = parser_of(VERBS).parse_known_args(others)
        return VERBS[args.verb].run(args, fields + rest)
    except ConvNeXtError as error:
        interrupted = type(error).__name__ == "Interrupted"
        sys.stderr.write(f"convnext: {error}\n".encode("utf-8", "backslashreplace").decode())
        return 130 if interrupted else 2
    except KeyboardInterrupt:
        sys.stderr.write("convnext: stopped.\n")
        return 130
    except BrokenPipeError:  # the reader, such as `head`, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in FULL:
            raise
        sys.stderr.write(f"convnext: the results could not be written: {error.strerror}.\n")
        return 2
