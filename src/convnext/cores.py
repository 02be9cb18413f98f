"""How many cores this process may use: those that it is bound to, and no more than its control group has time for; and how its
threads share them with others.

Linux, control groups of version 2 (docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max) and 1 (cpu.cfs_quota_us). A container
on a machine of 96 cores may have the time of 4, and its affinity still names 96.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

SPINS = "100000"  # turns of the loop in which a thread waits awake
_GROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Those that this process may use, 1 at least."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *(math.ceil(each) for each in _quotas(_GROUPS, _OWN))]))


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """The cores' worth of time of each control group that this process is in, its parents too; of those that have a limit."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        top = (
            groups
            if not kinds
            else next((groups / each for each in (kinds, "cpu") if (groups / each).is_dir()), groups)
        )
        folder = top / path.lstrip("/")
        for each in (folder, *folder.parents):
            limit = _limit(each)
            if limit:
                yield limit
            if each == top:
                break


def _limit(folder: Path) -> float:
    """Of one control group; 0 where it has none, or does not say."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return 0.0 if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0


def let_threads_sleep() -> None:
    """Let OpenMP's threads wait for each other awake for a moment only, unless the person chose how: before torch is loaded.

    libgomp's own moment is so long that beside other work the threads that wait keep those that they wait for from running,
    and a command takes ten times as long (benchmarks/busy.py). On a machine of its own it is as quick as before.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
