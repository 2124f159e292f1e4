// The activations into a node of a recurrent cell, piece by piece.
#pragma once

#include <cmath>

#include "vectors.h"

namespace {

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
    constexpr long LANES = Block<T, WIDTH>::lanes;
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
