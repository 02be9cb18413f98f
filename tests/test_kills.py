"""The short form of `benchmarks/kills.py`: runs that are killed at random moments end in the same bits and leave nothing."""

import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kills.py"


@pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: /proc tells which processes run")
def test_a_run_of_each_kind_that_is_killed_ends_in_the_same_bits_and_leaves_no_process_and_no_file(loaded):
    rows = loaded.rows(SCRIPT, "--kills", 4, "--seed", 7)
    assert [row["kind"] for row in rows] == ["classification", "detection", "segmentation", "ranks"]
    assert all(row["kills"] == row["finished_in_the_same_bits"] == 1 and not row["failures"] for row in rows)
