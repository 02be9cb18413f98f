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
    embed,
    evaluate,
    export,
    models,
    paper,
    predict,
    recipes,
    roadmap,
    similar,
    train,
    verify,
)
from convnext.cli.foreign import refuse_foreign
from convnext.cli.options import Command, fields_apart, parser_of
from convnext.errors import ConvNeXtError, DataError, Interrupted, on_one_line
from convnext.extras import missing

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
VERBS: dict[str, Command] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "embed": embed,
    "similar": similar,
    "roadmap": roadmap,
    "convert": convert,
    "export": export,
    "verify": verify,
    "benchmark": benchmark,
    "paper": paper,
    "models": models,
    "recipes": recipes,
    "demo": demo,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    verb = ""
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal cannot show end no command
        fields, others = fields_apart(sys.argv[1:] if arguments is None else arguments)
        parser = parser_of(VERBS)
        refuse_foreign(parser, others)
        args, rest = parser.parse_known_args(others)
        verb = args.verb
        return VERBS[verb].run(args, fields + rest)
    except ConvNeXtError as error:
        return _refused(error)
    except ImportError as error:  # an extra that this verb needs
        return _refused(missing(error, f"`convnext {verb}`"))
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


def _refused(error: ConvNeXtError) -> int:
    lines = [*(error.findings if isinstance(error, DataError) else ()), f"convnext: {error}"]
    sys.stderr.write("".join(f"{on_one_line(line)}\n" for line in lines))
    return 130 if isinstance(error, Interrupted) else 2
