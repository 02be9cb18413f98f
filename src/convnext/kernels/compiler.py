"""The system's C++ compiler and how it makes the CPU kernels: for this machine (build.py) or for a wheel (hatch_build.py).

Nothing here needs a package: a wheel is built where none is installed.
"""

import hashlib
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from convnext import processes
from convnext.files import workroom
from convnext.kernels.instructions import InstructionSet

SOURCES = Path(__file__).parent / "cpu"
UNIT = "kernels.cpp"  # includes the other sources: one compilation
COMPILERS = ("g++", "c++")  # after $CXX; GNU's: clang has another OpenMP than the one in torch's process
PATIENCE_S = 600
NAME = "kernels"  # what libraries' names begin with, and those of the folders that builds work in


def find_compiler() -> list[str] | None:
    """The compiler's command: $CXX, else the first of COMPILERS that is installed."""
    if named := os.environ.get("CXX"):
        words = shlex.split(named)
        return words if words and shutil.which(words[0]) else None
    return next(([path] for name in COMPILERS if (path := shutil.which(name))), None)


def flags(parallel: bool, chosen: InstructionSet | None = None) -> list[str]:
    """For `chosen`, or for this processor alone; with OpenMP's calls, but not its library: torch's is in the process.

    Two OpenMP libraries would be two pools of threads that wait for each other in busy loops.
    """
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    target = chosen.options if chosen else (native,)
    threads = ["-fopenmp"] if parallel else []
    return ["-O3", *target, "-std=c++17", "-fPIC", "-ffp-contract=fast", "-fvisibility=hidden", "-w", *threads]


def source_hash() -> str:
    """Of everything that is compiled."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.glob("*.[ch]*")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:24]


def content_hash(path: Path) -> str:
    """The start of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def prebuilt_key(chosen: InstructionSet) -> str:
    """What names a wheel's library of these sources for that set."""
    return f"{chosen.name}-{source_hash()}"


def intact(folder: Path, key: str) -> tuple[Path | None, list[Path]]:
    """The library of that key whose bytes are those that were written, and those that are damaged."""
    found = sorted(folder.glob(f"{NAME}-{key}-*.so"))
    damaged = [path for path in found if not path.stem.endswith(content_hash(path))]
    return next((path for path in found if path not in damaged), None), damaged


def compile_into(folder: Path, key: str, command: Sequence[str]) -> Path:
    """Compile beside the goal and rename, so that two processes may do it at once; raises OSError, CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with workroom(folder, NAME) as place:
        made, unit = place / "kernels.so", place / "kernels.o"
        compiling = [*command, "-c", str(SOURCES / UNIT), "-o", str(unit)]
        linking = [word for word in command if word != "-fopenmp"]
        slim = ["-s"] if sys.platform == "linux" else []  # without the names that nobody calls
        for words in (compiling, [*linking, "-shared", *slim, str(unit), "-o", str(made)]):
            processes.run(words, timeout_s=PATIENCE_S)
        return made.replace(folder / f"{NAME}-{key}-{content_hash(made)}.so")
