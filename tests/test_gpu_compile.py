"""What can be known of the GPU kernels without a GPU: that they compile and fit, and how a search picks their tiles."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: the GPU kernels are NOT compiled")
from convnext.kernels.gpu.checks import Case

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
launches = pytest.importorskip("gpu_launches", reason="the benchmarks do not come with the package").launches
search = pytest.importorskip("gpu_search", reason="the benchmarks do not come with the package")

STACKED = {("residual", 96), ("residual, training", 96)}  # the fastest tile of the search all the same


def test_the_kernels_of_tiny_compile_for_an_h100_fit_and_keep_their_values_in_registers(tmp_path):
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, str(BENCHMARKS / "gpu_compile.py"), "--models", "tiny", "--widths", "96", "384"]
    command += ["--capabilities", "90", "--jobs", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(each) for each in out.read_text().splitlines()]
    assert {row["channels"] for row in rows} == {96, 384} and len(rows) > 24
    for row in rows:
        assert not row["stack"] or (row["what"], row["channels"]) in STACKED, row
        products = row["kernel"] in ("linear_gelu", "linear_residual", "gelu_backward", "mlp", "scaled_product")
        assert row["tensor_cores"] == (("QGMMA" if "float8" in row["what"] else "HGMMA") if products else None), row


def noted(channels: int = 96) -> dict[str, object]:
    return launches(Case(2, channels, 8, 8, dtype=torch.bfloat16, device="meta"))


def test_a_noted_launch_names_its_kernel_and_runs_nothing():
    found = noted()
    assert {each.name for each in found.values()} == {
        "convolve_norm", "convolve_add", "filter_gradient", "norm_backward", "linear_gelu", "linear_residual",
        "gelu_backward", "mlp",
    }  # fmt: skip


@pytest.mark.parametrize("channels", [96, 768])
def test_a_search_begins_with_what_the_launcher_names_and_tries_nothing_twice(channels):
    for launch in noted(channels).values():
        settings = search.candidates(launch, channels, 8)
        assert settings[0] == launch.settings[0] and all(each in settings for each in launch.settings)
        assert len(settings) > len(launch.settings)
        assert len({tuple(sorted(each.items())) for each in settings}) == len(settings)
        assert {frozenset(each) for each in settings} == {frozenset(launch.settings[0])}


def test_a_summary_has_the_fastest_of_each_kernel_and_size_without_what_follows_from_the_tile():
    shape = {"kernel": "convolve_norm", "n": 128, "channels": 96, "side": 56}
    rows = [{**shape, "ms": ms, "setting": {"rows": i, "strips": 3}} for i, ms in enumerate((3.0, 1.0, 2.00004))]
    rows.append({**shape, "channels": 192, "ms": 5.0, "setting": {"rows": 9}})
    found = search.summarise(rows, best=2)
    assert [(row["channels"], row["ms"], row["timed"]) for row in found] == [(96, 1.0, 3), (96, 2.0, 3), (192, 5.0, 1)]
    assert all(not set(row["setting"]) & set(search.DERIVED) for row in found) and search.tile_of(rows[0]) == "rows=0"
