"""Boxes and masks of objects on images of many bands: trained on, scored, predicted and drawn like any others."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convnext as package
from commands import convnext
from convnext.config import Bands, override
from convnext.data.dataset import read_sample, size_of
from convnext.data.opening import open_dense, open_dense_splits, recognise
from convnext.errors import ConvNeXtError
from convnext.extras import installed
from convnext.recipes import recipe
from convnext.reports.run_files import PREDICTIONS
from convnext.tasks.opening import bands_of, read_by
from shape_objects import write_objects
from test_cli_dense import trained, write_yolo
from traced import traced_once

BANDS = 4


def stacked(file: Path, out: Path, *, order: tuple[int, ...] = (0, 1, 2, 3)) -> None:
    """A PNG in colours as an array of four bands in 16 bits: band 1 is noise, then red, green and blue."""
    with Image.open(file) as image:
        colours = np.asarray(image.convert("RGB")).astype(np.uint16)
    noise = np.random.default_rng(colours.sum()).integers(0, 3000, colours.shape[:2]).astype(np.uint16)
    np.save(out, np.dstack([noise, 13 * colours])[:, :, list(order)])


def of_bands(folder: Path, source: Path, **how: tuple[int, ...]) -> Path:
    """The objects of `source` on arrays in place of its PNGs."""
    for part in ("train", "val"):
        (folder / part).mkdir(parents=True)
        for file in (source / part).iterdir():
            stacked(file, folder / part / f"{file.stem}.npy", **how)
    (folder / "annotations").mkdir()
    for file in (source / "annotations").iterdir():
        (folder / "annotations" / file.name).write_text(file.read_text().replace(".png", ".npy"))
    return folder


@pytest.fixture(autouse=True)
def graphs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    traced_once(tmp_path_factory, monkeypatch)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    of_bands(folder / "data", write_objects(folder / "colours"))
    done = trained(folder / "data", folder / "run", "detection")
    assert "Images of 4 bands in whole numbers of more than 8 bit, all of which are channels." in done.err
    return folder


def test_a_detector_keeps_how_bands_are_read_and_shows_three_of_them(place):
    chosen = json.loads((place / "run/recipe.json").read_text())
    assert chosen["model"]["in_channels"] == BANDS and chosen["augment"]["photometric"] is False
    assert chosen["input"]["bands"] == ["1", "2", "3", "4"] and chosen["input"]["pixels"] == "integer"
    held = [np.load(file).astype(float).reshape(-1, BANDS) for file in sorted((place / "data/train").iterdir())]
    whole = np.concatenate(held)
    assert chosen["input"]["mean"] == pytest.approx(whole.mean(0), rel=1e-5)
    for name in ("samples.jpg", PREDICTIONS):
        with Image.open(place / "run" / name) as image:
            assert np.asarray(image).std() > 20
    assert (place / "run/report.html").read_text().count("data:image/jpeg") > 2


def test_it_is_scored_and_answers_like_any_detector(place, tmp_path):
    found = json.loads(convnext("evaluate", place / "run", place / "data", "--json", "--workers", 0).out)
    kept = json.loads((place / "run/evaluation.json").read_text())
    assert (found["box_ap"], found["mask_ap"], found["n"]) == (kept["box_ap"], kept["mask_ap"], 4)
    predictor = package.load(place / "run")
    file = place / "data/val/000.npy"
    answer = predictor(file, score=0.0)
    assert len(answer.boxes) and answer.draw().size == (56, 40)
    again = predictor(np.load(file), score=0.0)
    assert np.array_equal(again.boxes, answer.boxes) and np.array_equal(again.scores, answer.scores)
    done = convnext("predict", place / "run", place / "data/val", "--out", tmp_path / "drawn", "--score", 0)
    assert done.status == 0 and len(list((tmp_path / "drawn").iterdir())) == 4
    colours = convnext("predict", place / "run", place / "colours/val/000.png")
    assert colours.status == 2 and "in place of" in colours.err


def test_bands_that_lie_elsewhere_in_a_file_are_named(place, tmp_path):
    other = of_bands(tmp_path / "other", place / "colours", order=(3, 0, 2, 1))
    how = ("--bands", "2,4,3,1", "--json", "--workers", 0)
    found = json.loads(convnext("evaluate", place / "run", other, *how).out)
    kept = json.loads((place / "run/evaluation.json").read_text())
    assert (found["box_ap"], found["loss"]) == (kept["box_ap"], pytest.approx(kept["loss"], abs=1e-6))
    there = json.loads(convnext("predict", place / "run", other / "val", "--score", 0, *how).out)
    here = json.loads(
        convnext("predict", place / "run", place / "data/val", "--score", 0, "--json", "--workers", 0).out
    )
    assert [row["bbox"] for row in there] == [row["bbox"] for row in here]
    said = convnext("evaluate", place / "run", other, "--bands", "B1,B2,B3,B4").line
    assert "ends in 'B1', so it is no band. Give numbers for bands that lie in one file." in said
    said = convnext("evaluate", place / "run", other, "--bands", "2,4").line
    assert "--bands 2,4 names 2 bands, and" in said and "reads 4 channels" in said


def test_objects_lie_where_the_annotations_say_and_another_size_is_named(place):
    splits = open_dense_splits(recognise(place / "data"))
    facts = bands_of(splits, asked=("3", "1"), channels=None, workers=1)
    assert facts is not None
    train = read_by(splits, facts.bands).train
    sample = read_sample(train, 0)
    pixels = np.load(place / "data/train/000.npy")
    assert sample.image.dtype == np.float32 and np.array_equal(sample.image, pixels[:, :, [2, 0]])
    rows = json.loads((place / "data/annotations/instances_train.json").read_text())["annotations"]
    x, y, width, height = next(row["bbox"] for row in rows if row["image_id"] == 1)
    assert sample.instances is not None and sample.instances.boxes[0].tolist() == [x, y, x + width, y + height]
    assert sample.instances.masks is not None and sample.instances.masks.shape[1:] == pixels.shape[:2]


def test_a_size_that_is_not_the_images_is_named_and_left_out(place, tmp_path):
    source = of_bands(tmp_path / "data", place / "colours")
    table = source / "annotations/instances_train.json"
    content = json.loads(table.read_text())
    content["images"][0]["width"] = 99
    table.write_text(json.dumps(content))
    done = trained(source, tmp_path / "run", "detection", "--epochs", 1)
    assert "it has 56 x 40 pixels, and its annotations are for 99 x 40" in done.err


def test_yolo_reads_arrays_where_no_other_image_is(place, tmp_path):
    folder = write_yolo(tmp_path / "yolo", place / "colours")
    expected = open_dense(recognise(folder, form="yolo"))
    wanted = read_sample(expected, 0).instances
    for file in list((folder / "images").iterdir()):
        stacked(file, file.with_suffix(".npy"))
    assert len(open_dense(recognise(folder, form="yolo")).entries) == len(
        expected.entries
    )  # beside images they are none
    for file in (folder / "images").glob("*.png"):
        file.unlink()
    data = open_dense(recognise(folder))
    assert data.task == "detection" and len(data.entries) == len(expected.entries)
    facts = bands_of(open_dense_splits(recognise(folder)), asked=(), channels=None, workers=1)
    assert facts is not None
    data = read_by(data, facts.bands)
    assert size_of(data, 0) == (40, 56)
    found = read_sample(data, 0).instances
    assert found is not None and wanted is not None and np.allclose(found.boxes, wanted.boxes, atol=1e-3)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_an_exported_detector_of_bands_finds_what_its_run_finds(place, tmp_path, form):
    pytest.importorskip("onnxscript")
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[form])
    out = tmp_path / {"onnx": "m.onnx", "openvino": "m.xml"}[form]
    done = package.export(place / "run", form, out=out, compare_on=place / "data/val")
    assert done.figures["same"] >= 0.95 * done.figures["objects"] and done.figures["objects"] > 0
    there, here = package.load(place / "run"), package.load(out)
    assert "bands 1, 2, 3, 4 of 4" in here.metadata["preprocessing"]["input"]
    assert "(value - mean) / std" in here.metadata["preprocessing"]["inside"]
    file = place / "data/val/000.npy"
    one, other = there(file, score=0.0), here(file, score=0.0)
    assert len(one) == len(other) and np.allclose(np.sort(one.scores), np.sort(other.scores), atol=1e-3)
    kept = json.loads((place / "run/evaluation.json").read_text())
    found = json.loads(convnext("evaluate", out, place / "data", "--json", "--workers", 0).out)
    assert found["n"] == 4 and found["box_ap"] == pytest.approx(kept["box_ap"], abs=0.01)


# A file for each band


def in_files(folder: Path, source: Path, name: str = "{stem}_B{band}.png", called: str = "{stem}.jpg") -> Path:
    """The objects of `source` on a file for each band, which annotations call as `called` says."""
    for part in ("train", "val"):
        for file in (source / part).iterdir():
            folder.mkdir(exist_ok=True)
            stacked(file, folder / "whole.npy")
            for number, band in enumerate(np.moveaxis(np.load(folder / "whole.npy"), 2, 0), 1):
                out = folder / part / name.format(stem=file.stem, band=f"0{number}")
                out.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(band).save(out)
    (folder / "whole.npy").unlink()
    (folder / "annotations").mkdir()
    for file in (source / "annotations").iterdir():
        content = json.loads(file.read_text())
        for row in content["images"]:
            before, _, last = row["file_name"].rpartition("/")
            row["file_name"] = f"{before}/" * bool(before) + called.format(stem=Path(last).stem)
        (folder / "annotations" / file.name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("{stem}_B{band}.png", "{stem}.jpg"),  # the picture in colour on which people drew
        ("{stem}/B{band}.png", "{stem}/B02.png"),
        ("{stem}-B{band}.png", "{stem}-B01.png"),
    ],
)
def test_bands_that_are_files_are_one_image_with_its_objects(place, tmp_path, name, called):
    source = in_files(tmp_path / "data", place / "colours", name, called)
    splits = open_dense_splits(recognise(source))
    facts = bands_of(splits, asked=(), channels=None, workers=1)
    assert facts is not None and facts.bands.bands == ("B01", "B02", "B03", "B04")
    assert any("are the bands of one image" in note for note in splits.train.notes)
    whole = open_dense_splits(recognise(place / "data"))
    wanted = bands_of(whole, asked=(), channels=None, workers=1)
    assert wanted is not None and not splits.train.problems
    for part in ("train", "val"):
        one, other = (read_by(data, how) for data, how in ((splits, facts.bands), (whole, wanted.bands)))
        one, other = getattr(one, part), getattr(other, part)
        assert len(one.entries) == len(other.entries)
        for index in range(len(one.entries)):
            a, b = read_sample(one, index), read_sample(other, index)
            assert np.array_equal(a.image, b.image) and np.array_equal(a.instances.boxes, b.instances.boxes)
            assert np.array_equal(a.instances.masks, b.instances.masks)


def test_files_that_are_annotated_each_for_itself_stay_images_unless_bands_are_named(place, tmp_path):
    source = in_files(tmp_path / "data", place / "colours")
    for file in (source / "annotations").iterdir():
        content = json.loads(file.read_text())
        images = content["images"]
        content["images"] = [
            {**row, "id": 10 * row["id"] + band, "file_name": f"{Path(row['file_name']).stem}_B0{band}.png"}
            for row in images
            for band in (1, 2)
        ]
        content["annotations"] = [{**row, "image_id": 10 * row["image_id"] + 1} for row in content["annotations"]]
        file.write_text(json.dumps(content))
    splits = open_dense_splits(recognise(source))
    assert len(splits.val.entries) == 8 and bands_of(splits, asked=(), channels=None, workers=1) is None
    done = convnext("train", source, "--bands", "B7,B9", "--task", "detection", "--out", tmp_path / "run")
    assert done.status == 2 and "ends in 'B7', so it is no band" in done.line


def test_a_detector_of_files_is_trained_scored_and_exported_as_one_of_bands_in_one_file(place, tmp_path):
    source = in_files(tmp_path / "data", place / "colours")
    done = trained(source, tmp_path / "run", "detection", "--bands", "B02,B03,B04", "--epochs", 1)
    assert done.status == 0
    kept = json.loads((tmp_path / "run/evaluation.json").read_text())
    found = json.loads(convnext("evaluate", tmp_path / "run", source, "--json", "--workers", 0).out)
    assert found["n"] == 4 and found["box_ap"] == kept["box_ap"] and found["loss"] == pytest.approx(kept["loss"])
    rows = json.loads(convnext("predict", tmp_path / "run", source / "val", "--score", 0, "--json", "--workers", 0).out)
    assert {row["file_name"].rsplit("_", 1)[-1] for row in rows} <= {"B02.png"} and rows
    if installed("onnx") and installed("onnxscript") and installed("onnxruntime"):
        out = package.export(tmp_path / "run", "onnx", out=tmp_path / "m.onnx", compare_on=source / "val").out
        again = json.loads(convnext("evaluate", out, source, "--json", "--workers", 0).out)
        assert again["n"] == 4 and again["box_ap"] == pytest.approx(kept["box_ap"], abs=0.01)


def test_texts_of_yolo_are_those_of_images_of_files(place, tmp_path):
    folder = write_yolo(tmp_path / "yolo", place / "colours")
    expected = open_dense(recognise(folder, form="yolo"))
    for file in list((folder / "images").iterdir()):
        with Image.open(file) as image:
            for name, band in zip(
                ("red", "green", "nir"), np.moveaxis(np.asarray(image.convert("RGB")), 2, 0), strict=True
            ):
                Image.fromarray(band).save(file.with_name(f"{file.stem}_{name}.png"))
        file.unlink()
    for sheet in [file for file in folder.iterdir() if file.suffix in (".yaml", ".yml")]:
        data = open_dense(recognise(folder))
        assert len(data.entries) == len(expected.entries) and data.store.bands == ("red", "green", "nir")
        sheet.unlink()
    data = open_dense(recognise(folder))
    assert data.task == "detection" and len(data.entries) == len(expected.entries)


def test_what_is_for_colours_is_refused_in_one_line():
    config = Bands(bands=("1", "2"), file_bands=2, pixels="integer", mean=(0, 0), std=(1, 1))
    chosen = recipe("small_detection", "atto", images=9, image_px=40, classes=3, bands=config)
    with pytest.raises(ConvNeXtError, match=r"augment\.photometric changes colours, which bands do not have"):
        override(chosen, {"augment.photometric": True})
