"""`convnext`: one file a verb. Results go to stdout, everything else to stderr.

Exit status: 0 done, 2 the user's mistake (one line), 1 ours, 130 stopped. torch loads inside the verbs, so that `--help`
answers at once.
"""

import os
import sys
from collections.abc import Sequence

from convnext import streams
from convnext.cli import (
    audit,
    benchmark,
    convert,
    demo,
    doctor,
    embed,
    evaluate,
    explain,
    export,
    models,
    paper,
    predict,
    push,
    recipes,
    roadmap,
    serve,
    shard,
    similar,
    train,
    verify,
)
from convnext.cli.foreign import refuse_foreign
from convnext.cli.options import Command, fields_apart, parser_of
from convnext.cores import let_threads_sleep
from convnext.errors import ConvNeXtError, DataError, Interrupted
from convnext.extras import missing
from convnext.files import FULL
from convnext.processes import starter, stoppable
from convnext.ranks import to_be_started, together

VERBS: dict[str, Command] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "embed": embed,
    "similar": similar,
    "audit": audit,
    "shard": shard,
    "explain": explain,
    "roadmap": roadmap,
    "convert": convert,
    "export": export,
    "serve": serve,
    "verify": verify,
    "push": push,
    "benchmark": benchmark,
    "paper": paper,
    "models": models,
    "recipes": recipes,
    "demo": demo,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    streams.open_missing()
    let_threads_sleep()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # before torch is loaded: torchrun may be gone by then
        starter().outlive()
    with stoppable():
        status = _answer(sys.argv[1:] if arguments is None else arguments)
    refused = streams.refused_results()
    return status or (_not_printed(refused) if refused else 0)


def _answer(arguments: Sequence[str]) -> int:
    verb = ""
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal cannot show end no command
        fields, others = fields_apart(arguments)
        parser = parser_of(VERBS)
        refuse_foreign(parser, others)
        args, rest = parser.parse_known_args(others)
        verb = args.verb
        many: int | None = getattr(args, "processes", None)
        if to_be_started(many):
            return together(arguments, many or 1)
        return VERBS[verb].run(args, fields + rest)
    except SystemExit as end:  # --help, --version
        return int(end.code or 0)
    except ConvNeXtError as error:
        return _refused(error)
    except ImportError as error:  # an extra that this verb needs
        return _refused(missing(error, f"`convnext {verb}`"))
    except KeyboardInterrupt as error:
        _say(["convnext: stopped."], error)
        return 130
    except OSError as error:
        if error.strerror is None:  # none of the system's
            raise
        refused = streams.refused_results()
        if refused or error.filename is None:  # what fails while it writes into a stream names no file
            return _not_printed(refused or error)
        room = " Make room and give the same command again." if error.errno in FULL else ""
        return _refused(ConvNeXtError(f"'{error.filename}': {error.strerror}.{room}"))


def _not_printed(error: OSError) -> int:
    if isinstance(error, BrokenPipeError):  # the reader, such as `head`, had enough
        return 0
    streams.tell(f"convnext: the results could not be written: {error.strerror}.")
    return 2


def _refused(error: ConvNeXtError) -> int:
    lines = [*(error.findings if isinstance(error, DataError) else ()), f"convnext: {error}"]
    _say(lines, error)
    return 130 if isinstance(error, Interrupted) else 2


def _say(lines: Sequence[str], error: BaseException) -> None:
    """Once, where several processes have the same to say."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from convnext.engine.launcher import speaks

        if not speaks("\n".join(lines), error):
            return
    streams.tell(*lines)
