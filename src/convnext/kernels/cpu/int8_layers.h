// Inference with 8-bit matmuls: blocks of V1 and V2, and downsampling layers. Maps, the depthwise convolution, norms and
// residuals are float32; what a matmul reads is quantised where it is written.
//
// An activation x is held as the byte x * gain + offset. The weights know: their sums times `scale`, plus `bias`, are what
// the layer answers in float32.
#pragma once

#include "grn.h"
#include "int8.h"
#include "patch.h"

namespace convnext {

struct Int8Block {
    const float *spatial, *spatial_bias;
    const int8_t* expand;
    const float *expand_scale, *expand_bias;  // to the index of `gelu`
    const uint8_t* gelu;                      // (256,) the byte of gelu of what the index stands for
    const int8_t* project;
    const float *project_scale, *project_bias;
    const float* grn;  // (E,) or null
    long channels, hidden, kernel;
    float epsilon, gain, offset;  // of the normed pixels
    // V2 alone: the byte of 0, what grn adds to a mean energy in steps of that byte, and how a hidden value is held again
    // after grn: (byte - zero) * factor * again_gain + again_offset.
    float zero, smallest, again_gain, again_offset;
};

struct Int8Patch {  // as Patch with `normalise`; rows of the weight in the order ky, kx, i
    const int8_t* weight;
    const float *scale, *bias;
    long inputs, outputs, size;
    float epsilon, gain, offset;
};

thread_local Scratch byte_memory;

// Pixels [first, last): the convolution, then every pixel normed and quantised into the tile A (int8.h).
inline void depthwise_bytes(const Int8Block& p, const float* x, Map map, long first, long last, uint8_t* tile,
                            long a_block) {
    const long C = p.channels, vectors = (C + LANES - 1) / LANES, raw_block = TOGETHER * KBLOCK;
    float* raw = raw_memory.floats(up(C, KBLOCK) * TOGETHER);
    for (; first < last; first += TOGETHER, tile += TOGETHER * BBLOCK) {
        const long rows = least(TOGETHER, last - first);
        Vector totals[TOGETHER]{};
        runs(map, first, first + rows, [&](long image, long line, long column, long count, long row) {
            const float* base = x + image * map.height * map.width * C;
            for (long c = 0; c < C; c += LANES)
                depthwise(base + c, map, p.kernel, line, column, count, least(LANES, C - c),
                          p.spatial + c * p.kernel * p.kernel, load(p.spatial_bias + c),
                          {raw + c / KBLOCK * raw_block + row * KBLOCK + c % KBLOCK, KBLOCK, totals + row});
        });
        const Moments found(raw, raw_block, rows, C, p.epsilon, totals);
        for (long i = 0; i < rows; i++) {
            const Vector middle = splat(found.mean[i]), factor = splat(found.scale[i] * p.gain);
            long c = 0;
            each_vector(raw + i * KBLOCK, raw_block, vectors, [&](const float* place, bool) {
                store_bytes(tile + c / BBLOCK * a_block + i * BBLOCK + c % BBLOCK,
                            (load(place) - middle) * factor + p.offset);
                c += LANES;
            });
        }
    }
}

INLINE void expand_bytes(const Int8Block& p, const uint8_t* tile, long a_block, long rows, long from, long to,
                         uint8_t* hidden) {
    const Lookup gelu(p.gelu);
    multiply_bytes(tile, a_block, rows, p.expand, p.channels, from, to,
                   [&](long first, long n, long column, long vectors, const int32_t* sums) {
                       gelu.write(hidden, a_block, {p.expand_scale, p.expand_bias}, first, n, column, vectors, sums);
                   });
}

INLINE void project_bytes(const Int8Block& p, const uint8_t* hidden, long a_block, long rows, long from, long to,
                          const float* x, float* out) {
    multiply_bytes(hidden, a_block, rows, p.project, p.hidden, from, to,
                   [&](long first, long n, long column, long vectors, const int32_t* sums) {
                       write_floats(out, x, {p.project_scale, p.project_bias}, p.channels, first, n, column, vectors,
                                    p.channels, sums);
                   });
}

// Few pixels for the threads: every thread takes all pixels and its part of the columns, of one matmul after the other.
static void int8_by_columns(const Int8Block& p, const float* x, float* out, Map map, int threads) {
    const long pixels = map.pixels(), a_block = pixels * BBLOCK;
    uint8_t* tile = byte_memory.values<uint8_t>(pixels * (up(p.channels, BBLOCK) + up(p.hidden, BBLOCK)));
    uint8_t* hidden = tile + pixels * up(p.channels, BBLOCK);
#pragma omp parallel num_threads(threads)
    {
        const long me = omp_get_thread_num(), team = omp_get_num_threads();
        auto part = [&](long columns, long place) {
            return least((columns + PANEL - 1) / PANEL * place / team * PANEL, columns);
        };
        const long from = pixels * me / team, to = pixels * (me + 1) / team;
        depthwise_bytes(p, x, map, from, to, tile + from * BBLOCK, a_block);
#pragma omp barrier
        expand_bytes(p, tile, a_block, pixels, part(p.hidden, me), part(p.hidden, me + 1), hidden);
#pragma omp barrier
        project_bytes(p, hidden, a_block, pixels, part(p.channels, me), part(p.channels, me + 1), x, out);
    }
}

static void int8_by_rows(const Int8Block& p, const float* x, float* out, Map map, int threads) {
    const Tiles tiles(map.pixels(), tile_pixels<uint8_t>(p.channels, map.pixels() / threads), threads, WHOLE_ROWS<uint8_t>);
    const long a_block = tiles.size * BBLOCK;
    deal(tiles.count, threads, [&](long t) {
        const long first = t * tiles.size, rows = tiles.rows(t), place = first * p.channels;
        uint8_t* tile = tile_memory.values<uint8_t>(tiles.size * up(p.channels, BBLOCK));
        uint8_t* hidden = hidden_memory.values<uint8_t>(tiles.size * up(p.hidden, BBLOCK));
        depthwise_bytes(p, x, map, first, first + rows, tile, a_block);
        expand_bytes(p, tile, a_block, rows, 0, p.hidden, hidden);
        project_bytes(p, hidden, a_block, rows, 0, p.channels, x + place, out + place);
    });
}

// The exact sums over the pixels [first, last) of (byte - zero)^2, for BBLOCK columns from `column` on; of a tile they fit 32
// bits. Tiles are `size` pixels each.
static void byte_energy(const uint8_t* hidden, long zero, long first, long last, long size, long columns, long column,
                        double* to) {
    while (first < last) {
        const long row = first % size, count = least(size - row, last - first);
        const uint8_t* from = hidden + (first - row) * columns + column * size + row * BBLOCK;
        int32_t total[BBLOCK]{};
        for (long pixel = 0; pixel < count; pixel++, from += BBLOCK)
            for (long i = 0; i < BBLOCK; i++) {
                const int32_t value = from[i] - static_cast<int32_t>(zero);
                total[i] += value * value;
            }
        for (long i = 0; i < BBLOCK; i++) to[i] += total[i];
        first += count;
    }
}

// From the energies of columns to again_gain * (1 + grn[column] * energy / mean energy); 0 where no column is.
static void byte_factors(const Int8Block& p, long images, long columns, float* factors) {
    for (long image = 0; image < images; image++) {
        float* own = factors + image * columns;
        double total = 0;
        for (long i = 0; i < p.hidden; i++) total += own[i];
        const float mean = static_cast<float>(total / static_cast<double>(p.hidden)) + p.smallest;
        for (long i = 0; i < columns; i++) own[i] = i < p.hidden ? p.again_gain * (1 + p.grn[i] * (own[i] / mean)) : 0;
    }
}

// V2: the hidden bytes of a few images are kept until their energies are known; then each is held again, times its factor.
static void int8_block_v2(const Int8Block& p, const float* x, float* out, Map map, int threads) {
    const long area = map.height * map.width, C = p.channels, columns = up(p.hidden, BBLOCK);
    const long most = tile_pixels<uint8_t>(C, map.pixels() / threads);
    const long group = least(map.images, area < most * threads ? most * threads / area : 1);  // images at once
    for (long done = 0; done < map.images; done += group) {
        const Map part{least(group, map.images - done), map.height, map.width, C};
        const Tiles tiles(part.pixels(), most, threads, WHOLE_ROWS<uint8_t>);
        const long size = tiles.size, a_block = size * BBLOCK;
        const float* in = x + done * area * C;
        float* to = out + done * area * C;
        uint8_t* hidden = byte_memory.values<uint8_t>(tiles.count * size * columns);
        float* factors = shared_memory.floats(part.images * columns);
        deal(tiles.count, threads, [&](long t) {
            const long first = t * size, rows = tiles.rows(t);
            uint8_t* tile = tile_memory.values<uint8_t>(size * up(C, BBLOCK));
            depthwise_bytes(p, in, part, first, first + rows, tile, a_block);
            expand_bytes(p, tile, a_block, rows, 0, p.hidden, hidden + first * columns);
        });
        const long zero = static_cast<long>(p.zero);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
        for (long column = 0; column < part.images * columns; column += BBLOCK) {
            const long image = column / columns;
            double energy[BBLOCK]{};
            byte_energy(hidden, zero, image * area, (image + 1) * area, size, columns, column % columns, energy);
            for (long i = 0; i < BBLOCK; i++) factors[column + i] = static_cast<float>(std::sqrt(energy[i]));
        }
        byte_factors(p, part.images, columns, factors);
        deal(tiles.count, threads, [&](long t) {
            const long first = t * size, rows = tiles.rows(t), place = first * C;
            uint8_t* mine = hidden + first * columns;
            for (long row = 0; row < rows; row++) {
                const float* factor = factors + (first + row) / area * columns;
                uint8_t* bytes = mine + row * BBLOCK;
                for (long block = 0; block < columns; block += BBLOCK, bytes += a_block, factor += BBLOCK)
                    for (long v = 0; v < BBLOCK; v += LANES)
                        store_bytes(bytes + v, (floats_of(bytes + v) - p.zero) * load(factor + v) + p.again_offset);
            }
            project_bytes(p, mine, a_block, rows, 0, C, in + place, to + place);
        });
    }
}

inline void int8_block(const Int8Block& p, const float* x, float* out, Map map, int threads) {
    if (p.grn)
        int8_block_v2(p, x, out, map, threads);
    else if (threads > 1 && map.pixels() < threads * 2 * VECTOR_ROWS)
        int8_by_columns(p, x, out, map, threads);
    else
        int8_by_rows(p, x, out, map, threads);
}

inline Map patched(const Int8Patch& p, Map map) {
    auto parts = [&](long side) { return side < p.size ? 1 : side / p.size; };
    return {map.images, parts(map.height), parts(map.width), p.outputs};
}

// The pixels that one place of the patch takes, normed and quantised, into bytes [k, k + inputs) of the rows.
static void gather_bytes(const Int8Patch& p, const float* const* from, long rows, uint8_t* to, long stride) {
    const long I = p.inputs;
    auto each = [&](long i, auto visit) {
        for (long c = 0; c < I; c += LANES) visit(load_part(from[i] + c, I - c), c + LANES >= I);
    };
    Vector totals[TOGETHER]{};
    for (long i = 0; i < rows; i++) each(i, [&](Vector value, bool) { totals[i] += value; });
    const Moments found(rows, I, p.epsilon, totals, each);
    for (long i = 0; i < rows; i++)
        for (long c = 0; c < I; c += LANES) {  // what goes beyond the last channel is written over by the next place
            const Vector value = (load_part(from[i] + c, I - c) - found.mean[i]) * (found.scale[i] * p.gain);
            store_bytes(to + i * stride + c, value + p.offset);
        }
}

inline void int8_patches(const Int8Patch& p, const float* x, Strides s, Map map, float* out, int threads) {
    const Map to = patched(p, map);
    const long depth = p.size * p.size * p.inputs, O = p.outputs, stride = up(depth, BBLOCK) + BBLOCK;
    const long most = ON_TILES<uint8_t> ? 128 : depth * O > 1 << 18 ? 112 : 56;
    const Tiles tiles(to.pixels(), most, threads, WHOLE_ROWS<uint8_t>);
    const long a_block = tiles.size * BBLOCK;
    deal(tiles.count, threads, [&](long t) {
        const long start = t * tiles.size, rows = tiles.rows(t);
        uint8_t* tile = tile_memory.values<uint8_t>(tiles.size * stride);
        uint8_t* row = hidden_memory.values<uint8_t>(tiles.size * stride);
        const float* from[TOGETHER];
        for (long ky = 0; ky < p.size; ky++)
            for (long kx = 0; kx < p.size; kx++) {
                for (long i = 0; i < rows; i++) {
                    const long line = (start + i) / to.width;
                    const long y = least(line % to.height * p.size + ky, map.height - 1);
                    const long at = least((start + i) % to.width * p.size + kx, map.width - 1);
                    from[i] = x + line / to.height * s.image + y * s.line + at * s.column;
                }
                gather_bytes(p, from, rows, row + (ky * p.size + kx) * p.inputs, stride);
            }
        for (long i = 0; i < rows; i++)
            for (long k = 0; k < depth; k += BBLOCK)
                std::memcpy(tile + k / BBLOCK * a_block + i * BBLOCK, row + i * stride + k, BBLOCK);
        multiply_bytes(tile, a_block, rows, p.weight, depth, 0, O,
                       [&](long first, long n, long column, long vectors, const int32_t* sums) {
                           write_floats(out + start * O, nullptr, {p.scale, p.bias}, O, first, n, column, vectors, O,
                                        sums);
                       });
    });
}

}  // namespace convnext
