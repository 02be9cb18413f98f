"""The page of a run, with the maps of its most wrong images: predictors and reports meet here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from convnext.deploy.load import load
from convnext.drawing.thumbnails import SIDE_PX
from convnext.reports.report import write_page_of


def write_run_page(run: Path, task: str, held_out: Any) -> Path:
    """`write_page_of`, with what speaks for the true and for the predicted class of a classifier's most wrong images."""
    return write_page_of(run, task, held_out, drawing(run))


def drawing(run: Path) -> Callable[[bytes, Sequence[str]], list[Image.Image]]:
    """From an image and some classes to small drawings of what speaks for each, by the best weights of a run's folder.

    The weights are read at the first image.
    """
    held: list[Any] = []

    def drawn(image: bytes, classes: Sequence[str]) -> list[Image.Image]:
        if not held:
            held.append(load(run, task="classification"))
        return held[0].explain(image, classes=classes).overlays(0, SIDE_PX)[1:]

    return drawn
