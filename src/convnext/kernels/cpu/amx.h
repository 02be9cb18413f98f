// Intel's AMX (Xeons since Sapphire Rapids): one instruction multiplies 16 rows of 64 bytes with a packed matrix of 64 bytes by
// 16 columns and adds up in 32 bits, in 16 cycles. Of eight tile registers four hold sums, two rows and two columns.
#pragma once

#include "vector.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__linux__)
#define CONVNEXT_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace convnext {

constexpr long TILE_ROWS = 16, TILE_BYTES = 64;  // of one register; a row of sums is as long

#if defined(CONVNEXT_AMX)
constexpr bool AMX = true;

// Whether this process may use the tiles: Linux wants to be asked, since it keeps 8 KB more of each thread that does. Asked
// when the library is loaded.
constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
inline const bool TILES_ALLOWED = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;

struct alignas(64) TileShape {
    uint8_t palette = 1, start = 0, reserved[14]{};
    uint16_t bytes[16]{};
    uint8_t rows[16]{};
    constexpr TileShape() {
        for (long i = 0; i < 8; i++) bytes[i] = TILE_BYTES, rows[i] = TILE_ROWS;
    }
};
inline constexpr TileShape WHOLE_TILES;

// While one lives this thread's tiles are whole ones. Others, such as torch's matmuls, shape them for themselves.
struct TilesInUse {
    TilesInUse() { _tile_loadconfig(&WHOLE_TILES); }
    ~TilesInUse() { _tile_release(); }
    TilesInUse(const TilesInUse&) = delete;
};

// GCC's tile instructions do not say that they read and write memory.
INLINE void memory_is_touched() { asm volatile("" ::: "memory"); }

#define MULTIPLY_TILES(sum, rows, columns) \
    if constexpr (BYTES) _tile_dpbusd(sum, rows, columns); else _tile_dpbf16ps(sum, rows, columns)

// sums[16 * HIGH][16 * WIDE] = rows times columns over `steps` of 64 bytes; `a_step` and `b_step`: bytes between two of them.
// BYTES: uint8 times int8 into int32, else bf16 into float32.
template <bool BYTES, int HIGH, int WIDE>
__attribute__((noinline)) void multiply_tiles(const char* a, long a_step, const char* b, long b_step, long steps, void* sums) {
    constexpr long WIDTH = WIDE * TILE_BYTES, BELOW = TILE_ROWS * TILE_BYTES;
    char* to = static_cast<char*>(sums);
    memory_is_touched();
    _tile_zero(0);
    if constexpr (WIDE == 2) _tile_zero(1);
    if constexpr (HIGH == 2) _tile_zero(2);
    if constexpr (HIGH == 2 && WIDE == 2) _tile_zero(3);
    for (; steps > 0; steps--, a += a_step, b += b_step) {
        _tile_loadd(4, a, TILE_BYTES);
        _tile_loadd(6, b, WIDTH);
        MULTIPLY_TILES(0, 4, 6);
        if constexpr (WIDE == 2) {
            _tile_loadd(7, b + TILE_BYTES, WIDTH);
            MULTIPLY_TILES(1, 4, 7);
        }
        if constexpr (HIGH == 2) {
            _tile_loadd(5, a + BELOW, TILE_BYTES);
            MULTIPLY_TILES(2, 5, 6);
        }
        if constexpr (HIGH == 2 && WIDE == 2) MULTIPLY_TILES(3, 5, 7);
    }
    _tile_stored(0, to, WIDTH);
    if constexpr (WIDE == 2) _tile_stored(1, to + TILE_BYTES, WIDTH);
    if constexpr (HIGH == 2) _tile_stored(2, to + TILE_ROWS * WIDTH, WIDTH);
    if constexpr (HIGH == 2 && WIDE == 2) _tile_stored(3, to + TILE_ROWS * WIDTH + TILE_BYTES, WIDTH);
    memory_is_touched();
}
#undef MULTIPLY_TILES

// The same for up to 32 rows and one or two vectors of columns, whose panel's rows follow each other.
template <bool BYTES>
INLINE void multiply_tiles(long rows, long vectors, const void* a, long a_step, const void* b, long steps, void* sums) {
    const char *left = static_cast<const char*>(a), *right = static_cast<const char*>(b);
    const long b_step = TILE_ROWS * TILE_BYTES * vectors;
    const auto one = vectors == 2 ? multiply_tiles<BYTES, 1, 2> : multiply_tiles<BYTES, 1, 1>;
    const auto two = vectors == 2 ? multiply_tiles<BYTES, 2, 2> : multiply_tiles<BYTES, 2, 1>;
    (rows > TILE_ROWS ? two : one)(left, a_step, right, b_step, steps, sums);
}
#else
constexpr bool AMX = false, TILES_ALLOWED = false;
struct TilesInUse { TilesInUse() {} };
#endif

}  // namespace convnext
