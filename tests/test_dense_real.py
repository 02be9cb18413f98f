"""Real annotations: COCO, pedestrians, nuclei, streets; skipped where the files are not at hand.

They are looked for in the folder that CONVNEXT_DATA names, else in shared/data beside the repository.
"""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as theirs

from convnext.config import AnnotatedAugment, AnnotatedInput
from convnext.data.annotated_policy import train_dense
from convnext.data.annotated_preflight import preflight_dense
from convnext.data.dataset import DenseDataset, read_sample
from convnext.data.formats.export import to_coco
from convnext.data.opening import DenseSplits, open_dense, open_dense_splits, recognise

DATA = Path(os.environ.get("CONVNEXT_DATA", Path(__file__).parents[2] / "shared" / "data"))

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself


def archive(name: str) -> Path:
    file = DATA / name / f"{name}.zip"
    if not file.is_file():
        pytest.skip(f"{name}.zip is not at hand: set CONVNEXT_DATA to the folder that holds {name}/{name}.zip")
    return file


def objects(dataset: DenseDataset) -> int:
    return sum(len(entry.objects) for entry in dataset.entries)


@pytest.mark.parametrize(
    ("name", "classes", "images", "annotations"),  # as the files' own descriptions count them
    [
        ("minicoco", 80, (315, 302), (2780, 2457)),
        ("pennfudan", 1, (136, 34), (337, 86)),
        ("nuclei", 1, (535, 129), (22993, 5833)),
    ],
)
def test_real_coco_files_open_without_a_problem_and_draw_as_pycocotools_does(name, classes, images, annotations):
    file = archive(name)
    splits = open_dense_splits(recognise(file))
    assert recognise(file).form == "coco" and len(splits.train.classes) == classes
    assert (len(splits.train.entries), len(splits.val.entries)) == images
    assert (objects(splits.train), objects(splits.val)) == annotations
    assert not splits.train.problems and not splits.val.problems and not splits.val.notes
    with zipfile.ZipFile(file) as pack:
        source = next(one for one in pack.namelist() if "instances_val" in one)
        given = {item["id"]: item for item in json.loads(pack.read(source))["annotations"]}
    for index in range(0, len(splits.val.entries), 25):
        sample = read_sample(splits.val, index)
        height, width = sample.size
        for number, mask in zip(sample.instances.ids.tolist(), sample.instances.masks, strict=True):
            shape = given[number]["segmentation"]
            packed = theirs.merge(theirs.frPyObjects(shape, height, width)) if isinstance(shape, list) else shape
            assert np.array_equal(mask, theirs.decode(packed))


def test_real_coco_written_again_has_the_same_numbers():
    file = archive("minicoco")
    with zipfile.ZipFile(file) as pack:
        given = json.loads(pack.read("annotations/instances_val2017.json"))
    written = {item["id"]: item for item in to_coco(open_dense(recognise(file), part="val"))["annotations"]}
    assert len(written) == len(given["annotations"])
    for item in given["annotations"]:
        ours = written[item["id"]]
        assert np.allclose(ours["bbox"], item["bbox"], rtol=0, atol=1e-9) and ours["area"] == item["area"]
        assert ours["segmentation"] == item["segmentation"] and ours["iscrowd"] == item["iscrowd"]
        assert (ours["category_id"], ours["image_id"]) == (item["category_id"], item["image_id"])


def test_real_boxes_stay_round_their_masks_through_training():
    dataset = open_dense(recognise(archive("pennfudan")), part="train")
    config = AnnotatedInput(short_px=(200, 260), long_px=400)
    augment = AnnotatedAugment(precrop=0.5, precrop_short_px=(300,), precrop_px=(200, 300))
    for index in range(0, 136, 20):
        sample = train_dense(read_sample(dataset, index), config, augment, (0, index))
        found = sample.instances
        for box, mask in zip(found.boxes, found.masks, strict=True):
            rows, columns = np.nonzero(mask)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(box - tight).max() <= 2


def test_real_maps_open_with_their_classes_and_what_does_not_count():
    file = archive("camvid")
    splits = open_dense_splits(recognise(file))
    assert (len(splits.train.entries), len(splits.val.entries)) == (367, 101)
    assert len(open_dense(recognise(file), part="test").entries) == 233
    assert splits.train.classes[0] == "Sky" and len(splits.train.classes) == 11
    few = DenseSplits(*(DenseDataset(part.task, part.classes, part.entries[::40], part.store, values=part.values,
                                     ignored=part.ignored) for part in (splits.train, splits.val)))  # fmt: skip
    findings = preflight_dense(few)
    assert not findings.broken and not findings.errors and findings.median_size == (360, 480)
    assert findings.per_class["train"]["Road"] > findings.per_class["train"]["Bicyclist"]
    assert not [line for line in findings.lines if "no class" in line]


@pytest.mark.parametrize("form", ["cvat", "numbers", "cityscapes words"])
def test_streets_written_in_another_form_open_as_the_originals(tmp_path, form):
    """Written by a few lines that know nothing of the project, from the bytes of the archive."""
    with zipfile.ZipFile(archive("camvid")) as pack:
        names = [name for name in pack.namelist() if name.startswith("val/labels/")][:6]
        classes = json.loads(pack.read("classes.json"))["classes"]
        palette = [(20 * n + 5, 200 - 15 * n, 7 * n) for n in range(len(classes))] + [(255, 255, 255)]
        images, masks = {"cvat": ("JPEGImages", "SegmentationClass"), "numbers": ("rgb", "gt")}.get(
            form, ("leftImg8bit", "gtFine")
        )
        for name in names:
            stem = Path(name).stem
            values = np.asarray(Image.open(io.BytesIO(pack.read(name))))
            for folder in (images, masks):
                (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / images / f"{stem}.jpg").write_bytes(pack.read(f"val/images/{stem}.jpg"))
            shown = np.array(palette, np.uint8)[values] if form == "cvat" else values
            Image.fromarray(shown).save(tmp_path / masks / f"{stem}.png")
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip([*classes, "void"], palette, strict=True)]
    if form == "cvat":
        (tmp_path / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]))
    else:
        (tmp_path / "classes.txt").write_text("\n".join(classes))
    ours, given = open_dense(recognise(tmp_path)), open_dense(recognise(archive("camvid")), part="val")
    assert ours.classes == given.classes == tuple(classes) and len(ours.entries) == len(names)
    for place in range(len(names)):
        mine, original = read_sample(ours, place), read_sample(given, place)
        assert np.array_equal(mine.semantic, original.semantic) and np.array_equal(mine.image, original.image)
