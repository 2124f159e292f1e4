// Products of pixels with matrices of channels.
#pragma once

#include "vectors.h"

namespace {

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

// Σ a·b over the pixels, channel by channel, added to total
template <typename T>
void dots(const T* a, const T* b, long pixels, long channels, double* total) {
    blocks<T>(channels, [&](auto block, long c) {
        typedef typename decltype(block)::type V;
        V sums = V{};
        for (long at = c; at < pixels * channels; at += channels) sums += load<V>(a + at) * load<V>(b + at);
        const T* values = reinterpret_cast<const T*>(&sums);
        for (long lane = 0; lane < (long)(sizeof(V) / sizeof(T)); lane++) total[c + lane] += values[lane];
    });
}

}  // namespace
