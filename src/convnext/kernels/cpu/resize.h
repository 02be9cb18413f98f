// A part of a resized 8-bit image, to the bit as Pillow's bicubic resize computes the whole: weights in double precision
// without fused products, rounded to 22 bits; sums of whole numbers, rounded to 8 bits after each of two passes. What the
// part does not need is never computed. Sixteen values go together: of as many lines across, neighbours of one line down.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "vector.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

namespace convnext {

constexpr long GROUP = 16;
constexpr int WEIGHT_BITS = 22;
typedef uint8_t Group __attribute__((vector_size(GROUP)));

struct Weighted {  // what each place of a line is the sum of
    std::vector<long> first, count;
    std::vector<int32_t> weights;  // `most` for each place
    long most;

    // The places `from` to `from + places` of a line of `length` pixels that is resized to `resized`.
    Weighted(long length, long resized, long from, long places) : first(places), count(places) {
        const double scale = double(length) / resized, wide = scale < 1 ? 1 : scale;
        const double support = 2 * wide, narrow = 1 / wide;
        most = long(std::ceil(support)) * 2 + 1;
        weights.assign(places * most, 0);
        std::vector<double> exact(most);
        for (long i = 0; i < places; ++i) {
            const double centre = (from + i + 0.5) * scale;
            const long low = long(centre - support + 0.5), high = long(centre + support + 0.5);
            first[i] = low < 0 ? 0 : low;
            count[i] = (high > length ? length : high) - first[i];
            double sum = 0;
            for (long t = 0; t < count[i]; ++t) {
                exact[t] = cubic((t + first[i] - centre + 0.5) * narrow);
                sum += exact[t];
            }
            for (long t = 0; t < count[i]; ++t) {
                const double share = (sum != 0 ? exact[t] / sum : exact[t]) * (1 << WEIGHT_BITS);
                weights[i * most + t] = int32_t(share < 0 ? share - 0.5 : share + 0.5);
            }
        }
    }

    const int32_t* of(long i) const { return &weights[i * most]; }
    long low() const { return first[0]; }  // the first that is needed of the line
    long span() const { return first.back() + count.back() - first[0]; }  // how many of it

    static double cubic(double x) {  // Keys' with a = -1/2
        x = x < 0 ? -x : x;
        if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
        return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    }
};

#ifndef __clang__
#pragma GCC pop_options
#endif

struct Sums {  // of GROUP places
    static constexpr long PARTS = GROUP / LANES;
    Index part[PARTS];

    explicit Sums(int32_t all) {
        for (Index& each : part) each = Index{} + all;
    }

    INLINE void add(const uint8_t* from, int32_t weight) {
        UNROLL for (long i = 0; i < PARTS; ++i) part[i] += widened(from + i * LANES) * weight;
    }

    INLINE void keep(uint8_t* to) const {  // below 0 and above 255: those
        UNROLL for (long i = 0; i < PARTS; ++i) {
            const Index whole = part[i] >> WEIGHT_BITS, low = whole < 0 ? Index{} : whole;
            narrowed(low > 255 ? Index{} + 255 : low, to + i * LANES);
        }
    }

    static INLINE Index widened(const uint8_t* from) {
#if defined(__AVX512F__)
        return reinterpret_cast<Index>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__AVX2__)
        return reinterpret_cast<Index>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
        Index found;
        for (long i = 0; i < LANES; ++i) found[i] = from[i];
        return found;
#endif
    }

    static INLINE void narrowed(Index values, uint8_t* to) {  // of 8 bits each
#if defined(__AVX512F__)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(values)));
#else
        for (long i = 0; i < LANES; ++i) to[i] = static_cast<uint8_t>(values[i]);
#endif
    }
};

constexpr int32_t HALF = 1 << (WEIGHT_BITS - 1);

// The bytes of two groups in turn: the first half of both, and the second.
static INLINE void shuffle(Group first, Group second, Group& low, Group& high) {
#ifdef __clang__
    low = __builtin_shufflevector(first, second, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    high = __builtin_shufflevector(first, second, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#else
    const Group places = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    low = __builtin_shuffle(first, second, places);
    high = __builtin_shuffle(first, second, places + 8);
#endif
}

// (GROUP, GROUP) bytes, lines `by_in` and `by_out` apart, with rows and columns exchanged: four perfect shuffles.
static inline void turn(const uint8_t* in, long by_in, uint8_t* out, long by_out) {
    Group a[GROUP], b[GROUP];
    for (long i = 0; i < GROUP; ++i) std::memcpy(&a[i], in + i * by_in, GROUP);
    for (int round = 0; round < 4; ++round) {
        for (long i = 0; i < GROUP / 2; ++i) shuffle(a[i], a[i + GROUP / 2], b[2 * i], b[2 * i + 1]);
        std::memcpy(a, b, sizeof a);
    }
    for (long i = 0; i < GROUP; ++i) std::memcpy(out + i * by_out, &a[i], GROUP);
}

// (rows, columns) bytes, lines `by_in` and `by_out` apart, exchanged; `out` has room for whole groups, `in` is not read beyond.
static inline void turn_all(const uint8_t* in, long rows, long columns, long by_in, uint8_t* out, long by_out) {
    for (long y = 0; y < rows; y += GROUP)
        for (long x = 0; x < columns; x += GROUP) {
            uint8_t part[GROUP * GROUP];
            const long height = rows - y < GROUP ? rows - y : GROUP, width = columns - x < GROUP ? columns - x : GROUP;
            const uint8_t* from = in + y * by_in + x;
            if (height == GROUP && width == GROUP) {
                turn(from, by_in, out + x * by_out + y, by_out);
                continue;
            }
            for (long i = 0; i < height; ++i) std::memcpy(part + i * GROUP, from + i * by_in, width);
            turn(part, GROUP, out + x * by_out + y, by_out);
        }
}

struct Part {  // of a resized image
    long top, left, height, width;
};

// The first pass, or the second: lines of `taps.first.size()` pixels from `rows` lines, whose first pixel is that of taps.low().
template <long CHANNELS>
void across(const uint8_t* in, long by_in, long rows, const Weighted& taps, uint8_t* out) {
    const long width = taps.first.size(), columns = taps.span() * CHANNELS;
    const long line = (width * CHANNELS + GROUP - 1) / GROUP * GROUP;
    const std::unique_ptr<uint8_t[]> turned(new uint8_t[(columns + GROUP) * GROUP]), found(new uint8_t[line * GROUP]());
    const std::unique_ptr<uint8_t[]> lines(new uint8_t[line * GROUP]);
    for (long y = 0; y < rows; y += GROUP) {
        const long some = rows - y < GROUP ? rows - y : GROUP;
        turn_all(in + y * by_in, some, columns, by_in, turned.get(), GROUP);
        for (long x = 0; x < width; ++x) {
            const uint8_t* from = &turned[(taps.first[x] - taps.low()) * CHANNELS * GROUP];
            const int32_t* weights = taps.of(x);
            const long count = taps.count[x];
            for (long c = 0; c < CHANNELS; ++c, from += GROUP) {
                Sums sums(HALF);
                for (long t = 0; t < count; ++t) sums.add(from + t * CHANNELS * GROUP, weights[t]);
                sums.keep(&found[(x * CHANNELS + c) * GROUP]);
            }
        }
        turn_all(found.get(), line, GROUP, GROUP, lines.get(), line);
        for (long i = 0; i < some; ++i, out += width * CHANNELS) std::memcpy(out, &lines[i * line], width * CHANNELS);
    }
}

// The other one: lines of `bytes` from those of taps.low() on.
static inline void down(const uint8_t* in, long by_in, long bytes, const Weighted& taps, uint8_t* out) {
    for (size_t y = 0; y < taps.first.size(); ++y, out += bytes) {
        const uint8_t* from = in + (taps.first[y] - taps.low()) * by_in;
        const int32_t* weights = taps.of(y);
        const long count = taps.count[y];
        for (long x = 0; x < bytes && bytes < GROUP; ++x) {
            int32_t sum = HALF;
            for (long t = 0; t < count; ++t) sum += from[t * by_in + x] * weights[t];
            sum >>= WEIGHT_BITS;
            out[x] = static_cast<uint8_t>(sum < 0 ? 0 : sum > 255 ? 255 : sum);
        }
        for (long next = 0; next < bytes && bytes >= GROUP; next += GROUP) {
            const long x = least(next, bytes - GROUP);
            Sums sums(HALF);
            for (long t = 0; t < count; ++t) sums.add(from + t * by_in + x, weights[t]);
            sums.keep(out + x);
        }
    }
}

template <long CHANNELS>
void resize(const uint8_t* in, long height, long width, long new_height, long new_width, bool down_first, Part part,
            uint8_t* out) {
    const Weighted rows(height, new_height, part.top, part.height), columns(width, new_width, part.left, part.width);
    const uint8_t* from = in + (rows.low() * width + columns.low()) * CHANNELS;
    const long between = down_first ? part.height * columns.span() : rows.span() * part.width;
    const std::unique_ptr<uint8_t[]> once(new uint8_t[between * CHANNELS]);
    if (down_first) {
        down(from, width * CHANNELS, columns.span() * CHANNELS, rows, once.get());
        across<CHANNELS>(once.get(), columns.span() * CHANNELS, part.height, columns, out);
    } else {
        across<CHANNELS>(from, width * CHANNELS, rows.span(), columns, once.get());
        down(once.get(), part.width * CHANNELS, part.width * CHANNELS, rows, out);
    }
}

}  // namespace convnext
