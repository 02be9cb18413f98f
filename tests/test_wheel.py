"""The wheel that `make wheel` made: it is for the systems it says, and runs on its own kernels where no compiler is.

    CONVNEXT_WHEEL=dist/convnext-0.1.0-py3-none-manylinux_2_28_x86_64.whl python -m pytest tests/test_wheel.py

Without CONVNEXT_WHEEL nothing here runs: to compile every instruction set takes minutes.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from commands import tiny
from convnext.kernels import build
from convnext.kernels.compiler import prebuilt_key
from convnext.kernels.instructions import SETS, SWITCH, present
from images import write_colours

WHEEL = Path(os.environ.get("CONVNEXT_WHEEL", "none.whl")).resolve()
pytestmark = pytest.mark.skipif("CONVNEXT_WHEEL" not in os.environ, reason="NOT tested here: `make wheel` does")
STEP = """
import hashlib, torch
from convnext.kernels import cpu
from convnext.models.convnext import ConvNeXt
from convnext.models.fused import fuse
from convnext.config import ConvNeXtConfig
import convnext
torch.set_num_threads(2)
torch.manual_seed(0)
model = ConvNeXt(ConvNeXtConfig(depths=(1, 1, 2, 1), widths=(24, 48, 64, 80), classes=7, layer_scale=1.0))
x = torch.randn(3, 3, 64, 48)
assert fuse(model) == 5
model(x).square().sum().backward()
values = [p.grad for p in model.parameters()]
with torch.no_grad():
    values.append(convnext.optimize(model.eval())(x))
assert all(value.isfinite().all() for value in values)
print(hashlib.sha256(b"".join(value.numpy().tobytes() for value in values)).hexdigest(), "/", cpu.origin())
"""
MAPS = """
maps = [line.split()[-1] for line in open('/proc/self/maps')]
print(*{path for path in maps if any(name in path for name in ('libgomp', 'libomp', 'libiomp'))}, sep='\\n')
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment that has the wheel, the packages of this one and no compiler; "python" is its interpreter."""
    place = tmp_path_factory.mktemp("bare")
    venv.create(place / "venv", with_pip=False)
    python, nothing = place / "venv" / "bin" / "python", place / "nothing"
    nothing.mkdir()
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "-q",
        str(WHEEL),
    ]
    subprocess.run(install, check=True)
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(
        sysconfig.get_path("purelib")
    )  # a .pth of an editable installation is not read
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
    return {**kept, "PATH": str(nothing), "XDG_CACHE_HOME": str(place / "cache"), "python": str(python)}


def run(bare: dict[str, str], *words: str, **more: str) -> str:
    """What python prints there."""
    values = {name: value for name, value in bare.items() if name != "python"} | more
    done = subprocess.run([bare["python"], *words], env=values, capture_output=True, text=True, cwd=bare["PATH"])
    assert not done.returncode, done.stderr
    return done.stdout


def test_it_is_for_linux_on_x86_64_and_has_a_library_for_every_instruction_set():
    assert WHEEL.name.endswith("-py3-none-manylinux_2_28_x86_64.whl")
    with zipfile.ZipFile(WHEEL) as file:
        assert file.testzip() is None
        libraries = [name for name in file.namelist() if name.endswith(".so")]
        (facts,) = (file.read(name).decode() for name in file.namelist() if name.endswith(".dist-info/WHEEL"))
    assert "Root-Is-Purelib: false" in facts and "Tag: py3-none-manylinux_2_28_x86_64" in facts
    here = f"convnext/{build.PREBUILT.relative_to(Path(build.__file__).parents[1]).as_posix()}"
    assert [name.rpartition("-")[0] for name in sorted(libraries)] == sorted(
        f"{here}/kernels-{prebuilt_key(each)}" for each in SETS
    )


def test_no_library_asks_for_more_than_the_tag_promises():
    """Versions of glibc's and the C++ library's symbols and the libraries that are needed: auditwheel knows the policy."""
    done = subprocess.run([sys.executable, "-m", "auditwheel", "show", str(WHEEL)], capture_output=True, text=True)
    found = re.search(r'platform tag:\s+"manylinux_2_(\d+)_x86_64"', done.stdout)
    assert found and int(found[1]) <= 28, done.stdout + done.stderr


def test_without_a_compiler_it_gives_the_bits_that_a_compiler_gives_for_the_same_instructions(bare):
    for more in ({}, {SWITCH: "avx2"}):
        answer, origin = run(bare, "-c", STEP, **more).strip().split(" / ")
        assert origin == f"prebuilt for {more.get(SWITCH, present()[0].name)}"
        compiled = subprocess.run(
            [sys.executable, "-c", STEP], env={**os.environ, **more}, capture_output=True, text=True, check=True
        )
        assert answer == compiled.stdout.split(" / ")[0] and "compiled here" in compiled.stdout


def test_torchs_openmp_is_the_only_one_in_the_process(bare):
    paths = run(bare, "-c", STEP + MAPS).splitlines()[1:]
    assert len(paths) == 1 and "torch" in paths[0] and "libgomp" in paths[0]


@pytest.mark.parametrize("name", [each.name for each in present()])
def test_every_set_of_this_processor_runs_and_doctor_says_which(bare, name):
    found = json.loads(run(bare, "-m", "convnext", "doctor", "--json", "--device", "cpu", **{SWITCH: name}))
    assert found["cpu_kernels"].startswith(f"prebuilt for {name}; fp32") and found["compiler"] == ""


def test_it_trains_and_predicts_on_its_kernels(bare, tmp_path):
    write_colours(tmp_path / "data")
    cli = ("-m", "convnext")
    run(bare, *cli, *map(str, tiny(tmp_path / "data", tmp_path / "run", "--device", "cpu")))
    told = json.loads((tmp_path / "run" / "environment.json").read_text("utf-8"))
    assert told["cpu_kernels"].startswith("prebuilt for ")
    answers = run(bare, *cli, "predict", f"{tmp_path}/run", f"{tmp_path}/data", "--json", "--device", "cpu")
    assert len(answers.splitlines()) > 1
    assert not list(Path(bare["XDG_CACHE_HOME"]).rglob("*.so"))
