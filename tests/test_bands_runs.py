"""Runs on images of many bands: learnt, scored, predicted and exported with the same numbers, or refused in one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import convnext as package
from band_images import class_folders, interleaved, pixels, tifffile
from commands import Done, convnext, tiny, trained
from convnext.config import ClassificationRecipe, ConvNeXtConfig, parse
from convnext.data.band_facts import band_facts
from convnext.data.opening import open_splits, recognise
from convnext.errors import ConvNeXtError
from convnext.models.weights import with_channels
from convnext.recipes import recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Done]:
    """A run on 16-bit images of five bands, whose classes differ in the fifth alone."""
    root = tmp_path_factory.mktemp("bands")
    data = class_folders(root / "data", 15)
    done = trained(data, root / "run", "--epochs", 12)
    return data, root / "run", done


def recipe_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "recipe.json").read_text())["input"]


def test_what_only_the_fifth_band_shows_is_learnt_from_all_bands_that_there_are(made):
    _, run, done = made
    assert "Images of 5 bands in whole numbers of more than 8 bit, all of which are channels." in done.err
    assert json.loads((run / "evaluation.json").read_text())["top1"] == 1.0
    given = recipe_of(run)
    assert (given["bands"], given["file_bands"], given["pixels"]) == (["1", "2", "3", "4", "5"], 5, "integer")


def test_mean_and_std_are_those_of_the_training_part_in_the_units_of_the_files(made):
    data, run, done = made
    train = open_splits(recognise(data, annotated=False)).train
    values = np.stack([tifffile.imread(data / entry.path) for entry in train.entries]).astype(np.float64)
    np.testing.assert_allclose(recipe_of(run)["mean"], values.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(recipe_of(run)["std"], values.std((0, 1, 2)), rtol=1e-5)
    assert f"measured on {len(train.entries)} training images" in done.err


def test_evaluation_prediction_and_arrays_see_the_same_numbers(made):
    data, run, _ = made
    found = json.loads(convnext("evaluate", run, data, "--json").out)
    assert found["loss"] == json.loads((run / "evaluation.json").read_text())["loss"]
    predictor = package.load(run, task="classification")
    path = data / "high" / "high0.tif"
    array = tifffile.imread(path)
    answers = [predictor(each).to_dict() for each in (path, path.read_bytes(), array)]
    assert len({str(answer["predictions"]) for answer in answers}) == 1
    rows = [json.loads(line) for line in convnext("predict", run, data / "high", "--json").out.splitlines()]
    assert (
        str(answers[0]["predictions"]) in {str(row["predictions"]) for row in rows[:1] if "predictions" in row} or rows
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (pixels(1, 4), "it has 4 bands, in place of 5"),
        (pixels(1, 5, np.uint8), "it holds 8 bit (uint8), in place of whole numbers of more than 8 bit"),
        (pixels(1, 5, np.float32), "it holds floats (float32), in place of whole numbers of more than 8 bit"),
    ],
)
def test_an_image_of_other_bands_or_another_kind_is_refused(made, tmp_path, values, reason):
    interleaved(tmp_path / "a.tif", values)
    for each in (tmp_path / "a.tif", values):
        with pytest.raises(ConvNeXtError) as refusal:
            package.load(made[1])(each)
        assert reason in str(refusal.value)


def test_the_report_draws_three_bands_and_says_so(made, tmp_path):
    data, run, _ = made
    found = json.loads((run / "evaluation.json").read_text())
    row = {"path": "high/high0.tif", "label": "high", "predicted": "low", "score": 0.9, "label_score": 0.1}
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("recipe.json", "data.json"):
        (copy / name).write_text((run / name).read_text())
    (copy / "evaluation.json").write_text(json.dumps(found | {"worst": [row]}))
    from convnext.data.store import FolderStore
    from convnext.reports.run import write_report

    page = write_report(copy, read=FolderStore(str(data)).read).read_text()
    assert "Drawn: 1, 2, 3 of 5 bands, each stretched from its 2nd to its 98th percentile." in page
    assert "data:image/jpeg" in page


@pytest.mark.parametrize(("form", "needed"), [("onnx", "onnxscript"), ("openvino", "openvino"), ("torch", "torch")])
def test_an_exported_file_answers_the_same_and_says_what_it_takes(made, tmp_path, form, needed):
    pytest.importorskip(needed)
    data, run, _ = made
    out = tmp_path / f"model{ {'onnx': '.onnx', 'openvino': '.xml', 'torch': '.pt2'}[form] }"
    done = convnext("export", run, "--to", form, "--out", out, "--compare-on", data, "--json")
    assert done.status == 0, done.err
    if form == "torch":  # nothing of ours opens it: it was compared with its run before it was written
        assert out.is_file() and json.loads(done.out)["max_logit_difference"] < 1e-3
        return
    exported, own = package.load(out), package.load(run)
    assert "bands 1, 2, 3, 4, 5" in exported.metadata["preprocessing"]["input"]
    for path in (data / "high" / "high0.tif", data / "low" / "low3.tif"):
        ours, theirs = dict(own(path).predictions), dict(exported(path).predictions)
        for name, score in ours.items():
            assert abs(theirs[name] - score) < 1e-4
    script = f"""
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None
import convnext
for answer in convnext.load({str(out)!r}).predict({str(data)!r}):
    print(answer.path, dict(answer.predictions)["high"])
"""
    alone = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert alone.returncode == 0, alone.stderr
    found = {path: float(score) for path, score in map(str.split, alone.stdout.splitlines())}
    assert len(found) == len(list(own.predict(data)))
    for answer in own.predict(data):
        assert abs(found[answer.path] - dict(answer.predictions)["high"]) < 1e-4


def test_channels_that_were_permuted_in_the_file_are_the_same_once_bands_undo_it(tmp_path):
    for label, name in enumerate(("dark", "light")):
        for folder in ("plain", "turned"):
            (tmp_path / folder / name).mkdir(parents=True)
        for number in range(6):
            values = (pixels(100 * label + number, 3, np.uint8) // (2 - label)).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / "plain" / name / f"{number}.png")
            Image.fromarray(values[:, :, [2, 0, 1]]).save(tmp_path / "turned" / name / f"{number}.png")
    trained(tmp_path / "plain", tmp_path / "one", "--bands", "1,2,3")
    trained(tmp_path / "turned", tmp_path / "two", "--bands", "2,3,1")
    one, two = (load_file(tmp_path / run / "last.safetensors") for run in ("one", "two"))
    assert {name: value.numpy().tobytes() for name, value in one.items()} == {
        name: value.numpy().tobytes() for name, value in two.items()
    }
    image = "dark/0.png"
    answers = [
        package.load(tmp_path / run)(tmp_path / data / image).to_dict()["predictions"]
        for run, data in (("one", "plain"), ("two", "turned"))
    ]
    assert answers[0] == answers[1]


def test_a_run_on_colours_reads_files_with_other_places_by_bands(tmp_path):
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "plain" / name).mkdir(parents=True)
        (tmp_path / "turned" / name).mkdir(parents=True)
        for number in range(6):
            values = (pixels(100 * label + number, 3, np.uint8) // (2 - label)).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / "plain" / name / f"{number}.png")
            five = np.concatenate([values[:, :, [2, 0]], values // 2, values[:, :, [1]]], 2)
            interleaved(tmp_path / "turned" / name / f"{number}.tif", five)
    trained(tmp_path / "plain", tmp_path / "run")
    way = ("--json", "--bands", "2,6,1")
    rows = [
        [
            json.loads(line)["predictions"]
            for line in convnext("predict", tmp_path / "run", data, *more).out.splitlines()
        ]
        for data, more in ((tmp_path / "plain", ("--json",)), (tmp_path / "turned", way))
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 12
    found = json.loads(convnext("evaluate", tmp_path / "run", tmp_path / "turned", *way).out)
    assert found["n"] == 12 and not found["skipped"]
    line = convnext("evaluate", tmp_path / "run", tmp_path / "turned", "--bands", "1,2").line
    assert "--bands 1,2 names 2 bands" in line and "reads 3 channels" in line


def test_a_run_that_goes_on_keeps_the_mean_and_std_that_it_began_with(made):
    data, run, done = made
    before = recipe_of(run)
    again = trained(data, run, "--epochs", 12)
    assert "Mean and std of each band are those that the run began with." in again.err
    assert "were measured" in done.err and "were measured" not in again.err
    assert recipe_of(run) == before


def test_features_of_bands_are_those_of_the_file_and_of_its_array(made):
    data, run, _ = made
    path = data / "low" / "low1.tif"
    of_file, of_array = package.load(run, task="classification").embed([path, tifffile.imread(path)])
    np.testing.assert_array_equal(of_file, of_array)


def test_a_run_on_colours_refuses_bands_with_what_they_are(tmp_path, made):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(pixels(number + 9 * ord(name), 3, np.uint8)).save(
                tmp_path / "data" / name / f"{number}.png"
            )
    trained(tmp_path / "data", tmp_path / "run", "--epochs", 1)
    done = convnext("predict", tmp_path / "run", made[0] / "low" / "low1.tif")
    assert done.status == 2 and "it is a TIFF of 5 bands of 16 bit, which is no image in grey or colour" in done.out


def test_suites_for_colours_are_refused_for_bands(made, tmp_path):
    line = convnext("evaluate", made[1], made[0], "--suite", "corruptions", "--out", tmp_path / "out").line
    assert "this network reads 5 bands" in line


def test_files_of_one_band_each_are_learnt_scored_and_predicted_as_one_image(tmp_path):
    for label, name in enumerate(("high", "low")):
        for number in range(6):
            for band, values in zip(
                ("B02", "B03", "B8A"), pixels(number + 50 * label, 3).transpose(2, 0, 1), strict=True
            ):
                path = tmp_path / "data" / name / f"patch{label}{number}" / f"S2_{label}{number}_{band}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(path, values, metadata=None)
    done = trained(tmp_path / "data", tmp_path / "run", "--bands", "B8A,B02")
    assert "Each image is 2 files in whole numbers of more than 8 bit: B8A, B02, in this order." in done.err
    assert "12 of other bands" in done.err
    assert json.loads((tmp_path / "run" / "data.json").read_text())["train"]["n"] == 10
    assert convnext("evaluate", tmp_path / "run", tmp_path / "data").status == 0
    predictor = package.load(tmp_path / "run")
    answers = list(predictor.predict(tmp_path / "data" / "high"))
    assert len(answers) == 6
    assert predictor(tmp_path / "data" / "high" / "patch00" / "S2_00_B02.tif").to_dict()["predictions"]
    named = open_splits(recognise(tmp_path / "data", annotated=False))
    assert named.train.store.bands == ("B02", "B03", "B8A")
    assert any("--bands 1 takes each for an image" in note for note in named.notes)


def test_files_that_differ_from_the_others_are_named_and_left_out(tmp_path):
    data = class_folders(tmp_path / "data", 6)
    interleaved(data / "high" / "four.tif", pixels(1, 4))
    interleaved(data / "low" / "eight_bit.tif", pixels(1, 5, np.uint8))
    np.save(data / "low" / "features.npy", np.zeros((3, 4)))
    interleaved(data / "low" / "other_units.tif", (pixels(1, 5) // 1000).astype(np.uint16))
    flat = pixels(2, 5)
    flat[:, :, 2] = 77
    interleaved(data / "low" / "flat.tif", flat)
    done = trained(data, tmp_path / "run")
    skipped = json.loads((tmp_path / "run" / "data.json").read_text())["skipped"]
    assert skipped == {
        "high/four.tif": "it has 4 bands, in place of 5",
        "low/eight_bit.tif": "it holds 8 bit (uint8), in place of whole numbers of more than 8 bit",
    }
    assert "1 image has one value in all of band 3: low/flat.tif." in done.err
    assert "other units?" in done.err and "low/other_units.tif" in done.err
    assert "1 .npy" in done.err


def test_arrays_are_read_with_their_bands_where_all_of_them_have_them(tmp_path):
    for name in ("high", "low"):
        (tmp_path / name).mkdir()
        for number in range(4):
            np.save(tmp_path / name / f"{number}.npy", pixels(number, 5, np.float32).transpose(2, 0, 1))
    facts = band_facts(open_splits(recognise(tmp_path, annotated=False)).train)
    assert (facts.bands.arrays, facts.bands.pixels, facts.bands.file_bands) == ("first", "float", 5)
    assert "Arrays such as 5 x 16 x 18 are read with their bands first." in facts.lines


REFUSED = {
    ("--channels", 4): "--channels 4 does not fit: the images have 5 bands; --bands 1,2,3,4 picks that many.",
    ("--channels", 7): "--channels 7 does not fit: the images have 5 bands; leave it out, and it follows the images.",
    ("--bands", "1,9"): "--bands 1,9 names band '9', and these images have 5 bands, counted from 1.",
    ("--bands", "1,,2"): "--bands: 1,,2 is refused",
    ("--bands", "1,B02"): "--bands: 1,B02 is refused",
    ("--bands", "B02"): "ends in 'B02', so it is no band",
    ("--augment.rand_augment", "rand-m9"): "augment.rand_augment = 'rand-m9' changes colours, which bands do not have.",
    ("--input.pixels", "float"): "--input.pixels follows the images and --bands.",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_the_bands_is_refused_in_one_line(made, tmp_path, words):
    done = convnext(*tiny(made[0], tmp_path / "run", *words))
    assert done.status == 2 and REFUSED[words] in done.err.splitlines()[-1], done.err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_photos_keep_their_channels(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(pixels(1, 3, np.uint8)).save(tmp_path / "data" / name / "1.tif")
    train = open_splits(recognise(tmp_path / "data", annotated=False)).train
    assert band_facts(train) is None
    done = convnext(*tiny(tmp_path / "data", tmp_path / "run", "--channels", 5))
    assert "--channels 5 does not fit" in done.err.splitlines()[-1]


def test_a_published_recipe_leaves_out_what_changes_colours():
    facts = parse_bands(5)
    about: dict[str, Any] = {"images": 100, "image_px": 64, "classes": 2}
    with_colours = recipe("imagenet1k", "tiny", **about)
    without = recipe("imagenet1k", "tiny", **about, bands=facts)
    assert isinstance(with_colours, ClassificationRecipe) and with_colours.augment.rand_augment
    assert isinstance(without, ClassificationRecipe) and without.augment.rand_augment == ""
    assert without.augment.mixup == with_colours.augment.mixup and without.model.in_channels == 5


def parse_bands(count: int) -> Any:
    from convnext.config import Bands

    names = [str(number + 1) for number in range(count)]
    given = {"bands": names, "file_bands": count, "pixels": "integer", "mean": [7.0] * count, "std": [2.0] * count}
    return parse(Bands, given, where="test")


def test_a_stem_for_colours_serves_bands_in_the_order_that_is_asked_for():
    kernel = torch.randn(8, 3, 4, 4)
    for count in (1, 2, 5):
        config = ConvNeXtConfig(name="t", depths=(1,), widths=(8,), in_channels=count)
        made = with_channels({"stem.layers.0.weight": kernel}, config, lambda _: None)["stem.layers.0.weight"]
        expected = kernel.sum(1, keepdim=True) if count == 1 else kernel[:, [0, 1, 2, 0, 1][:count]] * 3 / count
        torch.testing.assert_close(made, expected)


def test_a_missing_package_is_named_with_its_extra(made, tmp_path, monkeypatch):
    from convnext.data import band_files

    band_files._tifffile.cache_clear()
    monkeypatch.setitem(sys.modules, "tifffile", None)
    done = convnext(*tiny(made[0], tmp_path / "run"))
    band_files._tifffile.cache_clear()
    assert done.status == 2
    assert "needs tifffile, which is not installed: pip install 'convnext[bands]'" in done.err.splitlines()[-1]


def test_an_audit_reads_bands_and_shows_those_that_are_chosen(made, tmp_path):
    _, run, _ = made
    data = class_folders(tmp_path / "data", 12)
    (data / "high" / "high3.tif").rename(data / "low" / "moved.tif")
    found = package.audit(data, tmp_path / "out", weights=run, workers=0, device="cpu", progress=False)
    assert found.n == 24 and not found.skipped and not found.groups
    assert [(each.path, each.given, each.suggested) for each in found.wrong] == [("low/moved.tif", "low", "high")]
    assert "data:image/jpeg" in found.page.read_text()
    words = ("--folds", 2, "--epochs", 1, "--size", 16, "--device", "cpu", "--workers", 0, "--bands", "5,4,1", "--json")
    done = convnext("audit", data, "--out", tmp_path / "small", *words)
    assert done.status == 0, done.err
    assert json.loads(done.out)["n"] == 24 and "5, 4, 1 are the channels, in this order" in done.err
    refused = convnext("audit", data, "--out", tmp_path / "none", "--bands", "9", "--workers", 0)
    assert refused.status == 2 and refused.err.count("convnext: ") == 1, refused.err
