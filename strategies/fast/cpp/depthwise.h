// Depthwise convolutions of padded images, and their derivatives.
#pragma once

#include "matrices.h"

namespace {

// Depthwise convolutions of images of this size.
struct Geometry {
    long height, width, channels, size, stride, dilation;

    long padding() const { return dilation * (size - 1) / 2; }
    long rows() const { return (height - 1) / stride + 1; }
    long columns() const { return (width - 1) / stride + 1; }
    long pixels() const { return rows() * columns(); }
    long padded_width() const { return width + 2 * padding(); }
    size_t padded() const { return (height + 2 * padding()) * padded_width() * channels; }
};

// (channels, size, size) → (size, size, channels), the other way round if flipped
template <typename T>
void arrange(const T* kernel, const Geometry& g, bool flipped, T* out) {
    const long taps = g.size * g.size;
    for (long tap = 0; tap < taps; tap++)
        for (long c = 0; c < g.channels; c++) out[tap * g.channels + c] = kernel[c * taps + (flipped ? taps - 1 - tap : tap)];
}

// Pixels of a row that are convolved at a time: a tap of the kernel is read once for all of them.
constexpr long TILE = 8;

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
            for (; column + 4 <= columns; column += 4) {
                V sums[4];
                convolve_tile<SIZE, 4>(from + column * step, step, row_step, kernel + c, g, sums);
                for (long j = 0; j < 4; j++) write(row * columns + column + j, c, sums[j]);
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

// LINES lines of the kernel's gradient from line "first" on; see below.
template <long SIZE, long LINES, typename V, typename T>
inline void kernel_lines(const T* gradient, long gradient_line, const T* padded, const Geometry& g, long first, long c, double* total) {
    const long line = g.padded_width() * g.channels, rows_at_once = std::max(1L, CHUNK / g.columns());
    for (long top = 0; top < g.rows(); top += rows_at_once) {
        V sums[LINES * SIZE];
        for (long tap = 0; tap < LINES * SIZE; tap++) sums[tap] = V{};
        const long bottom = std::min(top + rows_at_once, g.rows());
        for (long row = top; row < bottom; row++)
            for (long column = 0; column < g.columns(); column++) {
                const V value = load<V>(gradient + row * gradient_line + column * g.channels + c);
                const T* from = padded + (row * g.stride + first * g.dilation) * line + column * g.stride * g.channels + c;
#pragma GCC unroll 7
                for (long y = 0; y < LINES; y++)
#pragma GCC unroll 7
                    for (long x = 0; x < SIZE; x++)
                        sums[y * SIZE + x] += value * load<V>(from + y * g.dilation * line + x * g.dilation * g.channels);
            }
        for (long tap = 0; tap < LINES * SIZE; tap++) flush(sums[tap], total + (first * SIZE + tap) * g.channels + c);
    }
}

// The kernel's gradient from a padded image and the gradient of the result, whose lines are gradient_line apart: adds to total, (size, size,
// channels). As many lines of the kernel are summed at a time as there are registers for.
template <long SIZE, typename T>
void kernel_gradient(const T* gradient, long gradient_line, const T* padded, const Geometry& g, double* total) {
    constexpr long LINES = std::min(SIZE, (REGISTERS - 4) / SIZE);
    blocks<T>(g.channels, [&](auto block, long c) {
        typedef typename decltype(block)::type V;
        long first = 0;
        for (; first + LINES <= SIZE; first += LINES) kernel_lines<SIZE, LINES, V>(gradient, gradient_line, padded, g, first, c, total);
        if constexpr (SIZE % LINES != 0) kernel_lines<SIZE, SIZE % LINES, V>(gradient, gradient_line, padded, g, first, c, total);
    });
}

// Padded images ------------------------------------------------------------------------------------------------------------------------

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

}  // namespace
