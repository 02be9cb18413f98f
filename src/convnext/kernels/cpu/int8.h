// Matmuls of bytes: an unsigned activation times a signed weight, four products a lane, summed exactly in 32 bits.
//
// A, the tile: [block of BBLOCK columns][row][BBLOCK] uint8, so that a register block reads it at fixed distances.
// B, packed:   [panel of PANEL columns][row k / 4][column][4] int8, zeros behind the last row (MULTIPLE) and column.
//
// The integers are the same on every processor. AMX, AVX512-VNNI and AVX-VNNI have them in one instruction. Plain AVX2's own
// (vpmaddubsw) saturates at 16 bits, so there both sides are widened: exact, at about the rate of float32.
#pragma once

#include "gemm.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace convnext {

constexpr long BBLOCK = AMX ? TILE_BYTES : 32;  // bytes of a row of a block
constexpr long TUPLE = TERMS<uint8_t>;           // products that a lane takes at once

typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef int32_t LooseInts __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
INLINE Ints load_ints(const void* from) { return *static_cast<const LooseInts*>(from); }
INLINE void store_ints(int32_t* to, Ints value) { *reinterpret_cast<LooseInts*>(to) = value; }

#if defined(__AVX512VNNI__)
constexpr long INT8_FORM = 2;
typedef __m512i Tuples;  // LANES weights' tuples
INLINE Tuples load_tuples(const int8_t* b) { return _mm512_loadu_si512(b); }
INLINE void multiply_add(Ints& sum, int tuple, Tuples b) {
    sum = reinterpret_cast<Ints>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), _mm512_set1_epi32(tuple), b));
}
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
constexpr long INT8_FORM = 1;
typedef __m256i Tuples;
INLINE Tuples load_tuples(const int8_t* b) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)); }
INLINE void multiply_add(Ints& sum, int tuple, Tuples b) {
    sum = reinterpret_cast<Ints>(_mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(sum), _mm256_set1_epi32(tuple), b));
}
#elif defined(__AVX512BW__)
constexpr long INT8_FORM = 0;
struct Tuples { __m512i even, odd; };  // the bytes of each 16 bits, widened
INLINE Tuples load_tuples(const int8_t* b) {
    const __m512i both = _mm512_loadu_si512(b);
    return {_mm512_srai_epi16(_mm512_slli_epi16(both, 8), 8), _mm512_srai_epi16(both, 8)};
}
INLINE void multiply_add(Ints& sum, int tuple, Tuples b) {
    const __m512i even = _mm512_set1_epi32(tuple & 0xff00ff), odd = _mm512_set1_epi32(tuple >> 8 & 0xff00ff);
    const __m512i products = _mm512_add_epi32(_mm512_madd_epi16(even, b.even), _mm512_madd_epi16(odd, b.odd));
    sum += reinterpret_cast<Ints>(products);
}
#elif defined(__AVX2__) && !defined(__AVX512F__)
constexpr long INT8_FORM = 0;
struct Tuples { __m256i even, odd; };
INLINE Tuples load_tuples(const int8_t* b) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    return {_mm256_srai_epi16(_mm256_slli_epi16(both, 8), 8), _mm256_srai_epi16(both, 8)};
}
INLINE void multiply_add(Ints& sum, int tuple, Tuples b) {
    const __m256i even = _mm256_set1_epi32(tuple & 0xff00ff), odd = _mm256_set1_epi32(tuple >> 8 & 0xff00ff);
    const __m256i products = _mm256_add_epi32(_mm256_madd_epi16(even, b.even), _mm256_madd_epi16(odd, b.odd));
    sum += reinterpret_cast<Ints>(products);
}
#else
constexpr long INT8_FORM = 0;
struct Tuples { Ints part[4]; };
INLINE Tuples load_tuples(const int8_t* b) {
    const Ints all = load_ints(b);
    return {{all << 24 >> 24, all << 16 >> 24, all << 8 >> 24, all >> 24}};
}
INLINE void multiply_add(Ints& sum, int tuple, const Tuples& b) {
    UNROLL for (int i = 0; i < 4; i++) sum += (tuple >> 8 * i & 255) * b.part[i];
}
#endif

constexpr long CACHE_LINE = 64, AHEAD = 2048;  // bytes; what is AHEAD comes in time from the third cache
// tile[i][j] = sum over k of a[i][k] * b[k][j]; `depth` is a multiple of TUPLE.
template <int ROWS, int VECTORS>
__attribute__((noinline)) void multiply_bytes_block(const uint8_t* a, long a_block, const int8_t* b, long depth,
                                                    int32_t* tile) {
    Ints sums[ROWS][VECTORS];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < VECTORS; j++) sums[i][j] = Ints{};
    for (; depth > 0; depth -= BBLOCK, a += a_block) {
        const long count = least(depth, BBLOCK);
#pragma GCC unroll 2
        for (long k = 0; k < count; k += TUPLE, b += VECTORS * LANES * TUPLE) {
            __builtin_prefetch(a + ROWS * BBLOCK + k * (CACHE_LINE / TUPLE));  // the rows that come next
            UNROLL for (int j = 0; j < VECTORS; j++) __builtin_prefetch(b + AHEAD + j * LANES * TUPLE);
            Tuples row[VECTORS];
            UNROLL for (int j = 0; j < VECTORS; j++) row[j] = load_tuples(b + j * LANES * TUPLE);
            UNROLL for (int i = 0; i < ROWS; i++) {
                int tuple;
                std::memcpy(&tuple, a + i * BBLOCK + k, TUPLE);
                UNROLL for (int j = 0; j < VECTORS; j++) multiply_add(sums[i][j], tuple, row[j]);
            }
        }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < VECTORS; j++)
        store_ints(tile + (i * VECTORS + j) * LANES, sums[i][j]);
}

using MultiplyBytes = void (*)(const uint8_t*, long, const int8_t*, long, int32_t*);
extern const MultiplyBytes MULTIPLY_BYTES[2][15];  // [vectors - 1][rows]

// Rows of a tile times columns [from, to) of B, `from` a multiple of PANEL; finish(row, rows, column, vectors, sums) takes
// each register block.
template <class Finish>
INLINE void multiply_bytes(const uint8_t* a, long a_block, long rows, const int8_t* b, long depth, long from, long to,
                           Finish finish) {
    alignas(64) int32_t sums[BLOCK_ROWS<uint8_t> * PANEL];
    depth = padded<uint8_t>(depth);
#if defined(CONVNEXT_AMX)
    if (TILES_ALLOWED) {
        const TilesInUse unit;
        for (long column = from; column < to; column += PANEL) {
            const long vectors = to - column > LANES ? 2 : 1;
            for (long first = 0; first < rows; first += BLOCK_ROWS<uint8_t>) {
                const long count = least(BLOCK_ROWS<uint8_t>, rows - first);
                multiply_tiles<true>(count, vectors, a + first * BBLOCK, a_block, b + column * depth, depth / BBLOCK, sums);
                finish(first, count, column, vectors, sums);
            }
        }
        return;
    }
#endif
    const long parts = (rows + VECTOR_ROWS - 1) / VECTOR_ROWS;
    for (long column = from; column < to; column += PANEL) {
        const long vectors = to - column > LANES ? 2 : 1;
        for (long part = 0; part < parts; part++) {
            const long first = rows * part / parts, count = rows * (part + 1) / parts - first;
            MULTIPLY_BYTES[vectors - 1][count](a + first * BBLOCK, a_block, b + column * depth, depth, sums);
            finish(first, count, column, vectors, sums);
        }
    }
}

// The nearest whole numbers from 0 to 255 of LANES values, halves to the even one.
INLINE void store_bytes(uint8_t* to, Vector value) {
#if defined(__AVX512F__)
    const __m512i whole = _mm512_cvtps_epi32(reinterpret_cast<__m512>(value));
    const __m512i some = _mm512_max_epi32(whole, _mm512_setzero_si512());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(some));
#else
    const Vector most = splat(255.0f);
    Vector some = value > Vector{} ? value : Vector{};
    some = some < most ? some : most;
    const Vector rounded = some + splat(8388608.0f);  // 2^23: the whole number is in the low bits
    uint32_t bits[LANES];
    std::memcpy(bits, &rounded, sizeof bits);
    for (long i = 0; i < LANES; i++) to[i] = static_cast<uint8_t>(bits[i]);
#endif
}

INLINE Vector floats_of(Ints value) { return __builtin_convertvector(value, Vector); }

INLINE Vector floats_of(const uint8_t* bytes) {
#if defined(__AVX512F__)
    const __m128i some = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
    return reinterpret_cast<Vector>(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(some)));
#else
    Vector value;
    for (long i = 0; i < LANES; i++) value[i] = bytes[i];
    return value;
#endif
}

struct Rescale { const float *scale, *bias; };  // of columns: sum * scale + bias

// rows of sums, rescaled to a byte and looked up, into the columns of a tile.
struct Lookup {
    const uint8_t* table;
#if defined(__AVX512VBMI__)
    __m512i quarter[4];
    explicit INLINE Lookup(const uint8_t* table) : table(table) {
        UNROLL for (int i = 0; i < 4; i++) quarter[i] = _mm512_loadu_si512(table + 64 * i);
    }

    INLINE __m512i operator()(__m512i index) const {
        const __m512i low = _mm512_permutex2var_epi8(quarter[0], index, quarter[1]);
        const __m512i high = _mm512_permutex2var_epi8(quarter[2], index, quarter[3]);
        return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
    }

    // Two rows of two vectors each.
    INLINE void pair(uint8_t* to, const int32_t* sums, const Vector (&scale)[2], const Vector (&bias)[2]) const {
        __m512i whole[4];
        UNROLL for (int i = 0; i < 4; i++)
            whole[i] = _mm512_cvtps_epi32(
                reinterpret_cast<__m512>(floats_of(load_ints(sums + i * LANES)) * scale[i % 2] + bias[i % 2]));
        const __m512i index = _mm512_packus_epi16(_mm512_packs_epi32(whole[0], whole[1]),
                                                  _mm512_packs_epi32(whole[2], whole[3]));  // quarters of each in turn
        const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        const __m512i rows = _mm512_permutexvar_epi32(order, (*this)(index));
        if constexpr (BBLOCK == PANEL) return _mm512_storeu_si512(to, rows);  // they lie together
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(rows));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + BBLOCK), _mm512_extracti64x4_epi64(rows, 1));
    }
#else
    explicit INLINE Lookup(const uint8_t* table) : table(table) {}
#endif

    INLINE void write(uint8_t* tile, long a_block, Rescale by, long first, long rows, long column, long vectors,
                      const int32_t* sums) const {
        uint8_t* to = tile + column / BBLOCK * a_block + first * BBLOCK + column % BBLOCK;
        long row = 0;
#if defined(__AVX512VBMI__)
        if (vectors == 2) {
            const Vector scale[2] = {load(by.scale + column), load(by.scale + column + LANES)};
            const Vector bias[2] = {load(by.bias + column), load(by.bias + column + LANES)};
            for (; row + 1 < rows; row += 2) pair(to + row * BBLOCK, sums + row * PANEL, scale, bias);
        }
#endif
        for (; row < rows; row++)
            for (long j = 0; j < vectors; j++) {
                const long c = j * LANES;
                uint8_t* put = to + row * BBLOCK + c;
                const Vector sum = floats_of(load_ints(sums + (row * vectors + j) * LANES));
                store_bytes(put, sum * load(by.scale + column + c) + load(by.bias + column + c));
                for (long i = 0; i < LANES; i++) put[i] = table[put[i]];
            }
    }
};

// to[row][column] = sums * scale + bias (+ other[row][column]), in the real columns of rows `stride` apart.
INLINE void write_floats(float* to, const float* other, Rescale by, long stride, long first, long rows, long column,
                         long vectors, long columns, const int32_t* sums) {
    for (long j = 0; j < vectors; j++) {
        const long c = column + j * LANES, lanes = least(LANES, columns - c);
        if (lanes <= 0) continue;
        const Vector scale = load(by.scale + c), bias = load(by.bias + c);
        for (long i = 0; i < rows; i++) {
            const long place = (first + i) * stride + c;
            Vector value = floats_of(load_ints(sums + (i * vectors + j) * LANES)) * scale + bias;
            if (other) value += load_part(other + place, lanes);
            store_part(to + place, value, lanes);
        }
    }
}

}  // namespace convnext
