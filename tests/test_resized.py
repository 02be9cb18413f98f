"""What evaluation keeps of a resized image: the compiled kernel has the bits of Pillow, in the order of its passes."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convnext.config import InputConfig
from convnext.data import resized
from convnext.data.evaluation import eval_transform
from convnext.data.resized import resized_part
from convnext.kernels import cpu
from convnext.kernels.dispatch import without_compiled

needs_kernels = pytest.mark.skipif(without_compiled() is not None, reason=f"no kernels: {without_compiled()}")
SIDES = st.integers(1, 90)


def pillows(pixels: np.ndarray, size: tuple[int, int], part: tuple[int, int, int, int]) -> np.ndarray:
    """All of it by Pillow, then the part."""
    shown = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    whole = np.asarray(shown.resize((size[1], size[0]), Image.Resampling.BICUBIC)).reshape(*size, pixels.shape[2])
    top, left, height, width = part
    return whole[top : top + height, left : left + width]


@needs_kernels
@settings(deadline=None, max_examples=200)
@given(st.data(), st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.sampled_from([1, 3]), st.booleans())
def test_every_part_of_every_resize_has_pillows_bits(data, before, after, channels, extreme):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pixels = rng.integers(0, 2 if extreme else 256, (*before, channels)).astype(np.uint8) * (255 if extreme else 1)
    spans = [data.draw(st.integers(1, side)) for side in after]
    place = [data.draw(st.integers(0, side - span)) for side, span in zip(after, spans, strict=True)]
    part = (place[0], place[1], spans[0], spans[1])
    assert resized._checked() is not None, "this Pillow resizes as none that is known"
    assert np.array_equal(resized_part(pixels, after, part), pillows(pixels, after, part))


@needs_kernels
@pytest.mark.parametrize("size", [(1500, 2000), (2000, 700), (300, 2999), (120, 90)])
def test_photos_of_every_shape_are_evaluated_with_pillows_bits(size, monkeypatch):
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    compiled = eval_transform(noise, InputConfig(eval_size_px=224))
    monkeypatch.setattr(resized, "_kernel", lambda: None)
    assert np.array_equal(compiled, eval_transform(noise, InputConfig(eval_size_px=224)))


@needs_kernels
@pytest.mark.parametrize("down_first", [False, True])
def test_the_order_of_the_passes_is_the_one_that_is_asked_for(down_first):
    noise = np.random.default_rng(2).integers(0, 256, (50, 40, 3), np.uint8)
    shown = Image.fromarray(noise)
    once = shown.resize((40, 20) if down_first else (15, 50), Image.Resampling.BICUBIC)
    expected = np.asarray(once.resize((15, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(cpu.resize(noise, (20, 15), (0, 0, 20, 15), down_first=down_first), expected)


@needs_kernels
def test_a_pillow_that_resizes_in_another_way_is_left_to_itself(monkeypatch):
    monkeypatch.setattr(resized, "_by_pillow", lambda pixels, size, part: np.zeros((*part[2:], 3), np.uint8))
    assert resized._checked.__wrapped__() is None


def test_where_torch_is_not_loaded_pillow_resizes_and_nothing_is_loaded_for_it():
    code = (
        "import sys, numpy as np\nfrom convnext.data.resized import resized_part\n"
        "resized_part(np.zeros((9, 9, 3), np.uint8), (4, 4), (0, 0, 4, 4))\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
