"""From a network of fixed scale to a class for every pixel of an image of any size.

One scale: the image at once, or windows that slide over it, their logits averaged where they overlap. Several scales
and flips: the probabilities of all of them averaged. Always back at the size that was asked for.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import SegmentationHeadConfig, SegmentationRecipe
from convnext.data.sample import Sample
from convnext.data.transforms import normalise
from convnext.kernels.transfer import packed, sent, unpacked
from convnext.tasks.segmentation.exact import labelled
from convnext.tasks.segmentation.parts import resized
from convnext.tasks.segmentation.places import seen, windows
from convnext.tasks.together import by_halves

Network = nn.Module | Callable[[Tensor], Tensor]  # (N, C, H, W) -> (N, K, H, W)
MOST_LOGITS = 2**28  # of an image at once: 1 GiB in float32, and its log-probabilities as much again


def predict(
    model: nn.Module, images: Sequence[NDArray[np.uint8]], recipe: SegmentationRecipe, *, multi_scale: bool = False
) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Of (H, W, C) uint8 images of one size (H, W) classes and (H, W) their probabilities, as evaluation sees them.

    By halves where memory runs out.
    """
    size = (images[0].shape[0], images[0].shape[1])
    shown = [seen(recipe.input, Sample(image, None, None, "", 0, size)).image for image in images]
    if in_strips(recipe, size, multi_scale=multi_scale):
        found = (labelled(seen_logits(model, each, recipe).cpu().numpy(), size) for each in shown)
        return [(one.mask, one.scores) for one in found]

    def answered(some: Sequence[NDArray[np.uint8]]) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        best = (each.max(0) for each in log_probabilities_of(model, some, recipe, size, multi_scale=multi_scale))
        answers = [part for scores, labels in best for part in (labels.to(torch.uint8), scores.exp())]
        parts = [part.numpy() for part in unpacked(packed(answers).cpu(), answers)]
        return list(zip(parts[::2], parts[1::2], strict=True))

    return by_halves(shown, answered)


def in_strips(recipe: SegmentationRecipe, size: tuple[int, int], *, multi_scale: bool) -> bool:
    """Whether the logits of all pixels of an image of `size` are never held at once, as they would take too much memory.

    150 classes of 8,000 x 8,000 pixels are 38 GB. In strips scores differ by 1e-6 from those of an image at once.
    """
    return not multi_scale and recipe.head.classes * size[0] * size[1] > MOST_LOGITS


def log_probabilities(
    model: nn.Module,
    image: NDArray[np.uint8],
    recipe: SegmentationRecipe,
    size: tuple[int, int],
    *,
    multi_scale: bool = False,
) -> Tensor:
    """(H, W, C) uint8 at the size of evaluation -> (K, *size) float32."""
    return log_probabilities_of(model, [image], recipe, size, multi_scale=multi_scale)[0]


def log_probabilities_of(
    model: nn.Module,
    images: Sequence[NDArray[np.uint8]],
    recipe: SegmentationRecipe,
    size: tuple[int, int],
    *,
    multi_scale: bool = False,
) -> list[Tensor]:
    """Of (H, W, C) uint8 images of one size, that of evaluation, (K, *size) float32 each."""
    device = next(model.parameters()).device
    x = normalise(sent(torch.from_numpy(np.stack(images)), device), recipe.input)
    if multi_scale:
        return [each.log() for each in multi_scale_probabilities(model, x, recipe.head, size)]
    return [each.log_softmax(0) for each in logits_of(model, x, recipe.head, size)]


def whole_logits(network: Network, x: Tensor, multiple: int = 32) -> Tensor:
    """(N, K, H, W) logits of (N, C, H, W) at once; it is padded, right and below, to a multiple, and cut back."""
    height, width = x.shape[-2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    return network(F.pad(x, padding) if any(padding) else x).float()[..., :height, :width]


def sliding_logits(network: Network, x: Tensor, *, window: int, stride: int, batch: int = 4) -> Tensor:
    """(N, K, H, W) logits of (N, C, H, W): the mean over the windows that see a pixel.

    A side shorter than the window is padded with zeros, which is the mean colour. `batch` windows run together.
    """
    height, width = x.shape[-2:]
    short = (max(0, window - height), max(0, window - width))
    x = F.pad(x, (0, short[1], 0, short[0])) if any(short) else x
    places = list(windows(x.shape[-2], x.shape[-1], window, stride))
    total: Tensor | None = None
    seen = torch.zeros(x.shape[-2:], device=x.device)
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        logits = network(torch.cat([x[..., rows, columns] for rows, columns in some])).float()
        if total is None:
            total = torch.zeros(x.shape[0], logits.shape[1], *x.shape[-2:], device=x.device)
        for (rows, columns), part in zip(some, logits.split(x.shape[0]), strict=True):
            total[..., rows, columns] += part
            seen[rows, columns] += 1
    assert total is not None, "an image has one window at least"
    return (total / seen)[..., :height, :width]


def seen_logits(model: nn.Module, image: NDArray[np.uint8], recipe: SegmentationRecipe) -> Tensor:
    """(H, W, C) uint8 at the size of evaluation -> (K, H, W) float32 logits of that size, at one scale."""
    device = next(model.parameters()).device
    x = normalise(torch.from_numpy(np.ascontiguousarray(image))[None].to(device), recipe.input)
    return logits_of(model, x, recipe.head, x.shape[-2:])[0]


def logits_of(network: Network, x: Tensor, config: SegmentationHeadConfig, size: Sequence[int]) -> Tensor:
    """(N, K, *size) float32 logits by the testing of `config` at one scale."""
    if not config.window_px:
        return resized(whole_logits(network, x), size)
    return resized(sliding_logits(network, x, window=config.window_px, stride=config.stride), size)


def probabilities(network: Network, x: Tensor, config: SegmentationHeadConfig, size: Sequence[int]) -> Tensor:
    """(N, K, *size) at one scale; every pixel sums to 1."""
    return logits_of(network, x, config, size).softmax(1)


def multi_scale_probabilities(
    network: Network,
    x: Tensor,
    config: SegmentationHeadConfig,
    size: Sequence[int],
    *,
    scales: Sequence[float] = (),
    flip: bool = True,
    slide: bool = False,
) -> Tensor:
    """(N, K, *size): the mean of the probabilities at every scale, each also mirrored, over the image at once.

    `scales` are relative to `x`; empty takes those of `config`. `slide` moves the window of `config` instead.
    """
    ways = [False, True] if flip else [False]
    config = config if slide else config.model_copy(update={"window_px": 0, "stride_px": 0})
    found: Tensor | None = None
    scales = scales or config.test_scales
    for scale in scales:
        shown = _scaled(x, scale)
        for mirrored in ways:
            part = probabilities(network, shown.flip(-1) if mirrored else shown, config, size)
            part = part.flip(-1) if mirrored else part
            found = part if found is None else found.add_(part)
    assert found is not None, "there is one scale at least"
    return found / (len(scales) * len(ways))


def _scaled(x: Tensor, scale: float) -> Tensor:
    """`x` with both sides times `scale`, at least one pixel; smoothed where it shrinks, so that nothing aliases."""
    size = tuple(max(1, math.floor(side * scale + 0.5)) for side in x.shape[-2:])
    if size == tuple(x.shape[-2:]):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=scale < 1)
