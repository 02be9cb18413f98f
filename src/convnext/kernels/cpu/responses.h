// The way back through V2's global response normalization: y = h (1 + grn N) + grn_bias, with h = gelu(z), N = G / m,
// G the norm of a hidden channel over the pixels of its image and m the mean of G over the channels plus SMALLEST.
//
// With dy = d loss / d y and, of each image, A = sum over pixels of dy h:
//   d grn = sum over images of N A,   d G = grn A / m - S / (m m E) with S = sum over channels of grn A G,
//   d h = dy (1 + grn N) + h d G / G
// So an image is looked at twice: first for G and A, then for y and d z. Between the two its z and dy are kept, which costs
// less than computing both matmuls again; spans are whole images.
#pragma once

#include "training.h"

namespace convnext {

static long whole_images(Map map, long pixels) {
    const long area = map.height * map.width;
    return area * least(map.images, area < pixels ? pixels / area : 1);
}

struct Responses {  // of the images of a span: what each thread adds up, and what follows; null in a block of V1
    float *sums, *factors;  // [thread][image][squares of h, dy h][column], [image][1 + grn N, d G / G, N A][column]
    long columns, images;

    Responses(const Weights& p, Map map, long pixels, int threads, Arena& arena)
        : sums(nullptr), factors(nullptr), columns(up(p.hidden, KBLOCK)), images(pixels / (map.height * map.width)) {
        if (!p.grn) return;
        sums = arena.take(threads * images * 2 * columns);
        factors = arena.take(images * 3 * columns);
    }
    float* of_thread(long thread) const { return sums + thread * images * 2 * columns; }
    float* of_image(long image) const { return factors + image * 3 * columns; }
};

// Rows [from, to) of a span: z and dy into the tiles, and this thread's sums.
template <class T>
static void response_sums(const Folded<T>& f, long C, long E, Range rows, long area, Span<T> s, const Responses& r,
                          float* mine) {
    std::memset(mine, 0, static_cast<size_t>(r.images * 2 * r.columns) * 4);
    const Pieces values(GELU.value);
    hidden_blocks(f, C, E, rows.from, rows.to, s,
                  [&](long row, long n, long column, long vectors, const float* sums, const float* back) {
                      const long place = column / KBLOCK * s.block + row * KBLOCK + column % KBLOCK;
                      for (long j = 0; j < vectors; j++) {
                          const Vector bias = load(f.expand_bias + column + j * LANES);
                          for (long i = 0; i < n;) {  // the rows of one image after those of another
                              const long image = (row + i) / area, end = least(n, (image + 1) * area - row);
                              float* total = mine + image * 2 * r.columns + column + j * LANES;
                              Vector squares = load(total), along = load(total + r.columns);
                              for (; i < end; i++) {
                                  const long at = (i * vectors + j) * LANES, put = place + i * KBLOCK + j * LANES;
                                  const Vector z = load(sums + at) + bias, dy = load(back + at), h = gelu(z, values);
                                  store(s.hidden + put, z);
                                  store(s.before + put, dy);
                                  squares += h * h;
                                  along += h * dy;
                              }
                              store(total, squares);
                              store(total + r.columns, along);
                          }
                      }
                      clear_half(s.hidden + place, n, vectors);
                      clear_half(s.before + place, n, vectors);
                  });
}

// The factors of one image, from all threads' sums, always in the same order.
static void response_factors(const float* grn, long E, const Responses& r, long image, long team) {
    float *kept = r.of_image(image), *slope = kept + r.columns, *product = slope + r.columns;
    double energy = 0, shared = 0;
    for (long e = 0; e < r.columns; e++) {
        float squares = 0, along = 0;
        for (long t = 0; t < team; t++) {
            const float* from = r.of_thread(t) + image * 2 * r.columns + e;
            squares += from[0];
            along += from[r.columns];
        }
        kept[e] = std::sqrt(squares);  // G
        slope[e] = along;              // A
        if (e >= E) continue;
        energy += kept[e];
        shared += static_cast<double>(grn[e]) * along * kept[e];
    }
    const float mean = static_cast<float>(energy / static_cast<double>(E)) + SMALLEST;
    const float spread = static_cast<float>(shared / static_cast<double>(E)) / mean / mean;
    for (long e = 0; e < r.columns; e++) {
        const float weight = e < E ? grn[e] : 0, G = kept[e], A = slope[e];
        kept[e] = 1 + weight * (G / mean);
        slope[e] = G > 0 && e < E ? (weight * A / mean - spread) / G : 0;
        product[e] = G / mean * A;
    }
}

// Rows [from, to): y in place of z, and the loss's gradient by z in place of dy.
template <class T>
static void respond(long E, Range rows, long area, Span<T> s, const Responses& r) {
    const Pieces values(GELU.value);
    const Pieces derivatives(GELU.derivative);
    for (long column = 0; column < E; column += LANES)
        for (long row = rows.from; row < rows.to; row++) {
            const float* factors = r.of_image(row / area) + column;
            const long put = column / KBLOCK * s.block + row * KBLOCK + column % KBLOCK;
            Vector steep;
            const Vector h = gelu_and_derivative(load(s.hidden + put), values, derivatives, steep), kept = load(factors);
            store(s.before + put, (load(s.before + put) * kept + h * load(factors + r.columns)) * steep);
            store(s.hidden + put, h * kept);
        }
}

// What `hidden_gradients` does for V1, of one span; on all threads, each with its `mine` of `rows` rows.
template <class T>
static void response_gradients(const Weights& p, const Folded<T>& f, Span<T> s, const Responses& r, const Gradients& to,
                               Range mine, long rows, long area, bool fresh, long me, long team) {
    const long E = p.hidden, images = rows / area;
    response_sums(f, p.channels, E, mine, area, s, r, r.of_thread(me));
#pragma omp barrier
    for (long image = images * me / team; image < images * (me + 1) / team; image++)
        response_factors(p.grn, E, r, image, team);
#pragma omp barrier
    for (long e = E * me / team; e < E * (me + 1) / team; e++) {
        float total = fresh ? 0 : to.grn[e];
        for (long image = 0; image < images; image++) total += r.of_image(image)[2 * r.columns + e];
        to.grn[e] = total;
    }
    respond(E, mine, area, s, r);
}

}  // namespace convnext
