"""Hostile requests by a seed: a short form of benchmarks/serve_attack.py."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
attack = pytest.importorskip("serve_attack", reason="the benchmarks do not come with the package")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_hostile_requests_are_refused_and_the_server_goes_on(tmp_path):
    counts, failures, memory_mb = attack.attack(tmp_path, n=120, seed=1)
    assert not failures, failures
    assert sum(sum(found.values()) for found in counts.values()) == 120
    assert memory_mb["most"] < attack.MOST_MB
