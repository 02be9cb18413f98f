# mypy: ignore-errors
# ruff: noqa: RUF005, SIM108 - Triton unpacks no tuples, and its branches are those of the compiler
"""Triton kernels: expand, GELU, project and the residual in one, with the hidden activations never in memory; float8.

A tile of positions stays on the chip while the weights stream past it, `block_h` hidden channels at a time: for C up to
256 that moves 3 values a position and channel through memory instead of 12. Wider blocks would re-read their weights too
often; they take the two kernels of `triton_gemm`.

Axes: M positions, E = 4C hidden channels, C = up to `chunks` * `block` channels.
"""

import triton
import triton.language as tl

from convnext.kernels.gpu.triton_gemm import gelu, multiply, place


@triton.jit
def mlp(
    x,
    expand,
    expand_bias,
    project,
    project_bias,
    gamma,
    kept,
    residual,
    answer,
    positions,
    channels,
    hidden,
    area,
    block_m: tl.constexpr,
    block_h: tl.constexpr,
    block: tl.constexpr,
    chunks: tl.constexpr,
    whole: tl.constexpr,
    scaled: tl.constexpr,
    drops: tl.constexpr,
    fast: tl.constexpr,
    precision: tl.constexpr,
):
    """answer = residual + kept[sample] * gamma * (gelu(x @ expand.T + expand_bias) @ project.T + project_bias)."""
    rows = tl.program_id(0) * block_m + tl.arange(0, block_m)
    inside = tl.minimum(rows, positions - 1)
    at = inside.to(tl.int64)[:, None] * channels
    inputs = ()
    totals = ()
    for k in tl.static_range(chunks):
        c = k * block + tl.arange(0, block)
        if whole:
            part = tl.load(x + at + c[None, :])
        else:
            part = tl.load(x + at + c[None, :], mask=(c < channels)[None, :], other=0.0)
        inputs = inputs + (part,)
        totals = totals + (tl.zeros((block_m, block), dtype=tl.float32),)
    for start in range(0, hidden, block_h):
        e = start + tl.arange(0, block_h)
        middle = tl.zeros((block_m, block_h), dtype=tl.float32)
        for k in tl.static_range(chunks):
            c = k * block + tl.arange(0, block)
            where = expand + e[None, :] * channels + c[:, None]
            if whole:
                weight = tl.load(where)
            else:
                weight = tl.load(where, mask=(c < channels)[:, None] & (e < hidden)[None, :], other=0.0)
            middle = multiply(inputs[k], weight, middle, precision)
        if whole:
            middle += tl.load(expand_bias + e).to(tl.float32)[None, :]
        else:
            middle += tl.load(expand_bias + e, mask=e < hidden, other=0.0).to(tl.float32)[None, :]
        active = gelu(middle, fast).to(x.dtype.element_ty)
        new = ()
        for k in tl.static_range(chunks):
            c = k * block + tl.arange(0, block)
            where = project + c[None, :] * hidden + e[:, None]
            if whole:
                weight = tl.load(where)
            else:
                weight = tl.load(where, mask=(c < channels)[None, :] & (e < hidden)[:, None], other=0.0)
            new = new + (multiply(active, weight, totals[k], precision),)
        totals = new
    for k in tl.static_range(chunks):
        c = k * block + tl.arange(0, block)
        live = c < channels
        value = totals[k] + tl.load(project_bias + c, mask=live, other=0.0).to(tl.float32)[None, :]
        if scaled:
            value *= tl.load(gamma + c, mask=live, other=0.0).to(tl.float32)[None, :]
        if drops:
            value *= tl.load(kept + inside // area).to(tl.float32)[:, None]
        mask = (rows < positions)[:, None] & live[None, :]
        value += tl.load(residual + at + c[None, :], mask=mask, other=0.0).to(tl.float32)
        tl.store(answer + at + c[None, :], value.to(answer.dtype.element_ty), mask=mask)


@triton.jit
def scaled_product(
    x,
    quanta,
    weight,
    weight_quanta,
    bias,
    gamma,
    residual,
    answer,
    answer_quanta,
    positions,
    wide,
    inner,
    pieces,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    group: tl.constexpr,
    whole: tl.constexpr,
    one_scale: tl.constexpr,
    hidden: tl.constexpr,
    scaled: tl.constexpr,
):
    """The product of two float8 matrices with scales, then GELU back to float8 (`hidden`), or the residual.

    `x` has one scale a position (`one_scale`), or one for each of `pieces` runs of `block_k` channels; `weight` has one
    an output. The sum of a run is scaled and added in float32: the matrix unit alone would keep 14 bits of it.
    """
    tile_m, tile_n = place(tl.program_id(0), tl.cdiv(positions, block_m), tl.cdiv(wide, block_n), group)
    rows = tile_m * block_m + tl.arange(0, block_m)
    columns = tile_n * block_n + tl.arange(0, block_n)
    inside, across = tl.minimum(rows, positions - 1), tl.minimum(columns, wide - 1)
    k = tl.arange(0, block_k)
    a = x + inside.to(tl.int64)[:, None] * inner + k[None, :]
    b = weight + across[None, :] * inner + k[:, None]
    total = tl.zeros((block_m, block_n), dtype=tl.float32)
    for piece in range(0, tl.cdiv(inner, block_k)):
        if whole:
            part = tl.dot(tl.load(a), tl.load(b))
        else:
            live = k < inner - piece * block_k
            part = tl.dot(tl.load(a, mask=live[None, :], other=0.0), tl.load(b, mask=live[:, None], other=0.0))
        if one_scale:
            total += part
        else:
            total += part * tl.load(quanta + inside.to(tl.int64) * pieces + piece)[:, None]
        a += block_k
        b += block_k
    if one_scale:
        total *= tl.load(quanta + inside)[:, None]
    total = total * tl.load(weight_quanta + across)[None, :] + tl.load(bias + across).to(tl.float32)[None, :]
    there = rows < positions
    mask = there[:, None] & (columns < wide)[None, :]
    offsets = rows.to(tl.int64)[:, None] * wide + columns[None, :]
    if hidden:
        total = tl.where(mask, gelu(total, True), 0.0)
        quantum = tl.maximum(tl.max(tl.abs(total), axis=1), 1e-12) / 448.0
        total = total / quantum[:, None]
        tl.store(answer_quanta + rows.to(tl.int64) * tl.cdiv(wide, block_n) + tile_n, quantum, mask=there)
    else:
        if scaled:
            total *= tl.load(gamma + across).to(tl.float32)[None, :]
        total += tl.load(residual + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(answer + offsets, total.to(answer.dtype.element_ty), mask=mask)
