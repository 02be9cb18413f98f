"""Classes of whole images as annotation tools write them, one each or several; the same classes from every tool."""

import json
from pathlib import Path
from typing import Any

import pytest

from convnext.data.opening import open_parts, open_splits, recognise
from convnext.errors import DataError
from test_field_tables import image, put

ONE = [("cat",), ("dog",), ("cat",), ("dog",), ("cat",), ("dog",)]
MANY = [("cat", "dog"), ("dog",), ("cat",), ("dog", "cat"), ("cat",), ("dog",)]
Truth = list[tuple[str, ...]]


def cvat(folder: Path, truth: Truth) -> Path:
    tags = ("".join(f'<tag label="{name}" source="manual"></tag>' for name in names) for names in truth)
    rows = (f'<image id="{k}" name="day 1/{k}.jpg" width="8" height="6">{own}</image>' for k, own in enumerate(tags))
    put(folder / "annotations.xml", f"<annotations><version>1.1</version>{''.join(rows)}</annotations>")
    for k in range(len(truth)):
        image(folder / "images" / "day 1" / f"{k}.jpg", k)
    return folder


def labelme(folder: Path, truth: Truth) -> Path:
    for k, names in enumerate(truth):
        about = {"version": "5.4.1", "shapes": [], "imagePath": f"{k}.jpg", "imageData": None}
        flags = {name: name in names for name in ("cat", "dog")}
        put(folder / f"{k}.json", json.dumps(about | {"flags": flags, "imageHeight": 6, "imageWidth": 8}))
        image(folder / f"{k}.jpg", k)
    return folder


def via(folder: Path, truth: Truth) -> Path:
    """A text where each image has one, boxes to tick where one has several; the attributes that VIA has itself stay empty."""
    several = any(len(names) > 1 for names in truth)
    images = {}
    for k, names in enumerate(truth):
        said: Any = {name: True for name in names} if several else names[0]
        about = {"caption": "", "public_domain": "no", "animal": said}
        images[f"{k}.jpg9"] = {"filename": f"{k}.jpg", "size": 9, "regions": [], "file_attributes": about}
        image(folder / f"{k}.jpg", k)
    put(folder / "project.json", json.dumps({"_via_settings": {}, "_via_img_metadata": images}))
    return folder


def supervisely(folder: Path, truth: Truth) -> Path:
    for k, names in enumerate(truth):
        tags = [{"name": name, "value": None} for name in names]
        about = {"description": "", "tags": tags, "size": {"height": 6, "width": 8}, "objects": []}
        put(folder / "ds" / "ann" / f"{k}.jpg.json", json.dumps(about))
        image(folder / "ds" / "img" / f"{k}.jpg", k)
    put(folder / "meta.json", json.dumps({"classes": [], "tags": [{"name": "cat", "value_type": "none"}]}))
    return folder


def label_studio(folder: Path, truth: Truth) -> Path:
    """Images uploaded, and called by their own names here; one annotation was cancelled."""
    rows = []
    for k, names in enumerate(truth):
        result = [{"from_name": "c", "to_name": "image", "type": "choices", "value": {"choices": list(names)}}]
        wrong = [{"type": "choices", "value": {"choices": ["fox"]}}]
        done = [{"result": result, "was_cancelled": False}, {"result": wrong, "was_cancelled": True}]
        rows.append({"id": k, "annotations": done, "data": {"image": f"/data/upload/1/0a1b2c3{k}-shot%20{k}.jpg"}})
        image(folder / "images" / f"shot {k}.jpg", k)
    put(folder / "project-1.json", json.dumps(rows))
    return folder


def short(folder: Path, truth: Truth) -> Path:
    rows = []
    for k, names in enumerate(truth):
        said: Any = names[0] if len(names) == 1 else {"choices": list(names)}
        place = f"/data/local-files/?d=shots%2Fimages%2F{k}.jpg"
        rows.append({"image": place, "id": k, "choice": said, "annotator": 1, "annotation_id": k, "lead_time": 1.5})
        image(folder / "images" / f"{k}.jpg", k)
    put(folder / "project-1.json", json.dumps(rows))
    return folder


def spreadsheet(folder: Path, truth: Truth) -> Path:
    """Label Studio's CSV."""
    lines = ["annotation_id,annotator,choice,created_at,id,image,lead_time"]
    for k, names in enumerate(truth):
        many = json.dumps({"choices": list(names)}).replace('"', '""')
        said = names[0] if len(names) == 1 else f'"{many}"'
        lines.append(f"{k},1,{said},2024-01-0{k + 1},{k},/data/upload/1/0a1b2c3{k}-{k}.jpg,1.{k}")
        image(folder / "images" / f"{k}.jpg", k)
    put(folder / "project-1.csv", "\n".join(lines))
    return folder


TOOLS = (cvat, labelme, via, supervisely, label_studio, short, spreadsheet)


def found(data: Path, **how: Any) -> dict[str, tuple[str, ...]]:
    """Number of an image -> its classes."""
    splits = open_splits(recognise(data, **how))
    rows = {}
    for dataset in (splits.train, splits.val):
        for entry in dataset.entries:
            marks = entry.marks or [number == entry.label for number in range(len(dataset.classes))]
            own = tuple(name for name, mark in zip(dataset.classes, marks, strict=True) if mark)
            rows[entry.path.rsplit("/", 1)[-1].removesuffix(".jpg")[-1]] = own
            assert dataset.store.read(entry.path)
    return rows


@pytest.mark.parametrize("truth", [ONE, MANY], ids=["one", "several"])
@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_says_the_same_classes(tmp_path, tool, truth):
    data = tool(tmp_path, truth)
    assert found(data) == {str(k): tuple(sorted(names)) for k, names in enumerate(truth)}
    assert recognise(data).task == "classification"
    assert found(data, annotated=False) == found(data)


@pytest.mark.parametrize(
    ("tool", "file"), [(cvat, "annotations.xml"), (via, "project.json"), (short, "project-1.json")]
)
def test_the_file_itself_may_be_named_and_the_images_lie_elsewhere(tmp_path, tool, file):
    data = tool(tmp_path / "data", ONE)
    assert found(data / file) == found(data)
    put(tmp_path / "apart" / file, (data / file).read_bytes())
    assert found(tmp_path / "apart" / file, images=data) == found(data)
    with pytest.raises(DataError, match=r"none of the 6 images .* tags is there; .* add --images DIR"):
        found(tmp_path / "apart" / file)


def test_an_image_that_nobody_tagged_is_left_out_and_folders_say_the_parts(tmp_path):
    cvat(tmp_path, [*ONE, ()])
    assert open_splits(recognise(tmp_path)).left_out == {"images without a tag": 1}
    text = (tmp_path / "annotations.xml").read_text().replace('id="0"', 'id="0" subset="Validation"')
    put(tmp_path / "annotations.xml", text.replace('id="1"', 'id="1" subset="Validation"'))
    assert [entry.path[-5:] for entry in open_splits(recognise(tmp_path)).val.entries] == ["0.jpg", "1.jpg"]


def test_tags_beside_objects_are_read_where_classes_are_asked_for(tmp_path):
    data = cvat(tmp_path, ONE)
    box = '<box label="tail" xtl="1" ytl="1" xbr="5" ybr="4"></box></image>'
    put(data / "annotations.xml", (data / "annotations.xml").read_text().replace("</image>", box))
    assert recognise(data).task == "detection" and open_parts(recognise(data))["all"].classes == ("tail",)
    assert found(data, annotated=False) == {str(k): names for k, names in enumerate(ONE)}


def test_class_folders_with_files_of_a_tool_stay_class_folders(tmp_path):
    for name in ("a", "b"):
        labelme(tmp_path / name, ONE)
    assert recognise(tmp_path).form == "folders"


def test_a_damaged_file_is_named(tmp_path):
    data = short(tmp_path, ONE)
    put(data / "project-1.json", (data / "project-1.json").read_text()[:-40])
    with pytest.raises(DataError, match=r"cannot be read|not JSON|Label Studio"):
        open_splits(recognise(data))
