"""Images and what is known about them, in a fixed order; the pixels of images and masks are made when one is read.

Axes: H W pixel rows and columns, M objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from convnext.config import Bands
from convnext.data.annotated import AnnotatedImage, Objects, relabelled, select
from convnext.data.bands import read_pixels, read_shape
from convnext.data.colours import colour_text, packed, places_of
from convnext.data.decode import Opened, decode_indices, decode_mask, read_size
from convnext.data.jpeg import is_jpeg
from convnext.data.masks import Shape, render
from convnext.data.problems import Problem
from convnext.data.sample import IGNORE, Frame, Instances, Sample
from convnext.data.store import Store, printable
from convnext.data.turned import made_before_turn, upright_objects
from convnext.data.upright import SWAPPED, turned_pixels
from convnext.data.written import matched, one_each
from convnext.errors import DataError, nearest, number_of

Change = Callable[[Sample], Sample]
MOST_DRAWN = 1 << 29  # bytes of masks that are drawn at once at the size of their image


@dataclass(frozen=True)
class DenseDataset:
    """Images in a fixed order, the class names that labels index, and what was left out on the way here."""

    task: Literal["detection", "segmentation"]
    classes: tuple[str, ...]
    entries: Sequence[AnnotatedImage]
    store: Store
    category_ids: tuple[int, ...] = ()  # COCO's number of each class, for files that go back to COCO's tools
    values: tuple[int, ...] = ()  # segmentation: the label for each value 0 to 255 of a map; IGNORE: not counted
    ignored: frozenset[int] = frozenset()  # those values that are meant to be IGNORE; others are mistakes
    colours: tuple[int, ...] = ()  # of maps that show classes by colours: their places are the values
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()  # what was understood in a way that one could see differently
    bands: Bands | None = None  # how images are read that are more than grey or colour

    @cached_property
    def has_masks(self) -> bool:
        """Whether any object has an outline; without, boxes are all there is to learn."""
        return any(entry.objects is not None and bool(entry.objects.outlined.any()) for entry in self.entries)

    def annotated(self) -> "DenseDataset":
        """Without the images that show no object but crowds: they teach a detector little."""
        kept = [entry.objects is None or not entry.objects.crowd.all() for entry in self.entries]
        return replace(self, entries=select(self.entries, np.array(kept, bool)))


def read_sample(
    dataset: DenseDataset, index: int, *, channels: int = 3, masks: bool = True, change: Change | None = None
) -> Sample:
    """The image at `index` with everything known about it, `masks` False: outlines are not drawn.

    `change`: what is done to it, None: nothing. It must treat each object for itself, as it sees a few at a time where all
    masks at the size of the image would be more than MOST_DRAWN bytes: a thousand objects on 8,000 x 8,000 pixels are
    64 GB. Raises DataError with the reason, and OSError, when the image or its label map cannot be used.
    """
    entry = dataset.entries[index]
    data = dataset.store.read(entry.path)
    if dataset.bands is not None:
        pixels = read_pixels(data, dataset.bands)
        shown = (pixels.shape[0], pixels.shape[1])
        labels = read_semantic(dataset, index, shown) if entry.semantic is not None else None
        bare = Sample(pixels, None, labels, printable(entry.path), entry.image_id, shown)
        return _with_objects(bare, objects_of_bands(entry, shown), masks and dataset.has_masks, change)
    opened = Opened(data)
    header = opened.header[:2] if is_jpeg(data) else None  # only of those some are not decoded whole
    image = opened.pixels(channels=channels)
    height, width = image.shape[:2]
    size = header or (height, width)
    frame = Frame(width / size[1], height / size[0])  # one that is too large to be decoded whole is smaller here
    found = upright(dataset, index, size) if (height, width) == size else _reduced(entry, size, (height, width))
    semantic = read_semantic(dataset, index, size) if entry.semantic is not None else None
    bare = Sample(image, None, semantic, printable(entry.path), entry.image_id, size, frame)
    return _with_objects(bare, found, masks and dataset.has_masks, change)


def _with_objects(bare: Sample, found: Objects | None, drawn: bool, change: Change | None) -> Sample:
    """`bare` with what was `found` in it, and masks where they are `drawn`; `change` is that of `read_sample`."""
    height, width = bare.image.shape[:2]
    if found is None:
        return change(bare) if change else bare
    step = max(1, MOST_DRAWN // (height * width)) if change and drawn else len(found)
    parts = []
    for first in range(0, max(1, len(found)), max(1, step)):
        part = range(first, min(first + step, len(found)))
        sample = replace(bare, instances=_instances(found, part, height, width, drawn))
        parts.append(change(sample) if change else sample)
    return parts[0] if len(parts) == 1 else replace(parts[0], instances=_together(parts))


def upright(dataset: DenseDataset, index: int, size: tuple[int, int]) -> Objects | None:
    """The objects of an image that people see in `size` (H, W), in its pixels, also where they were made before its turn.

    Raises DataError where the annotations are for another size.
    """
    entry = dataset.entries[index]
    photo = b"" if entry.size in (None, size) else dataset.store.read(entry.path)
    if entry.objects is not None:
        return upright_objects(entry.objects, entry.size, size, photo)
    if photo:
        made_before_turn(entry.size, size, Opened(photo).orientation)
    return None


def objects_of_bands(entry: AnnotatedImage, size: tuple[int, int]) -> Objects | None:
    """The objects of an image of bands, (H, W) pixels that nothing turns. Raises DataError where they are of another size."""
    made_before_turn(entry.size, size, 1)
    return None if entry.objects is None else entry.objects.in_pixels(*size)


def _reduced(entry: AnnotatedImage, size: tuple[int, int], shown: tuple[int, int]) -> Objects | None:
    """The objects of an image of `size` (H, W) in the pixels of its reduced decode. Raises DataError where they cannot be."""
    if entry.size not in (None, size):
        raise DataError(
            f"it has {size[1]} x {size[0]} pixels, and is annotated for {entry.size[1]} x {entry.size[0]}; an image as "
            "large as this one is not turned: save it upright"
        )
    if entry.objects is None:
        return None
    return entry.objects.scaled(shown[0] / size[0], shown[1] / size[1]).in_pixels(*shown)


def read_semantic(dataset: DenseDataset, index: int, size: tuple[int, int]) -> np.ndarray:
    """The label map of one image of `size`, (H, W) uint8, turned with it where it was made before the image's turn.

    Raises DataError when it does not fit the image.
    """
    path = dataset.entries[index].semantic
    assert path is not None
    try:
        values = _values(dataset, path)
    except DataError as error:
        raise DataError(f"its mask '{printable(path)}': {error}") from None
    if values.shape == size[::-1] != size and dataset.bands is None:
        orientation = Opened(dataset.store.read(dataset.entries[index].path)).orientation
        values = turned_pixels(values, orientation) if orientation in SWAPPED else values
    if values.shape != size:
        raise DataError(
            f"its mask '{printable(path)}' has {values.shape[1]} x {values.shape[0]} pixels, the image {size[1]} x "
            f"{size[0]}"
        )
    return np.array(dataset.values, np.uint8)[values]


def strange_values(dataset: DenseDataset, index: int) -> tuple[str, ...]:
    """What a label map holds that is no class and is not meant to be none: values, or colours."""
    path = dataset.entries[index].semantic
    assert path is not None
    if dataset.colours:
        shown = np.unique(packed(decode_mask(dataset.store.read(path), colours=True))).tolist()
        return tuple(colour_text(colour) for colour in shown if colour not in dataset.colours)
    found = np.unique(_values(dataset, path)).tolist()
    return tuple(str(value) for value in found if dataset.values[value] == IGNORE and value not in dataset.ignored)


def _values(dataset: DenseDataset, path: str) -> np.ndarray:
    data = dataset.store.read(path)
    return places_of(decode_mask(data, colours=True), dataset.colours) if dataset.colours else decode_indices(data)


def size_of(dataset: DenseDataset, index: int) -> tuple[int, int]:
    """(H, W) of an image: as its annotations have it, else from the header of its file."""
    entry = dataset.entries[index]
    if entry.size is not None:
        return entry.size
    data = dataset.store.read(entry.path)
    return read_shape(data, dataset.bands)[:2] if dataset.bands else read_size(data)


def with_classes(dataset: DenseDataset, classes: tuple[str, ...], name: str) -> DenseDataset:
    """The same images with labels that index `classes`, usually a checkpoint's; `name` is what messages call them.

    Raises DataError when the images show a class that is not among them.
    """
    if dataset.classes == classes:
        return dataset
    place = {known: number for number, known in enumerate(classes)}
    dataset = replace(dataset, classes=matched(dataset.classes, classes))
    seen = _seen(dataset)
    for label, own in enumerate(dataset.classes):
        if own not in place and label in seen:
            raise DataError(
                f"'{name}' has class '{printable(own)}', which the model does not know.{nearest(own, classes)} "
                f"It knows {number_of(len(classes), 'class', 'classes')}."
            )
    moved = np.array([place.get(own, -1) for own in dataset.classes], np.int64)
    entries = relabelled(dataset.entries, moved)
    values = tuple(IGNORE if value == IGNORE else int(moved[value]) for value in dataset.values)
    return replace(
        dataset, classes=classes, entries=entries, values=values, category_ids=_category_ids(dataset, classes)
    )


def _seen(dataset: DenseDataset) -> set[int]:
    """Labels that occur; in maps, that may occur."""
    labels: set[int] = set()
    for entry in dataset.entries:
        if entry.objects is not None:
            labels.update(entry.objects.labels.tolist())
    return labels | (set(dataset.values) - {IGNORE})


def _category_ids(dataset: DenseDataset, classes: tuple[str, ...]) -> tuple[int, ...]:
    """The numbers that classes have already, and new ones for the others."""
    known = dict(zip(dataset.classes, dataset.category_ids, strict=False))
    if not known:
        return ()
    free = max(known.values()) + 1
    return tuple(known[name] if name in known else free + place for place, name in enumerate(classes))


def _instances(objects: Objects, part: range, height: int, width: int, masks: bool) -> Instances:
    """The objects of `part` in an image of (height, width)."""
    edge = np.array([width, height, width, height], np.float64)
    drawn = None
    if masks:
        drawn = np.zeros((len(part), height, width), np.uint8)
        for place, number in enumerate(part):
            shape = objects.shapes[number]
            drawn[place] = render(_rectangle(objects.boxes[number]) if shape is None else shape, height, width)
    here = slice(part.start, part.stop)
    return Instances(
        np.clip(objects.boxes[here], 0, edge).astype(np.float32),
        objects.labels[here],
        drawn,
        objects.crowd[here],
        objects.area[here].astype(np.float32),
        objects.ids[here],
    )


def _together(parts: Sequence[Sample]) -> Instances:
    """The objects of all samples, in their order."""
    every: list[Any] = [part.instances for part in parts]
    return Instances(*(np.concatenate([getattr(each, field.name) for each in every]) for field in fields(Instances)))


def _rectangle(box: np.ndarray) -> Shape:
    x0, y0, x1, y1 = box.tolist()
    return (np.array([[x0, y0], [x0, y1], [x1, y1], [x1, y0]]),)


def agreed(parts: dict[str, DenseDataset]) -> dict[str, DenseDataset]:
    """The same with one list of classes: those of train, and behind them what other parts add."""
    order = [part for part in ("train", "all", "val", "test") if part in parts]
    names: dict[str, None] = {}
    numbers: dict[str, int] = {}
    called = one_each(name for part in order for name in parts[part].classes)
    parts = {part: replace(data, classes=tuple(called[name] for name in data.classes)) for part, data in parts.items()}
    for part in order:
        names |= dict.fromkeys(parts[part].classes)
        for name, number in zip(parts[part].classes, parts[part].category_ids, strict=False):
            if number not in numbers.values():
                numbers.setdefault(name, number)
    classes = tuple(names)
    shared: dict[str, DenseDataset] = {part: with_classes(parts[part], classes, part) for part in order}
    if not numbers:
        return shared
    free = max(numbers.values()) + 1
    category_ids = tuple(numbers.get(name, free + place) for place, name in enumerate(classes))
    return {part: replace(dataset, category_ids=category_ids) for part, dataset in shared.items()}
