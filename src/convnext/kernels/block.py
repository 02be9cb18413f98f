"""The contract of the fused ConvNeXt block: its weights as one value, folding, and what every kernel must compute.

    y = x + keep * gamma * project(grn(gelu(expand(norm(spatial(x))))))      V1 has no grn, V2 no gamma

Axes: N images, C channels, H W feature rows and columns, E = 4C expanded channels, K kernel.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class BlockWeights(NamedTuple):
    """The parameters of a block: as a network holds them, or after `folded` without those that stand behind a None.

    The order is that of the operators in gpu/ and, up to gamma, of the structures in cpu/.
    """

    spatial: Tensor  # (C, 1, K, K), K odd
    spatial_bias: Tensor | None  # (C,)
    norm: Tensor | None  # (C,) scale of the LayerNorm; None: 1
    norm_bias: Tensor | None  # (C,) its shift; None: 0
    expand: Tensor  # (E, C)
    expand_bias: Tensor  # (E,)
    project: Tensor  # (C, E)
    project_bias: Tensor  # (C,)
    gamma: Tensor | None = None  # (C,) layer scale; None: 1
    grn: Tensor | None = None  # (E,) weight of V2's global response normalization; None: there is none
    grn_bias: Tensor | None = None  # (E,)
    eps: float = 1e-6  # of the LayerNorm, and of the global response normalization

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All but eps."""
        return self[:-1]

    def map(self, change: Callable[[Tensor], Tensor]) -> "BlockWeights":
        """The same with every tensor changed."""
        changed: dict[str, Any] = {
            name: change(each) for name, each in self._asdict().items() if isinstance(each, Tensor)
        }
        return self._replace(**changed)


def schema(value: type, before: str, after: str, returns: str) -> str:
    """torch's schema of an operator that takes the fields of a NamedTuple of tensors and floats, one by one.

    `before` and `after`: the arguments on both sides of them, as schemas spell them.
    """
    spelled = {Tensor: "Tensor", Tensor | None: "Tensor?", float: "float"}
    fields = [f"{spelled[kind]} {name}" for name, kind in value.__annotations__.items()]
    return f"({', '.join(filter(None, (before, *fields, after)))}) -> {returns}"


def fold_affine(
    weight: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Weight and bias with which a layer answers `x` as it answered `scale * x + shift`.

    weight (outputs, inputs, ...), bias (outputs,), scale and shift (inputs,); None: 0, 1, 0. Computed in `dtype`; what does
    not change comes back as it is.
    """
    if bias is None:
        bias = weight.new_zeros(weight.shape[0])
    if weight.is_meta:
        # Its values come from a file, later. Arithmetic on none would load torch's compiler: 1 s and 120 MB.
        return weight, bias
    wide, over = weight.to(dtype), (slice(None), *[None] * (weight.ndim - 2))
    if shift is not None:
        shift = shift.to(dtype)
        shifted = wide @ shift if wide.ndim == 2 else (wide * shift[over]).flatten(1).sum(1)
        bias = bias.to(dtype) + shifted
    if scale is not None:
        weight = wide * scale.to(dtype)[over]
    return weight, bias


def folded(weights: BlockWeights) -> BlockWeights:
    """The same block without norm's scale and shift, gamma and grn's bias: they are inside `expand` and `project`.

    Computed in float64 and rounded once, to what the weights are in.
    """
    double, given = torch.float64, weights
    expand = fold_affine(given.expand, given.expand_bias, given.norm, given.norm_bias, double)
    project = fold_affine(given.project, given.project_bias, None, given.grn_bias, double)
    if given.gamma is not None and not given.gamma.is_meta:
        gamma = given.gamma.double()
        project = gamma[:, None] * project[0].double(), gamma * project[1].double()
    return weights._replace(
        norm=None,
        norm_bias=None,
        expand=expand[0].to(given.expand.dtype),
        expand_bias=expand[1].to(given.expand_bias.dtype),
        project=project[0].to(given.project.dtype),
        project_bias=project[1].to(given.project_bias.dtype),
        gamma=None,
        grn_bias=None,
    )


def plain(x: Tensor, weights: BlockWeights, keep: Tensor | None = None) -> Tensor:
    """The block on x (N, C, H, W) in plain torch, as `models.convnext.Block` computes it: any dtype, any device.

    keep (N,): factors of the branch from stochastic depth, 0 for a dropped image.
    """
    w = weights
    y = F.conv2d(x, w.spatial, w.spatial_bias, padding=w.spatial.shape[-1] // 2, groups=w.spatial.shape[0])
    y = F.layer_norm(y.permute(0, 2, 3, 1), y.shape[1:2], w.norm, w.norm_bias, w.eps)  # (N, H, W, C)
    y = F.gelu(F.linear(y, w.expand, w.expand_bias))  # (N, H, W, E)
    if w.grn is not None:
        energy = torch.linalg.vector_norm(y, dim=(1, 2), keepdim=True)  # (N, 1, 1, E)
        normalized = w.grn * (y * (energy / (energy.mean(-1, keepdim=True) + w.eps)))
        y = y + (normalized if w.grn_bias is None else w.grn_bias + normalized)
    y = F.linear(y, w.project, w.project_bias)
    if w.gamma is not None:
        y = w.gamma * y
    if keep is not None:
        y = y * keep.to(y.dtype).view(-1, 1, 1, 1)
    return x + y.permute(0, 3, 1, 2)
