"""Other people's objects: one bad half does not cost the good one, and no number is taken for what it is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convnext.data.dataset import DenseDataset, read_sample
from convnext.data.formats.coco import open_coco
from convnext.data.formats.yolo import open_yolo
from convnext.data.masks import compress, rasterise, runs_of
from convnext.data.opening import recognise
from dense_images import HEIGHT, WIDTH, coco, square, write_coco, write_image

BOXES = [[2, 4, 10, 12], [15, 4, 23, 12]]  # of the first image of `coco`


def opened(folder: Path, content: dict[str, Any]) -> DenseDataset:
    return open_coco(recognise(write_coco(folder, content)))["all"]


def first(dataset: DenseDataset) -> tuple[list[list[float]], list[str]]:
    """Boxes and class names of the first image."""
    found = read_sample(dataset, 0).instances
    return found.boxes.tolist(), [dataset.classes[label] for label in found.labels]


def kinds(dataset: DenseDataset) -> list[str]:
    return [problem.kind for problem in dataset.problems]


# COCO


@pytest.mark.parametrize(
    "outline", [[[]], [[2, 4, 8, 8]], [2, 4, 8, 8], [[2, 4], [10, 12]], "none", {"size": [24, 32]}, 7]
)
def test_a_good_box_is_kept_beside_any_outline(tmp_path, outline):
    content = coco()
    for annotation in content["annotations"]:
        annotation["segmentation"] = outline
    dataset = opened(tmp_path, content)
    assert first(dataset) == (BOXES, ["dog", "cat"]) and kinds(dataset) == ["bad outline"] * 6


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [2, 4, -8, 8], ["a", 4, 8, 8], 5, {}, [2, 4, 8], [None] * 4])
def test_a_bad_box_is_taken_from_the_outline(tmp_path, box):
    content = coco()
    for annotation in content["annotations"]:
        annotation["bbox"] = box
    dataset = opened(tmp_path, content)
    assert first(dataset) == (BOXES, ["dog", "cat"]) and kinds(dataset) == ["no box"] * 6
    assert read_sample(dataset, 0).instances.masks.sum(axis=(1, 2)).tolist() == [64, 64]


def test_a_missing_box_is_not_worth_a_word(tmp_path):
    content = coco()
    for annotation in content["annotations"]:
        del annotation["bbox"]
    dataset = opened(tmp_path, content)
    assert first(dataset) == (BOXES, ["dog", "cat"]) and kinds(dataset) == []


def test_a_box_from_an_outline_beyond_the_edge_is_cut(tmp_path):
    content = coco()
    content["annotations"][0] |= {"bbox": ["x"], "segmentation": [square(-3, 4, 8)]}
    dataset = opened(tmp_path, content)
    assert first(dataset)[0] == [[0, 4, 5, 12], BOXES[1]] and kinds(dataset) == ["no box", "box cut"]


def test_an_object_outside_the_image_is_not_called_kept(tmp_path):
    content = coco()
    content["annotations"][0] |= {"bbox": [40, 4, 8, 8], "segmentation": [[]]}
    dataset = opened(tmp_path, content)
    assert first(dataset)[0] == BOXES[1:] and kinds(dataset) == ["box outside"]


def test_flat_lists_are_outlines(tmp_path):
    content = coco()
    for annotation in content["annotations"]:
        [annotation["segmentation"]] = annotation["segmentation"]
    dataset = opened(tmp_path, content)
    assert first(dataset)[0] == BOXES and kinds(dataset) == []
    assert read_sample(dataset, 0).instances.masks.sum(axis=(1, 2)).tolist() == [64, 64]


def test_run_lengths_as_the_text_of_bytes_are_read(tmp_path):
    content = coco()
    for annotation in content["annotations"]:
        points = np.array(annotation["segmentation"][0]).reshape(-1, 2)
        text = compress(runs_of(rasterise((points,), HEIGHT, WIDTH)))
        annotation["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": str(text)}
    dataset = opened(tmp_path, content)
    assert first(dataset)[0] == BOXES and kinds(dataset) == []
    assert read_sample(dataset, 0).instances.masks[0, 4:12, 2:10].all()


@pytest.mark.parametrize("counts", ["b'", "b'a', 1", "b'\\x00'", "b'~~'", "b'' + 1"])
def test_damaged_text_of_bytes_costs_the_outline_only(tmp_path, counts):
    content = coco()
    content["annotations"][0]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
    dataset = opened(tmp_path, content)
    assert first(dataset)[0] == BOXES and kinds(dataset) == ["bad outline"]


@pytest.mark.parametrize(("images", "annotations"), [(int, str), (str, int), (float, str), (str, float), (str, str)])
def test_ids_of_images_as_text_and_as_numbers_are_the_same(tmp_path, images, annotations):
    content = coco()
    for image in content["images"]:
        image["id"] = images(image["id"])
    for annotation in content["annotations"]:
        annotation["image_id"] = annotations(annotation["image_id"])
    dataset = opened(tmp_path, content)
    assert [len(entry.objects) for entry in dataset.entries] == [2, 2, 2, 0] and kinds(dataset) == []
    assert first(dataset) == (BOXES, ["dog", "cat"])


def test_an_id_that_both_spell_is_its_own(tmp_path):
    content = coco()
    content["images"][1]["id"] = "10"
    dataset = opened(tmp_path, content)
    assert [len(entry.objects) for entry in dataset.entries] == [2, 0, 2, 0] and kinds(dataset) == [
        "stray annotation"
    ] * 2


@pytest.mark.parametrize(
    ("categories", "annotations"), [(str, str), (str, int), (int, str), ("c{}".format, "c{}".format)]
)
def test_ids_of_categories_may_be_text(tmp_path, categories, annotations):
    content = coco()
    for category in content["categories"]:
        category["id"] = categories(category["id"])
    for annotation in content["annotations"]:
        annotation["category_id"] = annotations(annotation["category_id"])
    dataset = opened(tmp_path, content)
    assert first(dataset) == (BOXES, ["dog", "cat"]) and kinds(dataset) == []
    assert dataset.category_ids == ((1, 2) if categories(1) == "c1" else (3, 7))


@pytest.mark.parametrize("outlines", ["shares", "pixels", "none"])
@pytest.mark.parametrize("zero", [False, True])
def test_boxes_as_shares_of_the_image_become_pixels_and_are_said(tmp_path, outlines, zero):
    content = coco()
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x / WIDTH, y / HEIGHT, width / WIDTH, height / HEIGHT]
        if outlines == "none":
            annotation["segmentation"] = []
        elif outlines == "shares":
            [points] = annotation["segmentation"]
            annotation["segmentation"] = [[p / (HEIGHT if n % 2 else WIDTH) for n, p in enumerate(points)]]
    if zero and outlines != "none":
        content["annotations"][0]["bbox"] = [0, 0, 0, 0]
    dataset = opened(tmp_path, content)
    np.testing.assert_allclose(first(dataset)[0], BOXES, atol=1e-4)
    assert "shares of the image's width and height" in " ".join(dataset.notes)
    if outlines != "none":
        assert read_sample(dataset, 0).instances.masks.sum(axis=(1, 2)).tolist() == [64, 64]


def test_one_box_in_pixels_says_that_all_are(tmp_path):
    content = coco()
    for annotation in content["annotations"][:5]:
        annotation["bbox"] = [0.25, 0.25, 0.5, 0.5]
    dataset = opened(tmp_path, content)
    assert first(dataset)[0] == [[0.25, 0.25, 0.75, 0.75]] * 2 and not dataset.notes


# YOLO


def yolo(folder: Path, *lines: str, more: str = "") -> DenseDataset:
    """An image for each line."""
    for n, line in enumerate(lines):
        write_image(folder / "images" / f"{n}.jpg", seed=n)
        file = folder / "labels" / f"{n}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(line)
    (folder / "data.yaml").write_text(f"names: [cat, dog]\n{more}")
    return open_yolo(recognise(folder, form="yolo"))["all"]


POSES = {
    "said, without visibility": ("1 .5 .5 .5 .5 .3 .3 .7 .3 .7 .7 .3 .7", "kpt_shape: [4, 2]"),
    "said, in lines": ("1 .5 .5 .5 .5 .3 .3 .7 .3 .7 .7 .3 .7", "kpt_shape:\n- 4\n- 2"),
    "said, with visibility": ("1 .5 .5 .5 .5 .3 .3 2 0 0 0", "kpt_shape: [2, 3]"),
    "seen by its visibility": ("1 .5 .5 .5 .5 .3 .3 2 0 0 0", ""),
    "one point": ("1 .5 .5 .5 .5 .3 .3 1", ""),
}


@pytest.mark.parametrize("how", POSES)
def test_poses_keep_their_box(tmp_path, how):
    line, more = POSES[how]
    dataset = yolo(tmp_path, line, line, more=more)
    assert first(dataset) == ([[8, 6, 24, 18]], ["dog"]) and kinds(dataset) == []
    assert not dataset.entries[0].objects.outlined.any() and "keypoints are not" in " ".join(dataset.notes)


def test_a_line_that_kpt_shape_does_not_allow_is_named(tmp_path):
    dataset = yolo(tmp_path, "1 .5 .5 .5 .5", "0 .1 .1 .5 .1 .5 .5", more="kpt_shape: [4, 2]\n")
    assert first(dataset) == ([[8, 6, 24, 18]], ["dog"]) and kinds(dataset) == ["unreadable"]


@pytest.mark.parametrize("more", [" 0.91", " 0.91 1", " 1 17"])
def test_predictions_keep_their_box(tmp_path, more):
    dataset = yolo(tmp_path, f"1 .5 .5 .5 .5{more}", f"0 .5 .5 .25 .5{more}")
    assert first(dataset) == ([[8, 6, 24, 18]], ["dog"]) and kinds(dataset) == []
    assert not dataset.entries[0].objects.outlined.any() and "a confidence" in " ".join(dataset.notes)


def test_predictions_among_boxes_are_no_triangles(tmp_path):
    dataset = yolo(tmp_path, "1 .5 .5 .5 .5 0.91 1", "0 .5 .5 .25 .5")
    assert first(dataset) == ([[8, 6, 24, 18]], ["dog"]) and not dataset.entries[0].objects.outlined.any()


def test_points_that_may_be_poses_are_outlines_and_said(tmp_path):
    dataset = yolo(tmp_path, "1 .5 .5 .5 .5 .3 .3 .7 .3 .7 .7 .3 .7")
    assert dataset.entries[0].objects.outlined.all() and "kpt_shape: [4, 2]" in " ".join(dataset.notes)


@pytest.mark.parametrize(
    "line", ["1 .25 .25 .25 .75 .75 .75 .75 .25", "1 .25 .25 .25 .75 .75 .75", "1 0 0 .5 0 1 0 1 1 0 1"]
)
def test_outlines_stay_outlines_without_a_word(tmp_path, line):
    dataset = yolo(tmp_path, line, line)
    assert dataset.entries[0].objects.outlined.all() and not dataset.notes and not dataset.problems
