"""Compile the CPU kernels with the system's C++ compiler, once per source, compiler and processor, and load them.

The library is a file of the user's cache whose name holds the hash of what it was made from and of its own bytes, so that
nothing stale and nothing damaged is ever loaded. A cache that cannot be written to is replaced by a temporary folder.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from convnext import processes
from convnext.files import cache_folder, remove_abandoned, workroom
from convnext.kernels.structs import mismatch

SOURCES = Path(__file__).parent / "cpu"
UNIT = "kernels.cpp"  # includes the other sources: one compilation
COMPILERS = ("g++", "c++")  # after $CXX; GNU's: clang has another OpenMP than the one in torch's process
PATIENCE_S = 600
_NAME = "kernels"  # of the folders that builds work in
KEPT = 8  # libraries of a cache: other versions, compilers and environments that may be in use beside this one


@dataclass(frozen=True)
class Built:
    """A loaded library, or the reason why there is none."""

    library: ctypes.CDLL | None
    reason: str | None  # None where `library` is there
    parallel: bool = False  # uses the threads that torch has


@functools.cache
def built() -> Built:
    """The kernels of this machine: from the cache, or compiled now (some seconds)."""
    compiler = find_compiler()
    if compiler is None:
        return Built(None, f"no C++ compiler is installed (looked for {', '.join(COMPILERS)} and $CXX)")
    parallel = hasattr(ctypes.CDLL(None), "GOMP_parallel") if os.name == "posix" else False
    command = [*compiler, *flags(parallel)]
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
                return Built(library, None, parallel)
    return Built(None, reason)


@functools.cache
def compiled() -> Built:
    """The kernels of this machine, if their structures are those of structs.py."""
    found = built()
    reason = mismatch(found.library) if found.library else None
    return Built(None, reason) if reason else found


def from_folder(folder: Path, key: str, command: list[str]) -> ctypes.CDLL | None:
    """The library of the cache, built where it is not there or damaged."""
    remove_abandoned(folder, _NAME)  # by builds that were killed
    path = cached(folder, key)
    library = load(path) if path else None
    return library or load(compile_into(folder, key, command))


def from_temporary(key: str, command: list[str]) -> ctypes.CDLL | None:
    """The library by way of a folder that is gone afterwards: once loaded, its file is needed no more."""
    with workroom(Path(tempfile.gettempdir()), f"convnext-{_NAME}") as folder:
        return load(compile_into(folder, key, command))


def find_compiler() -> list[str] | None:
    """The compiler's command: $CXX, else the first of COMPILERS that is installed."""
    if named := os.environ.get("CXX"):
        words = shlex.split(named)
        return words if words and shutil.which(words[0]) else None
    return next(([path] for name in COMPILERS if (path := shutil.which(name))), None)


def flags(parallel: bool) -> list[str]:
    """For this processor alone; with OpenMP's calls, but not its library: torch's own is in the process already.

    Two OpenMP libraries would be two pools of threads that wait for each other in busy loops.
    """
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    threads = ["-fopenmp"] if parallel else []
    return ["-O3", native, "-std=c++17", "-fPIC", "-ffp-contract=fast", "-fvisibility=hidden", "-w", *threads]


def fingerprint(command: list[str]) -> str:
    """A name for what would be built: the sources, the command, the compiler's file and the processor."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.glob("*.[ch]*")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    compiler = os.stat(shutil.which(command[0]) or command[0])
    digest.update(repr((command, compiler.st_size, compiler.st_mtime_ns, processor())).encode())
    return digest.hexdigest()[:24]


def processor() -> str:
    """The processor's model and abilities, as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0].splitlines()
        return "".join(line for line in lines if line.split(":")[0].strip() in ("model name", "flags", "Features"))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


def cached(folder: Path, key: str) -> Path | None:
    """The library of that key whose bytes are those that were written; damaged ones are removed."""
    for path in sorted(folder.glob(f"kernels-{key}-*.so")):
        if path.stem.endswith(content_hash(path)):
            return path
        try:
            path.unlink(missing_ok=True)
        except OSError:
            continue
    return None


def content_hash(path: Path) -> str:
    """The start of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def compile_into(folder: Path, key: str, command: list[str]) -> Path:
    """Compile beside the goal and rename, so that two processes may do it at once; raises OSError, CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with workroom(folder, _NAME) as place:
        made, unit = place / "kernels.so", place / "kernels.o"
        compiling = [*command, "-c", str(SOURCES / UNIT), "-o", str(unit)]
        linking = [word for word in command if word != "-fopenmp"]
        for words in (compiling, [*linking, "-shared", str(unit), "-o", str(made)]):
            processes.run(words, timeout_s=PATIENCE_S)
        path = made.replace(folder / f"kernels-{key}-{content_hash(made)}.so")
    forget_old(folder)
    return path


def forget_old(folder: Path) -> None:
    """Remove all but the newest libraries; one that is loaded stays loaded, and whoever misses one builds it again."""
    made: list[tuple[float, Path]] = []
    for path in folder.glob("kernels-*.so"):
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
