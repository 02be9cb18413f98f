"""Where on an image the reasons for a class are: the value that `explain` of a classifier returns. No torch here.

Axes: H W pixel rows and columns, h w positions of a network's map, M classes that are explained.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.data.store import printable
from convnext.deploy.images import Given, Pixels
from convnext.deploy.output import save_new
from convnext.drawing.overlay import draw_heat, heat_layer
from convnext.errors import ConvNeXtError, DataError, nearest, reason_of

Heat = NDArray[np.float32]
Method = Literal["auto", "cam", "gradcam", "layercam"]
PANEL_PX = 640  # longer side of each panel of a drawing, at most
LEAST_PX = 160  # and at least: smaller images are drawn with larger pixels
LAYER_PX = 320  # longer side of a map by itself: it is smooth, and a page draws it larger
_GAP_PX = 4  # between two panels


@dataclass(frozen=True)
class View:
    """Where the positions of a network's map lie on an image as it came."""

    box: tuple[float, float, float, float]  # left, top, right, bottom of what the network saw, in pixels of the image
    side_px: int  # of that as the network saw it
    stride_px: float  # from one position to the next, in pixels as the network saw them
    first_px: float  # centre of the first position there

    def spread(self, grid: Heat, size: tuple[int, int], shape: tuple[int, int]) -> Heat:
        """`grid` (h, w) over an image of `size`, drawn as `shape`: (H, W), linear between the centres, 0 what is unseen."""
        left, top, right, bottom = self.box
        rows = self._weights(size[0], shape[0], top, bottom, grid.shape[0])
        columns = self._weights(size[1], shape[1], left, right, grid.shape[1])
        return rows @ grid.astype(np.float32) @ columns.T

    def _weights(self, length: int, drawn: int, first: float, last: float, positions: int) -> Heat:
        """(drawn, positions): how much of each position each of the drawn rows or columns takes."""
        pixels = (np.arange(drawn) + 0.5) * length / drawn  # centres, in pixels of the image
        seen = (pixels - first) / (last - first) * self.side_px
        place = np.clip((seen - self.first_px) / self.stride_px, 0, positions - 1)
        below = np.minimum(place.astype(np.int64), max(0, positions - 2))
        weights = np.zeros((drawn, positions), np.float32)
        lines = np.arange(drawn)
        weights[lines, np.minimum(below + 1, positions - 1)] = place - below
        weights[lines, below] += 1 - (place - below)
        weights[(pixels < first) | (pixels > last)] = 0
        return weights


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """What speaks for some classes, and where. Attributes are for people, `to_dict` is for programs, `draw` for eyes."""

    given: Given = field(repr=False)
    image_id: int = 1  # its number among the images that were asked about, from 1, unreadable ones too
    size: tuple[int, int]  # (height, width) of the image
    classes: tuple[str, ...]  # M names, of those that are explained
    scores: tuple[float, ...]  # M: their probabilities
    logits: tuple[float, ...]  # M: what the network adds up before they become probabilities
    constants: tuple[float, ...] | None  # M, of 'cam': what is the same for every image; grids.sum() + constant = logit
    method: str  # 'cam', 'gradcam' or 'layercam'
    stage: int  # of the network, whose maps were taken
    grids: Heat = field(repr=False)  # (M, h, w) what each position says; below 0, of 'cam' alone: against the class
    view: View = field(repr=False)

    @property
    def path(self) -> str:
        """The file of the image; '<image>' or '<bytes>' where there is none."""
        return self.given.path

    @property
    def predictions(self) -> tuple[tuple[str, float], ...]:
        """(class, probability) of those that are explained."""
        return tuple(zip(self.classes, self.scores, strict=True))

    @property
    def map(self) -> Heat:
        """(H, W) of the first class, in the pixels of the image; 0 where the network saw nothing."""
        return self.map_of(self.classes[0])

    def map_of(self, name: str) -> Heat:
        """(H, W) of the class `name`. Raises ConvNeXtError for one that was not asked about."""
        if name not in self.classes:
            known = ", ".join(self.classes)
            raise ConvNeXtError(f"'{name}' is not explained here, only {known}.{nearest(name, self.classes)}")
        return self.view.spread(self.grids[self.classes.index(name)], self.size, self.size)

    def to_dict(self) -> dict[str, Any]:
        """'path', 'method', 'stage', 'seen' (left, top, right, bottom in pixels) and 'explained', a row for each class."""
        rows: list[dict[str, Any]] = []
        for place, (label, score) in enumerate(self.predictions):
            row: dict[str, Any] = {"label": label, "score": score, "logit": self.logits[place]}
            row |= {} if self.constants is None else {"constant": self.constants[place]}
            rows.append(
                row | {"grid": [[float(f"{value:.6g}") for value in line] for line in self.grids[place].tolist()]}
            )
        about = {"path": printable(self.path), "method": self.method, "stage": self.stage, "seen": list(self.view.box)}
        return about | {"explained": rows}

    def text(self) -> str:
        """'cat 97.0%, dog 2.0%'."""
        return ", ".join(f"{label} {score:.1%}" for label, score in self.predictions)

    def overlays(self, least_px: int = LEAST_PX, most_px: int = PANEL_PX) -> list[Image.Image]:
        """The image, and the map of each class on it, with the longer side within these bounds.

        Raises DataError where the image cannot be read again.
        """
        try:
            pixels = self.given.to_eyes()
        except (DataError, OSError) as error:
            raise DataError(f"'{printable(self.path)}' cannot be drawn: {reason_of(error)}.") from None
        shown = _within(pixels, least_px, most_px)
        shape = (shown.shape[0], shown.shape[1])
        down, across = shape[0] / self.size[0], shape[1] / self.size[1]
        left, top, right, bottom = self.view.box
        seen = (left * across, top * down, right * across, bottom * down)
        drawn = [shown]
        for grid, (label, score) in zip(self.grids, self.predictions, strict=True):
            heat = self.view.spread(grid, self.size, shape)
            drawn.append(draw_heat(shown, heat, seen, f"{label} {score:.2f}"))
        return [Image.fromarray(each) for each in drawn]

    def layer(self, most_px: int = LAYER_PX) -> Image.Image:
        """The map of the first class, RGBA, to be laid over the image in greys; its longer side is `most_px` at most."""
        height, width = self.size
        ratio = min(1.0, most_px / max(height, width))
        shape = (max(1, round(height * ratio)), max(1, round(width * ratio)))
        down, across = shape[0] / height, shape[1] / width
        left, top, right, bottom = self.view.box
        heat = self.view.spread(self.grids[0], self.size, shape)
        return Image.fromarray(heat_layer(heat, (left * across, top * down, right * across, bottom * down)))

    def draw(self) -> Image.Image:
        """The image, and beside it the map of each class: orange what speaks for it, blue what speaks against it.

        Darkened is what the network did not see. Raises DataError where the image cannot be read again.
        """
        panels = self.overlays()
        width, height = panels[0].size
        whole = Image.new("RGB", (len(panels) * (width + _GAP_PX) - _GAP_PX, height), "white")
        for place, panel in enumerate(panels):
            whole.paste(panel, (place * (width + _GAP_PX), 0))
        return whole

    def save(self, path: str | Path) -> Path:
        """Write the drawing, .jpg or .png, or what `to_dict` says, .json, to a new file.

        Raises ConvNeXtError where the file is there already, cannot be written, or has another ending.
        """
        return save_new(self, path)


def _within(pixels: Pixels, least_px: int, most_px: int) -> Pixels:
    """(H, W, 3) with the longer side within these bounds; small images keep their pixels, a whole number of times as large."""
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, 2)
    longer = max(pixels.shape[:2])
    if longer < least_px:
        times = -(-least_px // longer)
        return pixels.repeat(times, 0).repeat(times, 1)
    image = Image.fromarray(pixels)
    image.thumbnail((most_px, most_px), Image.Resampling.LANCZOS)
    return np.asarray(image)
