"""The commands as scripts and people meet them: results on stdout, everything else on stderr, one line for a mistake."""

import csv
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from commands import convnext, rows, tiny, trained
from convnext.cli import demo
from convnext.cli import main as convnext_main
from convnext.deploy.classifier import ClassificationPredictor
from convnext.recipes.sizes import SIZES, STEP_SIZES
from images import write_colours, zipped


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    trained(data, out, "--optim.ema", 0.9)
    return out


def table(folder: Path, file: Path) -> Path:
    lines = [f"{p},{p.parent.name},{p.parent.parent.name}" for p in sorted(folder.rglob("*.png"))]
    file.write_text("\n".join(["path,label,split", *lines]))
    return file


# Help and lists


@pytest.mark.parametrize(
    "arguments", [(), ("train",), ("evaluate",), ("predict",), ("models",), ("demo",), ("doctor",)]
)
def test_help_goes_to_stdout_and_names_every_verb(arguments):
    done = convnext(*arguments, "--help")
    assert (done.status, done.err) == (0, "")
    assert f"usage: convnext{' ' if arguments else ''}{''.join(arguments)}" in done.out
    if not arguments:
        assert all(verb in done.out for verb in ("train", "evaluate", "predict", "models", "demo", "doctor"))


def test_help_needs_no_torch_and_python_m_convnext_is_the_same_command():
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "convnext", "--help"], capture_output=True, text=True, check=True
    )
    assert answer.stdout == convnext("--help").out
    assert not [line for line in answer.stderr.splitlines() if line.split("|")[-1].strip() in ("torch", "numpy", "PIL")]


def test_the_version_is_said():
    assert convnext("--version").out.startswith("convnext ")


def test_models_have_the_promised_fields_and_names_as_json_and_a_line_each_as_text():
    found = json.loads(convnext("models", "--json").out)
    assert [row["name"] for row in found] == [*SIZES, *STEP_SIZES]
    assert {"atto", "xlarge", "v2_atto", "v2_huge", "iso_small", "iso_base", "iso_large"} <= {r["name"] for r in found}
    assert all(set(row) == {"name", "params", "macs", "input_size", "group"} for row in found)
    tiny_row = next(row for row in found if row["name"] == "tiny")
    assert tiny_row["params"] == 28_589_128 and tiny_row["input_size"] == 224
    lines = convnext("models").out.splitlines()
    assert {line.split()[0] for line in lines if line.strip()} >= {*SIZES, *STEP_SIZES}


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="the extra 'demo' is not installed")
def test_the_demo_trains_on_digits_without_mirrors_and_predicts_images_that_are_there(tmp_path, monkeypatch):
    called: list[list[str]] = []
    monkeypatch.setattr(
        demo, "command", lambda *arguments: called.append(list(arguments))
    )  # the training takes a minute
    assert convnext_main(["demo", "--out", str(tmp_path / "run")]) == 0
    train, predict = called
    assert train[:2] == ["train", str(tmp_path / "run" / "images")] and train[-1] == "--augment.hflip=0"
    assert predict[:2] == ["predict", str(tmp_path / "run")]
    assert [Path(argument).is_file() for argument in predict[2:-2]] == [True] * 5


def test_doctor_says_versions_device_and_extras_and_the_same_as_json():
    said, found = convnext("doctor", "--device", "cpu"), json.loads(convnext("doctor", "--device", "cpu", "--json").out)
    assert found["device"] == "cpu" and found["torch"] in said.out
    assert set(found["extras"]) >= {
        "simplejpeg",
        "tensorboard",
        "sklearn",
        "faster_coco_eval",
        "onnxruntime",
        "openvino",
    }
    assert found["cpu_kernels"]
    assert "compiler" in said.out and said.err == ""


# Training


def test_training_prints_one_result_line_and_says_the_rest_on_stderr(data, tmp_path):
    done = trained(data, tmp_path / "run")
    assert done.out.count("\n") == 1 and "on 12 held-out images" in done.out
    assert "Training atto by recipe 'small': 36 images in 3 classes, 12 held out" in done.err
    left = {"recipe.json", "environment.json", "data.json", "metrics.jsonl", "timings.jsonl", "best.safetensors"}
    left |= {"best_ema.safetensors", "last.safetensors", "evaluation.json", "report.html", "model_card.md"}
    left |= {"images.digests", "predictions.jpg"}
    assert {file.name for file in (tmp_path / "run").iterdir() if not file.name.startswith(".")} == left


def test_training_as_json_prints_one_object(data, tmp_path):
    found = json.loads(trained(data, tmp_path / "run", "--json").out)
    assert found["n"] == 12 and found["step"] in (6, 12) and found["run"] == str(tmp_path / "run")


@pytest.mark.parametrize("form", ["csv", "zip"])
def test_a_table_and_a_zip_train_to_the_numbers_of_their_folder(data, run, tmp_path, form):
    # A zip is read in place; the table lists the same files in the same order.
    source = zipped(data, tmp_path / "all.zip") if form == "zip" else table(data, tmp_path / "all.csv")
    trained(source, tmp_path / "run", "--optim.ema", 0.9)
    assert rows(tmp_path / "run") == rows(run)


def test_recipe_fields_may_come_before_the_data_and_with_an_equals_sign(data, tmp_path):
    arguments = tiny(data, tmp_path / "run", "--optim.clip=0.5")
    done = convnext("train", "--optim.weight_decay", "0.01", *arguments[1:])
    assert done.status == 0, done.err
    optim = json.loads((tmp_path / "run" / "recipe.json").read_text())["optim"]
    assert (optim["weight_decay"], optim["clip"]) == (0.01, 0.5)


@pytest.mark.parametrize("source", [".", "best.safetensors"])
def test_training_starts_from_the_weights_of_a_run_and_says_so(data, run, tmp_path, source):
    done = trained(data, tmp_path / "run", "--weights", run / source, "--lr", 1e-6)
    assert "tensors read ('convnext' names)" in done.err
    assert rows(tmp_path / "run")[0]["loss"] < rows(run)[0]["loss"]


def test_the_rows_of_a_head_follow_the_names_of_the_classes_and_it_is_said(run, tmp_path):
    four = write_colours(tmp_path / "four", train=3, val=1, classes=4)
    done = trained(four, tmp_path / "run", "--weights", run / "best.safetensors", "--epochs", 1)
    assert "head: 3 of 4 classes matched by name, 1 fresh" in done.err


def test_a_baseline_trains_under_the_same_command(data, tmp_path):
    arguments = ["train", data, "--out", tmp_path / "run", "--model", "timm:test_byobnet", "--epochs", 1, "--size", 32]
    assert convnext(*arguments, "--workers", 0).status == 0
    assert convnext("evaluate", tmp_path / "run", data, "--json").status == 0


# Evaluation


def test_evaluation_as_json_holds_rates_and_counts(data, run):
    done = convnext("evaluate", run, data, "--json")
    found = json.loads(done.out)
    assert (done.status, done.err) == (0, "")
    assert {"top1", "top5", "n", "ece", "loss"} <= set(found)
    assert found["n"] == 12 and all(0 <= found[name] <= 1 for name in ("top1", "top5", "ece"))
    saved = json.loads((run / "evaluation.json").read_text())
    assert found["top1"] == saved["top1"] and found["loss"] == pytest.approx(saved["loss"], rel=1e-5)


def test_evaluation_as_text_shows_the_classes_and_the_confusion(data, run):
    out = convnext("evaluate", run, data).out
    assert out.startswith("top-1 ") and all(name in out for name in ("red", "green", "blue", "ground truth"))


@pytest.mark.parametrize("form", ["train", "csv", "zip"])
def test_a_plain_class_folder_a_table_and_a_zip_can_be_evaluated(data, run, tmp_path, form):
    sources = {"zip": zipped(data, tmp_path / "all.zip"), "csv": table(data, tmp_path / "all.csv")}
    found = json.loads(convnext("evaluate", run, sources.get(form, data / "train"), "--json").out)
    assert found["n"] == (36 if form == "train" else 12)


def test_each_kind_of_weights_of_a_run_can_be_asked_for(data, run):
    found = {}
    for weights in ("raw", "ema", "last", "best"):
        found[weights] = json.loads(convnext("evaluate", run, data, "--weights", weights, "--json").out)
    assert found["raw"]["weights"] == "raw" and found["ema"]["weights"] == "ema"
    assert found["raw"]["loss"] != found["ema"]["loss"]
    assert found["last"]["loss"] == pytest.approx(rows(run, "eval")[-2]["loss"], rel=1e-5)
    assert found["best"]["loss"] in (found["raw"]["loss"], found["ema"]["loss"])


def test_one_checkpoint_file_is_as_good_as_its_run(data, run):
    one, all_of_it = (convnext("evaluate", source, data, "--json").out for source in (run / "best.safetensors", run))
    assert json.loads(one)["n"] == json.loads(all_of_it)["n"]


def test_data_with_a_class_that_the_run_does_not_know_are_refused_with_the_nearest(data, run, tmp_path):
    shutil.copytree(data / "val", tmp_path / "other")
    (tmp_path / "other" / "green").rename(tmp_path / "other" / "greens")
    line = convnext("evaluate", run, tmp_path / "other").line
    assert "'greens'" in line and "Did you mean 'green'?" in line


# Prediction


def test_predictions_as_json_are_one_object_a_line(data, run):
    done = convnext("predict", run, data / "val" / "red", data / "val" / "blue" / "000.png", "--json", "--top", 2)
    found = [json.loads(line) for line in done.out.splitlines()]
    assert len(found) == 5 and done.err == ""
    for row in found:
        assert set(row) == {"path", "predictions"} and Path(row["path"]).is_file()
        assert [set(item) for item in row["predictions"]] == [{"label", "score"}] * 2
        assert row["predictions"][0]["score"] >= row["predictions"][1]["score"]


def test_predictions_as_csv_are_a_table(data, run, tmp_path):
    odd = tmp_path / 'a, "quoted" name.png'
    shutil.copy(data / "val" / "red" / "000.png", odd)
    (tmp_path / "broken.png").write_bytes(b"")
    done = convnext("predict", run, odd, tmp_path / "broken.png", "--csv", "--top", 9)
    good, broken = list(csv.DictReader(io.StringIO(done.out)))
    assert good["path"] == str(odd) and good["error"] == "" and sum(float(good[f"score{i}"]) for i in (1, 2, 3)) > 0.99
    assert broken["label1"] == "" and "0 bytes" in broken["error"]
    assert "1 image of 2 could not be read; the results say why." in done.err and "broken.png" not in done.err


@pytest.mark.parametrize("name", ["=1+2", "@SUM(A1)", "-x+1", "+cmd|'/C calc'!A0"])
def test_a_name_that_a_spreadsheet_would_compute_is_text_in_the_table(data, run, tmp_path, monkeypatch, name):
    shutil.copy(data / "val" / "red" / "000.png", tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    shown = SimpleNamespace(path=name, predictions=(("-1", 0.75), (name, 0.25)), frames=1, to_dict=dict)
    monkeypatch.setattr(ClassificationPredictor, "predict", lambda *_, **__: iter([shown]))
    (row,) = csv.DictReader(io.StringIO(convnext("predict", run, "a.png", "--csv", "--top", 2).out))
    assert row["path"] == row["label2"] == f"'{name}" and row["label1"] == "-1" and row["score1"] == "0.750000"


def test_drawn_predictions_keep_the_size_of_the_original_and_stand_upright(data, run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (200, 120), "gray").save(folder / "turned.jpg", exif=exif)
    Image.new("L", (8, 8), 90).save(folder / "tiny.png")
    Image.new("L", (100, 130), 90).save(folder / "grey.png")
    done = convnext("predict", run, folder, "--out", tmp_path / "drawn")
    assert done.status == 0 and done.err == ""
    for name, size in (("turned", (120, 200)), ("tiny", (8, 8)), ("grey", (100, 130))):
        with Image.open(tmp_path / "drawn" / f"{name}.jpg") as drawn:
            assert drawn.size == size and drawn.mode == "RGB" and drawn.getexif().get(0x0112) is None
            assert len(drawn.getcolors(1 << 16)) > 1  # something is on it
    assert "already has" in convnext("predict", run, folder, "--out", tmp_path / "drawn").line


def test_predictions_as_text_are_a_line_an_image(data, run):
    out = convnext("predict", run, data / "val" / "red" / "000.png").out
    assert out.startswith(f"{data / 'val' / 'red' / '000.png'}: ") and out.count("%") == 3


def test_a_glob_and_a_zip_are_predicted(data, run, tmp_path):
    archive = zipped(data / "val", tmp_path / "some.zip")
    assert convnext("predict", run, f"{data}/val/*/000.png").out.count("\n") == 3
    lines = convnext("predict", run, archive, "--json").out.splitlines()
    assert len(lines) == 12 and json.loads(lines[0])["path"] == f"{archive}/blue/000.png"


def test_a_broken_image_costs_its_own_line_and_the_rest_is_answered(data, run, tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    done = convnext("predict", run, tmp_path / "broken.jpg", data / "val" / "red" / "000.png", "--json")
    good, broken = (json.loads(line) for line in done.out.splitlines())
    assert done.status == 0 and len(good["predictions"]) == 3
    assert broken["predictions"] == [] and "not an image" in broken["error"]
    assert "not readable" in convnext("predict", run, tmp_path / "broken.jpg", data / "val" / "red" / "000.png").out


def test_nothing_readable_to_predict_is_a_refusal(run, tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    done = convnext("predict", run, tmp_path / "broken.jpg", "--json")
    assert done.status == 2 and "None of the 1 images could be read" in done.err


# Mistakes: one line, the value, the nearest valid name, exit status 2


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ["VERB"]),
        (("trian", "x"), ["'trian'", "Did you mean 'train'?"]),
        (("train",), ["DATA"]),
        (("train", "DATA", "--optim.lrr", "1e-3"), ["'--optim.lrr'", "Did you mean '--optim.lr'?"]),
        (("train", "DATA", "--epoch", "3"), ["'--epoch'", "Did you mean '--epochs'?"]),
        (("train", "DATA", "--optim.lr"), ["--optim.lr needs a value"]),
        (("train", "DATA", "--optim.lr", "--epochs", "3"), ["--optim.lr needs a value"]),
        (("train", "DATA", "more"), ["'more'", "Paths come first"]),
        (("train", "DATA", "--lr", "fast"), ["optim.lr = 'fast'", "number"]),
        (("train", "DATA", "--lr", "inf"), ["optim.lr", "finite"]),
        (("train", "DATA", "--lr", "-1e-3"), ["--lr"]),
        (("train", "DATA", "--epochs", "0"), ["schedule.epochs", "greater than 0"]),
        (("train", "DATA", "--epochs", "2", "--schedule.warmup_epochs", "5"), ["warmup_epochs = 5", "epochs = 2"]),
        (("train", "DATA", "--batch", "2.5"), ["optim.batch", "2.5"]),
        (("train", "DATA", "--size", "2"), ["input.size_px", "4"]),
        (("train", "DATA", "--precision", "fp8"), ["precision", "bf16"]),
        (("train", "DATA", "--augment.scale", "1,0.5"), ["scale", "smaller first"]),
        (("train", "DATA", "--model", "atoo"), ["'atoo'", "Did you mean 'atto'?"]),
        (("train", "DATA", "--model", "timm:resnet8"), ["'resnet8'", "Did you mean 'resnet18'?"]),
        (("train", "DATA", "--model.classes", "7"), ["model.classes = 7", "3 classes"]),
        (("train", "DATA", "--model.classes", "7.0"), ["model.classes = 7.0", "3 classes"]),
        (("train", "DATA", "--recipe", "smal"), ["'smal'", "Did you mean 'small'?"]),
        (("train", "DATA", "--cache", "of"), ["'of'", "Did you mean 'off'?"]),
        (("train", "DATA", "--seed", "x"), ["--seed", "'x'"]),
        (("train", "DATA", "--val-share", "2"), ["val_share = 2"]),
        (("train", "DATA", "--workers", "-3"), ["workers"]),
        (("train", "DATA", "--device", "gpu"), ["--device gpu", "cpu"]),
        (("train", "DATA", "--device", "meta"), ["--device meta", "cpu"]),
        (("train", "DATA", "--weights", "RUN/bets.safetensors"), ["Did you mean 'best.safetensors'?"]),
        (("train", "DATAX"), ["does not exist", "Did you mean"]),
        (("evaluate", "RUN"), ["DATA"]),
        (("evaluate", "RUNX", "DATA"), ["no run or checkpoint"]),
        (("evaluate", "DATA", "DATA"), ["no finished run"]),
        (("evaluate", "RUN", "DATA", "--wieghts", "last"), ["'--wieghts'", "Did you mean '--weights'?"]),
        (("evaluate", "RUN", "DATA", "--weights", "lats"), ["'lats'", "Did you mean 'last'?"]),
        (("evaluate", "RUN", "DATA", "--optim.lr", "1"), ["'--optim.lr'"]),
        (("evaluate", "RUN", "DATA", "--batch", "0"), ["--batch", "'0'"]),
        (("evaluate", "RUN", "DATA/val/red"), ["class folders"]),
        (("predict", "RUN"), ["PATH"]),
        (("predict", "RUN", "DATA/val/red/0003.png"), ["does not exist", "Did you mean '003.png'?"]),
        (("predict", "RUN", "DATA/val/red", "--top", "-1"), ["--top"]),
        (("predict", "RUN/metrics.jsonl", "DATA/val/red"), ["no checkpoint of convnext"]),
        (("models", "--jsn"), ["'--jsn'", "Did you mean '--json'?"]),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_with_the_value_and_the_fix(data, run, tmp_path, arguments, parts):
    named = [argument.replace("DATA", str(data)).replace("RUN", str(run)) for argument in arguments]
    if arguments[:1] == ("train",):
        named += ["--out", str(tmp_path / "run")]
    done = convnext(*named)
    assert (done.status, done.out) == (2, ""), done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("convnext: ") and "Traceback" not in done.err
    assert [part for part in parts if part not in line] == []
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_evaluating_on_the_one_folder_of_the_training_scores_what_was_held_out(tmp_path):
    data = write_colours(tmp_path / "data") / "train"  # one folder of classes, without parts
    trained(data, tmp_path / "run")
    done = convnext("evaluate", tmp_path / "run", data, "--json")
    counts = json.loads((tmp_path / "run" / "data.json").read_text())
    assert json.loads(done.out)["n"] == counts["val"]["n"]
    assert f"trained on {counts['train']['n']} of these images" in done.err
    (data / "new").mkdir()  # no longer the folder of the training: all of it counts
    next(data.glob("*/*.png")).rename(data / "moved.png")
    said = convnext("evaluate", tmp_path / "run", data, "--json").err
    assert "of these images" not in said and "held out" not in said
    assert (
        " of 35 images are copies of those that the run was trained on" in said
    )  # and it has learnt from most of them


def test_a_batch_larger_than_the_data_is_refused_with_one_that_fits(data, tmp_path):
    line = convnext(*tiny(data, tmp_path / "run", "--batch", 1000)).line
    assert "more than the 36 training images" in line and "--batch 8" in line


@pytest.mark.parametrize("recipe", ["small_detection", "ade20k_upernet_160k"])
def test_a_recipe_of_another_task_is_refused(data, tmp_path, recipe):
    assert "is for" in convnext("train", data, "--recipe", recipe, "--model", "tiny", "--out", tmp_path / "run").line


def test_a_run_among_the_images_is_refused(data):
    assert "among the images" in convnext("train", data, "--out", data / "run").line


def test_every_step_took_its_time(run):
    rows_of_time = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    assert all(row["seconds"] > 0 for row in rows_of_time)
