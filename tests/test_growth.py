"""The drawing of how throughput grows: which rows stand in which panel, and where."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from convnext.studies.benchmark.growth import Panel, chart, panels

NAMES = {"optimized": "ours", "eager": "plain", "timm:channels_last": "timm <b>"}
KEPT = {"batch": 4, "size_px": 224, "threads": 2}


def row(name: str, rate: float, share: float | None = 0.5, **changed: int) -> dict[str, Any]:
    """One contender at one point."""
    values = {"kind": "contender", "name": name, **KEPT, **changed}
    return {**values, "images_per_s": rate, "rates": [0.9 * rate, rate, 1.1 * rate], "gemm_share": share}


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"kind": "machine"}]
    for name, speed in zip(NAMES, (40.0, 15.0, 12.0), strict=True):
        found += [row(name, speed * n / (n + 1), batch=n) for n in (16, 1, 4)]
        found += [row(name, speed * (224 / side) ** 2, size_px=side) for side in (96, 384)]
        found.append(row(name, speed / 2, threads=1))
    return found


def test_each_panel_varies_one_thing_and_they_share_the_point_that_was_measured_once(rows):
    batch, side, cores = panels(rows, **KEPT)
    assert [sorted({r["batch"] for r in batch.rows}), len(batch.rows)] == [[1, 4, 16], 9]
    assert [sorted({r["size_px"] for r in side.rows}), len(side.rows)] == [[96, 224, 384], 9]
    assert [sorted({r["threads"] for r in cores.rows}), len(cores.rows)] == [[1, 2], 6]
    assert all(each in cores.rows for each in rows[1:] if all(each[key] == value for key, value in KEPT.items()))


def test_the_drawing_is_one_svg_whose_points_lie_inside_and_whose_names_are_escaped(rows):
    drawn = ElementTree.fromstring(chart(panels(rows, **KEPT), NAMES, "tiny & more"))
    left, top, width, height = map(float, drawn.get("viewBox").split())
    circles = [each for each in drawn.iter() if each.tag.endswith("circle")]
    assert len(circles) == 24
    for each in circles:
        assert left < float(each.get("cx")) < left + width and top < float(each.get("cy")) < top + height
    said = "".join(drawn.itertext())
    assert "timm <b>" in said and "tiny & more" in said and said.count("50\u202f%") == 8


def test_more_images_a_second_stand_higher_and_equal_shares_stand_on_one_line_with_the_limit(rows):
    (batch, *_) = panels(rows, **KEPT)
    drawn = chart([batch], NAMES, "tiny")
    lines = dict(re.findall(r'<polyline points="([^"]*)" class="([^"]*)"', drawn))
    heights = {look: [float(p.split(",")[1]) for p in points.split()] for points, look in lines.items()}
    assert set(heights) == {"curve blue", "curve faint", "curve grey", "limit"}
    for own, plain, peer in zip(heights["curve blue"], heights["curve faint"], heights["curve grey"], strict=True):
        assert own < plain < peer  # y grows downwards
    assert heights["curve blue"] == sorted(heights["curve blue"], reverse=True)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("rates", [[0.004, 0.03], [3.0, 900.0], [5.0, 5.0], [99.0, 100.0]])
def test_the_axis_holds_every_rate(log, rates):
    found = tuple(row("optimized", rate, None, batch=2**i) for i, rate in enumerate(rates))
    drawn = chart([Panel("batch", "batch", "images", found, True, log)], NAMES, "tiny")
    places = [float(y) for y in re.findall(r'<line [^>]*y[12]="([-\d.]+)"', drawn)]
    assert places and min(places) >= 40 and max(places) <= 324


def test_without_the_machines_rate_nothing_is_said_about_it(rows):
    bare = [each if each["kind"] == "machine" else {**each, "gemm_share": None} for each in rows]
    drawn = chart(panels(bare, **KEPT), NAMES, "tiny")
    assert "\u202f%" not in drawn and 'class="limit"' not in drawn
