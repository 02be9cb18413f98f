// RoIAlign (arXiv 1703.06870) of (N, H, W, C) maps, forward alone.
//
// The samples of a bin lie on a grid, and the weights that bilinear interpolation gives them are products of one of the row
// and one of the column. So a bin is the sum over its rows and columns of products of two weights that are known before:
// each position is read once for a row of bins, not four times for each sample.
#pragma once

#include "memory.h"

namespace convnext {

thread_local Scratch roi_memory;

struct Axis {  // the weights of one axis of a box: bin i reads `counts[i]` positions from `starts[i]` on
    float* weights;  // [bin][stride]
    long *starts, *counts;
    long stride;
};

// `low` to `high`: the box in positions, pixel centres at whole numbers; `limit`: positions of the map. Returns the samples
// of a bin, one for each position that it is long.
inline long weigh(float low, float high, long bins, long limit, Axis to) {
    const float length = (high - low) / static_cast<float>(bins);
    const long samples = static_cast<long>(std::ceil(length));
    for (long bin = 0; bin < bins; bin++) {
        float* weights = to.weights + bin * to.stride;
        std::memset(weights, 0, static_cast<size_t>(to.stride) * 4);
        long first = -1, end = 0;
        for (long i = 0; i < samples; i++) {
            float at = low + static_cast<float>(bin) * length +
                       (static_cast<float>(i) + 0.5f) * length / static_cast<float>(samples);
            if (at < -1 || at > static_cast<float>(limit)) continue;  // outside: zeros
            if (at < 0) at = 0;
            const long place = least(static_cast<long>(at), limit - 1);
            const float share = place == limit - 1 ? 0 : at - static_cast<float>(place);  // of the next position
            if (first < 0) first = place;
            weights[place - first] += 1 - share;
            if (share > 0) weights[place + 1 - first] += share;
            end = place + (share > 0 ? 2 : 1);
        }
        to.starts[bin] = first < 0 ? 0 : first;
        to.counts[bin] = first < 0 ? 0 : end - first;
    }
    return samples;
}

constexpr long CHUNK = 4;  // vectors of channels at once

// `count` lanes from `c` on of one box, of which WHOLE says that they are CHUNK vectors.
template <bool WHOLE>
inline void pool_channels(const float* x, Map map, Axis down, Axis across, long begin, long end, long size, Vector share,
                          long count, float* mixed, float* bins, float* to) {
    auto part = [&](const float* from, long v) { return WHOLE ? load(from) : load_part(from, count - v * LANES); };
    const long vectors = WHOLE ? CHUNK : (count + LANES - 1) / LANES, C = map.channels, line = map.width * C;
    for (long i = 0; i < size; i++) {
        for (long column = begin; column < end; column++) {  // the bins' rows, each column of them
            Vector sums[CHUNK]{};
            const float* from = x + down.starts[i] * line + column * C;
            for (long row = 0; row < down.counts[i]; row++, from += line) {
                const Vector weight = splat(down.weights[i * down.stride + row]);
                UNROLL for (long v = 0; v < CHUNK; v++)
                    if (WHOLE || v < vectors) sums[v] += part(from + v * LANES, v) * weight;
            }
            UNROLL for (long v = 0; v < CHUNK; v++) store(mixed + (column * CHUNK + v) * LANES, sums[v] * share);
        }
        for (long j = 0; j < size; j++) {
            Vector sums[CHUNK]{};
            const float* from = mixed + across.starts[j] * CHUNK * LANES;
            for (long column = 0; column < across.counts[j]; column++, from += CHUNK * LANES) {
                const Vector weight = splat(across.weights[j * across.stride + column]);
                UNROLL for (long v = 0; v < CHUNK; v++) sums[v] += load(from + v * LANES) * weight;
            }
            UNROLL for (long v = 0; v < CHUNK; v++) store(bins + ((i * size + j) * CHUNK + v) * LANES, sums[v]);
        }
    }
    for (long c = 0; c < count; c++)
        for (long bin = 0; bin < size * size; bin++) to[c * size * size + bin] = bins[bin * CHUNK * LANES + c];
}

// One box (left, top, right, bottom in pixels): to (C, size, size). `x`: the map of its image.
inline void pool_box(const float* x, Map map, const float* box, float scale, long size, float* to) {
    const long C = map.channels, rows = map.height + 1, columns = map.width + 1;
    float* mixed = roi_memory.floats(size * (rows + columns) + (columns + size * size) * CHUNK * LANES + 8 * size);
    float* bins = mixed + columns * CHUNK * LANES;
    long* numbers = reinterpret_cast<long*>(bins + size * size * CHUNK * LANES);
    float* weights = reinterpret_cast<float*>(numbers + 4 * size);
    const Axis down{weights, numbers, numbers + size, rows};
    const Axis across{weights + size * rows, numbers + 2 * size, numbers + 3 * size, columns};
    const long samples = weigh(box[1] * scale - 0.5f, box[3] * scale - 0.5f, size, map.height, down) *
                         weigh(box[0] * scale - 0.5f, box[2] * scale - 0.5f, size, map.width, across);
    const Vector share = splat(samples > 0 ? 1 / static_cast<float>(samples) : 0);
    long begin = map.width, end = 0;  // the columns that any bin reads
    for (long bin = 0; bin < size; bin++)
        if (across.counts[bin]) {
            begin = least(begin, across.starts[bin]);
            end = -least(-end, -across.starts[bin] - across.counts[bin]);
        }
    for (long c = 0; c < C; c += CHUNK * LANES) {
        const long count = least(CHUNK * LANES, C - c);
        const auto pooled = count == CHUNK * LANES ? pool_channels<true> : pool_channels<false>;
        pooled(x + c, map, down, across, begin, end, size, share, count, mixed, bins, to + c * size * size);
    }
}

// Those of the boxes (R, 5), the image, then left, top, right, bottom, that `places` names; to (R, C, size, size).
inline void roi_align(const float* x, Map map, const float* boxes, const int64_t* places, long count, float scale,
                      long size, float* to, int threads) {
    deal(count, threads, [&](long i) {
        const float* box = boxes + 5 * places[i];
        pool_box(x + static_cast<long>(box[0]) * map.height * map.width * map.channels, map, box + 1, scale, size,
                 to + places[i] * size * size * map.channels);
    });
}

}  // namespace convnext
