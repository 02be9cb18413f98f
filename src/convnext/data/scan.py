"""What every check before the first step shares: looking at many images at once, and saying what was seen in a line."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, TypeVar

from convnext.data.codecs import plugin_for
from convnext.data.store import printable
from convnext.data.stores.shards import expect
from convnext.errors import DataError, number_of

FULL_BELOW = 20_000  # images: up to here each one is decoded, beyond only headers are read
LIMIT = 200_000  # images: beyond, an even sample of so many is read
PREVIEW_PX = 32  # a reduced decode reads all of a JPEG's bytes for a fraction of the work
_BETWEEN = re.compile(r"[\s_.-]+")  # words of a name
NAMED = 5  # examples in a line
DIGEST_BYTES = 8  # of what an image held, to tell later whether it changed
Seen = TypeVar("Seen")


def looked_at(
    parts: Mapping[str, Any],
    files: Callable[[Any], Sequence[str]],
    look: Callable[[tuple[str, int]], Seen],
    workers: int,
    stride: float,
) -> Iterator[Seen]:
    """`look` at (part, number) of every stride-th image of each part, in order, by `workers` threads, 0: one a core.

    `parts`: name -> data set; `files`: what is read of an entry, which a store that is far away fetches before. Threads will
    do, because the decoders let go of the interpreter.
    """
    tasks = places({name: len(part.entries) for name, part in parts.items()}, stride)
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for name, own in groupby(tasks, itemgetter(0)):  # one store at a time
            part = parts[name]
            while chunk := list(islice(own, 1024)):  # a few at a time: the pool queues all that it is given
                read = partial(_files_of, part.entries, files, chunk)
                expect(part.store, read)
                yield from pool.map(look, chunk)


def _files_of(entries: Any, files: Callable[[Any], Sequence[str]], tasks: Sequence[tuple[str, int]]) -> list[str]:
    return [file for _, number in tasks for file in files(entries[number])]


def places(counts: Mapping[str, int], stride: float) -> Iterator[tuple[str, int]]:
    """(part, number) of every stride-th image of each part, in order."""
    return ((name, int(step * stride)) for name, count in counts.items() for step in range(int(count / stride + 0.5)))


def stride_of(total: int, limit: int = LIMIT) -> float:
    """Of how many images one is looked at."""
    return max(1, total / limit)


def digests_of(seen: Iterable[bytes]) -> bytes:
    """A digest of each image as one text of bytes, zeros for b'', one that could not be read."""
    return b"".join(digest[:DIGEST_BYTES].ljust(DIGEST_BYTES, b"\0") for digest in seen)


def sampled(seen: int, total: int) -> str:
    """That not all were looked at; '' when all were."""
    return (
        f"{seen:,} of {total:,} files were looked at; the others are checked as they are read." if seen < total else ""
    )


def bits_line(paths: Sequence[str]) -> str:
    """That images of 16 bits were taken for 12; '' when there are none."""
    what = "grey image{s} of 16 bits {have} no value above 4095 and {are} read as 12 bits"
    return listed(len(paths), what, paths)


def frames_line(frames: Mapping[str, int]) -> str:
    """That files hold more than what is read of them; '' when none does. `frames`: printable path -> how many."""
    what = "image{s} {have} more frames or pages than the first, which alone is read"
    return listed(len(frames), what, (f"{path} ({count:,})" for path, count in frames.items()))


def left_out_line(left_out: Mapping[str, int]) -> str:
    """How many files of which endings are no images, and how many rows say no class; `left_out`: what -> how many."""
    order = sorted(left_out.items(), key=lambda pair: -pair[1])
    kinds = [
        f"{count:,} {_agreeing(what, count)}{_reader(what)}" for what, count in order if not what.startswith("rows ")
    ]
    files = sum(count for what, count in order if not what.startswith("rows "))
    rows = (
        listed(count, f"row{{s}} {what.removeprefix('rows ')} {{were}} left out", ())
        for what, count in order
        if what.startswith("rows ")
    )
    return " ".join(filter(None, (listed(files, "file{s} {were} left out", kinds, len(kinds)), *rows)))


def _agreeing(what: str, count: int) -> str:
    """'images of the test part' of one image."""
    return f"image {what.removeprefix('images ')}" if count == 1 and what.startswith("images ") else what


def case_line(classes: Iterable[str]) -> str:
    """That names of classes differ only in case, or in spaces, dashes and dots; '' when none do."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(" ".join(_BETWEEN.split(name.casefold())).strip(), []).append(printable(name))
    several = [names for names in alike.values() if len(names) > 1]
    if not several:
        return ""
    where = "case" if all(len({name.casefold() for name in names}) == 1 for names in several) else "case or signs"
    groups = [", ".join(names if where == "case" else map(repr, names)) for names in several]
    return f"These class names differ only in {where}: {'; '.join(groups[:NAMED])}{_more(len(groups))}."


def _reader(ending: str) -> str:
    return f" (`pip install {package}` reads them)" if (package := plugin_for(ending)) else ""


def unread(broken: Mapping[str, str], main: str) -> DataError:
    """That not one image of the part `main` can be read; `broken`: path -> reason."""
    path, reason = next(iter(broken.items()), ("", "there are none"))
    reasons = Counter(broken.values()).most_common(NAMED)
    lines = (f"{number_of(count, 'image')}: {each}." for each, count in reasons) if len(reasons) > 1 else ()
    many = f"none of the {len(broken):,} {main} images" if len(broken) > 1 else f"none of the {main} images"
    return DataError(f"{many} can be read; the first is '{path}': {reason}.", lines)


def listed(count: int, what: str, names: Iterable[str], kinds: int | None = None) -> str:
    """'3 files were left out: a, b, c.' with at most five names; '' when there is nothing to say.

    `kinds`: how many names there are, where that is not `count`.
    """
    if not count:
        return ""
    one = count == 1
    words = {"s": "" if one else "s", "es": "" if one else "es"}
    words |= {"are": "is" if one else "are", "have": "has" if one else "have", "were": "was" if one else "were"}
    words |= {"it": "it" if one else "them", "its": "its" if one else "their", "reach": "reaches" if one else "reach"}
    shown = list(islice(names, NAMED))
    total = count if kinds is None else kinds
    more = _more(total) if shown else ""
    return f"{count:,} {what.format(**words)}{': ' if shown else ''}{', '.join(shown)}{more}."


def _more(total: int) -> str:
    """Behind the names that are shown."""
    return f" and {total - NAMED:,} more" if total > NAMED else ""
