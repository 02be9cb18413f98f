"""What the check says of data as newcomers have them: no val part, images listed twice, classes called alike."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foreign
from convnext.data.annotated_preflight import preflight_dense
from convnext.data.opening import open_dense_splits, open_parts, open_splits, recognise
from convnext.data.preflight import preflight
from convnext.errors import DataError

TEST_HELD = (
    "There is no val part: the test part is held out, and decides which weights are kept; `--part test` scores the same "
    "images."
)
SIDE = 24


def image(file: Path, seed: int) -> Path:
    """Another seed, another image."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def folders(data: Path, *parts: str, classes: tuple[str, ...] = ("cat", "dog"), each: int = 2) -> Path:
    for number, (part, label, place) in enumerate(
        (part, label, place) for part in parts for label in classes for place in range(each)
    ):
        image(data / part / label / f"{place}.png", number)
    return data


def table(data: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A CSV of (path, label, split) and its images, one for each path."""
    for number, path in enumerate(dict.fromkeys(row[0] for row in rows)):
        image(data / path, number)
    with (data / "all.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("path", "label", "split"), *rows])
    return data


def coco(data: Path, parts: dict[str, list[str]], classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Part -> names of files, which may repeat; a box of another place on each."""
    for part, names in parts.items():
        for number, name in enumerate(dict.fromkeys(names)):
            image(data / part / name, number)
        images = [{"id": 1 + n, "file_name": name, "height": SIDE, "width": SIDE} for n, name in enumerate(names)]
        boxes = [
            {"id": 1 + n, "image_id": 1 + n, "category_id": 1 + n % len(classes), "bbox": [n, n, 9, 9], "area": 81}
            for n in range(len(names))
        ]
        content = {
            "images": images,
            "annotations": boxes,
            "categories": [{"id": 1 + n, "name": name} for n, name in enumerate(classes)],
        }
        (data / part / f"{part}.json").write_text(json.dumps(content))
    return data


def masks(data: Path, *parts: str) -> Path:
    for part in parts:
        for number in range(2):
            image(data / part / "images" / f"{number}.png", number)
            shown = np.zeros((SIDE, SIDE), np.uint8)
            shown[4:12, 4:12] = 1 + number
            file = data / part / "masks" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shown).save(file)
    return data


def said(data: Path) -> tuple[str, ...]:
    """The lines of the check."""
    source = recognise(data)
    if source.task == "classification":
        return preflight(open_splits(source)).lines
    return preflight_dense(open_dense_splits(source)).lines


def rows(*parts: str) -> list[tuple[str, str, str]]:
    return [(f"{part}{n}.png", label, part) for part in parts for n, label in enumerate(("cat", "dog", "cat", "dog"))]


@pytest.mark.parametrize("form", ["folders", "table", "coco", "masks"])
def test_a_test_part_in_place_of_a_val_part_is_said_once(tmp_path, form):
    makers = {
        "folders": lambda data, *parts: folders(data, *parts),
        "table": lambda data, *parts: table(data, rows(*parts)),
        "coco": lambda data, *parts: coco(data, {part: ["a.png", "b.png"] for part in parts}),
        "masks": masks,
    }
    assert said(makers[form](tmp_path / "two", "train", "test")).count(TEST_HELD) == 1
    assert TEST_HELD not in said(makers[form](tmp_path / "three", "train", "val", "test"))


def test_copies_are_told_within_each_part_and_across(tmp_path):
    data = folders(tmp_path, "train", "val")
    for part in ("train", "val"):
        image(data / part / "cat" / "more.png", 900 + len(part))
        image(data / part / "dog" / "more.png", 900 + len(part))
        image(data / part / "dog" / "again.png", 900 + len(part))
    image(data / "val" / "dog" / "0.png", 0)  # train/cat/0.png
    found = preflight(open_splits(recognise(data)))
    lines = "\n".join(found.lines)
    for part in ("train", "val"):
        pair = f"{part}/cat/more.png = {part}/dog/"
        assert f"2 images are in {part} under two classes: {pair}again.png, {pair}more.png." in lines
    assert "1 image of val is also in train, which flatters the result: train/cat/0.png = val/dog/0.png." in lines
    assert "1 image is in train and in val under two classes: train/cat/0.png = val/dog/0.png." in lines
    assert found.duplicates == (("train/cat/0.png", "val/dog/0.png"),)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_row_that_is_there_twice_is_no_copy_of_itself(tmp_path, part):
    given = rows("train", "val")
    lines = said(table(tmp_path, [*given, next(row for row in given if row[2] == part)]))
    assert f"1 image of {part} is listed twice: {part}0.png." in lines
    assert not any("copies" in line or " = " in line for line in lines)


def test_what_is_left_out_is_counted_in_its_own_words(tmp_path):
    given = [*rows("train", "val"), ("t.png", "", "test")]
    lines = said(table(tmp_path, given))
    assert "1 row of the test part without a label was left out." in lines
    lines = said(table(tmp_path, [*given, ("u.png", "", "test"), ("v.png", "cat", "test")]))
    assert (
        "1 file was left out: 1 image of the test part. 2 rows of the test part without a label were left out." in lines
    )


@pytest.mark.parametrize("form", ["table", "coco"])
def test_classes_that_differ_in_case_alone_are_told_in_one_line(tmp_path, form):
    names = ("Car", "car", "dog")
    if form == "table":
        table(tmp_path, [(f"{part}{label}.png", label, part) for part in ("train", "val") for label in names])
    else:
        coco(tmp_path, {part: ["a.png", "b.png", "c.png"] for part in ("train", "val")}, names)
    lines = said(tmp_path)
    assert [line for line in lines if "case" in line] == ["These class names differ only in case: Car, car."]


def test_an_image_that_coco_lists_under_two_ids_is_one_with_the_objects_of_both(tmp_path):
    data = coco(tmp_path, {"train": ["a.png", "b.png", "a.png"], "val": ["c.png", "d.png"]})
    splits = open_dense_splits(recognise(data))
    assert [entry.path for entry in splits.train.entries] == ["train/a.png", "train/b.png"]
    assert [len(entry.objects) for entry in splits.train.entries] == [2, 1]
    assert splits.train.entries[0].objects.boxes[:, :2].tolist() == [[0, 0], [2, 2]]
    assert "1 image is listed again, and the objects of all entries put together." in said(data)


@pytest.mark.parametrize("again", ["a.png", "./a.png"])
def test_a_second_row_of_objects_for_one_image_is_put_to_the_first(tmp_path, again):
    boxes = {"a": [[1, 1, 5, 5]], "b": [[2, 2, 6, 6]], "c": [[1, 1, 5, 5], [9, 9, 4, 4]]}
    given = [("a.png", "a"), ("b.png", "b"), (again, "c")]
    rows = [
        {"file_name": name, "objects": {"bbox": boxes[key], "categories": ["cat"] * len(boxes[key])}}
        for name, key in given
    ]
    for number in range(2):
        image(tmp_path / f"{'ab'[number]}.png", number)
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    [dataset] = open_parts(recognise(tmp_path)).values()
    assert [entry.path for entry in dataset.entries] == ["a.png", "b.png"]
    assert dataset.entries[0].objects.boxes.tolist() == [[1, 1, 6, 6], [9, 9, 13, 13]]  # the same box is one object
    assert dataset.entries[1].objects.boxes.tolist() == [[2, 2, 8, 8]]


@pytest.mark.parametrize("name", ["", "  ", None])
def test_a_category_without_a_name_is_called_by_its_number(tmp_path, name):
    data = coco(tmp_path, {"train": ["a.png", "b.png"], "val": ["c.png", "d.png"]}, ("cat", name))
    assert open_dense_splits(recognise(data)).train.classes == ("cat", "2")


@pytest.mark.parametrize("label", ["", "  ", None])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_row_without_a_label_is_refused_and_never_a_class(tmp_path, label, ending):
    given = [*rows("train", "val"), ("x.png", label or "", "train")]
    table(tmp_path, given)
    if ending == "jsonl":
        (tmp_path / "all.csv").unlink()
        lines = [dict(zip(("path", "label", "split"), row, strict=True)) for row in given[:-1]]
        lines.append({"path": "x.png", "label": label, "split": "train"})
        (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=r"line \d+ has no label\. Give it one or remove the line"):
        open_splits(recognise(tmp_path))


WRITERS = {
    "labelme": foreign.write_labelme,
    "supervisely": foreign.write_supervisely,
    "voc": foreign.write_voc,
    "via": foreign.write_via,
    "datumaro": foreign.write_datumaro,
    "coco": foreign.write_coco,
    "cvat": partial(foreign.write_cvat, files=True),
}


@pytest.mark.parametrize("kept", [0, 10, 0.9])
@pytest.mark.parametrize("form", WRITERS)
def test_a_file_of_annotations_that_is_cut_off_is_named_with_the_reason(tmp_path, form, kept):
    WRITERS[form](tmp_path, foreign.small("boxes"))
    ending = "*.xml" if form in ("voc", "cvat") else "*.json"
    files = [file for file in sorted(tmp_path.rglob(ending)) if file.name != "meta.json"]
    assert len(files) > 1
    cut = files[-1]
    cut.write_bytes(cut.read_bytes()[: kept if kept in (0, 10) else int(kept * cut.stat().st_size)])
    source = recognise(tmp_path, form=form)
    if kept == 0.9 and form in ("via", "datumaro", "coco"):  # a file of many images whose kind can still be told
        with pytest.raises(DataError, match=cut.name):
            open_parts(source)
        return
    parts = open_parts(source)
    problems = {problem for part in parts.values() for problem in part.problems}
    [damaged] = [problem for problem in problems if problem.kind == "damaged file"]
    assert damaged.where == cut.relative_to(tmp_path).as_posix() and damaged.what
    assert not [problem for problem in problems if problem.kind == "no annotations"]  # it is named once


@pytest.mark.parametrize("odd", ["RGB", "P"])
def test_a_mask_in_colours_among_those_of_numbers_is_named(tmp_path, odd):
    shown = np.zeros((SIDE, SIDE), np.uint8)
    shown[4:12, 4:12], shown[14:20, 4:12] = 1, 2
    for number in range(6):
        image(tmp_path / "JPEGImages" / f"{number}.png", number)
        mask = Image.fromarray(shown).convert("P")
        mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        file = tmp_path / "SegmentationClass" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        (mask.convert("RGB") if (number == 3) == (odd == "RGB") else mask).save(file)
    with pytest.raises(DataError) as refused:
        open_parts(recognise(tmp_path, task="segmentation"))
    rare, usual = ("RGB", "one number for each pixel")[:: 1 if odd == "RGB" else -1]
    assert f"1 mask of '{tmp_path}' with {rare} among 5 with {usual}: 'SegmentationClass/3.png'." in str(refused.value)
