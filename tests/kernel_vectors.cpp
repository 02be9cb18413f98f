// The CPU kernels beside stored answers in float64 (kernel_vectors.py), on a machine that needs no Python: another
// architecture, or an emulator of one. Prints a line a check, its error and what is allowed; ends with 1 where one is larger.
//
//     python tests/kernel_vectors.py vectors.bin
//     aarch64-linux-gnu-g++ -O1 -std=c++17 -static -w -I src/convnext/kernels/cpu tests/kernel_vectors.cpp -o driver
//     qemu-aarch64-static ./driver vectors.bin

#include "kernels.cpp"

#include <cstdio>
#include <fstream>
#include <random>
#include <string>
#include <vector>

using Floats = std::vector<float>;
static int failures = 0;

static void check(const std::string& what, double error, double allowed) {
    const bool wrong = !(error <= allowed);  // also where it is not a number
    failures += wrong;
    std::printf("%-32s %9.2e of %7.0e%s\n", what.c_str(), error, allowed, wrong ? "  WRONG" : "");
}

// The largest difference, in parts of the largest exact value.
static double error(const Floats& found, const Floats& exact) {
    double most = 0, size = 0;
    for (size_t i = 0; i < exact.size(); i++) {
        const double off = std::fabs(static_cast<double>(found[i]) - exact[i]);
        most = off <= most ? most : off;
        size = std::fmax(size, std::fabs(exact[i]));
    }
    return most / size;
}

template <class T> static std::vector<T> numbers(std::ifstream& file, long count) {
    std::vector<T> all(static_cast<size_t>(count));
    file.read(reinterpret_cast<char*>(all.data()), count * static_cast<long>(sizeof(T)));
    return all;
}

static Floats packed(const Floats& weight, long outputs, long inputs) {  // of a linear layer
    Floats to(static_cast<size_t>(up(outputs, LANES) * inputs));
    cn_pack(weight.data(), 1, inputs, inputs, outputs, to.data());
    return to;
}

static Floats filled(Floats values) {  // to whole vectors
    values.resize(static_cast<size_t>(up(static_cast<long>(values.size()), LANES)));
    return values;
}

// The block for inference: what stands before and after the matmuls is folded into them, here in float64.
static Floats inference(const std::vector<Floats>& w, const Floats& x, Map map, long E, long K, bool scaled, bool grn) {
    const long C = map.channels;
    Floats spatial(static_cast<size_t>(up(C, LANES) * K * K)), expand(w[4]), shift(w[5]), project(w[6]), bias(w[7]);
    for (long c = 0; c < C; c++)
        for (long k = 0; k < K * K; k++) spatial[(c / LANES * K * K + k) * LANES + c % LANES] = w[0][c * K * K + k];
    for (long e = 0; e < E; e++) {
        double sum = w[5][e];
        for (long c = 0; c < C; c++) {
            sum += static_cast<double>(w[4][e * C + c]) * w[3][c];
            expand[e * C + c] = static_cast<float>(static_cast<double>(w[4][e * C + c]) * w[2][c]);
        }
        shift[e] = static_cast<float>(sum);
    }
    for (long c = 0; c < C; c++) {
        double sum = w[7][c], gamma = scaled ? w[8][c] : 1;
        for (long e = 0; e < E; e++) {
            if (grn) sum += static_cast<double>(w[6][c * E + e]) * w[scaled + 9][e];
            project[c * E + e] = static_cast<float>(w[6][c * E + e] * gamma);
        }
        bias[c] = static_cast<float>(sum * gamma);
    }
    const Floats own = filled(w[1]), shifts = filled(shift), biases = filled(bias);
    const Floats responses = grn ? filled(w[scaled + 8]) : Floats{};
    const Floats left = packed(expand, E, C), right = packed(project, C, E);
    const Block<float> block{spatial.data(), own.data(),     left.data(), shifts.data(), right.data(), biases.data(),
                             nullptr,        grn ? responses.data() : nullptr, C, E, K, 1e-6f};
    const Layer layer{Kind::BLOCK, &block};
    const long stride[4] = {map.height * map.width * C, map.width * C, C, 1};
    Floats y(x.size());
    float* out = y.data();
    if (cn_network(&layer, 1, x.data(), stride, map.images, map.height, map.width, C, &out, 1)) std::abort();
    return y;
}

static void blocks(std::ifstream& file) {
    const auto head = numbers<int64_t>(file, 8);
    const Map map{head[0], head[1], head[2], head[3]};
    const long C = map.channels, E = head[4], K = head[5];
    const bool scaled = head[6], grn = head[7];
    std::vector<long> sizes{C * K * K, C, C, C, E * C, E, C * E, C};
    if (scaled) sizes.push_back(C);
    if (grn) sizes.insert(sizes.end(), {E, E});
    const Floats x = numbers<float>(file, map.floats());
    std::vector<Floats> w, exact, found;
    for (long size : sizes) w.push_back(numbers<float>(file, size));
    const Floats gradient = numbers<float>(file, map.floats()), y = numbers<float>(file, map.floats());
    sizes.insert(sizes.begin(), map.floats());
    for (long size : sizes) exact.push_back(numbers<float>(file, size)), found.emplace_back(static_cast<size_t>(size));

    const float* p[11]{};
    for (size_t i = 0; i < 8; i++) p[i] = w[i].data();
    if (scaled) p[8] = w[8].data();
    if (grn) p[9] = w[scaled + 8].data(), p[10] = w[scaled + 9].data();
    const Weights weights{p[0], p[1], p[2], p[3],  p[4],    p[5], p[6], p[7],
                          p[8], p[9], p[10], nullptr, C,    E,    K,    0,    1e-6f};
    float* to[12]{};
    for (size_t i = 0; i < 9; i++) to[i] = found[i].data();
    if (scaled) to[9] = found[9].data();
    if (grn) to[10] = found[scaled + 9].data(), to[11] = found[scaled + 10].data();
    const Gradients gradients{to[0], to[1], to[2], to[3], to[4], to[5], to[6], to[7], to[8], to[9], to[10], to[11]};
    Floats forward(y.size());
    const std::string name = std::to_string(C) + " channels, kernel " + std::to_string(K);
    if (cn_forward(&weights, x.data(), forward.data(), map.images, map.height, map.width, 1)) std::abort();
    check(name + ", training", error(forward, y), 5e-6);
    check(name + ", inference", error(inference(w, x, map, E, K, scaled, grn), y), 5e-6);
    if (cn_backward(&weights, x.data(), gradient.data(), &gradients, map.images, map.height, map.width, 1)) std::abort();
    check(name + ", by x", error(found[0], exact[0]), 1e-5);
    double worst = 0;
    for (size_t i = 1; i < found.size(); i++) worst = std::fmax(worst, error(found[i], exact[i]));
    check(name + ", by the weights", worst, 5e-5);
}

static void gelus() {
    Floats x, value, derivative;
    for (long i = -90000; i <= 90000; i++) x.push_back(static_cast<float>(i) / 10000);
    x.insert(x.end(), {-1e4f, -100, 100, 1e4f});
    value = derivative = x;
    cn_gelu(x.data(), value.data(), derivative.data(), static_cast<long>(x.size()));
    double wrong = 0, steep = 0;
    for (size_t i = 0; i < x.size(); i++) {
        const double a = x[i], phi = 0.5 * std::erfc(-a * std::sqrt(0.5));
        const double slope = phi + a * std::exp(-0.5 * a * a) * 0.3989422804014327;
        wrong = std::fmax(wrong, std::fabs(value[i] - a * phi) / std::fmax(1, std::fabs(a * phi)));
        steep = std::fmax(steep, std::fabs(derivative[i] - slope));
    }
    check("gelu", wrong, 1e-6);
    check("its derivative", steep, 3e-6);
}

static void bytes(long rows, long depth, long columns) {
    std::mt19937 random(1);
    const long blocks = up(depth, BBLOCK), wide = up(columns, LANES), deep = padded<uint8_t>(depth);
    std::vector<uint8_t> tile(static_cast<size_t>((rows + BLOCK_ROWS<uint8_t>) * blocks));  // rows behind may be read
    std::vector<int8_t> b(static_cast<size_t>(deep * wide));
    std::vector<int32_t> found(static_cast<size_t>(rows * columns)), exact(found.size());
    for (long k = 0; k < depth; k++) {
        std::vector<int> left, right;
        for (long i = 0; i < rows; i++)
            left.push_back(tile[k / BBLOCK * rows * BBLOCK + i * BBLOCK + k % BBLOCK] = static_cast<uint8_t>(random() % 256));
        for (long c = 0; c < columns; c++) {
            const long panel = c / PANEL * PANEL, width = least(PANEL, wide - panel);
            int8_t& place = b[panel * deep + (k / TUPLE * width + c - panel) * TUPLE + k % TUPLE];
            right.push_back(place = static_cast<int8_t>(random() % 256));
        }
        for (long i = 0; i < rows; i++)
            for (long c = 0; c < columns; c++) exact[i * columns + c] += left[i] * right[c];
    }
    cn_int8_matmul(tile.data(), b.data(), rows, depth, columns, found.data());
    check("bytes, " + std::to_string(depth) + " x " + std::to_string(columns), found == exact ? 0 : 1, 0);
}

int main(int count, char** words) {
    std::ifstream file(count > 1 ? words[1] : "", std::ios::binary);
    if (!file) return std::puts("usage: driver FILE, as kernel_vectors.py writes it"), 2;
    std::printf("%ld floats in a vector\n", cn_lanes());
    for (auto left = numbers<int64_t>(file, 1)[0]; left; left--) blocks(file);
    gelus();
    bytes(13, 40, 56), bytes(3, 7, 5), bytes(29, 96, 33);
    return failures > 0;
}
