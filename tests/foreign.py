"""Data sets written in the forms of other tools by a few lines each, which import nothing from the project.

Axes: H W pixel rows and columns.
"""

import base64
import io
import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from pycocotools import mask as coco_tools

_MANY = 30  # objects of an image, more than a test has time for
CLASSES = ("dog", "cat", "a & b <c>")


@dataclass
class Thing:
    """An object: its box x0 y0 x1 y1, and polygons x y x y ..., or a mask (H, W)."""

    label: str
    box: tuple[float, float, float, float]
    polygons: list[list[float]] | None = None
    mask: np.ndarray | None = None

    def pixels(self, height: int, width: int) -> np.ndarray:
        """(H, W) uint8, as COCO's own tools draw it."""
        if self.mask is not None:
            return self.mask
        packed = coco_tools.merge(coco_tools.frPyObjects(self.polygons, height, width))
        return coco_tools.decode(packed)


@dataclass
class Shown:
    """An image and what is on it."""

    part: str  # 'train', 'val'
    name: str
    data: bytes
    size: tuple[int, int]  # (H, W)
    things: list[Thing]


def small(kind: str, *, single: bool = False) -> list[Shown]:
    """A set made by chance, the same every time. `kind`: 'boxes', 'polygons' or 'masks'; `single`: of one piece each."""
    random, found = np.random.default_rng(7), []
    for number in range(7):
        height, width = int(random.integers(40, 60)), int(random.integers(50, 80))
        data = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(data, "JPEG")
        things = []
        for _ in range(number % 4):
            x0, y0 = random.integers(1, width - 22), random.integers(1, height - 22)
            x1, y1 = x0 + random.integers(8, 20), y0 + random.integers(8, 20)
            box = tuple(map(float, (x0, y0, x1, y1)))
            label = CLASSES[int(random.integers(3))]
            if kind == "boxes":
                things.append(Thing(label, box))
            elif kind == "polygons":
                middle = (x0 + x1) / 2 + 0.25
                first = [middle, float(y0), float(x1), float(y1), float(x0), y1 - 2.5]
                second = [x0 + 1.0, y0 + 1.0, x0 + 4.0, y0 + 1.0, x0 + 4.5, y0 + 5.5]
                things.append(Thing(label, box, [first] if single or random.random() < 0.5 else [first, second]))
            else:
                mask = np.zeros((height, width), np.uint8)
                mask[y0:y1, x0:x1] = random.random((y1 - y0, x1 - x0)) < 0.7
                mask[[y0, y1 - 1], :] = mask[:, [x0, x1 - 1]] = 0
                mask[y0, x0] = mask[y1 - 1, x1 - 1] = 1
                things.append(Thing(label, box, mask=mask))
        found.append(
            Shown("train" if number < 4 else "val", f"im {number}.jpg", data.getvalue(), (height, width), things)
        )
    return found


def of_coco(archive: Path, kind: str, *, count: int, single: bool = False, digits: int | None = None) -> list[Shown]:
    """The first images of each part of a zip of COCO's form, one of them empty, read by hand; crowds are left out.

    `single`: only objects of one polygon; `digits` of coordinates.
    """
    found = []
    with zipfile.ZipFile(archive) as pack:
        names = {name.rsplit("/", 1)[-1]: name for name in pack.namelist() if name.endswith(".jpg")}
        for part in ("train", "val"):
            [file] = [name for name in pack.namelist() if f"instances_{part}" in name]
            content = json.loads(pack.read(file))
            classes = {row["id"]: row["name"] for row in content["categories"]}
            own: list[Shown] = []
            for image in content["images"]:
                if len(own) == count:
                    break
                size = image["height"], image["width"]
                rows = [row for row in content["annotations"] if row["image_id"] == image["id"] and not row["iscrowd"]]
                if len(rows) > _MANY:
                    continue
                things = [_thing(row, classes[row["category_id"]], kind, digits) for row in rows]
                if kind == "polygons":
                    things = [thing for thing in things if thing.polygons and (len(thing.polygons) == 1 or not single)]
                if things or all(image.things for image in own):
                    name = image["file_name"].rsplit("/", 1)[-1]
                    own.append(Shown(part, name, pack.read(names[name]), size, things))
            found += own
    return found


def _thing(row: dict[str, Any], label: str, kind: str, digits: int | None) -> Thing:
    x, y, width, height = row["bbox"]
    shape = row["segmentation"]
    polygons = mask = None
    if kind == "polygons" and isinstance(shape, list):
        polygons = [[round(value, digits) if digits else value for value in polygon] for polygon in shape]
    elif kind == "masks":
        size = row["segmentation"]["size"] if isinstance(shape, dict) else None
        mask = coco_tools.decode(shape) if size else None
    return Thing(label, (x, y, x + width, y + height), polygons, mask)


def put(file: Path, data: bytes | str) -> None:
    """A file, and the folders that it needs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)


def classes_of(shown: Iterable[Shown]) -> list[str]:
    """In the order of their names."""
    return sorted({thing.label for image in shown for thing in image.things})


def write_labelme(folder: Path, shown: list[Shown], *, embedded: bool = False, apart: bool = False) -> None:
    """part/x.json beside part/x.jpg, or in a folder of its own; `embedded`: the image is inside."""
    for image in shown:
        height, width = image.size
        shapes = []
        for number, thing in enumerate(image.things):
            row = {"label": thing.label, "group_id": None, "shape_type": "polygon", "flags": {}, "description": ""}
            x0, y0, x1, y1 = thing.box
            if thing.polygons is not None:
                group = number + 1 if len(thing.polygons) > 1 else None
                pieces = [row | {"points": _pairs(piece), "group_id": group} for piece in thing.polygons]
                shapes += pieces
            elif thing.mask is not None:
                top, left, part = _cut(thing.mask)
                corners = [[left, top], [left + part.shape[1] - 1, top + part.shape[0] - 1]]
                shapes.append(row | {"points": corners, "shape_type": "mask", "mask": _png(part > 0)})
            else:  # labelme keeps the corners in the order in which they were clicked
                corners = [[x1, y0], [x0, y1]] if number % 2 else [[x0, y0], [x1, y1]]
                shapes.append(row | {"points": corners, "shape_type": "rectangle"})
        stem = Path(image.name).stem
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"..\\pictures\\{image.name}" if number_of(stem) % 2 else image.name,
            "imageData": base64.b64encode(image.data).decode() if embedded else None,
            "imageHeight": height,
            "imageWidth": width,
        }
        put(folder / image.part / ("json" if apart else "") / f"{stem}.json", json.dumps(content, indent=2))
        if not embedded:
            put(folder / image.part / image.name, image.data)


def number_of(text: str) -> int:
    """Some number, the same for the same text."""
    return sum(text.encode())


def _pairs(flat: list[float]) -> list[list[float]]:
    return [list(pair) for pair in zip(flat[::2], flat[1::2], strict=True)]


def _cut(mask: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Top, left and the smallest part that holds all of a mask."""
    rows, columns = np.nonzero(mask)
    top, left = int(rows.min()), int(columns.min())
    return top, left, mask[top : rows.max() + 1, left : columns.max() + 1]


def _png(pixels: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def write_cvat(folder: Path, shown: list[Shown], *, files: bool = False) -> None:
    """annotations.xml with subsets and images/<subset>/x.jpg; `files`: an XML for each part and no subsets."""
    for file in ["Train", "Validation"] if files else [""]:
        root = ElementTree.Element("annotations")
        ElementTree.SubElement(root, "version").text = "1.1"
        labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
        for name in classes_of(shown):
            label = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(label, "name").text = name
            ElementTree.SubElement(label, "color").text = "#fa3253"
            ElementTree.SubElement(label, "attributes")
        for number, image in enumerate(shown):
            subset = {"train": "Train", "val": "Validation"}[image.part]
            if file in ("", subset):
                height, width = map(str, image.size)
                item = ElementTree.SubElement(
                    root, "image", id=str(number), name=image.name, width=width, height=height
                )
                if not files:
                    item.set("subset", subset)
                for place, thing in enumerate(image.things):
                    _cvat_shape(item, thing, place)
                put(folder / "images" / subset / image.name, image.data)
        put(folder / (f"{file}.xml" if files else "annotations.xml"), ElementTree.tostring(root))


def _cvat_shape(item: ElementTree.Element, thing: Thing, place: int) -> None:
    common = {"label": thing.label, "source": "manual", "occluded": "0", "z_order": "0"}
    x0, y0, x1, y1 = thing.box
    for piece in thing.polygons or []:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in _pairs(piece))
        group = {"group_id": str(place + 1)} if len(thing.polygons or []) > 1 else {}
        ElementTree.SubElement(item, "polygon", common | {"points": points} | group)
    if thing.mask is not None:
        top, left, part = _cut(thing.mask)
        runs, value, length = [], 0, 0
        for pixel in part.ravel().tolist():
            if pixel != value:
                runs.append(length)
                value, length = pixel, 0
            length += 1
        text = {"rle": ", ".join(map(str, [*runs, length])), "left": str(left), "top": str(top)}
        text |= {"width": str(part.shape[1]), "height": str(part.shape[0])}
        ElementTree.SubElement(item, "mask", common | text)
    if thing.polygons is None and thing.mask is None:
        corners = {"xtl": f"{x0:.2f}", "ytl": f"{y0:.2f}", "xbr": f"{x1:.2f}", "ybr": f"{y1:.2f}"}
        box = ElementTree.SubElement(item, "box", common | corners)
        ElementTree.SubElement(box, "attribute", name="age").text = "3"


def write_via(folder: Path, shown: list[Shown], *, project: bool = False) -> None:
    """part/via_region_data.json beside the images; `project`: saved as a project instead of exported."""
    for part in ("train", "val"):
        content = {}
        for image in (image for image in shown if image.part == part):
            regions = []
            for thing in image.things:
                x0, y0, x1, y1 = thing.box
                shape: dict[str, Any] = {"name": "rect", "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
                if thing.polygons is not None:
                    [piece] = thing.polygons
                    shape = {"name": "polygon", "all_points_x": piece[::2], "all_points_y": piece[1::2]}
                attributes = {"colour": "red", "Class": {thing.label: True} if project else thing.label}
                regions.append({"shape_attributes": shape, "region_attributes": attributes})
            given = regions if project else {str(place): region for place, region in enumerate(regions)}
            row = {"filename": image.name, "size": len(image.data), "regions": given, "file_attributes": {}}
            content[f"{image.name}{len(image.data)}"] = row
            put(folder / part / image.name, image.data)
        whole = {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {}} if project else content
        put(folder / part / "via_region_data.json", json.dumps(whole))


def write_supervisely(folder: Path, shown: list[Shown]) -> None:
    """part/img/x.jpg and part/ann/x.jpg.json, with meta.json at the top."""
    put(folder / "meta.json", json.dumps({"classes": [{"title": name} for name in classes_of(shown)], "tags": []}))
    for image in shown:
        objects = []
        for thing in image.things:
            x0, y0, x1, y1 = thing.box
            row: dict[str, Any] = {"classTitle": thing.label, "geometryType": "rectangle"}
            if thing.polygons is not None:
                [piece] = thing.polygons
                row |= {"geometryType": "polygon", "points": {"exterior": _pairs(piece), "interior": []}}
            elif thing.mask is not None:
                top, left, part = _cut(thing.mask)
                data = io.BytesIO()
                shades = Image.fromarray(part).convert("P")
                shades.putpalette([0, 0, 0, 255, 255, 255])
                shades.save(data, "PNG", transparency=0)
                text = base64.b64encode(zlib.compress(data.getvalue())).decode()
                row |= {"geometryType": "bitmap", "bitmap": {"data": text, "origin": [left, top]}}
            else:
                row["points"] = {"exterior": [[x0, y0], [x1, y1]], "interior": []}
            objects.append(row)
        height, width = image.size
        content = {"description": "", "tags": [], "size": {"height": height, "width": width}, "objects": objects}
        put(folder / image.part / "ann" / f"{image.name}.json", json.dumps(content))
        put(folder / image.part / "img" / image.name, image.data)


def write_datumaro(folder: Path, shown: list[Shown]) -> None:
    """annotations/<part>.json and images/<part>/x.jpg."""
    classes = classes_of(shown)
    for part in ("train", "val"):
        items = []
        for image in (image for image in shown if image.part == part):
            rows: list[dict[str, Any]] = []
            for number, thing in enumerate(image.things, 1):
                common = {"id": number, "label_id": classes.index(thing.label), "group": number, "attributes": {}}
                x0, y0, x1, y1 = thing.box
                if thing.polygons is not None:
                    rows += [common | {"type": "polygon", "points": piece} for piece in thing.polygons]
                elif thing.mask is not None:
                    packed = coco_tools.encode(np.asfortranarray(thing.mask))
                    rle = {"counts": packed["counts"].decode(), "size": list(image.size)}
                    rows.append(common | {"type": "mask", "rle": rle})
                else:
                    rows.append(common | {"type": "bbox", "bbox": [x0, y0, x1 - x0, y1 - y0]})
            place = {"path": image.name, "size": list(image.size)}
            items.append({"id": Path(image.name).stem, "annotations": rows, "attr": {"frame": 0}, "image": place})
            put(folder / "images" / part / image.name, image.data)
        labels = [{"name": name, "parent": "", "attributes": []} for name in classes]
        content = {"info": {}, "categories": {"label": {"labels": labels}}, "items": items}
        put(folder / "annotations" / f"{part}.json", json.dumps(content))


def write_coco(folder: Path, shown: list[Shown], *, counts: str = "text") -> None:
    """part/_annotations.coco.json; `counts` of masks: 'text', 'list' or 'bytes', as str() of Python's bytes."""
    classes = classes_of(shown)
    for part in ("train", "val"):
        images, rows = [], []
        for number, image in enumerate((image for image in shown if image.part == part), 1):
            height, width = image.size
            images.append({"id": number, "file_name": image.name, "height": height, "width": width})
            for thing in image.things:
                x0, y0, x1, y1 = thing.box
                row = {"id": len(rows) + 1, "image_id": number, "category_id": 1 + classes.index(thing.label)}
                row |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0}
                if thing.mask is not None:
                    packed = coco_tools.encode(np.asfortranarray(thing.mask))["counts"]
                    ends = np.flatnonzero(np.diff(thing.mask.T.ravel(), prepend=0, append=2)).tolist()
                    shapes = {"text": packed.decode(), "bytes": str(packed), "list": np.diff(ends, prepend=0).tolist()}
                    row["segmentation"] = {"size": [height, width], "counts": shapes[counts]}
                else:
                    row["segmentation"] = thing.polygons or []
                rows.append(row)
            put(folder / part / image.name, image.data)
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        content = {"images": images, "annotations": rows, "categories": categories}
        put(folder / part / "_annotations.coco.json", json.dumps(content))


def write_yolo(folder: Path, shown: list[Shown], *, points: int = 0) -> None:
    """part/images, part/labels and data.yaml; `points`: of a pose behind each box."""
    classes = classes_of(shown)
    for image in shown:
        height, width = image.size
        lines = []
        for thing in image.things:
            x0, y0, x1, y1 = thing.box
            values = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
            if thing.polygons is not None:
                [piece] = thing.polygons
                values = [value / (height if place % 2 else width) for place, value in enumerate(piece)]
            values += [x0 / width, y0 / height, 2.0] * points
            lines.append(" ".join([str(classes.index(thing.label)), *(f"{value:.6f}" for value in values)]))
        put(folder / image.part / "images" / image.name, image.data)
        put(folder / image.part / "labels" / f"{Path(image.name).stem}.txt", "\n".join(lines))
    shape = f"\nkpt_shape: [{points}, 3]" if points else ""
    names = ", ".join(f'"{name}"' for name in classes)
    put(
        folder / "data.yaml", f"train: ../train/images\nval: ../val/images\nnc: {len(classes)}\nnames: [{names}]{shape}"
    )


def write_voc(folder: Path, shown: list[Shown]) -> None:
    """Annotations, JPEGImages and ImageSets/Main, as of VOC: pixels count from 1 and a box holds its last pixel."""
    for image in shown:
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = image.name
        size = ElementTree.SubElement(root, "size")
        for side, value in zip(("width", "height", "depth"), (image.size[1], image.size[0], 3), strict=True):
            ElementTree.SubElement(size, side).text = str(value)
        for thing in image.things:
            item = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(item, "name").text = thing.label
            box = ElementTree.SubElement(item, "bndbox")
            x0, y0, x1, y1 = thing.box
            for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), (x0 + 1, y0 + 1, x1, y1), strict=True):
                ElementTree.SubElement(box, corner).text = f"{value:.3f}"
        put(folder / "Annotations" / f"{Path(image.name).stem}.xml", ElementTree.tostring(root))
        put(folder / "JPEGImages" / image.name, image.data)
    for part in ("train", "val"):
        names = [Path(image.name).stem for image in shown if image.part == part]
        put(folder / "ImageSets" / "Main" / f"{part}.txt", "\n".join(names))
