"""predictions.jpg: what a run makes of a few held-out images, drawn after each evaluation beside what they show.

They are the same images each time, the first ones of an order that follows from the recipe's seed; the file is that of
the last evaluation. Axes: H W pixel rows and columns.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import nn

from convnext.config import ClassificationRecipe, Recipe
from convnext.data.annotated_policy import eval_dense
from convnext.data.annotated_transforms import resize
from convnext.data.dataset import DenseDataset, read_sample
from convnext.data.evaluation import shown
from convnext.data.labelled import Dataset
from convnext.data.masks import encode, render
from convnext.data.sample import Sample
from convnext.data.transforms import normalise
from convnext.drawing.overlay import colours_of, draw_map, draw_objects, names_of
from convnext.drawing.palette import ON_IMAGES
from convnext.drawing.ranked import Line, draw_lines
from convnext.drawing.sheet import captioned, sheet
from convnext.engine.records import warn
from convnext.engine.run import last_of
from convnext.engine.scored import Scored
from convnext.errors import DataError, on_one_line, reason_of
from convnext.files import write_bytes
from convnext.reports.run_files import PREDICTIONS
from convnext.reports.samples import SIDE_PX, annotated, draw_samples, visible
from convnext.reports.sections import WEIGHTS
from convnext.tasks.classification.inference import logits
from convnext.tasks.detection.inference import find
from convnext.tasks.segmentation.inference import log_probabilities

PAIRS, LABELLED = 6, 12  # annotated images, each drawn twice, and images with labels
COLUMNS = 4
LEAST = 0.25  # score of a detection that is drawn: less than `predict` asks for, as little is sure early in a run
_FEWEST = 10  # detections that an image has room for; early in a run, hundreds would hide everything
_NAMED_PX = 224  # the longer side that small images are enlarged to, so that names fit
_FRAME_PX = 4
_LINES = 2  # classes that are named
_LIKELY = 0.5  # from which probability on one of several labels is given


def watching(out: Path, recipe: Recipe, splits: Any) -> "Predictions":
    """What draws `predictions.jpg` after each evaluation; into the folder of a run that begins it draws `samples.jpg`."""
    if not last_of(out):
        draw_samples(out, recipe, splits)
    return Predictions(out, recipe, splits.val)


class Predictions:
    """Draws the same held-out images again and again. It never raises: a run is worth more than its picture."""

    def __init__(self, out: Path, recipe: Recipe, held_out: Any):
        self.file = out / PREDICTIONS
        self._drawer: _Drawer = (
            _Labelled(recipe, held_out) if isinstance(recipe, ClassificationRecipe) else _Annotated(recipe, held_out)
        )
        self._refused = False

    def __call__(self, scored: Scored) -> None:
        """Replace the file by what the network answers now. What hinders that is warned of once; no other try follows."""
        if self._refused:
            return
        title = (
            f"{scored.place}, {WEIGHTS[scored.weights][0]}, {scored.metric} {scored.score:.4f}: {self._drawer.legend}"
        )
        try:
            images = self._drawer.images(scored.model)
            if images:
                write_bytes(self.file, sheet(images, columns=COLUMNS, side_px=SIDE_PX, title=title))
        except Exception as error:  # noqa: BLE001 # a disk or a GPU that is full, a network that answers strangely
            self._refused = True
            first = next(iter(reason_of(error).splitlines()), "") or type(error).__name__
            warn(f"'{self.file}' is not drawn from here on: {on_one_line(first).rstrip('.')}. The run goes on.")


class _Drawer(Protocol):
    legend: str

    def images(self, model: nn.Module) -> list[Image.Image]:
        """The images with what `model` answers; none where none can be read."""
        ...


class _Annotated:
    """Images with objects or masks, as evaluation sees them: what is annotated on the left, what is found on the right."""

    legend = "left as annotated, right as predicted"

    def __init__(self, recipe: Any, held_out: DenseDataset):
        self.recipe, self.held_out = recipe, held_out

    def images(self, model: nn.Module) -> list[Image.Image]:
        draw = _found if self.recipe.task == "detection" else _mapped
        drawn = []
        for sample, left, room in self._samples:
            right = Image.fromarray(draw(model, sample, self.recipe, self.held_out.classes, room))
            drawn += [left.copy(), captioned(right, "predicted", SIDE_PX)]
        return drawn

    @cached_property
    def _samples(self) -> list[tuple[Sample, Image.Image, int]]:
        """Images without their annotations, small ones with them, since masks are large, and for how many detections."""
        return list(islice(self._readable(), PAIRS))

    def _readable(self) -> Iterator[tuple[Sample, Image.Image, int]]:
        data, config = self.held_out, self.recipe.input
        masks = self.recipe.task == "segmentation" or self.recipe.head.masks
        change = partial(eval_dense, config=config)
        for index in _order(len(data.entries), self.recipe.seed):
            try:
                sample = read_sample(data, index, channels=len(config.mean), masks=masks, change=change)
            except (DataError, OSError):  # evaluation names it
                continue
            left = captioned(Image.fromarray(annotated(_larger(sample), data.classes)), "annotated", SIDE_PX)
            size = (sample.image.shape[0], sample.image.shape[1])
            room = max(_FEWEST, 2 * len(sample.instances or ()))
            yield replace(sample, instances=None, semantic=None, size=size), left, room


def _found(model: Any, sample: Sample, recipe: Any, classes: tuple[str, ...], room: int) -> NDArray[np.uint8]:
    """(H, W, 3) with the surest of what a detector finds, `room` at most; the best score is on top."""
    found = find(model, [sample], recipe)[0].above(LEAST).first(room)
    labels, back = found.labels.tolist(), slice(None, None, -1)
    names = names_of(labels, found.scores.tolist(), classes)
    times = _times(sample.image)
    masks = [encode(_enlarged(render(mask, *sample.image.shape[:2]), times)) for mask in found.masks or ()]
    pixels = _enlarged(visible(sample.image), times)
    return draw_objects(pixels, times * found.boxes[back], colours_of(labels, classes)[back], names[back], masks[back])


def _mapped(model: Any, sample: Sample, recipe: Any, classes: tuple[str, ...], _: int) -> NDArray[np.uint8]:
    """(H, W, 3) tinted by the classes that a segmenter gives."""
    answer = log_probabilities(model, sample.image, recipe, sample.size).argmax(0)
    times = _times(sample.image)
    pixels, labels = (_enlarged(each, times) for each in (visible(sample.image), answer.cpu().numpy().astype(np.uint8)))
    return draw_map(pixels, labels, classes)


class _Labelled:
    """Images with labels, as evaluation sees them: the label, and the likeliest classes; blue frames where it is right."""

    legend = "first the label, then what is predicted; blue is right, orange wrong"

    def __init__(self, recipe: ClassificationRecipe, held_out: Dataset):
        self.recipe, self.held_out = recipe, held_out

    def images(self, model: nn.Module) -> list[Image.Image]:
        if not len(self._places):
            return []
        device = next(model.parameters()).device
        x = normalise(torch.from_numpy(self._pixels).to(device), self.recipe.input)
        answers = logits(model, x.contiguous(memory_format=torch.channels_last)).float()
        several = self.recipe.labels == "multi"
        scores = (answers.sigmoid() if several else answers.softmax(1)).cpu().numpy()
        pairs = zip(self._pixels, self.held_out.labels(self._places), scores, strict=True)
        return [self._drawn(*each) for each in pairs]

    @cached_property
    def _shown(self) -> tuple[NDArray[Any], list[int]]:
        """(N, H, W, C) images that can be read, and their places."""
        order = _order(len(self.held_out.entries), self.recipe.seed)[: 2 * LABELLED]
        seen = shown(self.held_out, self.recipe.input, order)
        return seen.images[:LABELLED], seen.indices[:LABELLED]

    @property
    def _pixels(self) -> NDArray[Any]:
        return self._shown[0]

    @property
    def _places(self) -> list[int]:
        return self._shown[1]

    def _drawn(self, pixels: NDArray[Any], label: Any, scores: NDArray[np.float32]) -> Image.Image:
        """One image; `label` is its class, or a mark for each."""
        classes, best = self.held_out.classes, np.argsort(-scores, kind="stable")
        has = {int(label)} if np.ndim(label) == 0 else set(np.flatnonzero(label == 1).tolist())
        given = {int(best[0])} if np.ndim(label) == 0 else set(np.flatnonzero(scores >= _LIKELY).tolist())
        known = set(range(len(classes))) if np.ndim(label) == 0 else set(np.flatnonzero(label >= 0).tolist())
        named = best[: max(_LINES, len(given))].tolist()
        lines = [Line(", ".join(classes[place] for place in sorted(has)) or "no label")]
        lines += [Line(classes[place], place, float(scores[place])) for place in named]
        colour = ON_IMAGES["right" if given & known == has & known else "wrong"]
        return ImageOps.expand(
            Image.fromarray(draw_lines(_enlarged(visible(pixels), _times(pixels)), lines)), _FRAME_PX, colour
        )


def _larger(sample: Sample) -> Sample:
    """At least as large as names need, with what is annotated."""
    times, (height, width) = _times(sample.image), sample.image.shape[:2]
    return replace(resize(sample, (times * height, times * width)), image=_enlarged(visible(sample.image), times))


def _times(pixels: NDArray[Any]) -> int:
    """How many times (H, W, ...) `pixels` are enlarged, so that names have room."""
    return max(1, round(_NAMED_PX / max(pixels.shape[:2])))


def _enlarged(pixels: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    """(H, W, ...) so many times as high and wide; each pixel becomes a square."""
    return pixels.repeat(times, 0).repeat(times, 1)


def _order(n: int, seed: int) -> list[int]:
    """Places of `n` images in an order that follows from `seed`."""
    return np.random.default_rng(np.random.SeedSequence(seed & 0xFFFF_FFFF_FFFF_FFFF)).permutation(n).tolist()
