"""What a visit to a card runs, as far as it can be known without one: that nothing is listed which could not begin, that
each row has its fields, and that the time which a card is lent for is kept."""

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: benchmarks/gpu.py is NOT tried")
TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS.parent / "benchmarks"))
visit = pytest.importorskip("gpu", reason="the benchmarks do not come with the package")
runs, timing = pytest.importorskip("gpu_runs"), pytest.importorskip("gpu_timing")
networks = pytest.importorskip("gpu_networks")
WAYS = ("plain", "folded", "folded+graph")
HOW = ("graph", "compile", "compile+graph")
ROWS = {
    *(f"step {task} bf16" for task in ("classification", "segmentation", "detection")),
    *(f"predict classification {way} at {size}" for way in WAYS for size in (1, 8, 32, 256)),
    *(f"predict {task} {way} at {size}" for task in ("segmentation", "detection") for way in WAYS[::2] for size in (1, 8)),
    "feed classification shards", "feed classification folders",
    "step classification fp32", "step classification fp16", "step classification bf16+shard-weights",
    *(f"step {task} bf16+{how}" for task in ("classification", "segmentation") for how in HOW),
}  # fmt: skip
LIGHT = {
    "predict classification folded+graph at 1", "predict detection plain at 1", "predict segmentation folded+graph at 1",
    "feed classification shards",
}  # fmt: skip


def fits(call: partial[Any]) -> None:
    inspect.signature(call.func).bind(*call.args, **call.keywords)


def asked(**changes: Any) -> argparse.Namespace:
    given = {"parts": visit.PARTS, "models": ("tiny", "base"), "minutes": 9, "jobs": 2, "dry_run": False}
    return argparse.Namespace(**{**given, "rounds": 1, "without": (), **changes})


def test_every_row_of_users_runs_is_listed_and_what_makes_it_can_be_called(tmp_path):
    listed = dict(runs.cases("tiny", tmp_path))
    assert set(listed) == ROWS and next(iter(listed)) == "step classification bf16"
    for each in listed.values():
        fits(each)


def test_a_row_of_users_runs_has_every_field(monkeypatch):
    for module in (runs, timing):
        monkeypatch.setattr(module, "DRY", True)
        monkeypatch.setattr(module, "DEVICE", "cpu")
    found = list(runs.runs("tiny", asked(without=ROWS - LIGHT)))
    assert {f"{row['kind']} {row['what']}" for row in found} == LIGHT, found
    for row in found:
        assert set(row) == {"kind", "what", "model", "batch", "ms", "peak_mb", "images_per_s"}
        assert row["images_per_s"] > 0 and len(row["ms"]) == 1 and row["model"] == "tiny"


def test_every_step_has_what_makes_its_rows():
    args = asked()
    made = visit.steps()
    planned = visit.plan(args)
    assert planned[:3] == ["runs tiny", "compile inference tiny", "networks inference tiny"] and len(planned) == 19
    for name in planned:
        for each in visit.compilations(name) if name.startswith("compile ") else [name]:
            kind, *words = each.split()
            fits(partial(made[kind], *words, args))


def test_a_step_has_half_of_the_time_that_is_left_and_what_is_not_reached_is_said(monkeypatch):
    spent: list[tuple[str, float]] = []
    now = [100.0]

    def run(name: str, args: argparse.Namespace, minutes: float) -> Iterator[dict[str, str]]:
        spent.append((name, minutes))
        now[0] += 60 * minutes  # all that it may take
        yield {"kind": "row", "what": name}

    monkeypatch.setattr(visit, "run", run)
    found = list(visit.visit(asked(parts=("runs", "kernels", "checks"), minutes=4), lambda: now[0]))
    assert [minutes for _, minutes in spent] == [2, 1, 0.5, 0.25, 0.125]
    assert [row["kind"] for row in found] == ["row"] * 5 + ["skipped"] * 5
    assert [row["what"] for row in found] == visit.plan(asked(parts=("runs", "kernels", "checks")))
    assert now[0] - 100 <= 4 * 60


def test_what_the_paper_compares_is_timed_as_a_pair_in_tf32(monkeypatch):
    for module in (networks, timing):
        monkeypatch.setattr(module, "DRY", True)
        monkeypatch.setattr(module, "DEVICE", "cpu")
    monkeypatch.setattr(networks, "logits_error", lambda model: iter(()))
    others = set(networks.CONTESTANTS["inference"]) - set(networks.PAIR)
    found = list(networks.networks("inference", "tiny", asked(without=others, autotune=False)))
    assert [row["what"] for row in found if row["kind"] == "inference"] == list(networks.PAIR)
    (pair,) = [row for row in found if row["kind"] == "ratio"]
    assert pair["what"] == "inference tiny: plain+tf32 to swin+tf32"
    assert pair["least"] <= pair["ratio"] <= pair["most"]
    assert {networks.dtype_of(name, training=False) for name in networks.PAIR} == {torch.float32}


def test_the_tests_of_a_gpu_are_collected_without_one(loaded):
    files = [file for file in TESTS.glob("test_*.py") if "pytest.mark." + "gpu" in file.read_text("utf-8")]
    assert {"test_gpu.py", "test_gpu_runs.py"} <= {file.name for file in files}
    code = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    how = ("--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--assert=plain")
    with loaded.forked(code, *how, *files) as process:
        out, err = process.communicate()
    assert process.returncode == 0 and "error" not in out, out + err
    counted = {name: int(count) for name, count in re.findall(r"(\w+)\.py: (\d+)", out)}
    assert counted["test_gpu"] > 20 and counted["test_gpu_runs"] > 5, out


def test_make_test_gpu_names_every_file_with_a_test_for_a_gpu_and_no_other():
    makefile = (TESTS.parent / "Makefile").read_text("utf-8")
    (named,) = re.findall(r"^GPU_TESTS := (.*)$", makefile, re.MULTILINE)
    marked = re.compile(r"^(pytestmark = |@)pytest\.mark\.(gpu|whole_gpu)\b", re.MULTILINE)
    assert set(named.split()) == {
        f"tests/{file.name}" for file in TESTS.glob("test_*.py") if marked.search(file.read_text("utf-8"))
    }
