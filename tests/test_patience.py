"""schedule.patience: a run ends when its score has not risen for so many evaluations, also one that was killed meanwhile."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from commands import convnext, rows, tiny
from convnext.config import RunOptions
from convnext.engine.distributed import World
from convnext.engine.fit import Finished, fit
from convnext.reports.report import write_report
from images import write_colours
from runs import CPU, bits
from test_fit import PER_EPOCH, Toy, toy_recipe

SCORES = [0.2, 0.5, 0.4, 0.5, 0.3, 0.9, 0.9, 0.9]  # of the epochs; the fourth repeats the best and is no better


class Scripted(Toy):
    """Scores as they are written, with a loss that always falls; may end as a killed process does."""

    def __init__(self, kill_at: int | None = None):
        super().__init__()
        self.kill_at = kill_at

    def batches(self, steps: range, world: World) -> Any:
        for batch in super().batches(steps, world):
            if batch.step == self.kill_at:
                raise KeyboardInterrupt
            self.epoch = batch.step // PER_EPOCH
            yield batch

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        return {"top1": SCORES[self.epoch], "loss": 1 / (1 + self.epoch)}


def run(task: Scripted, out: Path, **changes: Any) -> Finished:
    chosen = toy_recipe(schedule__epochs=len(SCORES), **changes)
    options = RunOptions(out=str(out), checkpoint_steps=1, progress=False)
    return fit(task, chosen, options, device=CPU, world=World())


def epochs_scored(out: Path) -> list[float]:
    return [row["epoch"] for row in rows(out, "eval")]


@pytest.mark.parametrize(("patience", "ends"), [(0, 8), (1, 3), (2, 4), (3, 5), (4, 8)])
def test_a_run_ends_after_so_many_evaluations_without_a_better_score(tmp_path, patience, ends):
    finished = run(Scripted(), tmp_path, schedule__patience=patience)
    assert epochs_scored(tmp_path) == list(range(1, ends + 1))
    assert finished.early == (ends < len(SCORES))
    assert finished.score == max(SCORES[:ends])


def test_evaluations_are_counted_not_epochs(tmp_path):
    run(Scripted(), tmp_path, schedule__patience=1, schedule__eval_epochs=2)  # sees 0.5, 0.5
    assert epochs_scored(tmp_path) == [2, 4]


@pytest.mark.parametrize(
    ("every", "steps"),
    [(0.4, [2, 4, 6, 8, 10]), (0.5, [3, 5, 8, 10]), (0.7, [4, 7, 10]), (2 / 3, [4, 7, 10]), (5, [10])],
)
def test_evaluations_may_come_within_an_epoch_and_the_last_is_at_the_end(tmp_path, every, steps):
    chosen = toy_recipe(schedule__epochs=2, schedule__eval_epochs=every)  # of 5 steps each
    fit(Scripted(), chosen, RunOptions(out=str(tmp_path), progress=False), device=CPU, world=World())
    assert [row["step"] for row in rows(tmp_path, "eval")] == steps


def test_patience_counts_evaluations_within_an_epoch_and_a_killed_run_ends_there_with_the_same_bits(tmp_path):
    how = {"schedule__patience": 3, "schedule__eval_epochs": 0.4, "optim__ema": 0.5}  # scores 0.2 0.2 0.5 0.5 0.5, 0.4
    whole = run(Scripted(), tmp_path / "whole", **how)
    assert epochs_scored(tmp_path / "whole")[::2] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.4])
    assert whole.early and whole.score == 0.5
    with pytest.raises(KeyboardInterrupt):
        run(Scripted(7), tmp_path / "killed", **how)
    assert run(Scripted(), tmp_path / "killed", **how) == whole
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


@pytest.mark.parametrize("kill_at", [2, 5, 9, 14, 18])
def test_a_killed_run_ends_at_the_same_step_with_the_same_bits(tmp_path, kill_at):
    ema = {"optim__ema": 0.5, "schedule__patience": 2}
    whole = run(Scripted(), tmp_path / "whole", **ema)
    with pytest.raises(KeyboardInterrupt):
        run(Scripted(kill_at), tmp_path / "killed", **ema)
    assert run(Scripted(), tmp_path / "killed", **ema) == whole
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


def test_a_run_that_ended_early_is_finished_and_says_so_again(tmp_path, capsys):
    first = run(Scripted(), tmp_path, schedule__patience=2)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")}
    capsys.readouterr()
    assert run(Scripted(), tmp_path, schedule__patience=2) == first
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")} == before
    said = capsys.readouterr().err
    assert "Stopped early at epoch 4/8: 2 evaluations in a row without a better top1 than at epoch 2/8." in said


def test_the_terminal_the_json_and_the_report_say_that_a_run_ended_early(tmp_path):
    data = write_colours(tmp_path / "colours", train=6, val=2)
    more = ("--epochs", 9, "--schedule.patience", 1, "--lr", 1e-9, "--optim.ema", 0)  # it learns nothing
    done = convnext(*tiny(data, tmp_path / "run", *more, "--json"))
    assert done.status == 0 and "Stopped early at epoch 2/9: 1 evaluation in a row" in done.err
    assert json.loads(done.out)["stopped_early"] is True
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["stopped_early"] is True
    assert "stopped early" in write_report(tmp_path / "run").read_text("utf-8")
    whole = convnext(*tiny(data, tmp_path / "whole", "--json"))
    assert json.loads(whole.out)["stopped_early"] is False
    assert "stopped early" not in write_report(tmp_path / "whole").read_text("utf-8")
