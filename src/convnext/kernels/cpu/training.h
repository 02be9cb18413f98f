// A training step of the block: forward with weights as they are, and every gradient.
//
// Only x is kept between the two. The way back recomputes the convolution, the norm and the hidden values for a few
// thousand pixels at a time, whose 4C values stay in the last cache until the weights' gradients have been summed.
// Affine parts are folded into the matrices here too; their own gradients follow from those of the folded matrices:
//   a = n * w + b, so d expand[e][c] = w[c] G[e][c] + b[c] d expand_bias[e],  G = (d hidden before gelu)^T n
//   d w[c] = sum over e of expand[e][c] G[e][c],   d b[c] = sum over e of expand[e][c] d expand_bias[e]
// and for the layer scale in front of project, with D = (scaled gradient)^T hidden and t = the column sums of that gradient:
//   d project[c][e] = gamma[c] D[c][e],   d gamma[c] = sum over e of project[c][e] D[c][e] + project_bias[c] t[c]
// T is what the matmuls take. Of Bf16, every tile and packed matrix is rounded once; sums, the convolution, the norm's moments
// and all gradients that leave are float32.
#pragma once

#include "grn.h"

namespace convnext {

struct Weights {  // as the network has them; gamma, grn with its bias, and scale may be null
    const float *spatial, *spatial_bias, *norm_weight, *norm_bias, *expand, *expand_bias, *project, *project_bias;
    const float *gamma, *grn, *grn_bias, *scale;
    long channels, hidden, kernel, bf16;  // bf16: 1 where the matmuls take bfloat16 values
    float epsilon;
};

struct Gradients {  // null where the weight is
    float *x, *spatial, *spatial_bias, *norm_weight, *norm_bias, *expand, *expand_bias, *project, *project_bias;
    float *gamma, *grn, *grn_bias;
};

thread_local Scratch step_memory;  // of the thread that asks for the step

class Arena {  // deals out pieces of a workspace; with null, only counts
  public:
    explicit Arena(float* base) : base_(base) {}
    template <class T = float>
    T* take(long count) {
        float* piece = base_ ? base_ + used_ : nullptr;
        used_ += up(count * static_cast<long>(sizeof(T)), 64) / 4;
        return reinterpret_cast<T*>(piece);
    }
    long used() const { return used_; }

  private:
    float* base_;
    long used_ = 0;
};

template <class T>
struct Folded {  // packed for both ways
    T *expand, *project, *project_back, *expand_back;
    float *spatial, *spatial_bias, *expand_bias, *project_bias;
    float *flipped, *nothing, *gamma;  // gamma: 1 where the block has none

    Folded(const Weights& p, Arena& arena, bool backward) {
        const long C = p.channels, E = p.hidden, K = p.kernel, wide = up(C, LANES);
        const long outwards = padded<T>(C) * up(E, LANES), inwards = padded<T>(E) * wide;
        spatial = arena.take(wide * K * K);
        spatial_bias = arena.take(wide);
        expand = arena.take<T>(outwards);
        expand_bias = arena.take(up(E, LANES));
        project = backward ? nullptr : arena.take<T>(inwards);
        project_bias = arena.take(wide);
        flipped = backward ? arena.take(wide * K * K) : nullptr;
        nothing = arena.take(wide);
        project_back = backward ? arena.take<T>(outwards) : nullptr;
        expand_back = backward ? arena.take<T>(inwards) : nullptr;
        gamma = arena.take(wide);
    }
};

// The sum over `count` of a[i] * b[i].
INLINE float product(const float* a, const float* b, long count) {
    Vector total{};
    for (long i = 0; i < count; i += LANES) total += load_part(a + i, count - i) * load_part(b + i, count - i);
    return sum(total);
}

template <class T>
static void fold(const Weights& p, Folded<T>& f, int threads) {
    const long C = p.channels, E = p.hidden, square = p.kernel * p.kernel, wide = up(C, LANES);
    for (long c = 0; c < wide; c++) {
        const bool real = c < C;
        f.nothing[c] = 0;
        f.spatial_bias[c] = real ? p.spatial_bias[c] : 0;
        f.gamma[c] = real ? (p.gamma ? p.gamma[c] : 1) : 0;
        f.project_bias[c] = real ? p.project_bias[c] * f.gamma[c] : 0;
        if (real && p.grn && f.project) f.project_bias[c] += product(p.project + c * E, p.grn_bias, E) * f.gamma[c];
        for (long k = 0; k < square; k++) {
            const long to = c / LANES * square * LANES + c % LANES;
            const float value = real ? p.spatial[c * square + k] : 0;
            f.spatial[to + k * LANES] = value;
            if (f.flipped) f.flipped[to + (square - 1 - k) * LANES] = value;
        }
    }
    const long wide_panels = (E + PANEL - 1) / PANEL, narrow_panels = (C + PANEL - 1) / PANEL;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (long i = 0; i < wide_panels; i++) {
            pack(p.expand, 1, C, C, E, p.norm_weight, nullptr, f.expand, i, i + 1);
            if (f.project_back) pack(p.project, E, 1, C, E, f.gamma, nullptr, f.project_back, i, i + 1);
            for (long e = i * PANEL; e < least(up(E, LANES), (i + 1) * PANEL); e++)
                f.expand_bias[e] = e < E ? product(p.expand + e * C, p.norm_bias, C) + p.expand_bias[e] : 0;
        }
#pragma omp for schedule(static)
        for (long i = 0; i < narrow_panels; i++) {
            if (f.project) pack(p.project, 1, E, E, C, nullptr, f.gamma, f.project, i, i + 1);
            if (f.expand_back) pack(p.expand, C, 1, E, C, nullptr, p.norm_weight, f.expand_back, i, i + 1);
        }
    }
}

template <class T>
static void forward(const Weights& p, const float* x, float* out, float* memory, Map map, int threads) {
    Arena arena(memory);
    Folded<T> f(p, arena, false);
    fold(p, f, threads);
    block<T>({f.spatial, f.spatial_bias, f.expand, f.expand_bias, f.project, f.project_bias, p.scale, p.grn, p.channels,
              p.hidden, p.kernel, p.epsilon},
             x, out, map, threads);
}

// Pixels whose hidden values are alive at once on the way back: about 8 MB of them, a multiple of the register block.
template <class T>
static long span_of(long pixels, long channels) {
    const long some = 200000 / channels * TERMS<T>, most = up(some > 224 ? some : 224, 2 * WHOLE_ROWS<T>);
    const long parts = (pixels + most - 1) / most;
    return up((pixels + parts - 1) / parts, WHOLE_ROWS<T>);
}

template <class T>
struct Span {  // tiles (gemm.h) of all the pixels of a span
    T *norm, *gradient, *hidden, *before;
    float* inverse;
    long block;  // distance of their blocks of columns

    Span(long pixels, long channels, long hidden_channels, Arena& arena) : block(pixels * KBLOCK) {
        norm = arena.take<T>(pixels * up(channels, KBLOCK));
        gradient = arena.take<T>(pixels * up(channels, KBLOCK));
        hidden = arena.take<T>(pixels * up(hidden_channels, KBLOCK));
        before = arena.take<T>(pixels * up(hidden_channels, KBLOCK));
        inverse = arena.take(pixels);
    }
};

// Rows [from, to) of a span that starts at pixel `start`: the gradient of the loss times the drop-path factor, as a tile.
template <class T>
static void scale_gradient(const float* gradient, Scale scale, long C, long start, long from, long to, Span<T> s) {
    for (long row = from; row < to; row++) {
        const Vector factor = splat(scale.of(start + row));
        for (long c = 0; c < C; c += LANES)
            store(s.gradient + c / KBLOCK * s.block + row * KBLOCK + c % KBLOCK,
                  load_part(gradient + (start + row) * C + c, C - c) * factor);
        if (up(C, LANES) % KBLOCK) clear_half(s.gradient + C / KBLOCK * s.block + row * KBLOCK, 1, 1);
    }
}

// Rows whose operands stay in the second cache, a multiple of the register block.
template <class T> constexpr long STRETCH = ON_TILES<T> ? 128 : 112;

// Rows [from, to): calls finish(row, rows, column, vectors, sums, back) for each register block of the hidden values before
// their bias and of the gradients by what `project` takes.
template <class T, class Finish>
INLINE void hidden_blocks(const Folded<T>& f, long C, long E, long from, long to, Span<T> s, Finish finish) {
    alignas(64) float back[BLOCK_ROWS<T> * PANEL];
    const long depth = padded<T>(C);
    for (long row = from; row < to; row += STRETCH<T>)
        multiply(s.norm + row * KBLOCK, s.block, least(STRETCH<T>, to - row), f.expand, PANEL * depth, C, E,
                 [&](long first, long n, long column, long vectors, const float* sums) {
                     const T* panel = f.project_back + column * depth;
                     multiply_rows(n, vectors, s.gradient + (row + first) * KBLOCK, s.block, panel, C, back,
                                   panel + PANEL * depth);
                     finish(row + first, n, column, vectors, sums, back);
                 });
}

// Rows [from, to): hidden = gelu(before), and `before` becomes the loss's gradient by it.
template <class T>
static void hidden_gradients(const Folded<T>& f, long C, long E, long from, long to, Span<T> s) {
    const Pieces values(GELU.value);
    const Pieces derivatives(GELU.derivative);
    hidden_blocks(f, C, E, from, to, s,
                  [&](long row, long n, long column, long vectors, const float* sums, const float* back) {
                      const long place = column / KBLOCK * s.block + row * KBLOCK + column % KBLOCK;
                      for (long i = 0; i < n; i++)
                          for (long j = 0; j < vectors; j++) {
                              const long at = (i * vectors + j) * LANES, put = place + i * KBLOCK + j * LANES;
                              Vector steep;
                              const Vector bias = load(f.expand_bias + column + j * LANES);
                              store(s.hidden + put, gelu_and_derivative(load(sums + at) + bias, values, derivatives, steep));
                              store(s.before + put, load(back + at) * steep);
                          }
                      clear_half(s.hidden + place, n, vectors);
                      clear_half(s.before + place, n, vectors);
                  });
}

// Rows [from, to): through expand and the norm, to the gradient by the convolution's output, `to_pixels` [pixel][C].
template <class T>
static void norm_gradients(const Folded<T>& f, long C, long E, long start, long from, long to, Span<T> s,
                           float* to_pixels) {
    const long wide = up(C, LANES);
    float* gradients = tile_memory.floats(STRETCH<T> * wide);
    for (long row = from; row < to; row += STRETCH<T>) {
        const long rows = least(STRETCH<T>, to - row);
        for (long deep = 0; deep < E; deep += HIDDEN) {
            const long count = least(HIDDEN, E - deep);
            for (long column = 0; column < C; column += PANEL) {
                const long width = least(PANEL, up(C - column, LANES));
                multiply(s.before + deep / KBLOCK * s.block + row * KBLOCK, s.block, rows,
                         f.expand_back + column * padded<T>(E) + deep * width, 0, count, width,
                         [&](long first, long n, long inside, long vectors, const float* sums) {
                             write_rows(gradients, deep ? gradients : nullptr, nullptr, {nullptr, 1, 0}, wide, first, n,
                                        column + inside, vectors, wide, sums);
                         });
            }
        }
        for (long i = 0; i < rows; i++) {  // LayerNorm: d = (g - mean(g) - n * mean(g * n)) / deviation
            const float* g = gradients + i * wide;
            const T* n = s.norm + (row + i) * KBLOCK;
            Vector total{}, along{};
            for (long c = 0; c < C; c += LANES) {  // beyond C both are 0
                total += load(g + c);
                along += load(g + c) * load(n + c / KBLOCK * s.block + c % KBLOCK);
            }
            const Vector mean = splat(sum(total) / static_cast<float>(C));
            const Vector share = splat(sum(along) / static_cast<float>(C));
            for (long c = 0; c < C; c += LANES) {
                const Vector value = load(g + c) - mean - load(n + c / KBLOCK * s.block + c % KBLOCK) * share;
                store_part(to_pixels + (start + row + i) * C + c, value * s.inverse[row + i], C - c);
            }
        }
    }
}

struct Range { long from, to; };

// to[i][j] += sum over `rows` of a[row][i] * b[row][j], a `turned` and b `across`; `i` and `j` start at multiples of KBLOCK,
// `width` is to's.
template <class T>
static void sum_matmul(const T* a, Range i, const T* b, Range j, long width, long block, long rows, float* to, bool fresh) {
    constexpr int STRIP = ON_TILES<T> ? KBLOCK : REGISTERS == 32 ? 8 : 4;
    constexpr long DEPTH = ON_TILES<T> ? 512 : 256;
    alignas(64) float sums[STRIP * PANEL];
    const Unit<T> unit;
    for (long deep = 0; deep < rows; deep += DEPTH)
        for (long square = i.from; square < i.to; square += KBLOCK)
            for (long column = j.from; column < j.to; column += PANEL)
                for (long row = square; row < least(i.to, square + KBLOCK); row += STRIP) {
                    multiply_transposed<STRIP>(
                        a + row / KBLOCK * block + deep * KBLOCK + row % KBLOCK * TERMS<T>,
                        b + column / KBLOCK * block + deep * KBLOCK + column % KBLOCK * TERMS<T>,
                        least(DEPTH, rows - deep), sums);
                    float* place = to + row * width;
                    write_rows(place, fresh && !deep ? nullptr : place, nullptr, {nullptr, 1, 0}, width, 0,
                               least(STRIP, i.to - row), column, 2, width, sums);
                }
}

// The sum of term(i) for every i below `count`, on four ways of which none waits for another.
template <class Term>
INLINE Vector sum_of(long count, Term term) {
    Vector parts[4]{};
    long i = 0;
    for (; i + 4 <= count; i += 4) UNROLL for (int way = 0; way < 4; way++) parts[way] += term(i + way);
    for (; i < count; i++) parts[0] += term(i);
    return parts[0] + parts[1] + (parts[2] + parts[3]);
}

INLINE Vector terms_together(const float* from) { return load(from); }
#if defined(CONVNEXT_BF16)
INLINE Vector terms_together(const Bf16* from) {  // of pairs: a bf16 value is the upper half of a float
    const __m512i both = _mm512_loadu_si512(from), upper = _mm512_and_si512(both, _mm512_set1_epi32(~0xffff));
    return reinterpret_cast<Vector>(_mm512_slli_epi32(both, 16)) + reinterpret_cast<Vector>(upper);
}
#endif

// to[c] += sum over `rows` of a span that starts at pixel `start`, in one block of columns: of the gradient times the
// drop-path factor, before `scale_gradient` rounds it.
static void sum_gradient(const float* gradient, Scale scale, long C, long start, long column_block, long rows, float* to,
                         bool fresh) {
    for (long c = column_block * KBLOCK; c < least(C, (column_block + 1) * KBLOCK); c += LANES) {
        Vector total = fresh ? Vector{} : load_part(to + c, C - c);
        for (long row = start, end; row < start + rows; row = end) {  // the rows of one image after those of another
            end = scale.factors ? least(start + rows, (row / scale.area + 1) * scale.area) : start + rows;
            const float* from = gradient + row * C + c;
            total += sum_of(end - row, [&](long i) { return load_part(from + i * C, C - c); }) * splat(scale.of(row));
        }
        store_part(to + c, total, C - c);
    }
}

// to[c] += sum over rows, in one block of columns, `across`.
template <class T>
static void sum_columns(const T* tile, long block, long column_block, long count, long rows, float* to, bool fresh) {
    for (long c = column_block * KBLOCK; c < least(count, (column_block + 1) * KBLOCK); c += LANES) {
        const T* from = tile + column_block * block + c % KBLOCK * TERMS<T>;
        const Vector total = sum_of(up(rows, TERMS<T>) / TERMS<T>,
                                    [&](long i) { return terms_together(from + i * TERMS<T> * KBLOCK); });
        store_part(to + c, fresh ? total : total + load_part(to + c, count - c), count - c);
    }
}

}  // namespace convnext

#include "gradients.h"
