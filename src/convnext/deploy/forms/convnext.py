"""A .convnext file as a function of NumPy arrays: this package's kernels compute, and torch what they do not."""

from importlib import import_module
from pathlib import Path

from convnext.deploy.exported.opened import Run
from convnext.extras import needs


def opened(path: Path, threads: int) -> tuple[Run, str | None]:
    """The network on `threads` threads, 0 for as many as torch has, and the text of its description."""
    needs("torch", f"'{path.name}'")
    found: tuple[Run, str] = import_module("convnext.deploy.folded_run").run_of(path, threads)
    return found
