"""Answers of a run that travel with what is exported from it, to images that can be made anywhere: the same network still?

The images are blocks of random colours, larger than the network takes and not square, so that resizing and cropping are
compared, too. No torch here. Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.deploy.classifier import ClassificationPredictor, stacked
from convnext.deploy.images import one_image

IMAGES, BLOCKS = 4, 8
SEED = 2022
BOUNDS = {"fp32": 1e-3, "fp16": 3e-2}  # the largest difference of a score
Scores = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reference:
    """What the run answers."""

    scores: Scores  # (N, K) of the images of `coloured_blocks`
    bound: float  # of the difference of a score

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Reference":
        """From JSON. Raises ValueError, KeyError or TypeError where it is none."""
        shape = tuple(int(n) for n in entry["shape"])
        scores = np.frombuffer(base64.b64decode(entry["scores"], validate=True), "<f4").reshape(shape)
        if scores.ndim != 2 or not np.isfinite(scores).all():
            raise ValueError("the answers of the run are no scores")
        return cls(scores.astype(np.float32), float(entry["bound"]))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: float32, little-endian, in base64."""
        text = base64.b64encode(self.scores.astype("<f4").tobytes()).decode()
        return {"shape": list(self.scores.shape), "bound": self.bound, "scores": text}

    def compared(self, predictor: ClassificationPredictor) -> tuple[float, int]:
        """The largest difference of a score of `predictor`, and on how many of the images its first answer is the same.

        Raises ValueError for a network of other classes.
        """
        scores = answers(predictor)
        if scores.shape != self.scores.shape:
            raise ValueError(f"{scores.shape[1]} classes answer, and {self.scores.shape[1]} did in the run")
        same = int((scores.argmax(1) == self.scores.argmax(1)).sum())
        return float(np.abs(scores - self.scores).max()), same


def reference_of(predictor: ClassificationPredictor, precision: str) -> Reference | None:
    """What the run behind `predictor` answers; None of bands, for which there are no such images."""
    if predictor.recipe.input.bands or predictor.recipe.input.wide:
        return None
    return Reference(answers(predictor), BOUNDS[precision])


def answers(predictor: ClassificationPredictor) -> Scores:
    """(N, K) scores of the images of `coloured_blocks`, as the network gives them to everybody."""
    config = predictor.recipe.input
    read = [
        predictor.read(one_image(image, config)) for image in coloured_blocks(config.eval_size_px, len(config.mean))
    ]
    found: Scores = predictor.probabilities(stacked(read))
    return found


def coloured_blocks(size_px: int, channels: int) -> list[NDArray[np.uint8]]:
    """(H, W, C) uint8 each: BLOCKS x BLOCKS colours, of a generator whose numbers NumPy has frozen."""
    colours = np.random.RandomState(SEED).randint(0, 256, (IMAGES, BLOCKS, BLOCKS, channels)).astype(np.uint8)
    down, across = (-(-times * size_px // (4 * BLOCKS)) for times in (5, 6))
    return [each.repeat(down, 0).repeat(across, 1) for each in colours]
