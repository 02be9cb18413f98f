"""The loop: what must not change its numbers, and what it says when something is wrong."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from commands import convnext, rows, tiny, trained
from convnext.config import InputConfig, Recipe, RunOptions, override
from convnext.data.opening import open_labelled, recognise
from convnext.data.slots import slots_of
from convnext.engine import checkpoint
from convnext.engine.distributed import World
from convnext.engine.fit import Finished, fit
from convnext.engine.watching import PATIENCE
from convnext.errors import TrainingError
from convnext.recipes import recipe
from convnext.tasks.classification.passing import Pass
from convnext.tasks.classification.scoring import evaluate
from images import write_colours
from loaded import COMMAND, told

BATCH, PER_EPOCH, EPOCHS = 8, 5, 3


@dataclass(frozen=True)
class Piece:
    x: Tensor
    y: Tensor
    step: int

    def __len__(self) -> int:
        return len(self.x)

    def split(self, size: int) -> list["Piece"]:
        return [Piece(x, y, self.step) for x, y in zip(self.x.split(size), self.y.split(size), strict=True)]


class Toy:
    """Points in two classes, in float64; `spoil` may change the loss of a piece, or raise."""

    steps_per_epoch, metric, chance_loss = PER_EPOCH, "top1", 0.6931
    smaller, varies, exact = "fewer points", "", True

    def __init__(self, spoil: Callable[[nn.Module, Piece, Tensor], Tensor] | None = None, learnable: bool = True):
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).double()
        self.spoil, self.learnable = spoil, learnable

    def slots(self, world: World) -> NDArray[np.int64]:
        return slots_of(BATCH, (world.rank, world.size))

    def batches(self, steps: range, world: World) -> Iterator[Piece]:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(BATCH, 4, generator=generator, dtype=torch.float64)
            noise = torch.randn(BATCH, generator=generator)
            yield Piece(x, ((x[:, 0] if self.learnable else noise) > 0).long(), step)

    def prepare(self, batch: Piece, *, step: int, slots: NDArray[np.int64], device: torch.device) -> Piece:
        return batch

    def loss(self, network: nn.Module, piece: Piece) -> Tensor:
        loss = F.cross_entropy(network(piece.x), piece.y)
        return self.spoil(network, piece, loss) if self.spoil else loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
        logits, y = model(x), (x[:, 0] > 0).long()
        return {"top1": float((logits.argmax(1) == y).double().mean()), "loss": float(F.cross_entropy(logits, y))}

    def names(self, batch: Piece) -> list[str]:
        return [f"{batch.step}/{i}.png" for i in range(len(batch))]

    def describe(self) -> dict[str, Any]:
        return {"classes": ["no", "yes"]}


def toy_recipe(**changes: Any) -> Recipe:
    length = {} if "schedule__steps" in changes else {"schedule.epochs": EPOCHS}
    fields = length | {"schedule.warmup_epochs": 0, "optim.lr": 0.1, "optim.ema": 0.0}
    base = recipe("small", "atto", images=40, image_px=32, classes=2, batch=BATCH)
    return override(base, fields | {name.replace("__", "."): value for name, value in changes.items()})


def run(task: Toy, out: Path, chosen: Recipe | None = None, **options: Any) -> Finished:
    values = RunOptions(out=str(out), **options)
    return fit(task, chosen or toy_recipe(), values, device=torch.device("cpu"), world=World())


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in rows(out)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"), val=5)


# What must not change the numbers


@pytest.mark.parametrize("micro", [2, 3, 4])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_micro_batches_of_any_size_train_to_the_weights_of_the_whole_batch(tmp_path, micro, optimizer):
    whole, pieces = Toy(), Toy()
    chosen = toy_recipe(optim__name=optimizer, optim__clip=0.7)
    run(whole, tmp_path / "whole", chosen)
    run(pieces, tmp_path / "pieces", chosen, micro_batch=micro)
    assert losses(tmp_path / "pieces") == pytest.approx(losses(tmp_path / "whole"), rel=1e-6)
    for a, b in zip(whole.model.parameters(), pieces.model.parameters(), strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-4 if optimizer == "muon" else 1e-9, atol=1e-9
        )  # muon works in bfloat16


def test_micro_batches_of_real_images_give_the_same_losses(data, tmp_path):
    for micro in (0, 2, 4):
        trained(data, tmp_path / str(micro), "--micro-batch", micro, "--optim.name", "sgd")
    for micro in ("2", "4"):
        assert losses(tmp_path / micro) == pytest.approx(losses(tmp_path / "0"), rel=1e-5)


def test_activation_checkpointing_gives_the_same_numbers_with_drop_path_too(data, tmp_path):
    for flag in ("false", "true"):
        trained(data, tmp_path / flag, "--model.checkpointing", flag, "--model.drop_path", 0.3)
    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "false"), rel=1e-6)


def test_reading_processes_and_the_cache_change_nothing(data, tmp_path):
    trained(data, tmp_path / "plain", "--cache", "off")
    trained(data, tmp_path / "other", "--cache", "on", "--workers", 2)
    assert (tmp_path / "plain" / "metrics.jsonl").read_bytes() == (tmp_path / "other" / "metrics.jsonl").read_bytes()


def test_two_processes_train_to_the_losses_of_one_write_one_log_and_evaluate_each_image_once(loaded, data, tmp_path):
    more = ["--optim.ema", 0.9, "--optim.name", "sgd", "--json"]  # 15 images are held out: an odd number
    one = json.loads(trained(data, tmp_path / "one", *more).out)
    with loaded.ranks(COMMAND, *tiny(data, tmp_path / "two", *more)) as ranks:
        (out, err), (other_out, _) = told(ranks)
    assert "fp32 on cpu x 2" in err and other_out == ""
    two = json.loads(out)
    for kind in ("train", "eval"):
        ours, theirs = rows(tmp_path / "two", kind), rows(tmp_path / "one", kind)
        assert [row["step"] for row in ours] == [row["step"] for row in theirs]
        assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-5)
    assert two["n"] == one["n"] == 15 and two["top1"] == pytest.approx(one["top1"])
    assert [row["top1"] for row in rows(tmp_path / "two", "eval")] == [
        r["top1"] for r in rows(tmp_path / "one", "eval")
    ]


def test_a_batch_that_the_processes_cannot_share_is_refused_with_one_that_they_can(tmp_path):
    with pytest.raises(Exception, match=r"optim.batch = 8 cannot be shared by 9 processes. Take 9 or more, or 8 proc"):
        fit(
            Toy(),
            toy_recipe(),
            RunOptions(out=str(tmp_path / "run")),
            device=torch.device("cpu"),
            world=World(rank=0, size=9),
        )


def test_a_compiled_network_trains_to_the_losses_of_a_plain_one(tmp_path, monkeypatch):
    # 'eager' captures the network as the default does and leaves out the C++ compiler, which takes half a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    run(Toy(), tmp_path / "plain")
    run(Toy(), tmp_path / "compiled", compile=True)
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-6)
    saved, _ = checkpoint.read(tmp_path / "compiled" / "best.safetensors")
    assert set(saved) == set(Toy().model.state_dict())  # names without a trace of the compiler


# Precision and averages


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_learns_and_its_log_is_strict_json(data, tmp_path, precision):
    trained(data, tmp_path / "run", "--precision", precision, "--epochs", 4)
    found = losses(tmp_path / "run")
    assert sum(found[-4:]) < 0.97 * sum(found[:4])
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "Infinity" not in text and "NaN" not in text


def test_an_update_that_float32_cannot_hold_is_one_line_with_its_step(data, tmp_path):
    more = ["--optim.name", "muon", "--optim.muon_ratio", 1e38, "--lr", 900]
    done = convnext(*tiny(data, tmp_path / "run", *more))
    line = done.err.splitlines()[-1]
    assert done.status == 2 and "Traceback" not in done.err
    assert (
        line.startswith("convnext: The update of step ") and "is too large for float32 (lr " in line and "Lower" in line
    )


def test_numbers_that_are_not_finite_are_null_in_the_log(tmp_path):
    task = Toy()
    task.evaluate = lambda model, world: {"top1": 0.5, "loss": float("inf")}  # type: ignore[method-assign]
    run(task, tmp_path / "run")
    assert {row["loss"] for row in rows(tmp_path / "run", "eval")} == {None}


def test_ema_weights_are_scored_beside_the_raw_ones_and_the_best_of_each_is_kept_apart(tmp_path):
    finished = run(Toy(), tmp_path / "run", toy_recipe(optim__ema=0.8))
    scored = rows(tmp_path / "run", "eval")
    assert [(row["step"], row["weights"]) for row in scored] == [
        (step, weights) for step in (5, 10, 15) for weights in ("raw", "ema")
    ]
    for weights, name in (("raw", "best"), ("ema", "best_ema")):
        tensors, metadata = checkpoint.read(tmp_path / "run" / f"{name}.safetensors")
        best = max(row["top1"] for row in scored if row["weights"] == weights)
        assert metadata["weights"] == weights and metadata["metrics"]["top1"] == best
        task = Toy()
        task.model.load_state_dict(tensors)
        assert task.evaluate(task.model, World())["top1"] == best
    assert finished.score == max(row["top1"] for row in scored)


# What it says


def test_a_loss_that_is_no_number_stops_with_step_rate_and_files_and_last_stays_as_it_was(tmp_path):
    def spoil(network: nn.Module, piece: Piece, loss: Tensor) -> Tensor:
        return loss * float("nan") if piece.step == 7 else loss

    with pytest.raises(TrainingError) as error:
        run(Toy(spoil), tmp_path / "run", checkpoint_steps=2)
    text = str(error.value)
    assert "The loss became nan at step 8" in text and "lr " in text and "\n" not in text
    assert "7/0.png, 7/1.png, 7/2.png, 7/3.png, 7/4.png and 3 more" in text and "optim.clip" in text
    tensors, metadata = checkpoint.read(tmp_path / "run" / "last.safetensors")
    assert metadata["state"]["step"] == 6 and all(tensor.isfinite().all() for tensor in tensors.values())
    run(Toy(), tmp_path / "run", checkpoint_steps=2)
    run(Toy(), tmp_path / "whole")
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("step", [6, 9, 14])  # before a save, before an evaluation, at the very end
def test_weights_that_break_under_a_finite_loss_are_neither_saved_nor_scored(tmp_path, step, clip):
    def spoil(network: nn.Module, piece: Piece, loss: Tensor) -> Tensor:
        weight = next(network.parameters())
        return loss + (weight * 0).sqrt().sum() if piece.step == step else loss  # 0 forward, nan backward

    with pytest.raises(TrainingError, match=rf"Weights became inf or nan at step {step + 1} .*{step}/0.png"):
        run(Toy(spoil), tmp_path / "run", toy_recipe(optim__clip=clip), checkpoint_steps=1)
    for name in ("last", "best"):
        if (tmp_path / "run" / f"{name}.safetensors").exists():
            tensors, _ = checkpoint.read(tmp_path / "run" / f"{name}.safetensors")
            assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_flat_loss_is_said_once_after_the_warm_up_with_the_likely_reason(tmp_path, capsys):
    epochs = 3 + PATIENCE // PER_EPOCH
    slow = toy_recipe(optim__lr=1e-9, schedule__warmup_epochs=1, schedule__epochs=epochs, schedule__eval_epochs=epochs)
    run(Toy(learnable=False), tmp_path / "run", slow)
    said = [line for line in capsys.readouterr().err.splitlines() if "guessing gives" in line]
    assert len(said) == 1
    parts = (f"after {epochs - 2} epochs", "0.693", "optim.lr = 1e-09", "labels")
    assert all(part in said[0] for part in parts)


def test_a_loss_that_falls_is_not_called_flat(tmp_path, capsys):
    run(Toy(), tmp_path / "run")
    assert "guessing gives" not in capsys.readouterr().err


def no_room_above(most: int) -> Callable[[nn.Module, Piece, Tensor], Tensor]:
    def spoil(network: nn.Module, piece: Piece, loss: Tensor) -> Tensor:
        if len(piece) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss

    return spoil


def test_out_of_memory_says_which_micro_batch_fits_and_with_it_the_run_goes_through(tmp_path):
    with pytest.raises(TrainingError, match=r"Out of memory with 8 images at a time. 2 fit: add `--micro-batch 2`"):
        run(Toy(no_room_above(3)), tmp_path / "run")
    run(Toy(no_room_above(3)), tmp_path / "run", micro_batch=2)
    run(Toy(), tmp_path / "whole")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), rel=1e-6)


def test_no_room_for_a_single_image_is_said_too(tmp_path):
    with pytest.raises(TrainingError, match="even with one image at a time"):
        run(Toy(no_room_above(0)), tmp_path / "run")


def test_other_errors_are_not_taken_for_missing_memory(tmp_path):
    def spoil(network: nn.Module, piece: Piece, loss: Tensor) -> Tensor:
        raise RuntimeError("a bug of ours")

    with pytest.raises(RuntimeError, match="a bug of ours"):
        run(Toy(spoil), tmp_path / "run")


def test_evaluation_goes_by_halves_where_a_batch_does_not_fit(data):
    class Greedy(nn.Module):
        def __init__(self, most: int):
            super().__init__()
            self.weight, self.most = nn.Parameter(torch.eye(3)), most

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return x.mean((2, 3)) @ self.weight

    dataset = open_labelled(recognise(data, annotated=False))
    shown: Any = SimpleNamespace(input=InputConfig(size_px=16, eval_size_px=16))
    with torch.inference_mode():
        whole, halves = (evaluate(Greedy(most), dataset, shown, Pass(batch=15)) for most in (15, 2))
    assert len(halves) == 15 and (halves.loss == whole.loss).all()
    with pytest.raises(torch.OutOfMemoryError), torch.inference_mode():
        evaluate(Greedy(0), dataset, shown, Pass(batch=15))


def test_a_learning_rate_far_from_its_batch_is_said_with_the_value_that_suits(data, tmp_path):
    done = trained(data, tmp_path / "run", "--lr", 0.5, "--epochs", 0.2)
    assert "optim.lr = 0.5" in done.err and "batch 6 calls for 0.000612" in done.err
    assert "--optim.lr 0.000612" in done.err
    assert "calls for" not in trained(data, tmp_path / "other", "--epochs", 0.2).err


# TensorBoard


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="the extra 'track' is not installed")
def test_tensorboard_files_hold_the_losses_of_the_log(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained(data, tmp_path / "run", "--tensorboard")
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.value for event in board.Scalars("train/loss")] == pytest.approx(losses(tmp_path / "run"))
    assert {"val_raw/top1", "val_ema/top1", "train/lr"} <= set(board.Tags()["scalars"])


def test_tensorboard_that_is_not_installed_is_a_line_with_the_extra(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = convnext(*tiny(data, tmp_path / "run", "--tensorboard"))
    assert done.status == 2 and "pip install 'convnext[track]'" in done.err.splitlines()[-1]


# A loss of several parts, and a run that counts steps


class Parted(Toy):
    """Says its loss as two parts, and is logged every second step; dies before step `dies`."""

    steps_per_epoch = 40

    def __init__(self, dies: int = -1):
        super().__init__()
        self.dies = dies

    def slots(self, world: World) -> NDArray[np.int64]:
        return slots_of(BATCH, (world.rank, world.size))

    def batches(self, steps: range, world: World) -> Iterator[Piece]:
        for step, batch in zip(steps, super().batches(steps, world), strict=True):
            if step == self.dies:
                raise KeyboardInterrupt
            yield batch

    def loss(self, network: nn.Module, piece: Piece) -> dict[str, Tensor]:  # type: ignore[override]
        each = F.cross_entropy(network(piece.x), piece.y, reduction="none")
        right = piece.y == 1
        return {"yes": (each * right).sum() / len(each), "no": (each * ~right).sum() / len(each)}


@pytest.mark.parametrize("micro", [0, 3])
def test_parts_of_a_loss_are_logged_beside_it_add_up_to_it_and_survive_a_kill(tmp_path, micro):
    chosen = toy_recipe(schedule__epochs=1)
    run(Parted(), tmp_path / "whole", chosen, micro_batch=micro)
    logged = rows(tmp_path / "whole")
    assert len(logged) == 20 and all(list(row["parts"]) == ["yes", "no"] for row in logged)
    for row in logged:
        assert sum(row["parts"].values()) == pytest.approx(row["loss"], rel=1e-6)
    run(Toy(), tmp_path / "one", chosen)
    assert not any("parts" in row for row in rows(tmp_path / "one"))
    with pytest.raises(KeyboardInterrupt):
        run(Parted(dies=8), tmp_path / "killed", chosen, micro_batch=micro, checkpoint_steps=7)  # half a row is saved
    run(Parted(), tmp_path / "killed", chosen, micro_batch=micro)
    assert rows(tmp_path / "killed") == logged
    killed, whole = (checkpoint.read(tmp_path / name / "last.safetensors")[0] for name in ("killed", "whole"))
    assert killed.keys() == whole.keys() and all(torch.equal(killed[name], whole[name]) for name in whole)


def test_one_look_at_the_device_fetches_the_loss_of_a_step_with_all_its_parts(tmp_path):
    looks = []

    class Counting(World):
        def summed(self, values: Tensor) -> Tensor:
            looks.append(len(values))
            return super().summed(values)

    task, chosen = Parted(), toy_recipe(schedule__epochs=1)
    fit(task, chosen, RunOptions(out=str(tmp_path / "run")), device=torch.device("cpu"), world=Counting())
    assert looks == [3] * 40


def test_a_run_that_counts_steps_speaks_of_steps_and_one_of_epochs_of_epochs(tmp_path, capsys):
    run(Toy(), tmp_path / "steps", toy_recipe(schedule__steps=7))
    said = capsys.readouterr().err
    assert "step 5/7  raw: top1" in said and "step 7/7  raw: top1" in said and "epoch" not in said
    run(Toy(), tmp_path / "epochs", toy_recipe(schedule__epochs=1.3))  # 6 steps of 5 each
    said = capsys.readouterr().err
    assert "epoch 1/1.3  raw: top1" in said and "epoch 1.2/1.3  raw: top1" in said


def test_the_headline_of_a_classifier_says_steps_where_these_decide(data, tmp_path):
    said = trained(data, tmp_path / "run", "--schedule.steps", 3).err
    assert ", 3 steps, batch 6" in said and "step 3/3  raw: top1" in said and "epoch" not in said
