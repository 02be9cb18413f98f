"""The nearest of very many rows: exact where there are few, bounded work where there are many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext.studies.similar.cells import Cells


def rows_of(seed: int, count: int, width: int = 8) -> np.ndarray:
    """(N, C) of length 1, in clumps."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(max(1, count // 9), width))[random.integers(0, max(1, count // 9), count)]
    rows += 0.3 * random.normal(size=rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=40)
@given(st.integers(0, 99), st.integers(1, 60), st.integers(1, 12), st.integers(1, 20), st.booleans())
def test_with_all_cells_the_nearest_are_those_of_the_slow_search(seed, count, most, size, themselves):
    rows, queries = rows_of(seed, count), rows_of(seed + 1, 17)
    queries, own = (rows, np.arange(count)) if themselves else (queries, None)
    products = queries @ rows.T
    if themselves:
        np.fill_diagonal(products, -2)
    wanted = min(most, count - themselves)
    places, values = Cells(rows, size=size).nearest(queries, most, own=own)
    np.testing.assert_allclose(values, -np.sort(-products, axis=1)[:, :wanted], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(products, places, 1), values, atol=1e-6)
    few, above = Cells(rows, size=size).nearest(queries, most, own=own, above=0.5)
    assert ((few >= 0) == (values > 0.5)).all() and (above[few < 0] == 0.5).all()


@pytest.mark.parametrize(
    "rows", [rows_of(0, 3000), np.ones((3000, 4), np.float32), np.eye(3, dtype=np.float32)[np.zeros(3000, int)]]
)
def test_no_cell_is_larger_than_it_may_be_and_the_work_is_bounded_whatever_the_rows_are(rows):
    cells = Cells(rows, size=50, probed=4)
    assert np.diff(cells.starts).max() <= 50 and sorted(cells.held.tolist()) == list(range(3000))
    cells.nearest(rows, 3, own=np.arange(3000))
    assert cells.compared <= 3000 * 4 * 50


def test_a_few_cells_hold_the_near_copies_of_rows():
    rows = rows_of(0, 6000, 32)
    copied = rows[:1500] + 0.03 * np.random.default_rng(1).normal(size=(1500, 32)).astype(np.float32)
    places, _ = Cells(rows, size=64, probed=16).nearest(copied / np.linalg.norm(copied, axis=1, keepdims=True), 3)
    assert np.mean((places == np.arange(1500)[:, None]).any(1)) > 0.98


def test_the_same_rows_are_parted_the_same_way():
    one, other = Cells(rows_of(3, 500), size=20), Cells(rows_of(3, 500), size=20)
    assert one.held.tolist() == other.held.tolist()
