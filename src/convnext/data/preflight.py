"""A look at all images before the first step: what is broken, empty, double, uneven or left out, in spoken lines."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from convnext.config import Bands
from convnext.data.band_check import BandLook, band_lines, look_at_bands
from convnext.data.decode import Opened, decode, holds_12_bit
from convnext.data.labelled import UNKNOWN, Dataset, Entry, Splits, counts_of
from convnext.data.scan import (
    FULL_BELOW,
    LIMIT,
    PREVIEW_PX,
    bits_line,
    case_line,
    digests_of,
    frames_line,
    left_out_line,
    listed,
    looked_at,
    sampled,
    stride_of,
    unread,
)
from convnext.data.series import Shot, miniature, series_line
from convnext.data.store import printable
from convnext.errors import DataError, reason_of

_UNEVEN = 10  # largest class over smallest
_FEW = 10  # train images of a class
_Pair = tuple[str, str]


@dataclass(frozen=True)
class Findings:
    """What preflight saw. `lines` are for people; `errors` are reasons not to train on this."""

    lines: tuple[str, ...]
    errors: tuple[str, ...]
    reasons: tuple[str, ...]  # those of `lines` that explain errors: what was left out, and why
    per_class: dict[str, dict[str, int]]  # part -> class -> images
    broken: dict[str, str]  # printable path -> reason
    duplicates: tuple[tuple[str, str], ...]  # (train path, val path) with the same bytes
    repeats: tuple[tuple[str, str], ...]  # (first path, copy) with the same bytes within train
    median_px: int  # of the shorter sides
    median_size: tuple[int, int]  # (height, width)
    digests: bytes = b""  # of what the images looked at hold, eight bytes each


@dataclass(frozen=True)
class _Seen:
    """One file after a look at it."""

    part: str
    path: str
    label: int | tuple[int, ...]  # or the marks of several
    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    reason: str = ""
    few_bits: bool = False  # 12 in 16
    frames: int = 1  # or pages
    bands: BandLook | None = None  # where the set is one of bands
    small: bytes = b""  # a miniature, where it was decoded


def preflight(
    data: Splits | Dataset,
    *,
    workers: int = 0,
    full: bool | None = None,
    limit: int = LIMIT,
    bands: Bands | None = None,
) -> Findings:
    """Look at every image of `data` (a sample beyond `limit`) with `workers` threads, 0: one a core.

    `full`: decode them all; None decides by their number. `bands`: how they are read, where they have any. Raises
    DataError when not one train image can be read.
    """
    parts = {"train": data.train, "val": data.val} if isinstance(data, Splits) else {"val": data}
    total = sum(len(part.entries) for part in parts.values())
    full = total <= FULL_BELOW if full is None else full
    seen = list(_look(parts, workers, full, stride_of(total, limit), bands))
    good = [item for item in seen if not item.reason]
    broken = {item.path: item.reason for item in seen if item.reason}
    main = next(iter(parts))
    if not any(item.part == main for item in good):
        raise unread({item.path: item.reason for item in seen if item.part == main}, main)
    copies = _copies(good)
    per_class = {name: dict(zip(part.classes, counts_of(part).tolist(), strict=True)) for name, part in parts.items()}
    several = parts[main].several
    left_out = data.left_out if isinstance(data, Splits) else {}
    why = (f"{path} ({reason})" for path, reason in broken.items())
    unreadable = listed(len(broken), "image{s} cannot be read and will be skipped", why)
    kept_out = (left_out_line(left_out), *(data.notes if isinstance(data, Splits) else ()))
    lines = [
        sampled(len(seen), total),
        unreadable,
        *_copy_lines(copies, "with other labels" if several else "under two classes"),
        series_line(
            *(
                [Shot(each.path, each.label, each.small, each.digest) for each in good if each.part == name]
                for name in ("train", "val")
            )
        ),
        bits_line([item.path for item in good if item.few_bits]),
        frames_line({item.path: item.frames for item in good if item.frames > 1}),
        *band_lines([(item.path, item.bands) for item in good if item.bands], bands),
        *_class_lines(per_class),
        *(line for name, part in parts.items() if several for line in _mark_lines(name, part)),
        *kept_out,
    ]
    sizes = np.array([item.size for item in good])
    return Findings(
        lines=tuple(line for line in lines if line),
        errors=_errors({} if several else per_class, seen),
        reasons=tuple(filter(None, (unreadable, *kept_out))),
        per_class=per_class,
        broken=broken,
        duplicates=tuple(copies.across),
        repeats=tuple(copies.repeats["train"]),
        median_px=int(np.median(sizes.min(axis=1))),
        median_size=(int(np.median(sizes[:, 0])), int(np.median(sizes[:, 1]))),
        digests=digests_of(item.digest for item in seen),
    )


def _look(parts: dict[str, Dataset], workers: int, full: bool, stride: float, bands: Bands | None) -> Iterator[_Seen]:
    """Every stride-th image of each part, in order, read by threads (the decoders let go of the interpreter)."""

    def look(task: tuple[str, int]) -> _Seen:
        part, number = task
        dataset = parts[part]
        entry = dataset.entries[number]
        shown, label = printable(entry.path), _said(entry)
        try:
            data = dataset.store.read(entry.path)
            if bands is not None:
                seen = look_at_bands(data, bands, full=full)
                return _Seen(part, shown, label, _digest(data), seen.size, bands=seen)
            opened = Opened(data)
            size, frames = opened.header[:2], opened.frames
            small = miniature(decode(data, least_px=PREVIEW_PX)) if full else b""
            few_bits = full and holds_12_bit(data)
        except (DataError, OSError) as error:
            return _Seen(part, shown, label, reason=reason_of(error))
        return _Seen(part, shown, label, _digest(data), size, few_bits=few_bits, frames=frames, small=small)

    yield from looked_at(parts, lambda entry: (entry.path,), look, workers, stride)


def _said(entry: Entry) -> int | tuple[int, ...]:
    return entry.label if entry.marks is None else entry.marks


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


@dataclass
class _Copies:
    """Pairs (first path, copy) with the same bytes: of train and val, and by the part that holds both."""

    across: list[_Pair] = field(default_factory=list)
    torn_across: list[_Pair] = field(default_factory=list)  # those of `across` under two classes
    repeats: dict[str, list[_Pair]] = field(default_factory=lambda: defaultdict(list))
    torn: dict[str, list[_Pair]] = field(default_factory=lambda: defaultdict(list))  # under two classes


def _copies(good: list[_Seen]) -> _Copies:
    found = _Copies()
    first: dict[tuple[str, bytes], _Seen] = {}
    for item in good:
        known = first.setdefault((item.part, item.digest), item)
        if known is not item:
            same = found.repeats if item.label == known.label else found.torn
            same[item.part].append((known.path, item.path))
        if item.part != "train" and (taught := first.get(("train", item.digest))) is not None:
            found.across.append((taught.path, item.path))
            found.torn_across += [(taught.path, item.path)] if item.label != taught.label else []
    return found


def _copy_lines(copies: _Copies, otherwise: str) -> Iterator[str]:
    flattered = "image{s} of val {are} also in train, which flatters the result"
    yield listed(len(copies.across), flattered, map(_shown, copies.across))
    yield listed(
        len(copies.torn_across), f"image{{s}} {{are}} in train and in val {otherwise}", map(_shown, copies.torn_across)
    )
    for part in ("train", "val"):
        torn, repeats = copies.torn[part], copies.repeats[part]
        twice = [pair for pair in repeats if pair[0] == pair[1]]
        others = [pair for pair in repeats if pair[0] != pair[1]]
        yield listed(len(torn), f"image{{s}} {{are}} in {part} {otherwise}", map(_shown, torn))
        copy = "an exact copy of another" if len(others) == 1 else "exact copies of others"
        yield listed(len(others), f"image{{s}} in {part} {{are}} {copy}", map(_shown, others))
        yield listed(len(twice), f"image{{s}} of {part} {{are}} listed twice", map(_shown, twice))


def _mark_lines(part: str, dataset: Dataset) -> Iterator[str]:
    """What is worth a word where images have several labels: images without any, classes that all have, unknown marks."""
    marks, names = dataset.labels(), dataset.classes
    if not len(marks):
        return
    bare = int((~(marks == 1).any(1)).sum())
    yield listed(bare, f"image{{s}} of {part} {{have}} no label, which is learnt as such", ())
    known = (marks != UNKNOWN).sum(0)
    always = [printable(names[k]) for k in np.flatnonzero((known > 0) & ((marks == 1).sum(0) == known))]
    yield listed(
        len(always), f"class{{es}} {{are}} in every image of {part}, so there is nothing to tell apart", always
    )
    if share := float((marks == UNKNOWN).mean()):
        yield f"Of the marks of {part}, {share:.1%} are unknown, and do not count."


def _class_lines(per_class: dict[str, dict[str, int]]) -> list[str]:
    if "train" not in per_class:
        return []
    train, val = per_class["train"], per_class.get("val", {})
    empty = [name for name in train if not train[name] and not val.get(name)]
    unseen = [name for name in train if train[name] and val and not val.get(name)]
    few = [f"{printable(name)} ({count})" for name, count in train.items() if 0 < count < _FEW]
    lines = [
        case_line(train),
        listed(len(empty), "class{es} {have} no images", map(printable, empty)),
        listed(len(unseen), "class{es} {have} no val images, so {its} results are unknown", map(printable, unseen)),
        listed(len(few), f"class{{es}} {{have}} fewer than {_FEW} train images", few),
    ]
    held = {name: count for name, count in train.items() if count}
    if not held:
        return [line for line in lines if line]
    most, least = max(held, key=held.__getitem__), min(held, key=held.__getitem__)
    if held[most] > _UNEVEN * held[least]:
        lines.append(
            f"Classes are uneven: '{printable(most)}' has {held[most]:,} train images and "
            f"'{printable(least)}' {held[least]:,} ({held[most] / held[least]:.0f} to 1)."
        )
    return lines


def _errors(per_class: dict[str, dict[str, int]], seen: list[_Seen]) -> tuple[str, ...]:
    train = per_class.get("train", {})
    val = per_class.get("val", {})
    alone = [printable(name) for name, count in val.items() if count and name in train and not train[name]]
    line = listed(len(alone), "class{es} {have} images in val and none in train: add some, or remove the folder", alone)
    held_out = [item for item in seen if item.part == "val"]
    if held_out and all(item.reason for item in held_out):
        path, reason = held_out[0].path, held_out[0].reason
        unread_val = f"None of the {len(held_out):,} val images can be read; the first is '{path}': {reason}."
        return (*((line,) if line else ()), unread_val)
    return (line,) if line else ()


def _shown(pair: _Pair) -> str:
    return f"{pair[0]} = {pair[1]}" if pair[0] != pair[1] else pair[0]
