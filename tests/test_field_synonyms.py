"""Random data sets under other names of folders, in a zip, with other line ends, ids and endings are the same data."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from convnext.data.dataset import DenseDataset, read_sample, read_semantic
from convnext.data.opening import open_parts, recognise
from images import zipped

SIDE = 32  # px; boxes have whole numbers of pixels, so that every form can say them exactly
NAMES = ("cat", "dog")
TRAIN = ("train", "training", "Train", "train_set", "TrainImages", "train2017", "seg_train")
VAL = ("val", "valid", "validation", "Validation", "val_set", "dev", "valid_data")
PICTURES, MASKS = ("images", "img", "JPEGImages", "rgb"), ("masks", "label", "labels", "gt", "annotations")
ENDS = (".png", ".PNG", ".Png")

Box = tuple[int, int, int, int, int]  # x0 y0 x1 y1, class
boxes = st.tuples(st.integers(0, 14), st.integers(0, 14), st.integers(3, 16), st.integers(3, 16), st.integers(0, 1))
objects = st.lists(boxes.map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3], b[4])), min_size=1, max_size=3)
parts = st.fixed_dictionaries(
    {"train": st.lists(objects, min_size=2, max_size=3), "val": st.lists(objects, min_size=1, max_size=2)}
)


@dataclass(frozen=True)
class Look:
    """How a data set is written down, which must not matter."""

    train: str
    val: str
    pictures: str
    masks: str
    end: str
    line: str
    text_ids: bool
    packed: bool

    def folder(self, part: str) -> str:
        return self.train if part == "train" else self.val


looks = st.builds(
    Look,
    train=st.sampled_from(TRAIN),
    val=st.sampled_from(VAL),
    pictures=st.sampled_from(PICTURES),
    masks=st.sampled_from(MASKS),
    end=st.sampled_from(ENDS),
    line=st.sampled_from(("\n", "\r\n")),
    text_ids=st.booleans(),
    packed=st.booleans(),
)
sets = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
Truth = dict[str, list[list[Box]]]


def image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (90, 120, 40)).save(file, format="PNG")


def opened(folder: Path, look: Look) -> dict[str, DenseDataset]:
    """The parts, from the folder or from a zip of it."""
    place = zipped(folder, folder.with_suffix(".zip")) if look.packed else folder
    return dict(open_parts(recognise(place)))


def found(dataset: DenseDataset) -> list[list[Box]]:
    """The boxes of every image in the order of their paths, each with its class."""
    rows = []
    for place in sorted(range(len(dataset.entries)), key=lambda place: dataset.entries[place].path):
        known = read_sample(dataset, place, masks=False).instances
        names = [NAMES.index(dataset.classes[label]) for label in known.labels]
        rows.append(sorted((*map(int, np.rint(box)), name) for box, name in zip(known.boxes, names, strict=True)))
    return rows


def wanted(truth: Truth) -> Truth:
    return {part: [sorted(each) for each in images] for part, images in truth.items()}


@sets
@given(parts, looks)
def test_coco(truth, look):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "set"
        for part, images in truth.items():
            shown, rows = [], []
            for number, each in enumerate(images):
                name = f"{part[0]}{number}{look.end}"
                image(folder / look.folder(part) / name)
                own = f"im{number}" if look.text_ids else number
                shown.append({"id": own, "file_name": name, "height": SIDE, "width": SIDE})
                for x0, y0, x1, y1, label in each:
                    box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
                    category = str(label + 1) if look.text_ids else label + 1
                    rows.append({"id": len(rows) + 1, "image_id": own, "category_id": category} | box)
            categories = [{"id": str(i + 1) if look.text_ids else i + 1, "name": name} for i, name in enumerate(NAMES)]
            content = {"images": shown, "annotations": rows, "categories": categories}
            text = json.dumps(content, indent=1).replace("\n", look.line)
            (folder / look.folder(part) / "_annotations.coco.json").write_bytes(text.encode())
        assert {part: found(data) for part, data in opened(folder, look).items()} == wanted(truth)


@sets
@given(parts, looks)
def test_yolo(truth, look):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "set"
        for part, images in truth.items():
            for number, each in enumerate(images):
                image(folder / look.folder(part) / "images" / f"{number}{look.end}")
                lines = [
                    f"{label} {(x0 + x1) / 2 / SIDE} {(y0 + y1) / 2 / SIDE} {(x1 - x0) / SIDE} {(y1 - y0) / SIDE}"
                    for x0, y0, x1, y1, label in each
                ]
                file = folder / look.folder(part) / "labels" / f"{number}.txt"
                file.parent.mkdir(exist_ok=True)
                file.write_bytes((look.line.join(lines) + look.line).encode())
        text = f"train: {look.train}/images\nval: {look.val}/images\nnames: [cat, dog]\n"
        (folder / "data.yaml").write_bytes(text.replace("\n", look.line).encode())
        assert {part: found(data) for part, data in opened(folder, look).items()} == wanted(truth)


@sets
@given(parts, looks)
def test_voc(truth, look):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "set"
        for part, images in truth.items():
            for number, each in enumerate(images):
                name = f"{part[0]}{number}"
                image(folder / look.folder(part) / f"{name}{look.end}")
                shown = "".join(
                    f"<object><name>{NAMES[label]}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
                    f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>\n"
                    for x0, y0, x1, y1, label in each
                )
                size = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"
                text = f"<annotation>\n<filename>{name}{look.end}</filename>\n{size}\n{shown}</annotation>\n"
                (folder / look.folder(part) / f"{name}.xml").write_bytes(text.replace("\n", look.line).encode())
        assert {part: found(data) for part, data in opened(folder, look).items()} == wanted(truth)


@sets
@given(parts, looks)
def test_masks(truth, look):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "set"
        want: dict[str, list[np.ndarray]] = {"train": [], "val": []}
        for part, images in truth.items():
            for number, each in enumerate(images):
                image(folder / look.folder(part) / look.pictures / f"{number}{look.end}")
                mask = np.zeros((SIDE, SIDE), np.uint8)
                for x0, y0, x1, y1, label in each:
                    mask[y0:y1, x0:x1] = label + 1
                mask[-1] = (0, 1, 2) * 10 + (0, 1)  # every class is in every mask
                want[part].append(mask)
                file = folder / look.folder(part) / look.masks / f"{number}.png"
                file.parent.mkdir(exist_ok=True)
                Image.fromarray(mask).save(file)
        (folder / "classes.txt").write_bytes(look.line.join(["ground", *NAMES]).encode())
        read = opened(folder, look)
        assert read.keys() == want.keys() and read["train"].classes == ("ground", *NAMES)
        for part, masks in want.items():
            for number, mask in enumerate(masks):
                np.testing.assert_array_equal(read_semantic(read[part], number, (SIDE, SIDE)), mask)
