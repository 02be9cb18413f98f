"""The arithmetic of docs/scale.md: formulas against a simulation, counted bytes against a written file, and the page."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from children import environment
from convnext.data.shards.index import MOST

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import scale
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return scale


@pytest.mark.parametrize(("pause", "mean"), [(10.0, 180_000.0), (60.0, 10_000.0), (600.0, 20_000.0)])
def test_dalys_interval_loses_least_by_the_complete_model(scale, pause, mean):
    best = scale.daly_s(pause, mean)
    lost = {factor: scale.lost_share(factor * best, pause, 0.0, 100.0, mean) for factor in (0.9, 1.0, 1.1)}
    assert min(lost, key=lost.get) == 1.0
    assert scale.daly_s(pause, mean) == pytest.approx((2 * pause * mean) ** 0.5, rel=0.2)  # Young's, of first order


@pytest.mark.parametrize("behind", [0.0, 30.0])
@pytest.mark.parametrize("every", [300.0, 1800.0])
def test_the_simulation_finds_what_the_model_says(scale, every, behind):
    asked = (every, 20.0, behind, 120.0, 20_000.0)
    seen, error = scale.simulated(*asked, 50_000, 1)
    assert error < 0.002 and seen == pytest.approx(scale.lost_share(*asked), abs=4 * error)


def test_failures_are_those_of_the_published_run():
    found = asked("--only", "failures", "--failures", 2000)
    hours = {row["gpus"]: row["hours_between_failures"] for row in found if "hours_between_failures" in row}
    assert hours[16_384] == pytest.approx(54 * 24 / 419, abs=0.05)  # arXiv 2407.21783: one in some three hours
    assert hours[1000] == pytest.approx(16.384 * hours[16_384], rel=0.02)
    assert all(row["agrees"] for row in found if "agrees" in row)


def asked(*words: object) -> list[dict[str, object]]:
    command = [sys.executable, str(ROOT / "benchmarks" / "scale.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_figures_of_the_page_are_those_of_its_rows():
    rows = [json.loads(line) for line in (ROOT / "benchmarks/results/scale.jsonl").read_text().splitlines()]
    page = (ROOT / "docs/scale.md").read_text("utf-8")
    table = {row["network"]: row for row in rows if row["table"] == "checkpoint" and row["optimizer"] == "adamw"}
    for network, name in {"tiny": "T", "base": "B", "large": "L", "xlarge": "XL", "v2_huge": "V2 huge"}.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {name} |") and " MB |" in line)
        row = table[network]
        assert f"{row['weights_gb']:.2f}" in line and f"{row['all_gb']:.2f}" in line
        exchange = [
            f"{row['exchange_ms']:.0f} ms" for row in rows if row.get("network") == network and "parallel" in row
        ]
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {name} |") and " % |" in line)
        assert all(each in line for each in exchange)
    lost = [row for row in rows if "lost_share_by_formula" in row]
    assert len(lost) == 6 and all(row["agrees"] for row in lost)
    for row in lost:
        assert f"| {row['lost_share_by_formula']:.2%} | {row['lost_share_simulated']:.2%} |".replace("%", " %") in page
    (index,) = (row for row in rows if "index_gb" in row)
    assert index["largest_index_of_images"] == MOST and f"{MOST:,}" in page
    for name in (
        "index_memory_bytes_an_image",
        "data_memory_bytes_an_image",
        "data_memory_while_opened_bytes_an_image",
        "writer_memory_bytes_an_image",
    ):
        assert f"{index[name]} bytes an image" in page


def test_a_process_has_no_index_of_its_own():
    (index, *_) = asked("--only", "data")
    assert index["index_memory_bytes_an_image"] < 4  # folders, and what is looked at for a moment
    assert index["data_memory_bytes_an_image"] < 50 and index["data_memory_while_opened_bytes_an_image"] < 90
    assert index["index_bytes_an_image"] < 75 and index["writer_memory_bytes_an_image"] < 330
