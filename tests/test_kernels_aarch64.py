"""The CPU kernels on another architecture: compiled for aarch64 and run in an emulator, beside answers in float64."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from children import environment
from convnext.kernels.compiler import SOURCES

TESTS = Path(__file__).parent
NATIVE = platform.machine() in ("aarch64", "arm64")
COMPILER = "g++" if NATIVE else "aarch64-linux-gnu-g++"
EMULATOR = [] if NATIVE else ["qemu-aarch64-static"]
missing = [name for name in (COMPILER, *EMULATOR) if not shutil.which(name)]


@pytest.mark.skipif(
    bool(missing),
    reason=f"NOT tested here: no {' and no '.join(missing)} (Debian: apt install g++-aarch64-linux-gnu qemu-user-static)",
)
def test_blocks_gradients_gelu_and_bytes_are_those_of_float64_on_aarch64(tmp_path):
    """kernel_vectors.cpp lists each error and what is allowed: the limits of test_kernels_cpu.py, integers to the bit."""
    vectors, driver = tmp_path / "vectors.bin", tmp_path / "driver"
    subprocess.run([sys.executable, str(TESTS / "kernel_vectors.py"), str(vectors)], env=environment(), check=True)
    flags = ["-O1", "-std=c++17", "-ffp-contract=fast", "-static", "-w", "-I", str(SOURCES)]  # -O1: a third of the time
    subprocess.run([COMPILER, *flags, str(TESTS / "kernel_vectors.cpp"), "-o", str(driver)], check=True)
    done = subprocess.run([*EMULATOR, str(driver), str(vectors)], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "4 floats in a vector" and len(lines) == 1 + 7 * 4 + 2 + 3
