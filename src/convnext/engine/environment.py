"""What a run ran on: versions, processor, memory. Written into every run, printed by `convnext doctor`."""

import importlib.util
import os
import platform
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from convnext.kernels.cpu import bf16_matmuls
from convnext.kernels.dispatch import gpu_path, without_compiled

EXTRAS = {  # package -> the extra that brings it and what it is for
    "simplejpeg": ("fast", "faster JPEG decoding"),
    "tensorboard": ("track", "--tensorboard"),
    "sklearn": ("demo", "`convnext demo`"),
    "faster_coco_eval": ("detect", "average precision of detectors"),
    "onnxruntime": ("export", "`convnext export --to onnx`"),
    "openvino": ("openvino", "`convnext export --to openvino`"),
    "nncf": ("openvino", "int8"),
}
_PACKAGES = ("convnext", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "pydantic")


def environment(device: torch.device, *, triton: bool = False) -> dict[str, str]:
    """Everything about this machine and installation that a reader of a result may ask for.

    `triton`: the run asks for the Triton block itself, whatever the environment says.
    """
    return {
        **{name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "torch_threads": str(torch.get_num_threads()),
        "memory_gb": f"{memory_gb():.1f}",
        "cpu_kernels": without_compiled() or ("compiled, fp32 and bf16" if bf16_matmuls() else "compiled, fp32"),
        "gpu_kernels": gpu_path(device, triton),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def extras() -> dict[str, tuple[bool, str]]:
    """Optional package -> (whether it is installed, what to say about it)."""
    found = {}
    for package, (extra, use) in EXTRAS.items():
        there = importlib.util.find_spec(package) is not None
        found[package] = (there, use if there else f"{use}: pip install 'convnext[{extra}]'")
    return found


def compiler() -> str:
    """The C++ compiler that torch.compile would use on the CPU, or ''."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++") or ""


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def memory_gb() -> float:
    """Physical memory in GiB; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        return 0.0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
