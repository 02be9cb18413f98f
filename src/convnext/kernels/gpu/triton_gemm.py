# mypy: ignore-errors
"""Triton kernels: the block's two matrix products with everything around them in the epilogue, and their gradients' half.

Weights lie as nn.Linear keeps them, (outputs, inputs). Products accumulate in float32. GELU is the exact one: by erf for
float32; for 16-bit tensors by a rational form of the normal distribution, within 1.1e-4 of its value from -5 to 5 and
within 1e-5 beyond (half a bit of bfloat16 is 2e-3, of float16 2.4e-4), which costs a third.

Axes: M positions, E = 4C expanded channels, C channels.
"""

import triton
import triton.language as tl


@triton.jit
def normal_cdf(x, fast: tl.constexpr):
    """The share of a standard normal distribution below x."""
    if fast:  # log2 of the odds is odd in x: x * polynomial(x * x), fitted with equal ripple of 1e-4 up to |x| = 5
        u = tl.minimum(x * x, 25.0)
        q = 1.84233814e-09 * u - 1.75524614e-07
        q = q * u + 6.51385642e-06
        q = q * u - 1.04129442e-04
        q = q * u - 3.93812363e-04
        q = q * u + 1.05524365e-01
        q = q * u + 2.30175826e00
        return 1.0 / (1.0 + tl.exp2(-x * q))
    return 0.5 + 0.5 * tl.erf(x * 0.7071067811865476)


@triton.jit
def gelu(x, fast: tl.constexpr):
    """x times the share of a standard normal distribution below it."""
    return x * normal_cdf(x, fast)


@triton.jit
def gelu_and_derivative(x, fast: tl.constexpr):
    """(gelu(x), its derivative there)."""
    share = normal_cdf(x, fast)
    density = tl.exp2(x * x * -0.7213475204444817) * 0.3989422804014327  # exp(-x^2 / 2) / sqrt(2 pi)
    return x * share, share + x * density


@triton.jit
def multiply(a, b, total, precision: tl.constexpr):
    """total + a @ b; 'emulated' is for the interpreter, whose NumPy has no bfloat16."""
    if precision == "emulated":
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    else:
        total = tl.dot(a, b, total, input_precision=precision)
    return total


@triton.jit
def place(program, tall, wide, group: tl.constexpr):
    """(row, column) of a tile: `group` rows of tiles before the next column, so that neighbours share what L2 holds."""
    size = group * wide
    begin = program // size * group
    high = tl.minimum(tall - begin, group)
    return begin + program % size % high, program % size // high


@triton.jit
def reach(columns, wide, even: tl.constexpr):
    """The columns that exist: clamping costs the compiler its knowledge that neighbours lie side by side."""
    if not even:
        columns = tl.minimum(columns, wide - 1)
    return columns


@triton.jit
def product(
    left,
    right,
    rows,
    columns,
    total,
    inner,
    stride,
    step,
    block_k: tl.constexpr,
    whole: tl.constexpr,
    precision: tl.constexpr,
):
    """total += left[rows, :inner] @ right, where right[k, column] lies at column * stride + k * step."""
    k = tl.arange(0, block_k)
    a = left + rows.to(tl.int64)[:, None] * inner + k[None, :]
    b = right + columns[None, :] * stride + k[:, None] * step
    for start in range(0, inner, block_k):
        if whole:
            total = multiply(tl.load(a), tl.load(b), total, precision)
        else:
            live = k < inner - start
            x = tl.load(a, mask=live[None, :], other=0.0)
            y = tl.load(b, mask=live[:, None], other=0.0)
            total = multiply(x, y, total, precision)
        a += block_k
        b += block_k * step
    return total


@triton.jit
def linear_gelu(
    x,
    weight,
    bias,
    answer,
    before,
    positions,
    wide,
    inner,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    group: tl.constexpr,
    whole: tl.constexpr,
    even: tl.constexpr,
    keep: tl.constexpr,
    fast: tl.constexpr,
    precision: tl.constexpr,
):
    """answer = gelu(before), before = x @ weight.T + bias; `before` is written only with `keep`."""
    tile_m, tile_n = place(tl.program_id(0), tl.cdiv(positions, block_m), tl.cdiv(wide, block_n), group)
    rows = tile_m * block_m + tl.arange(0, block_m)
    columns = tile_n * block_n + tl.arange(0, block_n)
    inside, across = tl.minimum(rows, positions - 1), reach(columns, wide, even)
    total = tl.zeros((block_m, block_n), dtype=tl.float32)
    total = product(x, weight, inside, across, total, inner, inner, 1, block_k, whole, precision)
    total += tl.load(bias + across).to(tl.float32)[None, :]
    offsets = rows.to(tl.int64)[:, None] * wide + columns[None, :]
    mask = (rows < positions)[:, None] & (columns < wide)[None, :]
    if keep:
        tl.store(before + offsets, total.to(before.dtype.element_ty), mask=mask)
    tl.store(answer + offsets, gelu(total, fast).to(answer.dtype.element_ty), mask=mask)


@triton.jit
def linear_residual(
    x,
    weight,
    bias,
    gamma,
    kept,
    residual,
    answer,
    positions,
    wide,
    inner,
    area,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    group: tl.constexpr,
    whole: tl.constexpr,
    even: tl.constexpr,
    scaled: tl.constexpr,
    drops: tl.constexpr,
    precision: tl.constexpr,
):
    """answer = residual + kept[sample] * gamma * (x @ weight.T + bias); a sample has `area` positions."""
    tile_m, tile_n = place(tl.program_id(0), tl.cdiv(positions, block_m), tl.cdiv(wide, block_n), group)
    rows = tile_m * block_m + tl.arange(0, block_m)
    columns = tile_n * block_n + tl.arange(0, block_n)
    inside, across = tl.minimum(rows, positions - 1), reach(columns, wide, even)
    total = tl.zeros((block_m, block_n), dtype=tl.float32)
    total = product(x, weight, inside, across, total, inner, inner, 1, block_k, whole, precision)
    total += tl.load(bias + across).to(tl.float32)[None, :]
    if scaled:
        total *= tl.load(gamma + across).to(tl.float32)[None, :]
    if drops:
        total *= tl.load(kept + inside // area).to(tl.float32)[:, None]
    offsets = rows.to(tl.int64)[:, None] * wide + columns[None, :]
    mask = (rows < positions)[:, None] & (columns < wide)[None, :]
    total += tl.load(residual + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(answer + offsets, total.to(answer.dtype.element_ty), mask=mask)


@triton.jit
def gelu_backward(
    normal,
    expand,
    bias,
    before,
    gradient,
    project,
    kept,
    answer,
    hidden,
    sums,
    positions,
    wide,
    inner,
    area,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    group: tl.constexpr,
    whole: tl.constexpr,
    even: tl.constexpr,
    again: tl.constexpr,
    drops: tl.constexpr,
    fast: tl.constexpr,
    precision: tl.constexpr,
):
    """answer = (kept * gradient @ project) * gelu'(before), hidden = kept * gelu(before), sums = answer summed a tile.

    With `again`, before = normal @ expand.T + bias is computed once more instead of read. `project` is (C, E).
    """
    tall = tl.cdiv(positions, block_m)
    tile_m, tile_n = place(tl.program_id(0), tall, tl.cdiv(wide, block_n), group)
    rows = tile_m * block_m + tl.arange(0, block_m)
    columns = tile_n * block_n + tl.arange(0, block_n)
    inside, across = tl.minimum(rows, positions - 1), reach(columns, wide, even)
    offsets = rows.to(tl.int64)[:, None] * wide + columns[None, :]
    mask = (rows < positions)[:, None] & (columns < wide)[None, :]
    push = tl.zeros((block_m, block_n), dtype=tl.float32)
    push = product(gradient, project, inside, across, push, inner, 1, wide, block_k, whole, precision)
    if again:
        x = tl.zeros((block_m, block_n), dtype=tl.float32)
        x = product(normal, expand, inside, across, x, inner, inner, 1, block_k, whole, precision)
        x += tl.load(bias + across).to(tl.float32)[None, :]
    else:
        x = tl.load(before + offsets, mask=mask, other=0.0).to(tl.float32)
    active, derivative = gelu_and_derivative(x, fast)
    push *= derivative
    if drops:
        scale = tl.load(kept + inside // area).to(tl.float32)[:, None]
        push *= scale
        active *= scale
    push = tl.where(mask, push, 0.0)
    tl.store(answer + offsets, push.to(answer.dtype.element_ty), mask=mask)
    tl.store(hidden + offsets, active.to(hidden.dtype.element_ty), mask=mask)
    tl.store(sums + tile_m.to(tl.int64) * wide + columns, tl.sum(push, axis=0), mask=columns < wide)
