"""The CPU kernels are written for two compilers: a Mac's `g++` and `c++` are clang."""

import shutil
import subprocess

import pytest

from convnext.kernels.compiler import SOURCES, UNIT
from convnext.kernels.instructions import SETS

CLANG = shutil.which("clang++")
OPTIONS = [chosen.options for chosen in SETS] + [()]


@pytest.mark.skipif(CLANG is None, reason="clang++ is not installed")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: " ".join(each) or "baseline")
def test_clang_understands_the_kernels(options):
    command = [str(CLANG), "-std=c++17", "-O3", *options, "-fsyntax-only", "-w", SOURCES / UNIT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
