"""The instruction sets of x86-64 that the CPU kernels are compiled for, which of them this processor has, and the switch.

CONVNEXT_KERNELS: "plain" turns all kernels off, "triton" asks for the Triton block on a GPU, and the name of a set keeps the
CPU's to that set. Without it each machine gets the best that it has.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from convnext.errors import ConvNeXtError, nearest

SWITCH = "CONVNEXT_KERNELS"
PLAIN, TRITON = "plain", "triton"


@dataclass(frozen=True)
class InstructionSet:
    """What a compiler may use."""

    name: str
    needs: frozenset[str]  # of the flags in /proc/cpuinfo
    options: tuple[str, ...]  # of GCC


def _set(name: str, *steps: dict[str, str]) -> InstructionSet:
    """A set of several steps; each names its flags in /proc/cpuinfo, and GCC's options for them."""
    names = {flag: option for step in steps for flag, option in step.items()}
    return InstructionSet(name, frozenset(names), tuple(f"-m{option}" for option in names.values()))


_AVX2 = {"avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c"}
_AVX2 |= {"bmi1": "bmi", "bmi2": "bmi2", "abm": "lzcnt", "movbe": "movbe"}
_AVX512 = {name: name for name in ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")}
_AMX = {"amx_tile": "amx-tile", "amx_bf16": "amx-bf16", "amx_int8": "amx-int8"}
_VNNI, _VBMI, _BF16 = {"avx512_vnni": "avx512vnni"}, {"avx512vbmi": "avx512vbmi"}, {"avx512_bf16": "avx512bf16"}
SETS = (  # the best first; each but AVX-VNNI's holds those behind it
    _set("amx", _AVX2, _AVX512, _VNNI, _VBMI, _BF16, _AMX),  # Sapphire Rapids and later Xeons
    _set("avx512_bf16", _AVX2, _AVX512, _VNNI, _VBMI, _BF16),  # Zen 4 and 5
    _set("avx512_vbmi", _AVX2, _AVX512, _VNNI, _VBMI),  # Ice Lake, Tiger Lake
    _set("avx512_vnni", _AVX2, _AVX512, _VNNI),  # Cascade Lake
    _set("avx512", _AVX2, _AVX512),  # Skylake-X
    _set("avx_vnni", _AVX2, {"avx_vnni": "avxvnni"}),  # laptops since Alder Lake
    _set("avx2", _AVX2),  # Haswell and later, Zen 1 to 3
)


def switch() -> str:
    """The value of the switch, "" where it is not set; raises ConvNeXtError for a set that is not here and other words."""
    value = os.environ.get(SWITCH, "")
    if value in ("", PLAIN, TRITON):
        return value
    here = [each.name for each in present()]
    if value not in here:
        why = "this processor does not have it" if value in {each.name for each in SETS} else "there is no such choice"
        known = (PLAIN, TRITON, *here)
        raise ConvNeXtError(f"{SWITCH}={value}: {why}. Give one of {', '.join(known)}, or none.{nearest(value, known)}")
    return value


def named() -> InstructionSet | None:
    """The set that the switch keeps the CPU's kernels to; None where it names none."""
    value = switch()
    return next((each for each in SETS if each.name == value), None)


def present() -> tuple[InstructionSet, ...]:
    """The sets of this processor, the best first; none where the system does not tell, or where it is no x86-64."""
    flags = abilities()
    return tuple(each for each in SETS if each.needs <= flags)


def multiplies_tiles() -> bool:
    """Whether this processor has AMX, and the switch does not keep us from it."""
    best = named() or next(iter(present()), None)
    return best is not None and best.name == "amx"


def abilities() -> frozenset[str]:
    """The flags of the processor, of which the system has left out what it does not support."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0].splitlines()
    except (OSError, ValueError):
        return frozenset()
    return frozenset(word for line in lines if line.startswith("flags") for word in line.partition(":")[2].split())
