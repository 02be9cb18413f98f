// Vectors of float as wide as the machine's registers, through the compiler's own vector type: the same text becomes
// AVX-512, AVX2 or NEON. GELU by a table of polynomials, because a table costs no division and no exponential.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
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
typedef int32_t Index __attribute__((vector_size(LANES * 4)));  // of lanes
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
    const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(value));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(rounded));
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
#elif defined(__AVX__)
    return reinterpret_cast<Vector>(_mm256_sqrt_ps(reinterpret_cast<__m256>(value)));
#elif defined(__aarch64__)
    return reinterpret_cast<Vector>(vsqrtq_f32(reinterpret_cast<float32x4_t>(value)));
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

// Two vectors' lanes exchanged in squares of D x D: what a matrix needs of one round to become its transpose.
template <int D, int... LANE>
INLINE void exchange(Vector& a, Vector& b, std::integer_sequence<int, LANE...>) {
    constexpr int MANY = static_cast<int>(LANES);
    const Vector first = a;
#if defined(__clang__)
    a = __builtin_shufflevector(first, b, (LANE & D ? MANY + LANE - D : LANE)...);
    b = __builtin_shufflevector(first, b, (LANE & D ? MANY + LANE : LANE + D)...);
#else
    const Index low{(LANE & D ? MANY + LANE - D : LANE)...}, high{(LANE & D ? MANY + LANE : LANE + D)...};
    a = __builtin_shuffle(first, b, low);
    b = __builtin_shuffle(first, b, high);
#endif
}
template <int D> INLINE void exchange(Vector& a, Vector& b) { exchange<D>(a, b, std::make_integer_sequence<int, LANES>{}); }

// Rows become columns: log2(LANES) rounds that swap ever larger squares of pairs of rows.
template <int D = 1>
INLINE void transpose(Vector (&rows)[LANES]) {
    UNROLL for (int i = 0; i < LANES; i++)
        if (!(i & D)) exchange<D>(rows[i], rows[i + D]);
    if constexpr (2 * D < LANES) transpose<2 * D>(rows);
}

// The sum of the lanes of each of LANES rows, as one vector; the rows are lost.
template <int D = 1>
INLINE Vector sums(Vector* rows) {
    UNROLL for (int i = 0; i < LANES; i += 2 * D) {
        exchange<D>(rows[i], rows[i + D]);
        rows[i] += rows[i + D];
    }
    if constexpr (2 * D < LANES) return sums<2 * D>(rows);
    return rows[0];
}

// R(a) = Phi(a) - 1/2 and S(a) = R(a) + a phi(a) for a >= 0, in PIECES polynomials of VALUE and DERIVATIVE terms around
// a = i * STEP, exact where a >= LIMIT. Then gelu(x) = x / 2 + |x| R(|x|) and gelu'(x) = 1/2 + sign(x) S(|x|). Errors below
// 1e-6. Of two registers of AVX-512 one instruction picks, so there are 32 pieces of third degree; elsewhere one picks of 8
// values.
constexpr int PIECES = LANES == 16 ? 32 : 8, VALUE = LANES == 16 ? 4 : 6, DERIVATIVE = LANES == 16 ? 4 : 7;
constexpr float LIMIT = 5.5f, STEP = LIMIT / (PIECES - 0.51f);

struct GeluTable {
    alignas(64) float value[VALUE][PIECES];
    alignas(64) float derivative[DERIVATIVE][PIECES];

    GeluTable() {
        for (long i = 0; i < PIECES; i++) {
            fit(i, value, [](double a) { return 0.5 * std::erf(a * std::sqrt(0.5)); });
            fit(i, derivative, [](double a) {
                // Of glibc's exponentials long double's is the oldest: a wheel that asks for double's starts from 2.29 on.
                const double density = std::exp(-0.5L * a * a) * 0.3989422804014327L;
                return 0.5 * std::erf(a * std::sqrt(0.5)) + a * density;
            });
        }
    }

    // Newton's interpolation in the Chebyshev nodes of the piece, spelled out as powers of a - i * STEP.
    template <int POWERS, class Function>
    static void fit(long piece, float (&table)[POWERS][PIECES], Function f) {
        double node[POWERS], divided[POWERS], power[POWERS]{};
        for (int k = 0; k < POWERS; k++) {
            node[k] = 0.5 * STEP * std::cos((2 * k + 1) * 3.141592653589793 / (2 * POWERS));
            divided[k] = f(piece * static_cast<double>(STEP) + node[k]);
        }
        for (int order = 1; order < POWERS; order++)
            for (int k = POWERS - 1; k >= order; k--)
                divided[k] = (divided[k] - divided[k - 1]) / (node[k] - node[k - order]);
        for (int k = POWERS - 1; k >= 0; k--) {  // Horner: power = power * (t - node[k]) + divided[k]
            for (int order = POWERS - 1; order; order--) power[order] = power[order - 1] - node[k] * power[order];
            power[0] = divided[k] - node[k] * power[0];
        }
        if (piece == PIECES - 1) {  // ends in exactly 1/2, so that gelu(-100) is 0 and not -100 * the last error
            double end = LIMIT - piece * static_cast<double>(STEP), reached = 0;
            for (int order = POWERS - 1; order >= 0; order--) reached = reached * end + power[order];
            power[0] += 0.5 - reached;
        }
        for (int order = 0; order < POWERS; order++) table[order][piece] = static_cast<float>(power[order]);
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

template <int POWERS>
struct Pieces {  // one of the tables, in registers
    __m512 low[POWERS], high[POWERS];

    explicit INLINE Pieces(const float (&table)[POWERS][PIECES]) {
        UNROLL for (int k = 0; k < POWERS; k++) low[k] = _mm512_load_ps(table[k]), high[k] = _mm512_load_ps(table[k] + 16);
    }

    INLINE __m512 operator()(__m512 t, __m512i index) const {
        __m512 c[POWERS];
        UNROLL for (int k = 0; k < POWERS; k++) c[k] = _mm512_permutex2var_ps(low[k], index, high[k]);
        __m512 result = c[POWERS - 1];
        UNROLL for (int k = POWERS - 2; k >= 0; k--) result = _mm512_fmadd_ps(result, t, c[k]);
        return result;
    }
};

template <class Table>
INLINE Vector gelu(Vector x, const Table& value) {
    __m512 v = reinterpret_cast<__m512>(x), size = _mm512_abs_ps(v);
    __m512i index;
    __m512 t = piece_of(size, index);
    __m512 half = _mm512_mul_ps(v, _mm512_set1_ps(0.5f));
    return reinterpret_cast<Vector>(_mm512_fmadd_ps(size, value(t, index), half));
}

template <class Table, class Other>
INLINE Vector gelu_and_derivative(Vector x, const Table& value, const Other& derivatives, Vector& derivative) {
    __m512 v = reinterpret_cast<__m512>(x), size = _mm512_abs_ps(v);
    __m512i index;
    __m512 t = piece_of(size, index);
    __m512 sign = _mm512_and_ps(v, _mm512_set1_ps(-0.0f));
    derivative = reinterpret_cast<Vector>(_mm512_add_ps(_mm512_or_ps(derivatives(t, index), sign), _mm512_set1_ps(0.5f)));
    __m512 half = _mm512_mul_ps(v, _mm512_set1_ps(0.5f));
    return reinterpret_cast<Vector>(_mm512_fmadd_ps(size, value(t, index), half));
}

#else

INLINE Vector piece_of(Vector size, Index& index) {
    const Vector clipped = size < splat(LIMIT) ? size : splat(LIMIT);
    const Vector rounder = splat(8388608.0f);  // 2^23: adding it leaves the nearest whole number in the low bits
    const Vector whole = clipped * splat(1 / STEP) + rounder;
    index = reinterpret_cast<Index>(whole);
    return clipped - (whole - rounder) * splat(STEP);
}

template <int POWERS>
struct Pieces {  // one of the tables
    const float (&table)[POWERS][PIECES];

    explicit INLINE Pieces(const float (&table)[POWERS][PIECES]) : table(table) {}

    INLINE Vector pick(int power, Index index) const {  // by the lowest three bits
        const float* from = table[power];
#if defined(__AVX2__)
        return reinterpret_cast<Vector>(
            _mm256_permutevar8x32_ps(_mm256_load_ps(from), reinterpret_cast<__m256i>(index)));
#elif defined(__clang__)
        Vector picked;
        for (long i = 0; i < LANES; i++) picked[i] = from[index[i] & (PIECES - 1)];
        return picked;
#else
        if constexpr (LANES == PIECES) return __builtin_shuffle(load(from), index);
        return __builtin_shuffle(load(from), load(from + PIECES / 2), index);
#endif
    }

    INLINE Vector operator()(Vector t, Index index) const {
        Vector result = pick(POWERS - 1, index);
        UNROLL for (int k = POWERS - 2; k >= 0; k--) result = result * t + pick(k, index);
        return result;
    }
};

INLINE Vector without_sign(Vector x) { return reinterpret_cast<Vector>(reinterpret_cast<Index>(x) & 0x7fffffff); }

template <class Table>
INLINE Vector gelu(Vector x, const Table& value) {
    const Vector size = without_sign(x);
    Index index;
    const Vector t = piece_of(size, index);
    return size * value(t, index) + 0.5f * x;
}

template <class Table, class Other>
INLINE Vector gelu_and_derivative(Vector x, const Table& value, const Other& derivatives, Vector& derivative) {
    const Vector size = without_sign(x);
    Index index;
    const Vector t = piece_of(size, index);
    const Index sign = reinterpret_cast<Index>(x) & ~0x7fffffff;
    derivative = reinterpret_cast<Vector>(reinterpret_cast<Index>(derivatives(t, index)) | sign) + 0.5f;
    return size * value(t, index) + 0.5f * x;
}

#endif

}  // namespace convnext
