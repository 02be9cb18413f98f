// Depthwise convolution of (N, H, W, C) maps, a run of pixels of one row and a vector of channels at a time.
//
// Weights are packed as [vector of channels][row of the kernel][column][LANES], zero beyond C.
#pragma once

#include "gemm.h"

namespace convnext {

struct Map {  // one (N, H, W, C) tensor's shape
    long pictures, height, width, channels;
    long pixels() const { return pictures * height * width; }
};

// sums[j] += the convolution at pixel column + j, j < PIXELS, of `lanes` channels from x = &picture[0][0][channel].
template <int PIXELS, bool PART>
__attribute__((noinline)) void depthwise7(const float* x, Map map, long line, long column, long lanes,
                                          const float* weight, Vector bias, Vector* to) {
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
                UNROLL for (int kx = 0; kx < K; kx++)
                    if (i - kx >= 0 && i - kx < PIXELS)
                        sums[i - kx < 0 || i - kx >= PIXELS ? 0 : i - kx] += value * taps[kx];
            }
        }
    }
    UNROLL for (int j = 0; j < PIXELS; j++) to[j] = sums[j];
}

// The same for a kernel of any odd size.
inline void depthwise_any(const float* x, Map map, long kernel, long line, long column, long count, long lanes,
                          const float* weight, Vector bias, Vector* to) {
    const long radius = kernel / 2;
    for (long j = 0; j < count; j++) to[j] = bias;
    for (long ky = 0; ky < kernel; ky++) {
        const long y = line + ky - radius;
        if (y < 0 || y >= map.height) continue;
        for (long kx = 0; kx < kernel; kx++) {
            const Vector tap = load(weight + (ky * kernel + kx) * LANES);
            for (long j = 0; j < count; j++) {
                const long at = column + j + kx - radius;
                if (at < 0 || at >= map.width) continue;
                to[j] += load_part(x + (y * map.width + at) * map.channels, lanes) * tap;
            }
        }
    }
}

using Depthwise = void (*)(const float*, Map, long, long, long, const float*, Vector, Vector*);
constexpr long RUN = REGISTERS == 32 ? 14 : 6;  // pixels at once: that many sums and a row of taps fit the registers
extern const Depthwise DEPTHWISE7[2][15];       // [whole vector, part of one][pixels]

// Pixels `column` to `column + count` (count <= RUN) of one line.
INLINE void depthwise(const float* x, Map map, long kernel, long line, long column, long count, long lanes,
                      const float* weight, Vector bias, Vector* to) {
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
    Vector slopes[PIXELS];
    UNROLL for (int j = 0; j < PIXELS; j++)
        slopes[j] = PART ? load_part(g + j * map.channels, lanes) : load(g + j * map.channels);
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
                        sums[kx] += value * slopes[i - kx < 0 || i - kx >= PIXELS ? 0 : i - kx];
            }
        }
        UNROLL for (int kx = 0; kx < K; kx++) store(taps + kx * LANES, sums[kx]);
    }
}

using Taps = void (*)(const float*, const float*, Map, long, long, long, float*);
extern const Taps TAPS7[2][15];

// The same for a kernel of any odd size; x = &picture[0][0][channel], g = the first of `count` pixels.
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

// Calls visit(picture, line, column, count, offset) for runs of at most RUN pixels that cover [first, last).
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

// Pixels [first, last): the convolution, then every pixel minus its mean, over its deviation, into the tile A (gemm.h).
// Also 1 / deviation of each pixel where `inverse` is given.
inline void depthwise_norm(const float* x, Map map, long kernel, const float* weight, const float* bias, float epsilon,
                           long first, long last, float* tile, long a_block, float* inverse) {
    const long channels = map.channels, vectors = (channels + LANES - 1) / LANES;
    Vector values[RUN];
    Vector keep{};  // 1 in the lanes of the last vector that are channels
    for (long i = 0; i < channels - (vectors - 1) * LANES; i++) keep[i] = 1;
    auto at = [&](long row, long v) { return tile + v * LANES / KBLOCK * a_block + row * KBLOCK + v * LANES % KBLOCK; };
    runs(map, first, last, [&](long picture, long line, long column, long count, long row) {
        const float* base = x + picture * map.height * map.width * channels;
        Vector totals[RUN];
        for (long j = 0; j < count; j++) totals[j] = Vector{};
        for (long v = 0; v < vectors; v++) {
            const long lanes = least(LANES, channels - v * LANES);
            depthwise(base + v * LANES, map, kernel, line, column, count, lanes, weight + v * kernel * kernel * LANES,
                      load(bias + v * LANES), values);
            for (long j = 0; j < count; j++) {
                totals[j] += values[j];
                store(at(row + j, v), values[j]);
            }
        }
        for (long j = 0; j < count; j++) {
            const Vector mean = splat(sum(totals[j]) / static_cast<float>(channels));
            Vector squares{};
            for (long v = 0; v < vectors; v++) {
                Vector off = load(at(row + j, v)) - mean;
                if (v + 1 == vectors) off *= keep;
                store(at(row + j, v), off);
                squares += off * off;
            }
            const float scale = 1 / std::sqrt(sum(squares) / static_cast<float>(channels) + epsilon);
            for (long v = 0; v < vectors; v++) store(at(row + j, v), load(at(row + j, v)) * scale);
            if (inverse) inverse[row + j] = scale;
        }
    });
}

}  // namespace convnext
