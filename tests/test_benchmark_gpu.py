"""What a visit to a card would run, tried without one: every row of users' runs, tiny, on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from children import environment

pytest.importorskip("triton", reason="Triton is not installed: benchmarks/gpu.py is NOT tried")
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
ROWS = {
    "predict": {f"{way} at {size}" for way in ("plain", "folded", "folded+graph") for size in (1, 2)},
    "feed": {"classification shards", "classification folders"},
    "step": {
        "classification bf16", "classification fp32", "classification fp16", "segmentation bf16", "detection bf16",
        "classification bf16+compile", "segmentation bf16+compile", "classification bf16+shard-weights",
    },
}  # fmt: skip


def test_every_row_of_users_runs_is_there_and_none_fails():
    step = [sys.executable, "-W", "ignore", str(SCRIPT), "--step", "runs tiny", "--rounds", "1", "--dry-run"]
    done = subprocess.run(step, capture_output=True, text=True, env=environment(TRITON_INTERPRET="1"), check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0 and [row for row in rows if row["kind"] == "failure"] == [], done.stderr[-2000:]
    assert {kind: {row["what"] for row in rows if row["kind"] == kind} for kind in ROWS} == ROWS
    assert all(row["images_per_s"] > 0 and row["batch"] > 0 for row in rows)
