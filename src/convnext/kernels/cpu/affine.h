// An affine move of an 8-bit image, to the bit as Pillow computes it: double precision, no fused products, cut off
// towards zero. Where the place in the source falls on a row or a column of pixels, one direction is left out: its cubic
// or line would return that row or column unchanged. Shears and shifts, most of RandAugment's moves, are so in every pixel.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

namespace convnext {

constexpr long DEPTH = 4;  // bytes of a pixel in the copy that is read from, whatever its channels
typedef double Colour __attribute__((vector_size(DEPTH * sizeof(double))));
typedef int32_t Whole __attribute__((vector_size(DEPTH * sizeof(int32_t))));
typedef uint8_t Bytes __attribute__((vector_size(DEPTH)));

static inline Colour colour(const uint8_t* from) {
    Bytes bytes;
    __builtin_memcpy(&bytes, from, DEPTH);
    return __builtin_convertvector(__builtin_convertvector(bytes, Whole), Colour);
}

static inline Bytes bytes_of(Colour found) {  // below 0 and above 255: those
    const Whole whole = __builtin_convertvector(found, Whole), most = Whole{} + 255;
    const Whole low = whole < 0 ? Whole{} : whole;
    return __builtin_convertvector(low > most ? most : low, Bytes);
}

struct Line {  // between the second and the third of four neighbours
    static Colour between(Colour, Colour b, Colour c, Colour, double d) { return b + (c - b) * d; }
};

struct Cubic {  // Keys' cubic with a = -1, in powers of d
    static Colour between(Colour a, Colour b, Colour c, Colour e, double d) {
        return b + d * ((-a + c) + d * ((2 * (a - b) + c - e) + d * (-a + b - c + e)));
    }
};

static inline long within(long place, long count) { return place < 0 ? 0 : place < count ? place : count - 1; }

template <class Curve, long CHANNELS>
void affine(const uint8_t* in, uint8_t* out, long height, long width, const double* m, const uint8_t* fill) {
    const std::unique_ptr<uint8_t[]> copy(new uint8_t[height * width * DEPTH]());
    for (long i = 0; i < height * width; ++i) __builtin_memcpy(&copy[i * DEPTH], in + i * CHANNELS, CHANNELS);
    for (long y = 0; y < height; ++y) {
        for (long x = 0; x < width; ++x, out += CHANNELS) {
            const double at_x = m[0] * (x + 0.5) + m[1] * (y + 0.5) + m[2];
            const double at_y = m[3] * (x + 0.5) + m[4] * (y + 0.5) + m[5];
            if (!(at_x >= 0 && at_x < width && at_y >= 0 && at_y < height)) {
                __builtin_memcpy(out, fill, CHANNELS);
                continue;
            }
            const double floor_x = std::floor(at_x - 0.5), floor_y = std::floor(at_y - 0.5);
            const double right = at_x - 0.5 - floor_x, down = at_y - 0.5 - floor_y;
            const long column = long(floor_x), row = long(floor_y);
            long c[4], r[4];  // of the four neighbours each way, in bytes; beyond an edge, the edge
            for (long k = 0; k < 4; ++k) {
                c[k] = within(column + k - 1, width) * DEPTH;
                r[k] = within(row + k - 1, height) * width * DEPTH;
            }
            const uint8_t* const p = copy.get();
            const auto along = [&](const uint8_t* q) {
                return Curve::between(colour(q + c[0]), colour(q + c[1]), colour(q + c[2]), colour(q + c[3]), right);
            };
            Bytes found;
            if (down == 0) {
                found = bytes_of(along(p + r[1]));
            } else if (right == 0) {
                const uint8_t* const q = p + c[1];
                found = bytes_of(
                    Curve::between(colour(q + r[0]), colour(q + r[1]), colour(q + r[2]), colour(q + r[3]), down));
            } else {
                found = bytes_of(
                    Curve::between(along(p + r[0]), along(p + r[1]), along(p + r[2]), along(p + r[3]), down));
            }
            __builtin_memcpy(out, &found, CHANNELS);
        }
    }
}

}  // namespace convnext

#ifndef __clang__
#pragma GCC pop_options
#endif
