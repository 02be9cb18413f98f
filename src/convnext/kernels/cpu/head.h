// The end of a classifier: every image's mean over its pixels, normed, times the classes' matrix.
#pragma once

#include "patch.h"

namespace convnext {

struct Head {  // (N, H, W, I) -> (N, 1, 1, O); the affine part of the norm is folded into the matrix
    const float *weight, *bias;
    long inputs, outputs;
    float epsilon;
};

inline void head(const Head& p, const float* x, Map map, float* out, int threads) {
    const long I = p.inputs, area = map.height * map.width, panels = (p.outputs + PANEL - 1) / PANEL;
    const long a_block = map.images * KBLOCK;
    float* tile = shared_memory.floats(map.images * up(I, KBLOCK));  // as gemm.h's A: [block][image][KBLOCK]
    const Vector share = splat(1 / static_cast<float>(area));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const long me = omp_get_thread_num(), team = omp_get_num_threads();
        const long last = map.images * (me + 1) / team;
        for (long first = map.images * me / team; first < last; first += TOGETHER) {
            const long rows = least(TOGETHER, last - first);
            Vector totals[TOGETHER]{};
            for (long i = 0; i < rows; i++)
                for (long c = 0; c < I; c += LANES) {
                    const float* from = x + (first + i) * area * I + c;
                    Vector total{};
                    for (long pixel = 0; pixel < area; pixel++) total += load_part(from + pixel * I, I - c);
                    store(tile + c / KBLOCK * a_block + (first + i) * KBLOCK + c % KBLOCK, total * share);
                    totals[i] += total * share;
                }
            float* part = tile + first * KBLOCK;
            normalise_rows(part, a_block, rows, I, p.epsilon, totals, part, a_block, nullptr);
        }
#pragma omp barrier
        const long start = panels * me / team * PANEL, end = least(panels * (me + 1) / team * PANEL, p.outputs);
        multiply(tile, a_block, map.images, p.weight + start * I, PANEL * I, I, end - start,
                 [&](long first, long rows, long column, long vectors, const float* sums) {
                     write_rows(out, nullptr, p.bias, {nullptr, 1, 0}, p.outputs, first, rows, start + column, vectors,
                                p.outputs, sums);
                 });
    }
}

}  // namespace convnext
