# mypy: ignore-errors
# ruff: noqa: RUF005, SIM108 - Triton unpacks no tuples, and its branches are those of the compiler
"""Triton kernels: the gradients of expand, GELU and project, with the hidden activations never in memory.

Seven products in place of five: what stands before GELU, and the gradient there, are computed once for the gradient of
the input and once for those of the weights. In exchange nothing of the size (M, E) is written or read, which at few
channels costs more than the two products.

Axes: M positions, E = 4C hidden channels, C = up to `chunks` * `block` channels.
"""

import triton
import triton.language as tl

from convnext.kernels.gpu.triton_gemm import gelu_and_derivative, multiply


@triton.jit
def part_of(pointer, down, across, stride, step, tall, wide, whole: tl.constexpr):
    """The tile at rows `down` and columns `across`, zero beyond `tall` and `wide`; with `whole` nothing lies beyond."""
    where = pointer + down[:, None] * stride + across[None, :] * step
    if whole:
        tile = tl.load(where)
    else:
        tile = tl.load(where, mask=(down < tall)[:, None] & (across < wide)[None, :], other=0.0)
    return tile


@triton.jit
def mlp_input_gradient(
    normal,
    expand,
    bias,
    gradient,
    project,
    kept,
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
    drops: tl.constexpr,
    fast: tl.constexpr,
    precision: tl.constexpr,
):
    """answer = before' @ expand, where before' = kept * (gradient @ project) * gelu'(normal @ expand.T + bias).

    A tile of positions stays on the chip while the weights stream past it. `project` is (C, E).
    """
    rows = tl.program_id(0) * block_m + tl.arange(0, block_m)
    inside = tl.minimum(rows, positions - 1)
    at = inside.to(tl.int64)
    inputs = ()
    pushes = ()
    totals = ()
    for k in tl.static_range(chunks):
        c = k * block + tl.arange(0, block)
        inputs = inputs + (part_of(normal, at, c, channels, 1, positions, channels, whole),)
        pushes = pushes + (part_of(gradient, at, c, channels, 1, positions, channels, whole),)
        totals = totals + (tl.zeros((block_m, block), dtype=tl.float32),)
    for start in range(0, hidden, block_h):
        e = start + tl.arange(0, block_h)
        x = tl.zeros((block_m, block_h), dtype=tl.float32)
        push = tl.zeros((block_m, block_h), dtype=tl.float32)
        weights = ()
        for k in tl.static_range(chunks):
            c = k * block + tl.arange(0, block)
            weight = part_of(expand, e, c, channels, 1, hidden, channels, whole)
            weights = weights + (weight,)
            x = multiply(inputs[k], tl.trans(weight), x, precision)
            push = multiply(pushes[k], part_of(project, c, e, hidden, 1, channels, hidden, whole), push, precision)
        if whole:
            x += tl.load(bias + e).to(tl.float32)[None, :]
        else:
            x += tl.load(bias + e, mask=e < hidden, other=0.0).to(tl.float32)[None, :]
        _, derivative = gelu_and_derivative(x, fast)
        push *= derivative
        if drops:
            push *= tl.load(kept + inside // area).to(tl.float32)[:, None]
        low = push.to(normal.dtype.element_ty)
        new = ()
        for k in tl.static_range(chunks):
            new = new + (multiply(low, weights[k], totals[k], precision),)
        totals = new
    for k in tl.static_range(chunks):
        c = k * block + tl.arange(0, block)
        mask = (rows < positions)[:, None] & (c < channels)[None, :]
        offsets = at[:, None] * channels + c[None, :]
        tl.store(answer + offsets, totals[k].to(answer.dtype.element_ty), mask=mask)


@triton.jit
def mlp_weight_gradient(
    normal,
    expand,
    bias,
    gradient,
    project,
    kept,
    of_expand,
    of_project,
    sums,
    positions,
    channels,
    hidden,
    area,
    stripe,
    block_m: tl.constexpr,
    block_h: tl.constexpr,
    block: tl.constexpr,
    chunks: tl.constexpr,
    whole: tl.constexpr,
    drops: tl.constexpr,
    fast: tl.constexpr,
    precision: tl.constexpr,
):
    """of_expand[s] = before'.T @ normal, of_project[s] = active.T @ gradient, sums[s] = before' summed, over stripe s.

    before' as in `mlp_input_gradient`, active = kept * gelu(...); both of the weights' gradients are (E, C). A program owns
    `block_h` hidden channels, whose weights stay on the chip, and a stripe of positions, which streams past them.
    Everything hidden is kept transposed: an accumulator is then the left side of the next product as it lies.
    Programs that share a stripe are neighbours, so that all but one of them read it from the cache.
    """
    slices = tl.cdiv(hidden, block_h)
    e = tl.program_id(0) % slices * block_h + tl.arange(0, block_h)
    own = tl.program_id(0) // slices
    live = e < hidden
    shift = tl.load(bias + e, mask=live, other=0.0).to(tl.float32)[:, None]
    total = tl.zeros((block_h,), dtype=tl.float32)
    grown = ()
    turned = ()
    expands = ()
    projects = ()
    for k in tl.static_range(chunks):
        c = k * block + tl.arange(0, block)
        grown = grown + (part_of(expand, e, c, channels, 1, hidden, channels, whole),)
        turned = turned + (part_of(project, e, c, 1, hidden, hidden, channels, whole),)
        expands = expands + (tl.zeros((block_h, block), dtype=tl.float32),)
        projects = projects + (tl.zeros((block_h, block), dtype=tl.float32),)
    first = own * stripe
    end = tl.minimum(first + stripe, positions)
    for start in range(first, end, block_m):
        rows = start + tl.arange(0, block_m)
        at = rows.to(tl.int64)
        x = tl.zeros((block_h, block_m), dtype=tl.float32)
        push = tl.zeros((block_h, block_m), dtype=tl.float32)
        inputs = ()
        pushes = ()
        for k in tl.static_range(chunks):
            c = k * block + tl.arange(0, block)
            mask = (rows < end)[:, None]
            if not whole:
                mask = mask & (c < channels)[None, :]
            where = at[:, None] * channels + c[None, :]
            inputs = inputs + (tl.load(normal + where, mask=mask, other=0.0),)
            pushes = pushes + (tl.load(gradient + where, mask=mask, other=0.0),)  # 0 beyond the end: adds nothing below
            x = multiply(grown[k], tl.trans(inputs[k]), x, precision)
            push = multiply(turned[k], tl.trans(pushes[k]), push, precision)
        active, derivative = gelu_and_derivative(x + shift, fast)
        push *= derivative
        if drops:
            scale = tl.load(kept + tl.minimum(rows, positions - 1) // area).to(tl.float32)[None, :]
            push *= scale
            active *= scale
        total += tl.sum(push, axis=1)
        low = push.to(normal.dtype.element_ty)
        low_active = active.to(normal.dtype.element_ty)
        new = ()
        newer = ()
        for k in tl.static_range(chunks):
            new = new + (multiply(low, inputs[k], expands[k], precision),)
            newer = newer + (multiply(low_active, pushes[k], projects[k], precision),)
        expands = new
        projects = newer
    base = own.to(tl.int64) * hidden
    for k in tl.static_range(chunks):
        c = k * block + tl.arange(0, block)
        mask = live[:, None] & (c < channels)[None, :]
        offsets = (base + e)[:, None] * channels + c[None, :]
        tl.store(of_expand + offsets, expands[k], mask=mask)
        tl.store(of_project + offsets, projects[k], mask=mask)
    tl.store(sums + base + e, total, mask=live)
