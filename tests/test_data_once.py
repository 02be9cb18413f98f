"""Preparing data lists its folders once and reads each file of annotations once."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import foreign
from convnext.data.opening import open_dense, open_dense_splits, open_labelled, open_splits, recognise
from convnext.data.store import FolderStore, ZipStore
from dense_images import write_coco, write_maps
from images import write_colours, zipped
from test_dense_formats import write_voc, write_yolo

ANNOTATIONS = (".json", ".xml", ".txt", ".yaml", ".csv")


def write_table(folder: Path) -> Path:
    write_colours(folder / "images", train=3, val=1, size=4)
    files = sorted((folder / "images").rglob("*.png"))
    rows = [f"{file.relative_to(folder)},{file.parent.name},{file.parts[-3]}" for file in files]
    (folder / "all.csv").write_text("\n".join(["path,label,split", *rows]))
    return folder


def write_two_coco(folder: Path) -> Path:
    write_coco(folder, name="instances_train2017.json")
    write_coco(folder, name="instances_val2017.json")
    return folder


def write_named_masks(folder: Path, *names: str) -> Path:
    write_maps(folder, {f"{n}": np.eye(8) for n in range(4)})
    for name in names:
        (folder / name).write_text("sky\nroad\n")
    return folder


CASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "class folders": (lambda folder: write_colours(folder, train=3, val=1, size=4), "folders"),
    "a table": (write_table, "table"),
    "coco": (write_two_coco, "coco"),
    "voc": (write_voc, "voc"),
    "yolo": (write_yolo, "yolo"),
    "masks": (write_named_masks, "masks"),
    "labelme": (lambda folder: foreign.write_labelme(folder, foreign.small("polygons")), "labelme"),
    "cvat": (lambda folder: foreign.write_cvat(folder, foreign.small("masks"), files=True), "cvat"),
    "via": (lambda folder: foreign.write_via(folder, foreign.small("boxes")), "via"),
    "supervisely": (lambda folder: foreign.write_supervisely(folder, foreign.small("boxes")), "supervisely"),
    "datumaro": (lambda folder: foreign.write_datumaro(folder, foreign.small("boxes")), "datumaro"),
    "masks with names": (lambda folder: write_named_masks(folder, "classes.txt"), "masks"),
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], Counter[str]]:
    """How often each folder is listed, and each file read."""
    listed, read = Counter[str](), Counter[str]()
    scandir, of_folder, of_zip = os.scandir, FolderStore.read, ZipStore.read

    def scan(path: str) -> Any:
        listed[os.fspath(path)] += 1
        return scandir(path)

    def from_folder(self: FolderStore, path: str) -> bytes:
        read[path] += 1
        return of_folder(self, path)

    def from_zip(self: ZipStore, path: str) -> bytes:
        read[path] += 1
        return of_zip(self, path)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(FolderStore, "read", from_folder)
    monkeypatch.setattr(ZipStore, "read", from_zip)
    return listed, read


@pytest.mark.parametrize("form", [None, "named"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_one_walk_and_one_read_of_each_annotation_file(tmp_path, counted, case, packed, form):
    write, kind = CASES[case]
    write(tmp_path / "data")
    place = zipped(tmp_path / "data", tmp_path / "data.zip") if packed else tmp_path / "data"
    counts = sum(1 for _, _, _ in os.walk(tmp_path / "data"))
    listed, read = counted
    listed.clear()
    source = recognise(place, form=kind if form else None)
    assert source.form == kind
    if source.task == "classification":
        open_splits(source)
        open_labelled(source)  # as an evaluation asks for another part of it
    else:
        open_dense_splits(source)
        open_dense(source)
    assert (max(listed.values(), default=0), len(listed)) == ((0, 0) if packed else (1, counts))
    assert max(read.values(), default=0) <= 1
    files = {str(file.relative_to(tmp_path / "data")) for file in (tmp_path / "data").rglob("*") if file.is_file()}
    annotations = {file for file in files if file.endswith(ANNOTATIONS)}
    maps = {file for file in files if file.startswith("labels/") and file.endswith(".png")}
    assert set(read) - maps == annotations
    assert set(read) & maps <= maps and (case != "masks" or set(read) == maps)


def test_a_large_file_that_is_no_annotation_is_read_once_and_let_go(tmp_path, counted):
    write_two_coco(tmp_path / "data")
    for file in (tmp_path / "data" / "annotations").iterdir():
        file.rename(file.with_name(file.name.replace("instances_", "")))
    (tmp_path / "data" / "captions.json").write_text(json.dumps({"images": [], "captions": ["x" * 1_000_001]}))
    source = recognise(tmp_path / "data")
    parts = open_dense_splits(source)
    assert (len(parts.train.entries), len(parts.val.entries)) == (4, 4)
    assert counted[1]["captions.json"] == 1 and source.tree.once.passed_over == {"captions.json"}


def test_one_file_of_annotations_is_read_once_and_its_folder_listed_once(tmp_path, counted):
    file = write_coco(tmp_path)
    listed, read = counted
    source = recognise(file)
    open_dense_splits(source)
    assert set(listed.values()) == set(read.values()) == {1} and source.tree.files[0] == "instances.json"
    assert len(source.images.files) == 5


def test_of_very_many_files_beside_images_a_few_are_read(tmp_path, counted):
    folder = write_colours(tmp_path / "data", train=9, val=1, size=4, classes=2)
    for image in sorted(folder.rglob("*.png")):
        image.with_suffix(".json").write_text(json.dumps({"camera": "x" * 99}))
    source = recognise(folder)
    assert source.form == "folders" and len(open_splits(source).train.entries) == 18
    read = [file for file in counted[1] if file.endswith(".json")]
    assert len(read) == 2 * 3 + 2 * 1  # three of each folder
