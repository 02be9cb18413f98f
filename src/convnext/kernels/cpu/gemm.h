// Matmuls out of a cache: rows of a tile times a packed matrix, a register block at a time.
//
// A, the tile: [block of KBLOCK columns][row][KBLOCK], so that a register block reads it at fixed distances.
// B, packed:   [panel of PANEL columns][row k][PANEL], the last panel padded with zeros to whole vectors.
#pragma once

#include "vector.h"

namespace convnext {

constexpr long KBLOCK = 32;
constexpr long PANEL = 2 * LANES;                       // columns of a register block
constexpr long BLOCK_ROWS = REGISTERS == 32 ? 14 : 6;  // rows of one: 14 x 2 accumulators, 2 of B and 1 of A fit 32

constexpr long LINE = 16;  // floats of a cache line

// An operand's values that one multiply-add takes: a matrix of Bf16 has its rows k in pairs, [k / 2][column][2], and one
// row of zeros more where they are odd in number.
template <class T> constexpr long TERMS = sizeof(float) / sizeof(T);
template <class T> inline long padded(long depth) { return up(depth, TERMS<T>); }

INLINE Vector load_terms(const float* b) { return load(b); }
INLINE void multiply_add(Vector& sum, const float* a, Vector b) { sum += *a * b; }
#if defined(CONVNEXT_BF16)
INLINE __m512bh load_terms(const Bf16* b) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(b)); }
INLINE void multiply_add(Vector& sum, const Bf16* a, __m512bh b) {
    int pair;
    std::memcpy(&pair, a, 4);
    const __m512bh both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
    sum = reinterpret_cast<Vector>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), both, b));
}
#endif

// TERMS rows of a matrix as one multiply-add takes them: pairs of Bf16, the first row's value in the lower half.
INLINE void store_terms(float* to, const Vector* rows) { store(to, rows[0]); }
#if defined(CONVNEXT_BF16)
INLINE __m512i pairs(__m256i first, __m256i second) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}
INLINE __m256i rounded(Vector value) {
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(value)));
}
INLINE void store_terms(Bf16* to, const Vector* rows) { _mm512_storeu_si512(to, pairs(rounded(rows[0]), rounded(rows[1]))); }
#endif

// tile[i][j] = sum over k of a[i][k] * b[k][j]; meanwhile `depth` lines from `ahead` on are called into the second cache.
template <class T, int ROWS, int VECTORS>
__attribute__((noinline)) void multiply_block(const T* a, long a_block, const T* b, long depth, float* tile,
                                              const T* ahead) {
    constexpr long STEP = TERMS<T>;
    Vector sums[ROWS][VECTORS];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < VECTORS; j++) sums[i][j] = Vector{};
    for (; depth > 0; depth -= KBLOCK, a += a_block) {
        long count = least(depth, KBLOCK);
#pragma GCC unroll 2
        for (long k = 0; k < count; k += STEP, b += VECTORS * LANES * STEP, ahead += LINE * STEP) {
            __builtin_prefetch(ahead, 0, 2);
            decltype(load_terms(b)) row[VECTORS];
            UNROLL for (int j = 0; j < VECTORS; j++) row[j] = load_terms(b + j * LANES * STEP);
            UNROLL for (int i = 0; i < ROWS; i++)
                UNROLL for (int j = 0; j < VECTORS; j++) multiply_add(sums[i][j], a + i * KBLOCK + k, row[j]);
        }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < VECTORS; j++)
        store(tile + (i * VECTORS + j) * LANES, sums[i][j]);
}

// tile[i][j] = sum over k of a[k][i] * b[k][j], both with rows of KBLOCK in the order of `across`.
template <class T, int ROWS>
__attribute__((noinline)) void multiply_transposed(const T* a, const T* b, long depth, float* tile) {
    constexpr long STEP = TERMS<T>;
    Vector sums[ROWS][2];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < 2; j++) sums[i][j] = Vector{};
#pragma GCC unroll 2
    for (long k = 0; k < depth; k += STEP, a += KBLOCK * STEP, b += KBLOCK * STEP) {
        const auto left = load_terms(b), right = load_terms(b + LANES * STEP);
        UNROLL for (int i = 0; i < ROWS; i++) {
            multiply_add(sums[i][0], a + i * STEP, left);
            multiply_add(sums[i][1], a + i * STEP, right);
        }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < 2; j++)
        store(tile + (i * 2 + j) * LANES, sums[i][j]);
}

// Rows [first, last) of a tile, `first` even, for sums over rows: of Bf16 two rows become one of pairs, in the same place.
INLINE void across(float*, long, long, long, long) {}
#if defined(CONVNEXT_BF16)
INLINE void across(Bf16* tile, long a_block, long columns, long first, long last) {
    for (long block = 0; block < columns; block += KBLOCK, tile += a_block)
        for (long row = first; row < last; row += 2) {
            __m256i* at = reinterpret_cast<__m256i*>(tile + row * KBLOCK);
            __m256i halves[4];
            UNROLL for (int i = 0; i < 4; i++) halves[i] = _mm256_loadu_si256(at + i);
            if (row + 1 == last) halves[2] = halves[3] = _mm256_setzero_si256();  // an odd last row has no other
            UNROLL for (int i = 0; i < 2; i++) _mm512_storeu_si512(at + 2 * i, pairs(halves[i], halves[2 + i]));
        }
}
#endif

template <class T>
struct Multiply {
    using Block = void (*)(const T*, long, const T*, long, float*, const T*);
    static const Block table[2][15];  // [vectors - 1][rows]
};

// Rows of a tile times `columns` of B over `depth`; finish(row, rows, column, vectors, sums) takes each register block.
// The panel of B stays in the first cache while the rows pass, and the next one is on its way from memory; `after` is what
// will be read when the last one is done. Rows are dealt out evenly: 49 as 13, 12, 12, 12. prepare(row, rows, column) is
// called before the block is computed, for what finish will touch.
struct Unprepared { void operator()(long, long, long) const {} };
template <class T, class Finish, class Prepare = Unprepared>
INLINE void multiply(const T* a, long a_block, long rows, const T* b, long b_panel, long depth, long columns,
                     Finish finish, const T* after = nullptr, Prepare prepare = {}) {
    alignas(64) float sums[14 * PANEL];
    const long parts = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    for (long column = 0; column < columns; column += PANEL, b += b_panel) {
        const long vectors = columns - column > LANES ? 2 : 1;
        const T* next = column + PANEL < columns ? b + b_panel : after ? after : b;
        for (long part = 0; part < parts; part++) {
            const long first = rows * part / parts, count = rows * (part + 1) / parts - first;
            const T* ahead = next + least(part, PANEL > LINE) * depth * LINE;
            prepare(first, count, column);
            Multiply<T>::table[vectors - 1][count](a + first * KBLOCK, a_block, b, depth, sums, ahead);
            finish(first, count, column, vectors, sums);
        }
    }
}

// One of by_k and by_n is 1. B[k][n] = from[k * by_k + n * by_n] * k_scale[k] * n_scale[n], panels `first` to `last`.
template <class T>
inline void pack(const float* from, long by_k, long by_n, long depth, long columns, const float* k_scale,
                 const float* n_scale, T* to, long first, long last) {
    constexpr long STEP = TERMS<T>;
    auto scaled = [&](Vector value, Vector scale, long k) { return value * scale * (k_scale ? k_scale[k] : 1.0f); };
    for (long panel = first; panel < last; panel++) {
        const long column = panel * PANEL, width = least(columns - column, PANEL), full = up(width, LANES);
        T* row = to + column * padded<T>(depth);
        if (by_n == 1) {
            for (long k = 0; k < depth; k += STEP)
                for (long n = 0; n < full; n += LANES) {
                    const Vector scale = n_scale ? load_part(n_scale + column + n, width - n) : splat(1.0f);
                    Vector terms[STEP]{};
                    for (long i = k; i < least(k + STEP, depth); i++)
                        terms[i - k] = scaled(load_part(from + i * by_k + column + n, width - n), scale, i);
                    store_terms(row + k * full + n * STEP, terms);
                }
            continue;
        }
        for (long k = 0; k < depth; k += LANES)  // a transposition: whole lines are read, in squares
            for (long n = 0; n < full; n += LANES) {
                const long lines = least(LANES, width - n), taken = least(LANES, depth - k);
                Vector square[LANES];
                for (long i = 0; i < LANES; i++)
                    square[i] = i < lines ? load_part(from + (column + n + i) * by_n + k, taken) : Vector{};
                transpose(square);
                const Vector scale = n_scale ? load_part(n_scale + column + n, lines) : splat(1.0f);
                for (long i = 0; i < taken; i++) square[i] = scaled(square[i], scale, k + i);
                for (long i = 0; i < taken; i += STEP)  // beyond `taken` the rows are 0
                    store_terms(row + (k + i) * full + n * STEP, square + i);
            }
    }
}

}  // namespace convnext
