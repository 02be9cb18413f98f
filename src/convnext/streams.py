"""What a process says, and to whom it can: terminals go away, disks fill up, and some are started without any of these."""

import contextlib
import os
import sys

from convnext.errors import on_one_line


def open_missing() -> None:
    """Fill the places of streams that are closed (`>&-`), so that no file of ours gets the number of one.

    What is then written to stdout is refused by the system, as by a full disk; what goes to stderr is lost.
    """
    for number, name, how in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, how)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", errors="backslashreplace", closefd=False))  # noqa: SIM115


def tell(*lines: str) -> None:
    """Lines for the person, on stderr, behind the results so far; a name in one cannot make it two.

    That nobody can read them ends no work.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # `refused_results` says why, at the end
        sys.stdout.flush()
    try:
        sys.stderr.write("".join(f"{on_one_line(line)}\n" for line in lines))
        sys.stderr.flush()
    except (OSError, ValueError):
        _forget(sys.stderr)


def refused_results() -> OSError | None:
    """Hand over what was printed so far; why that is not possible, and then nothing more is tried."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _forget(sys.stdout)
        return error
    return None


def _forget(stream: object) -> None:
    """From now on what goes there is lost without a word: else Python itself fails at the end, with what is left in it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[attr-defined]
        os.close(nowhere)
