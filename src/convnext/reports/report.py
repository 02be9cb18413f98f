"""The page of a run, whatever its task."""

from pathlib import Path
from typing import Any

from convnext.reports.dense import write_dense_report
from convnext.reports.run import write_report
from convnext.reports.worst import Why


def write_page_of(run: Path, task: str, held_out: Any, why: Why | None = None) -> Path:
    """Write `report.html` into the folder of a run and return its path; `held_out` are the images it was evaluated on.

    `why`: of a classifier, draws what speaks for some classes on an image. Raises ConvNeXtError when `run` is no folder
    or cannot be written to.
    """
    if task == "classification":
        return write_report(run, read=held_out.store.read, why=why)
    return write_dense_report(run, held_out)
