"""What a predictor says of one image: the same shape for every task, with what is the task's own beside it.

Axes: H W pixel rows and columns, D detections.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.data.masks import Rle, decode_mask
from convnext.data.store import printable
from convnext.deploy.explanation import Explanation
from convnext.deploy.images import Given, Pixels
from convnext.deploy.output import save_new
from convnext.drawing.overlay import colours_of, draw_map, draw_objects, names_of
from convnext.drawing.palette import colour_of
from convnext.drawing.ranked import Line, draw_lines
from convnext.errors import DataError, reason_of

LEVELS = 256  # values of a pixel of a mask


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction(ABC):
    """What a network says of one image. Attributes are for people, `to_dict` is for programs, `draw` for eyes."""

    given: Given = field(repr=False)
    image_id: int = 1  # its number among the images that were asked about, from 1, unreadable ones too
    size: tuple[int, int]  # (height, width) of the image
    classes: tuple[str, ...] = field(repr=False)  # all that the network knows
    frames: int = field(default=1, repr=False)  # of the file, or its pages: this is of the first

    @property
    def path(self) -> str:
        """The file of the image; '<image>' or '<bytes>' where there is none."""
        return self.given.path

    @property
    @abstractmethod
    def predictions(self) -> tuple[tuple[str, float], ...]:
        """(class, number) from the first to the last.

        The number is the probability of the class; the score of an object; the share of the pixels.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What `convnext predict --json` prints of the image; 'frames' says how many its file has, where it has several."""

    @abstractmethod
    def text(self) -> str:
        """The same in a line for people."""

    def draw(self) -> Image.Image:
        """The image with what was found drawn on it, in the size at which it is decoded, which is its own but for huge ones.

        Raises DataError where it cannot be read again.
        """
        try:
            pixels = self.given.to_eyes()
        except (DataError, OSError) as error:
            raise DataError(f"'{printable(self.path)}' cannot be drawn: {reason_of(error)}.") from None
        return Image.fromarray(self._drawn(pixels))

    def save(self, path: str | Path) -> Path:
        """Write the drawing, .jpg or .png, or what `to_dict` says, .json, to a new file.

        Raises ConvNeXtError where the file is there already, cannot be written, or has another ending.
        """
        return save_new(self, path)

    @abstractmethod
    def _drawn(self, pixels: Pixels) -> Pixels:
        """(H, W, 3) with what was found."""

    def _told(self, **found: Any) -> dict[str, Any]:
        """What `to_dict` returns of any image, around what was found."""
        return {"path": printable(self.path), **found} | ({} if self.frames == 1 else {"frames": self.frames})


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassificationPrediction(Prediction):
    """The classes of one image with their probabilities, the likeliest first."""

    scored: tuple[tuple[str, float], ...]
    answered: bool | None = None  # whether the first score reaches what was promised; None: nothing was
    label_set: tuple[str, ...] | None = None  # that hold the right class as often as was asked; None: nothing was
    explanation: Explanation | None = field(default=None, repr=False)  # where the reasons are; None: nobody asked

    @property
    def predictions(self) -> tuple[tuple[str, float], ...]:
        """(class, probability)."""
        return self.scored

    def to_dict(self) -> dict[str, Any]:
        """'path', and 'predictions' of 'label' and 'score'; 'answered' and 'set' where a promise or sets were asked for.

        Where the reasons were asked for also what `Explanation.to_dict` says: 'method', 'stage', 'seen' and 'explained'.
        """
        listed = [{"label": label, "score": score} for label, score in self.predictions]
        told: dict[str, Any] = {} if self.answered is None else {"answered": self.answered}
        told |= {} if self.label_set is None else {"set": list(self.label_set)}
        told |= {} if self.explanation is None else self.explanation.to_dict()
        return self._told(predictions=listed, **told)

    def text(self) -> str:
        """'cat 97.0%, dog 2.0%'; 'not sure: cat 52.0%, dog 40.0%'; with the classes of a set behind it."""
        scores = ", ".join(f"{label} {score:.1%}" for label, score in self.predictions)
        among = "" if self.label_set is None else f" [{', '.join(self.label_set)}]"
        return f"{'not sure: ' if self.answered is False else ''}{scores}{among}"

    def _drawn(self, pixels: Pixels) -> Pixels:
        return draw_lines(pixels, [*self._remarks(), *self._lines()])

    def _remarks(self) -> list[Line]:
        """What is said beside the scores."""
        unsure = [Line("not sure")] if self.answered is False else []
        return unsure + ([] if self.label_set is None else [Line(f"one of: {', '.join(self.label_set)}")])

    def _lines(self) -> list[Line]:
        return [Line(label, self.classes.index(label), score) for label, score in self.predictions]


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelsPrediction(ClassificationPrediction):
    """The classes of one image whose scores reach their thresholds, the highest score first; there may be none."""

    sure: tuple[bool, ...] | None = None  # whether each reaches what was promised of its class; None: nothing was

    def to_dict(self) -> dict[str, Any]:
        """As of one label; 'sure' lists the classes whose scores reach what was promised of them."""
        told = {} if self.sure is None else {"sure": [label for label, _ in self._scored(sure=True)]}
        return super().to_dict() | told

    def text(self) -> str:
        """'cat 97.0%, not sure: dog 61.0%'; 'nothing above its threshold'."""
        if self.sure is None:
            return super().text() or "nothing above its threshold"
        parts = [
            before + ", ".join(f"{label} {score:.1%}" for label, score in listed)
            for before, listed in (("", self._scored(sure=True)), ("not sure: ", self._scored(sure=False)))
            if listed
        ]
        return ", ".join(parts) or "nothing above its threshold"

    def _scored(self, *, sure: bool) -> list[tuple[str, float]]:
        return [pair for pair, told in zip(self.scored, self.sure or (), strict=True) if told == sure]

    def _remarks(self) -> list[Line]:
        return [] if self.predictions else [Line(self.text())]


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionPrediction(Prediction):
    """The objects in one image, the best score first, in pixels of the image as it came."""

    boxes: NDArray[np.float32]  # (D, 4) x0 y0 x1 y1
    scores: NDArray[np.float32]  # (D,) 0 to 1
    labels: NDArray[np.int64]  # (D,) into `classes`
    outlines: tuple[Rle, ...] | None = field(repr=False)  # run lengths of the masks; None from a detector of boxes
    rows: tuple[dict[str, Any], ...] = field(repr=False)  # as COCO's result file has them, with file_name and category

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def predictions(self) -> tuple[tuple[str, float], ...]:
        """(class, score) of each object."""
        return tuple(
            (self.classes[label], score) for label, score in zip(self.labels, self.scores.tolist(), strict=True)
        )

    @cached_property
    def masks(self) -> NDArray[np.bool_] | None:
        """(D, H, W) whether a pixel belongs to an object; None from a detector of boxes."""
        if self.outlines is None:
            return None
        masks = np.zeros((len(self), *self.size), np.bool_)
        for place, outline in enumerate(self.outlines):
            masks[place] = decode_mask(outline)
        return masks

    def to_dict(self) -> dict[str, Any]:
        """'path', and the rows of COCO's result file as 'predictions'; the command line lists those of all images."""
        return self._told(predictions=[dict(row) for row in self.rows])

    def text(self) -> str:
        """'cat 0.97 (3 8 60 71), dog 0.60 (0 2 20 40)'; 'nothing' where there is no object."""
        names = names_of(self.labels.tolist(), self.scores.tolist(), self.classes)
        boxes = (" ".join(str(round(edge)) for edge in box) for box in self.boxes.tolist())
        return ", ".join(f"{name} ({box})" for name, box in zip(names, boxes, strict=True)) or "nothing"

    def _drawn(self, pixels: Pixels) -> Pixels:
        labels = self.labels.tolist()
        names = names_of(labels, self.scores.tolist(), self.classes)
        back = slice(None, None, -1)  # the best comes last, on top of the others
        colours, masks = colours_of(labels, self.classes), self.outlines or ()
        boxes, (height, width) = self.boxes, pixels.shape[:2]
        if (height, width) != self.size:  # too large to be decoded whole: its masks are larger than what is drawn on
            ratio = np.array([width / self.size[1], height / self.size[0]], np.float32)
            boxes, masks = boxes * np.tile(ratio, 2), ()
        return draw_objects(pixels, boxes[back], colours[back], names[back], masks[back])


@dataclass(frozen=True, eq=False, kw_only=True)
class SegmentationPrediction(Prediction):
    """What every pixel of one image is."""

    mask: NDArray[np.uint8] = field(repr=False)  # (H, W) into `classes`
    scores: NDArray[np.float32] = field(repr=False)  # (H, W) the probability of that class
    top: int | None = None  # classes that `predictions` names; None: all that the image shows

    @cached_property
    def predictions(self) -> tuple[tuple[str, float], ...]:
        """(class, share of the pixels) of the classes in the image, the largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes))
        order = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
        return tuple((self.classes[label], float(counts[label] / self.mask.size)) for label in order[: self.top])

    def to_dict(self) -> dict[str, Any]:
        """'path', and 'shares' of 'label' and 'share'."""
        shares = [{"label": label, "share": share} for label, share in self.predictions]
        return self._told(shares=shares)

    def text(self) -> str:
        """'road 61.0%, sky 39.0%'."""
        return ", ".join(f"{label} {share:.1%}" for label, share in self.predictions)

    def mask_image(self) -> Image.Image:
        """The mask as an image of the classes' numbers, with a palette for those who look at it."""
        mask = Image.fromarray(self.mask)
        mask.putpalette([part for number in range(LEVELS) for part in colour_of(number)])
        return mask

    def _drawn(self, pixels: Pixels) -> Pixels:
        return draw_map(pixels, self.mask, self.classes)
