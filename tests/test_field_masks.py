"""Segmentation data as people and tools write them: known for what they are, with the right classes at named pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext.data.annotated_preflight import preflight_dense
from convnext.data.dataset import DenseDataset, read_sample, read_semantic
from convnext.data.decode import decode
from convnext.data.labelled import Splits
from convnext.data.opening import open_dense, open_dense_splits, open_parts, open_splits, recognise
from convnext.data.preflight import preflight
from convnext.data.sample import IGNORE
from convnext.errors import DataError
from dense_images import write_image
from images import zipped

SIDE = 48
CAT, DOG, SKY, OUT = (9, 9), (30, 30), (0, 40), (44, 2)  # (row, column) of pixels of two objects and of what is around


def layout(sky: Any, cat: Any, dog: Any) -> np.ndarray:
    """Two squares, 10 x 10 at CAT and 12 x 12 at DOG, before a ground: values or colours."""
    pixels = np.full((SIDE, SIDE, *np.shape(sky)), sky, np.uint8)
    pixels[5:15, 5:15], pixels[24:36, 24:36] = cat, dog
    return pixels


VALUES = layout(0, 1, 2)
COLOURS = layout((0, 0, 0), (48, 112, 32), (176, 112, 32))


def write(folder: Path, images: str, masks: str, pixels: np.ndarray, count: int = 4, first: int = 0) -> Path:
    """Files called as the patterns say, with '{}' for a number."""
    for number in range(first, first + count):
        write_image(folder / images.format(number), height=SIDE, width=SIDE, seed=number)
        file = folder / masks.format(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return folder


def labels(dataset: DenseDataset, index: int = 0) -> np.ndarray:
    return read_semantic(dataset, index, (SIDE, SIDE))


def named(dataset: DenseDataset, *places: tuple[int, int], index: int = 0) -> list[str | None]:
    """The class at each place; None: it does not count."""
    found = [int(labels(dataset, index)[place]) for place in places]
    return [None if label == IGNORE else dataset.classes[label] for label in found]


def only(place: Path, **how: Any) -> DenseDataset:
    source = recognise(place, **how)
    assert (source.task, source.form) == ("segmentation", "masks")
    [dataset] = open_parts(source).values()
    return dataset


def lines(dataset: DenseDataset) -> str:
    return "\n".join(preflight_dense(dataset, full=False).lines)


LAYOUTS = [
    ("img/a{}.jpg", "label/a{}.png", "all"),
    ("rgb/a{}.jpg", "gt/a{}.png", "all"),
    ("imgs/a{}.png", "ground_truth/a{}.png", "all"),
    ("train/images/a{}.jpg", "train/masks/a{}.png", "train"),
    ("images/valid/a{}.jpg", "masks/valid/a{}.png", "val"),
    ("test/rgb/a{}.png", "test/gt/a{}.png", "test"),
    ("train/a{}.jpg", "train_masks/a{}_mask.png", "train"),
    ("train/a{}.jpg", "train_mask/a{}.png", "train"),
    ("photos/a{}_sat.jpg", "masks/a{}_mask.png", "all"),
    ("a{}_sat.jpg", "a{}_mask.png", "all"),
    ("images/img_{}.jpg", "masks/mask_{}.png", "all"),
    ("images/img_{}.jpg", "labels/{}.png", "all"),
    ("images/a{}_image.png", "images/a{}_seg.png", "all"),
    ("JPEGImages/a{}.jpg", "SegmentationClass/a{}.png", "all"),
]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(("images", "masks", "part"), LAYOUTS, ids=[f"{row[0]} {row[1]}" for row in LAYOUTS])
def test_an_image_finds_its_mask_by_the_words_of_folders_and_names(tmp_path, images, masks, part, packed):
    place = write(tmp_path / "data", images, masks, VALUES)
    parts = open_parts(recognise(zipped(place, tmp_path / "data.zip") if packed else place))
    [(found, dataset)] = parts.items()
    assert found == part and [entry.path for entry in dataset.entries] == [images.format(n) for n in range(4)]
    assert dataset.classes == ("0", "1", "2") and not dataset.problems
    assert named(dataset, SKY, CAT, DOG, index=3) == ["0", "1", "2"]


def test_parts_are_counted_and_share_their_classes(tmp_path):
    write(tmp_path, "train/images/a{}.jpg", "train/masks/a{}.png", VALUES, 5)
    write(tmp_path, "val/images/b{}.jpg", "val/masks/b{}.png", np.minimum(VALUES, 1), 3)
    splits = open_dense_splits(recognise(tmp_path))
    assert (len(splits.train.entries), len(splits.val.entries), splits.val_share) == (5, 3, None)
    assert splits.train.classes == splits.val.classes == ("0", "1", "2")


def test_lists_of_image_sets_say_the_parts(tmp_path):
    write(tmp_path, "VOC/JPEGImages/a{}.jpg", "VOC/SegmentationClass/a{}.png", VALUES, 6)
    lists = tmp_path / "VOC" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for part, numbers in {"train": (0, 2, 4), "val": (1, 5), "trainval": (0, 1, 2, 4, 5), "test": (3,)}.items():
        (lists / f"{part}.txt").write_text("".join(f"a{n}\n" for n in numbers))
    parts = open_parts(recognise(tmp_path))
    assert {part: [entry.image_id - 1 for entry in data.entries] for part, data in parts.items()} == {
        "train": [0, 2, 4],
        "val": [1, 5],
        "test": [3],
    }


def cvat(folder: Path) -> Path:
    write(folder, "JPEGImages/a{}.jpg", "SegmentationClass/a{}.png", COLOURS)
    write(folder, "JPEGImages/a{}.jpg", "SegmentationObject/a{}.png", layout((0, 0, 0), (128, 0, 0), (0, 128, 0)))
    text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:48,112,32::\ndog 2:176,112,32::\n"
    (folder / "labelmap.txt").write_text(text)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "default.txt").write_text("a0\na1\na2\na3\n")
    return folder


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_cvat_says_its_colours_in_labelmap(tmp_path, packed):
    place = cvat(tmp_path / "data")
    dataset = only(zipped(place, tmp_path / "data.zip") if packed else place)
    assert dataset.classes == ("background", "cat", "dog 2") and len(dataset.entries) == 4 and not dataset.problems
    assert named(dataset, SKY, CAT, DOG) == ["background", "cat", "dog 2"]
    assert np.array_equal(read_sample(dataset, 2).semantic, VALUES)


LEGENDS: dict[str, str] = {
    "class_dict.csv": "name,r,g,b\nsky,0,0,0\ncat,48,112,32\ndog 2,176,112,32\n",
    "label_colors.txt": "0 0 0\t\tsky\n48 112 32\tcat\n176 112 32 dog 2\n",
    "classes.json": '{"sky": [0, 0, 0], "cat": "#307020", "dog 2": [176, 112, 32, 255]}',
    "classes.json ": '[{"name": "sky", "color": "#000000"}, {"name": "cat", "color": [48, 112, 32]}, '
    '{"name": "dog 2", "color": "#b07020"}]',
    "classes.json  ": '{"classes": ["sky", "cat", "dog 2"], "colors": [[0, 0, 0], [48, 112, 32], [176, 112, 32]]}',
}


@pytest.mark.parametrize("file", LEGENDS)
def test_a_legend_beside_colour_masks_is_read(tmp_path, file):
    write(tmp_path, "images/a{}.jpg", "masks/a{}.png", COLOURS)
    (tmp_path / file.strip()).write_text(LEGENDS[file])
    dataset = only(tmp_path)
    assert dataset.classes == ("sky", "cat", "dog 2") and named(dataset, SKY, CAT, DOG) == ["sky", "cat", "dog 2"]


@pytest.mark.parametrize("line", ["cat:48,112,32", "48 112 32 cat", "#307020 cat", "cat #307020", "cat = 48, 112, 32"])
def test_a_legend_that_the_user_names_is_read_in_the_ways_people_write_it(tmp_path, line):
    write(tmp_path / "data", "images/a{}.jpg", "masks/a{}.png", COLOURS)
    (tmp_path / "legend.txt").write_text(f"# mine\nsky:0,0,0\n{line}\nvoid:176,112,32\n")
    dataset = only(tmp_path / "data", colours=tmp_path / "legend.txt")
    assert dataset.classes == ("sky", "cat") and named(dataset, SKY, CAT, DOG) == ["sky", "cat", None]
    assert "that are no class" not in lines(dataset)  # void is meant not to count


def test_without_a_legend_the_colours_are_told_and_a_legend_is_proposed(tmp_path):
    place = write(tmp_path / "data", "images/a{}.jpg", "masks/a{}.png", COLOURS)
    assert recognise(place).task == "segmentation"
    with pytest.raises(
        DataError, match=r"show 3 colours, 0,0,0 \(89%\), 176,112,32 \(6%\), 48,112,32 .*--colours FILE"
    ):
        open_parts(recognise(place))
    legend = tmp_path / "legend.txt"
    with pytest.raises(DataError, match=r"legend.txt' was not there and now lists the 3 colours"):
        open_parts(recognise(place, colours=legend))
    proposed = legend.read_text()
    assert [line for line in proposed.splitlines() if line[0] != "#"] == [
        "background:0,0,0",
        "class 1:176,112,32",
        "class 2:48,112,32",
    ]
    legend.write_text(proposed.replace("class 1", "dog").replace("class 2", "cat"))
    dataset = only(place, colours=legend)
    assert dataset.classes == ("background", "dog", "cat") and named(dataset, CAT, DOG) == ["cat", "dog"]


def test_colours_that_no_line_names_do_not_count_and_are_told(tmp_path):
    strange = COLOURS.copy()
    strange[44, 2] = (1, 2, 3)
    write(tmp_path, "images/a{}.jpg", "masks/a{}.png", strange, 2)
    (tmp_path / "labelmap.txt").write_text("sky:0,0,0\ncat:48,112,32\ndog:176,112,32\n")
    dataset = only(tmp_path)
    assert named(dataset, OUT, SKY) == [None, "sky"]
    assert "2 masks have colours that are no class, and do not count: images/a0.jpg (1,2,3)" in lines(dataset)


def test_colours_of_labelme_follow_the_palette_in_the_order_of_class_names(tmp_path):
    write(tmp_path, "JPEGImages/a{}.jpg", "SegmentationClassPNG/a{}.png", COLOURS)  # shown beside: not the masks
    write(tmp_path, "JPEGImages/a{}.jpg", "SegmentationClass/a{}.png", layout((0, 0, 0), (128, 0, 0), (0, 128, 0)))
    (tmp_path / "class_names.txt").write_text("_background_\ncat\ndog\n")
    dataset = only(tmp_path)
    assert dataset.classes[:3] == ("_background_", "cat", "dog")
    assert named(dataset, SKY, CAT, DOG) == ["_background_", "cat", "dog"]


def test_labelmes_palette_masks_are_read_and_its_pictures_for_people_left_aside(tmp_path):
    shown = Image.fromarray(VALUES)
    shown.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    for n in range(3):
        write_image(tmp_path / "JPEGImages" / f"{n}.jpg", height=SIDE, width=SIDE)
        for folder in ("SegmentationClass", "SegmentationObject"):
            (tmp_path / folder).mkdir(exist_ok=True)
            shown.save(tmp_path / folder / f"{n}.png")
            write_image(tmp_path / f"{folder}Visualization" / f"{n}.jpg", height=SIDE, width=SIDE)
    (tmp_path / "class_names.txt").write_text("_background_\ncat\ndog\n")
    dataset = only(tmp_path)
    assert dataset.classes == ("_background_", "cat", "dog") and len(dataset.entries) == 3 and not dataset.problems
    assert named(dataset, SKY, CAT, DOG) == ["_background_", "cat", "dog"]


def test_too_many_colours_are_smoothed_edges_and_said_to_be(tmp_path):
    smooth = np.asarray(Image.fromarray(COLOURS).resize((SIDE * 8, SIDE * 8), Image.Resampling.BICUBIC))
    noisy = smooth + np.random.default_rng(0).integers(0, 20, smooth.shape, np.uint8)
    write(tmp_path, "images/a{}.jpg", "masks/a{}.png", noisy, 2)
    with pytest.raises(DataError, match="smoothing or saved as JPEG"):
        open_parts(recognise(tmp_path, form="masks"))


def test_soft_edges_of_binary_masks_are_background_or_foreground(tmp_path):
    small = np.zeros((20, 20), np.uint8)
    small[4:14, 4:14] = 255
    soft = np.asarray(Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert len(np.unique(soft)) > 5
    write(tmp_path, "images/a{}.jpg", "masks/a{}.png", soft)
    dataset = only(tmp_path)
    assert dataset.classes == ("background", "foreground")
    assert np.array_equal(labels(dataset), soft >= 128) and "from 128 on for foreground" in lines(dataset)


@pytest.mark.parametrize("names", [("sky", "cat"), ("cat",)])
def test_binary_masks_take_their_names_from_a_file(tmp_path, names):
    write(tmp_path, "images/a{}.jpg", "masks/a{}.png", layout(0, 255, 255))
    (tmp_path / "classes.txt").write_text("\n".join(names))
    dataset = only(tmp_path)
    assert dataset.classes == (("background", "cat") if len(names) == 1 else names)
    assert named(dataset, SKY, CAT, DOG) == [dataset.classes[0], "cat", "cat"]


def test_a_border_of_255_round_numbered_classes_does_not_count(tmp_path):
    bordered = VALUES.copy()
    bordered[4, 4:16] = 255
    write(tmp_path, "images/a{}.jpg", "masks/a{}.png", bordered)
    dataset = only(tmp_path)
    assert dataset.classes == ("0", "1", "2") and named(dataset, (4, 9), CAT) == [None, "1"]


def test_values_far_apart_are_classes_of_their_own(tmp_path):
    write(tmp_path, "images/a{}.jpg", "labels/a{}.png", layout(0, 38, 75))
    dataset = only(tmp_path)
    assert dataset.classes == ("0", "38", "75") and named(dataset, SKY, CAT, DOG) == ["0", "38", "75"]
    assert "3 values far apart (0, 38, 75)" in lines(dataset)


def test_smoothed_numbers_are_refused_with_the_way_out(tmp_path):
    small = np.zeros((16, 16), np.uint8)
    small[2:7, 2:7], small[9:14, 9:14] = 90, 200
    smooth = np.asarray(Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    write(tmp_path, "images/a{}.jpg", "masks/a{}.png", smooth)
    with pytest.raises(DataError, match="only along edges: they were resized with smoothing"):
        open_parts(recognise(tmp_path, form="masks"))


def cityscapes(folder: Path, *endings: str) -> Path:
    for part, count in {"train": 3, "val": 2}.items():
        for n in range(count):
            stem = f"{part}/ulm/ulm_{n:06d}_000019"
            write_image(folder / "leftImg8bit" / f"{stem}_leftImg8bit.png", height=SIDE, width=SIDE, seed=n)
            for ending, pixels in {
                "labelIds": layout(7, 24, 3),
                "labelTrainIds": layout(0, 11, 255),
                "instanceIds": layout(7, 24, 3).astype(np.uint16) * 1000,
                "color": layout((128, 64, 128), (220, 20, 60), (0, 0, 0)),
            }.items():
                if ending in endings:
                    file = folder / "gtFine" / f"{stem}_gtFine_{ending}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(file)
    return folder


@pytest.mark.parametrize(
    "endings", [("labelIds",), ("labelTrainIds",), ("labelIds", "labelTrainIds", "instanceIds", "color")]
)
def test_cityscapes_is_its_nineteen_classes(tmp_path, endings):
    parts = open_parts(recognise(cityscapes(tmp_path, *endings)))
    assert {part: len(data.entries) for part, data in parts.items()} == {"train": 3, "val": 2}
    dataset = parts["val"]
    assert len(dataset.classes) == 19 and dataset.classes[0] == "road" and dataset.classes[18] == "bicycle"
    assert named(dataset, SKY, CAT, DOG) == ["road", "person", None] and not dataset.problems
    assert "no class, and do not count" not in lines(dataset)


def test_ade20k_without_its_table_counts_from_one(tmp_path):
    folder = tmp_path / "ADEChallengeData2016"
    write(folder, "images/training/a{}.jpg", "annotations/training/a{}.png", layout(0, 3, 150))
    [(part, dataset)] = open_parts(recognise(tmp_path)).items()
    assert part == "train" and len(dataset.classes) == 150
    assert named(dataset, SKY, CAT, DOG) == [None, "3", "150"]


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("how", [{}, {"annotated": True}, {"form": "masks"}], ids=["nothing", "task", "form"])
def test_jpeg_masks_are_refused_with_the_reason(tmp_path, how, colour):
    pixels = COLOURS if colour else layout(0, 255, 255)
    write(tmp_path, "images/a{}.jpg", "masks/a{}.jpg", pixels)
    with pytest.raises(DataError, match=r"masks saved as JPEG, as 'masks/a0.jpg'.* Save the masks as PNG"):
        open_parts(recognise(tmp_path, **how))


@pytest.mark.parametrize("how", [{}, {"annotated": True}], ids=["nothing", "task"])
def test_masks_with_other_names_are_not_taken_for_classes(tmp_path, how):
    for n in range(4):
        write(tmp_path, "images/x{}.jpg", f"masks/y{n + 5}.png", VALUES, 1, n)
    with pytest.raises(DataError, match=r"names do not agree, as 'images/x0.jpg' and 'masks/y5.png'.*--task classifi"):
        recognise(tmp_path, **how)
    assert recognise(tmp_path, annotated=False).form == "folders"  # what is said is done


def photos(folder: Path, *names: str, count: int = 6, suffix: str = "jpg") -> Path:
    for place, name in enumerate(names):
        for n in range(count):
            write_image(folder / name / f"{n}.{suffix}", height=SIDE, width=SIDE, seed=place * count + n)
    return folder


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    "names", [("mask", "no_mask"), ("with_mask", "without_mask"), ("images", "rgb"), ("image", "mask"), ("gt", "img")]
)
def test_classes_that_are_truly_called_so_still_train(tmp_path, names, suffix):
    source = recognise(photos(tmp_path, *names, suffix=suffix))
    splits = open_splits(source)
    assert source.form == "folders" and splits.train.classes == tuple(sorted(names))
    assert len(splits.train.entries) + len(splits.val.entries) == 12


def notes(place: Path) -> str:
    splits = open_splits(recognise(place))
    assert isinstance(splits, Splits)
    return "\n".join(preflight(splits, full=False).lines)


def test_folders_that_could_be_no_classes_are_told(tmp_path):
    assert "could be images and their masks" in notes(photos(tmp_path / "a", "images", "masks"))
    text = notes(photos(tmp_path / "b", "day1/cat", "day1/dog", "day2/cat", "day2/dog"))
    assert "'day1', 'day2' are taken for classes, and each holds the same folders 'cat', 'dog'" in text
    assert "taken for classes" not in notes(photos(tmp_path / "c", "cat/front", "dog/front", "fox"))
    assert "taken for classes" not in notes(photos(tmp_path / "d", "mask", "no_mask"))


def test_masks_of_some_images_alone_are_still_masks(tmp_path):
    write(tmp_path, "images/a{}.jpg", "masks/a{}.png", VALUES, 3)
    photos(tmp_path, "images", count=9)
    (tmp_path / "masks" / "a0.png").write_bytes(b"broken")
    dataset = only(tmp_path)
    assert len(dataset.entries) == 3 and dataset.classes == ("0", "1", "2")
    assert "9 images without a mask are left out: images/0.jpg" in lines(dataset)


def test_one_odd_mask_does_not_hide_the_others(tmp_path):
    write(tmp_path, "images/a{}.jpg", "masks/a{}.png", VALUES, 4)
    Image.fromarray(VALUES.astype(np.uint16)).save(tmp_path / "masks" / "a1.png")
    Image.fromarray(np.dstack([VALUES, VALUES, VALUES, np.full_like(VALUES, 255)])).save(tmp_path / "masks" / "a2.png")
    (tmp_path / "masks" / "a3.png").write_bytes(b"")
    dataset = only(tmp_path)
    assert all(np.array_equal(labels(dataset, n), VALUES) for n in range(3))
    with pytest.raises(DataError, match=r"masks/a3.png': the file is empty"):
        labels(dataset, 3)


def test_masks_drawn_by_transparency_are_refused_and_not_read_as_one_class(tmp_path):
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    write(tmp_path, "images/a{}.jpg", "masks/a{}.png", np.dstack([black, layout(0, 255, 255)]), 2)
    with pytest.raises(DataError, match=r"the first is 'masks/a0.png': it shows its classes by transparency"):
        open_dense(recognise(tmp_path, form="masks"))


# Pixels


def saved(folder: Path, values: np.ndarray, name: str) -> bytes:
    Image.fromarray(values).save(folder / name)
    return (folder / name).read_bytes()


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_twelve_bits_in_sixteen_are_scaled_by_what_is_stored(tmp_path, name):
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    assert np.array_equal(decode(saved(tmp_path, ramp, name), channels=1)[..., 0], ramp // 16)
    assert np.array_equal(decode(saved(tmp_path, ramp * 16, name), channels=1)[..., 0], ramp // 16)


def test_twelve_bits_are_told(tmp_path):
    photos(tmp_path, "cat", "dog", suffix="png")
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "cat" / "0.png")
    text = "\n".join(preflight(open_splits(recognise(tmp_path)), full=True).lines)
    assert "1 grey image of 16 bits has no value above 4095 and is read as 12 bits: cat/0.png." in text


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 99, "HEIC"),
        (b"\0\0\0\x24ftypmif1\0\0\0\0mif1heicmiafMiHB" + b"\0" * 99, "HEIC"),
        (b"\xff\x0a" + b"\0" * 50, "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 50, "JPEG XL"),
    ],
)
def test_formats_of_phones_and_browsers_are_named(data, name):
    with pytest.raises(DataError, match=f"it is {name}, whatever its ending"):
        decode(data)
