"""What pages and charts are drawn with: thumbnails, the palette, the canvas, the scales."""

import io
import re
from base64 import b64decode
from importlib.resources import files as resources
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convnext.data.decode import decode
from convnext.drawing.canvas import bar, canvas, curve, dot, titled, whisker, write
from convnext.drawing.palette import DARK, LIGHT, ON_IMAGES, colour_of, style
from convnext.drawing.scales import nice, powers, scale, steps
from convnext.drawing.thumbnails import SIDE_PX, thumbnail
from convnext.studies.paper.figure import bubble_chart


def saved(pixels: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


RAMP = np.linspace(0, 1, 48 * 40).reshape(48, 40)
WIDE = {
    "16 bit, dark": saved((20_000 + 4_000 * RAMP).astype(np.uint16), "PNG"),
    "16 bit, whole": saved((65_535 * RAMP).astype(np.uint16), "PNG"),
    "32 bit": saved((9_000 + 9_000 * RAMP).astype(np.int32), "TIFF"),
    "floats from 0 to 1": saved((0.25 + 0.25 * RAMP).astype(np.float32), "TIFF"),
    "half transparent": saved(np.dstack([np.full((48, 40, 3), 60), 255 * RAMP]).astype(np.uint8), "PNG"),
    "colour": saved(np.dstack([255 * RAMP, 255 - 255 * RAMP, 128 + 0 * RAMP]).astype(np.uint8), "PNG"),
}


@pytest.mark.parametrize("data", WIDE.values(), ids=WIDE)
def test_a_thumbnail_shows_the_pixels_that_the_network_saw(data):
    uri, side = thumbnail(lambda path: data, "x") or ("", 0)
    with Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))) as image:
        shown = np.asarray(image.convert("RGB"), np.int64)
    seen = decode(data).astype(np.int64)
    assert side == 48 and shown.shape == seen.shape
    assert np.abs(shown - seen).mean() < 3  # what JPEG may change


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"GIF89a"])
def test_what_cannot_be_shown_has_no_thumbnail(data):
    assert thumbnail(lambda path: data, "x") is None
    assert thumbnail(lambda path: {}[path], "x") is None


def test_a_large_image_becomes_a_small_one_of_the_same_shape():
    data = saved(np.zeros((900, 600, 3), np.uint8), "JPEG")
    uri, side = thumbnail(lambda path: data, "x") or ("", 0)
    with Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))) as image:
        assert side == SIDE_PX and image.size == (107, 160)


def test_every_variable_that_a_style_names_has_a_value_in_light_and_in_dark():
    css = style() + resources("convnext.reports").joinpath("report.css").read_text("utf-8")
    own = {"margin", "size", "v"}  # set where a chart is drawn
    named = set(re.findall(r"var\(--([\w-]+)\)", css)) - own
    assert named <= {*LIGHT, *ON_IMAGES, "font"} and set(LIGHT) == set(DARK)


def test_every_look_of_a_drawing_is_in_its_style():
    everything = canvas(
        *(100, 50, "all & <b>", write(0, 0, "<i>", "title"), bar(0, 0, 9, 9, "fill silver"), dot(1, 1, 1, "seed")),
        *(curve([(0, 1), (2, 3)], "curve faint thin"), whisker(1, 2, 3, "halo"), titled("x", whisker(1, 2, 3))),
    )
    for drawing in (everything, bubble_chart()):
        root = ElementTree.fromstring(drawing)
        css = root[0].text or ""
        looks = {look for node in root.iter() for look in node.get("class", "").split()}
        assert looks and all(f".{look}" in css for look in looks)
        assert root.tag.endswith("svg") and "var(--page)" in css


def test_a_page_gives_no_mark_of_a_chart_another_look():
    marks = set(re.findall(r"\.([a-z]+)", resources("convnext.drawing").joinpath("chart.css").read_text("utf-8")))
    layout = resources("convnext.reports").joinpath("report.css").read_text("utf-8")
    alone = set(re.findall(r"^\.([a-z]+) *[{,]", layout, re.M))
    assert {"curve", "fill", "silver"} <= marks and marks.isdisjoint(alone)


def test_neighbouring_colours_of_classes_differ():
    for number in range(255):
        assert max(abs(a - b) for a, b in zip(colour_of(number), colour_of(number + 1), strict=True)) > 40


@given(st.floats(1e-6, 1e9))
def test_a_nice_step_is_one_two_or_five_and_not_much_larger(step):
    found = nice(step)
    assert step * (1 - 1e-6) <= found <= 2.5 * step * (1 + 1e-6)
    assert f"{found:.6e}"[0] in "125"


@given(st.floats(1e-3, 1e6), st.floats(1, 1e4))
def test_powers_hold_both_ends_and_steps_do_not_leave_them(low, times):
    every = powers(low, low * times)
    assert every[0] <= low and every[-1] >= low * times and every == sorted(every)
    step = nice(low * times / 5)
    inside = steps(low, low * times, step)
    assert all(low - 1e-6 * step <= value <= low * times + 1e-6 * step for value in inside)


def test_a_scale_goes_from_end_to_end_and_by_ratios_where_it_is_logarithmic():
    even, log = scale((0, 10), (100, 0)), scale((1, 100), (0, 50), log=True)
    assert (even(0), even(10), even(2.5)) == (100, 0, 75)
    assert (log(1), log(10), log(100)) == (0, 25, 50)
    assert scale((3, 3), (0, 10))(3) == 5
