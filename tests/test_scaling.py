"""The chart of `benchmarks/scaling.py`: what it calls growth, and that nothing measured grows without a reason."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def charts() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("scaling_chart")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def rows(axis: str, step: str, seconds: dict[int, float], task: str = "classification") -> list[dict[str, Any]]:
    kept = {"axis": axis, "step": step, "task": task, "threads": 1, "peak_mb": 1.0}
    return [kept | {"value": value, "cpu_s": cost, "wall_s": 2 * cost} for value, cost in seconds.items()]


def steep(charts, *given: list[dict[str, Any]]) -> dict[str, list[float]]:
    found = charts.series_of([row for part in given for row in part])
    return {each.step: each.steep() for each in found if each.figure == "cpu_s"}


def test_what_costs_more_than_its_input_grew_by_is_steep_and_a_fixed_cost_or_noise_is_not(charts):
    found = steep(
        charts,
        rows("images", "open", {100: 3.0, 1000: 30.0, 10_000: 300.0}),
        rows("images", "evaluate", {100: 1.0, 1000: 100.0, 10_000: 10_000.0}),
        rows("images", "predict", {100: 5.0, 1000: 5.1, 10_000: 40.0}),
        rows("images", "report", {100: 0.001, 1000: 0.5, 10_000: 1.2}),
    )
    assert found == {"open": [], "evaluate": [1000.0, 10_000.0], "predict": [], "report": []}


def test_a_side_counts_as_pixels_and_the_last_row_of_a_point_counts(charts):
    given = rows("pixels", "predict", {1000: 1.0, 2000: 16.0}) + rows("pixels", "predict", {2000: 4.2})
    (series,) = [each for each in charts.series_of(given) if each.figure == "cpu_s"]
    assert series.points == ((1e6, 1.0), (4e6, 4.2)) and series.steep() == []


def test_the_chart_is_one_svg_that_holds_its_points_and_says_what_grows(charts):
    given = rows("images", "open", {100: 1.0, 1000: 100.0}) + rows("threads", "predict", {1: 8.0, 2: 4.0})
    drawn = ElementTree.fromstring(charts.chart(charts.series_of(given), given))
    left, top, width, height = map(float, drawn.get("viewBox").split())
    dots = [each for each in drawn.iter() if each.tag.endswith("circle")]
    assert len(dots) == 8
    for each in dots:
        assert left < float(each.get("cx")) < left + width and top < float(each.get("cy")) < top + height
    said = "".join(drawn.itertext())
    assert "images, open, classification: seconds of the processor: no reason is known" in said
    assert "predict, classification: seconds of the processor: 1: 8, 2: 4" in said


def test_nothing_that_was_measured_grows_faster_than_its_input_without_a_reason(charts):
    lines = (ROOT / "benchmarks" / "results" / "scaling.jsonl").read_text("utf-8").splitlines()
    found = charts.series_of([json.loads(line) for line in lines])
    assert {each.axis for each in found} >= {"images", "classes", "pixels", "objects"}
    assert [each.name for each in found if each.steep() and not each.why] == []
