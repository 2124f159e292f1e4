// Products of pixels with matrices of channels.
#pragma once

#include "vectors.h"

namespace {

// Pixels multiplied at a time with blocks that lie side by side: their sums stay in registers, besides a row of the matrix and a pixel.
constexpr long PIXELS = 8;
template <long BESIDE>
constexpr long tile() {
    return REGISTERS >= 32 ? PIXELS : PIXELS / BESIDE;
}

// Some of the columns of a matrix (inputs, columns): from "first" on, "count" of them.
struct Columns {
    long first, count;
};

// One or two products of pixels with matrices of as many rows as there are channels, and what is added to them.
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

// sums[j][v] += a[j] · columns of the matrix, for COUNT pixels and BESIDE blocks of columns
template <long COUNT, long BESIDE, typename V, typename T>
inline void multiply(V (&sums)[COUNT][BESIDE], const T* a, long step, const T* matrix, long channels) {
    constexpr long LANES = sizeof(V) / sizeof(T);
    for (long i = 0; i < channels; i++) {
        V row[BESIDE];
#pragma GCC unroll 2
        for (long v = 0; v < BESIDE; v++) row[v] = load<V>(matrix + i * channels + v * LANES);
#pragma GCC unroll 8
        for (long j = 0; j < COUNT; j++)
#pragma GCC unroll 2
            for (long v = 0; v < BESIDE; v++) sums[j][v] += a[j * step + i] * row[v];
    }
}

template <long COUNT, long BESIDE, typename V, typename T, typename Write>
inline void affine_tile(const Affine<T>& map, long pixel, long channels, long c, Write write) {
    constexpr long LANES = sizeof(V) / sizeof(T);
    V sums[COUNT][BESIDE];
    for (long j = 0; j < COUNT; j++)
        for (long v = 0; v < BESIDE; v++) sums[j][v] = map.bias ? load<V>(map.bias + c + v * LANES) : V{};
    if (map.a) multiply<COUNT, BESIDE>(sums, map.a + pixel * map.a_step, map.a_step, map.a_matrix + c, channels);
    if (map.b) multiply<COUNT, BESIDE>(sums, map.b + pixel * map.b_step, map.b_step, map.b_matrix + c, channels);
    for (long j = 0; j < COUNT; j++)
        for (long v = 0; v < BESIDE; v++) write(pixel + j, c + v * LANES, sums[j][v]);
}

// write(pixel, channel, values) for all pixels and these columns of the matrices
template <typename T, typename Write>
inline void affine(const Affine<T>& map, long pixels, long channels, Columns columns, Write write) {
    pairs<T>(columns.count, [&](auto block, auto beside, long at) {
        typedef typename decltype(block)::type V;
        constexpr long BESIDE = beside.value, COUNT = tile<BESIDE>();
        const long c = columns.first + at;
        long pixel = 0;
        for (; pixel + COUNT <= pixels; pixel += COUNT) affine_tile<COUNT, BESIDE, V>(map, pixel, channels, c, write);
        for (; pixel < pixels; pixel++) affine_tile<1, BESIDE, V>(map, pixel, channels, c, write);
    });
}

template <typename T, typename Write>
inline void affine(const Affine<T>& map, long pixels, long channels, Write write) {
    affine(map, pixels, channels, Columns{0, channels}, write);
}

// Σ a·bᵀ over the pixels, in COUNT rows of the result from row i and BESIDE blocks of columns, added to total
template <long COUNT, long BESIDE, typename V, typename T>
inline void outer_rows(const T* a, long a_step, const T* b, long b_step, long pixels, long channels, long i, long c, double* total) {
    constexpr long LANES = sizeof(V) / sizeof(T);
    for (long first = 0; first < pixels; first += CHUNK) {
        V sums[COUNT][BESIDE];
        for (long j = 0; j < COUNT; j++)
            for (long v = 0; v < BESIDE; v++) sums[j][v] = V{};
        const long last = std::min(first + CHUNK, pixels);
        for (long pixel = first; pixel < last; pixel++) {
            V right[BESIDE];
#pragma GCC unroll 2
            for (long v = 0; v < BESIDE; v++) right[v] = load<V>(b + pixel * b_step + c + v * LANES);
            const T* left = a + pixel * a_step + i;
#pragma GCC unroll 16
            for (long j = 0; j < COUNT; j++)
#pragma GCC unroll 2
                for (long v = 0; v < BESIDE; v++) sums[j][v] += left[j] * right[v];
        }
        for (long j = 0; j < COUNT; j++)
            for (long v = 0; v < BESIDE; v++) flush(sums[j][v], total + (i + j) * channels + c + v * LANES);
    }
}

template <typename T>
void outer(const T* a, long a_step, const T* b, long b_step, long pixels, long channels, double* total) {
    pairs<T>(channels, [&](auto block, auto beside, long c) {
        typedef typename decltype(block)::type V;
        constexpr long BESIDE = beside.value, ROWS = (REGISTERS >= 32 ? 16 : 8) / BESIDE;
        long i = 0;
        for (; i + ROWS <= channels; i += ROWS) outer_rows<ROWS, BESIDE, V>(a, a_step, b, b_step, pixels, channels, i, c, total);
        for (; i < channels; i++) outer_rows<1, BESIDE, V>(a, a_step, b, b_step, pixels, channels, i, c, total);
    });
}

// What value(at) gives for all pixels, where "at" is where a pixel's channels begin, added up in total.
template <typename T, typename Value>
inline void add_up(long pixels, long channels, double* total, Value value) {
    blocks<T>(channels, [&](auto block, long c) {
        typedef typename decltype(block)::type V;
        for (long first = 0; first < pixels; first += CHUNK) {
            V sums = V{};
            const long last = std::min(first + CHUNK, pixels);
            for (long pixel = first; pixel < last; pixel++) sums += value(block, pixel, c);
            flush(sums, total + c);
        }
    });
}

template <typename T>
void sum(const T* a, long step, long pixels, long channels, double* total) {
    add_up<T>(pixels, channels, total, [&](auto block, long pixel, long c) {
        return load<typename decltype(block)::type>(a + pixel * step + c);
    });
}

// Σ a·b over the pixels, channel by channel, added to total
template <typename T>
void dots(const T* a, const T* b, long pixels, long channels, double* total) {
    add_up<T>(pixels, channels, total, [&](auto block, long pixel, long c) {
        typedef typename decltype(block)::type V;
        return load<V>(a + pixel * channels + c) * load<V>(b + pixel * channels + c);
    });
}

}  // namespace
