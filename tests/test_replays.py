"""Training steps that are recorded as CUDA graphs, without a GPU: `recorder` stands for what torch records with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from commands import convnext, rows, tiny
from convnext.config import Recipe, RunOptions, override
from convnext.data.opening import DenseSplits, recognise
from convnext.engine import checkpoint, replays
from convnext.engine.distributed import World
from convnext.engine.fit import fit
from convnext.engine.given import Given, Learnt
from convnext.engine.optim import Optimizers
from convnext.engine.replays import WARM, Replays
from convnext.engine.update import Update
from convnext.errors import ConvNeXtError, OutOfMemory
from convnext.recipes import recipe
from convnext.tasks.splits import splits_of
from convnext.tasks.table import row_of
from images import write_colours
from recorder import recorder
from shape_objects import small

STEPS = 20
Outcome = tuple[list[Any], dict[str, Tensor]]
SHORT: dict[str, Any] = {"schedule__steps": 8, "input__progressive": ()}
NETWORK = {"model.depths": (1, 1), "model.widths": (8, 16), "model.patch": 2, "model.drop_path": 0.5, "model.kernel": 3}
STEP = {
    "optim.name": "adamw",
    "optim.clip": 0.5,
    "optim.ema": 0.9,
    "optim.ema_warmup": True,
    "optim.batch": 5,
    "optim.layer_decay": 0.8,
}
LENGTH = {
    "schedule.epochs": None,
    "schedule.steps": STEPS,
    "schedule.warmup_epochs": 0,
    "schedule.warmup_steps": 6,
    "schedule.eval_epochs": 99,
}
MIXED = {"augment.mixup": 0.8, "augment.cutmix": 1.0, "augment.erasing": 0.5, "augment.smoothing": 0.1}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_colours(tmp_path_factory.mktemp("colours"))
    return splits_of(recognise(folder), val=None, val_share=0.2, seed=0)


def classifier(colours: Any, **changes: Any) -> Recipe:
    """Whose images grow in the middle of its 20 steps."""
    chosen = recipe("small", "atto", images=len(colours.train.entries), image_px=16, classes=3, batch=5)
    sizes = {"input.size_px": 16, "input.progressive": ((0.5, 12),)}
    return override(chosen, {**NETWORK, **STEP, **LENGTH, **MIXED, **sizes, **_dotted(changes)})


def _dotted(changes: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in changes.items()}


def ran(data: Any, chosen: Recipe, out: Path, **options: Any) -> Outcome:
    """What each step had to learn from, and all that there is to go on with, of a run or of what is left of it."""
    torch.manual_seed(0)
    row = row_of(chosen.task)
    given = RunOptions(
        **{"out": str(out), "workers": 0, "kernels": "plain", "progress": False, "micro_batch": 2, **options}
    )
    task = row.task(row.build(chosen), chosen, given, data)
    task.evaluate = lambda model, world: {task.metric: 0.0, "loss": 0.0}
    fit(task, chosen, given, device=torch.device("cpu"), world=World())
    return [(row["loss"], row["grad_norm"]) for row in rows(out)], checkpoint.read(out / "last.safetensors")[0]


def equal(one: Outcome, other: Outcome) -> bool:
    """To the bit."""
    return one[0] == other[0] and all(torch.equal(one[1][name], value) for name, value in other[1].items())


@pytest.fixture(scope="module")
def plain(colours: Any, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The run that others are compared with: nothing of it is recorded."""
    return ran(colours, classifier(colours), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def short(colours: Any, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A shorter one."""
    return ran(colours, classifier(colours, **SHORT), tmp_path_factory.mktemp("short"))


def test_replayed_steps_are_to_the_bit_those_that_nobody_records(colours, plain, tmp_path, monkeypatch):
    with recorder(monkeypatch) as graphs:
        found = ran(colours, classifier(colours), tmp_path / "run", cuda_graphs=True)
    assert [graph.replays for graph in graphs] == [STEPS // 2 - WARM] * 2  # one for each size of images
    assert len(found[0]) == STEPS and equal(found, plain)


KINDS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16", "loss__balance": "weights", "optim__ema": 0.0, "model__checkpointing": True},
    "sgd": {"optim__name": "sgd", "loss__balance": "logits"},
    "fp16": {"precision": "fp16", "optim__clip": 0.0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_so_it_is_with_every_optimizer_precision_and_loss(colours, tmp_path, monkeypatch, kind):
    chosen = classifier(colours, **SHORT, **KINDS[kind])
    wanted = ran(colours, chosen, tmp_path / "plain")
    with recorder(monkeypatch) as graphs:
        assert equal(ran(colours, chosen, tmp_path / "run", cuda_graphs=True), wanted)
    assert [graph.replays for graph in graphs] == [8 - WARM]


def test_muon_replays_its_own_steps_which_are_those_of_torch_to_rounding(colours, tmp_path, monkeypatch):
    chosen, found = classifier(colours, **SHORT, optim__name="muon", optim__muon_convolutions=True), []
    with recorder(monkeypatch):
        for warm in (WARM, 99):
            monkeypatch.setattr(replays, "WARM", warm)
            found.append(ran(colours, chosen, tmp_path / str(warm), cuda_graphs=True))
    assert equal(*found)
    losses = [loss for loss, _ in ran(colours, chosen, tmp_path / "plain")[0]]
    assert [loss for loss, _ in found[0][0]] == pytest.approx(losses, rel=1e-4)


def test_so_it_is_with_a_segmenter_and_statistics_of_its_batch_norms(maps: DenseSplits, tmp_path, monkeypatch):
    chosen = recipe("small_segmentation", "atto", images=12, image_px=40, classes=3)
    dense = {"head.aux_stage": 1, "head.norm": "batch", "head.dropout": 0.3, "optim.batch": 4, "input.crop_px": 40}
    chosen = override(chosen, {**NETWORK, **STEP, **LENGTH, "schedule.steps": 8, **dense})
    wanted = ran(maps, chosen, tmp_path / "plain")
    with recorder(monkeypatch) as graphs:
        assert equal(ran(maps, chosen, tmp_path / "run", cuda_graphs=True), wanted)
    assert [graph.replays for graph in graphs] == [8 - WARM]


def test_a_replayed_run_that_was_stopped_goes_on_to_the_bit(colours, plain, tmp_path, monkeypatch):
    step, chosen = Update.__call__, classifier(colours)

    def stopped(self: Update, *given: Any, **named: Any) -> Any:
        if named["step"] == 8:
            raise KeyboardInterrupt
        return step(self, *given, **named)

    how: dict[str, Any] = {"out": tmp_path / "run", "cuda_graphs": True, "checkpoint_steps": 3}
    with recorder(monkeypatch) as graphs:
        with monkeypatch.context() as patch:
            patch.setattr(Update, "__call__", stopped)
            with pytest.raises(KeyboardInterrupt):
                ran(colours, chosen, **how)
        assert equal(ran(colours, chosen, **how), plain)
    assert [graph.replays for graph in graphs] == [8 - WARM, 10 - WARM]


def numbers(self: Optimizers, lr: float) -> None:
    _SET_LR(self, lr)
    for optimizer in self.all:
        for group in optimizer.param_groups:
            group["lr"] = float(group["lr"])


_SET_LR = Optimizers.set_lr
MUTATIONS: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "rates as numbers": (Optimizers, "set_lr", numbers),
    "images": (Given, "tensors", lambda given: (given.drawn, given.share)),
    "what layers draw": (Given, "tensors", lambda given: (*given.batch.tensors(), given.share)),
    "the share of the EMA": (Given, "tensors", lambda given: (*given.batch.tensors(), given.drawn)),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_whatever_a_graph_would_repeat_is_seen(colours, short, tmp_path, monkeypatch, what):
    """The comparison would fail: what shall change is left as it was recorded."""
    place, name, wrong = MUTATIONS[what]
    with recorder(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(place, name, wrong)
        assert not equal(ran(colours, classifier(colours, **SHORT), tmp_path / "run", cuda_graphs=True), short)


def test_a_compiled_network_is_recorded_as_any_other(colours, short, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    with recorder(monkeypatch) as graphs:
        found = ran(colours, classifier(colours, **SHORT), tmp_path / "run", compile=True, cuda_graphs=True)
    assert [loss for loss, _ in found[0]] == pytest.approx([loss for loss, _ in short[0]], rel=1e-6)
    assert [graph.replays for graph in graphs] == [8 - WARM]


# What is recorded, and what is not


@dataclass(frozen=True)
class Points:
    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.x,)


def given(size: int, value: float = 1.0) -> Given:
    return Given(Points(torch.full((size,), value)), size, torch.empty(0), 0.0)  # type: ignore[arg-type]


def total(asked: Given) -> Learnt:
    return Learnt(asked.batch.tensors()[0].sum()[None], (), None)


def test_a_shape_is_recorded_after_its_first_steps_and_all_share_one_memory_and_one_stream(monkeypatch):
    with recorder(monkeypatch) as graphs:
        run = Replays(torch.device("cpu"))
        sums = [run(total, given(size, value)).losses for size in (2, 3) for value in range(WARM + 2)]
    assert torch.cat(sums).tolist() == [size * value for size in (2, 3) for value in range(WARM + 2)]
    first, second = graphs
    assert first.shared is None and second.shared is first and second.stream is first.stream
    assert first.replays == second.replays == 2


def test_of_many_shapes_the_one_that_came_longest_ago_is_forgotten(monkeypatch):
    monkeypatch.setattr(replays, "MOST", 2)
    with recorder(monkeypatch) as graphs:
        run = Replays(torch.device("cpu"))
        for size in (*[2] * (WARM + 1), *[3] * (WARM + 1), 2, 4, *[2, 3] * WARM, 2):
            run(total, given(size))
    assert [graph.replays for graph in graphs] == [2 + WARM + 1, 1]  # 3 went when 4 came, 4 when 3 did


def test_a_step_that_waits_for_the_gpu_is_refused_in_one_line(monkeypatch):
    def waiting(asked: Given) -> Learnt:
        learnt = total(asked)
        assert float(learnt.losses) > 0
        return learnt

    with recorder(monkeypatch):
        run = Replays(torch.device("cpu"))
        for _ in range(WARM):
            run(waiting, given(2))
        with pytest.raises(ConvNeXtError) as error:
            run(waiting, given(2))
    line = str(error.value)
    assert line.startswith(
        "A step of this network cannot be recorded as a CUDA graph: CUDA error: operation not permitted"
    )
    assert line.endswith("Leave out --cuda-graphs.") and "\n" not in line


def test_where_a_recorded_step_does_not_fit_its_memory_is_given_back_and_what_fits_is_said(
    colours, tmp_path, monkeypatch
):
    def full(*_: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(replays, "recorded", full)
    with recorder(monkeypatch), pytest.raises(OutOfMemory) as error:
        ran(colours, classifier(colours), tmp_path / "run", cuda_graphs=True)
    said = str(error.value)
    assert said.startswith("Out of memory with 2 images at a time. 1 fit: add `--micro-batch 1`")
    assert said.endswith("or leave out --cuda-graphs, which keep memory of their own.")


def test_runs_that_cannot_be_recorded_are_refused(colours, objects: DenseSplits, tmp_path, monkeypatch):
    data = write_colours(tmp_path / "colours")
    done = convnext(*tiny(data, tmp_path / "run", "--cuda-graphs"))
    assert done.status == 2 and done.err.splitlines() == [
        "convnext: --cuda-graphs is for GPUs of CUDA, and this run is on 'cpu'. Leave it out."
    ]
    options = RunOptions(out="", cuda_graphs=True)
    with recorder(monkeypatch):
        with pytest.raises(
            ConvNeXtError, match="is for one process, and there are 2: gradients are exchanged inside a"
        ):
            replays.refuse(options, torch.device("cpu"), World(size=2))
        with pytest.raises(
            ConvNeXtError, match="repeats the same work in each step, and which boxes match decides how"
        ):
            ran(objects, small(), tmp_path / "objects", cuda_graphs=True)
        with pytest.raises(
            ConvNeXtError, match=r"with optim.name = muon and precision = fp16: whether a step counts is"
        ):
            ran(colours, classifier(colours, optim__name="muon", precision="fp16"), tmp_path / "muon", cuda_graphs=True)
