"""Processes that tests start, and whether they are gone."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PATIENCE_S = 60  # of a test on a busy machine; what is awaited takes a second or two


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def started(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """`python -c CODE ARGUMENTS`, whose stdout is read here."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    values = {"stdout": subprocess.PIPE, "text": True, "env": environment(), **options}
    return subprocess.Popen(command, **values)  # type: ignore[call-overload,no-any-return]


def ended(process: Any) -> int:
    """Its status. It is killed where it does not end in time, or leaving its `with` would wait for it."""
    try:
        return process.wait(PATIENCE_S)
    finally:
        process.kill()


def numbers(process: subprocess.Popen[str]) -> list[int]:
    """The ids of processes that it prints in a line."""
    assert process.stdout
    return [int(word) for word in process.stdout.readline().split()]


def runs(process: int) -> bool:
    """Whether it is there and no zombie that nobody has fetched."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def awaited(true: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def gone(processes: Iterable[int], patience_s: float = PATIENCE_S) -> bool:
    """Whether all of them end in time."""
    return awaited(lambda: not any(map(runs, processes)), patience_s)


def children_of(process: int) -> list[int]:
    """All that descend from it."""
    found, parents = [], {process}
    rows = [file.read_text().rpartition(")") for file in Path("/proc").glob("[0-9]*/stat") if file.exists()]
    table = [(int(head.split(" ")[0]), int(tail.split()[1])) for head, _, tail in rows]
    while parents:
        parents = {child for child, parent in table if parent in parents}
        found += sorted(parents)
    return found
