"""Other people's folders: which part an image belongs to follows from the words of folders and files, whatever the tool."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from convnext.data.opening import open_dense_splits, open_labelled, open_parts, open_splits, recognise
from convnext.data.parts import part_of, part_of_folder, part_of_name
from convnext.data.preflight import preflight
from convnext.errors import DataError
from dense_images import HEIGHT, WIDTH, square, write_image
from images import zipped

WORDS = {
    "train": [
        "train",
        "Train",
        "TRAINING",
        "training_set",
        "Train Set",
        "seg_train",
        "train2017",
        "trainset",
        "train-images",
        "tr",
    ],
    "val": ["val", "valid", "Validation", "VAL", "dev", "dev_set", "valid_set", "val2017", "ValidationData", "seg_val"],
    "test": ["test", "Testing", "TEST", "test_set", "seg_test", "testing-data", "test2", "TestImages", "tst"],
}
Counts = dict[str, dict[str, int]]  # part -> class -> images


def write(folder: Path, files: dict[str, int]) -> Path:
    """`count` images in each folder; each image has a colour of its own."""
    for number, (place, count) in enumerate(files.items()):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            Image.new("RGB", (8, 8), (number * 9 % 256, n * 9, 80)).save(
                folder / place / f"{place.replace('/', '-')}{n}.png"
            )
    return folder


def read(data: Path) -> Counts:
    splits = open_splits(recognise(data))
    return {
        name: dict(sorted(Counter(part.classes[entry.label] for entry in part.entries).items()))
        for name, part in (("train", splits.train), ("val", splits.val))
    }


def write_coco(
    folder: Path,
    images: str,
    annotations: str,
    count: int,
    *,
    first: int = 1,
    classes: tuple[str, ...] = ("cat", "dog"),
) -> Path:
    """`count` images in folder/images, an object of each class on each, in the file folder/annotations."""
    rows, objects = [], []
    for n in range(first, first + count):
        write_image(folder / images / f"im{n}.png", seed=n)
        rows.append({"id": n, "file_name": f"im{n}.png", "height": HEIGHT, "width": WIDTH})
        for label in range(len(classes)):
            side = 4.0 + label
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": n,
                    "category_id": label,
                    "bbox": [2.0, 3.0, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                    "segmentation": [square(2.0, 3.0, side)],
                }
            )
    content = {
        "images": rows,
        "annotations": objects,
        "categories": [{"id": n, "name": c} for n, c in enumerate(classes)],
    }
    (folder / annotations).parent.mkdir(parents=True, exist_ok=True)
    (folder / annotations).write_text(json.dumps(content))
    return folder


def counted(data: Path) -> Counts:
    """Part -> class -> objects, and under '' how many images."""
    found: Counts = {}
    for part, dataset in open_parts(recognise(data)).items():
        labels = [dataset.classes[label] for entry in dataset.entries for label in entry.objects.labels.tolist()]
        found[part] = {"": len(dataset.entries), **dict(sorted(Counter(labels).items()))}
    return found


def objects(images: int) -> dict[str, int]:
    return {"": images, "cat": images, "dog": images}


@pytest.mark.parametrize(("part", "word"), [(part, word) for part, words in WORDS.items() for word in words])
def test_a_word_says_its_part_as_a_folder(part, word):
    assert part_of_folder(word) == part_of(f"data/{word}/cat/1.png") == part


@pytest.mark.parametrize(
    "word",
    [
        "cat",
        "train_station",
        "steam train",
        "test tube",
        "trainer",
        "contest",
        "validity",
        "images",
        "2017",
        "trainval",
        "",
        "invalid",
    ],
)
def test_other_words_say_no_part(word):
    assert part_of_folder(word) == ""


def test_a_plain_word_outweighs_one_with_others_around_it_and_test_dev_is_test():
    assert part_of("test_data/train/images/1.jpg") == "train"
    names = {
        "instances_val2017.json": "val",
        "labels.train.json": "train",
        "image_info_test-dev2017.json": "test",
        "_annotations.coco.json": "",
    }
    assert {name: part_of_name(name) for name in names} == names


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(WORDS["train"]),
    st.sampled_from([*WORDS["val"], *WORDS["test"]]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "data/", "My Data/set/"]),
)
def test_folders_of_any_synonym_are_the_same_parts_as_a_folder_and_as_a_zip(
    tmp_path, train, val, doubled, packed, below
):
    shutil.rmtree(tmp_path / "set", ignore_errors=True)
    train, val = (f"{word}/{word}" if doubled else word for word in (train, val))
    data = write(tmp_path / "set", {f"{train}/cat": 2, f"{train}/dog": 3, f"{val}/cat": 1, f"{val}/dog": 2})
    place = zipped(data, tmp_path / "set.zip", below=below) if packed else data
    assert read(place) == {"train": {"cat": 2, "dog": 3}, "val": {"cat": 1, "dog": 2}}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(WORDS["train"]),
    st.sampled_from(WORDS["val"]),
    st.sampled_from(WORDS["test"]),
    st.booleans(),
    st.sampled_from(
        [
            ("{}", "{}/_annotations.coco.json"),
            ("{}/data", "{}/labels.json"),
            ("images/{}", "annotations/instances_{}.json"),
            ("{}/images", "{}/annotations/all.json"),
        ]
    ),
)
def test_coco_files_of_any_synonym_are_the_same_parts_as_a_folder_and_as_a_zip(
    tmp_path, train, val, test, packed, layout
):
    shutil.rmtree(tmp_path / "set", ignore_errors=True)
    for word, count, first in ((train, 3, 1), (val, 2, 51), (test, 1, 91)):
        write_coco(tmp_path / "set", layout[0].format(word), layout[1].format(word), count, first=first)
    place = zipped(tmp_path / "set", tmp_path / "set.zip") if packed else tmp_path / "set"
    assert counted(place) == {"train": objects(3), "val": objects(2), "test": objects(1)}


def test_training_and_testing_are_parts_and_never_two_classes(tmp_path):
    data = write(tmp_path, {"Training/glioma": 3, "Training/none": 2, "Testing/glioma": 2, "Testing/none": 1})
    assert read(data) == {"train": {"glioma": 3, "none": 2}, "val": {"glioma": 2, "none": 1}}
    assert open_splits(recognise(data)).left_out == {}


def test_parts_without_class_folders_are_refused_instead_of_becoming_classes(tmp_path):
    with pytest.raises(DataError, match="holds 5 images directly, without class folders"):
        read(write(tmp_path, {"Validation": 3, "Testing": 2}))


def test_a_part_that_means_nothing_is_left_out_and_counted(tmp_path):
    data = write(
        tmp_path,
        {
            "seg_train/seg_train/sea": 2,
            "seg_train/seg_train/ice": 2,
            "seg_test/seg_test/sea": 1,
            "seg_pred/seg_pred": 4,
        },
    )
    assert read(data) == {"train": {"ice": 2, "sea": 2}, "val": {"sea": 1}}
    assert open_splits(recognise(data)).left_out == {"images outside class folders": 4}


def test_a_flat_test_folder_is_left_out_and_a_val_part_held_out(tmp_path):
    data = write(tmp_path, {"train/train/cat": 4, "train/train/dog": 4, "test/test": 3})
    assert read(data) == {"train": {"cat": 3, "dog": 3}, "val": {"cat": 1, "dog": 1}}


def test_two_folders_of_one_part_are_both_read(tmp_path):
    data = write(tmp_path, {"train_1/cat": 2, "train_2/dog": 2, "train_2/cat": 1, "val/cat": 1, "test/cat": 2})
    data.joinpath("train_1").rename(tmp_path / "train1")
    data.joinpath("train_2").rename(tmp_path / "train2")
    assert read(data) == {"train": {"cat": 3, "dog": 2}, "val": {"cat": 1}}
    assert open_splits(recognise(data)).left_out == {"images of the test part": 2}


def test_parts_may_lie_within_the_classes(tmp_path):
    data = write(tmp_path, {"cat/train": 3, "cat/val": 1, "dog/train": 2, "dog/val": 2, "dog/test": 4})
    assert read(data) == {"train": {"cat": 3, "dog": 2}, "val": {"cat": 1, "dog": 2}}


@pytest.mark.parametrize(
    "classes",
    [
        ("bus", "car", "train"),
        ("invalid", "valid"),
        ("control", "test"),
        ("images", "masks_on"),
        ("dev", "prod", "test"),
    ],
)
def test_classes_that_are_called_like_parts_stay_classes(tmp_path, classes):
    found = read(write(tmp_path, dict.fromkeys(classes, 4)))
    assert found == {"train": dict.fromkeys(classes, 3), "val": dict.fromkeys(classes, 1)}


def test_a_class_called_train_within_parts_stays_a_class(tmp_path):
    data = write(tmp_path, {"train/bus": 2, "train/train": 2, "val/train": 1, "val/bus": 1})
    assert read(data) == {"train": {"bus": 2, "train": 2}, "val": {"bus": 1, "train": 1}}


def test_evaluation_of_one_part_takes_it_by_any_word(tmp_path):
    data = write(tmp_path, {"Testing/cat": 2, "Testing/dog": 1})
    assert len(open_labelled(recognise(data), classes=("cat", "dog")).entries) == 3
    (data / "Testing").rename(data / "dev_set")
    write(data, {"training/cat": 5})
    assert len(open_labelled(recognise(data), classes=("cat", "dog")).entries) == 3


def test_folders_that_look_like_parts_under_other_names_are_named(tmp_path):
    data = write(tmp_path, {"camera1/cat": 2, "camera1/dog": 2, "camera2/cat": 2, "camera2/dog": 2})
    splits = open_splits(recognise(data))
    assert splits.train.classes == ("camera1", "camera2")
    assert any("'camera1' and 'camera2' hold the same folders (cat, dog)" in line for line in preflight(splits).lines)


def test_a_folder_beside_the_data_does_not_hide_its_parts(tmp_path):
    data = write(tmp_path, {"set/Training/cat": 2, "set/Training/dog": 2, "set/Testing/cat": 1})
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.md").write_text("about")
    assert read(data) == {"train": {"cat": 2, "dog": 2}, "val": {"cat": 1}}


def table(folder: Path, name: str, rows: list[str], header: str = "path,label") -> None:
    (folder / name).write_text("\n".join([header, *rows]))


def test_tables_of_parts_are_read_together_and_others_named(tmp_path):
    write(tmp_path, {"all": 8})
    for name, first, last in (("train.csv", 0, 4), ("Validation.csv", 4, 6), ("test.csv", 6, 8), ("extra.csv", 0, 2)):
        table(tmp_path, name, [f"all/all{n}.png,{'cat' if n % 2 else 'dog'}" for n in range(first, last)])
    assert read(tmp_path) == {"train": {"cat": 2, "dog": 2}, "val": {"cat": 1, "dog": 1}}
    splits = open_splits(recognise(tmp_path))
    assert splits.notes == ("Table 'extra.csv' was not read: another one says what is in this data set.",)
    assert splits.left_out["images of the test part"] == 2


def test_the_words_of_a_split_column_are_the_same(tmp_path):
    write(tmp_path, {"all": 6})
    words = ("Training", "training_set", "TRAIN", "dev", "Validation", "holdout")
    rows = [f"all/all{n}.png,{'cat' if n % 2 else 'dog'},{word}" for n, word in enumerate(words)]
    table(tmp_path, "a.csv", rows[:5], "path,label,split")
    assert read(tmp_path / "a.csv") == {"train": {"cat": 1, "dog": 2}, "val": {"cat": 1, "dog": 1}}
    table(tmp_path, "a.csv", rows, "path,label,split")
    with pytest.raises(DataError, match="line 7: split 'holdout' is not"):
        read(tmp_path / "a.csv")


def test_flat_parts_with_a_table_are_read_by_the_table(tmp_path):
    write(tmp_path, {"train": 5, "test": 2})
    table(tmp_path, "train.csv", [f"train/train{n}.png,{'cat' if n % 2 else 'dog'}" for n in range(5)])
    assert {part: sum(found.values()) for part, found in read(tmp_path).items()} == {"train": 3, "val": 2}


def test_coco_files_without_a_part_are_read_together(tmp_path):
    write_coco(tmp_path, "day1", "day1/day1.json", 3)
    write_coco(tmp_path, "day2", "day2/day2.json", 2, classes=("dog", "bird"))  # the same names, ids and numbers
    whole = open_parts(recognise(tmp_path))["all"]
    assert whole.classes == ("cat", "dog", "bird") and "Read together: day1/day1.json, day2/day2.json." in whole.notes
    assert [entry.path for entry in whole.entries] == [f"day1/im{n}.png" for n in (1, 2, 3)] + [
        "day2/im1.png",
        "day2/im2.png",
    ]
    assert [whole.classes[n] for n in whole.entries[3].objects.labels] == ["dog", "bird"]
    assert whole.entries[4].objects.boxes.tolist() == [[2, 3, 6, 7], [2, 3, 7, 8]]
    assert [len(shape[0]) for shape in whole.entries[4].objects.shapes] == [4, 4]
    ids = [number for entry in whole.entries for number in entry.objects.ids.tolist()]
    assert len(set(ids)) == len(ids) == 10 and len({entry.image_id for entry in whole.entries}) == 5


def test_an_image_in_two_files_of_one_part_counts_once_and_is_named(tmp_path):
    write_coco(tmp_path, "train", "train/a.json", 3)
    write_coco(tmp_path, "train", "train/b.json", 4)
    train = open_parts(recognise(tmp_path))["train"]
    assert [entry.path for entry in train.entries] == [f"train/im{n}.png" for n in (1, 2, 3, 4)]
    assert [(problem.kind, problem.where) for problem in train.problems] == [
        ("double image", f"train/im{n}.png") for n in (1, 2, 3)
    ]


def test_an_image_of_the_same_name_is_taken_from_beside_its_file(tmp_path):
    write_coco(tmp_path, ".", "unused.json", 2)
    (tmp_path / "unused.json").unlink()
    for part in ("train", "valid"):
        write_coco(tmp_path, part, f"{part}/_annotations.coco.json", 2)
    splits = open_dense_splits(recognise(tmp_path))
    assert [entry.path for entry in splits.train.entries] == ["train/im1.png", "train/im2.png"]
    assert [entry.path for entry in splits.val.entries] == ["valid/im1.png", "valid/im2.png"]


def test_instances_of_one_part_do_not_hide_another_file(tmp_path):
    write_coco(tmp_path, "train", "annotations/instances_train.json", 3)
    write_coco(tmp_path, "train", "annotations/person_keypoints_train.json", 3)
    write_coco(tmp_path, "val", "val/labels.json", 2, first=11)
    assert counted(tmp_path) == {"train": objects(3), "val": objects(2)}


def test_images_of_no_part_are_named(tmp_path):
    write_coco(tmp_path, "train", "train/labels.json", 3)
    write_coco(tmp_path, "more", "more/labels.json", 2, first=11)
    splits = open_dense_splits(recognise(tmp_path))
    assert len(splits.train.entries) + len(splits.val.entries) == 3
    assert "2 images of no part are left out: 'more/im11.png', ..." in splits.train.notes


def test_one_coco_file_of_all_parts_is_parted_by_the_folders_of_its_images(tmp_path):
    write_coco(tmp_path, "images/training", "all.json", 3)
    write_coco(tmp_path, "images/validation", "more.json", 2, first=11)
    content, more = (json.loads((tmp_path / name).read_text()) for name in ("all.json", "more.json"))
    for row in more["annotations"]:
        row["id"] += 100
    merged = {key: content[key] + more[key] for key in ("images", "annotations")} | {
        "categories": content["categories"]
    }
    (tmp_path / "all.json").write_text(json.dumps(merged))
    (tmp_path / "more.json").unlink()
    assert counted(tmp_path) == {"train": objects(3), "val": objects(2)}


def write_yolo(folder: Path, layout: str, parts: dict[str, int]) -> Path:
    for part, count in parts.items():
        for n in range(count):
            image = folder / layout.format("images", part) / f"{part}{n}.png"
            write_image(image, seed=n)
            label = folder / layout.format("labels", part) / f"{part}{n}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 0.5 0.5 0.4 0.4\n1 0.3 0.3 0.2 0.2\n")
    (folder / "classes.txt").write_text("cat\ndog\n")
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", ["{0}/{1}", "{1}/{0}", "set/{1}/{0}"])
@pytest.mark.parametrize(
    ("train", "val", "test"), [("training", "validation", "testing"), ("train_set", "dev", "test_set")]
)
def test_yolo_folders_of_any_synonym(tmp_path, layout, packed, train, val, test):
    data = write_yolo(tmp_path / "set", layout, {train: 3, val: 2, test: 1})
    place = zipped(data, tmp_path / "set.zip") if packed else data
    assert counted(place) == {"train": objects(3), "val": objects(2), "test": objects(1)}


PAGE = (
    "<annotation><filename>{}.png</filename><object><name>{}</name><bndbox><xmin>3</xmin><ymin>4</ymin>"
    "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)


@pytest.mark.parametrize("pages", ["{}", "Annotations", "{}/annotations"])
@pytest.mark.parametrize(("train", "val"), [("train", "valid"), ("Training", "Testing")])
def test_voc_parts_follow_from_the_folders_of_pages_or_images(tmp_path, pages, train, val):
    for part, count in ((train, 3), (val, 2)):
        for n in range(count):
            write_image(tmp_path / part / f"{part}{n}.png", seed=n)
            page = tmp_path / pages.format(part) / f"{part}{n}.xml"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(PAGE.format(f"{part}{n}", "cat" if n % 2 else "dog"))
    found = counted(tmp_path)
    assert found == {
        "train": {"": 3, "cat": 1, "dog": 2},
        "val" if val == "valid" else "test": {"": 2, "cat": 1, "dog": 1},
    }
