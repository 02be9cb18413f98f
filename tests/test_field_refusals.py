"""A refusal that follows from the data brings what was found in them: what was left out, why, how many, the first names."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import convnext
from convnext.data.annotated_preflight import preflight_dense
from convnext.data.opening import open_dense, open_dense_splits, open_labelled, open_splits, recognise
from convnext.data.preflight import preflight
from convnext.errors import DataError
from dense_images import write_image
from images import write_colours


def broken_coco(folder: Path) -> Path:
    """Twelve objects, none of which can be used, for three reasons."""
    images, rows = [], []
    for number in range(1, 7):
        write_image(folder / "images" / f"{number}.png", height=24, width=32, seed=number)
        images.append({"id": number, "file_name": f"{number}.png", "height": 24, "width": 32})
    for number in range(12):
        row = {"id": number + 1, "image_id": number % 6 + 1, "category_id": 1, "bbox": [2, 2, 8, 8], "iscrowd": 0}
        changes = ({"category_id": 77}, {"bbox": [5, 5, 0, 0]}, {"image_id": 12345})
        rows.append(row | changes[number % 3])
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "all.json").write_text(json.dumps(content))
    return folder / "all.json"


def test_objects_that_are_all_left_out_are_counted_by_reason_in_the_one_line_and_named_before_it(tmp_path):
    done = convnext("train", broken_coco(tmp_path), "--out", tmp_path / "run")
    says = "Left out: 4 objects of zero area, 4 objects of an unknown category, 4 annotations of no known image."
    assert done.refusal.endswith(says), done.refusal
    assert "4 objects of an unknown category are left out: 1.png annotation 1 (category 77)" in done.err
    assert not (tmp_path / "run").exists() or not [*(tmp_path / "run").iterdir()]


def test_python_has_the_findings_as_an_attribute_and_as_notes(tmp_path):
    findings = preflight_dense(open_dense_splits(recognise(broken_coco(tmp_path)), val_share=0.2))
    error = DataError(" ".join(findings.errors), findings.reasons)
    assert len(error.findings) >= 3 and error.__notes__ == list(error.findings)
    assert "\n" not in str(error)


def test_one_class_says_which_files_were_left_out_beside_it(tmp_path):
    for number in range(3):
        write_image(tmp_path / "cat" / f"{number}.png", seed=number)
        (tmp_path / "dog").mkdir(exist_ok=True)
        (tmp_path / "dog" / f"{number}.heics").write_bytes(b"x")
    with pytest.raises(DataError) as refused:
        open_splits(recognise(tmp_path, annotated=False))
    assert "one class only ('cat')" in str(refused.value)
    assert refused.value.findings == ("3 files were left out: 3 .heics.",)


def test_a_missing_part_says_what_else_is_there(tmp_path):
    folder = write_colours(tmp_path, train=2, val=2)
    for file in folder.glob("val/*/*.png"):
        file.rename(file.with_suffix(".png.part"))
    with pytest.raises(DataError) as refused:
        open_labelled(recognise(folder, annotated=False))
    assert "no images in its val part" in str(refused.value)
    assert refused.value.findings == ("6 files were left out: 6 .part.",)


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_images_of_which_none_can_be_read_are_counted_by_reason(tmp_path, task):
    for number in range(6):
        if task == "segmentation":
            write_image(tmp_path / "images" / f"{number}.png", height=24, width=32, seed=number)
            (tmp_path / "masks").mkdir(exist_ok=True)
            Image.fromarray(np.full((24, 32), number % 2, np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    if task == "segmentation":
        source = recognise(tmp_path)
        images = sorted((tmp_path / "images").iterdir())
        look, data = preflight_dense, open_dense(source)
    elif task == "detection":
        source = recognise(broken_coco(tmp_path))
        images = sorted((tmp_path / "images").iterdir())
        look, data = preflight_dense, open_dense(source)
    else:
        folder = write_colours(tmp_path, train=3, val=0)
        images = sorted(folder.glob("train/*/*.png"))[:6]
        for file in sorted(folder.glob("train/*/*.png"))[6:]:
            file.unlink()
        look, data = preflight, open_labelled(recognise(folder / "train", annotated=False))
    for number, file in enumerate(images):
        file.write_bytes(b"" if number < 4 else b"an image, once")
    with pytest.raises(DataError) as refused:
        look(data)
    assert str(refused.value).startswith("none of the 6 val images can be read; the first is")
    assert refused.value.findings == (
        "4 images: the file is empty (0 bytes).",
        "2 images: not an image, or damaged in its first bytes.",
    )
