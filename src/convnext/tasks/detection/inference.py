"""From samples to what was found in them, in pixels of the original images; evaluation and prediction both go this way.

Axes: N images, C channels, H W rows and columns of the padded batch, D detections, S side of a predicted mask.
"""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convnext.config import DetectionRecipe
from convnext.data.annotated_transforms import stacked
from convnext.data.sample import Instances, Sample
from convnext.data.transforms import normalise
from convnext.kernels.transfer import packed, sent, sent_together, unpacked
from convnext.tasks.detection.found import Found, inside, outlines
from convnext.tasks.detection.types import Detections, Images, NoNumbers, Targets
from convnext.tasks.finite import NotFinite
from convnext.tasks.together import by_halves


def images_of(samples: Sequence[Sample], recipe: DetectionRecipe, device: torch.device) -> Images:
    """A batch of samples on `device`: normalised, then zeros right of and below each."""
    return _images(sent(_pixels(samples, recipe), device), samples, recipe)


def annotated(
    samples: Sequence[Sample], recipe: DetectionRecipe, device: torch.device
) -> tuple[Images, tuple[Targets, ...]]:
    """The same and the objects of each, in one copy to a device that works through a queue."""
    known = [targets_of(sample.instances).parts() for sample in samples]
    pixels, *rest = sent_together([_pixels(samples, recipe), *chain.from_iterable(known)], device)
    parts = iter(rest)
    targets = tuple(Targets.of_parts(*islice(parts, len(each))) for each in known)
    return _images(pixels, samples, recipe), targets


def _pixels(samples: Sequence[Sample], recipe: DetectionRecipe) -> Tensor:
    return torch.from_numpy(stacked([sample.image for sample in samples], recipe.input.multiple))


def _images(pixels: Tensor, samples: Sequence[Sample], recipe: DetectionRecipe) -> Images:
    x = normalise(pixels, recipe.input)
    sizes = tuple((sample.image.shape[0], sample.image.shape[1]) for sample in samples)
    for image, (height, width) in zip(x, sizes, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return Images(x, sizes)


def targets_of(found: Instances | None) -> Targets:
    """The objects of one sample as tensors on the host; none where nothing is annotated."""
    if found is None:
        return Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    masks = None if found.masks is None else torch.from_numpy(np.ascontiguousarray(found.masks))
    boxes, labels, crowd = (torch.from_numpy(np.array(each)) for each in (found.boxes, found.labels, found.crowd))
    return Targets(boxes, labels, masks, crowd)


def find(model: Any, samples: Sequence[Sample], recipe: DetectionRecipe) -> list[Found]:
    """What `model`, in its present mode and precision, finds in samples of one size as evaluation sees them.

    By halves where memory runs out. Raises NotFinite with the name of the image.
    """
    device = next(model.parameters()).device

    def found(some: Sequence[Sample]) -> list[Detections]:
        with named(some[0]) if len(some) == 1 else contextlib.nullcontext():
            detections: list[Detections] = model.detect(images_of(some, recipe, device))
        return detections

    answers = on_host(by_halves(samples, found, also=NoNumbers))
    return [in_original(answer, sample) for answer, sample in zip(answers, samples, strict=True)]


@contextlib.contextmanager
def named(sample: Sample) -> Iterator[None]:
    """NotFinite, with the image's name, where what a detector makes of `sample` meanwhile is inf or nan."""
    try:
        yield
    except NoNumbers:
        raise NotFinite(sample.path) from None


def on_host(found: Sequence[Detections]) -> Sequence[Detections]:
    """The same detections on the host, in one copy."""
    if found[0].boxes.is_cpu:
        return found
    parts = [part for each in found for part in each.parts()]
    each = len(parts) // len(found)
    held = iter(unpacked(packed(parts).cpu(), parts))
    return [Detections(*islice(held, each)) for _ in found]


def in_original(found: Detections, sample: Sample) -> Found:
    """Detections of a resized sample, on the host, brought back to its original image; masks are cut out at 0.5."""
    back = found.resized((sample.image.shape[0], sample.image.shape[1]), sample.size)
    boxes = inside(back.boxes.float().numpy(), sample.size)
    masks = None if back.masks is None else outlines(back.masks.numpy(), boxes, sample.size)
    scores, labels = back.scores.float().numpy(), back.labels.numpy()
    return Found(sample.path, sample.image_id, sample.size, boxes, scores, labels, masks)
