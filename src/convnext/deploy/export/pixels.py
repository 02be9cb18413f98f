"""The evaluation transform as operations of a graph, so that an exported file takes images as they are decoded.

A resize is two products with weights that are computed from the size of the image, by the formula of Pillow, whose pixels
`data.evaluation` shows. Of 8-bit pixels the same bits come out: Pillow's weights are whole numbers there, and so are the
sums here, in two parts that float32 holds exactly. Images higher than twice their width are an exception: Pillow 13 resizes
their columns first, earlier ones and the graph their rows, which may move a pixel by a grey level, by more where noise
overshoots. OpenVINO computes the weights in float32, which moves a pixel in thousands by a grey level.
Axes: N images, H W pixel rows and columns, C channels, S pixels of a side that the network sees.
"""

import torch
from torch import Tensor, nn

from convnext.config import InputConfig, Statistics
from convnext.data.bands import kind_of_pixels
from convnext.data.evaluation import white_of

_HALF = 2**11  # Pillow's weights for 8 bits are whole numbers of 1 / 2^22; each is held in two halves
_WHITE = 255


class Normalised(nn.Module):
    """(N, C, H, W) pixels as float32 -> the same, (x / white - mean) / std."""

    gain: Tensor
    shift: Tensor

    def __init__(self, config: Statistics, white: int):
        super().__init__()
        mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (config.mean, config.std))
        self.register_buffer("gain", (1 / (white * std)).float())  # (C, 1, 1)
        self.register_buffer("shift", (-mean / std).float())

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return x * self.gain + self.shift


class Transformed(nn.Module):
    """(N, H, W, C) images as decoded, uint8 or float32 of wide bands -> (N, C, S, S) float32 as the network takes them."""

    def __init__(self, config: InputConfig):
        super().__init__()
        self.size, self.rounds = config.eval_size_px, not config.wide
        self.shorter = None if config.eval_resize == "warp" else int(self.size / config.eval_crop)
        self.normalised = Normalised(config, white_of(kind_of_pixels(config)))

    def forward(self, images: Tensor) -> Tensor:  # (N, H, W, C) -> (N, C, S, S)
        rows, columns = torch.arange(images.shape[1]), torch.arange(images.shape[2])
        x = images.permute(0, 3, 1, 2).float()
        across, down = self._weights(columns, rows), self._weights(rows, columns)
        if not self.rounds:
            return self.normalised(down.float() @ (x @ across.float().t()))
        x = _rounded(*(x @ torch.cat(_halves(across)).t()).split(self.size, 3))
        return self.normalised(_rounded(*(torch.cat(_halves(down)) @ x).split(self.size, 2)))

    def _weights(self, along: Tensor, across: Tensor) -> Tensor:
        """(S, L) of a side of L pixels, by the places of its pixels and of those of the other side."""
        length, other = along[-1:] + 1, across[-1:] + 1  # (1,): a number that every exporter leaves open
        first, new = torch.zeros_like(length), torch.full_like(length, self.size)
        if self.shorter is not None:
            new = (self.shorter * length // other).clamp(min=self.shorter)
            spare = new - self.size
            half = spare // 2
            first = half + spare % 2 * (half % 2)  # spare / 2, a half to even
        return bicubic(along, length, new, first + torch.arange(self.size))


def bicubic(along: Tensor, length: Tensor, new: Tensor, wanted: Tensor) -> Tensor:
    """(S, L) weights of `along`, the places of L pixels, for the pixels `wanted` of a side that is resized to `new`.

    Keys' cubic with a = -1/2, as wide as the larger of two pixels, an old and a new one; what lies outside of the image has
    no weight (Pillow, `Resample.c`). All places are whole numbers, so that nothing is lost before the one division.
    """
    distance = (2 * along + 1) * new - ((2 * wanted + 1) * length)[:, None]  # in halves of 1 / (new * length)
    t = (distance.double() / (2 * torch.maximum(new, length)).double()).abs()
    near = (1.5 * t - 2.5) * t * t + 1
    far = (((t - 5) * t + 8) * t - 4) * -0.5
    weights = torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))
    return weights / weights.sum(1, keepdim=True)


def _halves(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights as whole numbers high * 2^11 + low of 1 / 2^22, a half away from zero."""
    whole = (weights.abs() * _HALF**2 + 0.5).floor() * weights.sign()
    high = (whole / _HALF + 0.5).floor()
    return high.float(), (whole - high * _HALF).float()


def _rounded(high: Tensor, low: Tensor) -> Tensor:
    """8-bit values of sums high * 2^11 + low of 1 / 2^22, a half up."""
    return ((high + (low / _HALF).floor() + _HALF / 2) / _HALF).floor().clamp(0, _WHITE)
