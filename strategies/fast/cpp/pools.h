// Pools, and halves of an image, and their derivatives.
#pragma once

#include "depthwise.h"

namespace {

// body(pixel, from the top, to the bottom, from the left, to the right) for the 3×3 window of each pixel of a pool, as far as it is in the image.
template <typename Body>
void windows(const Geometry& g, Body body) {
    for (long row = 0; row < g.rows(); row++)
        for (long column = 0; column < g.columns(); column++) {
            const long y = row * g.stride, x = column * g.stride;
            body(row * g.columns() + column, std::max(y - 1, 0L), std::min(y + 2, g.height), std::max(x - 1, 0L), std::min(x + 2, g.width));
        }
}

template <typename V, typename T>
inline V maximum(const T* image, const Geometry& g, long top, long bottom, long left, long right) {
    V best = load<V>(image + (top * g.width + left) * g.channels);
    for (long y = top; y < bottom; y++)
        for (long x = left; x < right; x++) {
            const V value = load<V>(image + (y * g.width + x) * g.channels);
            best = (value > best) | (value != value) ? value : best;
        }
    return best;
}

// The pool of an image, less "shift" of each channel.
template <typename T>
void pool(bool largest, const T* image, const Geometry& g, const T* shift, T* out) {
    windows(g, [&](long pixel, long top, long bottom, long left, long right) {
        blocks<T>(g.channels, [&](auto block, long c) {
            typedef typename decltype(block)::type V;
            V value = V{};
            if (largest) {
                value = maximum<V>(image + c, g, top, bottom, left, right);
            } else {
                for (long y = top; y < bottom; y++)
                    for (long x = left; x < right; x++) value += load<V>(image + (y * g.width + x) * g.channels + c);
                value /= V{} + T((bottom - top) * (right - left));
            }
            store<V>(out + pixel * g.channels + c, value - load<V>(shift + c));
        });
    });
}

// Adds what comes back to the image; of equal numbers the first is the largest.
template <typename T>
void pool_backward(bool largest, const T* image, const Geometry& g, const T* gradient, T* of_image) {
    windows(g, [&](long pixel, long top, long bottom, long left, long right) {
        blocks<T>(g.channels, [&](auto block, long c) {
            typedef typename decltype(block)::type V;
            V value = load<V>(gradient + pixel * g.channels + c);
            if (largest) {
                const V best = maximum<V>(image + c, g, top, bottom, left, right);
                for (long y = top; y < bottom; y++)
                    for (long x = left; x < right; x++) {
                        const long at = (y * g.width + x) * g.channels + c;
                        const V here = load<V>(image + at);
                        const auto equal = (here == best) | (here != here);
                        store<V>(of_image + at, load<V>(of_image + at) + (equal ? value : V{}));
                        value = equal ? V{} : value;
                    }
            } else {
                const V part = value / (V{} + T((bottom - top) * (right - left)));
                for (long y = top; y < bottom; y++)
                    for (long x = left; x < right; x++) {
                        T* at = of_image + (y * g.width + x) * g.channels + c;
                        store<V>(at, load<V>(at) + part);
                    }
            }
        });
    });
}

// ReLU of every second pixel, (pixels, channels), less "shift" of each channel; for "second" of the pixels one further down and right, where
// there are zeros beyond the image.
template <typename T>
void half(bool second, const T* image, const Geometry& g, const T* shift, T* out) {
    for (long row = 0; row < g.rows(); row++)
        for (long column = 0; column < g.columns(); column++) {
            const long y = 2 * row + second, x = 2 * column + second;
            T* to = out + (row * g.columns() + column) * g.channels;
            const T* from = image + (y * g.width + x) * g.channels;
            const bool inside = y < g.height && x < g.width;
            for (long c = 0; c < g.channels; c++) to[c] = (!inside || from[c] < 0 ? T(0) : from[c]) - shift[c];
        }
}

template <typename T>
void half_backward(bool second, const T* image, const Geometry& g, const T* gradient, T* of_image) {
    for (long row = 0; row < g.rows(); row++)
        for (long column = 0; column < g.columns(); column++) {
            const long y = 2 * row + second, x = 2 * column + second, at = (y * g.width + x) * g.channels;
            const T* from = gradient + (row * g.columns() + column) * g.channels;
            if (y < g.height && x < g.width)
                for (long c = 0; c < g.channels; c++) of_image[at + c] += image[at + c] <= 0 ? T(0) : from[c];
        }
}

}  // namespace
