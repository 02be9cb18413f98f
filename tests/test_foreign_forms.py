"""Data sets in the forms of other tools, written by independent code, open as what they were: parts, classes, boxes, masks."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import foreign
from convnext.cli import VERBS
from convnext.cli.options import parser_of
from convnext.data.dataset import DenseDataset, read_sample
from convnext.data.opening import open_parts, recognise
from convnext.data.source import Annotations
from foreign import Shown
from images import zipped

DATA = Path(os.environ.get("CONVNEXT_DATA", Path(__file__).parents[2] / "shared" / "data"))

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself

WRITERS: dict[str, tuple[Callable[..., Any], tuple[str, ...], bool]] = {  # writer, what it keeps, one piece an object
    "labelme": (foreign.write_labelme, ("boxes", "polygons", "masks"), False),
    "labelme apart": (partial(foreign.write_labelme, apart=True), ("polygons",), False),
    "labelme inside": (partial(foreign.write_labelme, embedded=True), ("boxes", "polygons", "masks"), False),
    "cvat": (foreign.write_cvat, ("boxes", "polygons", "masks"), False),
    "cvat files": (partial(foreign.write_cvat, files=True), ("boxes", "polygons"), False),
    "via": (foreign.write_via, ("boxes", "polygons"), True),
    "via project": (partial(foreign.write_via, project=True), ("boxes", "polygons"), True),
    "supervisely": (foreign.write_supervisely, ("boxes", "polygons", "masks"), True),
    "datumaro": (foreign.write_datumaro, ("boxes", "polygons", "masks"), False),
    "coco": (foreign.write_coco, ("boxes", "polygons", "masks"), False),
    "coco list": (partial(foreign.write_coco, counts="list"), ("masks",), False),
    "coco bytes": (partial(foreign.write_coco, counts="bytes"), ("masks",), False),
    "yolo": (foreign.write_yolo, ("boxes", "polygons"), True),
    "yolo poses": (partial(foreign.write_yolo, points=3), ("boxes",), True),
    "voc": (foreign.write_voc, ("boxes",), True),
}
CASES = [(form, kind) for form, (_, kinds, _) in WRITERS.items() for kind in kinds]
ROUNDED = {
    "cvat": 0.006,
    "cvat files": 0.006,
    "yolo": 0.001,
    "yolo poses": 0.001,
    "voc": 0.001,
}  # px, as the form writes


def expected(image: Shown) -> list[tuple[str, list[float], np.ndarray | None]]:
    """Class, box and pixels of each object; an outline has the box round its points, a mask that round its pixels."""
    rows = []
    for thing in image.things:
        box, pixels = list(thing.box), None
        if thing.polygons is not None:
            xs, ys = (np.concatenate([piece[axis::2] for piece in thing.polygons]) for axis in (0, 1))
            box = [xs.min(), ys.min(), xs.max(), ys.max()]
        elif thing.mask is not None:
            down, across = np.nonzero(thing.mask)
            box = [across.min(), down.min(), across.max() + 1, down.max() + 1]
        if thing.polygons is not None or thing.mask is not None:
            pixels = thing.pixels(*image.size)
        rows.append((thing.label, box, pixels))
    return rows


def check(dataset: DenseDataset, shown: list[Shown], *, off: float, edges: bool) -> None:
    """`off` px that boxes may differ by; `edges`: written with few digits, so that a pixel of an edge may too."""
    names = [entry.path.rsplit("/", 1)[-1].rsplit(".", 1)[0] for entry in dataset.entries]
    assert sorted(names) == sorted(image.name.rsplit(".", 1)[0] for image in shown) and not dataset.problems
    for image in shown:
        place = names.index(image.name.rsplit(".", 1)[0])
        found = read_sample(dataset, place)
        wanted = expected(image)
        assert found.size == image.size and [dataset.classes[n] for n in found.instances.labels] == [
            w[0] for w in wanted
        ]
        objects = dataset.entries[place].objects.in_pixels(*image.size)
        assert np.abs(objects.boxes - np.array([w[1] for w in wanted]).reshape(-1, 4)).max(initial=0) <= off
        for number, (_, _, pixels) in enumerate(wanted):
            assert objects.outlined[number] == (pixels is not None)
            if pixels is not None:
                different = np.count_nonzero(found.instances.masks[number] != pixels)
                assert different <= (0.02 * np.count_nonzero(pixels) + 6 if edges else 0)


def opened(folder: Path, shown: list[Shown], form: str, *, packed: bool = False, **how: Any) -> dict[str, DenseDataset]:
    writer = WRITERS[form][0]
    writer(folder / "data", shown)
    place = zipped(folder / "data", folder / "data.zip") if packed else folder / "data"
    source = recognise(place, **how)
    assert source.form == form.split()[0]
    return open_parts(source)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(("form", "kind"), CASES)
def test_a_small_set_in_any_form_is_what_it_was(tmp_path, form, kind, packed):
    shown = foreign.small(kind, single=WRITERS[form][2])
    parts = opened(tmp_path, shown, form, packed=packed)
    assert set(parts) == {"train", "val"}
    assert sorted(parts["train"].classes) == foreign.classes_of(shown)
    for part, dataset in parts.items():
        own = [image for image in shown if image.part == part]
        check(dataset, own, off=ROUNDED.get(form, 1e-9), edges=form in ROUNDED)


@pytest.mark.parametrize(("form", "kind"), CASES)
def test_real_images_written_in_any_form_are_what_they_were(tmp_path, form, kind):
    name = "nuclei" if kind == "masks" else "minicoco"
    archive = DATA / name / f"{name}.zip"
    if not archive.is_file():
        pytest.skip(f"{name}.zip is not at hand: set CONVNEXT_DATA to the folder that holds {name}/{name}.zip")
    shown = foreign.of_coco(archive, kind, count=2 if kind == "masks" else 5, single=WRITERS[form][2])
    parts = opened(tmp_path, shown, form)
    assert sorted(parts["train"].classes) == foreign.classes_of(shown)
    for part in ("train", "val"):
        own = [image for image in shown if image.part == part]
        off = 0.1 if form == "coco" else ROUNDED.get(form, 1e-6)  # COCO keeps a box of its own beside the outline
        check(parts[part], own, off=off, edges=form in ROUNDED)


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_what_the_package_supervision_writes_is_what_it_was(tmp_path, form):
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    shown = foreign.small("polygons" if form != "voc" else "boxes", single=True)
    classes = foreign.classes_of(shown)
    for part in ("train", "val"):
        own = [image for image in shown if image.part == part]
        for image in own:
            foreign.put(tmp_path / "own" / part / image.name, image.data)
        annotations = {
            str(tmp_path / "own" / part / image.name): supervision.Detections(
                xyxy=np.array([box for _, box, _ in expected(image)], np.float64).reshape(-1, 4),
                mask=None
                if form == "voc"
                else np.array([pixels for *_, pixels in expected(image)], bool).reshape(-1, *image.size),
                class_id=np.array([classes.index(thing.label) for thing in image.things], int),
            )
            for image in own
        }
        data = supervision.DetectionDataset(classes, list(annotations), annotations)
        place = tmp_path / "data" / part
        if form == "coco":
            data.as_coco(str(place), str(place / "_annotations.coco.json"))
        elif form == "yolo":
            data.as_yolo(str(place / "images"), str(place / "labels"), str(tmp_path / "data" / "data.yaml"))
        else:
            data.as_pascal_voc(str(place), str(place))
    parts = open_parts(recognise(tmp_path / "data"))
    assert set(parts) == {"train", "val"} and sorted(parts["train"].classes) == classes
    for part, dataset in parts.items():
        names = [Path(entry.path).name for entry in dataset.entries]
        assert sorted(names) == sorted(image.name for image in shown if image.part == part) and not dataset.problems
        for image in (image for image in shown if image.part == part):
            objects = dataset.entries[names.index(image.name)].objects.in_pixels(*image.size)
            wanted = expected(image)
            assert [dataset.classes[label] for label in objects.labels] == [label for label, *_ in wanted]
            assert np.abs(objects.boxes - np.array([box for _, box, _ in wanted]).reshape(-1, 4)).max(initial=0) <= 1.01


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_the_command_line_and_python_name_the_same_forms(verb):
    (form,) = (action for action in parser_of(VERBS).verbs[verb]._actions if action.dest == "form")
    assert set(form.choices) == set(get_args(Annotations))
