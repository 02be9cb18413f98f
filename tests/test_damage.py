"""Damaged files of weights, by chance and by a seed: a short form of benchmarks/damage.py."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
damage = pytest.importorskip("damage", reason="the benchmarks do not come with the package")


def test_a_damaged_file_is_refused_in_one_line_or_answers_the_same(tmp_path):
    counts, failures = damage.attack(tmp_path, n=35, seed=1)
    assert not failures
    assert counts["refused"] > 50 and {*counts} <= {"refused", "equal", "other"}
