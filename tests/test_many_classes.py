"""The short form of `benchmarks/classes.py`: the memory of a run is measured, of all its processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from children import environment

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "classes.py"


@pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: /proc tells what processes hold")
def test_a_run_is_trained_and_scored_below_its_limit_of_memory():
    command = [sys.executable, str(SCRIPT), "--classes", "30", "--train", "1", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(100 < found[part]["most_mb"] < 4096 for part in ("train", "evaluate"))  # torch alone takes more than 100
    assert all(found["bytes"].values())
