"""Photos that EXIF turns: annotations made before the turn and after it lie on the same pixels, and it is said which."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from convnext.data.annotated_preflight import preflight_dense
from convnext.data.dataset import DenseDataset, read_sample, upright
from convnext.data.formats.export import to_coco
from convnext.data.opening import open_dense, open_dense_splits, recognise
from convnext.data.turned import turned_boxes
from convnext.data.upright import turned_pixels

HEIGHT, WIDTH = 24, 40  # stored
TOP, LEFT, BOTTOM, RIGHT = 3, 6, 11, 20  # of a bright rectangle, the object


def stored_pixels() -> np.ndarray:
    pixels = np.random.default_rng(5).integers(0, 40, (HEIGHT, WIDTH)).astype(np.uint8)
    pixels[TOP:BOTTOM, LEFT:RIGHT] = 220
    return pixels


def photo(file: Path, orientation: int, pixels: np.ndarray | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored_pixels() if pixels is None else pixels).save(file, exif=exif)


def by_pillow(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What people see, by Pillow."""
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.array(ImageOps.exif_transpose(image))


def box_round(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def stored_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[TOP:BOTTOM, LEFT:RIGHT] = 1
    return mask


def coco(folder: Path, size: tuple[int, int], box: list[int], orientation: int, count: int = 3) -> DenseDataset:
    """Photos of one orientation, and their one object in a COCO file that says `size` (H, W)."""
    x0, y0, x1, y1 = box
    outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    images, rows = [], []
    for number in range(1, count + 1):
        photo(folder / f"{number}.png", orientation)
        images.append({"id": number, "file_name": f"{number}.png", "height": size[0], "width": size[1]})
        row = {"id": number, "image_id": number, "category_id": 7, "iscrowd": 0, "segmentation": outline}
        rows.append(row | {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)})
    content = {"images": images, "annotations": rows, "categories": [{"id": 7, "name": "bright"}]}
    (folder / "all.json").write_text(json.dumps(content))
    return open_dense(recognise(folder / "all.json"))


def assert_bright(dataset: DenseDataset) -> None:
    """The object lies on the bright pixels of what people see: its mask to the pixel, its box round them."""
    sample = read_sample(dataset, 0)
    bright = sample.image[:, :, 0] > 128
    assert sample.instances.masks is not None
    np.testing.assert_array_equal(sample.instances.masks[0], bright)
    assert sample.instances.boxes.tolist() == [box_round(bright)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_and_boxes_turn_as_pillow_turns_the_photo(orientation):
    want = by_pillow(stored_mask(), orientation)
    np.testing.assert_array_equal(turned_pixels(stored_mask(), orientation), want)
    boxes = np.array([[LEFT, TOP, RIGHT, BOTTOM]], np.float64)
    assert turned_boxes(boxes, (HEIGHT, WIDTH), orientation).tolist() == [box_round(want)]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_from_before_the_turn_lie_on_the_object(tmp_path, orientation):
    dataset = coco(tmp_path, (HEIGHT, WIDTH), [LEFT, TOP, RIGHT, BOTTOM], orientation)
    assert_bright(dataset)
    lines = "\n".join(preflight_dense(dataset).lines)
    said = "3 photos are turned by EXIF and annotated for the size before that; boxes and masks are turned with them: 1.png"
    assert said in lines and "cannot be read" not in lines


def test_boxes_beyond_the_size_from_before_the_turn_are_a_doubt(tmp_path):
    dataset = coco(tmp_path, (HEIGHT, WIDTH), [2, 4, 20, 38], 6)  # as people see it, though the size is not
    assert "3 boxes on them reach beyond that size: if made after the turn" in "\n".join(preflight_dense(dataset).lines)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotations_from_after_the_turn_lie_on_the_object(tmp_path, orientation):
    seen = by_pillow(stored_mask(), orientation)
    dataset = coco(tmp_path, seen.shape, box_round(seen), orientation)
    assert_bright(dataset)
    doubt = "which fit both ways, are taken as made after the turn"
    assert (doubt in "\n".join(preflight_dense(dataset).lines)) == (orientation in (2, 3, 4))


def test_the_scorer_sees_the_object_where_the_network_does(tmp_path):
    dataset = coco(tmp_path, (HEIGHT, WIDTH), [LEFT, TOP, RIGHT, BOTTOM], 6)
    x0, y0, x1, y1 = box_round(by_pillow(stored_mask(), 6))
    written = to_coco(dataset, [0], {0: (WIDTH, HEIGHT)})
    assert written["images"] == [{"id": 1, "file_name": "1.png", "height": WIDTH, "width": HEIGHT}]
    assert written["annotations"][0]["bbox"] == [x0, y0, x1 - x0, y1 - y0]
    assert written["annotations"][0]["segmentation"]["size"] == [WIDTH, HEIGHT]
    assert upright(dataset, 0, (WIDTH, HEIGHT)).boxes.tolist() == [[x0, y0, x1, y1]]


def test_sides_that_are_swapped_without_a_turn_are_named(tmp_path):
    dataset = coco(tmp_path, (WIDTH, HEIGHT), [1, 1, 9, 9], 1)
    photo(tmp_path / "2.png", 6)  # this one is as its annotations say
    [first, *_] = preflight_dense(dataset).broken.items()
    says = "it has 40 x 24 pixels, and its annotations are for 24 x 40: its sides are swapped, and its EXIF does not turn it"
    assert first == ("1.png", says)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_from_before_the_turn_lies_on_the_object(tmp_path, orientation):
    for number in range(4):
        photo(tmp_path / "images" / f"{number}.png", orientation)
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask = stored_mask() if number else by_pillow(stored_mask(), orientation)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    splits = open_dense_splits(recognise(tmp_path), val_share=0)
    for number in range(len(splits.train.entries)):
        sample = read_sample(splits.train, number)
        np.testing.assert_array_equal(sample.semantic == 1, sample.image[:, :, 0] > 128)
    lines = "\n".join(preflight_dense(splits).lines)
    assert "3 photos are turned by EXIF and annotated for the size before that" in lines


def test_voc_says_its_size_and_yolo_cannot(tmp_path):
    for form in ("voc", "yolo"):
        photo(tmp_path / form / "images" / "1.jpg", 6)
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>1</depth></size>"
    box = f"<xmin>{LEFT}</xmin><ymin>{TOP}</ymin><xmax>{RIGHT}</xmax><ymax>{BOTTOM}</ymax>"
    (tmp_path / "voc" / "annotations").mkdir()
    (tmp_path / "voc" / "annotations" / "1.xml").write_text(
        f"<annotation><filename>1.jpg</filename>{size}<object><name>a</name><bndbox>{box}</bndbox></object></annotation>"
    )
    voc = open_dense(recognise(tmp_path / "voc"))
    [stored] = voc.entries[0].objects.boxes.tolist()
    [turned] = read_sample(voc, 0).instances.boxes.tolist()
    # six turns by 90 degrees: x_seen = H - y_stored, y_seen = x_stored
    assert turned == [HEIGHT - stored[3], stored[0], HEIGHT - stored[1], stored[2]]
    assert "1 photo is turned by EXIF and annotated for the size before that" in "\n".join(preflight_dense(voc).lines)
    (tmp_path / "yolo" / "labels").mkdir()
    (tmp_path / "yolo" / "labels" / "1.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    yolo = open_dense(recognise(tmp_path / "yolo"))
    assert read_sample(yolo, 0).instances.boxes.tolist() == [[9, 10, 15, 30]]
    says = (
        "1 photo is turned by EXIF, and its annotations, which fit both ways, are taken as made after the turn: images"
    )
    assert says in "\n".join(preflight_dense(yolo).lines)
