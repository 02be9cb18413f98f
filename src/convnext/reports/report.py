"""The page of a run, whatever its task."""

from pathlib import Path
from typing import Any

from convnext.reports.dense import write_dense_report
from convnext.reports.run import write_report


def write_page_of(run: Path, task: str, held_out: Any) -> Path:
    """Write `report.html` into the folder of a run and return its path; `held_out` are the images it was evaluated on.

    Raises ConvNeXtError when `run` is no folder or cannot be written to.
    """
    if task == "classification":
        return write_report(run, read=held_out.store.read)
    return write_dense_report(run, held_out)
