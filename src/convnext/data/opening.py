"""From what the user names to images with boxes, masks or maps: the form is recognised or named."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from convnext.data.dataset import DenseDataset, Task, with_classes
from convnext.data.decode import decode_indices
from convnext.data.formats.coco import coco_files, open_coco
from convnext.data.formats.files import is_image
from convnext.data.formats.masks import open_masks, paired
from convnext.data.formats.voc import open_voc, xml_files
from convnext.data.formats.yolo import label_files, open_yolo, yaml_file
from convnext.data.store import Tree, is_zip, printable, require, tree_of
from convnext.errors import DataError, nearest

Form = Literal["coco", "voc", "yolo", "masks"]
Parts = dict[str, DenseDataset]

_YOLO_NUMBERS = 5  # of an object, or more: its class and its box
_FORMS = "COCO JSON, Pascal VOC XML, YOLO text, or images with label maps"


@dataclass(frozen=True)
class DenseSplits:
    """The two parts of a data set, with the same classes."""

    train: DenseDataset
    val: DenseDataset
    val_share: float | None = None  # what was held out of data without a val part


def open_dense(
    path: str | Path,
    images: str | Path | None = None,
    *,
    form: str | None = None,
    part: str | None = None,
    classes: tuple[str, ...] | None = None,
) -> DenseDataset:
    """Annotated images to evaluate on or to look at: one part of `path`.

    `part`: 'train', 'val' or 'test'; None: val where there is one, else test, else all there is. `classes`, usually a
    checkpoint's, fixes what labels mean. Raises DataError when nothing can be read, or a class is not known.
    """
    parts = open_parts(path, images, form=form)
    name = printable(str(path))
    if part is not None and part not in parts and set(parts) != {"all"}:
        raise DataError(f"'{name}' has no part '{part}'.{nearest(part, parts)} It has {', '.join(sorted(parts))}.")
    chosen = next(parts[name] for name in (part, "val", "test", "all", "train") if name in parts)
    return chosen if classes is None else with_classes(chosen, classes, name)


def open_dense_splits(
    path: str | Path,
    images: str | Path | None = None,
    *,
    val: str | Path | None = None,
    val_images: str | Path | None = None,
    form: str | None = None,
    val_share: float = 0.2,
    seed: int = 0,
) -> DenseSplits:
    """The train and val images of `path`, or of `path` and `val`, its file or folder of held-out images.

    Data without a val part is split: `val_share` of the images, at least one of two, by a hash of (seed, path).
    Raises DataError when nothing can be trained.
    """
    if not 0 <= val_share < 1:
        raise DataError(f"val_share = {val_share:g} must be at least 0 and less than 1.")
    name, parts = printable(str(path)), open_parts(path, images, form=form)
    if val is not None:
        train = parts.get("train") or parts.get("all") or next(iter(parts.values()))
        held_out = open_dense(val, val_images if val_images is not None else images, form=form)
        return DenseSplits(train, with_classes(held_out, train.classes, printable(str(val))))
    whole = parts.get("train") or parts.get("all")
    if whole is None:
        raise DataError(f"'{name}' has no train part, only {', '.join(sorted(parts))}. Name the images to train on.")
    held = parts.get("val") or (parts.get("test") if "train" in parts else None)
    return DenseSplits(whole, held) if held is not None else _split(whole, val_share, seed)


def open_parts(path: str | Path, images: str | Path | None = None, *, form: str | None = None) -> Parts:
    """All parts of `path`: of 'train', 'val', 'test' those there are, or 'all'. They share their classes."""
    known = get_args(Form)
    if form is not None and form not in known:
        raise DataError(f"no form of data is called '{form}'.{nearest(form, known)} There are {', '.join(known)}.")
    form = form or recognise(path, images)
    if form == "yolo":
        return open_yolo(path)
    openers: dict[str, Callable[..., Parts]] = {"coco": open_coco, "voc": open_voc, "masks": open_masks}
    return _agreed(openers[form](path, images))


def recognise(path: str | Path, images: str | Path | None = None) -> Form:
    """Which of the four forms the user named. Raises DataError when it is none of them."""
    path = Path(path)
    require(path)
    name = printable(str(path))
    if path.is_file() and not is_zip(path):
        if path.suffix.lower() == ".json":
            return "coco"
        if path.suffix.lower() in (".yaml", ".yml"):
            return "yolo"
        raise DataError(f"'{name}' is neither COCO JSON nor a YOLO data.yaml. It can be {_FORMS}.")
    tree = tree_of(path)
    checks: dict[Form, Callable[[Tree], object]] = {  # the surest first
        "coco": coco_files,
        "voc": _has_annotations,
        "yolo": lambda tree: yaml_file(tree) or label_files(tree),
        "masks": lambda tree: images is not None or paired(tree, []),
    }
    form = next((form for form, check in checks.items() if check(tree)), None)
    if form is None:
        raise DataError(f"'{name}' has no annotations that are known. It can be {_FORMS}.")
    return form


def task_of(path: str | Path, images: str | Path | None = None) -> Task | None:
    """What can be learned from `path`; None: it is not annotated in a form of this module.

    Class folders may hold a text beside each image, a list of names, or one image twice: they stay class folders.
    """
    try:
        form = recognise(path, images)
    except DataError:
        return None
    if images is None and (Path(path).is_dir() or is_zip(Path(path))):
        tree = tree_of(Path(path))
        if (form == "yolo" and not _has_boxes(tree)) or (form == "masks" and not _has_maps(tree)):
            return None
    return "segmentation" if form == "masks" else "detection"


def _has_boxes(tree: Tree) -> bool:
    """Whether the first text that is not empty holds numbers; where all are, whether a list of names calls it YOLO."""
    labels = label_files(tree)
    first = next((text for file in labels if (text := tree.store.read(file).split(b"\n", 1)[0].split())), None)
    if first is None:
        return yaml_file(tree) is not None and (bool(labels) or not any(map(is_image, tree.files)))
    try:
        return len([float(word) for word in first]) >= _YOLO_NUMBERS
    except ValueError:
        return False


def _has_maps(tree: Tree) -> bool:
    """Whether half of the images have a map, and the first map holds numbers instead of colours."""
    pairs = paired(tree, [])
    alone = sum(map(is_image, tree.files)) - 2 * len(pairs)
    try:
        decode_indices(tree.store.read(pairs[0][1]))
    except DataError:
        return False
    return alone <= len(pairs)


def _has_annotations(tree: Tree) -> bool:
    return any(b"<annotation" in tree.store.read(file) for file in xml_files(tree)[:10])


def _agreed(parts: Parts) -> Parts:
    """The same with one list of classes: those of train, and behind them what other parts add."""
    order = [part for part in ("train", "all", "val", "test") if part in parts]

    names: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for part in order:
        names |= dict.fromkeys(parts[part].classes)
        for name, number in zip(parts[part].classes, parts[part].category_ids, strict=False):
            if number not in numbers.values():
                numbers.setdefault(name, number)
    classes = tuple(names)
    agreed: Parts = {part: with_classes(parts[part], classes, part) for part in order}
    if not numbers:
        return agreed
    free = max(numbers.values()) + 1
    category_ids = tuple(numbers.get(name, free + place) for place, name in enumerate(classes))
    return {part: replace(dataset, category_ids=category_ids) for part, dataset in agreed.items()}


def _split(whole: DenseDataset, val_share: float, seed: int) -> DenseSplits:
    def order(place: int) -> bytes:
        key = f"{seed}:{whole.entries[place].path}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(key, digest_size=16).digest()

    places = range(len(whole.entries))
    count = min(len(places) - 1, max(1, round(len(places) * val_share))) if val_share else 0
    chosen = set(sorted(places, key=order)[:count])
    return DenseSplits(
        replace(whole, entries=tuple(whole.entries[place] for place in places if place not in chosen)),
        replace(whole, entries=tuple(whole.entries[place] for place in places if place in chosen), problems=()),
        val_share,
    )
