"""A step is a function of the slots of its batch: any number of processes, and any micro-batch, takes the same one."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from children import awaited, children_of, environment
from commands import rows, tiny, trained
from convnext.config import AugmentConfig, TimmConfig
from convnext.data.mix import mix
from convnext.data.slots import slots_of
from convnext.engine import launcher
from convnext.engine.chances import Chances
from convnext.engine.distributed import World
from convnext.engine.run import Run
from convnext.errors import CheckpointError, DataError
from convnext.models.baselines import Baseline
from convnext.models.convnext import DropPath
from convnext.tasks.segmentation.parts import DropChannels
from images import write_colours

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "elastic.py"


@given(st.integers(1, 300), st.integers(1, 40), st.booleans())
def test_processes_share_every_slot_once_and_alike(batch, world, paired):
    groups = (batch + 1) // 2 if paired else batch
    if groups < world:
        with pytest.raises(DataError, match="cannot be shared"):
            slots_of(batch, (0, world), paired=paired)
        return
    shares = [slots_of(batch, (rank, world), paired=paired).tolist() for rank in range(world)]
    assert sorted(slot for share in shares for slot in share) == list(range(batch))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= (
        3 if paired and batch % 2 else 2 if paired else 1
    )  # the middle one is half a pair
    if paired:
        assert all([batch - 1 - slot for slot in share] == share[::-1] for share in shares)


def test_fifty_images_on_three_processes():
    assert [len(slots_of(50, (rank, 3))) for rank in range(3)] == [16, 17, 17]
    assert [len(slots_of(50, (rank, 3), paired=True)) for rank in range(3)] == [16, 16, 18]
    with pytest.raises(
        DataError,
        match=r"optim.batch = 6 cannot be shared by 4 processes: mixup and cutmix mix its images in "
        r"pairs. Take 7 or more, or 3 processes.",
    ):
        slots_of(6, (0, 4), paired=True)


@pytest.mark.parametrize("batch", [12, 13])
@pytest.mark.parametrize("augment", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0, "erasing": 0.6}])
def test_shares_are_mixed_and_erased_as_the_whole_batch_is(batch, augment):
    config = AugmentConfig(**augment, smoothing=0.1)
    x = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(batch) % 5
    for step in range(5):
        whole, targets = mix(x.clone(), labels, 5, config, (7, step, 0))
        assert not torch.equal(whole, x)
        for world in (2, 3, 5):
            for rank in range(world):
                own = slots_of(batch, (rank, world), paired=True)
                found, said = mix(x[own], labels[own], 5, config, (7, step, 0), own)
                assert torch.equal(found, whole[own]) and torch.equal(said, targets[own])


def test_layers_draw_for_a_slot_whatever_else_is_computed_with_it():
    network = nn.Sequential(DropPath(0.5), nn.Linear(1, 1), DropPath(0.0), DropPath(0.25))
    chances = Chances(network, batch=10, seed=3)
    x, kept = torch.ones(10, 2, 2, 2), []
    for pieces in ([range(10)], [range(4), range(4, 9), [9]], [[9, 2], [0, 1, 3, 4, 5, 6, 7, 8]]):
        y = torch.zeros_like(x)
        with chances.of(chances.at(5, np.concatenate([np.array(piece) for piece in pieces]))):
            first = 0
            for piece in pieces:
                chances.give(slice(first, first := first + len(piece)))
                own = np.array(piece)
                y[own] = network[3](network[2](network[0](x[own])))
        kept.append(y)
    assert torch.equal(kept[0], kept[1]) and torch.equal(kept[0], kept[2])
    assert 0 < kept[0].count_nonzero() < kept[0].numel()
    with chances.of(chances.at(6, np.arange(10))):
        chances.give(slice(10))
        assert not torch.equal(network[3](network[0](x)), kept[0])
    assert network[0].drawn is None  # outside a step it draws by itself
    assert network[0](x[:3]).shape == (3, 2, 2, 2)


def test_drop_path_of_baselines_and_dropout_of_segmenters_are_given_too():
    for name, count in {"convnextv2_atto": 11, "vit_tiny_patch16_224": 22}.items():  # the first block drops nothing
        network = Baseline(TimmConfig(name=name, classes=3, drop_path=0.3))
        layers = [module for module in network.modules() if "drop" in type(module).__name__.lower()]
        assert {type(layer).__name__ for layer in layers if getattr(layer, "p", 1)} == {"DropPath"}
        assert len(Chances(network, batch=2, seed=0).layers) == count
    drop = DropChannels(0.4, 50)
    chances = Chances(nn.Sequential(drop, nn.Linear(1, 1)), batch=40, seed=0)
    x = torch.ones(40, 50, 2, 2)
    with chances.of(chances.at(0, np.arange(40))):
        chances.give(slice(40))
        whole = drop(x)
    with chances.of(chances.at(0, np.array([7, 3]))):
        chances.give(slice(2))
        assert torch.equal(drop(x[:2]), whole[[7, 3]])
    assert ((whole == 0) | torch.isclose(whole, torch.tensor(1 / 0.6))).all()  # whole channels, or kept and scaled
    assert torch.equal(whole, whole[:, :, :1, :1].expand_as(whole))
    assert abs((whole == 0).float().mean().item() - 0.4) < 0.04
    assert torch.equal(drop.eval()(x), x)


def test_micro_batches_change_nothing_of_mixing_erasing_and_drop_path(tmp_path):
    data = write_colours(tmp_path / "colours")
    same = ["--augment.mixup", 0.8, "--augment.erasing", 0.5, "--model.drop_path", 0.5, "--optim.name", "sgd"]
    for micro in (0, 1, 4):
        trained(data, tmp_path / str(micro), *same, "--micro-batch", micro)
    whole = [row["loss"] for row in rows(tmp_path / "0")]
    for micro in ("1", "4"):
        assert [row["loss"] for row in rows(tmp_path / micro)] == pytest.approx(whole, rel=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: processes are forked")
def test_two_and_three_processes_and_killed_ones_take_the_steps_of_one(loaded):
    """The short form of `benchmarks/elastic.py`: the same images slot by slot, and in float64 the same losses."""
    asked = ("--only", "worlds", "kills", "--dtype", "float64", "--worlds", 3, "--kills", 2, "--steps", 6)
    worlds, killed = loaded.rows(SCRIPT, *asked)
    assert worlds["largest_relative_difference"]["3"] < 1e-9 and not worlds["failures"]
    assert killed["sizes"] == [4, 2] and killed["largest_relative_difference"] < 1e-9 and not killed["failures"]


@pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: /proc tells which processes run")
def test_torchrun_goes_on_from_the_last_checkpoint_where_a_process_is_killed(tmp_path):
    data, told = write_colours(tmp_path / "colours"), ""
    for epochs in (10, 100, 1000):  # a longer run where one was over before its process could be killed
        out = tmp_path / f"{epochs}"
        words = tiny(data, out, "--epochs", epochs, "--checkpoint-steps", 1)
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--max-restarts", "1"]
        command += ["-m", "convnext", *map(str, words)]
        log = out / "metrics.jsonl"
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
        ) as run:
            assert awaited(lambda: run.poll() is not None or (log.exists() and bool(log.stat().st_size)), 300)  # noqa: B023
            with contextlib.suppress(IndexError, ProcessLookupError):
                os.kill(children_of(run.pid)[1], signal.SIGKILL)
            told = run.communicate()[1]
        assert run.returncode == 0, told
        if "Going on with" in told:
            break
    assert told.count("Going on with") == 1
    assert [row["step"] for row in rows(out)] == [*range(1, 6 * epochs + 1)]


@pytest.fixture
def store(monkeypatch) -> dist.TCPStore:
    """As torchrun's: it outlives those who met there."""
    monkeypatch.setattr(launcher, "_ASK_S", 0.01)
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def met(store: dist.TCPStore, ranks: list[int], size: int, *, after_s: float = 0.0) -> dict[int, tuple[str, list[int]]]:
    """What each of `ranks` finds at a meeting of `size`; the first process comes `after_s` later than the others."""
    found, watches = {}, [[] for _ in ranks]

    def come(rank: int, watch: list) -> None:
        if rank == 0:
            time.sleep(after_s)
        own = dist.TCPStore("127.0.0.1", store.port, is_master=False)
        found[rank] = (launcher._come if rank else launcher._welcome)(own, rank, size, "127.0.0.1", watch)

    threads = [threading.Thread(target=come, args=pair) for pair in zip(ranks, watches, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for own in watches:
        for watch in filter(None, own):
            watch.close("done")
    return found


def test_processes_meet_again_in_other_numbers_whatever_the_store_holds_of_meetings_before(store):
    """Agents of torchrun count their restarts each for itself, and one that comes later has had none."""
    for number, (size, after_s) in enumerate([(4, 0), (2, 0.3), (1, 0), (3, 0.3), (3, 0)], 1):
        found = met(store, [*range(size)], size, after_s=after_s)
        assert found == dict.fromkeys(range(size), (f"convnext/meeting/{number}", []))


def test_a_process_of_an_earlier_meeting_is_not_taken_for_one_of_this(store, monkeypatch):
    met(store, [0, 1], 2)
    monkeypatch.setattr(launcher, "MEET_S", 0.5)
    assert met(store, [1], 2)[1][1] == [0]  # what it finds there is over
    assert met(store, [0], 2) == {0: ("convnext/meeting/2", [1])}
    monkeypatch.setattr(launcher, "MEET_S", 2)  # within which both of two threads begin
    assert met(store, [0, 2], 3)[2][1] == [1]


def test_processes_that_see_different_checkpoints_are_refused(tmp_path):
    class Two(World):
        def gather(self, value):
            return [value, 6]

    run = Run(tmp_path, None, {}, None, None, None, None)
    with pytest.raises(
        CheckpointError, match=r"holds step 0 for the first process and step 6 for process 1: .* share."
    ):
        run.resume(Two())
