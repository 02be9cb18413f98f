"""Images pass a network together where they are alike and fit into memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, TypeVar

from convnext.engine.shortage import out_of_memory

Given = TypeVar("Given")
Made = TypeVar("Made")
TOGETHER = 8  # images with objects or masks that a GPU takes at once, where they fit


def alike(given: Iterable[Given], kind: Callable[[Given], Any], most: int) -> Iterator[list[Given]]:
    """Runs of at most `most` of one `kind`, in order: what passes together must not need other padding than alone."""
    for _, run in groupby(given, kind):
        while group := list(islice(run, most)):
            yield group


def by_halves(
    given: Sequence[Given] | Any, make: Callable[[Any], list[Made]], *, also: type[Exception] | None = None
) -> list[Made]:
    """`make(given)`, by halves where memory runs out, and where it raises what is to be known of one alone (`also`)."""
    try:
        return make(given)
    except Exception as error:
        if len(given) == 1 or not (out_of_memory(error) or (also is not None and isinstance(error, also))):
            raise
    middle = len(given) // 2  # here, where no frame of what failed keeps its memory
    return [made for half in (given[:middle], given[middle:]) for made in by_halves(half, make, also=also)]
