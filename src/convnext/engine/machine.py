"""The machine and the installation, as far as they can be told without torch."""

import os
import platform
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from convnext.cores import cores
from convnext.extras import EXTRAS, found

_PACKAGES = ("convnext", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "pydantic")


def machine() -> dict[str, str]:
    """Versions, system, processor, memory and the command that was given."""
    return {
        **{name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": str(cores()),
        "memory_gb": f"{memory_gb():.1f}",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def extras() -> dict[str, tuple[bool, str]]:
    """Optional package -> (whether it is there, what to say about it)."""
    told = {}
    for package, (extra, use) in EXTRAS.items():
        there = found(package)
        told[package] = (there, use if there else f"{use}: pip install 'convnext[{extra}]'")
    return told


def compiler() -> str:
    """The C++ compiler that torch.compile would use on the CPU, or ''."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++") or ""


def processor() -> str:
    """The processor's name as the system tells it, with the family and model of x86: different ones share a name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0].splitlines()
    except (OSError, ValueError):
        return platform.processor() or platform.machine()
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = told.get("model name", platform.machine())
    return (
        f"{name}, family {told['cpu family']} model {told['model']}" if {"cpu family", "model"} <= told.keys() else name
    )


def memory_gb() -> float:
    """Physical memory in GiB; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return 0.0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
