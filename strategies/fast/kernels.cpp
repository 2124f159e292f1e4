// The convolutions that leave a state of a cell, image by image, and the activations into a node of a recurrent cell, piece by piece: what is
// computed stays in a core's cache from one operation to the next. kernels.py builds this file, compiled.py and recurrent.py call it; the
// same is computed without it in convolutions.py and recurrent.py.
//
// Images are (height, width, channels) and y is (pixels, groups, channels), for the edges ("groups") that have the same operation. Every
// thread has images of its own. What is summed over images is summed in double precision, over the threads in their order: the same number
// of threads gives the same result.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

constexpr long TILE = 8;  // pixels computed at a time, so that a matrix or kernel is read once for all of them

// Channels go through in blocks as wide as the widest vector; what is left over in narrower ones.
template <typename T, int BYTES>
struct Block {
    typedef T type __attribute__((vector_size(BYTES)));
    static constexpr long lanes = BYTES / sizeof(T);
};

template <typename T>
struct Block<T, 0> {
    typedef T type;
    static constexpr long lanes = 1;
};

// Calls body(block, channel) for blocks that cover the channels from 0.
template <typename T, typename Body>
inline void blocks(long channels, Body body) {
    long c = 0;
    for (; c + Block<T, 64>::lanes <= channels; c += Block<T, 64>::lanes) body(Block<T, 64>(), c);
    for (; c + Block<T, 32>::lanes <= channels; c += Block<T, 32>::lanes) body(Block<T, 32>(), c);
    for (; c + Block<T, 16>::lanes <= channels; c += Block<T, 16>::lanes) body(Block<T, 16>(), c);
    for (; c < channels; c++) body(Block<T, 0>(), c);
}

// Copies become moves of a register, from and to any address.
template <typename V, typename T>
inline V load(const T* at) {
    V value;
    std::memcpy(&value, at, sizeof(V));
    return value;
}

template <typename V, typename T>
inline void store(T* at, V value) {
    std::memcpy(at, &value, sizeof(V));
}

// Memory of a thread, kept from call to call.
template <typename T>
T* scratch(int which, size_t count) {
    static thread_local std::vector<T> kept[4];
    if (kept[which].size() < count) kept[which].resize(count);
    return kept[which].data();
}

struct Geometry {
    long batch, height, width, channels, groups, size, stride, dilation;

    long padding() const { return dilation * (size - 1) / 2; }
    long rows() const { return (height - 1) / stride + 1; }
    long columns() const { return (width - 1) / stride + 1; }
    long pixels() const { return rows() * columns(); }
    long padded_width() const { return width + 2 * padding(); }
    size_t padded() const { return (height + 2 * padding()) * padded_width() * channels; }
};

// Matrices ------------------------------------------------------------------------------------------------------------------------------

// sums[j] += a[j] · column block of matrix, for COUNT pixels
template <long COUNT, typename V, typename T>
inline void multiply(V* sums, const T* a, long step, const T* matrix, long channels) {
    for (long i = 0; i < channels; i++) {
        const V row = load<V>(matrix + i * channels);
#pragma GCC unroll 8
        for (long j = 0; j < COUNT; j++) sums[j] += a[j * step + i] * row;
    }
}

// One or two products of pixels with matrices, and what is added to them.
template <typename T>
struct Affine {
    const T* a;
    long a_step;
    const T* a_matrix;
    const T* b;
    long b_step;
    const T* b_matrix;
    const T* bias;
};

template <long COUNT, typename V, typename T, typename Write>
inline void affine_tile(const Affine<T>& map, long pixel, long channels, long c, Write write) {
    V sums[COUNT];
    for (long j = 0; j < COUNT; j++) sums[j] = map.bias ? load<V>(map.bias + c) : V{};
    if (map.a) multiply<COUNT>(sums, map.a + pixel * map.a_step, map.a_step, map.a_matrix + c, channels);
    if (map.b) multiply<COUNT>(sums, map.b + pixel * map.b_step, map.b_step, map.b_matrix + c, channels);
    for (long j = 0; j < COUNT; j++) write(pixel + j, sums[j]);
}

// write(pixel, channel, values) for all pixels
template <typename T, typename Write>
inline void affine(const Affine<T>& map, long pixels, long channels, Write write) {
    blocks<T>(channels, [&](auto block, long c) {
        typedef typename decltype(block)::type V;
        const auto here = [&](long pixel, V values) { write(pixel, c, values); };
        long pixel = 0;
        for (; pixel + TILE <= pixels; pixel += TILE) affine_tile<TILE, V>(map, pixel, channels, c, here);
        for (; pixel < pixels; pixel++) affine_tile<1, V>(map, pixel, channels, c, here);
    });
}

// Σ a·bᵀ over the pixels, in COUNT rows of the result from row i, added to total
template <long COUNT, typename V, typename T>
inline void outer_rows(const T* a, long a_step, const T* b, long b_step, long pixels, long channels, long i, long c, double* total) {
    V sums[COUNT];
    for (long j = 0; j < COUNT; j++) sums[j] = V{};
    for (long pixel = 0; pixel < pixels; pixel++) {
        const V right = load<V>(b + pixel * b_step + c);
        const T* left = a + pixel * a_step + i;
#pragma GCC unroll 16
        for (long j = 0; j < COUNT; j++) sums[j] += left[j] * right;
    }
    const T* values = reinterpret_cast<const T*>(sums);
    const long lanes = sizeof(V) / sizeof(T);
    for (long j = 0; j < COUNT; j++)
        for (long lane = 0; lane < lanes; lane++) total[(i + j) * channels + c + lane] += values[j * lanes + lane];
}

template <typename T>
void outer(const T* a, long a_step, const T* b, long b_step, long pixels, long channels, double* total) {
    blocks<T>(channels, [&](auto block, long c) {
        typedef typename decltype(block)::type V;
        long i = 0;
        for (; i + 16 <= channels; i += 16) outer_rows<16, V>(a, a_step, b, b_step, pixels, channels, i, c, total);
        for (; i + 4 <= channels; i += 4) outer_rows<4, V>(a, a_step, b, b_step, pixels, channels, i, c, total);
        for (; i < channels; i++) outer_rows<1, V>(a, a_step, b, b_step, pixels, channels, i, c, total);
    });
}

template <typename T>
void sum(const T* a, long step, long pixels, long channels, double* total) {
    blocks<T>(channels, [&](auto block, long c) {
        typedef typename decltype(block)::type V;
        V sums = V{};
        for (long pixel = 0; pixel < pixels; pixel++) sums += load<V>(a + pixel * step + c);
        const T* values = reinterpret_cast<const T*>(&sums);
        for (long lane = 0; lane < (long)(sizeof(V) / sizeof(T)); lane++) total[c + lane] += values[lane];
    });
}

// Depthwise convolutions ------------------------------------------------------------------------------------------------------------------

// (channels, size, size) → (size, size, channels), the other way round if flipped
template <typename T>
void arrange(const T* kernel, const Geometry& g, bool flipped, T* out) {
    const long taps = g.size * g.size;
    for (long tap = 0; tap < taps; tap++)
        for (long c = 0; c < g.channels; c++) out[tap * g.channels + c] = kernel[c * taps + (flipped ? taps - 1 - tap : tap)];
}

template <long SIZE, long COUNT, typename V, typename T>
inline void convolve_tile(const T* from, long step, long row_step, const T* kernel, const Geometry& g, V* sums) {
    for (long j = 0; j < COUNT; j++) sums[j] = V{};
    for (long y = 0; y < SIZE; y++)
        for (long x = 0; x < SIZE; x++) {
            const V weight = load<V>(kernel + (y * SIZE + x) * g.channels);
            const T* at = from + y * row_step + x * g.dilation * g.channels;
#pragma GCC unroll 8
            for (long j = 0; j < COUNT; j++) sums[j] += weight * load<V>(at + j * step);
        }
}

// From a padded image: write(pixel, channel, values) for all pixels of the result, which has rows × columns of them.
template <long SIZE, typename T, typename Write>
void convolve(const T* padded, const T* kernel, const Geometry& g, long rows, long columns, Write write) {
    const long line = g.padded_width() * g.channels, step = g.stride * g.channels, row_step = g.dilation * line;
    for (long row = 0; row < rows; row++)
        blocks<T>(g.channels, [&](auto block, long c) {
            typedef typename decltype(block)::type V;
            const T* from = padded + row * g.stride * line + c;
            long column = 0;
            for (; column + TILE <= columns; column += TILE) {
                V sums[TILE];
                convolve_tile<SIZE, TILE>(from + column * step, step, row_step, kernel + c, g, sums);
                for (long j = 0; j < TILE; j++) write(row * columns + column + j, c, sums[j]);
            }
            for (; column < columns; column++) {
                V one;
                convolve_tile<SIZE, 1>(from + column * step, step, row_step, kernel + c, g, &one);
                write(row * columns + column, c, one);
            }
        });
}

// What comes back to the padded image through strides: adds to it.
template <long SIZE, typename T>
void scatter(const T* gradient, const T* kernel, const Geometry& g, T* padded) {
    const long line = g.padded_width() * g.channels;
    blocks<T>(g.channels, [&](auto block, long c) {
        typedef typename decltype(block)::type V;
        for (long row = 0; row < g.rows(); row++)
            for (long column = 0; column < g.columns(); column++) {
                const V value = load<V>(gradient + (row * g.columns() + column) * g.channels + c);
                T* to = padded + row * g.stride * line + column * g.stride * g.channels + c;
                for (long y = 0; y < SIZE; y++)
                    for (long x = 0; x < SIZE; x++) {
                        T* at = to + y * g.dilation * line + x * g.dilation * g.channels;
                        store<V>(at, load<V>(at) + value * load<V>(kernel + (y * SIZE + x) * g.channels + c));
                    }
            }
    });
}

#ifdef __AVX512F__
constexpr bool MANY_REGISTERS = true;
#else
constexpr bool MANY_REGISTERS = false;
#endif

// The kernel's gradient from a padded image and the gradient of the result, whose lines are gradient_line apart: adds to total, (size, size,
// channels). LINES of the kernel are summed at a time, as many as there are registers for.
template <long SIZE, typename T>
void kernel_gradient(const T* gradient, long gradient_line, const T* padded, const Geometry& g, double* total) {
    constexpr long LINES = MANY_REGISTERS && SIZE <= 5 ? SIZE : SIZE == 3 ? 3 : 1;
    const long line = g.padded_width() * g.channels;
    blocks<T>(g.channels, [&](auto block, long c) {
        typedef typename decltype(block)::type V;
        for (long first = 0; first < SIZE; first += LINES) {
            V sums[LINES * SIZE];
            for (long tap = 0; tap < LINES * SIZE; tap++) sums[tap] = V{};
            for (long row = 0; row < g.rows(); row++)
                for (long column = 0; column < g.columns(); column++) {
                    const V value = load<V>(gradient + row * gradient_line + column * g.channels + c);
                    const T* from = padded + (row * g.stride + first * g.dilation) * line + column * g.stride * g.channels + c;
#pragma GCC unroll 7
                    for (long y = 0; y < LINES; y++)
#pragma GCC unroll 7
                        for (long x = 0; x < SIZE; x++)
                            sums[y * SIZE + x] += value * load<V>(from + y * g.dilation * line + x * g.dilation * g.channels);
                }
            const T* values = reinterpret_cast<const T*>(sums);
            const long lanes = sizeof(V) / sizeof(T);
            for (long tap = 0; tap < LINES * SIZE; tap++)
                for (long lane = 0; lane < lanes; lane++)
                    total[(first * SIZE + tap) * g.channels + c + lane] += values[tap * lanes + lane];
        }
    });
}

// Padded images ---------------------------------------------------------------------------------------------------------------------------

template <typename T>
void relu_padded(const T* image, const Geometry& g, T* padded) {
    std::memset(padded, 0, g.padded() * sizeof(T));
    const long p = g.padding();
    for (long row = 0; row < g.height; row++) {
        const T* from = image + row * g.width * g.channels;
        T* to = padded + ((row + p) * g.padded_width() + p) * g.channels;
        for (long i = 0; i < g.width * g.channels; i++) to[i] = from[i] < 0 ? T(0) : from[i];  // not a number stays what it is
    }
}

// Where a pixel of the image is in the padded one.
inline long place(const Geometry& g, long pixel) {
    const long p = g.padding();
    return ((pixel / g.width + p) * g.padded_width() + pixel % g.width + p) * g.channels;
}

template <bool RELU, typename T>
void affine_padded(const Affine<T>& map, const Geometry& g, T* padded) {
    std::memset(padded, 0, g.padded() * sizeof(T));
    affine(map, g.height * g.width, g.channels, [&](long pixel, long c, auto values) {
        typedef decltype(values) V;
        T* at = padded + place(g, pixel) + c;
        if constexpr (RELU)
            store<V>(at, values < V{} ? V{} : values);
        else
            store<V>(at, values);
    });
}

// Sums over images ------------------------------------------------------------------------------------------------------------------------

// body(image, sums) for all images; each thread's sums are added to total.
template <typename Body>
void over_images(long batch, int threads, size_t count, double* total, Body body) {
    std::vector<double> sums(count * threads, 0.0);
#pragma omp parallel num_threads(threads)
    {
        double* mine = sums.data() + count * omp_get_thread_num();
#pragma omp for schedule(static)
        for (long image = 0; image < batch; image++) body(image, mine);
    }
    for (int thread = 0; thread < threads; thread++)
        for (size_t i = 0; i < count; i++) total[i] += sums[count * thread + i];
}

// The kernels -----------------------------------------------------------------------------------------------------------------------------

// Depthwise convolutions of relu(x), or of relu(y·matrix + bias), and the moments of what they give: (groups, 1 + channels, channels), Σ y
// above Σ yᵀy.
template <long SIZE, typename T>
void forward(const Geometry& g, const T* x, const T* y, const T* matrix, const T* bias, const T* kernels, T* out, double* moments, int threads) {
    const long c = g.channels, all = g.groups * c, taps = SIZE * SIZE;
    std::vector<T> arranged(g.groups * taps * c);
    for (long k = 0; k < g.groups; k++) arrange(kernels + k * taps * c, g, false, arranged.data() + k * taps * c);
    const size_t count = moments ? g.groups * (1 + c) * c : 0;
    over_images(g.batch, threads, count, moments, [&](long image, double* sums) {
        T* padded = scratch<T>(0, g.padded());
        if (x) relu_padded(x + image * g.height * g.width * c, g, padded);
        for (long k = 0; k < g.groups; k++) {
            if (!x)
                affine_padded<true>(
                    Affine<T>{y + image * g.pixels() * all + k * c, all, matrix + k * c * c, nullptr, 0, nullptr, bias + k * c}, g, padded);
            T* to = out + image * g.pixels() * all + k * c;
            convolve<SIZE>(padded, arranged.data() + k * taps * c, g, g.rows(), g.columns(), [&](long pixel, long channel, auto values) {
                store(to + pixel * all + channel, values);
            });
            if (moments) {
                double* here = sums + k * (1 + c) * c;
                sum(to, all, g.pixels(), c, here);
                outer(to, all, to, all, g.pixels(), c, here + c);
            }
        }
    });
}

// The gradient of what the depthwise convolutions gave, y: y·through + gradient·direct + constant; "through" and "constant" may be missing.
template <typename T>
struct Backward {
    const T* y;
    const T* gradient;
    const long* offsets;  // of each group's gradient
    long step;            // from pixel to pixel of the gradient
    const T* through;
    const T* direct;
    const T* constant;

    Affine<T> map(const Geometry& g, long image, long k) const {
        const long c = g.channels, all = g.groups * c, first = image * g.pixels();
        return Affine<T>{
            through ? y + first * all + k * c : nullptr,
            all,
            through ? through + k * c * c : nullptr,
            gradient + offsets[k] + first * step,
            step,
            direct + k * c * c,
            constant ? constant + k * c : nullptr,
        };
    }
};

// Back through the second stage, to what the first one's batch norm gave, z = relu(inner·matrix + bias): its gradient, (pixels, groups,
// channels), and sums: (groups, 1 + channels, channels), Σ of it above Σ innerᵀ·it; then, if wanted, kernels' gradients (groups, size, size,
// channels).
template <long SIZE, typename T>
void between(
    const Geometry& g, const Backward<T>& of, const T* inner, const T* matrix, const T* bias, const T* kernels, T* out, double* total,
    bool wanted, int threads) {
    const long c = g.channels, all = g.groups * c, taps = SIZE * SIZE;
    std::vector<T> flipped(g.groups * taps * c);
    for (long k = 0; k < g.groups; k++) arrange(kernels + k * taps * c, g, true, flipped.data() + k * taps * c);
    const size_t above = g.groups * (1 + c) * c, count = above + (wanted ? g.groups * taps * c : 0);
    over_images(g.batch, threads, count, total, [&](long image, double* sums) {
        T* z = scratch<T>(0, g.padded());
        T* outer_gradient = scratch<T>(1, g.padded());
        for (long k = 0; k < g.groups; k++) {
            const T* read = inner + image * g.pixels() * all + k * c;
            affine_padded<true>(Affine<T>{read, all, matrix + k * c * c, nullptr, 0, nullptr, bias + k * c}, g, z);
            affine_padded<false>(of.map(g, image, k), g, outer_gradient);
            if (wanted)
                kernel_gradient<SIZE>(outer_gradient + place(g, 0), g.padded_width() * c, z, g, sums + above + k * taps * c);
            T* to = out + image * g.pixels() * all + k * c;
            convolve<SIZE>(outer_gradient, flipped.data() + k * taps * c, g, g.height, g.width, [&](long pixel, long channel, auto values) {
                typedef decltype(values) V;
                store<V>(to + pixel * all + channel, load<V>(z + place(g, pixel) + channel) <= V{} ? V{} : values);
            });
            double* here = sums + k * (1 + c) * c;
            sum(to, all, g.pixels(), c, here);
            outer(read, all, to, all, g.pixels(), c, here + c);
        }
    });
}

// Back through the first stage: adds to the gradient of x, and, if wanted, to those of the kernels, (groups, size, size, channels).
template <long SIZE, typename T>
void to_state(const Geometry& g, const Backward<T>& of, const T* x, const T* kernels, T* of_x, double* total, bool wanted, int threads) {
    const long c = g.channels, taps = SIZE * SIZE;
    const bool direct = g.stride == 1;
    std::vector<T> arranged(g.groups * taps * c);
    for (long k = 0; k < g.groups; k++) arrange(kernels + k * taps * c, g, direct, arranged.data() + k * taps * c);
    over_images(g.batch, threads, wanted ? g.groups * taps * c : 0, total, [&](long image, double* sums) {
        const T* from = x + image * g.height * g.width * c;
        T* to = of_x + image * g.height * g.width * c;
        T* padded = scratch<T>(0, g.padded());
        T* gradient = scratch<T>(1, direct ? g.padded() : g.pixels() * c);
        T* back = scratch<T>(2, g.padded());
        if (wanted) relu_padded(from, g, padded);
        if (!direct) std::memset(back, 0, g.padded() * sizeof(T));
        for (long k = 0; k < g.groups; k++) {
            const T* kernel = arranged.data() + k * taps * c;
            const Affine<T> map = of.map(g, image, k);
            if (direct) {
                affine_padded<false>(map, g, gradient);
                convolve<SIZE>(gradient, kernel, g, g.height, g.width, [&](long pixel, long channel, auto values) {
                    typedef decltype(values) V;
                    const long at = pixel * c + channel;
                    store<V>(to + at, load<V>(to + at) + (load<V>(from + at) <= V{} ? V{} : values));
                });
            } else {
                affine(map, g.pixels(), c, [&](long pixel, long channel, auto values) { store(gradient + pixel * c + channel, values); });
                scatter<SIZE>(gradient, kernel, g, back);
            }
            if (wanted) {
                const T* start = direct ? gradient + place(g, 0) : gradient;
                kernel_gradient<SIZE>(start, (direct ? g.padded_width() : g.columns()) * c, padded, g, sums + k * taps * c);
            }
        }
        if (!direct)
            for (long pixel = 0; pixel < g.height * g.width; pixel++)
                for (long i = 0; i < c; i++) to[pixel * c + i] += from[pixel * c + i] <= 0 ? T(0) : back[place(g, pixel) + i];
    });
}

// The groups of one operation: what its depthwise convolutions gave, matrices, and where the nodes begin that the groups lead to.
template <typename T>
struct Part {
    long groups;
    const T* y;
    const T* matrix;
    const long* offsets;
};

// Adds y·matrix to the nodes, (pixels, channels) each.
template <typename T>
void add(const Geometry& g, const Part<T>* parts, long count, T* nodes, int threads) {
    const long c = g.channels, pixels = g.pixels();
    over_images(g.batch, threads, 0, nullptr, [&](long image, double*) {
        for (const Part<T>* part = parts; part < parts + count; part++)
            for (long k = 0; k < part->groups; k++) {
                const long all = part->groups * c;
                T* target = nodes + part->offsets[k] + image * pixels * c;
                const T* y = part->y + image * pixels * all + k * c;
                const Affine<T> map{y, all, part->matrix + k * c * c, nullptr, 0, nullptr, nullptr};
                affine(map, pixels, c, [&](long pixel, long channel, auto values) {
                    typedef decltype(values) V;
                    T* at = target + pixel * c + channel;
                    store<V>(at, load<V>(at) + values);
                });
            }
    });
}

// Σ yᵀ·gradient for all groups, one part after the other: (groups, channels, channels). The gradient is that of the nodes.
template <typename T>
void cross(const Geometry& g, const Part<T>* parts, long count, const T* gradient, double* total, int threads) {
    const long c = g.channels, pixels = g.pixels();
    long groups = 0;
    for (long i = 0; i < count; i++) groups += parts[i].groups;
    over_images(g.batch, threads, groups * c * c, total, [&](long image, double* sums) {
        for (const Part<T>* part = parts; part < parts + count; part++)
            for (long k = 0; k < part->groups; k++, sums += c * c) {
                const long all = part->groups * c;
                outer(part->y + image * pixels * all + k * c, all, gradient + part->offsets[k] + image * pixels * c, c, pixels, c, sums);
            }
    });
}

// Activations -----------------------------------------------------------------------------------------------------------------------------

// exp, for arguments within a range in which the square of the result is finite, too. Not a number stays what it is.
inline double exponential(double x) { return std::exp(std::min(std::max(x, -340.0), 340.0)); }
inline float exponential(float x) { return std::exp(x < -43 ? -43 : x > 43 ? 43 : x); }

template <typename V>
inline V exponential(V x) {
    if constexpr (sizeof(x[0]) == 8) {
        for (size_t lane = 0; lane < sizeof(V) / 8; lane++) x[lane] = exponential(x[lane]);
        return x;
    } else {
        typedef int I __attribute__((vector_size(sizeof(V))));
        x = x < -43.0f ? V{} - 43.0f : x;
        x = x > 43.0f ? V{} + 43.0f : x;
        // x = n·log 2 + r with |r| ≤ log(2) / 2: the sum with 1.5·2²³ is rounded to a whole number in its last bits.
        const V shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
        const V r = x - n * 0.693359375f + n * 2.12194440e-4f;
        V p = V{} + 1.98756915e-4f;
        p = p * r + 1.39819995e-3f;
        p = p * r + 8.33345191e-3f;
        p = p * r + 4.16657959e-2f;
        p = p * r + 1.66666655e-1f;
        p = p * r + 5.00000012e-1f;
        p = p * r * r + r + 1.0f;
        const I exponent = (I)shifted << 23;  // whatever is above the whole number is shifted out
        const I bits = (I)p + exponent;
        return x == x ? (V)bits : x;
    }
}

template <typename V>
struct Activated {
    V tanh, relu, sigmoid, mixed;

    template <typename T>
    Activated(V x, const T* weights) {
        const V e = exponential(-x);
        sigmoid = 1 / (1 + e);
        tanh = 2 / (1 + e * e) - 1;
        relu = x < V{} ? V{} : x;
        mixed = weights[0] * tanh + weights[1] * relu + weights[2] * sigmoid + weights[3] * x;
    }
};

constexpr long PIECE = 1024;

// body(first, last) for pieces of the numbers.
template <typename Body>
void over_pieces(long count, int threads, Body body) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long first = 0; first < count; first += PIECE) body(first, std::min(first + PIECE, count));
}

// total = Σ over edges of q·s + σ(gate)·(Σ_f p_f f(update) − q·s), where q is the sum of an edge's four weights p: of tanh, relu, sigmoid and
// identity. Gates are replaced by σ(gate).
template <typename T>
void activate(long edges, long count, const T* const* states, T* gates, const T* updates, const T* weights, T* total, int threads) {
    over_pieces(count, threads, [&](long first, long last) {
        std::fill(total + first, total + last, T(0));
        for (long edge = 0; edge < edges; edge++) {
            const T* p = weights + 4 * edge;
            const T q = p[0] + p[1] + p[2] + p[3];
            T *gate = gates + edge * count, *out = total;
            const T *update = updates + edge * count, *state = states[edge];
            blocks<T>(last - first, [&](auto block, long at) {
                typedef typename decltype(block)::type V;
                const long i = first + at;
                const V open = 1 / (1 + exponential(-load<V>(gate + i))), kept = q * load<V>(state + i);
                const Activated<V> f(load<V>(update + i), p);
                store<V>(gate + i, open);
                store<V>(out + i, load<V>(out + i) + kept + open * (f.mixed - kept));
            });
        }
    });
}

// Its derivative, from that of total: replaces gates (as activate left them) and updates by their gradients, writes those of the states, and
// adds to those of the weights, (edges, 4).
template <typename T>
void activate_backward(
    long edges, long count, const T* gradient, const T* const* states, T* gates, T* updates, const T* weights, T* const* of_states,
    double* of_weights, int threads) {
    constexpr long LANES = Block<T, 64>::lanes;
    std::vector<double> sums(4 * edges * ((count + PIECE - 1) / PIECE), 0.0);
    over_pieces(count, threads, [&](long first, long last) {
        double* mine = sums.data() + 4 * edges * (first / PIECE);
        for (long edge = 0; edge < edges; edge++) {
            const T* p = weights + 4 * edge;
            const T q = p[0] + p[1] + p[2] + p[3];
            T *gate = gates + edge * count, *update = updates + edge * count, *of_state = of_states[edge];
            const T* state = states[edge];
            T lanes[4][LANES] = {};
            blocks<T>(last - first, [&](auto block, long at) {
                typedef typename decltype(block)::type V;
                const long i = first + at;
                const V g = load<V>(gradient + i), open = load<V>(gate + i), x = load<V>(update + i), s = load<V>(state + i);
                const Activated<V> f(x, p);
                const V through = g * open, past = g - through;
                const V slope = p[0] * (1 - f.tanh * f.tanh) + (x > V{} ? V{} + p[1] : V{}) + p[2] * f.sigmoid * (1 - f.sigmoid) + p[3];
                store<V>(update + i, through * slope);
                store<V>(gate + i, (f.mixed - q * s) * past * open);
                store<V>(of_state + i, q * past);
                const V all = past * s, terms[] = {all + through * f.tanh, all + through * f.relu, all + through * f.sigmoid, all + through * x};
                for (int k = 0; k < 4; k++) store<V>(lanes[k], load<V>(lanes[k]) + terms[k]);
            });
            for (int k = 0; k < 4; k++)
                for (T value : lanes[k]) mine[4 * edge + k] += value;
        }
    });
    for (size_t i = 0; i < sums.size(); i++) of_weights[i % (4 * edges)] += sums[i];
}

}  // namespace

#define CASES(function, ...)                                     \
    switch (g->size) {                                           \
        case 3: function<3>(*g, __VA_ARGS__); return 0;          \
        case 5: function<5>(*g, __VA_ARGS__); return 0;          \
        case 7: function<7>(*g, __VA_ARGS__); return 0;          \
    }                                                            \
    return 1;

#define EXPORT(T, name)                                                                                                                    \
    extern "C" int forward_##name(                                                                                                         \
        const Geometry* g, const T* x, const T* y, const T* matrix, const T* bias, const T* kernels, T* out, double* moments, int threads) { \
        CASES(forward, x, y, matrix, bias, kernels, out, moments, threads)                                                                 \
    }                                                                                                                                      \
    extern "C" int between_##name(                                                                                                         \
        const Geometry* g, const Backward<T>* of, const T* inner, const T* matrix, const T* bias, const T* kernels, T* out, double* total, \
        int wanted, int threads) {                                                                                                         \
        CASES(between, *of, inner, matrix, bias, kernels, out, total, wanted, threads)                                                     \
    }                                                                                                                                      \
    extern "C" int to_state_##name(                                                                                                        \
        const Geometry* g, const Backward<T>* of, const T* x, const T* kernels, T* of_x, double* total, int wanted, int threads) {         \
        CASES(to_state, *of, x, kernels, of_x, total, wanted, threads)                                                                     \
    }                                                                                                                                      \
    extern "C" void add_##name(const Geometry* g, const Part<T>* parts, long count, T* nodes, int threads) {                               \
        add(*g, parts, count, nodes, threads);                                                                                             \
    }                                                                                                                                      \
    extern "C" void cross_##name(                                                                                                          \
        const Geometry* g, const Part<T>* parts, long count, const T* gradient, double* total, int threads) {                              \
        cross(*g, parts, count, gradient, total, threads);                                                                                 \
    }                                                                                                                                      \
    extern "C" void activate_##name(                                                                                                       \
        long edges, long count, const T* const* states, T* gates, const T* updates, const T* weights, T* total, int threads) {             \
        activate(edges, count, states, gates, updates, weights, total, threads);                                                           \
    }                                                                                                                                      \
    extern "C" void activate_backward_##name(                                                                                              \
        long edges, long count, const T* gradient, const T* const* states, T* gates, T* updates, const T* weights, T* const* of_states,    \
        double* of_weights, int threads) {                                                                                                 \
        activate_backward(edges, count, gradient, states, gates, updates, weights, of_states, of_weights, threads);                        \
    }

EXPORT(float, float32)
EXPORT(double, float64)
