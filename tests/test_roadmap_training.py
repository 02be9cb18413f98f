"""The roadmap on one's own data: what a plan trains, how it goes on after a kill, and what is read out of the results."""

import json
import shutil
import signal
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from convnext.config import RunOptions
from convnext.errors import ConvNeXtError
from convnext.recipes.roadmap import STEPS, roadmap
from convnext.studies.roadmap.chart import label, narrow_chart
from convnext.studies.roadmap.page import results_text, write_roadmap
from convnext.studies.roadmap.training import Plan, train_roadmap
from convnext.studies.roadmap.verdicts import read, summary
from images import write_colours
from loaded import WAITING

TWO = ("resnet_original", "separate_downsampling")
QUICK = {"input.size_px": 16, "optim.batch": 12}
KILLED = """
import sys
from convnext.config import RunOptions
from convnext.studies.roadmap.training import Plan, train_roadmap
plan = Plan(data=sys.argv[1], steps={steps}, width_factor=0.125, epochs=3, changes={changes})
train_roadmap(plan, RunOptions(out=sys.argv[2], workers=0, checkpoint_steps=1))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


def plan(data: Path, **more: Any) -> Plan:
    return Plan(**{"data": str(data), "steps": TWO, "width_factor": 0.125, "epochs": 3, "changes": QUICK, **more})


def options(out: Path) -> RunOptions:
    return RunOptions(out=str(out), workers=0, checkpoint_steps=1)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "roadmap"
    train_roadmap(plan(data), options(out))
    return out


def scores(out: Path) -> dict[str, list[Any]]:
    rows = json.loads((out / "roadmap.json").read_text())["steps"]
    return {row["name"]: [(run["top1"], run["loss"]) for run in row["runs"]] for row in rows if row["runs"]}


def test_a_plan_trains_its_steps_as_ordinary_runs_under_one_budget(whole):
    recipes = {name: json.loads((whole / f"{name}_seed0" / "recipe.json").read_text()) for name in TWO}
    assert [r["optim"]["name"] for r in recipes.values()] == ["sgd", "adamw"]
    assert [r["schedule"]["kind"] for r in recipes.values()] == ["step", "cosine"]
    for recipe in recipes.values():
        assert (recipe["schedule"]["epochs"], recipe["optim"]["batch"], recipe["optim"]["ema"]) == (3, 12, 0)
    assert [r["model"]["width"] for r in recipes.values()] == [8, 12]  # an eighth of 64 and 96
    results = json.loads((whole / "roadmap.json").read_text())
    assert [row["name"] for row in results["steps"]] == list(STEPS)
    assert set(scores(whole)) == set(TWO)


def test_a_plan_that_was_killed_goes_on_and_ends_with_the_same_figures(loaded, data, whole, tmp_path):
    out, code = tmp_path / "roadmap", WAITING + KILLED.format(steps=TWO, changes=QUICK)
    with loaded.forked(code, f"{TWO[1]}_seed0/metrics.jsonl", 3, data, out) as process:
        assert process.stdout.readline() == "waiting\n", process.stderr.read()
        process.kill()
        assert process.wait() == -signal.SIGKILL
    first = out / f"{TWO[0]}_seed0" / "last.safetensors"
    written = first.stat().st_mtime_ns
    seen: list[list[str]] = []
    results = train_roadmap(plan(data), options(out), after=lambda r: seen.append([s["name"] for s in r["steps"]]))
    assert scores(out) == scores(whole)
    assert first.stat().st_mtime_ns == written  # finished before: not trained again
    assert len(seen) == 1 and results["steps"][0]["mean"] is not None


def test_more_steps_and_seeds_join_what_is_there(data, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "roadmap")
    before = scores(out)
    results = train_roadmap(plan(data, steps=("resnet_original",), seeds=2), options(out))
    after = scores(out)
    assert after["separate_downsampling"] == before["separate_downsampling"]
    assert after["resnet_original"][0] == before["resnet_original"][0] and len(after["resnet_original"]) == 2
    assert results["steps"][0]["std"] is not None and results["steps"][-1]["std"] is None


def test_another_budget_in_the_same_folder_is_refused_with_the_difference(data, whole):
    with pytest.raises(ConvNeXtError, match=r"schedule.epochs = 3.0 there and 2.0 here"):
        train_roadmap(plan(data, epochs=2), options(whole))


def test_a_step_that_fails_is_noted_and_the_others_go_on(data, tmp_path):
    steps = ("resnet_original", "layer_norm")  # the first keeps its own rate
    results = train_roadmap(plan(data, steps=steps, changes={**QUICK, "optim.lr": 1000}), options(tmp_path / "r"))
    assert list(results["failed"]) == ["layer_norm_seed0"]
    assert "optim.lr" in results["failed"]["layer_norm_seed0"]
    assert results["steps"][0]["mean"] is not None
    assert "Failed: layer_norm_seed0" in results_text(results)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": ("kernel7",)}, "Did you mean 'kernel_7'"),
        ({"regime": "s"}, "regime = 's'"),
        ({"width_factor": 0}, "width_factor = 0"),
        ({"seeds": 0}, "seeds = 0 must be 1 or more"),
        ({"changes": {"model.kernel": 5}}, "'model.kernel' cannot be set"),
        ({"changes": {"optim.lrr": 5}}, "Did you mean 'optim.lr'"),
        ({"epochs": 0}, "schedule.epochs = 0"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_one_line_and_trains_nothing(data, tmp_path, fields, message):
    with pytest.raises(ConvNeXtError) as error:
        train_roadmap(plan(data, **fields), options(tmp_path / "r"))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.glob("r/*_seed*"))


def made_up(gains: dict[str, list[float]], *, val: int = 10_000, name: str = "photos") -> dict[str, Any]:
    """Results with these runs, in percent; every other step was not trained."""
    rows = []
    for step in roadmap("t"):
        top1 = [rate / 100 for rate in gains.get(step.name, [])]
        mean = sum(top1) / len(top1) if top1 else None
        facts = (
            "name",
            "group",
            "change",
            "base",
            "recipe",
            "paper_gflops",
            "likely_gflops",
            "paper_top1",
            "paper_std",
        )
        row = {fact: getattr(step, fact) for fact in facts} | {"params": 1_500_000, "macs": 90_000_000}
        runs = [{"seed": i, "top1": rate, "loss": 1.0, "minutes": 2.0} for i, rate in enumerate(top1)]
        std = 0.001 if len(top1) > 1 else None
        rows.append({**row, "runs": runs, "mean": mean, "std": std})
    return {
        **{"regime": "t", "width_factor": 0.25, "epochs": 10.0, "batch": 64, "size_px": 128, "data": name},
        **{"classes": 10, "train": 9000, "val": val, "steps": rows, "failed": {}, "environment": {}},
    }


def test_a_difference_counts_only_when_it_is_larger_than_its_spread():
    results = made_up(
        {
            "resnet": [60.0, 60.2],
            "stage_ratio": [62.0, 62.2],  # up, as in the paper
            "patchify": [62.1, 62.2],  # the paper's + 0.15 is within its spread, and so is this
            "depthwise": [63.0, 63.2],  # up; the paper's went down
            "width": [63.1, 63.2],  # too small to tell
            "kernel_7": [60.0, 60.2],
            "gelu": [61.0, 61.2],  # clear here, not in the paper; compared with kernel 7
            "kernel_9": [],
        }
    )
    readings = {reading.row["name"]: reading for reading in read(results)}
    verdicts = {name: reading.verdict for name, reading in readings.items() if reading.verdict}
    assert verdicts == {
        "stage_ratio": "same direction",
        "patchify": "none, as in the paper",
        "depthwise": "other direction",
        "width": "no clear difference",
        "gelu": "only here",
    }
    assert readings["gelu"].delta == pytest.approx(1.0) and readings["gelu"].paper_delta == pytest.approx(0.05)
    assert summary(list(readings.values())).startswith(
        "Of 5 changes measured, 1 goes the paper's way, 1 goes the other"
    )


def test_the_spread_is_students_interval_with_one_variance_for_all_steps():
    results = made_up({"resnet": [60.0, 60.2], "stage_ratio": [62.0, 62.4]})
    reading = next(r for r in read(results) if r.row["name"] == "stage_ratio")
    pooled = ((2 * 0.1**2 + 2 * 0.2**2) / 2) ** 0.5  # two degrees of freedom
    assert reading.spread == pytest.approx(4.30 * pooled)  # sqrt(1/2 + 1/2) = 1


def test_with_one_seed_the_spread_is_that_of_the_held_out_images():
    results = made_up({"resnet": [50.0], "stage_ratio": [51.0]}, val=100)
    reading = next(r for r in read(results) if r.row["name"] == "stage_ratio")
    assert reading.verdict == "no clear difference" and reading.spread == pytest.approx(13.86, abs=0.01)
    assert "One seed a step" in results_text(results)


def test_the_chart_is_an_svg_of_its_own_and_the_page_loads_nothing(tmp_path):
    gains = {name: [60.0 + i, 60.5 + i, 61.0 + i] for i, name in enumerate(STEPS) if name != "kernel_11"}
    (tmp_path / "roadmap.json").write_text(json.dumps(made_up(gains, name="<img src=x>&")))
    drawing, written = write_roadmap(tmp_path)
    root = ElementTree.fromstring(drawing.read_text())
    words = [text for node in root.iter() if (text := (node.text or "").strip())]
    assert "ConvNeXt's roadmap on <img src=x>&" in words
    assert "not trained" in words and "kernel 11" in words and len(words) > 17
    assert len(root.findall(".//*[@class='seed']")) == 16 * 3
    page = written.read_text()
    assert "<img" not in page and "<script" not in page and "src=" not in page.replace("&lt;img src=x", "")
    assert "4.46 (likely 4.15)" in page and "default-src 'none'" in page.replace("&#x27;", "'")


def test_one_of_a_thing_is_told_in_the_singular_and_what_was_not_trained_took_no_minutes(tmp_path):
    results = made_up({"resnet": [60.0]}) | {"epochs": 1.0, "train": 1, "classes": 1}
    assert "1 epoch of 1 image in 1 class, 128 px, 1 seed" in results_text(results)
    (tmp_path / "roadmap.json").write_text(json.dumps(results))
    steps = write_roadmap(tmp_path)[1].read_text().partition('<section id="steps">')[2]
    assert steps.count('<td class="number">2.0</td>') == 1 and "0.0</td>" not in steps
    assert steps.count('<td class="number">–</td>') == 16


def test_a_narrow_screen_gets_the_same_steps_with_their_names_above_the_bars(tmp_path):
    gains = {name: [60.0 + i, 61.0 + i] for i, name in enumerate(STEPS) if name != "kernel_11"}
    drawing = ElementTree.fromstring(narrow_chart(made_up(gains)))
    wide = float(drawing.attrib["viewBox"].split()[2])
    texts = [node for node in drawing.iter() if node.tag.endswith("text")]
    assert wide < 380 and {"kernel 11", "not trained", "separate downsampling"} <= {node.text for node in texts}
    for name in STEPS:
        words = next(node for node in texts if (node.get("class"), node.text) == ("strong", label(name)))
        value = next(node for node in texts if node.get("y") == words.get("y") and node.get("text-anchor") == "end")
        room = float(value.attrib["x"]) - 6.6 * (
            len(words.text) + len(value.text)
        )  # of 12 px letters, rather wide ones
        assert room > 0, name
    (tmp_path / "roadmap.json").write_text(json.dumps(made_up(gains)))
    page = write_roadmap(tmp_path)[1].read_text()
    assert page.count("<svg") == 2 and "max-width: 640px" in page
    assert (tmp_path / "roadmap.svg").read_text().count("<svg") == 1


def test_the_chart_of_a_plan_that_has_trained_nothing_can_be_drawn_and_nothing_else_can(tmp_path):
    (tmp_path / "roadmap.json").write_text(json.dumps(made_up({})))
    assert "nothing to compare yet" in write_roadmap(tmp_path)[1].read_text()
    with pytest.raises(ConvNeXtError, match="holds no results of a roadmap"):
        write_roadmap(tmp_path / "elsewhere")
