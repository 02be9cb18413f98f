// Forward of a block of ConvNeXt V2: its global response normalisation needs the energy of every hidden value over the whole
// image, so the hidden values of a few images are kept between the two matmuls.
#pragma once

#include "block.h"

namespace convnext {

constexpr float SMALLEST = 1e-6f;  // added to the mean energy of an image

// factors[image][column] = 1 + grn[column] * energy / mean energy, energy: the norm over the image's pixels.
template <class T>
static void grn_factors(const T* hidden, const float* grn, long images, long area, long size, long columns,
                      long real, float* factors, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (long column = 0; column < images * columns; column += KBLOCK) {
        const long image = column / columns, block = column % columns;
        for (long v = 0; v < KBLOCK; v += LANES) {
            Vector squares{};
            for (long pixel = image * area; pixel < (image + 1) * area; pixel++) {
                const T* tile = hidden + pixel / size * size * columns + block * size;
                const Vector value = load(tile + pixel % size * KBLOCK + v);
                squares += value * value;
            }
            store(factors + column + v, squares);
        }
    }
    for (long image = 0; image < images; image++) {
        float* own = factors + image * columns;
        double total = 0;
        for (long i = 0; i < real; i++) total += own[i] = std::sqrt(own[i]);
        const float mean = static_cast<float>(total / static_cast<double>(real)) + SMALLEST;
        for (long i = 0; i < real; i++) own[i] = 1 + grn[i] * (own[i] / mean);
    }
}

template <class T>
void block_v2(const Block<T>& p, const float* x, float* out, Map map, int threads) {
    const long area = map.height * map.width, C = p.channels, columns = up(p.hidden, KBLOCK);
    const long most = tile_pixels<T>(C, map.pixels() / threads);
    const long group = least(map.images, area < most * threads ? most * threads / area : 1);  // images at once
    for (long done = 0; done < map.images; done += group) {
        const Map part{least(group, map.images - done), map.height, map.width, C};
        const Tiles tiles(part.pixels(), most, threads, WHOLE_ROWS<T>);
        const long size = tiles.size, a_block = size * KBLOCK;
        const float* in = x + done * area * C;
        float* to = out + done * area * C;
        float* factors = shared_memory.floats(part.images * columns + tiles.count * size * columns / TERMS<T>);
        T* hidden = reinterpret_cast<T*>(factors + part.images * columns);
        deal(tiles.count, threads, [&](long t) {
            const long first = t * size, rows = tiles.rows(t);
            T* tile = tile_memory.values<T>(size * up(C, KBLOCK));
            T* mine = hidden + first * columns;
            depthwise_norm(in, part, p.kernel, p.spatial, p.spatial_bias, p.epsilon, first, first + rows, tile, a_block,
                           nullptr);
            expand_rows(p, tile, a_block, rows, 0, p.hidden, mine);
        });
        grn_factors(hidden, p.grn, part.images, area, size, columns, p.hidden, factors, threads);
        deal(tiles.count, threads, [&](long t) {
            const long first = t * size, rows = tiles.rows(t);
            T* mine = hidden + first * columns;
            for (long block = 0; block < columns; block += KBLOCK)
                for (long row = 0; row < rows; row++) {
                    const float* factor = factors + (first + row) / area * columns + block;
                    T* value = mine + block * size + row * KBLOCK;
                    for (long v = 0; v < KBLOCK; v += LANES) store(value + v, load(value + v) * load(factor + v));
                }
            project_rows(p, mine, a_block, rows, 0, p.hidden,
                         [&](long row, long n, long column, long vectors, const float* sums) {
                             write_rows(to + first * C, in + first * C, p.project_bias, {p.scale, area, done * area + first},
                                        C, row, n, column, vectors, C, sums);
                         },
                         static_cast<const T*>(nullptr));
        });
    }
}

template <class T>
void block(const Block<T>& p, const float* x, float* out, Map map, int threads) {
    p.grn ? block_v2(p, x, out, map, threads) : block_v1(p, x, out, map, threads);
}

}  // namespace convnext
