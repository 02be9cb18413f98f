"""How threads wait: set by the commands before torch is loaded, never over what a person chose."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
from convnext.cli import main
before = "torch" in sys.modules
main(["--version"])
print(before, os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, "100000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")],
)
def test_a_command_lets_its_threads_sleep_unless_a_person_chose_how_they_wait(chosen, expected):
    left = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", CODE], env=left | chosen, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"False {expected}"


def test_importing_the_package_changes_nothing():
    code = "import os; before = dict(os.environ); import convnext, convnext.cores; print(before == dict(os.environ))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
