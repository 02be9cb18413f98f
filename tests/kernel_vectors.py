"""Writes what blocks of ConvNeXt answer in float64, and their gradients, for kernel_vectors.cpp on a machine without Python.

    python tests/kernel_vectors.py FILE

Little-endian: the number of cases as int64; of each (N, H, W, C, E, K, gamma, grn) as int64, then float32: x, the weights
that are there in the order of training.h, the gradient by the output, the output, and the gradients by x and by each weight.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from convnext.models.convnext import Block

CASES = [  # C, N, H, W, kernel, layer scale, GRN: the widths of atto and T, odd widths and maps, one pixel, other kernels
    (96, 1, 7, 7, 7, True, False),
    (40, 2, 5, 9, 7, False, False),
    (17, 2, 5, 3, 7, True, False),
    (24, 1, 1, 1, 7, True, False),
    (33, 1, 6, 8, 9, True, False),
    (40, 2, 6, 7, 7, False, True),
    (17, 1, 4, 5, 3, False, True),
]
LAYERS = ("spatial.weight", "spatial.bias", "norm.weight", "norm.bias", "expand.weight", "expand.bias")
AFTER = ("project.weight", "project.bias", "gamma", "grn.weight", "grn.bias")


def case(width: int, n: int, h: int, w: int, kernel: int, scale: bool, grn: bool) -> list[np.ndarray]:
    """The numbers of one case."""
    torch.manual_seed(width)
    block = Block(width, kernel=kernel, layer_scale=1.0 if scale else None, grn=grn, drop_path=0.0)
    for p in block.parameters():
        p.data = torch.randn(p.shape) * (0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
    block.norm.weight.data.add_(1)
    x, gradient = torch.randn(n, width, h, w), torch.randn(n, width, h, w)
    named = dict(block.double().named_parameters())
    weights = [named[name] for name in (*LAYERS, *AFTER) if name in named]
    assert len(weights) == len(named)
    given = x.double().requires_grad_()
    y = block(given)
    found = torch.autograd.grad(y, [given, *weights], gradient.double())
    maps = [x, *weights, gradient, y, *found]
    rows = [each.permute(0, 2, 3, 1) if each.shape == x.shape else each for each in maps]
    head = np.array([n, h, w, width, len(named["expand.bias"]), kernel, scale, grn], "<i8")
    return [head, *(each.detach().numpy().astype("<f4").ravel() for each in rows)]


def main() -> None:
    """Write the file."""
    with Path(sys.argv[1]).open("wb") as file:
        file.write(np.array([len(CASES)], "<i8").tobytes())
        for each in CASES:
            file.writelines(part.tobytes() for part in case(*each))


if __name__ == "__main__":
    main()
