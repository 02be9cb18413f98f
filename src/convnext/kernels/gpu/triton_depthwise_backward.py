# mypy: ignore-errors
# ruff: noqa: RUF005 - Triton unpacks no tuples
"""Triton kernels: the gradients of LayerNorm over NHWC rows, and of a depthwise filter; sums in a fixed order, no atomics.

Both write one partial sum a program, in float32, for a second pass over few rows: the same bits at every run.

Axes: M positions (N * H * W), C channels, P programs that share the positions.
"""

import triton
import triton.language as tl

from convnext.kernels.gpu.triton_depthwise import within


@triton.jit
def norm_backward(
    gradient,
    source,
    means,
    rstds,
    scale,
    answer,
    scale_sums,
    shift_sums,
    answer_sums,
    positions,
    channels,
    stripe,
    lines: tl.constexpr,
    block: tl.constexpr,
    normal: tl.constexpr,
    scaled: tl.constexpr,
    affine_sums: tl.constexpr,
):
    """answer = the gradient before LayerNorm; its sum over positions, and those of the norm's scale and shift.

    `source` is what was normed, or with `normal` the answer of a norm without scale and shift. A program takes `stripe`
    positions, `lines` at a time, and writes one row of (P, C) sums.
    """
    program = tl.program_id(0)
    c = tl.arange(0, block)
    live = c < channels
    if scaled:
        weight = tl.load(scale + c, mask=live, other=0.0).to(tl.float32)[None, :]
    sum_answer = tl.zeros((lines, block), dtype=tl.float32)
    sum_scale = tl.zeros((lines, block), dtype=tl.float32)
    sum_shift = tl.zeros((lines, block), dtype=tl.float32)
    begin = program.to(tl.int64) * stripe
    for step in range(0, stripe, lines):
        inside = step + tl.arange(0, lines)
        at = begin + inside
        there = (at < positions) & (inside < stripe)
        offsets = at[:, None] * channels + c[None, :]
        mask = there[:, None] & live[None, :]
        value = tl.load(source + offsets, mask=mask, other=0.0).to(tl.float32)
        incoming = tl.load(gradient + offsets, mask=mask, other=0.0).to(tl.float32)
        rstd = tl.load(rstds + at, mask=there, other=0.0)[:, None]
        if not normal:
            mean = tl.load(means + at, mask=there, other=0.0)[:, None]
            value = tl.where(mask, (value - mean) * rstd, 0.0)
        if affine_sums:
            sum_scale += incoming * value
            sum_shift += incoming
        if scaled:
            incoming *= weight
        along = tl.sum(incoming * value, axis=1)[:, None] / channels
        level = tl.sum(incoming, axis=1)[:, None] / channels
        incoming = tl.where(mask, (incoming - level - value * along) * rstd, 0.0)
        sum_answer += incoming
        tl.store(answer + offsets, incoming.to(answer.dtype.element_ty), mask=mask)
    at = program * channels + c
    tl.store(answer_sums + at, tl.sum(sum_answer, axis=0), mask=live)
    if affine_sums:
        tl.store(scale_sums + at, tl.sum(sum_scale, axis=0), mask=live)
        tl.store(shift_sums + at, tl.sum(sum_shift, axis=0), mask=live)


@triton.jit
def look(
    source,
    gradient,
    row,
    at,
    c,
    inside,
    height,
    width,
    channels,
    lead,
    columns: tl.constexpr,
    kernel: tl.constexpr,
):
    """Row `row` of the input as the K columns of the filter see it, and row `row + lead` of the gradient."""
    there = inside & within(row, height, columns)[:, None]
    found = ()
    for step in tl.static_range(kernel):
        x = at + step - kernel // 2
        mask = ((x >= 0) & (x < width))[:, None] & there
        offsets = (row * width + x)[:, None] * channels + c[None, :]
        found = found + (tl.load(source + offsets, mask=mask, other=0.0),)
    mask = inside & within(row + lead, height, columns)[:, None]
    offsets = ((row + lead) * width + at)[:, None] * channels + c[None, :]
    return found + (tl.load(gradient + offsets, mask=mask, other=0.0),)


@triton.jit
def filter_gradient(
    source,
    gradient,
    sums,
    images,
    height,
    width,
    channels,
    spans,
    groups,
    bands,
    programs,
    columns: tl.constexpr,
    block: tl.constexpr,
    kernel: tl.constexpr,
    depth: tl.constexpr,
):
    """sums[p, tap, c] = sum over the positions of program p of gradient * the input that the tap saw.

    A program owns `block` channels and `depth` rows of the filter (a band), and takes every P-th strip of `columns`
    columns. It walks down a strip with the last `depth` rows of the gradient in registers, so that each value of the
    input is loaded once a column of the filter, not once a tap.
    """
    program = tl.program_id(0)
    first = (program % groups) * block
    band = (program // groups) % bands * depth
    p = program // (groups * bands)
    c = first + tl.arange(0, block)
    live = c < channels
    half: tl.constexpr = kernel // 2
    zero = tl.zeros((columns, block), dtype=tl.float32)
    total = ()
    for _ in tl.static_range(depth * kernel):
        total = total + (zero,)
    for strip in range(p, images * spans, programs):
        begin = (strip // spans).to(tl.int64) * height * width * channels
        at = (strip % spans) * columns + tl.arange(0, columns)
        inside = (at < width)[:, None] & live[None, :]
        down = at[:, None] * channels + c[None, :]
        recent = ()
        for k in tl.static_range(depth):  # gradient rows half - band - 1 - k, so that the first step shifts them in
            above = half - 1 - band - k
            there = inside & within(above, height, columns)[:, None]
            line = tl.load(gradient + begin + above * width * channels + down, mask=there, other=0.0)
            recent = recent + (line.to(tl.float32),)
        ahead = look(source + begin, gradient + begin, 0, at, c, inside, height, width, channels, half - band,
                     columns, kernel)  # fmt: skip
        for row in range(height):
            seen = ahead  # loaded a step before it is needed, so that its way from memory hides behind the products
            ahead = look(source + begin, gradient + begin, row + 1, at, c, inside, height, width, channels, half - band,
                         columns, kernel)  # fmt: skip
            newer = (seen[kernel].to(tl.float32),)
            for k in tl.static_range(depth - 1):
                newer = newer + (recent[k],)
            recent = newer
            values = ()
            for step in tl.static_range(kernel):
                values = values + (seen[step].to(tl.float32),)
            new = ()
            for k in tl.static_range(depth):
                for step in tl.static_range(kernel):
                    new = new + (total[k * kernel + step] + recent[k] * values[step],)
            total = new
    base = p.to(tl.int64) * kernel * kernel
    for k in tl.static_range(depth):
        for step in tl.static_range(kernel):
            tap = (band + k) * kernel + step
            mask = live & (c * 0 + band + k < kernel)
            tl.store(sums + (base + tap) * channels + c, tl.sum(total[k * kernel + step], axis=0), mask=mask)
