"""The block and the downsampling layer with 8-bit matmuls: how weights become integers, and what every kernel must compute.

A matmul takes unsigned bytes and signed weights and sums their products exactly. An activation x is held as the byte
x * gain + offset, rounded and cut off at 0 and 255: one gain for all channels, because a norm has made them alike. The
weights have one scale for each output; what the offset adds is inside the bias. GELU is a table from byte to byte.
Convolutions, norms, residuals and V2's response normalization are float32.

Axes: N images, C channels, H W feature rows and columns, E = 4C expanded channels, K kernel, P patch, O outputs, I inputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from convnext.kernels.block import BlockWeights

MOST = 127  # of a weight, either way
LOWEST = -3.5  # of what GELU takes: below, its answers are next to 0, and more steps are left for the others
EPS = 1e-6  # of V2's response normalization


class BlockRanges(NamedTuple):
    """The least and the most of a block's activations, (2,) each, as images showed."""

    normed: Tensor  # of what `expand` takes
    hidden: Tensor  # of what GELU takes
    mixed: Tensor | None = None  # of what V2's response normalization gives


class Int8Block(NamedTuple):
    """A block whose matmuls are of bytes; what is not said to be an integer is float32."""

    spatial: Tensor  # (C, 1, K, K), K odd
    spatial_bias: Tensor  # (C,)
    normed: Tensor  # (2,) gain and offset of the normed pixels
    expand: Tensor  # (E, C) int8
    expand_scale: Tensor  # (E,) sums * scale + bias is the index of `gelu`
    expand_bias: Tensor  # (E,)
    gelu: Tensor  # (256,) uint8
    project: Tensor  # (C, E) int8
    project_scale: Tensor  # (C,)
    project_bias: Tensor  # (C,)
    grn: Tensor | None = None  # (E,) V2's
    mixed: Tensor | None = (
        None  # (4,) V2's: the byte of 0, EPS in steps of a byte, gain and offset behind the normalization
    )
    eps: float = 1e-6


class Int8Patch(NamedTuple):
    """A downsampling layer: a norm of every pixel, then a PxP convolution of stride P as a matmul of bytes."""

    normed: Tensor  # (2,) gain and offset of the normed pixels
    weight: Tensor  # (O, P, P, I) int8
    scale: Tensor  # (O,)
    bias: Tensor  # (O,)
    eps: float = 1e-6


def int8_block(weights: BlockWeights, ranges: BlockRanges) -> Int8Block:
    """The int8 form of a block that is `folded`."""
    assert weights.norm is None and weights.norm_bias is None and weights.gamma is None and weights.grn_bias is None
    weights = weights.map(lambda tensor: tensor.detach().double())
    normed = _held(*ranges.normed.double())
    expand, expand_scale, expand_bias = _integers(weights.expand, weights.expand_bias, normed)
    index = _held(ranges.hidden[0].double().clamp(min=LOWEST), ranges.hidden[1].double())
    values = F.gelu((torch.arange(256, dtype=torch.float64) - index[1]) / index[0])
    hidden = _held(values.min(), values.max(), whole=True)  # 0, nearly every hidden value of some channels, is exact
    table = (values * hidden[0] + hidden[1]).round().clamp(0, 255).to(torch.uint8)
    mixed, projected = None, hidden
    if weights.grn is not None:
        assert ranges.mixed is not None
        projected = _held(*ranges.mixed.double(), whole=True)
        mixed = torch.stack([hidden[1], EPS * hidden[0], projected[0] / hidden[0], projected[1]]).float()
    project, project_scale, project_bias = _integers(weights.project, weights.project_bias, projected)
    spatial, bias = weights.spatial.float(), weights.spatial_bias
    return Int8Block(
        spatial,
        spatial.new_zeros(len(spatial)) if bias is None else bias.float(),
        normed.float(),
        expand,
        (expand_scale * index[0]).float(),
        (expand_bias * index[0] + index[1]).float(),
        table,
        project,
        project_scale.float(),
        project_bias.float(),
        None if weights.grn is None else weights.grn.float(),
        mixed,
        weights.eps,
    )


def int8_patch(weight: Tensor, bias: Tensor, normed: Tensor, eps: float) -> Int8Patch:
    """The int8 form of a convolution (O, I, P, P) behind a norm whose answers lie between the two values of `normed`."""
    held, rows = _held(*normed.double()), weight.detach().double().permute(0, 2, 3, 1)  # (O, P, P, I)
    integers, scale, shift = _integers(rows.flatten(1), bias.detach().double(), held)
    return Int8Patch(held.float(), integers.view(rows.shape), scale.float(), shift.float(), eps)


def plain_block(x: Tensor, w: Int8Block) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
    """The block in plain torch, its sums those of the kernels to the bit."""
    y = F.conv2d(x, w.spatial, w.spatial_bias, padding=w.spatial.shape[-1] // 2, groups=len(w.spatial))
    y = F.layer_norm(y.permute(0, 2, 3, 1), y.shape[1:2], eps=w.eps)  # (N, H, W, C)
    index = to_bytes(sums(to_bytes(y, *w.normed), w.expand), w.expand_scale, w.expand_bias)
    hidden = w.gelu[index.long()]  # (N, H, W, E)
    if w.grn is not None:
        assert w.mixed is not None
        zero, smallest, gain, offset = w.mixed
        steps = hidden.float() - zero
        energy = torch.linalg.vector_norm(steps, dim=(1, 2), keepdim=True, dtype=torch.float64).float()  # (N, 1, 1, E)
        factor = gain * (1 + w.grn * (energy / (energy.mean(-1, keepdim=True) + smallest)))
        hidden = to_bytes(steps, factor, offset)
    return x + (sums(hidden, w.project) * w.project_scale + w.project_bias).permute(0, 3, 1, 2)


def plain_patch(x: Tensor, w: Int8Patch) -> Tensor:  # (N, I, H, W) -> (N, O, H // P, W // P)
    """The downsampling layer in plain torch; a map of fewer than P rows or columns is repeated to P first."""
    size = w.weight.shape[1]
    missing = [max(size - side, 0) for side in x.shape[2:]]
    x = F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
    y = to_bytes(F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=w.eps), *w.normed)
    patches = y.unfold(1, size, size).unfold(2, size, size)  # (N, H // P, W // P, I, P, P)
    found = sums(patches.permute(0, 1, 2, 4, 5, 3).flatten(3), w.weight.flatten(1))
    return (found * w.scale + w.bias).permute(0, 3, 1, 2)


def to_bytes(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """uint8: the nearest of x * gain + offset from 0 to 255."""
    return (x * gain + offset).round().clamp(0, 255).to(torch.uint8)


def sums(held: Tensor, weight: Tensor) -> Tensor:
    """(..., I) uint8 and (O, I) int8 -> (..., O): the exact sums of their products, as float32 holds them."""
    return F.linear(held.double(), weight.double()).float()


def _held(least: Tensor, most: Tensor, *, whole: bool = False) -> Tensor:
    """(2,) gain and offset that put `least` at 0 and `most` at 255; `whole`: an offset that is an integer, 0 held exactly."""
    gain = 255 / (most - least).clamp(min=1e-6)
    offset = -least * gain
    return torch.stack([gain, offset.round() if whole else offset])


def _integers(weight: Tensor, bias: Tensor, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """int8 weights (O, I) for inputs that are `held` as bytes; scale and bias (O,) that bring the sums to the answers."""
    gain, offset = held
    scale = weight.abs().amax(1).clamp(min=1e-30) / MOST
    integers = (weight / scale[:, None]).round()
    scale = scale / gain
    return integers.to(torch.int8), scale, bias - scale * offset * integers.sum(1)
