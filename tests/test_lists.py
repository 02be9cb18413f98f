"""Published data sets whose classes and parts are lists in plain texts: each is what its authors say it is."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from convnext.data.formats.folders import listed
from convnext.data.formats.listing import PARTS
from convnext.data.opening import open_splits, recognise
from convnext.errors import DataError
from images import zipped

Said = dict[str, tuple[object, str]]  # image -> (its class, or classes; its part)


def put(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (sum(map(ord, str(file))) % 256, 70, 90)).save(file)


def said(data: Path) -> Said:
    listing = listed(recognise(data))
    found: Said = {}
    for path, label, part in zip(listing.paths, listing.labels.tolist(), listing.part.tolist(), strict=True):
        names = (
            [listing.classes[at] for at, mark in enumerate(label) if mark == 1] if isinstance(label, list) else label
        )
        found[Path(path).stem] = (names if isinstance(label, list) else listing.classes[label], PARTS[part])
    return found


def cub(folder: Path) -> Said:
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    rows = [
        (f"{name}/{name[4:]}_{k:04}_{7 * k}.jpg", place, k % 3 > 0)
        for place, name in enumerate(names)
        for k in range(6)
    ]
    for path, _, _ in rows:
        image(folder / "images" / path)
    put(folder / "images.txt", *(f"{number} {row[0]}" for number, row in enumerate(rows, 1)))
    put(folder / "image_class_labels.txt", *(f"{number} {row[1] + 1}" for number, row in enumerate(rows, 1)))
    put(folder / "train_test_split.txt", *(f"{number} {int(row[2])}" for number, row in enumerate(rows, 1)))
    put(folder / "classes.txt", *(f"{number} {name}" for number, name in enumerate(names, 1)))
    put(folder / "bounding_boxes.txt", *(f"{number} 1.0 2.0 3.0 2.0" for number, _ in enumerate(rows, 1)))
    return {Path(path).stem: (names[place], "train" if train else "test") for path, place, train in rows}


def pets(folder: Path) -> Said:
    """Masks of the same names lie in annotations/trimaps, of some images."""
    rows = [(f"{name}_{k}", place) for place, name in enumerate(("Abyssinian", "Bengal", "pug")) for k in range(1, 7)]
    for name, _ in rows:
        image(folder / "images" / f"{name}.jpg")
    image(folder / "annotations/trimaps/Bengal_1.png")
    lines = [f"{name} {place + 1} {1 + (place > 1)} {1 + place % 2}" for name, place in rows]
    put(folder / "annotations/list.txt", "#Image CLASS-ID SPECIES BREED ID", *lines)
    put(folder / "annotations/trainval.txt", *lines[::2])
    put(folder / "annotations/test.txt", *lines[1::2])
    return {name: (name.rsplit("_", 1)[0], "test" if at % 2 else "train") for at, (name, _) in enumerate(rows)}


def food(folder: Path) -> Said:
    rows = [f"{name}/{100 + 37 * k}{place}" for place, name in enumerate(("apple_pie", "waffles")) for k in range(6)]
    for row in rows:
        image(folder / "images" / f"{row}.jpg")
    put(folder / "meta/train.txt", *rows[::2])
    put(folder / "meta/test.txt", *rows[1::2])
    put(folder / "meta/classes.txt", "apple_pie", "waffles")
    put(folder / "meta/labels.txt", "Apple pie", "Waffles")
    return {row.split("/")[1]: (row.split("/")[0], "test" if at % 2 else "train") for at, row in enumerate(rows)}


def dtd(folder: Path) -> Said:
    """Ten ways to part the images, of which the first is read."""
    rows = [f"{name}/{name}_{k:04}.jpg" for name in ("banded", "woven") for k in range(6)]
    for row in rows:
        image(folder / "images" / row)
    found: Said = {}
    for way in range(10, 0, -1):
        random.Random(way).shuffle(rows)
        for at, part in enumerate(("train", "val", "test")):
            put(folder / f"labels/{part}{way}.txt", *rows[at::3])
            found |= {Path(row).stem: (row.split("/")[0], part) for row in rows[at::3]}
    put(folder / "labels/labels_joint_anno.txt", *(f"{row} {row.split('/')[0]}" for row in rows))
    return found


def sun(folder: Path) -> Said:
    rows = [f"/{name}/sun_{place}{k}x.jpg" for place, name in enumerate(("a/abbey", "a/attic/dark")) for k in range(4)]
    for row in rows:
        image(folder / row[1:])
    for way in ("01", "02"):
        shift = int(way) % 2
        put(folder / f"Training_{way}.txt", *rows[shift::2])
        put(folder / f"Testing_{way}.txt", *rows[1 - shift :: 2])
    put(folder / "ClassName.txt", "/a/abbey", "/a/attic/dark")
    return {Path(row).stem: (row.rsplit("/", 1)[0][3:], "train" if at % 2 else "test") for at, row in enumerate(rows)}


def places(folder: Path) -> Said:
    rows = [
        (f"/{name}/{place}{k:07}.jpg", place)
        for place, name in enumerate(("a/airfield", "b/bakery/shop"))
        for k in range(4)
    ]
    for path, _ in rows:
        image(folder / "data_256" / path[1:])
    put(folder / "places365_train_standard.txt", *(f"{path} {place}" for path, place in rows))
    put(folder / "categories_places365.txt", "/a/airfield 0", "/b/bakery/shop 1")
    return {Path(path).stem: (("airfield", "bakery/shop")[place], "") for path, place in rows}


def imagenet(folder: Path) -> Said:
    names = ["tench", "goldfish", "great white shark"]
    for k in range(9):
        image(folder / f"ILSVRC2012_val_{k:08}.JPEG")
    put(folder / "val.txt", *(f"ILSVRC2012_val_{k:08}.JPEG {k % 3}" for k in range(9)))
    put(folder / "synset_words.txt", *names)
    return {f"ILSVRC2012_val_{k:08}": (names[k % 3], "") for k in range(9)}


def kaggle(folder: Path) -> Said:
    synsets = ["n01440764", "n01443537"]
    for k in range(8):
        image(folder / "val" / f"ILSVRC2012_val_{k:08}.JPEG")
    boxes = (f"{synsets[k % 2]} 1 1 3 3 " * (1 + k % 3) for k in range(8))
    put(
        folder / "LOC_val_solution.csv",
        "ImageId,PredictionString",
        *(f"ILSVRC2012_val_{k:08},{box}" for k, box in enumerate(boxes)),
    )
    return {f"ILSVRC2012_val_{k:08}": (synsets[k % 2], "") for k in range(8)}


def aircraft(folder: Path) -> Said:
    """Lists of several kinds of classes, of which those of the most are read."""
    variants, makers = ["707-320", "727-200", "A320"], ["Boeing", "Boeing", "Airbus"]
    rows = [(f"{1000000 + 17 * k + kind}", kind) for kind in range(3) for k in range(6)]
    for name, _ in rows:
        image(folder / "images" / f"{name}.jpg")
    for word, names in (("variant", variants), ("manufacturer", makers)):
        for at, part in enumerate(("train", "val", "test")):
            put(folder / f"images_{word}_{part}.txt", *(f"{name} {names[kind]}" for name, kind in rows[at::3]))
        both = [*rows[0::3], *rows[1::3]]
        put(folder / f"images_{word}_trainval.txt", *(f"{name} {names[kind]}" for name, kind in both))
    put(folder / "images_box.txt", *(f"{name} 1 1 3 3" for name, _ in rows))
    put(folder / "variants.txt", *variants)
    return {name: (variants[kind], ("train", "val", "test")[at % 3]) for at, (name, kind) in enumerate(rows)}


def celeba(folder: Path) -> Said:
    names = ["Bald", "Young", "Smiling"]
    for k in range(12):
        image(folder / "img_align_celeba" / f"{k:06}.jpg")
    marks = (" ".join(" 1" if k >> bit & 1 else "-1" for bit in range(3)) for k in range(12))
    put(folder / "list_attr_celeba.txt", "12", " ".join(names), *(f"{k:06}.jpg {mark}" for k, mark in enumerate(marks)))
    put(folder / "list_eval_partition.txt", *(f"{k:06}.jpg {k % 3}" for k in range(12)))
    has = {k: sorted(names[bit] for bit in range(3) if k >> bit & 1) for k in range(12)}
    return {f"{k:06}": (has[k], ("train", "val", "test")[k % 3]) for k in range(12)}


def fiftyone(folder: Path) -> Said:
    for k in range(8):
        image(folder / "data" / f"{k:04x}f.jpg")
    held = {"classes": ["cat", "dog", "none"], "labels": {f"{k:04x}f": k % 2 for k in range(7)} | {"0007f": None}}
    put(folder / "labels.json", json.dumps(held))
    return {f"{k:04x}f": (("cat", "dog")[k % 2], "") for k in range(7)}


SETS: list[Callable[[Path], Said]] = [
    cub, pets, food, dtd, sun, places, imagenet, kaggle, aircraft, celeba, fiftyone
]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("write", SETS)
def test_a_published_set_is_what_its_lists_say(tmp_path, write, packed):
    wanted = write(tmp_path / "data")
    assert said(zipped(tmp_path / "data", tmp_path / "data.zip") if packed else tmp_path / "data") == wanted


def test_what_the_lists_are_taken_for_is_told(tmp_path):
    pets(tmp_path)
    image(tmp_path / "images/stray_1.jpg")
    splits = open_splits(recognise(tmp_path))
    assert "'annotations/test.txt' and 'annotations/trainval.txt' say the classes of the images." in splits.notes
    assert splits.left_out["images that no list names"] == 1


def test_texts_that_are_no_lists_change_nothing(tmp_path):
    for k in range(8):
        image(tmp_path / "ab"[k % 2] / f"{k}.jpg")
    put(tmp_path / "README.txt", "My photos 2024", "3 places, 1 camera")
    put(tmp_path / "classes.txt", "1 a", "2 b")
    put(tmp_path / "best.txt", "a/0 first", "b/3 second")
    put(tmp_path / "numbers.txt", *map(str, range(100, 140)))
    assert recognise(tmp_path).form == "folders" and {name for name, _ in said(tmp_path).values()} == {"a", "b"}


@pytest.mark.parametrize(
    ("folders", "mat"), [(["jpg"], "imagelabels.mat"), (["cars_train", "cars_test"], "devkit/cars_train_annos.mat")]
)
def test_labels_in_a_file_of_matlab_are_called_so_with_the_way_out(tmp_path, folders, mat):
    for folder in folders:
        for k in range(4):
            image(tmp_path / folder / f"image_{k:05}.jpg")
    put(tmp_path / mat, "MATLAB 5.0")
    with pytest.raises(DataError, match=rf"'{mat}' is a file of MATLAB.* scipy\.io\.loadmat reads it\.$"):
        open_splits(recognise(tmp_path))


def test_boxes_of_fiftyone_and_of_other_tables_are_named(tmp_path):
    image(tmp_path / "fo/data/a.jpg")
    boxes = {"classes": ["cat"], "labels": {"a": [{"label": 0, "bounding_box": [0.1, 0.1, 0.5, 0.5]}]}}
    put(tmp_path / "fo/labels.json", json.dumps(boxes))
    with pytest.raises(DataError, match=r"'labels\.json' is FiftyOne's JSON of objects, .*COCODetectionDataset"):
        recognise(tmp_path / "fo")
    image(tmp_path / "wheat/a.jpg")
    put(tmp_path / "wheat/train.csv", "image_id,PredictionString", "a,0.9 1 1 3 3")
    with pytest.raises(DataError, match=r"has boxes \(column 'PredictionString'\), which are not read"):
        open_splits(recognise(tmp_path / "wheat"))
