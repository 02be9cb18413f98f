// The library's plain C interface, and the tables of its templates. Every pointer is the caller's; floats are 32 bit.

#include <cstring>
#include <new>
#include <utility>

#include "affine.h"
#include "network.h"
#include "resize.h"
#include "roi.h"
#include "training.h"
#include "winograd.h"

namespace convnext {

const GeluTable GELU;

template <class T, int VECTORS, int... ROWS>
constexpr auto block_table(std::integer_sequence<int, ROWS...>) {
    struct Table { typename Multiply<T>::Block entry[15]; };
    return Table{{nullptr, multiply_block<T, ROWS + 1, VECTORS>...}};
}
template <class T> constexpr auto ONE = block_table<T, 1>(std::make_integer_sequence<int, 14>{});
template <class T> constexpr auto TWO = block_table<T, 2>(std::make_integer_sequence<int, 14>{});
#define ROW(t) {t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10], t[11], t[12], t[13], t[14]}
template <> const Multiply<float>::Block Multiply<float>::table[2][15] = {ROW(ONE<float>.entry), ROW(TWO<float>.entry)};
#if defined(CONVNEXT_BF16) && !defined(CONVNEXT_AMX)
template <> const Multiply<Bf16>::Block Multiply<Bf16>::table[2][15] = {ROW(ONE<Bf16>.entry), ROW(TWO<Bf16>.entry)};
#endif

template <int VECTORS, int... ROWS>
constexpr auto byte_table(std::integer_sequence<int, ROWS...>) {
    struct Table { MultiplyBytes entry[15]; };
    return Table{{nullptr, multiply_bytes_block<ROWS + 1, VECTORS>...}};
}
constexpr auto ONE_BYTES = byte_table<1>(std::make_integer_sequence<int, 14>{});
constexpr auto TWO_BYTES = byte_table<2>(std::make_integer_sequence<int, 14>{});
const MultiplyBytes MULTIPLY_BYTES[2][15] = {ROW(ONE_BYTES.entry), ROW(TWO_BYTES.entry)};

template <bool PART, int... PIXELS>
constexpr auto depthwise_table(std::integer_sequence<int, PIXELS...>) {
    struct Table { Depthwise entry[15]; };
    return Table{{nullptr, depthwise7<PIXELS + 1, PART>...}};
}
constexpr auto WHOLE = depthwise_table<false>(std::make_integer_sequence<int, 14>{});
constexpr auto PARTLY = depthwise_table<true>(std::make_integer_sequence<int, 14>{});
const Depthwise DEPTHWISE7[2][15] = {ROW(WHOLE.entry), ROW(PARTLY.entry)};

template <bool PART, int... PIXELS>
constexpr auto taps_table(std::integer_sequence<int, PIXELS...>) {
    struct Table { Taps entry[15]; };
    return Table{{nullptr, taps7<PIXELS + 1, PART>...}};
}
constexpr auto WHOLE_TAPS = taps_table<false>(std::make_integer_sequence<int, 14>{});
constexpr auto PART_TAPS = taps_table<true>(std::make_integer_sequence<int, 14>{});
const Taps TAPS7[2][15] = {ROW(WHOLE_TAPS.entry), ROW(PART_TAPS.entry)};

#if defined(CONVNEXT_BF16)
using Operand = Bf16;
#else
using Operand = float;  // nobody asks for bf16 here: cn_bf16 tells
#endif

template <class T>
long matmuls(long rounds, int threads) {
    constexpr long DEPTH = 256;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        constexpr long ROWS = BLOCK_ROWS<T>;
        T* a = tile_memory.values<T>(ROWS * DEPTH);
        float* sums = hidden_memory.floats(PANEL * DEPTH + ROWS * PANEL);
        T* b = reinterpret_cast<T*>(sums + ROWS * PANEL);
        std::memset(a, 0, ROWS * DEPTH * sizeof(T));
        std::memset(b, 0, PANEL * DEPTH * sizeof(T));
        const Unit<T> unit;
        for (long i = 0; i < rounds; i++) multiply_rows(ROWS, 2, a, ROWS * KBLOCK, b, DEPTH, sums, b);
    }
    return 2 * BLOCK_ROWS<T> * PANEL * DEPTH * rounds * threads;
}

template <class T>
int forward_step(const Weights& p, const float* x, float* out, Map map, int threads) {
    float* memory = step_memory.ask(workspace<T>(p, map, false, threads));
    if (memory) forward<T>(p, x, out, memory, map, threads);
    return !memory;
}

template <class T>
int backward_step(const Weights& p, const float* x, const float* gradient, const Gradients& to, Map map, int threads) {
    float* memory = step_memory.ask(workspace<T>(p, map, true, threads));
    if (memory) backward<T>(p, x, gradient, to, memory, map, threads);
    return !memory;
}

}  // namespace convnext

using namespace convnext;

#pragma GCC visibility push(default)
extern "C" {

long cn_panel() { return PANEL; }
long cn_lanes() { return LANES; }

// The size in bytes of the structure of this name that callers fill in, 0 where there is none: they compare it with theirs.
long cn_size(const char* name) {
    const struct { const char* name; size_t size; } all[] = {
        {"Patch", sizeof(Patch)}, {"Block", sizeof(Block<float>)}, {"Head", sizeof(Head)},
        {"Layer", sizeof(Layer)}, {"Weights", sizeof(Weights)},    {"Gradients", sizeof(Gradients)},
        {"Int8Block", sizeof(Int8Block)}, {"Int8Patch", sizeof(Int8Patch)}, {"Stem", sizeof(Stem)},
        {"Convolution", sizeof(Convolution)},
    };
    for (const auto& each : all)
        if (!std::strcmp(each.name, name)) return static_cast<long>(each.size);
    return 0;
}

long cn_bf16() {  // whether matmuls may have bfloat16 operands
#if defined(CONVNEXT_AMX)
    return TILES_ALLOWED;
#elif defined(CONVNEXT_BF16)
    return 1;
#else
    return 0;
#endif
}

long cn_bf16_rows() { return MULTIPLE<Operand>; }  // of a packed matrix of bfloat16: a multiple, the last ones zeros

// How bytes are multiplied: 3 AMX, 2 AVX512-VNNI, 1 AVX-VNNI, 0 widened to 16 or 32 bits.
long cn_int8() { return TILES_ALLOWED ? 3 : INT8_FORM; }
long cn_int8_block() { return BBLOCK; }
long cn_int8_rows() { return MULTIPLE<uint8_t>; }  // of a packed matrix: a multiple, the last ones zeros

// sums (rows, columns) of bytes in a tile (int8.h) times a packed matrix of int8.
void cn_int8_matmul(const uint8_t* tile, const int8_t* b, long rows, long depth, long columns, int32_t* to) {
    multiply_bytes(tile, rows * BBLOCK, rows, b, depth, 0, columns,
                   [&](long first, long n, long column, long vectors, const int32_t* sums) {
                       for (long i = 0; i < n; i++)
                           for (long c = 0; c < least(vectors * LANES, columns - column); c++)
                               to[(first + i) * columns + column + c] = sums[i * vectors * LANES + c];
                   });
}

void cn_gelu(const float* x, float* value, float* derivative, long count) {  // for the tests
    const Pieces values(GELU.value);
    const Pieces derivatives(GELU.derivative);
    for (long i = 0; i < count; i += LANES) {
        Vector s;
        store_part(value + i, gelu_and_derivative(load_part(x + i, count - i), values, derivatives, s), count - i);
        store_part(derivative + i, s, count - i);
    }
}

// out(x, y) = in(m * (x, y, 1)) for (height, width, channels) pixels of 1 or 3 channels, `fill` where that is outside.
void cn_affine(const uint8_t* in, uint8_t* out, long height, long width, long channels, const double* m, long cubic,
               const uint8_t* fill) {
    const auto move = channels == 1 ? (cubic ? affine<Cubic, 1> : affine<Line, 1>)
                                    : (cubic ? affine<Cubic, 3> : affine<Line, 3>);
    move(in, out, height, width, m, fill);
}

// A part (top, left, height, width) of (height, width, channels) pixels, 1 or 3 channels, that are resized to `size`; `down_first`:
// the order of the passes. 1 where memory is short, else 0.
int cn_resize(const uint8_t* in, long height, long width, long channels, const long* size, const long* part, long down_first,
              uint8_t* out) {
    try {
        const auto one = channels == 1 ? resize<1> : resize<3>;
        one(in, height, width, size[0], size[1], down_first, {part[0], part[1], part[2], part[3]}, out);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}

// RoIAlign of (n, h, w, c) maps: the `count` boxes (image, left, top, right, bottom) at `places`, each to (c, size, size).
void cn_roi_align(const float* x, long n, long h, long w, long c, const float* boxes, const int64_t* places, long count,
                  float scale, long size, float* to, int threads) {
    roi_align(x, {n, h, w, c}, boxes, places, count, scale, size, to, threads);
}

// A 3 x 3 convolution of (n, h, w, inputs) maps to (n, h, w, outputs).
void cn_convolution(const Convolution* p, const float* x, long n, long h, long w, float* out, int threads) {
    convolution(*p, x, {n, h, w, p->inputs}, out, threads);
}

// B[k][n] = from[k * by_k + n * by_n], packed for the matmuls.
void cn_pack(const float* from, long by_k, long by_n, long depth, long columns, float* to) {
    pack(from, by_k, by_n, depth, columns, nullptr, nullptr, to, 0, (columns + PANEL - 1) / PANEL);
}

// `rounds` register blocks of depth 256 out of the first cache on every thread, the limit of all: their operations.
long cn_matmuls(long rounds, long bf16, int threads) {
    return bf16 ? matmuls<Operand>(rounds, threads) : matmuls<float>(rounds, threads);
}

// The same of bytes.
long cn_int8_matmuls(long rounds, int threads) {
    constexpr long DEPTH = 256;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        constexpr long ROWS = BLOCK_ROWS<uint8_t>;
        uint8_t* a = tile_memory.values<uint8_t>(ROWS * DEPTH);
        int8_t* b = hidden_memory.values<int8_t>(PANEL * DEPTH);
        std::memset(a, 0, ROWS * DEPTH);
        std::memset(b, 0, PANEL * DEPTH);
        for (long i = 0; i < rounds; i++)
            multiply_bytes(a, ROWS * BBLOCK, ROWS, b, DEPTH, 0, PANEL, [](long, long, long, long, const int32_t*) {});
    }
    return 2 * BLOCK_ROWS<uint8_t> * PANEL * DEPTH * rounds * threads;
}

// For the cost image: the convolution and the norm alone, into scratch.
void cn_spatial(const Block<float>* p, const float* x, long n, long h, long w, int threads) {
    const Map map{n, h, w, p->channels};
    const long tiles = (map.pixels() + 111) / 112;
    deal(tiles, threads, [&](long t) {
        depthwise_norm(x, map, p->kernel, p->spatial, p->spatial_bias, p->epsilon, t * 112,
                       least((t + 1) * 112, map.pixels()), tile_memory.floats(112 * up(p->channels, KBLOCK)),
                       112 * KBLOCK, nullptr);
    });
}

// Inference of `count` layers. x by its strides in floats: image, line, column, channel; where a block is first, channels
// lie together. The map of layer i goes to outs[i], or nowhere where that is null. 1 where memory is short, else 0.
int cn_network(const Layer* layers, long count, const float* x, const long* stride, long n, long h, long w, long channels,
               float* const* outs, int threads) {
    return !network(layers, count, x, {stride[0], stride[1], stride[2], stride[3]}, {n, h, w, channels}, outs, threads);
}

// Training: the block, and its gradients. 1 where memory is short, else 0.
int cn_forward(const Weights* p, const float* x, float* out, long n, long h, long w, int threads) {
    return p->bf16 ? forward_step<Operand>(*p, x, out, {n, h, w, p->channels}, threads)
                   : forward_step<float>(*p, x, out, {n, h, w, p->channels}, threads);
}

int cn_backward(const Weights* p, const float* x, const float* gradient, const Gradients* to, long n, long h, long w,
                int threads) {
    return p->bf16 ? backward_step<Operand>(*p, x, gradient, *to, {n, h, w, p->channels}, threads)
                   : backward_step<float>(*p, x, gradient, *to, {n, h, w, p->channels}, threads);
}

}  // extern "C"
#pragma GCC visibility pop
