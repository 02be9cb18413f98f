"""Tables with a column of objects, as the `datasets` library has them: boxes and categories of each image in its row.

`objects` is {bbox: [...], category: [...]} or a list of {bbox, category}; in JSON lines, Parquet and Arrow. The boxes are x y
width height, as COCO's; where these leave the images and corners do not, they are corners.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convnext.data.arrow import RowStore, Shard
from convnext.data.dataset import DenseDataset
from convnext.data.decode import read_size
from convnext.data.formats.band_trees import finder_of
from convnext.data.formats.coco import dataset_of
from convnext.data.formats.coco_json import CocoFile
from convnext.data.formats.columns import PATH, SPLIT, class_names, objects_in, text_of
from convnext.data.formats.files import Finder
from convnext.data.formats.named_columns import shown_columns
from convnext.data.formats.records import JSON_LINES, Records, columns_at, records_at
from convnext.data.formats.table_files import TYPED, metadata_of, shards_of, tables_at
from convnext.data.parts import part_of, part_of_folder, part_of_name
from convnext.data.problems import SLACK_PX, image_size, whole_of_text
from convnext.data.source import Source
from convnext.data.store import Store, Tree, printable
from convnext.data.written import local_path, stored_name
from convnext.errors import DataError
from convnext.files import to_json

_BOX = ("bbox", "bboxes", "boxes", "box")
_CATEGORY = ("category", "categories", "category_id", "label", "labels", "class", "classes", "class_label")
_SAME = {"area": "area", "iscrowd": "iscrowd", "is_crowd": "iscrowd", "segmentation": "segmentation"}
_HEIGHT, _WIDTH = ("height", "image_height"), ("width", "image_width")
_KNOWN, _SEEN = "known", "seen"  # a class that the file names, and one that an object alone does
_LOOKS = 100  # images whose size tells how boxes are written


def object_tables(tree: Tree) -> dict[str, str]:
    """The tables of a tree that have a column of objects -> their part, '' where that is not known."""
    files = [file for file in (*metadata_of(tree), *tables_at(tree)) if file.lower().endswith(tuple(JSON_LINES))]
    files += [file for file in metadata_of(tree) if file.lower().endswith(".parquet")]
    found = {file: part_of_name(file) or part_of(file) for file in files if objects_in(columns_at(tree, file))}
    return found or {file: part for file, part in shards_of(tree, annotated=True).items() if part != "-"}


def has_objects(tree: Tree) -> bool:
    """Whether a tree of one file is such a table."""
    return tree.files[0].lower().endswith(tuple(TYPED)) and objects_in(columns_at(tree, tree.files[0])) != ""


@dataclass
class _Part:
    """One part on its way to a COCO file."""

    images: list[dict[str, Any]] = field(default_factory=list)
    objects: list[dict[str, Any]] = field(default_factory=list)
    folder: set[str] = field(default_factory=set)  # of the tables


def open_objects(source: Source) -> dict[str, DenseDataset]:
    """The data sets of such tables, by part: 'train', 'val', 'test', 'all'. Raises DataError when nothing can be read."""
    tables = {source.file: ""} if source.file is not None else object_tables(source.tree)
    if not tables:
        raise DataError(f"'{source.name}' has no table with a column 'objects'.")
    parts: dict[str, _Part] = defaultdict(_Part)
    names: dict[str, str] = {}
    shards: dict[str, Shard] = {}
    notes: tuple[str, ...] = ()
    for file, part in tables.items():
        name = source.name if source.file is not None else f"{source.name}/{printable(file)}"
        records = records_at(source.tree, file, name)
        shards |= {file: records.shard} if records.shard is not None else {}
        notes += records.notes
        _add(records, file, part or "all", parts, names)
    store: Store = RowStore(shards, source.store) if shards else source.store
    finder: Finder = _InRows() if shards else finder_of(source.images)
    notes += _corners(parts, store, finder)
    categories = _numbered(parts, names)
    found = {}
    for part, held in parts.items():
        content = {"images": held.images, "annotations": held.objects, "categories": categories}
        beside = held.folder.pop() if len(held.folder) == 1 and source.images is source.tree else ""
        read = CocoFile(to_json(content).encode("utf-8", "surrogatepass"), source.name)
        made = dataset_of(read, source, finder, part=part, beside=beside)
        found[part] = replace(made, store=store, notes=(*made.notes, *notes))
    return found


class _InRows:
    """Images that are in rows are where their names say."""

    def find(self, name: str, part: str = "", *, beside: str = "", surely: bool = False) -> str | None:
        return name


def _add(records: Records, file: str, part: str, parts: dict[str, _Part], names: dict[str, str]) -> None:
    """Every row of one table, as an image and annotations of its part."""
    known = {column.strip().lower(): column for column in reversed(records.columns)}
    image = records.held or _one(known, PATH)
    if not image:
        raise DataError(
            f"'{records.name}' has no column of images ({shown_columns(records.columns)}). Call that of their paths "
            "'file_name'."
        )
    column, split = objects_in(records.columns), _one(known, SPLIT)
    splits = records.values(split) if split else None
    height, width = (_one(known, words) for words in (_HEIGHT, _WIDTH))
    sizes = list(zip(records.values(height), records.values(width), strict=True)) if height and width else None
    classes = _classes(records, column)
    names |= dict.fromkeys((name for name in classes if name not in names), _KNOWN)
    rows = zip(records.images(image), records.values(column), strict=True)
    before: dict[tuple[str, str], list[dict[str, Any]]] = {}  # objects of (part, path): a row may be there twice
    for place, (path, value) in enumerate(rows):
        where = records.where(place)
        own = part
        if splits is not None:
            written = text_of(splits[place], where, "split", records.names_of(split))
            own = part_of_folder(written)
            if not own:
                raise DataError(f"{where}: split '{printable(written)}' is not 'train', 'val' or 'test'.")
        held = parts[own]
        held.folder.add(file.rpartition("/")[0])
        size = {} if sizes is None else {"height": sizes[place][0], "width": sizes[place][1]}
        number = len(held.images) + 1
        held.images.append({"id": number, "file_name": local_path(path, where), **size})
        items = _items(value, where)
        told = before.setdefault((own, stored_name(path)), [])
        fresh = [dict(item) for item in items if item not in told]
        told += items
        for item in fresh:
            category = text_of(item.pop("category"), where, "category", classes)
            names.setdefault(category, _SEEN)
            held.objects.append({"id": len(held.objects) + 1, "image_id": number, "category_id": category, **item})


def _numbered(parts: Mapping[str, _Part], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """COCO's categories, in the order of the names that the files give, then others by number or name; objects get theirs."""
    seen = sorted(
        (name for name, how in names.items() if how == _SEEN and name),
        key=lambda name: (whole_of_text(name) is None, whole_of_text(name) or 0, name),
    )
    number = {name: place for place, name in enumerate([*(name for name in names if names[name] == _KNOWN), *seen])}
    for held in parts.values():
        for item in held.objects:
            item["category_id"] = number.get(item["category_id"])
    return [{"id": place, "name": name} for name, place in number.items()]


def _items(value: object, where: str) -> list[dict[str, Any]]:
    """The objects of a row, each with 'bbox' and 'category'. Raises DataError where they are not of this form."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        columns = {str(key).lower(): each for key, each in value.items() if isinstance(each, list)}
        lengths = {len(each) for each in columns.values()}
        if len(lengths) > 1:
            raise DataError(f"{where}: the lists in its objects have {' and '.join(map(str, sorted(lengths)))} values.")
        value = [dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise DataError(f"{where}: its objects are no lists of bbox and category.")
    found = []
    for item in value:
        known = {str(key).lower(): each for key, each in item.items()}
        box, category = _one({key: key for key in known}, _BOX), _one({key: key for key in known}, _CATEGORY)
        if not box or not category:
            missing = "bbox" if not box else "category"
            raise DataError(f"{where}: its objects have no '{missing}' ({', '.join(known)}).")
        same = {to: known[key] for key, to in _SAME.items() if known.get(key) is not None}
        found.append({"bbox": known[box], "category": known[category], **same})
    return found


def _classes(records: Records, column: str) -> tuple[str, ...]:
    """The names that the file has for numbers of categories, () where it has none."""
    feature = (records.features or {}).get(column)
    while isinstance(feature, list | dict):
        if isinstance(feature, list):
            feature = feature[0] if feature else None
        elif _one(feature, _CATEGORY):
            kind = _one(feature, _CATEGORY)
            return class_names(kind) or class_names(kind.get("feature") if isinstance(kind, dict) else kind)
        else:
            feature = feature.get("feature")
    return ()


def _corners(parts: Mapping[str, _Part], store: Store, finder: Finder) -> tuple[str, ...]:
    """A note where boxes are corners, x0 y0 x1 y1; they are then x y width height."""
    outside = impossible = looks = 0
    for part, held in parts.items():
        boxes: dict[int, list[Any]] = defaultdict(list)
        for item in held.objects:
            boxes[item["image_id"]].append(item["bbox"])
        for image in held.images[:: max(1, len(held.images) // _LOOKS)]:
            size = _size(image, store, finder, part) if boxes[image["id"]] and looks < 2 * _LOOKS else None
            given = _numbers(boxes[image["id"]]) if size is not None else None
            if size is None or given is None:
                continue
            looks += 1
            edge = np.array([size[1], size[0]], np.float64) + SLACK_PX
            outside += int((given[:, :2] + given[:, 2:] > edge).any(axis=1).sum())
            impossible += int(((given[:, 2:] <= given[:, :2]) | (given[:, 2:] > edge)).any(axis=1).sum())
    if not outside or impossible:
        return ()
    for held in parts.values():
        for item in held.objects:
            if (given := _numbers([item["bbox"]])) is not None:
                x0, y0, x1, y1 = given[0].tolist()
                item["bbox"] = [x0, y0, x1 - x0, y1 - y0]
    return ("Boxes were read as corners, x0 y0 x1 y1: as x y width height they would leave their images.",)


def _size(image: Mapping[str, Any], store: Store, finder: Finder, part: str) -> tuple[int, int] | None:
    """(H, W), None where it cannot be known."""
    if size := image_size(image.get("height"), image.get("width")):
        return size
    try:
        path = finder.find(str(image["file_name"]), part)
        return None if path is None else read_size(store.read(path))
    except (DataError, OSError):
        return None


def _numbers(boxes: Sequence[Any]) -> np.ndarray | None:
    """(M, 4) float64, None where a box is no four numbers."""
    try:
        given = np.array(boxes, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return given if given.ndim == 2 and given.shape[1] == 4 else None


def _one(known: Mapping[str, Any], words: Sequence[str]) -> Any:
    return next((known[word] for word in words if word in known), "")
