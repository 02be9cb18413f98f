"""Columns of objects as the `datasets` library has them: JSON lines beside images, Parquet with the images inside."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convnext
from convnext.data.dataset import read_sample
from convnext.data.opening import open_dense_splits, open_parts, open_splits, recognise
from convnext.errors import ConvNeXtError, DataError
from images import zipped
from shape_objects import FIELDS, write_objects

pa = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'parquet' is not installed")

DATA = Path(os.environ.get("CONVNEXT_DATA", Path(__file__).parents[2] / "shared" / "data"))
HEIGHT, WIDTH = 30, 40
BOXES = [[1, 2, 10, 12], [5.5, 3, 20, 9]]  # x y width height
CORNERS = [[1.0, 2.0, 11.0, 14.0], [5.5, 3.0, 25.5, 12.0]]


def image(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (number, 9, 9)).save(out, "PNG")
    return out.getvalue()


def write_images(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(image(number))
    return folder


def write_lines(folder: Path, objects: list[Any], **more: Any) -> Path:
    """Images and the metadata.jsonl beside them."""
    write_images(folder, len(objects))
    rows = [{"file_name": f"{number}.png", "objects": each, **more} for number, each in enumerate(objects)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def rows_of(data: Path, part: str = "all", **how: Any) -> list[tuple[list[list[float]], list[str]]]:
    """Boxes and class names of each image."""
    found = open_parts(recognise(data, **how))[part]
    return [
        (entry.objects.boxes.tolist(), [found.classes[label] for label in entry.objects.labels.tolist()])
        for entry in found.entries
        if entry.objects is not None
    ]


@pytest.mark.parametrize(
    "objects",
    [
        {"bbox": BOXES, "categories": ["dog", "cat"]},
        {"bbox": BOXES, "category": ["dog", "cat"], "id": [7, 8], "area": [120, 180]},
        {"BBoxes": BOXES, "labels": ["dog", "cat"]},
        [{"bbox": BOXES[0], "category": "dog"}, {"bbox": BOXES[1], "category": "cat"}],
    ],
)
def test_objects_are_lists_in_a_struct_or_structs_in_a_list(tmp_path, objects):
    write_lines(tmp_path, [objects, {"bbox": [], "categories": []}, None])
    right = [(CORNERS, ["dog", "cat"]), ([], []), ([], [])]
    assert rows_of(tmp_path) == rows_of(tmp_path / "metadata.jsonl") == right
    source = recognise(tmp_path)
    assert (source.task, source.form) == ("detection", "objects")
    assert rows_of(zipped(tmp_path, tmp_path.parent / f"{tmp_path.name}.zip", below="wrap/")) == right


@pytest.mark.parametrize("words", [("train", "validation", "test"), ("Training", "dev", "testing")])
def test_the_folder_of_the_metadata_is_its_part(tmp_path, words):
    for number, word in enumerate(words):
        write_lines(tmp_path / word, [{"bbox": BOXES[:1], "categories": [number]}] * (3 - number))
    parts = open_parts(recognise(tmp_path))
    assert {part: len(data.entries) for part, data in parts.items()} == {"train": 3, "val": 2, "test": 1}
    assert parts["train"].classes == ("0", "1", "2")
    for part, data in parts.items():  # 0.png is in each folder
        assert data.entries[0].path == f"{words[['train', 'val', 'test'].index(part)]}/0.png"


def test_one_table_may_say_the_part_of_each_row(tmp_path):
    write_images(tmp_path, 4)
    rows = [
        {"file_name": f"{number}.png", "objects": {"bbox": BOXES, "category": [1, 2]}, "split": split}
        for number, split in enumerate(("train", "train", "train", "valid"))
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = open_dense_splits(recognise(tmp_path / "all.jsonl"))
    assert (len(splits.train.entries), len(splits.val.entries)) == (3, 1)
    (tmp_path / "all.jsonl").write_text(json.dumps(rows[0] | {"split": "x"}))
    with pytest.raises(DataError, match="line 1: split 'x' is not"):
        open_parts(recognise(tmp_path / "all.jsonl"))


def table(names: list[str], category: str, *, sized: bool = True, nested: bool = True) -> Any:
    """Two images with two objects and none, as `datasets` 2, `nested`, or 4 describe them."""
    objects = [{"bbox": BOXES, category: [1, 0]}, {"bbox": [], category: []}]
    columns: dict[str, Any] = {"image": [{"bytes": image(number), "path": None} for number in range(2)]}
    columns |= {"width": [WIDTH] * 2, "height": [HEIGHT] * 2} if sized else {}
    kind: Any = {"names": names, "_type": "ClassLabel"}
    inner = {category: kind} if nested else {category: {"feature": kind, "_type": "List"}}
    feature: Any = {"feature": inner, "_type": "Sequence"} if nested else inner
    about = {"info": {"features": {"image": {"_type": "Image"}, "objects": feature}}}
    return pa.table(columns | {"objects": objects}).replace_schema_metadata({"huggingface": json.dumps(about)})


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("sized", [True, False])
def test_parquet_holds_images_objects_and_the_names_of_their_classes(tmp_path, nested, sized):
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00001", "validation-00000-of-00001"):
        held = table(["zebra", "ant"], "category", sized=sized, nested=nested)
        pq.write_table(held, tmp_path / "data" / f"{name}.parquet", row_group_size=1)
    parts = open_parts(recognise(tmp_path))
    assert set(parts) == {"train", "val"} and parts["train"].classes == ("zebra", "ant")
    assert rows_of(tmp_path, "val") == [(CORNERS, ["ant", "zebra"]), ([], [])]
    sample = read_sample(parts["train"], 0)
    assert sample.image.shape == (HEIGHT, WIDTH, 3) and sample.instances.boxes.tolist() == CORNERS
    assert parts["train"].entries[0].size == ((HEIGHT, WIDTH) if sized else None)


@pytest.mark.parametrize("sized", [True, False])
def test_boxes_that_are_corners_are_known_by_the_sides_of_the_images(tmp_path, sized):
    size = {"height": HEIGHT, "width": WIDTH} if sized else {}
    far = [[25, 20, 39, 29], [1, 2, 11, 14]]  # as width and height, the first leaves its image
    write_lines(tmp_path / "a", [{"bbox": far, "category": ["x", "y"]}] * 2, **size)
    assert rows_of(tmp_path / "a")[0] == ([[25.0, 20.0, 39.0, 29.0], [1.0, 2.0, 11.0, 14.0]], ["x", "y"])
    (note,) = open_parts(recognise(tmp_path / "a"))["all"].notes
    assert "read as corners" in note
    write_lines(tmp_path / "b", [{"bbox": [*far, [20, 20, 5, 5]], "category": ["x", "y", "z"]}] * 2, **size)
    found = open_parts(recognise(tmp_path / "b"))["all"]  # the last is no corner: these are sides, and one is wrong
    assert rows_of(tmp_path / "b")[0][0][-1] == [20.0, 20.0, 25.0, 25.0] and not found.notes
    write_lines(tmp_path / "c", [{"bbox": BOXES, "category": ["x", "y"]}] * 2, **size)
    assert rows_of(tmp_path / "c")[0][0] == CORNERS


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ({"bbox": BOXES, "category": [1]}, "line 1: the lists in its objects have 1 and 2 values"),
        ({"bbox": BOXES}, "line 1: its objects have no 'category' (bbox)"),
        ({"category": [1]}, "line 1: its objects have no 'bbox' (category)"),
        ("cat", "line 1: its objects are no lists"),
        ({"bbox": BOXES, "category": [0.5, 1]}, "line 1: category 0.5 is a fraction"),
    ],
)
def test_objects_of_another_form_are_one_line(tmp_path, objects, reason):
    write_lines(tmp_path, [objects])
    with pytest.raises(DataError) as error:
        open_parts(recognise(tmp_path))
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_objects_that_cannot_be_used_are_named_and_the_others_stay(tmp_path):
    write_lines(tmp_path, [{"bbox": [[1, 2, 0, 5], BOXES[0], [1, 2, 3]], "category": ["x", "x", "x"]}])
    found = open_parts(recognise(tmp_path))["all"]
    assert [len(entry.objects) for entry in found.entries] == [1] and len(found.problems) == 2
    write_lines(tmp_path / "other", [{"bbox": BOXES, "category": ["x", "y"]}] * 2)
    (tmp_path / "other" / "1.png").unlink()
    found = open_parts(recognise(tmp_path / "other"))["all"]
    assert len(found.entries) == 1 and found.problems[0].where == "1.png"


def test_images_in_another_folder_are_named(tmp_path):
    write_images(tmp_path / "pictures", 2)
    row = {"file_name": "1.png", "objects": {"bbox": BOXES, "category": ["x", "y"]}}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "objects.jsonl").write_text(json.dumps(row))
    found = open_parts(recognise(tmp_path / "notes" / "objects.jsonl", tmp_path / "pictures"))["all"]
    assert [entry.path for entry in found.entries] == ["1.png"] and found.store.read("1.png") == image(1)


def test_a_detector_trains_on_images_in_rows(tmp_path):
    objects = write_objects(tmp_path / "set", train=6, val=3)
    for part in ("train", "val"):
        content = json.loads((objects / "annotations" / f"instances_{part}.json").read_text())
        names = {row["id"]: row["name"] for row in content["categories"]}
        rows = []
        for row in content["images"]:
            own = [each for each in content["annotations"] if each["image_id"] == row["id"]]
            held = {"bytes": (objects / part / row["file_name"]).read_bytes(), "path": row["file_name"]}
            boxes = {"bbox": [each["bbox"] for each in own], "category": [names[each["category_id"]] for each in own]}
            rows.append({"image": held, "objects": boxes})
        (tmp_path / "rows").mkdir(exist_ok=True)
        file = tmp_path / "rows" / f"{part}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=2)
    shutil.rmtree(objects)
    short: dict[str, Any] = {"schedule.epochs": 1, "optim.batch": 2}
    made = convnext.train(tmp_path / "rows", out=tmp_path / "run", overrides=FIELDS | short, workers=2, progress=False)
    assert made.evaluation.task == "detection" and made.evaluation.n == 3
    assert convnext.evaluate(made, tmp_path / "rows" / "val-00000-of-00001.parquet").n == 3


def test_classes_are_not_made_of_objects(tmp_path):
    pq.write_table(table(["a", "b"], "category"), tmp_path / "x.parquet")
    with pytest.raises(ConvNeXtError, match="has no column 'label'"):
        open_splits(recognise(tmp_path / "x.parquet", annotated=False))


def test_a_real_set_written_so_is_what_it_was(tmp_path):
    archive = DATA / "minicoco" / "minicoco.zip"
    if not archive.is_file():
        pytest.skip("minicoco.zip is not at hand: set CONVNEXT_DATA to the folder that holds minicoco/minicoco.zip")
    with zipfile.ZipFile(archive) as pack:
        name = next(member for member in pack.namelist() if "instances_val" in member)
        original = json.loads(pack.read(name))
        files = {member.rsplit("/", 1)[-1]: member for member in pack.namelist() if "train" not in member}
        images = {row["file_name"]: pack.read(files[row["file_name"]]) for row in original["images"]}
    for file, data in images.items():
        (tmp_path / file).write_bytes(data)
    classes = {row["id"]: row["name"] for row in original["categories"]}
    own: dict[int, list[dict[str, Any]]] = {row["id"]: [] for row in original["images"]}
    for row in original["annotations"]:
        own[row["image_id"]] += [row] * (not row.get("iscrowd"))
    objects = [
        {"bbox": [item["bbox"] for item in each], "category": [classes[item["category_id"]] for item in each]}
        for each in own.values()
    ]
    rows = [{"file_name": file, "objects": each} for file, each in zip(images, objects, strict=True)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    held = pa.table({"image": [{"bytes": data, "path": file} for file, data in images.items()], "objects": objects})
    pq.write_table(held, tmp_path / "x.parquet", row_group_size=50)
    for data in (tmp_path / "metadata.jsonl", tmp_path / "x.parquet"):
        found = open_parts(recognise(data))["all"]
        assert len(found.entries) == len(images) and not found.problems and not found.notes
        for entry, each in zip(found.entries, objects, strict=True):
            x, y, width, height = np.array(each["bbox"], np.float64).reshape(-1, 4).T
            assert np.array_equal(entry.objects.boxes, np.stack([x, y, x + width, y + height], axis=1))
            assert [found.classes[label] for label in entry.objects.labels] == each["category"]
        assert found.store.read(found.entries[-1].path) == list(images.values())[-1]
