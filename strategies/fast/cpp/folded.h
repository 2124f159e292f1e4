// Batch norms as part of the matrices before them.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr double EPS = 1e-5;

// 1×1 convolution, batch norm and factor as one affine map, and its derivative: FoldedNorm of folded.py, which has the formulas. "weight" is
// (outputs, inputs), both as many as there are channels. An input y is what is left of it once a constant near its mean is taken off each
// channel: a batch norm does not see the constant, while moments of large numbers would lose digits.
struct Fold {
    long c;
    double *mean, *centre, *inverse, *covered;

    static size_t size(long c) { return 3 * c + c * c; }

    Fold(double* memory, long channels)
        : c(channels), mean(memory), centre(memory + c), inverse(memory + 2 * c), covered(memory + 3 * c) {}

    // From Σ y above Σ yᵀy, (1 + channels, channels), of count inputs.
    void measure(const double* weight, const double* sums, long count) const {
        std::vector<double> cov(c * c);
        for (long i = 0; i < c; i++) mean[i] = sums[i] / count;
        for (long i = 0; i < c; i++)
            for (long j = 0; j < c; j++) cov[i * c + j] = sums[c + i * c + j] / count - mean[i] * mean[j];
        for (long o = 0; o < c; o++) {
            double* row = covered + o * c;
            const double* w = weight + o * c;
            std::fill(row, row + c, 0.0);
            centre[o] = 0;
            for (long i = 0; i < c; i++) {
                centre[o] += w[i] * mean[i];
                for (long j = 0; j < c; j++) row[j] += w[i] * cov[i * c + j];
            }
            inverse[o] = 1 / std::sqrt(variance(weight, o) + EPS);
        }
    }

    // Of one output, once the batch is measured.
    double variance(const double* weight, long o) const {
        double var = 0;
        for (long i = 0; i < c; i++) var += covered[o * c + i] * weight[o * c + i];
        return var < 0 ? 0 : var;  // not a number stays what it is
    }

    // y → y·matrix + bias
    template <typename T>
    void map(const double* weight, double factor, T* matrix, T* bias) const {
        for (long o = 0; o < c; o++) {
            const double scale = factor * inverse[o];
            for (long i = 0; i < c; i++) matrix[i * c + o] = T(scale * weight[o * c + i]);
            bias[o] = T(-scale * centre[o]);
        }
    }

    // From Σ yᵀg, (inputs, outputs), and Σ g, where g is the gradient of what the map gives: that of y is y·through + g·direct + constant,
    // through and constant only where the batch was measured. Returns the gradient of the factor; that of the weight is added.
    template <typename T>
    double backward(
        const double* weight, double factor, const double* cross, const double* total, long count, bool measured, T* through, T* direct,
        double* constant, double* of_weight) const {
        std::vector<double> moved(c * c), all(c * c);
        double of_factor = 0;
        for (long o = 0; o < c; o++) {
            const double *w = weight + o * c, scale = factor * inverse[o];
            double of_scale = measured ? 0 : -total[o] * centre[o];
            for (long i = 0; i < c; i++) {
                const double of_matrix = cross[i * c + o] - (measured ? total[o] * mean[i] : 0);
                of_scale += of_matrix * w[i];
                if (of_weight) of_weight[o * c + i] = scale * of_matrix;
                direct[o * c + i] = T(scale * w[i]);
            }
            of_factor += of_scale * inverse[o];
            if (!measured) continue;
            // y moves the variance, too.
            const double of_var = -0.5 * of_scale * factor * inverse[o] * inverse[o] * inverse[o];
            for (long i = 0; i < c; i++) {
                moved[o * c + i] = 2 * of_var * w[i] / count;
                if (of_weight) of_weight[o * c + i] += 2 * of_var * covered[o * c + i];
                constant[i] -= total[o] * scale * w[i] / count;
            }
        }
        if (measured) {
            for (long o = 0; o < c; o++)
                for (long i = 0; i < c; i++)
                    for (long j = 0; j < c; j++) all[i * c + j] += weight[o * c + i] * moved[o * c + j];
            for (long i = 0; i < c; i++)
                for (long j = 0; j < c; j++) {
                    through[i * c + j] += T(all[i * c + j]);
                    constant[j] -= mean[i] * all[i * c + j];
                }
        }
        return of_factor;
    }
};

}  // namespace
