"""`convnext verify BUNDLE DATA`: what a network promises is measured again, and each lie that can be told is found."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convnext as package
from commands import convnext, trained
from convnext.deploy.exported.opened import open_exported
from convnext.deploy.forms.seal import seal
from convnext.deploy.verify import chance
from convnext.deploy.verify.chance import Figure, calibration_by_chance, change, needed
from convnext.deploy.verify.finding import Finding, answered, answered_each
from convnext.deploy.verify.measured import Measured, exchanged, findings_of, licence
from convnext.deploy.verify.promises import Promises, Stated
from convnext.deploy.verify.verify import names_data
from convnext.errors import CheckpointError, ConvNeXtError, DataError
from convnext.files import to_json
from convnext.tasks.result import Evaluation
from images import write_colours

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pets, with 90 held-out images; a run of them that keeps a promise, and its file; another run's file."""
    folder = tmp_path_factory.mktemp("place")
    write_colours(folder / "pets", val=30)
    trained(folder / "pets", folder / "run", "--promise", 0.9)
    assert convnext("export", folder / "run", "--to", "onnx").status == 0
    trained(folder / "pets", folder / "other", "--seed", 1)
    assert convnext("export", folder / "other", "--to", "onnx").status == 0
    return folder


def noisy(folder: Path, wrong: float, count: int = 40) -> Path:
    """Other images of the colours, a share of each class in the wrong folder."""
    rng, names = np.random.default_rng(3), {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210)}
    for place, name in enumerate(names):
        (folder / "val" / name).mkdir(parents=True)
        for i in range(count):
            shown = list(names)[(place + (i < wrong * count)) % 3]
            pixels = np.clip(np.array(names[shown]) + rng.integers(-30, 30, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "val" / name / f"other{i:03d}.png")
    return folder


def verdicts(bundle: Path, data: Path, **how: Any) -> dict[str, str]:
    found = package.verify(bundle, data, **how)
    return {each.name: each.verdict for each in found.findings}


def rewritten(source: Path, out: Path, **changed: Any) -> Path:
    """An exported file with other metadata and a digest that fits: forged with care."""
    proto = onnx.load(str(source))
    entry = next(each for each in proto.metadata_props if each.key == "convnext")
    entry.value = to_json(json.loads(entry.value) | changed)
    del proto.metadata_props[[each.key for each in proto.metadata_props].index("convnext_digest") :]
    out.write_bytes(proto.SerializeToString())
    seal(out)
    return out


def promised(file: Path) -> dict[str, Any]:
    return dict(open_exported(file).description["promises"])


@pytest.mark.parametrize("bundle", ["run", "run/model.onnx"])
def test_on_the_images_that_it_was_judged_on_everything_holds_to_the_digit(place, bundle):
    done = convnext("verify", place / bundle, place / "pets")
    assert done.status == 0, done.err
    assert "BROKEN" not in done.out and done.out.rstrip().endswith("Nothing that it promises is broken.")
    found = json.loads(convnext("verify", place / bundle, place / "pets", "--json").out)
    assert {row["name"] for row in found["findings"]} == {
        *("file", "images", "classes", "top-1", "each class", "calibration error", "sure answers", "licence"),
        *(["answers"] if bundle.endswith(".onnx") else []),
    }
    assert (found["broken"], found["open"], found["n"]) == (0, 0, 90)
    measured = {row["name"]: row["measured"] for row in found["findings"]}
    assert measured["images"] == measured["top-1"] == measured["calibration error"] == "the same"
    assert found["scores"]["top1"] == json.loads((place / "run" / "evaluation.json").read_text())["top1"]


def test_an_exported_file_is_verified_where_torch_is_not_installed(place, tmp_path):
    shutil.copy(place / "run" / "model.onnx", tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None; import convnext; found = convnext.verify(*sys.argv[1:]); "
        "print(found.holds, found.n); assert not {'torchvision', 'timm', 'safetensors'} & {*sys.modules}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.onnx", place / "pets"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True 90\n", done.stderr


def test_runs_from_weights_promise_whichever_of_their_weights_they_kept(place, tmp_path):
    for data, kept in ((place / "pets", "probe"), (tmp_path / "few", "mixed")):  # of few images all choose, crosswise
        if not data.exists():
            shutil.copytree(place / "pets" / "train", data)
        out = tmp_path / kept
        more = ["--weights", place / "run", "--out", out, "--epochs", 1, "--size", 16, "--workers", 0]
        assert convnext("train", data, *more).status == 0
        assert json.loads((out / "evaluation.json").read_text())["weights"] == kept
        found = {each.name: each for each in package.verify(out, place / "pets", "val").findings}
        assert found["top-1"].verdict in ("holds", "open") and found["top-1"].promised.startswith("100.0 %")
        assert found["licence"].measured == "from run/best.safetensors"
    again = {each.name: each for each in package.verify(tmp_path / "mixed", tmp_path / "few").findings}
    assert again["images"].measured == "learnt by heart" and again["top-1"].verdict == "open"


def test_what_is_promised_travels_in_the_file(place):
    held = promised(place / "run" / "model.onnx")
    evaluation = json.loads((place / "run" / "evaluation.json").read_text())
    (stated,) = held["stated"]
    assert (stated["part"], stated["n"], stated["images"]) == ("held out", 90, evaluation["images"])
    assert stated["scores"]["top1"] == evaluation["top1"] and stated["scores"]["ece"] == evaluation["ece"]
    assert stated["recalls"] == {row["name"]: [row["n"], row["recall"]] for row in evaluation["per_class"]}
    assert held["reference"]["shape"] == [4, 3] and held["tolerance"] == 0.001


def test_other_images_of_the_kind_hold_by_their_interval(place, tmp_path):
    found = package.verify(place / "run" / "model.onnx", noisy(tmp_path / "fine", 0.0))
    by = {each.name: each for each in found.findings}
    assert found.holds and by["top-1"].verdict == "holds"
    assert by["images"].measured == "120 others"
    low, high = by["top-1"].values["measured_interval"]
    assert low == pytest.approx(0.969, abs=0.001) and high == 1.0  # Wilson's for 120 of 120


def test_labels_that_are_wrong_in_a_quarter_break_the_score_and_the_promise(place, tmp_path):
    data = noisy(tmp_path / "noisy", 0.25)
    done = convnext("verify", place / "run", data)
    assert done.status == 1
    assert (
        "significantly below" in done.out and "Broken: top-1, each class, calibration error, sure answers." in done.out
    )


def test_exchanged_labels_are_named(place, tmp_path):
    shutil.copytree(place / "pets", tmp_path / "pets")
    for part in ("train", "val"):
        folder = tmp_path / "pets" / part
        (folder / "red").rename(folder / "x")
        (folder / "blue").rename(folder / "red")
        (folder / "x").rename(folder / "blue")
    done = convnext("verify", place / "run" / "model.onnx", tmp_path / "pets")
    assert done.status == 1
    assert "most of 'blue' are taken for 'red'; most of 'red' are taken for 'blue'" in done.out


def test_the_promises_of_another_network_are_found_by_its_answers(place, tmp_path):
    held = promised(place / "other" / "model.onnx")
    forged = rewritten(place / "run" / "model.onnx", tmp_path / "forged.onnx", promises=held)
    found = {each.name: each for each in package.verify(forged, place / "pets").findings}
    assert found["file"].verdict == "holds"  # whoever forges a file can write its digest, too
    assert found["answers"].verdict == "broken" and "is not the network of that run" in found["answers"].note
    assert found["answers"].values["largest_score_difference"] > 0.001


def test_a_figure_that_was_raised_is_broken_on_the_same_images(place, tmp_path):
    held = promised(place / "run" / "model.onnx")
    held["stated"][0]["scores"]["ece"] = 0.0
    held["stated"][0]["scores"]["top1"] = 1.0 if held["stated"][0]["scores"]["top1"] < 1 else 0.99
    forged = rewritten(place / "run" / "model.onnx", tmp_path / "raised.onnx", promises=held)
    assert verdicts(forged, place / "pets")["top-1"] == "broken"


def test_changed_metadata_are_a_damaged_file_and_nothing_else_is_measured(place, tmp_path):
    data = (place / "run" / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(data.replace(b'"held out"', b'"HELD OUT"', 1))
    done = convnext("verify", tmp_path / "model.onnx", place / "pets")
    assert done.status == 1 and "damaged: it is not what was written" in done.out and "Broken: file." in done.out
    shutil.copytree(place / "run", tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").write_text("{")
    assert verdicts(tmp_path / "run", place / "pets") == {"file": "broken"}


@pytest.mark.parametrize("value", ["1.0", None, True, {"top1": "high"}, [1]])
def test_promises_that_are_none_are_refused_in_one_line(place, tmp_path, value):
    held = promised(place / "run" / "model.onnx")
    held["stated"][0]["scores"] = value
    forged = rewritten(place / "run" / "model.onnx", tmp_path / "x.onnx", promises=held)
    with pytest.raises(CheckpointError, match="what it promises cannot be read"):
        package.verify(forged, place / "pets")


def test_ten_images_cannot_tell_and_how_many_could_is_said(place, tmp_path):
    done = convnext("verify", place / "run" / "model.onnx", noisy(tmp_path / "few", 0.0, count=3))
    assert done.status == 0 and "9 others" in done.out
    assert (
        "images would be needed to exclude that" in done.out
        and "9 images cannot tell: 29 without a mistake" in done.out
    )
    assert "These data cannot tell: top-1" in done.out


def test_a_class_without_images_is_named_and_stays_open(place, tmp_path):
    data = noisy(tmp_path / "two", 0.0)
    shutil.rmtree(data / "val" / "green")
    found = {each.name: each for each in package.verify(place / "run", data).findings}
    assert found["classes"].verdict == "open" and found["classes"].values["missing"] == ["green"]


def test_images_that_it_has_learnt_from_say_nothing(place, tmp_path):
    found = {each.name: each for each in package.verify(place / "run", place / "pets", "train").findings}
    assert found["images"].measured == "learnt by heart"
    assert {found[name].verdict for name in ("images", "top-1", "each class", "calibration error")} == {"open"}


def test_weights_that_nobody_judged_promise_no_score(place):
    found = {each.name: each for each in package.verify(place / "run", place / "pets", weights="last").findings}
    assert found["scores"].verdict == "open" and found["scores"].measured.startswith("top-1 ")


@pytest.mark.parametrize("bundle", ["run", "run/model.onnx"])
def test_data_that_it_cannot_be_measured_on_are_refused_in_one_line(place, tmp_path, bundle):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        package.verify(place / bundle, tmp_path / "empty")
    assert convnext("verify", place / bundle, tmp_path / "empty").status == 2
    write_colours(tmp_path / "more", classes=4)
    assert "grey" in convnext("verify", place / bundle, tmp_path / "more").err
    assert "nothing at" in convnext("verify", place / "missing.onnx", place / "pets").line
    with pytest.raises(ConvNeXtError, match=r"images = .* is for detection and segmentation"):
        package.verify(place / bundle, place / "pets", images="here")


def test_the_second_of_two_paths_is_data_where_it_is_no_network(place, tmp_path):
    run, data = str(place / "run"), str(place / "pets")
    (tmp_path / "coco.json").write_text("{}")
    assert names_data([run, data]) and names_data([f"{run}/model.onnx", data]) and names_data([run, "pets.zip"])
    assert names_data([f"{run}/best.safetensors", str(tmp_path / "coco.json")])
    for paths in ([run], [run, run], [run, f"{run}/model.onnx"], [run, str(place)], [data, run], [run, data, data]):
        assert not names_data(paths), paths
    assert not names_data([run, f"{run}/evaluation.json"])
    assert "--part is for `convnext verify BUNDLE DATA`" in convnext("verify", run, "--part", "val").line
    assert convnext("verify", run, run).out.count("best.safetensors") >= 2


def test_the_interval_of_a_difference_is_that_of_newcombes_paper():
    low, high = change(Figure.of_rate(48 / 80, 80), Figure.of_rate(56 / 70, 70))  # 1998, Table II, case (a), method 10
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


def test_so_many_images_as_are_said_to_be_needed_are_enough_and_a_few_less_are_not():
    said = Figure.of_rate(0.9, 500)
    many = needed(said)
    assert many is not None
    assert (
        change(said, Figure.of_rate(0.9, many))[0]
        > -chance.MARGIN
        > change(said, Figure.of_rate(0.9, many * 9 // 10))[0]
    )
    assert needed(Figure.of_rate(0.5, 10)) is None


def test_calibration_by_chance_is_that_of_scores_that_are_true():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.uniform(0.5, 1, 300))
    bins = [
        {"n": int(inside.sum()), "confidence": float(scores[inside].mean()) if inside.any() else 0.0, "accuracy": 0.0}
        for inside in ((scores * 15).astype(int) == i for i in range(15))
    ]
    seen = []
    for _ in range(2000):  # an answer is right as often as its score says
        right = rng.random(300) < scores
        parts = [(scores * 15).astype(int) == i for i in range(15)]
        seen.append(sum(abs(scores[part].sum() - right[part].sum()) for part in parts) / 300)
    assert calibration_by_chance(bins) == pytest.approx(np.quantile(seen, 0.95), abs=0.006)


def test_rings_of_exchanged_classes_are_found_and_a_common_mistake_is_none():
    def of(table: list[list[int]]) -> list[tuple[str, str]]:
        return exchanged(Evaluation("classification", 1, {}, ("a", "b", "c"), {"confusion": table}))

    assert of([[0, 9, 0], [0, 0, 9], [8, 1, 0]]) == [("a", "b"), ("b", "c"), ("c", "a")]
    assert of([[2, 7, 0], [0, 9, 0], [0, 0, 9]]) == []  # a is taken for b, but b is b


@pytest.mark.parametrize(
    ("right", "n", "verdict"),
    [(1.0, 400, "holds"), (0.985, 400, "holds"), (0.95, 400, "broken"), (1.0, 50, "open"), (0.6, 10, "broken")],
)
def test_a_promise_of_99_of_100_is_broken_by_mistakes_that_are_no_chance(right, n, verdict):
    about = {"accuracy": 0.99, "threshold": 0.5, "here": {"n": n, "answered": 1.0, "right": right}}
    assert answered(about, learnt=False).verdict == verdict


def test_a_promise_of_each_class_is_broken_by_one_class_that_fails_it():
    def of(right: float, sure: int = 400) -> str:
        rows = [{"name": f"{k}", "threshold": 0.5, "sure": sure, "right": 1.0} for k in range(5)]
        rows += [{"name": "x", "threshold": 0.5, "sure": sure, "right": right}]
        rows += [{"name": "y", "threshold": None, "sure": 0, "right": None}]
        return answered_each({"accuracy": 0.99, "classes": rows}, learnt=False).verdict

    assert (of(1.0), of(0.99), of(0.95), of(1.0, 50)) == ("holds", "holds", "broken", "open")


def test_the_chain_of_licences_is_told_and_what_is_not_known_stays_open():
    def of(**metadata: str) -> Finding:
        return licence(metadata)

    assert of().verdict == "holds" and of().promised == "trained from random weights"
    known = of(origin="hub:facebook/convnextv2-atto-1k-224", license="CC-BY-NC-4.0", license_known_by="the name")
    assert known.verdict == "holds" and "not for commercial use" in known.note
    assert of(origin="w.pth", license="unknown").verdict == "open"


def test_the_calibration_of_a_few_images_is_left_open_with_the_reason(place, tmp_path):
    held = package.verify(place / "run", place / "pets")
    data = place / "pets/val"
    few = tmp_path / "few"
    for folder in data.iterdir():
        (few / folder.name).mkdir(parents=True)
        file = next(iter(sorted(folder.iterdir())))
        (few / folder.name / file.name).write_bytes(file.read_bytes())
    found = {each.name: each for each in package.verify(place / "run", few).findings}
    assert held.findings and found["calibration error"].verdict == "open"
    assert found["calibration error"].note == "3 images cannot tell: one of them moves it by 33 %."
    stated = Stated("held out", 3, "x", {"ece": 0.05})
    report = {"n": 3, "ece": 0.35, "calibration": [], "classes": ["a"], "per_class": []}
    scored = Evaluation.of("classification", report).with_about(images="x")
    told = {each.name: each for each in findings_of(Measured(scored, Promises((stated,))))}["calibration error"]
    assert (told.verdict, told.note) == ("open", "3 images cannot tell: one of them moves it by 33 %.")
