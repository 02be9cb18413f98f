// Inference of a ConvNeXt block, float32, channels last.
//
// A block is x + project(gelu(expand(normalise(depthwise(x))))), with every affine part folded into the two matrices.
// Tiles of pixels go through all of it, so that the 4C hidden values of a pixel never leave the second cache.
#pragma once

#include "depthwise.h"

namespace convnext {

// One factor per image, for drop path: null is 1 everywhere.
struct Scale {
    const float* factors;
    long area, start;  // pixels of an image, the pixel that row 0 is
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
template <class T>
INLINE void write_gelu(T* tile, long a_block, const float* bias, long first, long rows, long column, long vectors,
                       const float* sums) {
    T* to = tile + column / KBLOCK * a_block + first * KBLOCK + column % KBLOCK;
    const Pieces table(GELU.value);
    for (long j = 0; j < vectors; j++) {
        const Vector shift = load(bias + column + j * LANES);
        for (long i = 0; i < rows; i++)
            store(to + i * KBLOCK + j * LANES, gelu(load(sums + (i * vectors + j) * LANES) + shift, table));
    }
    clear_half(to, rows, vectors);
}

template <class T>
struct Block {  // everything packed; biases padded to whole vectors. T: what the matmuls take
    const float *spatial, *spatial_bias;
    const T* expand;
    const float* expand_bias;
    const T* project;
    const float* project_bias;
    const float* scale;  // (N,) of drop path, or null
    const float* grn;    // (E,) of V2's global response normalization, or null
    long channels, hidden, kernel;
    float epsilon;
};

template <class T> constexpr long WHOLE_ROWS = ON_TILES<T> ? 32 : 14;  // tiles of pixels have multiples of it
constexpr long HIDDEN = 768;  // hidden columns of a tile that are alive at once
// Pixels of a tile, measured: many where the matrices are large, because every tile reads all of them; all that a
// thread has where that is little, so that the matrices come from memory once.
template <class T>
inline long tile_pixels(long channels, long of_a_thread) {
    if (ON_TILES<T>) return of_a_thread <= 256 ? 256 : channels <= 256 ? 128 : 256;
    if (of_a_thread <= 196) return 196;
    return channels <= 256 ? 112 : channels <= 512 ? 56 : 196;
}
thread_local Scratch tile_memory, hidden_memory, shared_memory;

struct Tiles {  // how `pixels` are dealt out: `count` tiles of `size` rows, the last one shorter
    long pixels, size, count;
    Tiles(long pixels, long most, int threads, long block_rows) : pixels(pixels) {
        const long parts = up((pixels + most - 1) / most, threads);
        size = up((pixels + parts - 1) / parts, pixels > block_rows * parts ? block_rows : 1);
        count = (pixels + size - 1) / size;
    }
    long rows(long tile) const { return least(size, pixels - tile * size); }
};

// Where the panel of `project` that begins at `column` holds the hidden columns from `start` on.
template <class T>
INLINE const T* project_panel(const Block<T>& p, long column, long start) {
    return p.project + column * padded<T>(p.hidden) + start * least(PANEL, up(p.channels - column, LANES));
}

// Hidden columns [start, start + count) of a tile: hidden = gelu(tile * expand + bias).
template <class T>
INLINE void expand_rows(const Block<T>& p, const T* tile, long a_block, long rows, long start, long count, T* hidden) {
    const long depth = padded<T>(p.channels);
    multiply(tile, a_block, rows, p.expand + start * depth, PANEL * depth, p.channels, count,
             [&](long first, long n, long column, long vectors, const float* sums) {
                 write_gelu(hidden, a_block, p.expand_bias + start, first, n, column, vectors, sums);
             },
             project_panel(p, 0, start));
}

// These hidden columns times their part of `project`; finish(row, rows, column, vectors, sums) takes each register block,
// `after` is what will be read next.
template <class T, class Finish, class Prepare = Unprepared>
INLINE void project_rows(const Block<T>& p, const T* hidden, long a_block, long rows, long start, long count,
                         Finish finish, const T* after, Prepare prepare = {}) {
    for (long column = 0; column < p.channels; column += PANEL) {
        const long later = column + PANEL;
        multiply(hidden, a_block, rows, project_panel(p, column, start), 0, count,
                 least(PANEL, up(p.channels - column, LANES)),
                 [&](long first, long n, long inside, long vectors, const float* sums) {
                     finish(first, n, column + inside, vectors, sums);
                 },
                 later < p.channels ? project_panel(p, later, start) : after,
                 [&](long first, long n, long inside) { prepare(first, n, column + inside); });
    }
}

// One tile, all of it: A -> hidden -> out.
template <class T>
static void mix_channels(const Block<T>& p, const T* tile, long a_block, long rows, const float* x, float* out,
                         T* hidden, Scale scale) {
    const long C = p.channels;
    for (long start = 0; start < p.hidden; start += HIDDEN) {
        const long count = least(HIDDEN, p.hidden - start), end = start + count;
        expand_rows(p, tile, a_block, rows, start, count, hidden);
        project_rows(p, hidden, a_block, rows, start, count,
                     [&](long first, long n, long column, long vectors, const float* sums) {
                         write_rows(out, start ? out : x, start ? nullptr : p.project_bias, scale, C, first, n, column,
                                    vectors, C, sums);
                     },
                     end < p.hidden ? p.expand + end * padded<T>(C) : p.expand,
                     [&](long first, long n, long column) {
                         for (long i = first; i < first + n; i++)
                             for (long c = column; c < least(column + PANEL, C); c += LINE) {
                                 __builtin_prefetch(x + i * C + c, 0);
                                 __builtin_prefetch(out + i * C + c, 1);
                             }
                     });
    }
}

template <class T>
static void by_rows(const Block<T>& p, const float* x, float* out, Map map, int threads) {
    const Tiles tiles(map.pixels(), tile_pixels<T>(p.channels, map.pixels() / threads), threads, WHOLE_ROWS<T>);
    const long a_block = tiles.size * KBLOCK;
    deal(tiles.count, threads, [&](long t) {
        const long first = t * tiles.size, rows = tiles.rows(t);
        T* tile = tile_memory.values<T>(tiles.size * up(p.channels, KBLOCK));
        T* hidden = hidden_memory.values<T>(tiles.size * HIDDEN);
        depthwise_norm(x, map, p.kernel, p.spatial, p.spatial_bias, p.epsilon, first, first + rows, tile, a_block,
                       nullptr);
        mix_channels(p, tile, a_block, rows, x + first * p.channels, out + first * p.channels, hidden,
                     {p.scale, map.height * map.width, first});
    });
}

// Few pixels for the threads: every thread takes all pixels and its part of the hidden columns, then sums are added.
template <class T>
static void by_hidden(const Block<T>& p, const float* x, float* out, Map map, int threads) {
    const long pixels = map.pixels(), C = p.channels, a_block = pixels * KBLOCK;
    const long panels = (p.hidden + PANEL - 1) / PANEL;
    float* partial = shared_memory.floats(pixels * (up(C, KBLOCK) + up(C, LANES) * threads));
    T* tile = reinterpret_cast<T*>(partial + pixels * up(C, LANES) * threads);
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
        T* hidden = hidden_memory.values<T>(pixels * up(count, KBLOCK));
        float* mine = partial + me * pixels * up(C, LANES);
        expand_rows(p, tile, a_block, pixels, start, count, hidden);
        project_rows(p, hidden, a_block, pixels, start, count,
                     [&](long first, long n, long column, long vectors, const float* sums) {
                         write_rows(mine, nullptr, nullptr, {nullptr, 1, 0}, up(C, LANES), first, n, column, vectors,
                                    up(C, LANES), sums);
                     },
                     static_cast<const T*>(nullptr));
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

template <class T>
void block_v1(const Block<T>& p, const float* x, float* out, Map map, int threads) {
    if (threads > 1 && map.pixels() < threads * 2 * VECTOR_ROWS)
        by_hidden(p, x, out, map, threads);
    else
        by_rows(p, x, out, map, threads);
}

}  // namespace convnext
