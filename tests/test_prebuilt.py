"""Kernels that come with the package: which library is taken for which processor, and what happens where none fits."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from children import environment
from convnext.errors import ConvNeXtError
from convnext.kernels import build, compiler, instructions
from convnext.kernels.cpu.int8 import FORMS
from convnext.kernels.instructions import SETS, SWITCH

TESTS = Path(__file__).parent
BY_NAME = {each.name: each for each in SETS}
AVX2 = "fpu sse sse2 ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt avx f16c rdrand lahf_lm abm bmi1 avx2 bmi2 erms"
AVX512 = f"{AVX2} avx512f avx512dq avx512cd avx512bw avx512vl"
PROCESSORS = {  # as GCC calls it: (some of its flags in /proc/cpuinfo, the best set for it)
    "ivybridge": ("fpu sse sse2 ssse3 cx16 sse4_1 sse4_2 popcnt avx f16c rdrand lahf_lm erms", None),
    "haswell": (AVX2, "avx2"),
    "alderlake": (f"{AVX2} avx_vnni gfni vaes", "avx_vnni"),
    "skylake-avx512": (AVX512, "avx512"),
    "cascadelake": (f"{AVX512} avx512_vnni", "avx512_vnni"),
    "icelake-client": (f"{AVX512} avx512_vnni avx512vbmi avx512_vbmi2 gfni", "avx512_vbmi"),
    "cooperlake": (f"{AVX512} avx512_vnni avx512_bf16", "avx512_vnni"),
    "znver4": (f"{AVX512} avx512_vnni avx512vbmi avx512_bf16", "avx512_bf16"),
    "sapphirerapids": (f"{AVX512} avx512_vnni avx512vbmi avx512_bf16 avx_vnni amx_bf16 amx_tile amx_int8", "amx"),
}
SOURCE = 'extern "C" __attribute__((visibility("default"))) long cn_answer() {{ return {}; }}\n'
needs_compiler = pytest.mark.skipif(compiler.find_compiler() is None, reason="no C++ compiler is installed")
x86 = pytest.mark.skipif("avx2" not in {each.name for each in instructions.present()}, reason="no x86-64 with AVX2")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)


def here(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    """A processor of those flags."""
    monkeypatch.setattr(instructions, "abilities", lambda: frozenset(flags.split()))


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that brings a library for each of two sets, no cache, no compiler; and OpenMP in this process."""
    source, folder = tmp_path / "source", tmp_path / "prebuilt"
    source.mkdir()
    monkeypatch.setattr(compiler, "SOURCES", source)
    monkeypatch.setattr(build, "PREBUILT", folder)
    command = compiler.find_compiler()
    if command is None:
        pytest.skip("no C++ compiler is installed")
    if not hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        pytest.skip("torch's OpenMP is another here")
    for answer, name in ((512, "avx512_vnni"), (2, "avx2")):
        (source / compiler.UNIT).write_text(SOURCE.format(answer), "utf-8")
        made = compiler.compile_into(folder, "made", [*command, "-fPIC"])
        (source / compiler.UNIT).write_text("// the sources of this package", "utf-8")
        made.rename(folder / made.name.replace("made", compiler.prebuilt_key(BY_NAME[name])))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_best_set_of_a_processor_is_found_by_its_flags(monkeypatch, processor):
    flags, best = PROCESSORS[processor]
    here(monkeypatch, flags)
    assert next((each.name for each in instructions.present()), None) == best


@needs_compiler
@x86
@pytest.mark.parametrize("processor", [name for name, (_, best) in PROCESSORS.items() if best])
def test_a_set_uses_nothing_that_gcc_does_not_know_of_its_processors(processor):
    def macros(*options: str) -> set[str]:
        command = [*compiler.find_compiler(), "-dM", "-E", "-x", "c++", *options, os.devnull]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this compiler does not know {options[0]}")
        return set(re.findall(r"#define (__[A-Z0-9]+__) ", done.stdout))  # of instructions

    chosen = BY_NAME[str(PROCESSORS[processor][1])]
    assert macros(*chosen.options) <= macros(f"-march={processor}") and "__FMA__" in macros(*chosen.options)


def test_the_switch_keeps_the_kernels_to_a_set_and_refuses_what_is_not_here(monkeypatch):
    here(monkeypatch, PROCESSORS["haswell"][0])
    for value, name in (("avx2", "avx2"), ("", None), ("plain", None), ("triton", None)):
        monkeypatch.setenv(SWITCH, value)
        found = instructions.named()
        assert (found and found.name) == name
    for value, said in (("avx512", "this processor does not have it"), ("avx3", "no such choice")):
        monkeypatch.setenv(SWITCH, value)
        with pytest.raises(ConvNeXtError, match=said) as refused:
            build.built.__wrapped__()
        assert "Did you mean 'avx2'?" in str(refused.value) and "\n" not in str(refused.value)


def test_the_library_of_the_best_set_is_loaded_and_no_compiler_is_asked(brought, monkeypatch):
    for flags, answer in ((AVX2, 2), (PROCESSORS["icelake-client"][0], 512)):
        here(monkeypatch, flags)
        found = build.built.__wrapped__()
        assert found.library.cn_answer() == answer and found.parallel and found.origin.startswith("prebuilt for avx")
    monkeypatch.setenv(SWITCH, "avx2")
    assert build.built.__wrapped__().library.cn_answer() == 2
    assert not build.cache_folder().exists()


def test_a_library_that_is_damaged_or_of_other_sources_is_passed_over(brought, monkeypatch):
    here(monkeypatch, PROCESSORS["cascadelake"][0])
    (best,) = brought.glob("*avx512_vnni*")
    best.write_bytes(best.read_bytes()[:-1])
    assert build.built.__wrapped__().library.cn_answer() == 2 and best.exists()  # it belongs to an installation
    (compiler.SOURCES / compiler.UNIT).write_text("// changed by hand", "utf-8")
    assert "no C++ compiler is installed" in build.built.__wrapped__().reason


def test_a_processor_without_a_set_compiles_for_itself_and_says_why(brought, monkeypatch):
    here(monkeypatch, PROCESSORS["ivybridge"][0])
    assert "no C++ compiler is installed" in build.built.__wrapped__().reason
    (compiler.SOURCES / compiler.UNIT).write_text(SOURCE.format(1), "utf-8")
    monkeypatch.delenv("CXX")
    found = build.built.__wrapped__()
    assert found.library.cn_answer() == 1
    assert found.origin.startswith("compiled here for this processor, as the package's own do not fit")
    shutil.rmtree(brought)
    assert build.built.__wrapped__().origin.endswith("as the package brings none")


@needs_compiler
@pytest.mark.parametrize(("name", "form", "of"), [("avx_vnni", 1, ["int8"]), ("avx2", 0, ["int8", "cpu", "training"])])
def test_kernels_kept_to_a_set_give_the_plain_blocks_values_and_integers(name, form, of):
    """The tests of this machine's kernels once more, in a process whose kernels use no more than laptops have."""
    if name not in {each.name for each in instructions.present()}:
        pytest.skip(f"this processor has no {name}")
    code = "import sys, pytest; from convnext.kernels import cpu; print(cpu.origin(), '/', cpu.int8_form()); "
    code += "sys.exit(pytest.main(sys.argv[1:]))"
    words = "in_float64 or to_the_bit or on_the_kernels or a_millionth or the_same_bits"
    files = [str(TESTS / f"test_kernels_{each}.py") for each in of]
    command = [sys.executable, "-c", code, "-q", "-x", "-p", "no:cacheprovider", "-k", words, *files]
    done = subprocess.run(command, env=environment(**{SWITCH: name}), capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    first = done.stdout.splitlines()[0]
    assert f" for {name}" in first and first.endswith(f"/ {FORMS[form]}")
