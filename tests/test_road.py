"""One road for three tasks: a row each, folders of the same shape, one request, one evaluation."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import convnext.tasks
from commands import convnext as command
from commands import trained
from convnext.config import TASKS, RunOptions, override
from convnext.data.opening import open_splits, recognise
from convnext.engine.distributed import World
from convnext.engine.run import weights_file
from convnext.errors import ConvNeXtError, DataError
from convnext.recipes import DEFAULT, recipe
from convnext.tasks.evaluate import evaluate
from convnext.tasks.opening import part_of, source_of
from convnext.tasks.result import Evaluation
from convnext.tasks.table import ROWS, row_of
from convnext.tasks.train import Examined, Request, choose_recipe, examine, train
from convnext.tasks.weights import load_best
from images import write_colours
from shape_objects import write_objects
from shapes import write_shapes

FOLDER = Path(convnext.tasks.__file__).parent
ROLES = {"__init__", "build", "facts", "inference", "metrics", "report", "row", "scoring", "task"}
SCORES = {"top1", "top5", "balanced_accuracy", "macro_f1", "baseline_top1", "chance"}
SCORES |= {"loss", "loss_before", "ece", "ece_before", "aurc"}
TINY = {"model.depths": (1, 1), "model.widths": (8, 16), "model.patch": 2, "optim.batch": 6, "schedule.epochs": 1}


def test_every_task_has_one_row_one_recipe_type_and_one_default():
    assert list(ROWS) == list(TASKS) == list(DEFAULT)
    for task in ROWS:
        row = row_of(task)
        model = recipe(DEFAULT[task], "atto", images=100, image_px=64, classes=3)
        assert row.classes in ("model.classes", "head.classes") and row.build(model) is not None


@pytest.mark.parametrize("task", TASKS)
def test_a_task_s_folder_has_the_files_of_the_others_and_imports_none_of_them(task):
    files = list((FOLDER / task).glob("*.py"))
    assert {file.stem for file in files} >= ROLES
    others = {f"convnext.tasks.{other}" for other in TASKS if other != task}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            assert not any(module == other or module.startswith(f"{other}.") for other in others), file


def test_who_classifies_does_not_wait_for_torchvision():
    code = (
        "import sys; import convnext.tasks.train, convnext.tasks.table as table; table.row_of('classification'); "
        "sys.exit(any(name in sys.modules for name in ('torchvision', 'timm', 'convnext.tasks.detection')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("data") / "data")


def test_the_task_follows_from_the_data_or_is_asked_for(colours, tmp_path):
    objects, masks = write_objects(tmp_path / "a"), write_shapes(tmp_path / "b")
    assert source_of(colours).task == "classification"
    assert source_of(objects).task == "detection" and source_of(masks).task == "segmentation"
    assert source_of(colours, "classification").task == "classification"
    with pytest.raises(DataError, match="--task detection does not fit"):
        source_of(masks, "detection")
    with pytest.raises(DataError, match="no images in its test part, only in train and val"):
        part_of(source_of(colours), part="test", classes=())


def test_one_request_trains_evaluates_and_says_what_the_run_was(colours, tmp_path):
    options = RunOptions(out=str(tmp_path / "run"), workers=0, progress=False)
    done = train(Request(data=colours, size_px=16, changes=TINY), options)
    assert (done.task, done.first, done.out) == ("classification", True, tmp_path / "run")
    written = json.loads((done.out / "evaluation.json").read_text())
    assert done.evaluation.to_dict() == written and written["task"] == "classification"
    assert set(done.evaluation.scores) == SCORES and written["step"] == done.finished.step
    assert {"never_predicted", "confusion", "per_class", "calibration", "worst"} <= set(done.evaluation.tables)
    data = json.loads((done.out / "data.json").read_text())
    assert data["task"] == "classification" and data["train"]["n"] == len(done.splits.train.entries)
    chosen = json.loads((done.out / "recipe.json").read_text())
    assert chosen["task"] == "classification" and chosen["input"]["size_px"] == chosen["input"]["eval_size_px"] == 16


def test_the_best_weights_score_the_same_through_the_road_as_in_training(colours, tmp_path):
    trained(colours, tmp_path / "run")
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best = [row for row in rows if row["kind"] == "eval" and row["weights"] == evaluation["weights"]]
    assert any(row["top1"] == evaluation["top1"] and row["loss"] == evaluation["loss_before"] for row in best)
    again = json.loads(command("evaluate", tmp_path / "run", colours, "--json", "--workers", 0).out)
    assert {name: again[name] for name in evaluation if name in again and name != "step"} == {
        name: value for name, value in evaluation.items() if name in again and name != "step"
    }


def test_any_callable_network_of_a_recipe_can_be_evaluated(colours, tmp_path):
    trained(colours, tmp_path / "run")
    done = train(Request(data=colours, size_px=16, changes=TINY), RunOptions(out=str(tmp_path / "x"), workers=0))
    chosen = choose_recipe(
        Request(data=colours, size_px=16, changes=TINY),
        None,
        examine(Request(data=colours), RunOptions(out="", workers=0), World()),
    )
    network = load_best(row_of("classification").build(chosen), done.out, done.finished.weights)
    metadata = {"classes": list(done.evaluation.classes), "weights": done.finished.weights, "val_share": None}
    found = evaluate(network, colours, chosen, metadata, device=torch.device("cpu"))
    assert found.scores["top1"] == done.evaluation.scores["top1"] and found.about["skipped"] == {}
    assert weights_file(done.out).is_file()


def test_a_recipe_that_is_a_value_is_fitted_to_the_classes_and_changed_on_top(colours):
    splits = open_splits(recognise(colours))
    looked = Examined("classification", splits, examine_findings(colours))
    value = override(recipe("imagenet1k", "atto", images=9, image_px=9, classes=7), {"optim.batch": 4})
    chosen = choose_recipe(Request(data="", recipe=value, changes={"optim.lr": "1e-3"}), None, looked)
    assert chosen.name == "imagenet1k" and chosen.model.classes == len(splits.train.classes)
    assert (chosen.optim.lr, chosen.optim.batch) == (1e-3, 4)
    other = recipe("small_detection", "atto", images=9, image_px=64, classes=7)
    with pytest.raises(ConvNeXtError, match=r"is for detection, and the data are for classification\. Take 'small'"):
        choose_recipe(Request(data="", recipe=other), None, looked)


def examine_findings(data: Path) -> object:
    return examine(Request(data=str(data)), RunOptions(out="", workers=0), World()).findings


def test_an_evaluation_tells_scores_from_tables_and_goes_through_json():
    report = {"task": "detection", "n": 3, "box_ap": 0.5, "mask_ap": None, "most": 100, "classes": ["a"], "worst": []}
    found = Evaluation.of("detection", report).with_about(weights="ema", step=7)
    assert dict(found.scores) == {"box_ap": 0.5, "mask_ap": None} and set(found.tables) == {"most", "worst"}
    assert json.loads(json.dumps(found.to_dict())) == {**report, "weights": "ema", "step": 7}
    assert "worst" not in found.without("worst").to_dict()
