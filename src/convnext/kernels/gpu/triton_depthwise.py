# mypy: ignore-errors
# ruff: noqa: RUF005, SIM108 - Triton unpacks no tuples, and its branches are those of the compiler
"""Triton kernels: a KxK depthwise convolution over NHWC maps, with LayerNorm or with an addition behind it.

A program answers for `rows` x `columns` positions. It walks the image's rows once for each column of the filter, and
gives each value it loads to all output rows that see it: (rows + K - 1) * K loads instead of rows * K * K. LayerNorm
needs all channels of a position, so a program holds them all, as `chunks` tiles of `block` channels: C = 96 is 3 x 32,
where one power of two would leave a quarter of the lanes idle. Sums are float32, whatever the tensors are.

Axes: N images, H W rows and columns, C channels; `total` = N * strips * spans programs, spans fastest.
"""

import triton
import triton.language as tl


@triton.jit
def within(y, height, columns: tl.constexpr):
    """Whether row `y` is one of the image's, once a column: masks of one shape are what the interpreter takes too."""
    lines = tl.zeros((columns,), dtype=tl.int32) + y
    return (lines >= 0) & (lines < height)


@triton.jit
def tap_sums(
    source,
    taps,
    bias,
    row,
    column,
    first,
    height,
    width,
    channels,
    rows: tl.constexpr,
    columns: tl.constexpr,
    block: tl.constexpr,
    kernel: tl.constexpr,
    turned: tl.constexpr,
    biased: tl.constexpr,
):
    """`rows` tiles (columns, block) of one image's convolution, in a tuple; `turned` is the gradient's direction.

    `source` points at the image (H, W, C), `taps` at (K * K, C); channels beyond C are 0.
    """
    c = first + tl.arange(0, block)
    live = c < channels
    half: tl.constexpr = kernel // 2
    at = column + tl.arange(0, columns)
    start = tl.zeros((columns, block), dtype=tl.float32)
    if biased:
        start += tl.load(bias + c, mask=live, other=0.0).to(tl.float32)[None, :]
    sums = ()
    for _ in tl.static_range(rows):
        sums = sums + (start,)
    for step in range(kernel):
        weights = ()
        for k in tl.static_range(kernel):
            if turned:
                tap = (kernel - 1 - k) * kernel + kernel - 1 - step
            else:
                tap = k * kernel + step
            weights = weights + (tl.load(taps + tap * channels + c, mask=live, other=0.0).to(tl.float32),)
        x = at + step - half
        inside = ((x >= 0) & (x < width))[:, None] & live[None, :]
        for i in tl.static_range(rows + kernel - 1):
            y = row + i - half
            offsets = (y * width + x)[:, None] * channels + c[None, :]
            there = inside & within(y, height, columns)[:, None]
            values = tl.load(source + offsets, mask=there, other=0.0).to(tl.float32)
            new = ()
            for r in tl.static_range(rows):
                if i >= r and i - r < kernel:
                    new = new + (sums[r] + values * weights[i - r][None, :],)
                else:
                    new = new + (sums[r],)
            sums = new
    return sums


@triton.jit
def convolve_norm(
    source,
    taps,
    bias,
    scale,
    shift,
    answer,
    raw,
    means,
    rstds,
    quanta,
    eps,
    height,
    width,
    channels,
    strips,
    spans,
    rows: tl.constexpr,
    columns: tl.constexpr,
    block: tl.constexpr,
    chunks: tl.constexpr,
    kernel: tl.constexpr,
    biased: tl.constexpr,
    scaled: tl.constexpr,
    shifted: tl.constexpr,
    keep_raw: tl.constexpr,
    keep_stats: tl.constexpr,
    quantise: tl.constexpr,
):
    """answer = norm(conv(source)); keeps what the backward needs, or rounds each position to float8 with a scale."""
    program = tl.program_id(0)
    column = (program % spans) * columns
    row = (program // spans) % strips * rows
    image = (program // (spans * strips)).to(tl.int64)
    source += image * height * width * channels
    image *= height * width  # from here on the index of the image's first position
    kept = ()
    for k in tl.static_range(chunks):
        kept = kept + tap_sums(
            source, taps, bias, row, column, k * block, height, width, channels,
            rows, columns, block, kernel, False, biased,
        )  # fmt: skip
    at = column + tl.arange(0, columns)
    for r in tl.static_range(rows):
        there = (at < width) & within(row + r, height, columns)
        position = image + (row + r) * width + at  # (columns,), int64
        total = tl.zeros((columns,), dtype=tl.float32)
        for k in tl.static_range(chunks):
            total += tl.sum(kept[k * rows + r], axis=1)
        mean = total / channels
        square = tl.zeros((columns,), dtype=tl.float32)
        for k in tl.static_range(chunks):
            live = k * block + tl.arange(0, block) < channels
            apart = tl.where(live[None, :], kept[k * rows + r] - mean[:, None], 0.0)
            square += tl.sum(apart * apart, axis=1)
        rstd = 1.0 / tl.sqrt(square / channels + eps)
        if keep_stats:
            tl.store(means + position, mean, mask=there)
            tl.store(rstds + position, rstd, mask=there)
        normal = ()
        largest = tl.zeros((columns,), dtype=tl.float32)
        for k in tl.static_range(chunks):
            c = k * block + tl.arange(0, block)
            live = c < channels
            value = (kept[k * rows + r] - mean[:, None]) * rstd[:, None]
            if scaled:
                value *= tl.load(scale + c, mask=live, other=0.0).to(tl.float32)[None, :]
            if shifted:
                value += tl.load(shift + c, mask=live, other=0.0).to(tl.float32)[None, :]
            if quantise:
                largest = tl.maximum(largest, tl.max(tl.where(live[None, :], tl.abs(value), 0.0), axis=1))
            normal = normal + (value,)
        quantum = tl.maximum(largest, 1e-12) / 448.0  # the largest float8 e4m3 number
        if quantise:
            tl.store(quanta + position, quantum, mask=there)
        for k in tl.static_range(chunks):
            c = k * block + tl.arange(0, block)
            offsets = position[:, None] * channels + c[None, :]
            mask = there[:, None] & (c < channels)[None, :]
            value = normal[k]
            if quantise:
                value = value / quantum[:, None]
            tl.store(answer + offsets, value.to(answer.dtype.element_ty), mask=mask)
            if keep_raw:
                tl.store(raw + offsets, kept[k * rows + r].to(raw.dtype.element_ty), mask=mask)


@triton.jit
def convolve_add(
    source,
    taps,
    added,
    answer,
    height,
    width,
    channels,
    strips,
    spans,
    groups,
    rows: tl.constexpr,
    columns: tl.constexpr,
    block: tl.constexpr,
    kernel: tl.constexpr,
    adds: tl.constexpr,
):
    """answer = turned_conv(source) (+ added): the gradient of the convolution's input, and of the branch around it."""
    program = tl.program_id(0)
    first = (program % groups) * block
    program = program // groups
    column = (program % spans) * columns
    row = (program // spans) % strips * rows
    image = (program // (spans * strips)).to(tl.int64)
    begin = image * height * width * channels
    sums = tap_sums(
        source + begin, taps, taps, row, column, first, height, width, channels,
        rows, columns, block, kernel, True, False,
    )  # fmt: skip
    c = first + tl.arange(0, block)
    at = column + tl.arange(0, columns)
    for r in tl.static_range(rows):
        mask = ((at < width) & within(row + r, height, columns))[:, None] & (c < channels)[None, :]
        offsets = begin + ((row + r) * width + at)[:, None] * channels + c[None, :]
        value = sums[r]
        if adds:
            value += tl.load(added + offsets, mask=mask, other=0.0).to(tl.float32)
        tl.store(answer + offsets, value.to(answer.dtype.element_ty), mask=mask)
