"""A look at all annotated images before the first step: what is broken, missing, empty or rare, in lines for people.

What the readers of annotations found is told again here; the images and maps themselves are opened now.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from convnext.data.annotated import AnnotatedImage, files_of
from convnext.data.band_check import BandLook, band_lines, look_at_bands
from convnext.data.dataset import DenseDataset, objects_of_bands, read_semantic, strange_values
from convnext.data.decode import Opened, decode, holds_12_bit, read_size
from convnext.data.masks import Rle
from convnext.data.opening import DenseSplits
from convnext.data.problems import CUT, KINDS, NO_MASK, OUTSIDE, Problem, why_left_out
from convnext.data.sample import IGNORE
from convnext.data.scan import (
    DIGEST_BYTES,
    FULL_BELOW,
    LIMIT,
    NAMED,
    PREVIEW_PX,
    bits_line,
    case_line,
    digests_of,
    frames_line,
    listed,
    looked_at,
    sampled,
    stride_of,
    unread,
)
from convnext.data.series import Shot, miniature, series_line
from convnext.data.store import Store, printable
from convnext.data.turned import is_doubtful, made_before_turn
from convnext.errors import DataError, reason_of

_PARTS = ("train", "val")
_FEW = 10  # objects of a class, or images that show it


@dataclass(frozen=True)
class DenseFindings:
    """What preflight saw. `lines` are for people; `errors` are reasons not to train on this."""

    lines: tuple[str, ...]
    errors: tuple[str, ...]
    reasons: tuple[str, ...]  # those of `lines` that explain errors: what was left out, and why
    per_class: dict[str, dict[str, int]]  # part -> class -> objects, or pixels of maps
    images: dict[str, dict[str, int]]  # part -> class -> images that show it
    problems: dict[str, int]  # kind -> how many
    broken: dict[str, str]  # printable path -> reason
    median_size: tuple[int, int]  # (height, width)
    digests: bytes = b""  # of what the images looked at and their masks hold, eight bytes each


@dataclass
class _Seen:
    """One image after a look at it."""

    part: str
    path: str
    size: tuple[int, int] = (0, 0)
    reason: str = ""
    few_bits: bool = False  # 12 in 16
    frames: int = 1  # or pages
    before_turn: bool = False  # the annotations were made before EXIF turned it
    doubtful_turn: bool = False  # it is turned, and its annotations do not say when they were made
    pixels: np.ndarray | None = None  # of each label in its map, then of values without one
    strange: tuple[str, ...] = field(default=())  # those values, or colours
    bands: BandLook | None = None  # where the set is one of bands
    digest: bytes = b""
    small: bytes = b""  # a miniature, where it was decoded


def preflight_dense(
    data: DenseSplits | DenseDataset, *, workers: int = 0, full: bool | None = None, limit: int = LIMIT
) -> DenseFindings:
    """Look at every image of `data` (a sample beyond `limit`) with `workers` threads, 0: one a core.

    `full`: decode them all; None decides by their number. Label maps are always decoded. Raises DataError when
    not one train image can be read.
    """
    parts = {"train": data.train, "val": data.val} if isinstance(data, DenseSplits) else {"val": data}
    total = sum(len(part.entries) for part in parts.values())
    full = total <= FULL_BELOW if full is None else full
    seen = list(_look(parts, workers, full, stride_of(total, limit)))
    good = [item for item in seen if not item.reason]
    broken = {item.path: item.reason for item in seen if item.reason}
    main = next(iter(parts))
    if not any(item.part == main for item in good):
        raise unread({item.path: item.reason for item in seen if item.part == main}, main)
    problems = list(dict.fromkeys(problem for part in parts.values() for problem in part.problems))
    problems += [problem for part in parts.values() for problem in _without_masks(part)]
    counted = {name: _counts(part, [item for item in good if item.part == name]) for name, part in parts.items()}
    per_class = {name: counts[0] for name, counts in counted.items()}
    images = {name: counts[1] for name, counts in counted.items()}
    sizes = np.array([item.size for item in good])
    reasons = (*_file_lines(seen, broken), *_turned(seen, problems), *_problem_lines(problems), *_notes(parts))
    looks = [(item.path, item.bands) for item in good if item.bands]
    banded = band_lines(looks, parts[main].bands)
    series = series_line(
        *([Shot(each.path, 0, each.small, each.digest) for each in good if each.part == part] for part in _PARTS)
    )
    lines = (sampled(len(seen), total), *reasons, series, *banded, *_class_lines(parts, per_class, images))
    errors = (_nothing_to_learn(parts[main], per_class[main], main, problems), *_broken_val(seen))
    return DenseFindings(
        lines=tuple(filter(None, lines)),
        errors=tuple(filter(None, errors)),
        reasons=tuple(filter(None, reasons)),
        per_class=per_class,
        images=images,
        problems=dict(Counter(problem.kind for problem in problems)),
        broken=broken,
        median_size=(int(np.median(sizes[:, 0])), int(np.median(sizes[:, 1]))),
        digests=digests_of(item.digest for item in seen),
    )


def _look(parts: dict[str, DenseDataset], workers: int, full: bool, stride: float) -> Iterator[_Seen]:
    """Every stride-th image of each part, in order, read by threads (the decoders let go of the interpreter)."""

    def look(task: tuple[str, int]) -> _Seen:
        part, place = task
        seen = _Seen(part, printable(parts[part].entries[place].path))
        try:
            _examine(parts[part], place, full, seen)
        except (DataError, OSError) as error:
            seen.reason = reason_of(error)
        return seen

    yield from looked_at(parts, files_of, look, workers, stride)


class _Once:
    """A store that is asked once for each file, however often that is read."""

    def __init__(self, store: Store):
        self.store, self.held = store, dict[str, bytes]()

    def read(self, path: str) -> bytes:
        if path not in self.held:
            self.held[path] = self.store.read(path)
        return self.held[path]


def _examine(dataset: DenseDataset, place: int, full: bool, seen: _Seen) -> None:
    entry = dataset.entries[place]
    dataset = replace(dataset, store=_Once(dataset.store))
    data = dataset.store.read(entry.path)
    digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES)
    if dataset.bands is not None:
        _examine_bands(dataset, place, full, data, seen)
        return
    opened = Opened(data)
    height, width, _ = opened.header
    seen.frames = opened.frames
    seen.size, orientation, size = (height, width), opened.orientation, entry.size
    seen.before_turn = made_before_turn(size, seen.size, orientation)
    if full:
        seen.small = miniature(decode(data, least_px=PREVIEW_PX))
        seen.few_bits = holds_12_bit(data)
    if entry.semantic is not None:
        _examine_mask(dataset, place, digest, seen)
        if orientation != 1:
            size = read_size(dataset.store.read(entry.semantic))
            seen.before_turn = made_before_turn(size, seen.size, orientation)
    digest.update(_outlines(entry))
    seen.digest = digest.digest()
    seen.doubtful_turn = is_doubtful(size, seen.size, orientation) and _is_annotated(entry)


def _examine_bands(dataset: DenseDataset, place: int, full: bool, data: bytes, seen: _Seen) -> None:
    assert dataset.bands is not None
    entry = dataset.entries[place]
    seen.bands = look_at_bands(data, dataset.bands, full=full)
    seen.size = seen.bands.size
    digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES)
    objects_of_bands(entry, seen.size)  # which says where they are of another size
    if entry.semantic is not None:
        _examine_mask(dataset, place, digest, seen)
    digest.update(_outlines(entry))
    seen.digest = digest.digest()


def _examine_mask(dataset: DenseDataset, place: int, digest: "hashlib.blake2b", seen: _Seen) -> None:
    labels = read_semantic(dataset, place, seen.size)
    digest.update(labels.tobytes())
    seen.pixels = np.bincount(labels.ravel(), minlength=IGNORE + 1)[: len(dataset.classes)]
    if dataset.ignored and seen.pixels.sum() < labels.size:
        seen.strange = strange_values(dataset, place)


def _outlines(entry: AnnotatedImage) -> bytes:
    """What tells the outlines of an image from others."""
    shapes = entry.objects.shapes if entry.objects is not None else ()
    parts = (
        shape.counts if isinstance(shape, Rle) else b"".join(points.tobytes() for points in shape or ())
        for shape in shapes
    )
    return b"".join(parts)


def _is_annotated(entry: AnnotatedImage) -> bool:
    return entry.semantic is not None or (entry.objects is not None and len(entry.objects) > 0)


def _counts(dataset: DenseDataset, seen: list[_Seen]) -> tuple[dict[str, int], dict[str, int]]:
    """(objects or pixels, images) of each class."""
    many, shown = np.zeros(len(dataset.classes), np.int64), np.zeros(len(dataset.classes), np.int64)
    if dataset.task == "segmentation":
        for item in seen:
            if item.pixels is not None:
                many += item.pixels
                shown += item.pixels > 0
    else:
        for entry in dataset.entries:
            if entry.objects is not None:
                count = np.bincount(entry.objects.labels[~entry.objects.crowd], minlength=len(many))
                many += count
                shown += count > 0
    return dict(zip(dataset.classes, many.tolist(), strict=True)), dict(
        zip(dataset.classes, shown.tolist(), strict=True)
    )


def _without_masks(dataset: DenseDataset) -> Iterator[Problem]:
    """Objects that have boxes alone among others that have masks."""
    if dataset.has_masks:
        for entry in dataset.entries:
            for number in entry.objects.ids[~entry.objects.outlined] if entry.objects is not None else ():
                yield Problem(NO_MASK, f"{printable(entry.path)} annotation {number}")


def _file_lines(seen: list[_Seen], broken: dict[str, str]) -> Iterator[str]:
    why = (f"{path} ({reason})" for path, reason in broken.items())
    yield _listed(len(broken), "image{s} cannot be read and will be skipped", why)
    yield bits_line([item.path for item in seen if item.few_bits])
    yield frames_line({item.path: item.frames for item in seen if item.frames > 1})
    strange = [item for item in seen if item.strange]
    names = (f"{item.path} ({', '.join(item.strange[:NAMED])})" for item in strange)
    what = "colours" if any("," in item.strange[0] for item in strange) else "values"
    yield _listed(len(strange), f"mask{{s}} {{have}} {what} that are no class, and do not count", names)


def _turned(seen: list[_Seen], problems: list[Problem]) -> Iterator[str]:
    """What EXIF turns, where that matters to annotations."""
    before = [item.path for item in seen if item.before_turn]
    doubtful = [item.path for item in seen if item.doubtful_turn]
    what = "photo{s} {are} turned by EXIF and annotated for the size before that; boxes and masks are turned with {it}"
    yield _listed(len(before), what, before)
    names = {path.rsplit("/", 1)[-1] for path in before}
    wide = [each.where for each in problems if each.kind in (CUT, OUTSIDE) and _file_of(each) in names]
    what = "box{es} on them {reach} beyond that size: if made after the turn, write the size that people see"
    yield _listed(len(wide), what, wide)
    what = "photo{s} {are} turned by EXIF, and {its} annotations, which fit both ways, are taken as made after the turn"
    yield _listed(len(doubtful), what, doubtful)


def _file_of(problem: Problem) -> str:
    """The name of the image that a problem is about."""
    return problem.where.rsplit(" annotation ", 1)[0].rsplit("/", 1)[-1]


def _problem_lines(problems: list[Problem]) -> Iterator[str]:
    for kind, what in KINDS.items():
        own = [problem for problem in problems if problem.kind == kind]
        names = (f"{problem.where} ({problem.what})" if problem.what else problem.where for problem in own)
        yield _listed(len(own), what, names)


def _notes(parts: dict[str, DenseDataset]) -> list[str]:
    return list(dict.fromkeys(note for part in parts.values() for note in part.notes))


def _class_lines(
    parts: dict[str, DenseDataset], per_class: dict[str, dict[str, int]], images: dict[str, dict[str, int]]
) -> Iterator[str]:
    if "train" not in parts:
        return
    train, val = per_class["train"], per_class["val"]
    yield case_line(train)
    segmentation = parts["train"].task == "segmentation"
    what = "pixels" if segmentation else "objects"
    counted = images["train"] if segmentation else train
    absent = [printable(name) for name in train if not train[name]]
    unseen = [printable(name) for name in train if train[name] and not val[name]]
    few = [f"{printable(name)} ({count})" for name, count in counted.items() if 0 < count < _FEW]
    unit = "images" if segmentation else "objects"
    yield _listed(len(absent), f"class{{es}} {{have}} no {what} in train", absent)
    yield _listed(len(unseen), f"class{{es}} {{have}} no {what} in val, so {{its}} results are unknown", unseen)
    yield _listed(len(few), f"class{{es}} {{have}} fewer than {_FEW} {unit} in train", few)
    if not segmentation:
        empty = sum(entry.objects is None or not len(entry.objects) for entry in parts["train"].entries)
        yield _listed(empty, "train image{s} {have} no object at all", ())


def _nothing_to_learn(dataset: DenseDataset, counts: dict[str, int], part: str, problems: list[Problem]) -> str:
    if sum(counts.values()):
        return ""
    what = "pixel of a class" if dataset.task == "segmentation" else "object that can be used"
    why = why_left_out(problems)
    return f"There is no {what} in {part}: nothing can be learned.{f' {why}' if why else ''}"


def _broken_val(seen: list[_Seen]) -> Iterator[str]:
    held_out = [item for item in seen if item.part == "val"]
    if held_out and all(item.reason for item in held_out):
        first = held_out[0]
        yield f"None of the {len(held_out):,} val images can be read; the first is '{first.path}': {first.reason}."


def _listed(count: int, what: str, names: Iterable[str]) -> str:
    """`listed` for names out of a file, which may hold anything."""
    return listed(count, what, names).replace("\n", "\\n").replace("\r", "\\r")
