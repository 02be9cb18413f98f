# mypy: ignore-errors
"""Triton kernels: what stands around a matmul that a library computes, one pass over its answer each.

A library's own epilogue knows a bias and the GELU by tanh; the network's GELU is the exact one, and layer scale, stochastic
depth and a residual of another dtype it does not know.

Axes: M positions, E = 4C expanded channels, C channels.
"""

import triton
import triton.language as tl

from convnext.kernels.gpu.triton_gemm import gelu, gelu_and_derivative


@triton.jit
def apply_gelu(before, answer, count, block: tl.constexpr, fast: tl.constexpr):
    """answer = gelu(before), `count` values each."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask = at < count
    x = tl.load(before + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(answer + at, gelu(x, fast).to(answer.dtype.element_ty), mask=mask)


@triton.jit
def add_residual(
    branch,
    gamma,
    kept,
    residual,
    answer,
    positions,
    wide,
    area,
    lines: tl.constexpr,
    block: tl.constexpr,
    scaled: tl.constexpr,
    drops: tl.constexpr,
):
    """answer = residual + kept[sample] * gamma * branch, (M, C) each; a sample has `area` positions."""
    groups = tl.cdiv(wide, block)
    columns = tl.program_id(0) % groups * block + tl.arange(0, block)
    rows = tl.program_id(0) // groups * lines + tl.arange(0, lines)
    live = columns < wide
    mask = (rows < positions)[:, None] & live[None, :]
    offsets = rows.to(tl.int64)[:, None] * wide + columns[None, :]
    value = tl.load(branch + offsets, mask=mask, other=0.0).to(tl.float32)
    if scaled:
        value *= tl.load(gamma + columns, mask=live, other=0.0).to(tl.float32)[None, :]
    if drops:
        value *= tl.load(kept + tl.minimum(rows, positions - 1) // area).to(tl.float32)[:, None]
    value += tl.load(residual + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(answer + offsets, value.to(answer.dtype.element_ty), mask=mask)


@triton.jit
def apply_derivative(
    push,
    before,
    kept,
    answer,
    hidden,
    sums,
    positions,
    wide,
    area,
    stripe: tl.constexpr,
    lines: tl.constexpr,
    block: tl.constexpr,
    drops: tl.constexpr,
    fast: tl.constexpr,
):
    """answer = kept * push * gelu'(before), hidden = kept * gelu(before), sums = answer summed over a stripe of rows."""
    groups = tl.cdiv(wide, block)
    columns = tl.program_id(0) % groups * block + tl.arange(0, block)
    begin = tl.program_id(0) // groups
    live = columns < wide
    total = tl.zeros((block,), dtype=tl.float32)
    for step in range(0, stripe, lines):
        rows = begin * stripe + step + tl.arange(0, lines)
        mask = (rows < positions)[:, None] & live[None, :]
        offsets = rows.to(tl.int64)[:, None] * wide + columns[None, :]
        x = tl.load(before + offsets, mask=mask, other=0.0).to(tl.float32)
        active, derivative = gelu_and_derivative(x, fast)
        value = tl.load(push + offsets, mask=mask, other=0.0).to(tl.float32) * derivative
        if drops:
            scale = tl.load(kept + tl.minimum(rows, positions - 1) // area).to(tl.float32)[:, None]
            value *= scale
            active *= scale
        total += tl.sum(value, axis=0)
        tl.store(answer + offsets, value.to(answer.dtype.element_ty), mask=mask)
        tl.store(hidden + offsets, active.to(hidden.dtype.element_ty), mask=mask)
    tl.store(sums + begin.to(tl.int64) * wide + columns, total, mask=live)
