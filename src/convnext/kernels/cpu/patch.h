// Convolutions whose kernel is their stride, as a gather and a matrix product: the stem and the halving layers.
#pragma once

#include "block.h"

namespace convnext {

struct Patch {  // (N, H, W, I) by the strides of x, in floats -> (N, H / P, W / P, O)
    const float *weight, *bias, *norm_weight, *norm_bias;  // weight rows in the order ky, kx, i; norm after, or null
    long inputs, outputs, size;
    long normalise;  // 1: every input pixel minus its mean over its deviation first
    float epsilon;
};

struct Strides { long picture, line, column, channel; };

// One output pixel's patch, in the order of the weight's rows.
static void gather(const Patch& p, const float* corner, Strides s, float* to) {
    for (long ky = 0; ky < p.size; ky++)
        for (long kx = 0; kx < p.size; kx++, to += p.inputs) {
            const float* from = corner + ky * s.line + kx * s.column;
            if (s.channel == 1)
                std::memcpy(to, from, static_cast<size_t>(p.inputs) * 4);
            else
                for (long i = 0; i < p.inputs; i++) to[i] = from[i * s.channel];
        }
}

// to = (from - mean) / deviation (* weight + bias); `from` may be `to`. Lanes past `count` are never written.
static void norm_row(const float* from, float* to, long count, float epsilon, const float* weight, const float* bias) {
    Vector total{}, squares{};
    for (long c = 0; c < count; c += LANES) total += load_part(from + c, count - c);
    const Vector mean = splat(sum(total) / static_cast<float>(count));
    for (long c = 0; c < count; c += LANES) {
        const Vector off = load_part(from + c, count - c) - mean;
        Vector square = off * off;
        for (long i = count - c; i < LANES; i++) square[i] = 0;
        squares += square;
    }
    const float scale = 1 / std::sqrt(sum(squares) / static_cast<float>(count) + epsilon);
    for (long c = 0; c < count; c += LANES) {
        Vector value = (load_part(from + c, count - c) - mean) * scale;
        if (weight) value = value * load_part(weight + c, count - c) + load_part(bias + c, count - c);
        store_part(to + c, value, count - c);
    }
}

static void patches(const Patch* p, const float* x, Strides s, long n, long h, long w, float* out, int threads) {
    const long height = h / p->size, width = w / p->size, pixels = n * height * width;
    const long depth = p->size * p->size * p->inputs, size = least(56, (pixels + threads - 1) / threads);
    const long tiles = (pixels + size - 1) / size, a_block = size * KBLOCK, O = p->outputs;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (long t = 0; t < tiles; t++) {
        const long start = t * size, rows = least(size, pixels - start);
        float* row = hidden_memory.floats(up(depth, KBLOCK));
        float* tile = tile_memory.floats(size * up(depth, KBLOCK));
        for (long i = 0; i < rows; i++) {
            const long pixel = start + i, line = pixel / width, column = pixel % width;
            gather(*p, x + line / height * s.picture + line % height * p->size * s.line + column * p->size * s.column,
                   s, row);
            if (p->normalise)
                for (long k = 0; k < depth; k += p->inputs)
                    norm_row(row + k, row + k, p->inputs, p->epsilon, nullptr, nullptr);
            for (long k = 0; k < depth; k += KBLOCK)
                std::memcpy(tile + k / KBLOCK * a_block + i * KBLOCK, row + k, KBLOCK * 4);
        }
        multiply(tile, a_block, rows, p->weight, PANEL * depth, depth, O,
                 [&](long first, long count, long column, long vectors, const float* sums) {
                     write_rows(out + start * O, nullptr, p->bias, {nullptr, 1, 0}, O, first, count, column, vectors, O,
                                sums);
                 });
        if (p->norm_weight)
            for (long i = 0; i < rows; i++) {
                float* at = out + (start + i) * O;
                norm_row(at, at, O, p->epsilon, p->norm_weight, p->norm_bias);
            }
    }
}

}  // namespace convnext
