// Matmuls out of a cache: rows of a tile times a packed matrix, a register block at a time.
//
// A, the tile: [block of KBLOCK columns][row][KBLOCK], so that a register block reads it at fixed distances.
// B, packed:   [panel of PANEL columns][row k][PANEL], the last panel padded with zeros to whole vectors.
#pragma once

#include "amx.h"

namespace convnext {

constexpr long KBLOCK = 32;
constexpr long PANEL = 2 * LANES;                       // columns of a register block
constexpr long VECTOR_ROWS = REGISTERS == 32 ? 14 : 6;  // rows of one: 14 x 2 accumulators, 2 of B and 1 of A fit 32

constexpr long LINE = 16;  // floats of a cache line

// An operand's values that one multiply-add takes: a matrix of Bf16 has its rows k in pairs, [k / 2][column][2], one of bytes
// in fours, and rows of zeros more up to a multiple of MULTIPLE. With AMX a register block of either is four tiles of sums.
template <class T> constexpr long TERMS = sizeof(float) / sizeof(T);
template <class T> constexpr bool ON_TILES = AMX && TERMS<T> > 1;
template <class T> constexpr long MULTIPLE = ON_TILES<T> ? TILE_BYTES / sizeof(T) : TERMS<T>;
template <class T> constexpr long BLOCK_ROWS = ON_TILES<T> ? 2 * TILE_ROWS : VECTOR_ROWS;
template <class T> inline long padded(long depth) { return up(depth, MULTIPLE<T>); }

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
    constexpr long TERM = TERMS<T>;
    Vector sums[ROWS][VECTORS];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < VECTORS; j++) sums[i][j] = Vector{};
    for (; depth > 0; depth -= KBLOCK, a += a_block) {
        long count = least(depth, KBLOCK);
#pragma GCC unroll 2
        for (long k = 0; k < count; k += TERM, b += VECTORS * LANES * TERM, ahead += LINE * TERM) {
            __builtin_prefetch(ahead, 0, 2);
            decltype(load_terms(b)) row[VECTORS];
            UNROLL for (int j = 0; j < VECTORS; j++) row[j] = load_terms(b + j * LANES * TERM);
            UNROLL for (int i = 0; i < ROWS; i++)
                UNROLL for (int j = 0; j < VECTORS; j++) multiply_add(sums[i][j], a + i * KBLOCK + k, row[j]);
        }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < VECTORS; j++)
        store(tile + (i * VECTORS + j) * LANES, sums[i][j]);
}

// tile[i][j] = sum over k of a[k][i] * b[k][j], a as `turn` leaves it and b as `across` does, rows of KBLOCK.
template <int ROWS, class T>
__attribute__((noinline)) void multiply_transposed(const T* a, const T* b, long depth, float* tile) {
#if defined(CONVNEXT_AMX)
    if constexpr (ON_TILES<T>) {
        static_assert(ROWS == KBLOCK);
        constexpr long SQUARE = KBLOCK * KBLOCK * sizeof(T);
        const auto bytes = [](const T* from) { return reinterpret_cast<const char*>(from); };
        return multiply_tiles<false, 2, 2>(bytes(a), SQUARE, bytes(b), SQUARE, (depth + KBLOCK - 1) / KBLOCK, tile);
    }
#endif
    constexpr long TERM = TERMS<T>;
    Vector sums[ROWS][2];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < 2; j++) sums[i][j] = Vector{};
#pragma GCC unroll 2
    for (long k = 0; k < depth; k += TERM, a += KBLOCK * TERM, b += KBLOCK * TERM) {
        const auto left = load_terms(b), right = load_terms(b + LANES * TERM);
        UNROLL for (int i = 0; i < ROWS; i++) {
            multiply_add(sums[i][0], a + i * TERM, left);
            multiply_add(sums[i][1], a + i * TERM, right);
        }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < 2; j++)
        store(tile + (i * 2 + j) * LANES, sums[i][j]);
}

// Of a block of columns with one vector alone the other one becomes zeros, which tiles multiply too.
template <class T>
INLINE void clear_half(T* block, long rows, long vectors) {
    if constexpr (ON_TILES<T>)
        if (vectors == 1)
            for (long i = 0; i < rows; i++) store(block + i * KBLOCK + LANES, Vector{});
}

// Rows [first, last) of a tile, `first` even, for sums over rows: of Bf16 two rows become one of pairs, in the same place.
INLINE void across(float*, long, long, long, long) {}
#if defined(CONVNEXT_BF16)
INLINE void across(Bf16* tile, long a_block, long columns, long first, long last) {
    for (long block = 0; block < columns; block += KBLOCK, tile += a_block)
        for (long row = first; row < up(last, MULTIPLE<Bf16>); row += 2) {  // behind the last row there are zeros
            __m256i* at = reinterpret_cast<__m256i*>(tile + row * KBLOCK);
            __m256i halves[4]{};
            UNROLL for (int i = 0; i < 4; i++)
                if (row + i / 2 < last) halves[i] = _mm256_loadu_si256(at + i);
            UNROLL for (int i = 0; i < 2; i++) _mm512_storeu_si512(at + 2 * i, pairs(halves[i], halves[2 + i]));
        }
}
#endif

// The same for the left side of such a sum: where that is done on tiles, squares of KBLOCK rows are transposed in their place.
template <class T>
INLINE void turn(T* tile, long a_block, long columns, long first, long last) {
    across(tile, a_block, columns, first, last);
    if constexpr (ON_TILES<T>)
        for (long block = 0; block < columns; block += KBLOCK, tile += a_block)
            for (long row = first; row < last; row += KBLOCK) {
                float* at = reinterpret_cast<float*>(tile + row * KBLOCK);  // [pair of rows][column]: floats of two values
                Vector left[LANES], right[LANES];
                for (long i = 0; i < LANES; i++) left[i] = load(at + i * KBLOCK), right[i] = load(at + i * KBLOCK + LANES);
                transpose(left);
                transpose(right);
                for (long i = 0; i < LANES; i++) store(at + i * LANES, left[i]), store(at + (LANES + i) * LANES, right[i]);
            }
}

template <class T>
struct Multiply {
    using Block = void (*)(const T*, long, const T*, long, float*, const T*);
    static const Block table[2][15];  // [vectors - 1][rows]
};

// A register block of up to BLOCK_ROWS rows and `vectors` vectors. On tiles `depth` counts in whole blocks, beyond which the
// tile must hold zeros; rows beyond the last are read, and what becomes of them is nobody's.
template <class T>
INLINE void multiply_rows(long rows, long vectors, const T* a, long a_block, const T* b, long depth, float* sums,
                          const T* ahead) {
#if defined(CONVNEXT_AMX)
    if constexpr (ON_TILES<T>)
        return multiply_tiles<false>(rows, vectors, a, a_block * long(sizeof(T)), b, (depth + KBLOCK - 1) / KBLOCK, sums);
#endif
    Multiply<T>::table[vectors - 1][rows](a, a_block, b, depth, sums, ahead);
}

// How rows are dealt to register blocks: evenly, 49 as 13, 12, 12, 12; tiles are filled one after the other.
template <class T>
struct Parts {
    long rows, count;
    explicit Parts(long rows) : rows(rows), count((rows + BLOCK_ROWS<T> - 1) / BLOCK_ROWS<T>) {}
    long first(long part) const { return ON_TILES<T> ? least(part * BLOCK_ROWS<T>, rows) : rows * part / count; }
};

// Rows of a tile times `columns` of B over `depth`; finish(row, rows, column, vectors, sums) takes each register block.
// The panel of B stays in the first cache while the rows pass, and the next one is on its way from memory; `after` is what
// will be read when the last one is done. prepare(row, rows, column) is called before the block is computed, for what finish
// will touch.
struct Unprepared { void operator()(long, long, long) const {} };
template <class T> using Unit = std::conditional_t<ON_TILES<T>, TilesInUse, Unprepared>;  // what multiplies, in use
template <class T, class Finish, class Prepare = Unprepared>
INLINE void multiply(const T* a, long a_block, long rows, const T* b, long b_panel, long depth, long columns,
                     Finish finish, const T* after = nullptr, Prepare prepare = {}) {
    alignas(64) float sums[BLOCK_ROWS<T> * PANEL];
    const Unit<T> unit;
    const Parts<T> parts(rows);
    for (long column = 0; column < columns; column += PANEL, b += b_panel) {
        const long vectors = columns - column > LANES ? 2 : 1;
        const T* next = column + PANEL < columns ? b + b_panel : after ? after : b;
        for (long part = 0; part < parts.count; part++) {
            const long first = parts.first(part), count = parts.first(part + 1) - first;
            const T* ahead = next + least(part, PANEL > LINE) * depth * LINE;
            prepare(first, count, column);
            multiply_rows(count, vectors, a + first * KBLOCK, a_block, b, depth, sums, ahead);
            finish(first, count, column, vectors, sums);
        }
    }
}

// One of by_k and by_n is 1. B[k][n] = from[k * by_k + n * by_n] * k_scale[k] * n_scale[n], panels `first` to `last`.
template <class T>
inline void pack(const float* from, long by_k, long by_n, long depth, long columns, const float* k_scale,
                 const float* n_scale, T* to, long first, long last) {
    constexpr long TERM = TERMS<T>;
    auto scaled = [&](Vector value, Vector scale, long k) { return value * scale * (k_scale ? k_scale[k] : 1.0f); };
    for (long panel = first; panel < last; panel++) {
        const long column = panel * PANEL, width = least(columns - column, PANEL), full = up(width, LANES);
        T* row = to + column * padded<T>(depth);
        if (by_n == 1) {
            for (long k = 0; k < padded<T>(depth); k += TERM)
                for (long n = 0; n < full; n += LANES) {
                    const Vector scale = n_scale ? load_part(n_scale + column + n, width - n) : splat(1.0f);
                    Vector terms[TERM]{};
                    for (long i = k; i < least(k + TERM, depth); i++)
                        terms[i - k] = scaled(load_part(from + i * by_k + column + n, width - n), scale, i);
                    store_terms(row + k * full + n * TERM, terms);
                }
            continue;
        }
        for (long k = 0; k < padded<T>(depth); k += LANES)  // a transposition: whole lines are read, in squares
            for (long n = 0; n < full; n += LANES) {
                const long lines = least(LANES, width - n), taken = k < depth ? least(LANES, depth - k) : 0;
                Vector square[LANES];
                for (long i = 0; i < LANES; i++)
                    square[i] = i < lines && taken ? load_part(from + (column + n + i) * by_n + k, taken) : Vector{};
                transpose(square);
                const Vector scale = n_scale ? load_part(n_scale + column + n, lines) : splat(1.0f);
                for (long i = 0; i < taken; i++) square[i] = scaled(square[i], scale, k + i);
                for (long i = 0; i < least(LANES, padded<T>(depth) - k); i += TERM)  // beyond `taken` the rows are 0
                    store_terms(row + (k + i) * full + n * TERM, square + i);
            }
    }
}

}  // namespace convnext
