"""Masks as polygons, runs and pixels: equal to what COCO's own tools make of them, to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as theirs

from convnext.data.masks import (
    Rle,
    area,
    box,
    boxes_of,
    compress,
    decode_mask,
    decompress,
    encode,
    iou,
    mask_of,
    rasterise,
    render,
    runs_of,
    thinned,
)
from convnext.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself

SIDES = st.integers(1, 40)
MASKS = SIDES.flatmap(lambda h: SIDES.flatmap(lambda w: arrays(np.uint8, (h, w), elements=st.integers(0, 1))))
PLACES = st.one_of(st.floats(-20, 60, width=32), st.integers(-20, 60).map(lambda n: n / 2))  # halves are the hard cases
POLYGONS = st.lists(st.tuples(PLACES, PLACES), min_size=3, max_size=12)


def packed(mask: np.ndarray) -> dict:
    return theirs.encode(np.asfortranarray(mask))


@settings(max_examples=200)
@given(POLYGONS, SIDES, SIDES)
def test_a_polygon_covers_the_same_pixels_as_in_pycocotools(points, height, width):
    flat = [float(edge) for point in points for edge in point]
    expected = theirs.decode(theirs.frPyObjects([flat], height, width))[:, :, 0]
    assert np.array_equal(rasterise((np.array(points, np.float64),), height, width), expected)


def test_several_polygons_are_one_mask_their_union():
    parts = [np.array([[1, 1], [1, 5], [5, 5], [5, 1.0]]), np.array([[4, 4], [4, 9], [9, 9], [9, 4.0]])]
    expected = theirs.decode(theirs.merge(theirs.frPyObjects([part.ravel().tolist() for part in parts], 12, 12)))
    assert np.array_equal(rasterise(tuple(parts), 12, 12), expected)
    assert rasterise(tuple(parts), 12, 12).sum() == 16 + 25 - 1


def test_points_that_repeat_do_not_matter():
    points = np.array([[2, 2], [2, 2], [2, 8], [8, 8], [8, 8], [8, 2.0]])
    assert np.array_equal(rasterise((points,), 10, 10), rasterise((points[[0, 2, 3, 5]],), 10, 10))


@given(MASKS)
def test_pixels_survive_the_way_to_runs_and_text_and_back_and_the_text_is_that_of_pycocotools(mask):
    rle = encode(mask)
    assert rle.counts == packed(mask)["counts"]
    assert np.array_equal(decode_mask(rle), mask)
    assert np.array_equal(mask_of(runs_of(mask), *mask.shape), mask)


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=30))
def test_text_holds_any_run_lengths(runs):
    assert decompress(compress(np.array(runs))).tolist() == runs
    height = sum(runs)
    if height:
        expected = theirs.frPyObjects({"size": [height, 1], "counts": runs}, height, 1)
        assert compress(np.array(runs)) == expected["counts"]


@given(MASKS)
def test_area_and_box_are_those_of_pycocotools_and_of_the_pixels(mask):
    rle = encode(mask)
    x0, y0, x1, y1 = box(rle)
    assert [x0, y0, x1 - x0, y1 - y0] == theirs.toBbox(packed(mask)).tolist()
    assert area(rle) == theirs.area(packed(mask)) == mask.sum()
    assert boxes_of(mask[None])[0].tolist() == [x0, y0, x1, y1]


@given(arrays(np.uint8, (5, 9, 7), elements=st.integers(0, 1)), st.lists(st.booleans(), min_size=3, max_size=3))
def test_overlap_is_that_of_pycocotools_for_objects_and_crowds(masks, crowd):
    found, ground_truth = masks[:2], masks[2:]
    expected = theirs.iou([packed(one) for one in found], [packed(one) for one in ground_truth], crowd)
    assert np.array_equal(iou([encode(one) for one in found], [encode(one) for one in ground_truth], crowd), expected)


def test_the_overlap_of_nothing_is_an_empty_table():
    assert iou([], [encode(np.ones((2, 2)))]).shape == (0, 1)
    with pytest.raises(DataError, match="different sizes"):
        iou([encode(np.ones((2, 2)))], [encode(np.ones((2, 3)))])


@pytest.mark.parametrize("text", [b"", b"!!", b"p" * 20, "é".encode(), b"P"])
def test_text_that_holds_no_runs_is_refused(text):
    with pytest.raises(DataError):
        decode_mask(Rle(4, 4, text))


def test_runs_that_do_not_fill_the_image_are_refused():
    with pytest.raises(DataError, match="15 pixels, and 4 x 4 are 16"):
        mask_of(np.array([5, 10]), 4, 4)
    with pytest.raises(DataError, match="negative"):
        mask_of(np.array([20, -4]), 4, 4)
    with pytest.raises(DataError, match="its mask has 3 x 2 pixels and the image 4 x 4"):
        render(encode(np.ones((2, 3))), 4, 4)


@given(MASKS, st.data())
def test_a_mask_at_some_rows_and_columns_is_that_of_its_pixels_there(mask, data):
    rows, columns = (np.array(sorted(data.draw(st.sets(st.integers(0, side - 1), min_size=1)))) for side in mask.shape)
    found = thinned(encode(mask), rows, columns)
    assert found == encode(mask[np.ix_(rows, columns)])
    assert np.array_equal(decode_mask(found), mask[np.ix_(rows, columns)])


def test_a_mask_whose_runs_do_not_fill_it_is_not_thinned():
    with pytest.raises(DataError, match="its run lengths make 7 pixels, and 4 x 4 are 16"):
        thinned(Rle(4, 4, compress(np.array([3, 4]))), np.arange(2), np.arange(2))
