"""Tables and folders as Kaggle, fastai, Roboflow and `datasets` bring them: each means what its owner means by it."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext.data.dataset import read_semantic
from convnext.data.opening import open_parts, open_splits, recognise
from convnext.data.preflight import preflight
from convnext.data.shards.write import write_shards
from convnext.errors import DataError


def put(file: Path, data: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)


def image(file: Path, shade: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (shade * 9 % 256, 40, 90)).save(file)


def classes_of(data: Path, part: str = "train") -> dict[str, str]:
    """Name of each image of a part -> its class."""
    dataset = getattr(open_splits(recognise(data)), part)
    return {entry.path.rsplit("/", 1)[-1]: dataset.classes[entry.label] for entry in dataset.entries}


def refusal(data: Path) -> str:
    with pytest.raises(DataError) as error:
        open_splits(recognise(data))
    assert "\n" not in str(error.value)
    return str(error.value)


def kaggle(folder: Path, columns: str = "id_code,diagnosis") -> Path:
    """Images by number without an ending, the same numbers in both folders; a submission that is all 0."""
    for number in range(12):
        image(folder / "train_images" / f"{number:03}.png", number)
        image(folder / "test_images" / f"{number:03}.png", number + 100)
    put(folder / "train.csv", f"{columns}\n" + "".join(f"{number:03},{number % 3}\n" for number in range(12)))
    put(folder / "test.csv", "id_code\n" + "".join(f"{number:03}\n" for number in range(12)))
    put(folder / "sample_submission.csv", f"{columns}\n" + "".join(f"{number:03},0\n" for number in range(12)))
    return folder


@pytest.mark.parametrize("name", ["", "train.csv"], ids=["folder", "file"])
def test_the_column_whose_cells_name_images_is_the_path_and_its_neighbour_the_label(tmp_path, name):
    splits = open_splits(recognise(kaggle(tmp_path / "aptos") / name))
    entries = [*splits.train.entries, *splits.val.entries]
    assert splits.train.classes == ("0", "1", "2") and len(entries) == 12
    assert all("train_images" in entry.path for entry in entries)  # not the image of the same name beside it
    assert all(entry.path.endswith(f"{number:03}.png") for number, entry in enumerate(sorted(entries, key=str)))
    assert any("'id_code' names the images" in note for note in splits.notes)
    assert any("'diagnosis' was taken" in note for note in splits.notes)


def test_of_several_columns_that_could_be_the_label_none_is_taken(tmp_path):
    for number in range(12):
        image(tmp_path / f"images_part_{1 + number // 6}" / f"ISIC_{number}.png", number)
    rows = (f"HAM_{number // 2},ISIC_{number},{'mel' if number % 3 else 'nv'},{number}.5" for number in range(12))
    put(tmp_path / "metadata.csv", "lesion_id,image_id,dx,age\n" + "\n".join(rows))
    assert "columns 'lesion_id' and 'dx', and any could be the label" in refusal(tmp_path)  # and part_1 is no class
    (tmp_path / "metadata.csv").rename(tmp_path / "labels.csv")
    assert "columns 'lesion_id' and 'dx', and any could be the label" in refusal(tmp_path)


def test_columns_of_marks_are_read_where_the_images_lie_in_one_folder(tmp_path):
    for number in range(6):
        image(tmp_path / "ISIC2018_Input" / f"ISIC_{number}.jpg", number)
    rows = (f"ISIC_{number},{float(number % 2)},{float(number % 2 == 0)}" for number in range(6))
    put(tmp_path / "GroundTruth.csv", "image,MEL,NV\n" + "\n".join(rows))
    found = classes_of(tmp_path) | classes_of(tmp_path, "val")
    assert found == {f"ISIC_{number}.jpg": "MEL" if number % 2 else "NV" for number in range(6)}


@pytest.mark.parametrize(
    ("column", "yes", "no"), [("is_valid", "True", "False"), ("is_test", "1", "0"), ("is_train", "0", "1")]
)
def test_a_column_of_true_and_false_may_say_the_part(tmp_path, column, yes, no):
    for number in range(8):
        image(tmp_path / "train" / f"{number}.jpg", number)
    rows = (f"{number}.jpg,{'ab'[number % 2]},{yes if number > 5 else no}" for number in range(8))
    put(tmp_path / "train.csv", f"fname,label,{column}\n" + "\n".join(rows))
    assert sorted(classes_of(tmp_path, "val")) == ["6.jpg", "7.jpg"]
    assert len(classes_of(tmp_path)) == 6


@pytest.mark.parametrize("number", ["label", "Label"])
def test_numbers_take_their_names_from_the_column_beside_them(tmp_path, number):
    for place in range(8):
        image(tmp_path / "images" / f"{place}.png", place)
    rows = [{"file_name": f"{k}.png", number: k % 2, "label_name": ("cat", "dog")[k % 2]} for k in range(8)]
    put(tmp_path / "images" / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    assert set(classes_of(tmp_path).values()) == {"cat", "dog"}
    rows[0]["label_name"] = "dog"  # so that 0 is no one's name
    put(tmp_path / "images" / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    assert set(classes_of(tmp_path).values()) == {"0", "1"}


def test_tables_of_parts_beside_class_folders_say_the_parts(tmp_path):
    rows: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number in range(12):
        label = ("Sea", "Forest")[number % 2]
        image(tmp_path / label / f"{label}_{number}.jpg", number)
        part = "train" if number < 6 else "validation" if number < 10 else "test"
        rows[part].append(f"{number},{label}/{label}_{number}.jpg,{number % 2},{label}")
    for part, lines in rows.items():
        put(tmp_path / f"{part}.csv", ",Filename,Label,ClassName\n" + "\n".join(lines))
    assert sorted(classes_of(tmp_path, "val")) == ["Forest_7.jpg", "Forest_9.jpg", "Sea_6.jpg", "Sea_8.jpg"]
    assert len(classes_of(tmp_path)) == 6 and set(classes_of(tmp_path).values()) == {"Forest", "Sea"}
    (tmp_path / "validation.csv").unlink()
    (tmp_path / "test.csv").unlink()
    splits = open_splits(recognise(tmp_path))
    assert len(splits.train.entries) + len(splits.val.entries) == 12
    assert any(note.startswith("'train.csv' names images too: the folders say the classes.") for note in splits.notes)


def test_the_tables_of_roboflow_hold_classes_of_images_and_names_of_masks(tmp_path):
    for part, count in (("train", 6), ("valid", 3)):
        lines, masks = [], tmp_path / "masks" / part
        for number in range(count):
            image(tmp_path / "multi" / part / f"{number}_jpg.rf.0a{number}.jpg", number)
            lines.append(f"{number}_jpg.rf.0a{number}.jpg, {number % 2}, {int(number % 3 == 0)}")
            image(masks / f"{number}.jpg")
            Image.fromarray(np.eye(6, 8, dtype=np.uint8) * (1 + number % 2)).save(masks / f"{number}_mask.png")
        put(tmp_path / "multi" / part / "_classes.csv", "filename, cat, dog\n" + "\n".join(lines))
        put(masks / "_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    splits = open_splits(recognise(tmp_path / "multi"))
    assert splits.train.classes == ("cat", "dog") and len(splits.val.entries) == 3
    assert [entry.marks for entry in splits.train.entries][:4] == [(0, 1), (1, 0), (0, 0), (1, 1)]
    assert open_parts(recognise(tmp_path / "masks"))["train"].classes == ("background", "cat", "dog")


@pytest.mark.parametrize(("numbers", "labels", "said"), [((1, 2), [0, 1], True), ((0, 1), [0, 1], False)])
def test_classes_of_yolo_that_count_from_1_are_read_so_and_told(tmp_path, numbers, labels, said):
    for place in range(4):
        image(tmp_path / "images" / "train" / f"{place}.jpg", place)
        put(tmp_path / "labels" / "train" / f"{place}.txt", f"{numbers[place % 2]} 0.5 0.5 0.4 0.4\n")
    put(tmp_path / "data.yaml", "names: [cat, dog]\ntrain: images/train\n")
    train = open_parts(recognise(tmp_path))["train"]
    assert [entry.objects.labels.tolist() for entry in train.entries] == [[label] for label in labels * 2]
    assert any("they were counted from 1" in note for note in train.notes) is said


def test_what_is_packed_once_more_is_called_by_its_name(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as pack:
        pack.writestr("pets/cat/0.png", b"")
    with zipfile.ZipFile(tmp_path / "OneDrive.zip", "w") as pack:
        pack.writestr("pets.zip", inner.getvalue())
    assert "'pets.zip' is an archive, which is not read. Unpack it" in refusal(tmp_path / "OneDrive.zip")
    put(tmp_path / "each" / "cat.zip", inner.getvalue())
    assert "'cat.zip' is an archive" in refusal(tmp_path / "each")
    put(tmp_path / "flowers.tgz", b"\x1f\x8b")
    assert "'flowers.tgz' is an archive" in refusal(tmp_path / "flowers.tgz").replace(f"{tmp_path}/", "")
    put(tmp_path / "scans" / "a" / "IM-0001", b"\0" * 128 + b"DICM\2\0")
    assert "'a/IM-0001' is a file of DICOM, which is not read. Save the images as PNG" in refusal(tmp_path / "scans")


def test_labels_that_may_be_several_are_told(tmp_path):
    for number in range(6):
        image(tmp_path / f"{number}.jpg", number)
    rows = (f"{number}.jpg,{('chair', 'car person', 'person')[number % 3]}" for number in range(6))
    put(tmp_path / "list.csv", "fname,labels\n" + "\n".join(rows))
    splits = open_splits(recognise(tmp_path))
    assert "car person" in splits.train.classes
    assert any("'car person' is taken for the name of one class" in note for note in splits.notes)


def test_thumbnails_and_bins_of_other_systems_are_no_images(tmp_path):
    for number in range(6):
        name = "ab"[number % 2]
        image(tmp_path / name / f"{number}.jpg", number)
        image(tmp_path / name / "@eaDir" / f"{number}.jpg" / "SYNOPHOTO_THUMB_M.jpg", number)
        image(tmp_path / "$RECYCLE.BIN" / f"{number}.jpg", number)
    splits = open_splits(recognise(tmp_path))
    assert splits.train.classes == ("a", "b") and len(splits.train.entries) + len(splits.val.entries) == 6


@pytest.mark.parametrize("other", ["dog ", "Dog", "dog_", "dog."])
def test_classes_that_differ_in_signs_alone_are_told(tmp_path, other):
    for number in range(8):
        image(tmp_path / ("dog", other)[number % 2] / f"{number}.jpg", number)
    lines = [line for line in preflight(open_splits(recognise(tmp_path))).lines if "differ only in case" in line]
    assert len(lines) == 1 and "dog" in lines[0]


def test_numbers_of_classes_are_not_taken_for_names_of_images(tmp_path):
    for number in range(12):
        image(tmp_path / "images" / f"{number}.jpg", number)
    rows = (f"{number % 3},{11 - number}" for number in range(12))
    put(tmp_path / "list.csv", "kind,number\n" + "\n".join(rows))
    found = classes_of(tmp_path) | classes_of(tmp_path, "val")
    assert found == {f"{11 - number}.jpg": str(number % 3) for number in range(12)}


def test_whole_numbers_that_were_written_as_fractions_are_the_same_classes(tmp_path):
    for number in range(6):
        image(tmp_path / f"{number}.jpg", number)
    put(tmp_path / "list.csv", "image,label\n" + "\n".join(f"{number}.jpg,{number % 2}.0" for number in range(6)))
    assert set(classes_of(tmp_path).values()) == {"0", "1"}


@pytest.mark.parametrize("last", [3, 2])
def test_masks_whose_values_count_from_1_are_read_so_and_told(tmp_path, last):
    for number in range(4):
        image(tmp_path / "images" / f"{number}.png", number)
        mask = np.ones((6, 8), np.uint8)
        mask[2:4] = 2 if number % 2 else last
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    put(tmp_path / "classes.txt", "background\ncat\ndog\n")
    dataset = next(iter(open_parts(recognise(tmp_path)).values()))
    assert any("the 3 classes were counted from 1" in note for note in dataset.notes) is (last == 3)
    assert dataset.classes == ("background", "cat", "dog")
    assert set(np.unique(read_semantic(dataset, 0, (6, 8))).tolist()) == ({0, 2} if last == 3 else {1, 2})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "digits.csv",
            "label," + ",".join(f"pixel{k}" for k in range(64)),
            "holds the pixels of its images as numbers",
        ),
        ("fer.csv", "emotion,pixels,Usage", "holds the pixels of its images as numbers (column 'pixels')"),
        ("a/data_batch_1", "\x80\x04.", "CIFAR's batches"),
        ("a/train-images-idx3-ubyte", "\0\0\x08\x03", "a file of MNIST's"),
    ],
)
def test_images_that_are_numbers_are_called_so(tmp_path, name, text, said):
    put(tmp_path / name, text.encode("latin-1") + (b"\n1\n" if name.endswith(".csv") else b""))
    assert said in refusal(tmp_path / name if name.endswith(".csv") else tmp_path)


def test_images_in_one_folder_are_refused_with_what_their_names_begin_with(tmp_path):
    for number in range(8):
        image(tmp_path / "train" / f"{('cat', 'dog')[number % 2]}.{number}.jpg", number)
        image(tmp_path / "test1" / f"{number + 1}.jpg", number + 50)
    put(tmp_path / "sampleSubmission.csv", "id,label\n" + "\n".join(f"{number + 1},0" for number in range(8)))
    said = refusal(tmp_path)  # and a table of made-up answers is no table of classes
    assert (
        "Their names begin with 'cat', 'dog': are these the classes?" in said
        and "write a CSV of path and label" in said
    )


def test_a_table_whose_images_lie_around_it_goes_into_shards_with_them(tmp_path):
    file = kaggle(tmp_path / "aptos") / "train.csv"
    write_shards(recognise(file), tmp_path / "shards")
    splits, packed = open_splits(recognise(file)), open_splits(recognise(tmp_path / "shards"))
    assert packed.train.entries == splits.train.entries and packed.val.entries == splits.val.entries
    assert all(
        packed.train.store.read(each.path) == splits.train.store.read(each.path) for each in packed.train.entries
    )
