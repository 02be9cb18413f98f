"""How many cores are used: the affinity's, the control group's, and of these the share of one process."""

import os
from pathlib import Path

import pytest
import torch

from convnext import cores as counting
from convnext.data import workers
from convnext.data.workers import choose_workers
from convnext.engine.distributed import choose_device

ONE, TWO = "7:cpu,cpuacct:/pod/box\n3:memory:/pod/box\n", "0::/pod/box\n"  # /proc/self/cgroup


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def found(tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch, *, bound: int = 96) -> int:
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(counting, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(counting, "_OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(bound)), raising=False)
    return counting.cores()


def test_without_a_limit_the_affinity_counts(tmp_path, monkeypatch):
    group(tmp_path / "groups" / "pod" / "box", cpu__max="max 100000")
    assert found(tmp_path, TWO, monkeypatch) == 96
    assert found(tmp_path / "groups", "0::/nowhere\n", monkeypatch) == 96


@pytest.mark.parametrize(
    ("pod", "box", "wanted"), [("max 100000", "400000 100000", 4), ("250000 100000", "max 100000", 3)]
)
def test_a_quota_of_the_group_or_of_one_around_it_is_the_limit(tmp_path, monkeypatch, pod, box, wanted):
    group(tmp_path / "groups" / "pod", cpu__max=pod)
    group(tmp_path / "groups" / "pod" / "box", cpu__max=box)
    assert found(tmp_path, TWO, monkeypatch) == wanted
    assert found(tmp_path, TWO, monkeypatch, bound=2) == 2


def test_groups_of_version_1_say_it_in_two_files(tmp_path, monkeypatch):
    folder = tmp_path / "groups" / "cpu,cpuacct"
    group(folder, cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    group(folder / "pod" / "box", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    assert found(tmp_path, ONE, monkeypatch) == 1


def test_a_damaged_limit_is_none(tmp_path, monkeypatch):
    group(tmp_path / "groups" / "pod" / "box", cpu__max="a b c")
    assert found(tmp_path, TWO, monkeypatch) == 96


@pytest.mark.parametrize(
    ("here", "world", "gpu", "wanted"),
    [(1, 1, False, 1), (2, 1, True, 1), (16, 1, False, 8), (16, 1, True, 15), (96, 8, True, 11), (256, 1, True, 64)],
)
def test_beside_a_gpu_all_cores_of_a_process_read_images_but_one(monkeypatch, here, world, gpu, wanted):
    monkeypatch.setattr(workers, "cores", lambda: here)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: gpu)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(world))
    assert choose_workers(-1, 10_000, world) == wanted
    assert choose_workers(-1, 100, world) == 0 and choose_workers(3, 100, world) == 3


@pytest.mark.parametrize("local", ["0", "3"])
def test_the_gpu_of_a_process_becomes_the_current_one_and_a_cpu_changes_nothing(monkeypatch, local):
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", local)
    assert choose_device("cpu") == torch.device("cpu") and not chosen
    assert choose_device("auto") == torch.device("cuda", int(local))
    assert chosen == [torch.device("cuda", int(local))]
