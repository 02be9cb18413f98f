"""The one error root, and the sentence every refusal is made of: the value, the rule, the fix, the nearest valid name."""

from collections.abc import Iterable
from difflib import SequenceMatcher


class ConvNeXtError(Exception):
    """Something the user can mend; the command line prints it as one line and exits with 2.

    Whatever a file or a name put into it, it is one line.
    """

    def __init__(self, message: str = ""):
        super().__init__(on_one_line(message))


class DataError(ConvNeXtError):
    """The images or their labels cannot be used as they are.

    `findings`: lines that explain it, such as what was left out and why; the command line prints them before it.
    """

    def __init__(self, message: str, findings: Iterable[str] = ()):
        super().__init__(message)
        self.findings = tuple(line for line in findings if line)
        for line in self.findings:
            self.add_note(line)


class Unreachable(ConvNeXtError):
    """A store of data does not answer: no image is at fault, so none is skipped for it."""


class CheckpointError(ConvNeXtError):
    """A file of weights or a run cannot be read, or does not fit the model."""


class TrainingError(ConvNeXtError):
    """A run cannot go on: a non-finite loss, no memory, no disk."""


class OutOfMemory(TrainingError):
    """A device or the machine has no memory left; the other processes of a run may have enough."""


class Interrupted(ConvNeXtError):
    """A person or a scheduler asked the run to stop; its state is saved."""


def nearest(name: str, names: Iterable[str], *, cutoff: float = 0.65) -> str:
    """' Did you mean 'x'?' for the valid name closest to `name`, or '' when none is close; `cutoff` 0 takes any.

    Of dotted names the last part must be close as well: 'optim.foo' is near no other field of optim.
    """
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(name.lower())
    best, found = cutoff, ""
    for known in names:
        matcher.set_seq1(known.lower())
        if matcher.real_quick_ratio() < best and "." not in known:
            continue
        found, best = max((found, best), (known, _likeness(matcher, name.lower(), known.lower())), key=_by_likeness)
    return f" Did you mean '{found}'?" if found else ""


def _by_likeness(pair: tuple[str, float]) -> tuple[float, str]:
    return pair[1], pair[0]


def _likeness(matcher: SequenceMatcher[str], name: str, known: str) -> float:
    """0 to 1; `matcher` holds both."""
    (part, _, last), (known_part, _, known_last) = name.rpartition("."), known.rpartition(".")
    whole = matcher.ratio()
    if not known_part or (not part and whole >= 1):
        return whole
    ends = SequenceMatcher(None, known_last, last, autojunk=False).ratio()
    if not part:  # a field without its part is as near as it can be
        return max(whole, 0.95 * ends)
    return max(whole, 0.7) if ends == 1 else min(whole, ends)


def number_of(n: float, one: str, many: str = "") -> str:
    """'1 epoch', '9,469 images', '0.5 epochs'; `many` where it is not `one` and an s."""
    written = f"{n:,}" if isinstance(n, int) else f"{n:g}"
    return f"{written} {one if n == 1 else many or one + 's'}"


def reason_of(error: Exception) -> str:
    """Why something could not be read, in words."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def on_one_line(text: str) -> str:
    r"""`text` with what a terminal would act on spelt out: a name may hold a new line, or bytes that are no text.

    A name in it cannot clear the screen, forge a second message or end a command that prints it.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def on_lines(text: str) -> str:
    """The same for a text of several lines, whose names are already on one."""
    return "\n".join(map(on_one_line, text.split("\n")))
