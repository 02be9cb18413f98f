// Depthwise convolution of (N, H, W, C) maps, a run of pixels of one row and a vector of channels at a time.
//
// Weights are packed as [vector of channels][row of the kernel][column][LANES], zero beyond C.
#pragma once

#include "gemm.h"
#include "memory.h"

namespace convnext {

struct Map {  // one (N, H, W, C) tensor's shape
    long images, height, width, channels;
    long pixels() const { return images * height * width; }
    long floats() const { return pixels() * channels; }
};

constexpr long RUN = REGISTERS == 32 ? 14 : 6;  // pixels at once: that many sums and a row of taps fit the registers

struct Result {  // where a run of pixels goes: pixel j to values + j * step; totals[j] grows by it
    float* values;
    long step;
    Vector* totals;
};

// The convolution at pixels column + j, j < PIXELS, of `lanes` channels from x = &image[0][0][channel].
template <int PIXELS, bool PART>
__attribute__((noinline)) void depthwise7(const float* x, const Map& map, long line, long column, long lanes,
                                          const float* weight, Vector bias, const Result& to) {
    constexpr int K = 7, R = 3;
    Vector sums[PIXELS];
    UNROLL for (int j = 0; j < PIXELS; j++) sums[j] = bias;
    for (long ky = 0; ky < K; ky++) {
        const long y = line + ky - R;
        if (y < 0 || y >= map.height) continue;
        const float* row = x + (y * map.width + column - R) * map.channels;
        Vector taps[K];
        UNROLL for (int kx = 0; kx < K; kx++) taps[kx] = load(weight + (ky * K + kx) * LANES);
        UNROLL for (int i = 0; i < PIXELS + K - 1; i++) {
            const long at = column + i - R;
            if (at >= 0 && at < map.width) {
                const float* from = row + i * map.channels;
                const Vector value = PART ? load_part(from, lanes) : load(from);
                if (!PART) __builtin_prefetch(from + LANES);  // this pixel's next channels
                UNROLL for (int kx = 0; kx < K; kx++)
                    if (i - kx >= 0 && i - kx < PIXELS)
                        sums[i - kx < 0 || i - kx >= PIXELS ? 0 : i - kx] += value * taps[kx];
            }
        }
    }
    UNROLL for (int j = 0; j < PIXELS; j++) {
        store(to.values + j * to.step, sums[j]);
        to.totals[j] += sums[j];
    }
}

// The same for a kernel of any odd size.
inline void depthwise_any(const float* x, const Map& map, long kernel, long line, long column, long count, long lanes,
                          const float* weight, Vector bias, const Result& to) {
    const long radius = kernel / 2;
    Vector sums[RUN];
    for (long j = 0; j < count; j++) sums[j] = bias;
    for (long ky = 0; ky < kernel; ky++) {
        const long y = line + ky - radius;
        if (y < 0 || y >= map.height) continue;
        for (long kx = 0; kx < kernel; kx++) {
            const Vector tap = load(weight + (ky * kernel + kx) * LANES);
            for (long j = 0; j < count; j++) {
                const long at = column + j + kx - radius;
                if (at < 0 || at >= map.width) continue;
                sums[j] += load_part(x + (y * map.width + at) * map.channels, lanes) * tap;
            }
        }
    }
    for (long j = 0; j < count; j++) {
        store(to.values + j * to.step, sums[j]);
        to.totals[j] += sums[j];
    }
}

// Structures go by reference: a copy on the stack, written in parts and read whole, waits for all stores before it.
using Depthwise = void (*)(const float*, const Map&, long, long, long, const float*, Vector, const Result&);
extern const Depthwise DEPTHWISE7[2][15];       // [whole vector, part of one][pixels]

// Pixels `column` to `column + count` (count <= RUN) of one line.
INLINE void depthwise(const float* x, const Map& map, long kernel, long line, long column, long count, long lanes,
                      const float* weight, Vector bias, const Result& to) {
    if (kernel == 7)
        DEPTHWISE7[lanes < LANES][count](x, map, line, column, lanes, weight, bias, to);
    else
        depthwise_any(x, map, kernel, line, column, count, lanes, weight, bias, to);
}

// The weight's gradient from PIXELS pixels: taps[ky][kx] += sum over j of g[j] * x, at the line
// line + ky - 3 and the column column + j + kx - 3.
template <int PIXELS, bool PART>
__attribute__((noinline)) void taps7(const float* g, const float* x, Map map, long line, long column, long lanes,
                                     float* taps) {
    constexpr int K = 7, R = 3;
    Vector gradients[PIXELS];
    UNROLL for (int j = 0; j < PIXELS; j++)
        gradients[j] = PART ? load_part(g + j * map.channels, lanes) : load(g + j * map.channels);
    for (long ky = 0; ky < K; ky++, taps += K * LANES) {
        const long y = line + ky - R;
        if (y < 0 || y >= map.height) continue;
        const float* row = x + (y * map.width + column - R) * map.channels;
        Vector sums[K];
        UNROLL for (int kx = 0; kx < K; kx++) sums[kx] = load(taps + kx * LANES);
        UNROLL for (int i = 0; i < PIXELS + K - 1; i++) {
            const long at = column + i - R;
            if (at >= 0 && at < map.width) {
                const float* from = row + i * map.channels;
                const Vector value = PART ? load_part(from, lanes) : load(from);
                UNROLL for (int kx = 0; kx < K; kx++)
                    if (i - kx >= 0 && i - kx < PIXELS)
                        sums[kx] += value * gradients[i - kx < 0 || i - kx >= PIXELS ? 0 : i - kx];
            }
        }
        UNROLL for (int kx = 0; kx < K; kx++) store(taps + kx * LANES, sums[kx]);
    }
}

using Taps = void (*)(const float*, const float*, Map, long, long, long, float*);
extern const Taps TAPS7[2][15];

// The same for a kernel of any odd size; x = &image[0][0][channel], g = the first of `count` pixels.
inline void taps_any(const float* g, const float* x, Map map, long kernel, long line, long column, long count,
                     long lanes, float* taps) {
    const long radius = kernel / 2;
    for (long ky = 0; ky < kernel; ky++)
        for (long kx = 0; kx < kernel; kx++, taps += LANES) {
            const long y = line + ky - radius;
            if (y < 0 || y >= map.height) continue;
            Vector total = load(taps);
            for (long j = 0; j < count; j++) {
                const long at = column + j + kx - radius;
                if (at < 0 || at >= map.width) continue;
                total += load_part(x + (y * map.width + at) * map.channels, lanes) *
                         load_part(g + j * map.channels, lanes);
            }
            store(taps, total);
        }
}

// Calls visit(image, line, column, count, offset) for runs of at most RUN pixels that cover [first, last).
template <class Visit>
INLINE void runs(Map map, long first, long last, Visit visit) {
    for (long pixel = first; pixel < last;) {
        const long line = pixel / map.width, column = pixel % map.width;
        const long rest = least(map.width - column, last - pixel);
        const long parts = (rest + RUN - 1) / RUN, count = (rest + parts - 1) / parts;
        visit(line / map.height, line % map.height, column, count, pixel - first);
        pixel += count;
    }
}

// Calls visit(place, last) for the vectors of one row of a tile (gemm.h).
template <class Float, class Visit>
INLINE void each_vector(Float* row, long a_block, long vectors, Visit visit) {
    constexpr long EACH = KBLOCK / LANES;
    for (; vectors > EACH; vectors -= EACH, row += a_block)
        UNROLL for (long v = 0; v < EACH; v++) visit(row + v * LANES, false);
    for (; vectors > 1; vectors--, row += LANES) visit(row, false);
    visit(row, true);
}

thread_local Scratch raw_memory;
constexpr long TOGETHER = 128;  // rows whose sums are taken side by side, so that none waits for another's

// The mean over `channels` values of each of `rows` <= TOGETHER rows, and 1 / its deviation. totals: each row's vectors,
// added up; they are lost. each(row, visit) calls visit(vector, last) for the vectors of a row.
struct Moments {
    alignas(64) float mean[TOGETHER], scale[TOGETHER];

    template <class Each>
    INLINE Moments(long rows, long channels, float epsilon, Vector* totals, Each each) {
        const long tail = channels - (channels - 1) / LANES * LANES;  // channels of the last vector
        const Vector share = splat(1 / static_cast<float>(channels));
        for (long i = 0; i < rows; i += LANES) store(mean + i, sums(totals + i) * share);
        for (long i = 0; i < rows; i++) {
            const Vector middle = splat(mean[i]);
            Vector squares{};
            each(i, [&](Vector value, bool last) {
                Vector off = value - middle;
                if (last) off = first_lanes(off, tail);
                squares += off * off;
            });
            totals[i] = squares;
        }
        for (long i = 0; i < rows; i += LANES)
            store(scale + i, splat(1.0f) / root(sums(totals + i) * share + splat(epsilon)));
    }

    Moments(const float* tile, long a_block, long rows, long channels, float epsilon, Vector* totals)  // of a tile's rows
        : Moments(rows, channels, epsilon, totals, [&](long i, auto visit) {
              each_vector(tile + i * KBLOCK, a_block, (channels + LANES - 1) / LANES,
                          [&](const float* place, bool last) { visit(load(place), last); });
          }) {}
};

// `rows` <= TOGETHER rows of a tile, each minus its mean, over its deviation, into those of `to`, which may be the same tile.
// totals: as for Moments.
template <class T>
void normalise_rows(const float* tile, long a_block, long rows, long channels, float epsilon, Vector* totals, T* to,
                    long to_block, float* inverse) {
    const long vectors = (channels + LANES - 1) / LANES;
    const Moments found(tile, a_block, rows, channels, epsilon, totals);
    for (long i = 0; i < rows; i++) {
        const Vector middle = splat(found.mean[i]), factor = splat(found.scale[i]);
        T* put = to + i * KBLOCK;
        long c = 0;
        each_vector(tile + i * KBLOCK, a_block, vectors, [&](const float* place, bool last) {
            Vector value = (load(place) - middle) * factor;
            if (last) value = first_lanes(value, channels - (vectors - 1) * LANES);
            store(put + c / KBLOCK * to_block + c % KBLOCK, value);
            c += LANES;
        });
        if (vectors * LANES % KBLOCK) clear_half(put + c / KBLOCK * to_block, 1, 1);
        if (inverse) inverse[i] = found.scale[i];
    }
}

// Pixels [first, last): the convolution, then every pixel minus its mean, over its deviation, into the tile A (gemm.h).
// Also 1 / deviation of each pixel where `inverse` is given.
template <class T>
void depthwise_norm(const float* x, Map map, long kernel, const float* weight, const float* bias, float epsilon,
                    long first, long last, T* tile, long a_block, float* inverse) {
    const long channels = map.channels;
    float* raw;  // the convolution's answers: in the tile itself where that has floats
    long raw_block = a_block;
    if constexpr (TERMS<T> == 1)
        raw = tile;
    else
        raw = raw_memory.floats(up(channels, KBLOCK) * TOGETHER), raw_block = TOGETHER * KBLOCK;
    for (; first < last; first += TOGETHER, tile += TOGETHER * KBLOCK, inverse += inverse ? TOGETHER : 0) {
        const long rows = least(TOGETHER, last - first);
        Vector totals[TOGETHER]{};
        runs(map, first, first + rows, [&](long image, long line, long column, long count, long row) {
            const float* base = x + image * map.height * map.width * channels;
            for (long c = 0; c < channels; c += LANES)
                depthwise(base + c, map, kernel, line, column, count, least(LANES, channels - c),
                          weight + c * kernel * kernel, load(bias + c),
                          {raw + c / KBLOCK * raw_block + row * KBLOCK + c % KBLOCK, KBLOCK, totals + row});
        });
        normalise_rows(raw, raw_block, rows, channels, epsilon, totals, tile, a_block, inverse);
        if constexpr (TERMS<T> == 1) raw += TOGETHER * KBLOCK;
    }
}

}  // namespace convnext
