"""The library of the CPU kernels: the one that came with the package for this processor, or compiled here once, and loaded.

A wheel for Linux brings a library for each instruction set (hatch_build.py). Elsewhere the system's C++ compiler makes one,
once per source, compiler and processor, in the user's cache; a cache that cannot be written to is replaced by a temporary
folder. The names of the files hold the hash of what they were made from and of their own bytes, so that nothing stale and
nothing damaged is ever loaded.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from convnext.files import cache_folder, remove_abandoned, workroom
from convnext.kernels.compiler import (
    COMPILERS,
    NAME,
    PATIENCE_S,
    compile_into,
    find_compiler,
    flags,
    intact,
    prebuilt_key,
    source_hash,
)
from convnext.kernels.instructions import InstructionSet, named, present
from convnext.kernels.structs import mismatch

PREBUILT = Path(__file__).parent / "prebuilt"  # only a wheel has it
KEPT = 8  # libraries of a cache: other versions, compilers and environments that may be in use beside this one


@dataclass(frozen=True)
class Built:
    """A loaded library, or the reason why there is none."""

    library: ctypes.CDLL | None
    reason: str | None  # None where `library` is there
    parallel: bool = False  # uses the threads that torch has
    origin: str = ""  # where the library is from, in words for a person


@functools.cache
def built() -> Built:
    """The kernels of this machine: of the package, from the cache, or compiled now (some seconds)."""
    parallel = hasattr(ctypes.CDLL(None), "GOMP_parallel") if os.name == "posix" else False
    only = named()
    for each in ((only,) if only else present()) if parallel else ():  # what comes with the package calls OpenMP
        path, _ = intact(PREBUILT, prebuilt_key(each))
        if path and (library := load(path)):
            return Built(library, None, parallel, f"prebuilt for {each.name}")
    return compiled_here(parallel, only)


def compiled_here(parallel: bool, chosen: InstructionSet | None) -> Built:
    """For `chosen`, or for all that this processor has."""
    compiler = find_compiler()
    if compiler is None:
        return Built(None, f"no C++ compiler is installed (looked for {', '.join(COMPILERS)} and $CXX)")
    command = [*compiler, *flags(parallel, chosen)]
    key = fingerprint(command)
    reason = "the compiled kernels could not be loaded"
    for folder in (cache_folder(), None):  # None: a temporary folder, where the cache is read-only or full
        try:
            library = from_folder(folder, key, command) if folder else from_temporary(key, command)
        except OSError as error:
            reason = f"the compiled kernels could not be written: {error}"
        except subprocess.TimeoutExpired:
            return Built(None, f"{compiler[0]} did not finish in {PATIENCE_S} s")
        except subprocess.CalledProcessError as error:
            lines = [line.strip() for line in str(error.stderr).splitlines() if "error" in line] or ["no message"]
            reason = f"{compiler[0]} could not compile the kernels: {lines[0]}"
        else:
            if library is not None:
                goal = chosen.name if chosen else "this processor"
                return Built(library, None, parallel, f"compiled here for {goal}, as {unbuilt()}")
    return Built(None, reason)


def unbuilt() -> str:
    """Why what came with the package was not taken, in words that follow 'as'."""
    if not PREBUILT.is_dir():
        return "the package brings none"
    return "the package's own do not fit this processor, these sources or torch's OpenMP"


@functools.cache
def compiled() -> Built:
    """The kernels of this machine, if their structures are those of structs.py."""
    found = built()
    reason = mismatch(found.library) if found.library else None
    return Built(None, reason) if reason else found


def from_folder(folder: Path, key: str, command: list[str]) -> ctypes.CDLL | None:
    """The library of the cache, built where it is not there or damaged."""
    remove_abandoned(folder, NAME)  # by builds that were killed
    path = cached(folder, key)
    library = load(path) if path else None
    if library is None:
        library = load(compile_into(folder, key, command))
        forget_old(folder)
    return library


def from_temporary(key: str, command: list[str]) -> ctypes.CDLL | None:
    """The library by way of a folder that is gone afterwards: once loaded, its file is needed no more."""
    with workroom(Path(tempfile.gettempdir()), f"convnext-{NAME}") as folder:
        return load(compile_into(folder, key, command))


def fingerprint(command: list[str]) -> str:
    """A name for what would be built: the sources, the command, the compiler's file and the processor."""
    compiler = os.stat(shutil.which(command[0]) or command[0])
    what = repr((source_hash(), command, compiler.st_size, compiler.st_mtime_ns, processor()))
    return hashlib.sha256(what.encode()).hexdigest()[:24]


def processor() -> str:
    """The processor's model and abilities, as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0].splitlines()
        return "".join(line for line in lines if line.split(":")[0].strip() in ("model name", "flags", "Features"))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


def cached(folder: Path, key: str) -> Path | None:
    """The library of that key whose bytes are those that were written; damaged ones are removed."""
    path, damaged = intact(folder, key)
    for each in damaged:
        with contextlib.suppress(OSError):
            each.unlink(missing_ok=True)
    return path


def forget_old(folder: Path) -> None:
    """Remove all but the newest libraries; one that is loaded stays loaded, and whoever misses one builds it again."""
    made: list[tuple[float, Path]] = []
    for path in folder.glob(f"{NAME}-*.so"):
        with contextlib.suppress(OSError):
            made.append((path.stat().st_mtime, path))
    for _, path in sorted(made)[:-KEPT]:
        with contextlib.suppress(OSError):
            path.unlink()


def load(path: Path) -> ctypes.CDLL | None:
    """The library of a file, or None where the system refuses it."""
    assert torch.get_num_threads()  # torch, and with it the OpenMP that the library calls, is loaded
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None
