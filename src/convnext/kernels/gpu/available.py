"""Whether the Triton kernels can answer a tensor here, and if not, why."""

import os
import shutil
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LARGEST_MAP = 2**31 - 1  # values of one image's map: offsets inside it are 32-bit, those between images 64-bit
WIDEST = 4096  # channels: one program holds all of a position


def unavailable(x: Tensor) -> str | None:
    """None where the kernels take `x` (N, C, H, W), else the reason in a few words; never raises.

    They run on NVIDIA GPUs from Ampere (8.0) on, and anywhere in Triton's interpreter (TRITON_INTERPRET=1), for tests.
    """
    reason = _settled(x.device.type, x.device.index or 0)
    if reason:
        return reason
    if x.dim() != 4 or x.numel() == 0:
        return f"the shape is {tuple(x.shape)}, not a filled (N, C, H, W)"
    if x.dtype not in DTYPES:
        return f"the dtype is {str(x.dtype).removeprefix('torch.')}, not float32, bfloat16 or float16"
    if x.shape[1] > WIDEST:
        return f"{x.shape[1]} channels are more than {WIDEST}"
    values = x.shape[1] * x.shape[2] * x.shape[3]
    if values > LARGEST_MAP:
        return f"one image's map has {values:,} values, more than 32-bit offsets reach"
    return None


def unavailable_fp8(x: Tensor) -> str | None:
    """As `unavailable`, for float8 inference: Ada (8.9), Hopper (9.0) or newer."""
    reason = unavailable(x)
    if reason is None and x.device.type == "cuda" and _capability(x.device.index or 0) < (8, 9):
        return "this GPU has no float8: it takes compute capability 8.9 or newer"
    return reason


def interpreted() -> bool:
    """Whether Triton was asked to run its kernels as Python, on the processor."""
    return os.environ.get("TRITON_INTERPRET", "") in ("1", "true", "True", "on", "ON")


def precision(dtype: torch.dtype) -> str:
    """How float32 matmuls are computed: 'tf32' only where torch's flags allow it for its own, else 'ieee'."""
    if dtype != torch.float32:
        return "emulated" if interpreted() else "ieee"  # the GPU takes no notice of it for 16-bit operands
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def place(kind: str, index: int) -> str | None:
    """The reason that holds for a whole device, or None."""
    if not _has_triton():
        return "triton is not installed"
    if interpreted():
        return None
    if kind != "cuda":
        return f"the tensor is on {kind}, not on cuda"
    if torch.version.hip is not None:
        return "the kernels are tried on NVIDIA GPUs only"
    major, minor = _capability(index)
    if major < 8:
        return f"compute capability {major}.{minor} is older than 8.0 (Ampere)"
    if not _has_compiler():
        return "Triton needs a C compiler: neither gcc nor clang is installed, and $CC names none"
    return None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _settled(kind: str, index: int) -> str | None:
    return _asked_once(kind, index)


@cache
def _asked_once(kind: str, index: int) -> str | None:
    return place(kind, index)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def exporting() -> bool:
    """Whether torch.export is at work. Python answers, also within torch.compile, where torch 2.11 itself always says yes."""
    return torch.compiler.is_exporting()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _has_compiler() -> bool:
    return bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"))


@cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)
