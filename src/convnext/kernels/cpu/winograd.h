// Convolutions of 3 x 3 with stride 1 and zeros around, float32, channels last, by Winograd's F(4 x 4, 3 x 3)
// (arXiv 1509.09308): Y = A' [(G w G') * (B' d B)] A is a tile of 4 x 4 outputs of the 6 x 6 inputs d around it, with 36
// multiplications for each pair of channels, where the sum of nine has 144. The matmuls over the channels are gemm.h's.
//
// The polynomials behind it are taken at 0, +-P, +-Q and infinity. P = 3/4 and Q = 3/2 are exact in float32, and the error is
// a quarter of that of the usual 1 and 2.
//
// One row of the 6 x 6 is computed after the other, and sums of outputs grow over them: what the matmuls read again and
// again is a sixth of it and stays in the second cache, and a matrix that comes from memory meets many tiles.
#pragma once

#include "block.h"

namespace convnext {

constexpr int OUT = 4, IN = 6;  // sides of a tile of outputs, and of the inputs that it sees
constexpr float P = 0.75f, Q = 1.5f;

struct Convolution {  // (N, H, W, I) -> (N, H, W, O)
    const float* weight;  // G w G': [row of IN][panel][column of IN][I][columns of the panel]
    const float* bias;    // padded to whole vectors
    long inputs, outputs;
    long relu;  // 1: negative answers become 0
};

constexpr long TILES = 56, INPUTS = 256, OUTPUTS = 256;  // at once, as measured
alignas(64) const float NOTHING[INPUTS + LANES]{};       // what lies outside of a map

// Row I of B' times d(0) to d(5).
template <int I, class Get>
INLINE Vector across_inputs(Get d) {
    if constexpr (I == 0 || I == 5) {
        constexpr int first = I == 5;
        return d(first + 4) - (P * P + Q * Q) * d(first + 2) + (P * P * Q * Q) * d(first);
    } else {
        constexpr float point = (I < 3 ? P : Q) * (I % 2 ? 1 : -1), other = I < 3 ? Q * Q : P * P;
        return (d(4) - other * d(2)) + point * (d(3) - other * d(1));
    }
}

// Row I of B' d B of one tile, `count` channels: column j of it to `to` + j * step, as gemm.h's A.
template <int I>
static void see(const float* const (*at)[IN], long count, float* to, long a_block, long step) {
    auto vector = [&](long c, auto read) {
        Vector d[IN];
        UNROLL for (int j = 0; j < IN; j++)
            d[j] = across_inputs<I>([&](int r) { return read(at[r][j] + c); });
        float* place = to + c / KBLOCK * a_block + c % KBLOCK;
        auto get = [&](int j) { return d[j]; };
        store(place, across_inputs<0>(get));
        store(place + step, across_inputs<1>(get));
        store(place + 2 * step, across_inputs<2>(get));
        store(place + 3 * step, across_inputs<3>(get));
        store(place + 4 * step, across_inputs<4>(get));
        store(place + 5 * step, across_inputs<5>(get));
    };
    long c = 0;
    for (; c + LANES <= count; c += LANES) vector(c, [](const float* from) { return load(from); });
    if (c < count) vector(c, [&](const float* from) { return load_part(from, count - c); });
}

// Row I of the products of `tiles` tiles, [column of IN][tile][PANEL], into their outputs' sums, [tile][OUT][OUT][PANEL].
template <int I>
static void add_up(const float* products, long tiles, long vectors, float* sums) {
    constexpr float point = I == 0 || I == 5 ? 0 : (I < 3 ? P : Q) * (I % 2 ? 1 : -1);
    constexpr float share[OUT] = {I < 5 ? 1 : 0, point, point * point, I == 5 ? 1 : point * point * point};
    for (long t = 0; t < tiles; t++)
        for (long v = 0; v < vectors; v++) {
            Vector m[IN];
            UNROLL for (int j = 0; j < IN; j++) m[j] = load(products + (j * tiles + t) * PANEL + v * LANES);
            const Vector even = m[1] + m[2], odd = m[1] - m[2], even_too = m[3] + m[4], odd_too = m[3] - m[4];
            const Vector row[OUT] = {m[0] + even + even_too, P * odd + Q * odd_too, P * P * even + Q * Q * even_too,
                                     P * P * P * odd + Q * Q * Q * odd_too + m[5]};
            float* to = sums + t * OUT * OUT * PANEL + v * LANES;
            UNROLL for (int y = 0; y < OUT; y++)
                if (share[y] != 0)
                    UNROLL for (int x = 0; x < OUT; x++) {
                        float* place = to + (y * OUT + x) * PANEL;
                        store(place, load(place) + share[y] * row[x]);
                    }
        }
}

struct Seen {  // the tiles of a batch of maps, line by line
    Map map;
    long lines, columns;
    explicit Seen(Map map) : map(map), lines((map.height + OUT - 1) / OUT), columns((map.width + OUT - 1) / OUT) {}
    long count() const { return map.images * lines * columns; }
    long image(long tile) const { return tile / columns / lines; }
    long top(long tile) const { return tile / columns % lines * OUT; }
    long left(long tile) const { return tile % columns * OUT; }
    // Where the inputs of a tile lie, from channel `start` on.
    void places(const float* x, long tile, long start, const float* (*at)[IN]) const {
        const long line = top(tile) - 1, column = left(tile) - 1, lines_before = image(tile) * map.height;
        for (long r = 0; r < IN; r++)
            for (long j = 0; j < IN; j++) {
                const bool inside = line + r >= 0 && line + r < map.height && column + j >= 0 && column + j < map.width;
                const long pixel = (lines_before + line + r) * map.width + column + j;
                at[r][j] = inside ? x + pixel * map.channels + start : NOTHING;
            }
    }
};

static void (*const SEE[IN])(const float* const (*)[IN], long, float*, long, long) = {see<0>, see<1>, see<2>,
                                                                                      see<3>, see<4>, see<5>};
static void (*const ADD_UP[IN])(const float*, long, long, float*) = {add_up<0>, add_up<1>, add_up<2>,
                                                                     add_up<3>, add_up<4>, add_up<5>};

// Outputs [from, from + width) of tiles [first, first + tiles), in scratch: [panel][tile][OUT][OUT][PANEL].
static const float* convolve_tiles(const Convolution& p, const float* x, const Seen& seen, long first, long tiles, long from,
                                   long width) {
    const long a_block = tiles * KBLOCK, step = tiles * INPUTS + LINE;  // columns apart by no power of two
    const long I = p.inputs, pixels = tiles * OUT * OUT;
    float* inputs = tile_memory.floats(IN * step);
    float* products = hidden_memory.floats(IN * tiles * PANEL + pixels * up(width, PANEL));
    float* sums = products + IN * tiles * PANEL;
    for (long c = 0; c < up(width, LANES); c += LANES) {
        const Vector bias = load(p.bias + from + c);
        for (long i = 0; i < pixels; i++) store(sums + (c / PANEL * pixels + i) * PANEL + c % PANEL, bias);
    }
    for (long start = 0; start < I; start += INPUTS)
        for (long i = 0; i < IN; i++) {
            const long depth = least(INPUTS, I - start);
            for (long t = 0; t < tiles; t++) {
                const float* at[IN][IN];
                seen.places(x, first + t, start, at);
                SEE[i](at, depth, inputs + t * KBLOCK, a_block, step);
            }
            for (long c = 0; c < width; c += PANEL) {
                const long columns = least(PANEL, up(p.outputs - from - c, LANES)), matrix = I * columns;
                const float* b = p.weight + (i * up(p.outputs, LANES) + from + c) * I * IN + start * columns;
                for (long j = 0; j < IN; j++, b += matrix)
                    multiply(inputs + j * step, a_block, tiles, b, 0, depth, columns,
                             [&](long row, long rows, long, long vectors, const float* found) {
                                 for (long k = row; k < row + rows; k++)
                                     for (long v = 0; v < vectors; v++, found += LANES)
                                         store(products + (j * tiles + k) * PANEL + v * LANES, load(found));
                             },
                             b + matrix);
                ADD_UP[i](products, tiles, columns / LANES, sums + c * pixels);
            }
        }
    return sums;
}

inline void convolution(const Convolution& p, const float* x, Map map, float* out, int threads) {
    const Seen seen(map);
    const long groups = (p.outputs + OUTPUTS - 1) / OUTPUTS;
    const Tiles tiles(seen.count(), TILES, threads, WHOLE_ROWS<float>);
    deal(tiles.count * groups, threads, [&](long i) {
        const long first = i / groups * tiles.size, many = tiles.rows(i / groups), from = i % groups * OUTPUTS;
        const long width = least(OUTPUTS, p.outputs - from);
        const float* sums = convolve_tiles(p, x, seen, first, many, from, width);
        for (long t = 0; t < many; t++) {  // whole pixels one after the other: memory takes single lines slowly
            const long top = seen.top(first + t), left = seen.left(first + t);
            for (long y = 0; y < least(OUT, map.height - top); y++)
                for (long z = 0; z < least(OUT, map.width - left); z++) {
                    const long pixel = (seen.image(first + t) * map.height + top + y) * map.width + left + z;
                    float* to = out + pixel * p.outputs + from;
                    for (long c = 0; c < width; c += LANES) {
                        const long place = (c / PANEL * many + t) * OUT * OUT + y * OUT + z;
                        Vector value = load(sums + place * PANEL + c % PANEL);
                        if (p.relu) value = value < 0 ? Vector{} : value;
                        store_part(to + c, value, width - c);
                    }
                }
        }
    });
}

}  // namespace convnext
