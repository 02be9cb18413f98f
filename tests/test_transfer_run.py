"""A run that starts from weights: probe, fine-tuning, mix; what it says, keeps and answers, and that a kill costs nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import convnext
from commands import convnext as command
from commands import rows, trained
from convnext.deploy.load import load
from convnext.drawing.numbers import duration
from convnext.engine import checkpoint
from convnext.engine.run import weights_file
from convnext.engine.schedule import total_steps
from convnext.engine.trial import Timed
from convnext.reports.run import write_report
from convnext.tasks import budget
from convnext.tasks import train as road
from convnext.tasks.classification import features, stages, transfer
from convnext.tasks.classification.features import Extraction
from convnext.tasks.classification.stages import Stages
from convnext.tasks.classification.task import Classification
from convnext.tasks.pace import Pace, parts_of
from convnext.tasks.table import row_of
from images import write_colours

SHORT = {"schedule.epochs": 2, "optim.ema": 0.5, "optim.batch": 6}


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    """train/ and val/ of three colours."""
    return write_colours(tmp_path_factory.mktemp("parted"), train=8, val=4)


@pytest.fixture(scope="module")
def flat(parted, tmp_path_factory):
    """The images of train/ without a val part."""
    return shutil.copytree(parted / "train", tmp_path_factory.mktemp("flat") / "colours")


@pytest.fixture(scope="module")
def source(parted, tmp_path_factory):
    """A run on 16 px whose normalisation is its own."""
    out = tmp_path_factory.mktemp("source") / "run"
    trained(parted, out, "--input.mean", "0.4,0.5,0.6", "--epochs", 1)
    return out


def train(data, source, out, **more):
    return convnext.train(data, weights=source, out=out, overrides=SHORT | more, progress=False, workers=0)


@pytest.fixture(scope="module")
def run(parted, source, tmp_path_factory):
    return train(parted, source, tmp_path_factory.mktemp("held") / "run")


@pytest.fixture(scope="module")
def crosswise(flat, source, tmp_path_factory):
    return train(flat, source, tmp_path_factory.mktemp("crosswise") / "run")


def bits(out: Path) -> dict[str, object]:
    """Every tensor of every file below a run, its log and its choice."""
    found: dict[str, object] = {}
    for file in sorted(out.rglob("*.safetensors")):
        if file.parent.name != "features":
            found |= {f"{file.relative_to(out)}:{key}": v.numpy().tobytes() for key, v in load_file(file).items()}
    return found | {name: (out / name).read_text() for name in ("metrics.jsonl", "transfer.json", "recipe.json")}


# What it does


def test_weights_alone_are_enough_and_the_network_follows_them(run, source):
    recipe = json.loads((run.path / "recipe.json").read_text())
    held = checkpoint.read_metadata(weights_file(source))["recipe"]
    assert recipe["name"] == "transfer" and recipe["input"]["mean"] == [0.4, 0.5, 0.6]
    assert {key: recipe["model"][key] for key in ("depths", "widths", "stem", "patch")} == {
        key: held["model"][key] for key in ("depths", "widths", "stem", "patch")
    }


def test_the_scores_of_all_stages_are_told_and_the_best_is_kept(run):
    found = json.loads((run.path / "transfer.json").read_text())
    shares = {row["share"]: row for row in found["candidates"]}
    assert set(shares) == {0.0, 0.25, 0.5, 0.75, 1.0} and found["n"] == 12
    best = max(row["top1"] for row in shares.values())
    assert run.scores["top1"] == best == shares[found["share"]]["top1"]
    assert run.scores["probe_top1"] == shares[0.0]["top1"] and run.scores["finetuned_top1"] == shares[1.0]["top1"]
    assert run.chosen == found["chosen"] in ("probe", "finetuned", "mixed")
    assert {"run", "top1", "probe_top1", "chosen"} <= set(run.to_dict())


def test_what_is_kept_answers_for_the_run(run, parted):
    scores = convnext.evaluate(run, parted).scores
    assert scores["top1"] == run.scores["top1"] and scores["loss"] == pytest.approx(run.scores["loss"], abs=1e-5)
    name = weights_file(run.path).name
    assert name in {"probe": ("probe.safetensors",), "mixed": ("mixed.safetensors",)}.get(
        run.chosen, ("best.safetensors", "best_ema.safetensors")
    )


def test_fine_tuning_starts_from_the_head_of_the_probe_whose_logits_the_network_gives(run, parted, monkeypatch):
    frozen, _ = checkpoint.read(run.path / "probe.safetensors")
    kept = checkpoint.read(run.path / "features" / "val-00000.safetensors")[0]
    logits = kept["values"][0] @ frozen["head.weight"].T + frozen["head.bias"]
    first, second = logits.double().topk(2, 1).values.T
    fitted = checkpoint.read_metadata(run.path / "probe.safetensors").get("decision", {"temperature": 1, "stretch": 0})
    factor = 1 / fitted["temperature"] + fitted["stretch"] * (first - second) ** 2
    top = torch.softmax(factor[:, None] * logits, 1).max(1).values
    answers = list(load(run.path, weights="probe").predict(sorted((parted / "val").rglob("*.png"))))
    assert np.allclose([answer.predictions[0][1] for answer in answers], top.numpy(), atol=1e-4)
    seen = {}
    monkeypatch.setattr(stages, "fit_described", lambda task, *_, **__: seen.update(task.model.state_dict()) or 1 / 0)
    shutil.copytree(run.path, run.path.parent / "again", ignore=shutil.ignore_patterns("last*", "best*"))
    with pytest.raises(ZeroDivisionError):
        train(parted, run.path.parent / "gone", run.path.parent / "again")
    assert all(torch.equal(seen[name], value) for name, value in frozen.items())


def test_the_command_prints_the_choice_as_json_and_says_the_probe_first(parted, source, tmp_path):
    done = command("train", parted, "--weights", source, "--out", tmp_path / "run", "--epochs", 1, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert {"run", "top1", "probe_top1", "finetuned_top1", "chosen"} <= set(found)
    assert "recipe 'transfer'" in done.err and "Frozen features: " in done.err and "of 12 held-out images" in done.err
    assert "Kept: " in done.err


def test_frozen_the_run_ends_with_the_probe_and_is_whole(parted, source, tmp_path):
    done = command("train", parted, "--weights", source, "--out", tmp_path / "run", "--freeze", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["chosen"] == "probe" and found["top1"] == found["probe_top1"] and found["step"] == 0
    assert not (tmp_path / "run" / "last.safetensors").exists() and (tmp_path / "run" / "report.html").exists()
    assert json.loads(command("evaluate", tmp_path / "run", parted, "--json").out)["top1"] == found["top1"]


def test_the_report_shows_every_candidate_with_its_interval_and_where_the_weights_come_from(run, tmp_path):
    page = (run.path / "report.html").read_text()
    assert 'id="start"' in page and "Linear probe, network frozen" in page and "50\u202f% fine-tuned" in page
    assert page.count(", kept</b>") == 1 and "run/best" in page and "licence: own weights" in page
    assert "tensors read" in page  # what was adapted on loading
    shutil.copytree(run.path, tmp_path / "run")
    for content in ("", "{}", '{"n": "x", "candidates": [3]}'):
        (tmp_path / "run" / "transfer.json").write_text(content)
        page = write_report(tmp_path / "run").read_text()
        assert 'id="start"' in page and "transfer.json" in page and 'id="confusion"' in page


# Few images


def test_few_images_choose_crosswise_and_all_of_them_are_learnt_from(crosswise, flat):
    found = json.loads((crosswise.path / "transfer.json").read_text())
    assert found["crosswise"] == 3 and found["n"] == 24 == crosswise.evaluation.n
    assert np.sum(crosswise.evaluation.tables["confusion"]) == 24
    header = checkpoint.read_metadata(weights_file(crosswise.path))
    assert header["crosswise"] == 3 and header["score"] == crosswise.scores["top1"]
    counts = json.loads((crosswise.path / "data.json").read_text())
    assert counts["train"] == {"n": 24, "per_class": dict.fromkeys(("blue", "green", "red"), 8)}  # of what is kept
    assert 0 < counts["val"]["n"] < 24  # what part 1 held out


def test_every_image_is_held_out_of_one_part_and_trained_on_in_the_others(flat, source, tmp_path, monkeypatch):
    seen = []
    real = Classification.__init__

    def noted(self, model, recipe, options, splits):
        seen.append(
            (Path(options.out).name, {e.path for e in splits.train.entries}, {e.path for e in splits.val.entries})
        )
        real(self, model, recipe, options, splits)

    monkeypatch.setattr(Classification, "__init__", noted)
    train(flat, source, tmp_path / "run", **{"start.folds": 3})
    parts = {name: (inside, out) for name, inside, out in seen}
    assert set(parts) == {"run", "2", "3", "all"}
    inside, _ = parts.pop("all")
    assert len(inside) == 24
    every = set().union(*(out for _, out in parts.values()))
    assert len(every) == 24 == sum(len(out) for _, out in parts.values())
    assert all(inside == every - out for inside, out in parts.values())


def test_what_is_kept_is_the_mix_of_a_probe_and_a_network_that_saw_every_image(crosswise):
    every = crosswise.path / "folds" / "all"
    tuned = checkpoint.of("ema", load_file(every / "last.safetensors"))
    share = json.loads((crosswise.path / "transfer.json").read_text())["share"]
    frozen, kept = load_file(every / "probe.safetensors"), load_file(crosswise.path / "mixed.safetensors")
    for name in ("stages.0.blocks.0.expand.weight", "head.weight"):
        expected = (1 - share) * frozen[name].double() + share * tuned[name].double()
        assert torch.allclose(kept[name].double(), expected, atol=1e-6)


def test_images_that_all_were_learnt_from_are_not_scored_in_silence(crosswise, flat):
    done = command("evaluate", crosswise.path, flat, "--json")
    assert "has learnt from all 24 of these images" in done.err and "cross-validation" in done.err
    assert json.loads(done.out)["n"] == 24
    refused = command("evaluate", crosswise.path, flat, "--promise", 0.5).line
    assert "has learnt from all 24 of these images" in refused and "they cannot show a promise" in refused


def test_a_val_part_of_its_own_decides_and_is_never_trained_on(run):
    assert not (run.path / "folds").exists() and "crosswise" not in run.to_dict()


@pytest.mark.parametrize(
    ("minutes", "overrides", "parts"), [(600, {}, 3), (1, {}, 0), (1, {"start.folds": 3}, 3), (None, {}, 3)]
)
def test_a_time_budget_keeps_the_parts_where_they_fit_and_says_where_they_do_not(
    flat, source, tmp_path, monkeypatch, minutes, overrides, parts
):
    seen, said = [], []

    def pace(task, chosen, *_, **__):
        sizes = parts_of(chosen, total_steps(task.steps_per_epoch, chosen.schedule))
        timed = (Timed(0.1, 0.0),) * len(sizes)
        return Pace(timed, task.steps_per_epoch, 0.1, 0.0, spent_s=1.0, images=(18, 6), shared=True)

    monkeypatch.setattr(budget, "_pace", pace)
    monkeypatch.setattr(budget, "info", said.append)
    monkeypatch.setattr(road, "carry_out", lambda chosen, *_, **__: seen.append(chosen) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convnext.train(flat, weights=source, out=tmp_path / "run", minutes=minutes, overrides=overrides)
    assert seen[0].start.folds == parts
    left_out = [line for line in said if "leaves no time" in line]
    assert (
        left_out == []
        if parts
        else left_out
        == [
            "--minutes 1 leaves no time for a cross-validation in 3 parts, which takes 4 trainings: the 6 held-out images "
            "alone choose."
        ]
    )


def test_the_console_says_how_often_and_of_which_images_it_learns(flat, source, tmp_path, monkeypatch):
    meters = []

    class Noted(features.Meter):
        def __init__(self, *given, shown, **named):
            meters.append((named["label"], shown))
            super().__init__(*given, shown=False, **named)

    monkeypatch.setattr(features, "Meter", Noted)
    err = command("train", flat, "--weights", source, "--out", tmp_path / "run", "--epochs", 1, "--batch", 6).err
    assert "24 images in 3 classes, each held out once in 3 parts, 1 epoch" in err
    assert [err.count(f"Part {number} of 3:") for number in (1, 2, 3)] == [1, 1, 1]
    assert sorted(label for label, shown in meters if shown) == ["frozen features, train", "frozen features, val"]
    assert " again on all images (mixed.safetensors)." in err


def test_the_report_tells_what_is_of_one_part_and_counts_all_images_and_trainings(crosswise, tmp_path):
    shutil.copytree(crosswise.path, tmp_path / "run")
    for place in ("", "folds/2", "folds/3", "folds/all"):
        (tmp_path / "run" / place / "timings.jsonl").write_text('{"step": 1, "seconds": 900.0, "images_per_s": 3.0}\n')
    page = write_report(tmp_path / "run").read_text()
    data = json.loads((crosswise.path / "data.json").read_text())
    assert "3 classes; 24 images for training, each of them held out once, in 3 parts." in page
    held_out = data["val"]["n"]
    assert f"Of part 1 of 3 alone, trained on {24 - held_out} images and scored on the {held_out} that" in page
    assert "Best EMA" not in page and "Best raw" not in page
    assert duration(3600) in page and " for 4 trainings" in page


def test_the_report_of_a_run_whose_held_out_images_decide_stays(run):
    page = (run.path / "report.html").read_text()
    assert (
        "24 images for training, 12 images for validation." in page and "Best raw" in page and "Of part 1" not in page
    )


# Kills


class Kill(BaseException):
    """Ends a run where it is, as far as a test can."""


def killed(monkeypatch, owner, name, *, after: int) -> None:
    """The call of `name` number `after` + 1 ends the process."""
    calls, real = [], getattr(owner, name)

    def counted(*given, **named):
        calls.append(1)
        if len(calls) > after:
            raise Kill
        return real(*given, **named)

    monkeypatch.setattr(owner, name, counted)


PLACES = {
    "features": (Extraction, "_chunk", 2),
    "probe": (stages, "fit_head", 0),
    "training": (Classification, "prepare", 3),
    "mixing": (Stages, "answers", 1),
    "the last file": (transfer, "save_whole", 0),
    "the choice": (stages, "write_text", 0),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["run", "crosswise"])
def test_a_run_that_is_killed_in_any_stage_ends_with_the_same_bits(
    kind, place, request, parted, flat, source, tmp_path, monkeypatch
):
    whole, data = request.getfixturevalue(kind), parted if kind == "run" else flat
    owner, name, after = PLACES[place]
    with monkeypatch.context() as patched:
        patched.setattr(features, "CHUNK", 7)
        killed(patched, owner, name, after=after + (8 if kind == "crosswise" and place == "training" else 0))
        try:
            train(data, source, tmp_path / "run")
        except Kill:
            pass
        else:
            assert place == "the last file" and whole.chosen != "mixed"
    monkeypatch.setattr(features, "CHUNK", 7)
    train(data, source, tmp_path / "run")
    assert bits(tmp_path / "run") == bits(whole.path)


def test_a_run_goes_on_without_the_weights_that_it_started_from(parted, source, tmp_path, monkeypatch):
    start = shutil.copytree(source, tmp_path / "start")
    with monkeypatch.context() as patched:
        killed(patched, Classification, "prepare", after=2)
        with pytest.raises(Kill):
            train(parted, start, tmp_path / "run")
    shutil.rmtree(start)
    assert train(parted, start, tmp_path / "run").chosen


def test_another_recipe_or_other_data_are_refused_where_a_probe_is(parted, flat, source, run):
    arguments = ["--weights", source, "--out", run.path, "--optim.ema", 0.5, "--batch", 6]
    done = command("train", parted, *arguments, "--epochs", 9)
    assert done.status == 2 and "holds a run of another recipe (schedule.epochs = 2.0 there" in done.err
    done = command("train", flat, *arguments, "--epochs", 2, "--start.folds", 0)
    assert done.status == 2 and "holds a run on other data" in done.err


@pytest.mark.parametrize("frozen", [True, False])
def test_a_forgotten_or_an_added_freeze_is_told_by_its_option(frozen, parted, source, tmp_path):
    arguments = ["train", parted, "--weights", source, "--out", tmp_path / "run", "--epochs", 1]
    first, second = (["--freeze"], []) if frozen else ([], ["--freeze"])
    assert command(*arguments, *first).status == 0
    done = command(*arguments, *second)
    way = "with --freeze. Add it" if frozen else "without --freeze. Leave it out"
    last = done.err.splitlines()[-1]
    assert done.status == 2 and last == (
        f"convnext: '{tmp_path / 'run'}' holds a run that was made {way}, or choose another --out."
    )


def test_weights_are_named_as_they_were_given_beside_where_they_came_from(parted, source, tmp_path):
    given = tmp_path / "given.safetensors"
    state = load_file(weights_file(source))
    save_file(state, given, {"format": "pt", "origin": "older.pth", "license": "unknown"})
    done = command("train", parted, "--weights", given, "--out", tmp_path / "run", "--freeze")
    assert done.status == 0, done.err
    assert (
        "From given.safetensors (which came from older.pth); licence: unknown."
        in (tmp_path / "run" / "report.html").read_text()
    )


# Refusals


def test_a_network_that_contradicts_the_weights_is_refused_with_both(parted, source, tmp_path):
    line = command("train", parted, "--weights", source, "--model", "tiny", "--out", tmp_path / "run").line
    assert "--model tiny is refused" in line and "'atto'" in line and "Leave out --model" in line


def test_freezing_without_weights_is_refused(parted, tmp_path):
    assert "Add --weights FILE" in command("train", parted, "--freeze", "--out", tmp_path / "run").line
    line = command("train", parted, "--recipe", "transfer", "--out", tmp_path / "run").line
    assert "starts from weights" in line and "--weights FILE" in line


def test_every_task_says_how_its_runs_are_carried_out():
    assert all(callable(row_of(task).carry_out) for task in ("classification", "detection", "segmentation"))


def test_epochs_are_logged_as_in_any_run(run):
    assert [row["epoch"] for row in rows(run.path, "eval")] == [1.0, 1.0, 2.0, 2.0]
