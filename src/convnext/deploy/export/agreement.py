"""Whether a detector in a file finds what its run finds: objects of one class in one place, with one score.

Axes: D detections.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from convnext.config import DetectionInput
from convnext.data.band_store import with_bands
from convnext.data.unlabelled import open_unlabelled
from convnext.deploy.detector import DetectionPredictor
from convnext.deploy.exported.detector import ExportedDetector
from convnext.deploy.images import Given, Read, sample_of
from convnext.deploy.prediction import DetectionPrediction
from convnext.errors import ConvNeXtError, DataError, number_of
from convnext.tasks.detection.found import Found

COMPARED = 4  # images
_SHRUNK = 1.6  # sides of made-up images over those that the network sees: a file that shrinks otherwise is found out
_GRAIN = (
    20  # grey levels that pixels of theirs differ by from their neighbours: what a shrinking that skips pixels keeps
)
_SAME_IOU, _SAME_SCORE = 0.9, 0.02  # what is resized to the next grey level moves a box by a fraction of a pixel
_SAME_SHARE = 0.95  # of all objects; the others are those near the least score, or near the overlap that suppresses


@dataclass(frozen=True)
class Agreement:
    """How much of what two detectors find is the same."""

    objects: int  # that the run finds, or the file where that is more
    same: int  # of them
    box_px: float  # the largest difference of an edge among these
    score: float  # and of a score
    compared: str  # on what

    @property
    def holds(self) -> bool:
        """Whether one stands for the other."""
        return self.same >= _SAME_SHARE * self.objects

    def line(self) -> str:
        """For people."""
        if not self.objects:
            return f"On {self.compared} neither finds anything: nothing is compared. Name images with --compare-on."
        return (
            f"of {number_of(self.objects, 'object')} on {self.compared} {self.same:,} are the same "
            f"(edges within {self.box_px:.2g} px, scores within {self.score:.1e})"
        )


def agreement(run: DetectionPredictor, file: ExportedDetector, images: Sequence[np.ndarray], said: str) -> Agreement:
    """What both find in (H, W, C) `images`, of which people say `said`; the file resizes them by itself."""
    objects, same, box_px, score = 0, 0, 0.0, 0.0
    for image in images:
        size = (image.shape[0], image.shape[1])
        read = Read(Given("<image>", image), 1, size, sample_of(run.recipe.input, image))
        (one,) = run.answers([read], score=0)
        other = file.found_in(image, one.size, one.path, one.image_id)
        matched = _matched(one, other)
        objects += max(len(one), len(other))
        same += len(matched)
        for a, b in matched:
            box_px = max(box_px, float(np.abs(one.boxes[a] - other.boxes[b]).max()))
            score = max(score, abs(float(one.scores[a] - other.scores[b])))
    return Agreement(objects, same, box_px, score, said)


def _matched(one: DetectionPrediction, other: Found) -> list[tuple[int, int]]:
    """Pairs of places: by falling score, the free one of the same class that lies best."""
    free = set(range(len(other)))
    pairs = []
    for place, (box, label, score) in enumerate(zip(one.boxes, one.labels, one.scores, strict=True)):
        able = [i for i in free if other.labels[i] == label and abs(other.scores[i] - score) <= _SAME_SCORE]
        best = max(able, key=lambda i: _iou(box, other.boxes[i]), default=None)
        if best is not None and _iou(box, other.boxes[best]) >= _SAME_IOU:
            pairs.append((place, best))
            free.remove(best)
    return pairs


def _iou(box: np.ndarray, other: np.ndarray) -> float:
    shared = np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0).prod()
    union = (box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - shared
    return float(shared / union) if union > 0 else float((box == other).all())


def compared_on(config: DetectionInput, where: str | None) -> tuple[list[np.ndarray], str]:
    """A few (H, W, C) images of the path `where`, or of made-up shapes, and what they are.

    Raises ConvNeXtError where none can be read.
    """
    if where:
        listed = with_bands(open_unlabelled([where]), config.bands)
        some = listed.entries[:: max(1, len(listed.entries) // COMPARED)][:COMPARED]
        read = []
        for entry in some:
            with contextlib.suppress(DataError, OSError):
                read.append(Given(entry.path, listed.store).pixels(config)[0])
        if not read:
            raise ConvNeXtError(f"None of {number_of(len(some), 'image')} of '{where}' could be read.")
        return read, number_of(len(read), "image")
    height = math.ceil(_SHRUNK * config.eval_short_px)
    width = min(math.ceil(_SHRUNK * config.eval_long_px), math.ceil(height * 4 / 3))
    made = [_made_up(height, width, len(config.mean), seed) for seed in range(COMPARED)]
    if config.wide:
        mean, std = (np.array(values) for values in (config.mean, config.std))
        made = [(mean + std * (image / 64.0 - 2)).astype(np.float32) for image in made]
    return made, f"{COMPARED} made-up images"


def _made_up(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """(H, W, C) uint8: soft colours with a few boxes of other ones, all with grain; the same at every call."""
    rng = np.random.default_rng(seed)
    soft: Sequence[Image.Image] = [
        Image.fromarray(rng.integers(0, 256, (5, 7), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        for _ in range(channels)
    ]
    image = np.stack([np.asarray(each) for each in soft], 2).copy()
    for _ in range(6):
        top, left = int(rng.integers(0, height * 3 // 4)), int(rng.integers(0, width * 3 // 4))
        rows, columns = int(rng.integers(height // 8, height // 2)), int(rng.integers(width // 8, width // 2))
        image[top : top + rows, left : left + columns] = rng.integers(0, 256, channels)
    grain = rng.integers(-_GRAIN, _GRAIN + 1, image.shape)
    return (image + grain).clip(0, 255).astype(np.uint8)
