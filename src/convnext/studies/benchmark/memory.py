"""How much memory a process has taken at its highest, in MB: from the system on a CPU, from torch on a GPU."""

import contextlib
import sys
from importlib import import_module
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """The highest point since `restart`, above what the process held when this was made."""

    def __init__(self, device: str):
        self.cuda = torch.device(device) if device.startswith("cuda") else None
        self.start_mb = 0.0 if self.cuda else _resident_mb("VmRSS")

    def restart(self) -> None:
        """Forget what was highest so far, where the system can; elsewhere the peak is that of the process's life."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.cuda)
        else:
            with contextlib.suppress(OSError):
                _CLEAR.write_text("5")

    def mb(self) -> float:
        """The highest since then."""
        if self.cuda:
            return torch.cuda.max_memory_allocated(self.cuda) / 2**20
        return max(0.0, _resident_mb("VmHWM") - self.start_mb)


def _resident_mb(name: str) -> float:
    try:
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
    except (OSError, StopIteration):
        return _most_mb()


def _most_mb() -> float:
    """The peak of the process's life; 0 where the system does not tell."""
    try:
        usage = import_module("resource")  # not on Windows
    except ImportError:
        return 0.0
    most = usage.getrusage(usage.RUSAGE_SELF).ru_maxrss
    return float(most / 2**20 if sys.platform == "darwin" else most / 1024)
