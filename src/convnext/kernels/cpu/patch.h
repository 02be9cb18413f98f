// Convolutions whose kernel is their stride, as a gather and a matmul: the stem and the downsampling layers.
#pragma once

#include "block.h"

namespace convnext {

// (N, H, W, I) by the strides of x, in floats -> (N, H / P, W / P, O). The weight's rows are in the order of ky, kx, i where
// pixels are normed, else in that of ky, i, kx, in which planes are read.
struct Patch {
    const float *weight, *bias, *norm_weight, *norm_bias;  // norm after, or null
    long inputs, outputs, size;
    long normalise;  // 1: every input pixel minus its mean over its deviation first; its channels then lie together
    float epsilon;
};

struct Strides { long image, line, column, channel; };

// The map that a patch layer makes of `map`: a side shorter than the patch gives one pixel.
inline Map patched(const Patch& p, Map map) {
    auto parts = [&](long side) { return side < p.size ? 1 : side / p.size; };
    return {map.images, parts(map.height), parts(map.width), p.outputs};
}

// A row's values [k, k + lanes) in a tile (gemm.h); `row` is where its first block starts.
INLINE void put(float* row, long a_block, long k, Vector value, long lanes) {
    float* to = row + k / KBLOCK * a_block + k % KBLOCK;
    const long room = KBLOCK - k % KBLOCK;
    if (lanes <= room) return store_part(to, value, lanes);
    float all[LANES];  // over the edge of a block
    store(all, value);
    std::memcpy(to, all, static_cast<size_t>(room) * 4);
    std::memcpy(row + (k / KBLOCK + 1) * a_block, all + room, static_cast<size_t>(lanes - room) * 4);
}

// The pixels that one place of the patch takes, one a row, into values [k, k + inputs) of the rows.
static void gather_norm(const Patch& p, const float* const* from, long rows, float* tile, long a_block, long k) {
    const long I = p.inputs;
    auto each = [&](long i, auto visit) {
        for (long c = 0; c < I; c += LANES) visit(load_part(from[i] + c, I - c), c + LANES >= I);
    };
    Vector totals[TOGETHER]{};
    for (long i = 0; i < rows; i++) each(i, [&](Vector value, bool) { totals[i] += value; });
    const Moments found(rows, I, p.epsilon, totals, each);
    for (long i = 0; i < rows; i++)
        for (long c = 0; c < I; c += LANES) {
            const Vector value = (load_part(from[i] + c, I - c) - found.mean[i]) * found.scale[i];
            put(tile + i * KBLOCK, a_block, k + c, value, least(LANES, I - c));
        }
}

// One output pixel's patch as it is, `row` being scratch; `lines` and `columns` are those that x has from `corner` on.
static void gather(const Patch& p, const float* corner, Strides s, long lines, long columns, float* row, float* tile,
                   long a_block) {
    const long depth = p.size * p.size * p.inputs;
    float* to = row;
    for (long ky = 0; ky < p.size; ky++)
        for (long i = 0; i < p.inputs; i++, to += p.size) {
            const float* from = corner + least(ky, lines - 1) * s.line + i * s.channel;
            if (p.size == 4 && s.column == 1 && columns >= 4)
                std::memcpy(to, from, 16);
            else
                for (long kx = 0; kx < p.size; kx++) to[kx] = from[least(kx, columns - 1) * s.column];
        }
    for (long k = 0; k < depth; k += KBLOCK) std::memcpy(tile + k / KBLOCK * a_block, row + k, KBLOCK * 4);
}

// Rows of the matmul: the patches of the output's pixels from `start` on. A map smaller than a patch repeats its last
// line and column.
static void gather_tile(const Patch& p, const float* x, Strides s, Map map, Map to, long start, long rows, float* tile,
                        long a_block) {
    const float* corner[TOGETHER];
    long lines[TOGETHER], columns[TOGETHER];  // from the corner to the end of the map
    for (long i = 0; i < rows; i++) {
        const long line = (start + i) / to.width, y = line % to.height * p.size, at = (start + i) % to.width * p.size;
        corner[i] = x + line / to.height * s.image + y * s.line + at * s.column;
        lines[i] = map.height - y, columns[i] = map.width - at;
    }
    if (p.normalise) {
        const float* from[TOGETHER];
        for (long ky = 0; ky < p.size; ky++)
            for (long kx = 0; kx < p.size; kx++) {
                for (long i = 0; i < rows; i++)
                    from[i] = corner[i] + least(ky, lines[i] - 1) * s.line + least(kx, columns[i] - 1) * s.column;
                gather_norm(p, from, rows, tile, a_block, (ky * p.size + kx) * p.inputs);
            }
        return;
    }
    float* row = hidden_memory.floats(up(p.size * p.size * p.inputs, KBLOCK));
    for (long i = 0; i < rows; i++) gather(p, corner[i], s, lines[i], columns[i], row, tile + i * KBLOCK, a_block);
}

inline void patches(const Patch& p, const float* x, Strides s, Map map, float* out, int threads) {
    const Map to = patched(p, map);
    const long depth = p.size * p.size * p.inputs, O = p.outputs, wide = up(O, KBLOCK);
    const Tiles tiles(to.pixels(), depth * O > 1 << 18 ? 112 : 56, threads);
    const long a_block = tiles.size * KBLOCK;
    deal(tiles.count, threads, [&](long t) {
        const long start = t * tiles.size, rows = tiles.rows(t);
        float* tile = tile_memory.floats(tiles.size * up(depth, KBLOCK));
        float* answer = out + start * O;
        for (long i = 0; i < rows * O; i += LINE) __builtin_prefetch(answer + i, 1);
        gather_tile(p, x, s, map, to, start, rows, tile, a_block);
        if (!p.norm_weight) {
            multiply(tile, a_block, rows, p.weight, PANEL * depth, depth, O,
                     [&](long first, long count, long column, long vectors, const float* sums) {
                         write_rows(answer, nullptr, p.bias, {nullptr, 1, 0}, O, first, count, column, vectors, O, sums);
                     });
            return;
        }
        float* made = hidden_memory.floats(tiles.size * wide);
        Vector totals[TOGETHER]{};
        multiply(tile, a_block, rows, p.weight, PANEL * depth, depth, O,
                 [&](long first, long count, long column, long vectors, const float* sums) {
                     for (long i = first; i < first + count; i++)
                         for (long c = column; c < column + vectors * LANES; c += LANES, sums += LANES) {
                             const Vector value = load(sums) + load(p.bias + c);
                             store(made + c / KBLOCK * a_block + i * KBLOCK + c % KBLOCK, value);
                             totals[i] += value;
                         }
                 });
        const Moments found(made, a_block, rows, O, p.epsilon, totals);
        for (long c = 0; c < O; c += LANES) {
            const Vector weight = load(p.norm_weight + c), bias = load(p.norm_bias + c);
            for (long i = 0; i < rows; i++) {
                const Vector value = load(made + c / KBLOCK * a_block + i * KBLOCK + c % KBLOCK);
                store_part(answer + i * O + c, (value - found.mean[i]) * found.scale[i] * weight + bias, O - c);
            }
        }
    });
}

}  // namespace convnext
