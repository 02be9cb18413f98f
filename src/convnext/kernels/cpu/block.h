// Inference of a ConvNeXt block, float32, channels last.
//
// A block is x + project(gelu(expand(normalise(depthwise(x))))), with every affine part folded into the two matrices.
// Tiles of pixels go through all of it, so that the 4C hidden values of a pixel never leave the second cache.
#pragma once

#include "depthwise.h"
#include "memory.h"

namespace convnext {

// One factor per picture, for drop path: null is 1 everywhere.
struct Scale {
    const float* factors;
    long area, start;  // pixels of a picture, the pixel that row 0 is
    float of(long row) const { return factors ? factors[(start + row) / area] : 1.0f; }
};

// to[row][column] = (sums + bias) * scale (+ other[row][column]), in the real columns of rows `stride` apart.
INLINE void write_rows(float* to, const float* other, const float* bias, Scale scale, long stride, long first,
                       long rows, long column, long vectors, long columns, const float* sums) {
    for (long i = 0; i < rows; i++) {
        const Vector factor = splat(scale.of(first + i));
        for (long j = 0; j < vectors; j++, sums += LANES) {
            const long c = column + j * LANES, lanes = least(LANES, columns - c), place = (first + i) * stride + c;
            if (lanes <= 0) continue;
            Vector value = load(sums);
            if (bias) value += load(bias + c);
            value *= factor;
            if (other) value += load_part(other + place, lanes);
            store_part(to + place, value, lanes);
        }
    }
}

// The same into a tile (gemm.h), through gelu.
INLINE void write_gelu(float* tile, long a_block, const float* bias, long first, long rows, long column, long vectors,
                       const float* sums) {
    float* to = tile + column / KBLOCK * a_block + first * KBLOCK + column % KBLOCK;
    for (long i = 0; i < rows; i++, to += KBLOCK)
        for (long j = 0; j < vectors; j++, sums += LANES)
            store(to + j * LANES, gelu(load(sums) + load(bias + column + j * LANES)));
}

struct Block {  // everything packed; biases padded to whole vectors
    const float *spatial, *spatial_bias, *expand, *expand_bias, *project, *project_bias;
    const float* scale;  // (N,) of drop path, or null
    long channels, hidden, kernel;
    float epsilon;
};

constexpr long HIDDEN = 768;  // hidden columns of a tile that are alive at once
// Pixels of a tile, measured: many where the matrices are large, because every tile reads all of them; all that a
// thread has where that is little, so that the matrices come from memory once.
inline long tile_pixels(long channels, long of_a_thread) {
    if (of_a_thread <= 196) return 196;
    return channels <= 256 ? 112 : channels <= 512 ? 56 : 196;
}
thread_local Scratch tile_memory, hidden_memory, shared_memory;

// One tile, all of it: A -> hidden -> out.
static void mix_channels(const Block& p, const float* tile, long a_block, long rows, const float* x, float* out,
                         float* hidden, Scale scale) {
    const long C = p.channels;
    for (long start = 0; start < p.hidden; start += HIDDEN) {
        const long count = least(HIDDEN, p.hidden - start), first_width = least(PANEL, up(C, LANES));
        multiply(tile, a_block, rows, p.expand + start * C, PANEL * C, C, count,
                 [&](long first, long n, long column, long vectors, const float* sums) {
                     write_gelu(hidden, a_block, p.expand_bias + start, first, n, column, vectors, sums);
                 },
                 p.project + start * first_width);
        // The second matrix lies in panels of all its rows: this part of them starts `start` rows into each.
        for (long column = 0; column < C; column += PANEL) {
            const long width = least(PANEL, up(C - column, LANES));
            const long later = column + PANEL, next = least(PANEL, up(C - later, LANES));
            multiply(hidden, a_block, rows, p.project + column * p.hidden + start * width, 0, count, width,
                     [&](long first, long n, long inside, long vectors, const float* sums) {
                         write_rows(out, start ? out : x, start ? nullptr : p.project_bias, scale, C, first, n,
                                    column + inside, vectors, C, sums);
                     },
                     later < C ? p.project + later * p.hidden + start * next
                               : start + count < p.hidden ? p.expand + (start + count) * C : p.expand);
        }
    }
}

static void by_rows(const Block& p, const float* x, float* out, Map map, int threads) {
    const long pixels = map.pixels(), most = tile_pixels(p.channels, pixels / threads);
    const long parts = up((pixels + most - 1) / most, threads);
    const long size = up((pixels + parts - 1) / parts, pixels > 14 * parts ? 14 : 1);
    const long tiles = (pixels + size - 1) / size;
    const long a_block = size * KBLOCK;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (long t = 0; t < tiles; t++) {
        const long first = t * size, rows = least(size, pixels - first);
        float* tile = tile_memory.floats(size * up(p.channels, KBLOCK));
        float* hidden = hidden_memory.floats(size * HIDDEN);
        depthwise_norm(x, map, p.kernel, p.spatial, p.spatial_bias, p.epsilon, first, first + rows, tile, a_block,
                       nullptr);
        mix_channels(p, tile, a_block, rows, x + first * p.channels, out + first * p.channels, hidden,
                     {p.scale, map.height * map.width, first});
    }
}

// Few pixels for the threads: every thread takes all pixels and its part of the hidden columns, then sums are added.
static void by_hidden(const Block& p, const float* x, float* out, Map map, int threads) {
    const long pixels = map.pixels(), C = p.channels, a_block = pixels * KBLOCK;
    const long panels = (p.hidden + PANEL - 1) / PANEL;
    float* tile = shared_memory.floats(pixels * (up(C, KBLOCK) + up(C, LANES) * threads));
    float* partial = tile + pixels * up(C, KBLOCK);
    const Scale scale{p.scale, map.height * map.width, 0};
#pragma omp parallel num_threads(threads)
    {
        const long me = omp_get_thread_num(), team = omp_get_num_threads();
        const long from = pixels * me / team, to = pixels * (me + 1) / team;
        depthwise_norm(x, map, p.kernel, p.spatial, p.spatial_bias, p.epsilon, from, to, tile + from * KBLOCK, a_block,
                       nullptr);
#pragma omp barrier
        const long start = least(panels * me / team * PANEL, p.hidden);
        const long count = least(panels * (me + 1) / team * PANEL, p.hidden) - start;
        float* hidden = hidden_memory.floats(pixels * up(count, KBLOCK));
        float* mine = partial + me * pixels * up(C, LANES);
        multiply(tile, a_block, pixels, p.expand + start * C, PANEL * C, C, count,
                 [&](long first, long n, long column, long vectors, const float* sums) {
                     write_gelu(hidden, a_block, p.expand_bias + start, first, n, column, vectors, sums);
                 },
                 p.project + start * least(PANEL, up(C, LANES)));
        for (long column = 0; column < C; column += PANEL) {
            const long width = least(PANEL, up(C - column, LANES));
            const long later = column + PANEL, next = least(PANEL, up(C - later, LANES));
            multiply(hidden, a_block, pixels, p.project + column * p.hidden + start * width, 0, count, width,
                     [&](long first, long n, long inside, long vectors, const float* sums) {
                         write_rows(mine, nullptr, nullptr, {nullptr, 1, 0}, up(C, LANES), first, n, column + inside,
                                    vectors, up(C, LANES), sums);
                     },
                     later < C ? p.project + later * p.hidden + start * next : nullptr);
        }
#pragma omp barrier
        for (long i = from; i < to; i++)
            for (long c = 0; c < C; c += LANES) {
                const long lanes = least(LANES, C - c);
                Vector value = load(p.project_bias + c);
                for (long part = 0; part < team; part++)
                    value += load(partial + (part * pixels + i) * up(C, LANES) + c);
                store_part(out + i * C + c, load_part(x + i * C + c, lanes) + value * scale.of(i), lanes);
            }
    }
}

inline void block(const Block& p, const float* x, float* out, Map map, int threads) {
    if (threads > 1 && map.pixels() < threads * 2 * BLOCK_ROWS)
        by_hidden(p, x, out, map, threads);
    else
        by_rows(p, x, out, map, threads);
}

}  // namespace convnext
