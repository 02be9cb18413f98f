"""Broken annotations are named, counted and left out; everything else goes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext.data.annotated_preflight import preflight_dense
from convnext.data.dataset import DenseDataset, read_sample
from convnext.data.formats.coco import open_coco
from convnext.data.formats.masks import open_masks
from convnext.data.formats.voc import open_voc
from convnext.data.formats.yolo import open_yolo
from convnext.data.opening import DenseSplits, open_dense_splits, recognise
from convnext.errors import DataError
from dense_images import HEIGHT, WIDTH, coco, square, write_coco, write_image, write_maps

LINE = [1.0, 1.0, 3.0, 3.0, 7.0, 7.0]
BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {  # what is changed, the kind of problem, what is told of it
    "right of the image": ({"bbox": [40, 4, 8, 8]}, "box outside", "box 40 4 48 12 in 32 x 24"),
    "above the image": ({"bbox": [4, -9, 8, 8]}, "box outside", "box 4 -9 12 -1"),
    "no width": ({"bbox": [4, 4, 0, 8], "segmentation": []}, "zero area", "box 4 4 4 12"),
    "negative height": ({"bbox": [4, 4, 8, -2], "segmentation": []}, "zero area", "box 4 4 12 2"),
    "a flat polygon": ({"bbox": None, "segmentation": [LINE]}, "zero area", "3 points on one line"),
    "category 9": ({"category_id": 9}, "unknown category", "category 9"),
    "no category": ({"category_id": None}, "unknown category", "category None"),
    "two points": ({"bbox": None, "segmentation": [[1, 1, 5, 5]]}, "few points", "2 points"),
    "an empty polygon": ({"bbox": None, "segmentation": [[]]}, "few points", "0 points"),
    "an odd polygon": (
        {"bbox": None, "segmentation": [[1, 1, 5, 5, 9, 1, 2]]},
        "unreadable",
        "7 numbers: they come in pairs",
    ),
    "a word in a polygon": ({"bbox": None, "segmentation": [[1, "x", 5, 5, 9, 1]]}, "unreadable", "'x' is not a place"),
    "a point at infinity": (
        {"bbox": None, "segmentation": [[1, 1e300, 5, 5, 9, 1]]},
        "unreadable",
        "1e+300 is not a place",
    ),
    "not a number": ({"bbox": [float("nan"), 4, 8, 8], "segmentation": []}, "unreadable", "nan is not a place"),
    "three numbers": ({"bbox": [4, 8, 8], "segmentation": []}, "unreadable", "is not a list of 4 numbers"),
    "another size": (
        {"bbox": None, "segmentation": {"size": [4, 4], "counts": [16]}},
        "mask size",
        "4 x 4 in an image of 32 x 24",
    ),
    "too few runs": ({"bbox": None, "segmentation": {"size": [24, 32], "counts": [9]}}, "mask size", "make 9 pixels"),
    "damaged runs": (
        {"bbox": None, "segmentation": {"size": [24, 32], "counts": "~~"}},
        "unreadable",
        "run lengths are damaged",
    ),
    "negative runs": (
        {"bbox": None, "segmentation": {"size": [24, 32], "counts": [-1, 769]}},
        "unreadable",
        "are damaged",
    ),
    "runs of words": ({"bbox": None, "segmentation": {"size": [24, 32], "counts": ["x"]}}, "unreadable", "are damaged"),
    "no size": ({"bbox": None, "segmentation": {"counts": "~~"}}, "unreadable", "None is not a list of 2 numbers"),
    "nothing at all": ({"segmentation": [], "bbox": None}, "unreadable", "neither box nor outline"),
    "no image": ({"image_id": 12345}, "stray annotation", "image_id 12345"),
    "a list as image": ({"image_id": [1]}, "stray annotation", "image_id [1]"),
}
HALVES = {
    "no width": ({"bbox": [4, 4, 0, 8]}, "no box", "box 4 4 4 12"),
    "negative height": ({"bbox": [4, 4, 8, -2]}, "no box", "box 4 4 12 2"),
    "a flat polygon": ({"segmentation": [LINE]}, "bad outline", "3 points on one line"),
    "two points": ({"segmentation": [[1, 1, 5, 5]]}, "bad outline", "2 points"),
    "an empty polygon": ({"segmentation": [[]]}, "bad outline", "0 points"),
    "an odd polygon": ({"segmentation": [[1, 1, 5, 5, 9, 1, 2]]}, "bad outline", "7 numbers: they come in pairs"),
    "a word in a polygon": ({"segmentation": [[1, "x", 5, 5, 9, 1]]}, "bad outline", "'x' is not a place"),
    "a point at infinity": ({"segmentation": [[1, 1e300, 5, 5, 9, 1]]}, "bad outline", "1e+300 is not a place"),
    "not a number": ({"bbox": [float("nan"), 4, 8, 8]}, "no box", "nan is not a place"),
    "three numbers": ({"bbox": [4, 8, 8]}, "no box", "is not a list of 4 numbers"),
    "another size": ({"segmentation": {"size": [4, 4], "counts": [16]}}, "bad outline", "4 x 4 in an image of 32 x 24"),
    "too few runs": ({"segmentation": {"size": [24, 32], "counts": [9]}}, "bad outline", "make 9 pixels"),
    "damaged runs": ({"segmentation": {"size": [24, 32], "counts": "~~"}}, "bad outline", "run lengths are damaged"),
    "negative runs": ({"segmentation": {"size": [24, 32], "counts": [-1, 769]}}, "bad outline", "are damaged"),
    "runs of words": ({"segmentation": {"size": [24, 32], "counts": ["x"]}}, "bad outline", "are damaged"),
    "no size": ({"segmentation": {"counts": "~~"}}, "bad outline", "None is not a list of 2 numbers"),
}


def kinds(dataset: DenseDataset) -> list[str]:
    return [problem.kind for problem in dataset.problems]


def told(dataset: DenseDataset) -> str:
    return "\n".join(preflight_dense(dataset).lines)


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_annotation_of_coco_is_named_and_the_others_stay(tmp_path, how):
    change, kind, what = BROKEN[how]
    content = coco()
    content["annotations"][0] |= change
    dataset = open_coco(recognise(write_coco(tmp_path, content)))["all"]
    [problem] = dataset.problems
    assert problem.kind == kind and what in problem.what and "annotation 1" in problem.where
    found = read_sample(dataset, 0).instances
    assert found.ids.tolist() == [2] and found.boxes.tolist() == [[15, 4, 23, 12]]
    assert sum(len(entry.objects) for entry in dataset.entries) == 5
    assert problem.where in told(dataset)


@pytest.mark.parametrize("how", HALVES)
def test_an_object_with_one_bad_half_is_kept_by_the_other(tmp_path, how):
    change, kind, what = HALVES[how]
    content = coco()
    content["annotations"][0] |= change
    dataset = open_coco(recognise(write_coco(tmp_path, content)))["all"]
    [problem] = dataset.problems
    assert problem.kind == kind and what in problem.what and "annotation 1" in problem.where
    found = read_sample(dataset, 0).instances
    assert found.ids.tolist() == [1, 2] and found.boxes.tolist() == [[2, 4, 10, 12], [15, 4, 23, 12]]
    assert dataset.entries[0].objects.outlined.tolist() == [kind == "no box", True]
    assert problem.where in told(dataset)


def test_a_box_that_reaches_out_is_cut_and_less_than_a_pixel_is_not_worth_a_word(tmp_path):
    content = coco()
    content["annotations"][0] |= {"bbox": [-3, 4, 8, 8], "segmentation": [square(-3, 4, 8)]}
    content["annotations"][1] |= {"bbox": [24, 4, 8.5, 8]}
    dataset = open_coco(recognise(write_coco(tmp_path, content)))["all"]
    assert kinds(dataset) == ["box cut"]
    found = read_sample(dataset, 0).instances
    assert found.boxes.tolist() == [[0, 4, 5, 12], [24, 4, 32, 12]]
    assert found.masks[0].sum() == 5 * 8
    assert "1 box is cut at the edge of the image: 1.png annotation 1 (-3 4 8 8)." in told(dataset)


def test_of_several_polygons_only_the_broken_one_is_left_out(tmp_path):
    content = coco()
    content["annotations"][0]["segmentation"] = [[1, 2], square(2, 4, 8)]
    dataset = open_coco(recognise(write_coco(tmp_path, content)))["all"]
    assert kinds(dataset) == ["few points"]
    assert read_sample(dataset, 0).instances.masks.sum(axis=(1, 2)).tolist() == [64, 64]


def test_lists_with_something_else_in_them_are_read_past_it(tmp_path):
    content = coco()
    file = write_coco(tmp_path, content)
    content["images"] += [None, {"id": 10, "file_name": "2.png"}, {"file_name": "3.png"}]
    content["annotations"] += [None, 5]
    file.write_text(json.dumps(content))
    dataset = open_coco(recognise(file))["all"]
    assert sorted(kinds(dataset)) == ["double image", "unreadable", "unreadable", "unreadable"]
    assert len(dataset.entries) == 5 and read_sample(dataset, 4).instances.labels.size == 0


def test_images_numbered_by_words_get_numbers(tmp_path):
    content = coco()
    for item in content["images"]:
        item["id"] = f"image {item['id']}"
    for item in content["annotations"]:
        item["image_id"] = f"image {item['image_id']}"
    dataset = open_coco(recognise(write_coco(tmp_path, content)))["all"]
    assert [entry.image_id for entry in dataset.entries] == [1, 2, 3, 4] and len(dataset.notes) == 1
    assert read_sample(dataset, 0).instances.ids.tolist() == [1, 2]


def test_preflight_names_counts_and_goes_on(tmp_path):
    content = coco(8)
    content["annotations"][0]["category_id"] = 99
    content["annotations"][2]["bbox"] = [100, 100, 5, 5]
    content["annotations"][3]["segmentation"] = []
    file = write_coco(tmp_path, content)
    (tmp_path / "images" / "3.png").unlink()
    write_image(tmp_path / "images" / "4.png", height=9)
    (tmp_path / "images" / "5.png").write_bytes(b"no image")
    findings = preflight_dense(open_dense_splits(recognise(file), val_share=0))
    assert findings.problems == {"unknown category": 1, "box outside": 1, "missing file": 1, "no mask": 1}
    assert findings.broken == {
        "images/4.png": "it has 32 x 9 pixels, and its annotations are for 32 x 24",
        "images/5.png": "not an image, or damaged in its first bytes",
    }
    lines = "\n".join(findings.lines)
    for line in (
        "2 images cannot be read and will be skipped: images/4.png (it has 32 x 9 pixels",
        "1 image is annotated and not there: 3.png.",
        "1 box outside the image is left out: 2.png annotation 3 (box 100 100 105 105",
        "1 object of an unknown category is left out: 1.png annotation 1 (category 99).",
        "1 object without an outline is masked by the whole box: images/2.png annotation 4.",
        "2 classes have fewer than 10 objects in train: cat (6), dog (4).",
        "1 train image has no object at all.",
    ):
        assert line in lines, line
    assert findings.per_class == {"train": {"cat": 6, "dog": 4}, "val": {"cat": 0, "dog": 0}}
    assert findings.images["train"] == {"cat": 6, "dog": 4} and findings.median_size == (HEIGHT, WIDTH)
    assert not findings.errors


def test_more_than_five_of_a_kind_are_counted_not_listed(tmp_path):
    content = coco(9)
    for annotation in content["annotations"][:12]:
        annotation["category_id"] = 5
    line = next(
        line
        for line in told(open_coco(recognise(write_coco(tmp_path, content)))["all"]).split("\n")
        if "unknown" in line
    )
    assert (
        line.startswith("12 objects of an unknown category are left out: ")
        and line.endswith("and 7 more.")
        and line.count("annotation") == 5
    )


def test_data_without_one_good_object_or_image_are_not_trained_on(tmp_path):
    content = coco()
    for annotation in content["annotations"]:
        annotation |= {"bbox": [0, 0, 0, 0], "segmentation": []}
    dataset = open_coco(recognise(write_coco(tmp_path / "a", content)))["all"]
    errors = preflight_dense(DenseSplits(dataset, dataset)).errors
    [error] = errors
    assert error.startswith(
        "There is no object that can be used in train: nothing can be learned. Left out: 6 objects of"
    )
    dataset = open_coco(recognise(write_coco(tmp_path / "b")))["all"]
    for file in (tmp_path / "b" / "images").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 4 val images can be read"):
        preflight_dense(dataset)


def test_a_sample_of_very_many_images_is_looked_at(tmp_path):
    dataset = open_coco(recognise(write_coco(tmp_path, coco(8))))["all"]
    assert "4 of 8 files were looked at" in preflight_dense(dataset, limit=4, full=False).lines[0]


# The other forms


def test_broken_voc_files_and_objects_are_named_and_the_others_stay(tmp_path):
    def thing(name: str, *box: object) -> str:
        corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        return f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"

    good = thing("dog", 2, 2, 9, 9)
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    pages = {
        "a": size + good + thing("dog", 40, 2, 44, 9) + thing("cat", 5, 5, 4, 9) + thing("cat", 5, "", 4, 9),
        "b": good + thing("", 2, 2, 9, 9) + thing("cat", "nan", 2, 9, 9),  # no size: the image's own
        "c": good,
        "d": "<object>",
    }
    for name, inside in pages.items():
        (tmp_path / f"{name}.xml").write_text(f"<annotation>{inside}</annotation>")
        if name != "c":
            write_image(tmp_path / f"{name}.jpg")
    (tmp_path / "e.xml").write_text('<!DOCTYPE x [<!ENTITY a "b">]><annotation>&a;</annotation>')
    (tmp_path / "f.xml").write_text("<something/>")
    dataset = open_voc(recognise(tmp_path, form="voc"))["all"]
    assert sorted(kinds(dataset)) == [
        "box outside",
        *["damaged file"] * 3,
        "missing file",
        *["unreadable"] * 3,
        "zero area",
    ]
    assert [read_sample(dataset, n).instances.boxes.tolist() for n in (0, 1)] == [[[1, 1, 9, 9]], [[1, 1, 9, 9]]]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("7 0.5 0.5 0.2 0.2", "unknown category"),
        ("-1 0.5 0.5 0.2 0.2", "unknown category"),
        ("0.5 0.5 0.5 0.2 0.2", "unknown category"),
        ("0 1.5 0.5 0.2 0.2", "box outside"),
        ("0 0.5 0.5 0 0.2", "zero area"),
        ("0 0.9 0.5 0.4 0.2", "box cut"),
        ("0 0.5 0.5 0.2", "unreadable"),
        ("0 0.5 0.5 0.2 x", "unreadable"),
        ("0 0.5 0.5 0.2 0.2 0.9", "unreadable"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3", "zero area"),
    ],
)
def test_a_broken_line_of_yolo_is_named_and_the_others_stay(tmp_path, line, kind):
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(f"1 0.5 0.5 0.5 0.5\n{line}\n")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    dataset = open_yolo(recognise(tmp_path, form="yolo"))["all"]
    [problem] = dataset.problems
    assert problem.kind == kind and problem.where == "labels/a.txt line 2"
    found = read_sample(dataset, 0).instances
    assert found.labels.tolist() == ([1, 0] if kind == "box cut" else [1]) and found.boxes.max() <= WIDTH


def test_yolo_labels_and_places_without_images_are_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "data.yaml").write_text("train: images\nval: nowhere\nnames: [cat]\n")
    dataset = open_yolo(recognise(tmp_path, form="yolo"))["train"]
    assert {problem.where for problem in dataset.problems} == {"labels/b.txt", "nowhere"}


def test_maps_that_do_not_fit_are_named_and_strange_values_do_not_count(tmp_path):
    good = np.zeros((HEIGHT, WIDTH), np.uint8)
    good[:4] = 1
    strange = good.copy()
    strange[0] = 9
    write_maps(tmp_path, {"a": good, "b": strange, "c": good, "d": good})
    Image.fromarray(good[:5]).save(tmp_path / "labels" / "c.png")
    (tmp_path / "labels" / "d.png").unlink()
    Image.fromarray(good).save(tmp_path / "labels" / "e.png")
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    dataset = open_masks(recognise(tmp_path, form="masks"))["all"]
    findings = preflight_dense(DenseSplits(dataset, dataset))
    assert findings.problems == {"no map": 1, "missing file": 1}
    assert findings.broken == {"images/c.jpg": "its mask 'labels/c.png' has 32 x 5 pixels, the image 32 x 24"}
    assert findings.per_class["train"] == {"sky": 2 * 20 * WIDTH, "road": 7 * WIDTH, "car": 0}
    assert findings.images["train"] == {"sky": 2, "road": 2, "car": 0}
    lines = "\n".join(findings.lines)
    assert "2 masks have values that are no class, and do not count: images/b.jpg (9)" in lines
    assert "1 class has no pixels in train: car." in lines
    with pytest.raises(DataError, match="has 32 x 5 pixels"):
        read_sample(dataset, 2)


def test_every_line_is_one_line(tmp_path: Path):
    content = coco()
    content["images"][0]["file_name"] = "1\n.png"
    content["annotations"][0]["category_id"] = "9\n9"
    content["categories"][0]["name"] = "a\nb"
    dataset = open_coco(recognise(write_coco(tmp_path, content)))["all"]
    lines = preflight_dense(DenseSplits(dataset, dataset)).lines
    assert dataset.classes == ("cat", "a b") and lines
    assert not [line for line in lines if "\n" in line]
