// The way back through a whole block: spans of pixels, then the convolution, then the affine parts (see training.h).
#pragma once

#include "responses.h"

namespace convnext {

template <class T>
struct Backward {  // everything in the workspace
    Arena arena;
    Folded<T> folded;
    long length;  // pixels of a span
    Span<T> span;
    float *pixels, *taps, *column_sums;  // gradient by the convolution's output; each thread's taps; t of training.h
    Responses responses;
    float* turned;  // G of training.h as (C, E): on tiles the side with fewer columns is the one to transpose

    Backward(const Weights& p, float* memory, Map map, int threads)
        : arena(memory), folded(p, arena, true),
          length(p.grn ? whole_images(map, span_of<T>(map.pixels(), p.channels)) : span_of<T>(map.pixels(), p.channels)),
          span(up(length, WHOLE_ROWS<T>), p.channels, p.hidden, arena), responses(p, map, length, threads, arena) {
        turned = ON_TILES<T> ? arena.take(p.channels * p.hidden) : nullptr;
        pixels = arena.take(map.pixels() * p.channels);
        taps = arena.take(threads * up(p.channels, LANES) * (p.kernel * p.kernel + 1));
        column_sums = arena.take(up(p.channels, LANES));
    }
};

template <class T>
static long workspace(const Weights& p, Map map, bool backward, int threads) {
    if (backward) return Backward<T>(p, nullptr, map, threads).arena.used();
    Arena arena(nullptr);
    Folded<T> folded(p, arena, false);
    return arena.used();
}

// Columns `some` of a (rows, columns) matrix become those rows of `to`.
static void transpose(const float* from, long rows, long columns, Range some, float* to) {
    for (long column = some.from; column < some.to; column += LANES)
        for (long row = 0; row < rows; row += LANES) {
            Vector square[LANES];
            for (long i = 0; i < LANES; i++)
                square[i] = row + i < rows ? load_part(from + (row + i) * columns + column, some.to - column) : Vector{};
            transpose(square);
            for (long i = 0; i < least(LANES, some.to - column); i++)
                store_part(to + (column + i) * rows + row, square[i], rows - row);
        }
}

// d expand holds G, d project holds D: the affine parts' gradients, and the two as the network wants them.
static void unfold(const Weights& p, const float* gamma, const Gradients& to, const float* column_sums, long me,
                   long team) {
    const long C = p.channels, E = p.hidden, vectors = (C + LANES - 1) / LANES;
    for (long c = vectors * me / team * LANES; c < least(C, vectors * (me + 1) / team * LANES); c += LANES) {
        const Vector weight = load_part(p.norm_weight + c, C - c), bias = load_part(p.norm_bias + c, C - c);
        Vector by_weight{}, by_bias{};
        for (long e = 0; e < E; e++) {
            const Vector g = load_part(to.expand + e * C + c, C - c), w = load_part(p.expand + e * C + c, C - c);
            by_weight += w * g;
            by_bias += w * to.expand_bias[e];
            store_part(to.expand + e * C + c, g * weight + bias * to.expand_bias[e], C - c);
        }
        store_part(to.norm_weight + c, by_weight, C - c);
        store_part(to.norm_bias + c, by_bias, C - c);
        for (long i = c; i < least(C, c + LANES); i++) {
            Vector along{};
            for (long e = 0; e < E; e += LANES) {
                float* d = to.project + i * E + e;
                Vector value = load_part(d, E - e);
                if (p.grn) value += load_part(p.grn_bias + e, E - e) * column_sums[i];  // y has that bias everywhere
                along += value * load_part(p.project + i * E + e, E - e);
                store_part(d, value * gamma[i], E - e);
            }
            to.project_bias[i] = column_sums[i] * gamma[i];
            if (to.gamma) to.gamma[i] = sum(along) + p.project_bias[i] * column_sums[i];
        }
    }
    if (!p.grn) return;
    const long wide = (E + LANES - 1) / LANES;
    for (long e = wide * me / team * LANES; e < least(E, wide * (me + 1) / team * LANES); e += LANES) {
        Vector total{};
        for (long c = 0; c < C; c++) total += load_part(p.project + c * E + e, E - e) * (gamma[c] * column_sums[c]);
        store_part(to.grn_bias + e, total, E - e);
    }
}

// Pixels [first, last): dx = gradient + the convolution's gradient, and this thread's share of its weight's gradient.
template <class T>
static void spatial_gradients(const Weights& p, const Backward<T>& b, const float* x, const float* gradient, float* to, Map map,
                           long first, long last, float* taps) {
    const long C = p.channels, square = p.kernel * p.kernel, area = map.height * map.width * C;
    std::memset(taps, 0, static_cast<size_t>(up(C, LANES) * (square + 1)) * 4);
    alignas(64) float values[RUN * LANES];
    Vector unused[RUN]{};
    runs(map, first, last, [&](long image, long line, long column, long count, long) {
        const long place = image * area + (line * map.width + column) * C;
        for (long c = 0; c < C; c += LANES) {
            const long lanes = least(LANES, C - c);
            const float *g = b.pixels + place + c, *from = x + image * area + c;
            float* mine = taps + c * (square + 1);
            if (p.kernel == 7)
                TAPS7[lanes < LANES][count](g, from, map, line, column, lanes, mine);
            else
                taps_any(g, from, map, p.kernel, line, column, count, lanes, mine);
            Vector total = load(mine + square * LANES);
            depthwise(b.pixels + image * area + c, map, p.kernel, line, column, count, lanes,
                      b.folded.flipped + c * square, Vector{}, {values, LANES, unused});
            for (long j = 0; j < count; j++) {
                total += load_part(g + j * C, lanes);
                store_part(to + place + j * C + c, load(values + j * LANES) + load_part(gradient + place + j * C + c, lanes), lanes);
            }
            store(mine + square * LANES, total);
        }
    });
}

// Pixels [start, start + rows): their hidden values' gradients, and what they add to those of the matrices.
template <class T>
static void span_gradients(const Weights& p, const Backward<T>& b, const float* x, const float* gradient, const Gradients& to,
                           Map map, long start, long me, long team) {
    const long C = p.channels, E = p.hidden, area = map.height * map.width, rows = least(b.length, map.pixels() - start);
    const long narrow = (C + KBLOCK - 1) / KBLOCK, wide = (E + KBLOCK - 1) / KBLOCK;
    auto share = [&](long i) {  // rows become pairs, on tiles squares
        constexpr long TOGETHER = ON_TILES<T> ? KBLOCK : 2;
        return i == team ? rows : rows * i / team / TOGETHER * TOGETHER;
    };
    const long from = share(me), end = share(me + 1);
    const Span<T> s = b.span;
    depthwise_norm(x, map, p.kernel, b.folded.spatial, b.folded.spatial_bias, p.epsilon, start + from, start + end,
                   s.norm + from * KBLOCK, s.block, s.inverse + from);
    scale_gradient(gradient, {p.scale, area, 0}, C, start, from, end, s);
    if (p.grn)
        response_gradients(p, b.folded, s, b.responses, to, {from, end}, rows, area, start == 0, me, team);
    else
        hidden_gradients(b.folded, C, E, from, end, s);
    norm_gradients(b.folded, C, E, start, from, end, s, b.pixels);
    turn(s.gradient, s.block, C, from, end);
    across(s.hidden, s.block, E, from, end);
    if constexpr (ON_TILES<T>)
        turn(s.norm, s.block, C, from, end);
    else
        across(s.norm, s.block, C, from, end);
    across(s.before, s.block, E, from, end);
#pragma omp barrier
    const Range mine{wide * me / team * KBLOCK, least(E, wide * (me + 1) / team * KBLOCK)};
    if constexpr (ON_TILES<T>) {
        sum_matmul(s.norm, {0, C}, s.before, mine, E, s.block, rows, b.turned, start == 0);
        if (start + rows == map.pixels()) transpose(b.turned, C, E, mine, to.expand);
    } else {
        sum_matmul(s.before, mine, s.norm, {0, C}, C, s.block, rows, to.expand, start == 0);
    }
    sum_matmul(s.gradient, {0, C}, s.hidden, mine, E, s.block, rows, to.project, start == 0);
    for (long i = wide * me / team; i < wide * (me + 1) / team; i++)
        sum_columns(s.before, s.block, i, E, rows, to.expand_bias, start == 0);
    for (long i = narrow * me / team; i < narrow * (me + 1) / team; i++)
        if constexpr (TERMS<T> == 1)
            sum_columns(s.gradient, s.block, i, C, rows, b.column_sums, start == 0);
        else
            sum_gradient(gradient, {p.scale, area, 0}, C, start, i, rows, b.column_sums, start == 0);
#pragma omp barrier
}

template <class T>
static void backward(const Weights& p, const float* x, const float* gradient, const Gradients& to, float* memory, Map map,
                     int threads) {
    Backward<T> b(p, memory, map, threads);
    const long C = p.channels, pixels = map.pixels(), square = p.kernel * p.kernel;
    const long taps_size = up(C, LANES) * (square + 1);
    fold(p, b.folded, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const long me = omp_get_thread_num(), team = omp_get_num_threads();
        for (long start = 0; start < pixels; start += b.length) span_gradients(p, b, x, gradient, to, map, start, me, team);
        spatial_gradients(p, b, x, gradient, to.x, map, pixels * me / team, pixels * (me + 1) / team,
                          b.taps + me * taps_size);
        unfold(p, b.folded.gamma, to, b.column_sums, me, team);
#pragma omp barrier
        for (long c = C * me / team; c < C * (me + 1) / team; c++)  // all threads' taps, always in the same order
            for (long k = 0; k <= square; k++) {
                float total = 0;
                for (long t = 0; t < team; t++)
                    total += b.taps[t * taps_size + (c / LANES * (square + 1) + k) * LANES + c % LANES];
                (k < square ? to.spatial[c * square + k] : to.spatial_bias[c]) = total;
            }
    }
}

}  // namespace convnext
