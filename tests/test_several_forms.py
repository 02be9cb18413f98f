"""Several labels an image, in every form that people write: read as meant, or said; split so that rare classes are in both."""

import json

import numpy as np
import pytest

from commands import convnext, tiny
from convnext.data.names import Names
from convnext.data.opening import open_labelled, open_splits, recognise
from convnext.data.preflight import preflight
from convnext.data.split import held_out_of_classes
from convnext.errors import DataError
from images import write_colours, zipped
from labels_data import FORMS, NAMES, in_columns, joined, made, table, texts, write_images

SAID = made(12)


def read(source, **how):
    """File name -> labels, of all images."""
    data = open_labelled(recognise(source, **how))
    assert data.several
    return {
        entry.path.rsplit("/", 1)[-1]: [name for name, mark in zip(data.classes, entry.marks, strict=True) if mark == 1]
        for entry in data.entries
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(tmp_path, form):
    assert read(FORMS[form](tmp_path / "data", SAID)) == SAID


def test_a_zip_and_a_file_say_the_same(tmp_path):
    folder = joined(tmp_path / "data", SAID)
    assert read(zipped(folder, tmp_path / "data.zip", below="wrap/")) == read(folder / "labels.csv") == SAID
    alone = texts(tmp_path / "alone", SAID)
    assert read(zipped(alone, tmp_path / "alone.zip", below="photos/")) == SAID


def test_an_empty_cell_of_a_column_is_unknown_and_minus_one_beside_nought_too(tmp_path):
    folder = in_columns(tmp_path, SAID, unknown={"001.png": "blue", "002.png": "red"})
    sheet = folder / "labels.csv"
    sheet.write_text(sheet.read_text().replace("003.png,1,1,1", "003.png,-1,1,1"))
    splits = open_splits(recognise(folder), val_share=0)
    marks = {entry.path: entry.marks for entry in splits.train.entries}
    assert marks["images/001.png"] == (-1, 0, 1) and marks["images/002.png"] == (1, 0, -1)
    assert marks["images/003.png"] == (-1, 1, 1)
    assert "-1 and an empty cell says nothing" in splits.notes[0]
    assert any("unknown" in line for line in preflight(splits).lines)


def test_other_columns_are_left_alone_and_named(tmp_path):
    write_images(tmp_path, SAID)
    rows = [
        [name, 20 + k, *("01"[known in labels] for known in NAMES)] for k, (name, labels) in enumerate(SAID.items())
    ]
    (tmp_path / "labels.csv").write_text(table(rows, ["path", "age", *NAMES]))
    splits = open_splits(recognise(tmp_path))
    assert splits.train.classes == NAMES and "'age' is left alone" in " ".join(splits.notes)


def test_names_that_hold_a_separator_stay_names_and_one_label_each_stays_one(tmp_path):
    write_images(tmp_path / "images", SAID)
    names = ["Canis;lupus", "Felis;catus", "Vulpes;vulpes"]
    rows = [[f"images/{name}", names[k % 3]] for k, name in enumerate(SAID)]
    (tmp_path / "labels.csv").write_text(table(rows, ["path", "label"]))
    splits = open_splits(recognise(tmp_path))
    assert splits.train.classes == tuple(names) and not splits.train.several
    assert "taken for the name of one class" in splits.notes[0]
    assert "Canis" in open_splits(recognise(tmp_path, labels="multi")).train.classes
    with pytest.raises(DataError, match="has no label"):
        open_splits(recognise(joined(tmp_path / "b", SAID), labels="single"))


def test_columns_of_which_each_image_has_one_are_one_label_each_unless_a_person_says_so(tmp_path):
    said = {name: [NAMES[k % 3]] for k, name in enumerate(SAID)}
    folder = in_columns(tmp_path, said)
    splits = open_splits(recognise(folder))
    assert not splits.train.several and "exactly one label" in " ".join(splits.notes)
    again = open_labelled(recognise(folder, labels="single"))  # as a run that was trained on them has them scored
    assert [entry.label for entry in again.entries] == [k % 3 for k in range(len(SAID))]
    assert read(folder, labels="multi") == said


def test_class_folders_and_rows_of_one_label_can_be_several(tmp_path):
    folder = write_colours(tmp_path / "folders", train=3, val=1)
    assert open_splits(recognise(folder)).train.several is False
    many = open_splits(recognise(folder, labels="multi"))
    assert many.train.labels().tolist() == np.repeat(np.eye(3, dtype=int), 3, 0).tolist()
    write_images(tmp_path / "long", SAID)
    rows = [[name, label] for name, labels in SAID.items() for label in labels]
    (tmp_path / "long" / "labels.csv").write_text(table(rows, ["path", "label"]))
    assert "--labels multi" in " ".join(open_splits(recognise(tmp_path / "long")).notes)
    whole = read(tmp_path / "long", labels="multi")
    assert whole == {name: labels for name, labels in SAID.items() if labels}


def test_rows_that_contradict_each_other_say_nothing(tmp_path):
    folder = in_columns(tmp_path, SAID)
    with open(folder / "labels.csv", "a") as sheet:
        sheet.write("001.png,1,0,1\n")  # was 0,0,1
    data = open_labelled(recognise(folder))
    assert next(entry.marks for entry in data.entries if entry.path.endswith("001.png")) == (-1, 0, 1)
    assert "contradict" in " ".join(open_splits(recognise(folder)).notes)


def test_captions_are_refused(tmp_path):
    write_images(tmp_path, SAID)
    for k, name in enumerate(SAID):
        (tmp_path / name).with_suffix(".txt").write_text(f"a photo of thing number {k}")
    with pytest.raises(DataError, match="look like sentences"):
        open_splits(recognise(tmp_path))


def test_yolo_texts_coco_and_class_folders_with_texts_stay_what_they_are(tmp_path):
    boxes = write_images(tmp_path / "yolo", SAID)
    for name in SAID:
        (boxes / name).with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert recognise(boxes).form == "yolo"
    folders = write_colours(tmp_path / "folders", train=2, val=1)
    for file in list(folders.rglob("*.png")):
        file.with_suffix(".txt").write_text("a note")
    assert recognise(folders).form == "folders"
    (tmp_path / "coco.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    assert recognise(tmp_path / "coco.json").task == "detection"


def test_images_without_a_text_are_left_out_and_counted(tmp_path):
    folder = texts(tmp_path, SAID)
    (folder / "005.txt").unlink()
    splits = open_splits(recognise(folder))
    assert len(splits.train.entries) + len(splits.val.entries) == 11
    assert splits.left_out == {"images without a text of labels": 1}


@pytest.mark.parametrize("seed", range(3))
def test_a_split_has_rare_classes_in_both_parts_and_follows_from_seed_and_names_alone(seed):
    rng = np.random.default_rng(seed)
    marks = (rng.random((400, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0]).astype(np.int8)
    marks[:2, 5] = 1
    paths = [f"{k}.jpg" for k in range(400)]
    chosen = held_out_of_classes(Names.of(paths), marks, 0.2, seed, repeated=True)
    for label in range(6):
        has = marks[:, label] == 1
        want = max(1, round(has.sum() * 0.2))
        assert abs((has & chosen).sum() - want) <= max(1, 0.2 * want), label
        assert (has & ~chosen).any()
    assert abs(chosen.sum() - 80) <= 16
    order = rng.permutation(400)
    again = held_out_of_classes(Names.of([paths[k] for k in order]), marks[order], 0.2, seed, repeated=True)
    assert np.array_equal(again, chosen[order])
    other = held_out_of_classes(Names.of(paths), marks, 0.2, seed + 1, repeated=True)
    assert not np.array_equal(other, chosen)


def test_the_check_counts_images_without_a_label_and_names_a_class_that_all_have(tmp_path):
    said = {name: [*labels, "all"] for name, labels in SAID.items()}
    lines = " ".join(preflight(open_splits(recognise(joined(tmp_path / "a", said)))).lines)
    assert "is in every image of train, so there is nothing to tell apart: all" in lines
    found = preflight(open_splits(recognise(joined(tmp_path / "b", SAID)), val_share=0))
    bare = sum(not labels for labels in SAID.values())
    assert any(f"{bare} image" in line and "no label" in line for line in found.lines)
    assert found.per_class["train"] == {n: sum(n in labels for labels in SAID.values()) for n in NAMES}


def test_labels_of_another_task_are_refused_in_one_line(tmp_path):
    (tmp_path / "coco.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    done = convnext(*tiny(tmp_path / "coco.json", tmp_path / "run", "--labels", "multi"))
    assert "--labels" in done.line and "classification" in done.line


LISTS = {
    "at first": [{"names": list(NAMES), "_type": "ClassLabel"}],
    "later": {"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "Sequence"},
}


@pytest.mark.parametrize("feature", LISTS)
def test_parquet_has_lists_of_numbers_behind_which_are_names_and_columns_of_marks(tmp_path, feature):
    pa = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'parquet' is not installed")
    folder = write_images(tmp_path / "images", SAID)
    images = pa.array([{"bytes": (folder / name).read_bytes(), "path": name} for name in SAID])
    numbers = pa.array([[NAMES.index(name) for name in labels] for labels in SAID.values()], pa.list_(pa.int64()))
    about = {"info": {"features": {"image": {"_type": "Image"}, "labels": LISTS[feature]}}}
    lists = pa.table({"image": images, "labels": numbers}).replace_schema_metadata({"huggingface": json.dumps(about)})
    marks = {name: [name in labels for labels in SAID.values()] for name in NAMES}
    marks["green"][5] = None
    pq.write_table(lists, tmp_path / "lists.parquet")
    pq.write_table(pa.table({"image": images, **marks}), tmp_path / "marks.parquet")
    right = [[int(name in labels) for name in NAMES] for labels in SAID.values()]
    assert open_labelled(recognise(tmp_path / "lists.parquet")).labels().tolist() == right
    right[5][1] = -1
    assert open_labelled(recognise(tmp_path / "marks.parquet")).labels().tolist() == right


@pytest.mark.parametrize("head", ["image_id", "file_name,image_id"])
def test_a_column_of_numbers_or_names_of_images_is_none_of_the_classes(tmp_path, head):
    said = made(12)
    write_images(tmp_path / "images", said)
    first = [f"{name},{place % 2}" if "," in head else name for place, name in enumerate(said)]
    rows = [
        f"{cells},{','.join(str(int(each in labels)) for each in NAMES)}"
        for cells, labels in zip(first, said.values(), strict=True)
    ]
    (tmp_path / "labels.csv").write_text("\n".join([f"{head},{','.join(NAMES)}", *rows]))
    splits = open_splits(recognise(tmp_path))
    found = {
        entry.path.rsplit("/", 1)[-1]: [name for name, mark in zip(NAMES, entry.marks, strict=True) if mark == 1]
        for part in (splits.train, splits.val)
        for entry in part.entries
    }
    assert splits.train.classes == NAMES and found == {name: list(labels) for name, labels in said.items()}
