"""COCO files by thousands of annotations at once: what comes out is what one after the other gives, whoever reads the JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convnext.data.annotated import Outlines
from convnext.data.dataset import DenseDataset, read_sample
from convnext.data.formats import coco_columns
from convnext.data.formats.coco import open_coco
from convnext.data.formats.coco_json import CocoFile
from convnext.data.formats.coco_merge import numbered
from convnext.data.opening import recognise
from dense_images import HEIGHT, WIDTH, coco, square, write_coco

place = st.floats(-2, 40, width=32) | st.integers(-2, 40)
polygon = st.lists(place, max_size=9)
outline = st.one_of(
    st.none(),
    st.lists(polygon, max_size=3),
    polygon,
    st.just(square(3, 3, 5)),
    st.just({"size": [24, 32], "counts": [768]}),
)
annotation = st.fixed_dictionaries(
    {"image_id": st.sampled_from([10, 20, 20.0, "10", 99]), "category_id": st.sampled_from([7, 3, 3.0, 5])},
    optional={
        "bbox": st.lists(place, min_size=3, max_size=4) | st.none(),
        "id": st.integers(-1, 6) | st.none() | st.just(10**30),
        "area": st.floats(0, 1e13) | st.none() | st.just(10**400),
        "iscrowd": st.sampled_from([0, 1, True, 1.0, "1", None]),
        "segmentation": outline,
    },
)


def described(dataset: DenseDataset) -> list[Any]:
    """All that an annotation file says."""
    found: list[Any] = [dataset.classes, dataset.category_ids, dataset.problems, dataset.notes]
    for entry in dataset.entries:
        objects = entry.objects
        columns = (objects.boxes, objects.labels, objects.crowd, objects.area, objects.ids, objects.outlined)
        found.append((entry.path, entry.image_id, entry.size, *(column.tobytes() for column in columns)))
        found.append([repr(shape) for shape in objects.shapes])
    return found


def opened(file: Path, content: dict[str, Any] | bytes) -> list[Any]:
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return described(open_coco(recognise(file))["all"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(annotation, max_size=8))
def test_columns_are_what_one_annotation_after_the_other_gives(tmp_path, annotations):
    file = tmp_path / "annotations" / "instances.json"
    if not file.exists():
        write_coco(tmp_path)
    content = coco() | {"annotations": annotations}
    columns = opened(file, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_columns, "_read", lambda raws: [None] * len(raws))
        assert opened(file, content) == columns
        patch.setattr(CocoFile, "__init__", by_the_standard_library)
        assert opened(file, content) == columns


def by_the_standard_library(self: CocoFile, data: bytes, name: str) -> None:
    constructor(self, data.replace(b"{", b'{"nan": NaN, ', 1), name)
    assert not self.text and not self.raws


constructor = CocoFile.__init__


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_in_another_encoding_is_read(tmp_path, codec):
    file = write_coco(tmp_path)
    assert opened(file, json.dumps(coco()).encode(codec)) == opened(file, coco())


@pytest.mark.parametrize("indent", [None, 1])
def test_outlines_are_those_of_the_file_however_it_is_laid_out(tmp_path, indent):
    file = write_coco(tmp_path)
    assert opened(file, json.dumps(coco(), indent=indent).encode()) == opened(file, coco())
    dataset = open_coco(recognise(file))["all"]
    shapes = dataset.entries[0].objects.shapes
    assert isinstance(shapes, Outlines) and shapes[0][0].tolist() == [[2, 4], [2, 12], [10, 12], [10, 4]]


@pytest.mark.parametrize(
    "change",
    [
        {"id": 10**30},
        {"area": 10**400},
        {"bbox": [1e400, 4, 8, 8]},
        {"bbox": [10**400, 4, 8, 8]},
        {"note": "\ud800"},
        {"note": float("nan")},
        {"category_id": "\ud800"},
    ],
)
def test_what_only_pythons_reader_takes_costs_one_annotation_at_most(tmp_path, change):
    content = coco()
    content["annotations"][0] |= change
    dataset = open_coco(recognise(write_coco(tmp_path, content)))["all"]
    lost = [problem for problem in dataset.problems if problem.kind != "no box"]
    assert sum(len(entry.objects) for entry in dataset.entries) == 6 - len(lost)
    assert read_sample(dataset, 0).size == (HEIGHT, WIDTH) and len(dataset.problems) <= 1


def test_images_with_strange_names_sizes_and_numbers_are_named_or_kept(tmp_path):
    content = coco(6)
    file = write_coco(tmp_path, content)
    content["images"][0]["file_name"] = "\ud800.png"
    content["images"][1]["height"] = 10**400
    content["images"][2]["id"] = 10**30
    file.write_text(json.dumps(content))
    dataset = open_coco(recognise(file))["all"]
    assert [problem.where for problem in dataset.problems if problem.kind == "missing file"] == ["\\ud800.png"]
    assert 10**30 in [entry.image_id for entry in dataset.entries] and len(dataset.entries) == 5


def test_numbers_of_their_own_are_kept_and_others_are_free_ones():
    ids, changed = numbered(np.array([5, 0, 5, -1, 2]), 7)
    assert ids.tolist() == [5, 8, 9, 10, 2] and changed == 3


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_objects_of_images_that_are_not_there_are_left_with_them(tmp_path, missing):
    content = coco(4)
    file = write_coco(tmp_path, content)
    for number in range(1, 1 + missing):
        next(tmp_path.rglob(f"{number}.png")).unlink()
    found = open_coco(recognise(file))["all"]
    assert [len(entry.objects) for entry in found.entries] == [2, 2, 2, 0][missing:]
    assert [problem.where for problem in found.problems] == [f"{number}.png" for number in range(1, 1 + missing)]
