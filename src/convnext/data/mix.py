"""What training does to a whole batch: random erasing, then mixup or cutmix, with label smoothing inside the targets.

Random erasing: arXiv 1708.04896. Mixup: 1710.09412. CutMix: 1905.04899. The conventions are timm's, which the paper
trained with: one lambda a batch, partners from the reversed batch, cutmix's lambda from the true area of its box. Each
process has the images of some slots of the batch, both of a pair or none (`slots`): so all of them mix as one would.
Axes: N images, C channels, H W rows and columns, K classes.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnext.config import AugmentConfig
from convnext.data.labelled import UNKNOWN
from convnext.kernels.transfer import sent

_ERASED_AREA = (0.02, 1 / 3)  # of the image
_ERASED_ASPECT = 0.3  # height over width, from this to its inverse
_TRIES = 10
_ERASING = 1  # what tells the numbers of erasing a slot from those of mixing


def mix(
    x: Tensor,
    labels: Tensor,
    classes: int,
    augment: AugmentConfig,
    seed: tuple[int, ...],
    slots: NDArray[np.int64] | None = None,
) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) normalised float and (N,) int64 -> the same images, changed in place, and (N, K) float targets.

    Labels may be (N, K) int8 marks of several labels an image: targets are NaN where a mark is unknown, and where an
    image is mixed with one that it is unknown of. How the batch is mixed is a function of `seed`, what is erased of an image
    one of `seed` and its slot of (N,) `slots` (None: all). Any N will do: in an odd batch the middle image meets itself.
    """
    words = [word & 0xFFFF_FFFF_FFFF_FFFF for word in seed]
    if augment.erasing:
        own = range(len(x)) if slots is None else slots.tolist()
        decided = [np.random.default_rng([*words, slot, _ERASING]) for slot in own]
        _erase(x, {place: rng for place, rng in enumerate(decided) if rng.random() < augment.erasing})
    share = _mix_images(x, augment, np.random.default_rng(words))
    targets = _smooth(labels, classes, augment.smoothing)
    return x, targets if share == 1 else targets * share + targets.flip(0) * (1 - share)


def _erase(x: Tensor, images: dict[int, np.random.Generator]) -> None:
    """Fill one rectangle of each of these `images` of `x`, by place, with standard normal noise.

    The noise is drawn on the host, so that it is the same on every device, and goes there in one piece.
    """
    height, width = x.shape[2:]
    noise, places, pixels = torch.Generator(), [], []
    for image, rng in images.items():
        noise.manual_seed(int(rng.integers(2**62)))
        box = _rectangle(height, width, rng)
        if box:
            top, left, tall, wide = box
            rows, columns = np.arange(top, top + tall), np.arange(left, left + wide)
            places.append(((image * height + rows[:, None]) * width + columns).ravel())
            pixels.append(torch.randn((x.shape[1], tall, wide), generator=noise, dtype=x.dtype).flatten(1).t())
    if places:
        there, values = sent(torch.from_numpy(np.concatenate(places)), x.device), sent(torch.cat(pixels), x.device)
        image_of, row_of = there // (height * width), there // width % height
        x.permute(0, 2, 3, 1).index_put_((image_of, row_of, there % width), values)


def _rectangle(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
    """(top, left, rows, columns) of one inside an image; none when ten tries do not fit."""
    for _ in range(_TRIES):
        area = rng.uniform(*_ERASED_AREA) * height * width
        aspect = math.exp(rng.uniform(math.log(_ERASED_ASPECT), -math.log(_ERASED_ASPECT)))
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < tall < height and 0 < wide < width:
            return int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1)), tall, wide
    return None


def _mix_images(x: Tensor, augment: AugmentConfig, rng: np.random.Generator) -> float:
    """Mix `x` with its reverse in place; the share that each image keeps of itself."""
    if not (augment.mixup or augment.cutmix) or rng.random() >= augment.mix_prob:
        return 1.0
    cut = bool(augment.cutmix) and (not augment.mixup or rng.random() < augment.mix_switch)
    alpha = augment.cutmix if cut else augment.mixup
    share = float(rng.beta(alpha, alpha))
    if not cut:
        x.lerp_(x.flip(0), 1 - share)
        return share
    height, width = x.shape[2:]
    top, bottom = _side(height, share, rng)
    left, right = _side(width, share, rng)
    x[:, :, top:bottom, left:right] = x[:, :, top:bottom, left:right].flip(0)
    return 1 - (bottom - top) * (right - left) / (height * width)


def _side(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """One side of the cutmix box: sqrt(1 - share) of `length` about a uniform centre, clipped at the edges."""
    cut, centre = int(length * math.sqrt(1 - share)), int(rng.integers(length))
    return max(0, centre - cut // 2), min(length, centre + (cut + 1) // 2)


def _smooth(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """(N,) -> (N, K): smoothing / K everywhere, and 1 - smoothing more at the label. Of marks half of smoothing at a no."""
    if labels.ndim == 2:
        soft = labels * (1 - smoothing) + smoothing / 2
        return torch.where(labels == UNKNOWN, torch.nan, soft)
    low = smoothing / classes
    targets = torch.full((len(labels), classes), low, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + low)
