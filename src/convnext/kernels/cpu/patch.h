// Convolutions that make a map smaller, as a gather and a matmul: the stem and the downsampling layers.
#pragma once

#include "block.h"

namespace convnext {

// (N, H, W, I) by the strides of x, in floats -> (N, H / P, W / P, O). The weight's rows are in the order of ky, kx, i where
// pixels are normed, else in that of ky, i, kx, in which planes are read.
struct Patch {
    const void* weight;  // of what the matmul takes: bfloat16 values where `normalise` is set and the layer's kind says so
    const float *bias, *norm_weight, *norm_bias;  // norm after, or null
    const float* shift;  // (size, size, inputs), with `padding`: taken from every patch inside the map; or null
    long inputs, outputs, size;
    long normalise;  // 1: every input pixel minus its mean over its deviation first; its channels then lie together
    long stride, padding;  // with `padding` lines of zeros all around patches may overlap: ky, kx, i order the weight's rows
    long gelu;  // 1: of the answer
    float epsilon;
};

struct Strides { long image, line, column, channel; };

// The map that a patch layer makes of `map`: a side shorter than the patch gives one pixel.
inline Map patched(const Patch& p, Map map) {
    auto parts = [&](long side) {
        if (p.padding) return (side + 2 * p.padding - p.size) / p.stride + 1;
        return side < p.size ? 1 : side / p.size;
    };
    return {map.images, parts(map.height), parts(map.width), p.outputs};
}

// A row's values [k, k + lanes) in a tile (gemm.h); `row` is where its first block starts.
template <class T>
INLINE void put(T* row, long a_block, long k, Vector value, long lanes) {
    T* to = row + k / KBLOCK * a_block + k % KBLOCK;
    const long room = KBLOCK - k % KBLOCK;
    if (lanes == LANES && room >= LANES) return store(to, value);
    T all[LANES];
    store(all, value);
    std::memcpy(to, all, static_cast<size_t>(least(lanes, room)) * sizeof(T));
    if (lanes > room)  // over the edge of a block
        std::memcpy(row + (k / KBLOCK + 1) * a_block, all + room, static_cast<size_t>(lanes - room) * sizeof(T));
}

// The pixels that one place of the patch takes, one a row, into values [k, k + inputs) of the rows.
template <class T>
static void gather_norm(const Patch& p, const float* const* from, long rows, T* tile, long a_block, long k) {
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

// The same where patches begin in the `padding`; `line` and `column` are of the patch's corner, outside the map there are zeros.
static void gather_padded(const Patch& p, const float* image, Strides s, Map map, long line, long column, float* row,
                          float* tile, long a_block) {
    const long I = p.inputs, K = p.size, depth = K * K * I;
    const long left = column < 0 ? -column : 0, right = least(K, map.width - column);  // kx that are inside
    const bool together = s.channel == 1 && s.column == I;
    for (long ky = 0; ky < K; ky++) {
        float* to = row + ky * K * I;
        const bool inside = line + ky >= 0 && line + ky < map.height;
        if (!inside || left > 0 || right < K) std::memset(to, 0, static_cast<size_t>(K * I) * 4);
        if (!inside) continue;
        const float* from = image + (line + ky) * s.line + (column + left) * s.column;
        const float* shift = p.shift ? p.shift + (ky * K + left) * I : nullptr;
        to += left * I;
        const long count = (right - left) * I;
        if (!together)
            for (long kx = 0; kx < right - left; kx++)
                for (long i = 0; i < I; i++) to[kx * I + i] = from[kx * s.column + i * s.channel];
        else if (!shift)
            std::memcpy(to, from, static_cast<size_t>(count) * 4);
        if (shift)
            for (long k = 0; k < count; k += LANES)
                store_part(to + k, load_part((together ? from : to) + k, count - k) - load_part(shift + k, count - k),
                           count - k);
    }
    for (long k = 0; k < depth; k += KBLOCK) std::memcpy(tile + k / KBLOCK * a_block, row + k, KBLOCK * 4);
}

// Rows of the matmul: the patches of the output's pixels from `start` on. A map smaller than a patch repeats its last
// line and column.
template <class T>
static void gather_tile(const Patch& p, const float* x, Strides s, Map map, Map to, long start, long rows, T* tile,
                        long a_block) {
    if constexpr (TERMS<T> == 1) if (p.padding) {
        float* row = hidden_memory.floats(up(p.size * p.size * p.inputs, KBLOCK));
        for (long i = 0; i < rows; i++) {
            const long line = (start + i) / to.width, at = (start + i) % to.width * p.stride - p.padding;
            gather_padded(p, x + line / to.height * s.image, s, map, line % to.height * p.stride - p.padding, at, row,
                          tile + i * KBLOCK, a_block);
        }
        return;
    }
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
        const long depth = p.size * p.size * p.inputs;
        for (long k = depth; k < padded<T>(depth); k += TERMS<T>)  // zeros that tiles multiply
            for (long i = 0; i < rows; i++)
                std::memset(tile + k / KBLOCK * a_block + i * KBLOCK + k % KBLOCK, 0, TERMS<T> * sizeof(T));
        return;
    }
    if constexpr (TERMS<T> == 1) {
        float* row = hidden_memory.floats(up(p.size * p.size * p.inputs, KBLOCK));
        for (long i = 0; i < rows; i++) gather(p, corner[i], s, lines[i], columns[i], row, tile + i * KBLOCK, a_block);
    }
}

template <class T>
inline void patches(const Patch& p, const float* x, Strides s, Map map, float* out, int threads) {
    const Map to = patched(p, map);
    const long depth = p.size * p.size * p.inputs, O = p.outputs, wide = up(O, KBLOCK), panel = PANEL * padded<T>(depth);
    const T* weight = static_cast<const T*>(p.weight);
    const long most = ON_TILES<T> ? 128 : depth * O > 1 << 18 ? 112 : 56;
    const Tiles tiles(to.pixels(), most, threads, WHOLE_ROWS<T>);
    const long a_block = tiles.size * KBLOCK;
    deal(tiles.count, threads, [&](long t) {
        const long start = t * tiles.size, rows = tiles.rows(t);
        T* tile = tile_memory.values<T>(tiles.size * up(depth, KBLOCK));
        float* answer = out + start * O;
        for (long i = 0; i < rows * O; i += LINE) __builtin_prefetch(answer + i, 1);
        gather_tile(p, x, s, map, to, start, rows, tile, a_block);
        const Pieces table(GELU.value);
        if (!p.norm_weight && p.gelu) {
            multiply(tile, a_block, rows, weight, panel, depth, O,
                     [&](long first, long count, long column, long vectors, const float* sums) {
                         for (long i = first; i < first + count; i++)
                             for (long c = column; c < column + vectors * LANES; c += LANES, sums += LANES)
                                 store_part(answer + i * O + c, gelu(load(sums) + load(p.bias + c), table), O - c);
                     });
            return;
        }
        if (!p.norm_weight) {
            multiply(tile, a_block, rows, weight, panel, depth, O,
                     [&](long first, long count, long column, long vectors, const float* sums) {
                         write_rows(answer, nullptr, p.bias, {nullptr, 1, 0}, O, first, count, column, vectors, O, sums);
                     });
            return;
        }
        float* made = hidden_memory.floats(tiles.size * wide);
        Vector totals[TOGETHER]{};
        multiply(tile, a_block, rows, weight, panel, depth, O,
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
                const Vector normed = (value - found.mean[i]) * found.scale[i] * weight + bias;
                store_part(answer + i * O + c, p.gelu ? gelu(normed, table) : normed, O - c);
            }
        }
    });
}

// Several of them, each image on its own way: what lies between two then stays in the second cache.
struct Stem {
    const Patch* layers;
    long count;
};

inline Map stemmed(const Stem& p, Map map) {
    for (long i = 0; i < p.count; i++) map = patched(p.layers[i], map);
    return map;
}

thread_local Scratch stem_memory;

inline bool stem(const Stem& p, const float* x, Strides strides, Map map, float* out, int threads) {
    const long images = map.images;
    map.images = 1;
    const long to = stemmed(p, map).floats();
    long largest = 0;
    Map each = map;
    for (long i = 0; i + 1 < p.count; i++) {
        each = patched(p.layers[i], each);
        if (each.floats() > largest) largest = each.floats();
    }
    float* between = stem_memory.ask(2 * largest);
    if (largest && !between) return false;
    for (long n = 0; n < images; n++, out += to) {
        const float* from = x + n * strides.image;
        Strides s = strides;
        each = map;
        for (long i = 0; i < p.count; i++) {
            float* answer = i + 1 < p.count ? between + i % 2 * largest : out;
            patches<float>(p.layers[i], from, s, each, answer, threads);
            from = answer, each = patched(p.layers[i], each);
            s = {each.floats(), each.width * each.channels, each.channels, 1};
        }
    }
    return true;
}

}  // namespace convnext
