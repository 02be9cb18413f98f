// Vectors of float as wide as the machine's registers, through the compiler's own vector type: the same text becomes
// AVX-512, AVX2 or NEON. GELU by a table of cubic pieces, because a table costs no division and no exponential.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace convnext {

#if defined(__AVX512F__)
constexpr long LANES = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr long LANES = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr long LANES = 4, REGISTERS = 32;
#else
constexpr long LANES = 4, REGISTERS = 16;
#endif

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float Loose __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

inline long up(long value, long step) { return (value + step - 1) / step * step; }
inline long least(long a, long b) { return a < b ? a : b; }

INLINE Vector load(const float* from) { return *reinterpret_cast<const Loose*>(from); }
INLINE void store(float* to, Vector value) { *reinterpret_cast<Loose*>(to) = value; }
INLINE Vector splat(float value) { return value - Vector{}; }

struct Bf16 { uint16_t bits; };  // bfloat16: of a matmul's operands alone, sums are float32 everywhere
#if defined(__AVX512BF16__)
#define CONVNEXT_BF16
INLINE void store(Bf16* to, Vector value) {
    *reinterpret_cast<__m256bh*>(to) = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(value));
}
INLINE Vector load(const Bf16* from) {  // exact: a bf16 value is the upper half of a float
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return reinterpret_cast<Vector>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
#endif

// The first `count` lanes; the others read as 0 and are never touched in memory.
INLINE Vector load_part(const float* from, long count) {
    if (count >= LANES) return load(from);
#if defined(__AVX512F__)
    return reinterpret_cast<Vector>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from));
#else
    Vector value{};
    std::memcpy(&value, from, static_cast<size_t>(count) * 4);
    return value;
#endif
}

INLINE void store_part(float* to, Vector value, long count) {
    if (count >= LANES) return store(to, value);
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), reinterpret_cast<__m512>(value));
#else
    std::memcpy(to, &value, static_cast<size_t>(count) * 4);
#endif
}

// The first `count` lanes of a vector, zeros behind.
INLINE Vector first_lanes(Vector value, long count) {
    if (count >= LANES) return value;
#if defined(__AVX512F__)
    return reinterpret_cast<Vector>(
        _mm512_maskz_mov_ps(static_cast<__mmask16>((1u << count) - 1), reinterpret_cast<__m512>(value)));
#else
    for (long i = count; i < LANES; i++) value[i] = 0;
    return value;
#endif
}

INLINE Vector root(Vector value) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vector>(_mm512_sqrt_ps(reinterpret_cast<__m512>(value)));
#else
    for (long i = 0; i < LANES; i++) value[i] = std::sqrt(value[i]);
    return value;
#endif
}

// Always in the same order, so that results do not depend on the compiler's mood.
INLINE float sum(Vector value) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(reinterpret_cast<__m512>(value));
#else
    float parts[LANES];
    store(parts, value);
    for (long width = LANES / 2; width; width /= 2)
        for (long i = 0; i < width; i++) parts[i] += parts[i + width];
    return parts[0];
#endif
}

#if defined(__AVX512F__)
// Two vectors' lanes exchanged in squares of d x d: what a matrix needs of one round to become its transpose.
INLINE void exchange(Vector& a, Vector& b, int d) {
    alignas(64) int low[LANES], high[LANES];
    UNROLL for (int i = 0; i < LANES; i++) {
        low[i] = i & d ? LANES + i - d : i;
        high[i] = i & d ? LANES + i : i + d;
    }
    const __m512 first = reinterpret_cast<__m512>(a), second = reinterpret_cast<__m512>(b);
    a = reinterpret_cast<Vector>(_mm512_permutex2var_ps(first, _mm512_load_si512(low), second));
    b = reinterpret_cast<Vector>(_mm512_permutex2var_ps(first, _mm512_load_si512(high), second));
}
#endif

// Rows become columns: log2(LANES) rounds that swap ever larger squares of pairs of rows.
INLINE void transpose(Vector (&rows)[LANES]) {
#if defined(__AVX512F__)
    UNROLL for (int d = 1; d < LANES; d *= 2)
        UNROLL for (int i = 0; i < LANES; i++)
            if (!(i & d)) exchange(rows[i], rows[i + d], d);
#else
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            const float kept = rows[i][j];
            rows[i][j] = rows[j][i];
            rows[j][i] = kept;
        }
#endif
}

// The sum of the lanes of each of LANES rows, as one vector; the rows are lost.
INLINE Vector sums(Vector* rows) {
#if defined(__AVX512F__)
    UNROLL for (int d = 1; d < LANES; d *= 2)
        UNROLL for (int i = 0; i < LANES; i += 2 * d) {
            exchange(rows[i], rows[i + d], d);
            rows[i] += rows[i + d];
        }
    return rows[0];
#else
    Vector each;
    for (int i = 0; i < LANES; i++) each[i] = sum(rows[i]);
    return each;
#endif
}

// R(a) = Phi(a) - 1/2 and S(a) = R(a) + a phi(a) for a >= 0, in 32 cubic pieces around a = i * STEP, exact where
// a >= LIMIT. Then gelu(x) = x / 2 + |x| R(|x|) and gelu'(x) = 1/2 + sign(x) S(|x|). Errors below 1e-6.
constexpr long PIECES = 32;
constexpr float LIMIT = 5.5f, STEP = LIMIT / 31.49f;

struct GeluTable {
    alignas(64) float value[4][PIECES];
    alignas(64) float derivative[4][PIECES];

    GeluTable() {
        for (long i = 0; i < PIECES; i++) {
            fit(i, value, [](double a) { return 0.5 * std::erf(a * std::sqrt(0.5)); });
            fit(i, derivative, [](double a) {
                return 0.5 * std::erf(a * std::sqrt(0.5)) + a * std::exp(-0.5 * a * a) * 0.3989422804014327;
            });
        }
    }

    // Newton's interpolation in the four Chebyshev nodes of the piece, spelled out as powers of a - i * STEP.
    template <class Function>
    static void fit(long piece, float (&table)[4][PIECES], Function f) {
        double node[4], divided[4], power[4] = {0, 0, 0, 0};
        for (int k = 0; k < 4; k++) {
            node[k] = 0.5 * STEP * std::cos((2 * k + 1) * 3.141592653589793 / 8);
            divided[k] = f(piece * static_cast<double>(STEP) + node[k]);
        }
        for (int order = 1; order < 4; order++)
            for (int k = 3; k >= order; k--) divided[k] = (divided[k] - divided[k - 1]) / (node[k] - node[k - order]);
        for (int k = 3; k >= 0; k--) {  // Horner: power = power * (t - node[k]) + divided[k]
            for (int order = 3; order; order--) power[order] = power[order - 1] - node[k] * power[order];
            power[0] = divided[k] - node[k] * power[0];
        }
        if (piece == PIECES - 1) {  // ends in exactly 1/2, so that gelu(-100) is 0 and not -100 * the last error
            double end = LIMIT - piece * static_cast<double>(STEP);
            power[0] += 0.5 - (((power[3] * end + power[2]) * end + power[1]) * end + power[0]);
        }
        for (int order = 0; order < 4; order++) table[order][piece] = static_cast<float>(power[order]);
    }
};

extern const GeluTable GELU;

#if defined(__AVX512F__)

INLINE __m512 piece_of(__m512 size, __m512i& index) {
    __m512 clipped = _mm512_min_ps(size, _mm512_set1_ps(LIMIT));
    __m512 rounder = _mm512_set1_ps(8388608.0f);  // 2^23: adding it leaves the nearest whole number in the low bits
    __m512 whole = _mm512_fmadd_ps(clipped, _mm512_set1_ps(1 / STEP), rounder);
    index = _mm512_castps_si512(whole);
    return _mm512_fnmadd_ps(_mm512_sub_ps(whole, rounder), _mm512_set1_ps(STEP), clipped);
}

struct Pieces {  // one of the tables, in registers
    __m512 low[4], high[4];

    explicit INLINE Pieces(const float (&table)[4][PIECES]) {
        UNROLL for (int k = 0; k < 4; k++) low[k] = _mm512_load_ps(table[k]), high[k] = _mm512_load_ps(table[k] + 16);
    }

    INLINE __m512 operator()(__m512 t, __m512i index) const {
        __m512 c[4];
        UNROLL for (int k = 0; k < 4; k++) c[k] = _mm512_permutex2var_ps(low[k], index, high[k]);
        return _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(c[3], t, c[2]), t, c[1]), t, c[0]);
    }
};

INLINE Vector gelu(Vector x, const Pieces& value) {
    __m512 v = reinterpret_cast<__m512>(x), size = _mm512_abs_ps(v);
    __m512i index;
    __m512 t = piece_of(size, index);
    __m512 half = _mm512_mul_ps(v, _mm512_set1_ps(0.5f));
    return reinterpret_cast<Vector>(_mm512_fmadd_ps(size, value(t, index), half));
}

INLINE Vector gelu_and_derivative(Vector x, const Pieces& value, const Pieces& derivatives, Vector& derivative) {
    __m512 v = reinterpret_cast<__m512>(x), size = _mm512_abs_ps(v);
    __m512i index;
    __m512 t = piece_of(size, index);
    __m512 sign = _mm512_and_ps(v, _mm512_set1_ps(-0.0f));
    derivative = reinterpret_cast<Vector>(_mm512_add_ps(_mm512_or_ps(derivatives(t, index), sign), _mm512_set1_ps(0.5f)));
    __m512 half = _mm512_mul_ps(v, _mm512_set1_ps(0.5f));
    return reinterpret_cast<Vector>(_mm512_fmadd_ps(size, value(t, index), half));
}

#else

struct Pieces {
    const float (&table)[4][PIECES];

    explicit Pieces(const float (&table)[4][PIECES]) : table(table) {}

    INLINE float operator()(float t, int piece) const {
        return ((table[3][piece] * t + table[2][piece]) * t + table[1][piece]) * t + table[0][piece];
    }
};

INLINE Vector gelu_and_derivative(Vector x, const Pieces& value, const Pieces& derivatives, Vector& derivative) {
    Vector result;
    for (long i = 0; i < LANES; i++) {
        float size = x[i] < 0 ? -x[i] : x[i];
        float clipped = size < LIMIT ? size : LIMIT;
        int piece = static_cast<int>(clipped * (1 / STEP) + 0.5f);
        float t = clipped - static_cast<float>(piece) * STEP;
        float s = derivatives(t, piece);
        derivative[i] = 0.5f + (x[i] < 0 ? -s : s);
        result[i] = 0.5f * x[i] + size * value(t, piece);
    }
    return result;
}

INLINE Vector gelu(Vector x, const Pieces& value) {
    Vector derivative;
    return gelu_and_derivative(x, value, Pieces(GELU.derivative), derivative);
}

#endif

}  // namespace convnext
