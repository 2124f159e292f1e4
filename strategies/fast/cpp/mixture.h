// The outgoing edges of a state: forward and backward.
#pragma once

#include "folded.h"
#include "outgoing.h"
#include "pools.h"

namespace {

// Means, variances and maps of all last products, or of all others.
template <typename T>
void fold(const OutgoingEdges& l, const Kept<T>& kept, bool last, const double* sums, T* matrices, T* biases, double* statistics) {
    const long c = l.c;
    l.each_product(last, [&](long number) {
        const Product& product = l.products[number];
        const Fold fold = kept.fold(l, number);
        const std::vector<double> weight = l.template matrix<T>(product);
        if (l.measured()) {
            fold.measure(weight.data(), sums + product.moments * l.moment_size(), l.count);
        } else {
            for (long o = 0; o < product.rows; o++) {
                fold.centre[product.row + o] = l.template statistic<T>(product.norm, 0)[product.row + o];
                fold.inverse[product.row + o] = 1 / std::sqrt(l.template statistic<T>(product.norm, 1)[product.row + o] + EPS);
            }
            for (long o = 0; o < c; o++)
                if (o < product.row || o >= product.row + product.rows) fold.centre[o] = fold.inverse[o] = 0;
        }
        fold.map(weight.data(), l.template weight<T>(product.position), matrices + number * c * c, biases + number * c);
        if (statistics)
            for (long o = product.row; o < product.row + product.rows; o++) {
                double mean = fold.centre[o];
                const T* shift = kept.shift(l, product.moments);
                for (long i = 0; i < c; i++) mean += weight[o * c + i] * shift[i];
                statistics[2 * product.norm * c + o] = mean;
                statistics[(2 * product.norm + 1) * c + o] = fold.variance(weight.data(), o);
            }
    });
}

// Means and inverse deviations of the pools, less their shifts, on each edge: from Σ and Σ of squares, (2, channels) each, or running ones.
template <typename T>
void fold_pools(const OutgoingEdges& l, const Kept<T>& kept, const double* sums, double* statistics) {
    const long c = l.c;
    long norm = l.norms - l.reductions;
    for (const Pool& pool : l.pools)
        for (long k = 0; k < l.edges; k++) norm -= pool.normed[k];
    for (size_t p = 0; p < l.pools.size(); p++)
        for (long k = 0; k < l.edges; k++) {
            double *mean = kept.means + (p * l.edges + k) * c, *inverse = kept.inverses + (p * l.edges + k) * c;
            const bool normed = l.pools[p].normed[k];
            for (long i = 0; i < c; i++) {
                double var;
                if (l.measured()) {
                    mean[i] = sums[2 * p * c + i] / l.count;
                    var = sums[(2 * p + 1) * c + i] / l.count - mean[i] * mean[i];
                    if (var < 0) var = 0;
                } else {
                    mean[i] = normed ? double(l.template statistic<T>(norm, 0)[i]) : 0.0;
                    var = normed ? double(l.template statistic<T>(norm, 1)[i]) : 1.0;
                }
                inverse[i] = 1 / std::sqrt(var + EPS);
                if (normed && statistics) {
                    statistics[2 * norm * c + i] = mean[i] + kept.pool_shift(l, p)[i];
                    statistics[(2 * norm + 1) * c + i] = var;
                }
            }
            norm += normed;
        }
}

// Forward: adds the outputs of the edges to their nodes.
template <typename T>
class Forward {
  public:
    // statistics: takes mean and variance of each batch norm, (norms, 2, channels), if they are those of the batch; may be null.
    Forward(const State& state, char* memory, double* statistics)
        : s(state), l(state), arena{memory}, kept(l, arena), c(l.c), step(l.moment_size()), pixels(l.pixels), kernels(l.kernels<T>(false)),
          matrices(l.products.size() * c * c), biases(l.products.size() * c), of_pools(l.moments * step),
          sums(l.measured() ? of_pools + 2 * l.pools.size() * c : 0) {
        first_stages();
        fold(l, kept, false, sums.data(), matrices.data(), biases.data(), statistics);
        second_stages();
        fold(l, kept, true, sums.data(), matrices.data(), biases.data(), statistics);
        fold_pools(l, kept, sums.data() + of_pools, statistics);
    }

    // nodes: (edges, batch, rows, columns, channels); "fresh": they hold nothing yet.
    void add_to(T* nodes, bool fresh) const {
        // Of each edge: what is added everywhere, and the weights of the state and of its pools, (1 + pools, channels).
        const long rows = 1 + l.pools.size();
        std::vector<T> bias(l.edges * c), scales(l.edges * rows * c);
        for (long number = 0; number < long(l.products.size()); number++)
            if (l.products[number].position >= 0)
                for (long i = 0; i < c; i++) bias[l.products[number].place * c + i] += biases[number * c + i];
        for (long k = 0; k < l.edges; k++)
            for (long row = 0; row < rows; row++) {
                T* here = scales.data() + (k * rows + row) * c;
                if (row == 0) {
                    std::fill(here, here + c, l.skips ? T(l.weight<T>(l.skip_positions[k])) : T(0));
                    continue;
                }
                const double weight = l.weight<T>(l.pools[row - 1].positions[k]);
                const long at = ((row - 1) * l.edges + k) * c;
                for (long i = 0; i < c; i++) {
                    here[i] = T(weight * kept.inverses[at + i]);
                    bias[k * c + i] -= T(weight * kept.inverses[at + i] * kept.means[at + i]);
                }
            }
        over_images(s.batch, s.threads, 0, nullptr, [&](long image, double*) {
            const T* from = l.template x<T>(image);
            T* buffer = scratch<T>(3, (rows + 1) * pixels * c);
            for (long p = 0; p < rows - 1; p++) pool(l.pools[p].largest, from, l.image, kept.pool_shift(l, p), buffer + p * pixels * c);
            T* halves = buffer + (rows - 1) * pixels * c;
            for (long side = 0; side < 2 && l.reductions; side++) half(side, from, l.image, half_shift(side), halves + side * pixels * c);
            const auto target = [&](long k) { return nodes + (k * s.batch + image) * pixels * c; };
            for (long k = 0; k < l.edges; k++) {
                T* to = target(k);
                const T* scale = scales.data() + k * rows * c;
                blocks<T>(c, [&](auto block, long at) {
                    typedef typename decltype(block)::type V;
                    for (long pixel = at; pixel < pixels * c; pixel += c) {
                        V value = load<V>(bias.data() + k * c + at);
                        if (!fresh) value += load<V>(to + pixel);
                        if (l.skips) value += load<V>(scale + at) * load<V>(from + pixel);
                        for (long p = 0; p < rows - 1; p++) value += load<V>(scale + (1 + p) * c + at) * load<V>(buffer + p * pixels * c + pixel);
                        store<V>(to + pixel, value);
                    }
                });
            }
            const auto add = [&](const T* y, long y_step, long number) {
                const Product& product = l.products[number];
                const Affine<T> map{y, y_step, matrices.data() + number * c * c, nullptr, 0, nullptr, nullptr};
                T* to = target(product.place);
                affine(map, pixels, c, Columns{product.row, product.rows}, [&](long pixel, long at, auto values) {
                    typedef decltype(values) V;
                    store<V>(to + pixel * c + at, load<V>(to + pixel * c + at) + values);
                });
            };
            size_t number = 0;
            for (const Group& group : l.groups) {
                const long all = group.edges * c;
                number += group.count;
                for (long k = 0; k < group.edges; k++)
                    add(kept.y[number - 1] + image * pixels * all + k * c, all, l.product(group, group.last(), k));
            }
            for (long product = l.first_reduction(); product < long(l.products.size()); product++)
                add(halves + (product - l.first_reduction()) % 2 * pixels * c, c, product);
        });
    }

  private:
    const State& s;
    const OutgoingEdges l;
    Arena arena;
    const Kept<T> kept;
    const long c, step, pixels;
    const std::vector<std::vector<T>> kernels;
    std::vector<T> matrices, biases;  // of all products
    const size_t of_pools;
    std::vector<double> sums;  // moments of products, then Σ and Σ of squares of pools

    void moments(const T* y, long all, double* here) const {
        sum(y, all, pixels, c, here);
        outer(y, all, y, all, pixels, c, here + c);
    }

    const T* half_shift(long side) const { return kept.shift(l, l.moments - 2 + side); }

    // A depthwise convolution of a padded image, less the shift of what it gives to a product.
    const T* convolution(long image, const T* padded, const Geometry& g, const Group& group, size_t number, long k, long product) const {
        const long all = group.edges * c, taps = g.size * g.size;
        T* to = kept.y[number] + image * pixels * all + k * c;
        const T* shift = kept.shift(l, product);
        sized(g.size, [&](auto size) {
            convolve<size.value>(padded, kernels[number].data() + k * taps * c, g, g.rows(), g.columns(), [&](long pixel, long at, auto values) {
                typedef decltype(values) V;
                store<V>(to + pixel * all + at, values - load<V>(shift + at));
            });
        });
        return to;
    }

    // The mean of an image, whose pixels are "all" apart. A mean that is no number is no help: nothing is taken off then.
    void take_shift(const T* image, long all, T* shift) const {
        std::vector<double> total(c);
        sum(image, all, pixels, c, total.data());
        for (long i = 0; i < c; i++) shift[i] = std::isfinite(total[i] / pixels) ? T(total[i] / pixels) : T(0);
    }

    // Shifts are the means of the first image: within √batch deviations of the mean of all, whatever the images are. One edge's convolution
    // of it for each product of a stage, shared by the threads.
    void shift_stage(long which) {
        if (!l.measured()) return;
        struct Task {
            size_t number;
            const Group* group;
            long k;
        };
        std::vector<Task> tasks;
        each_stage(l, which, [&](size_t number, const Group& group, size_t) {
            for (long k = 0; k < group.edges; k++) tasks.push_back(Task{number, &group, k});
        });
#pragma omp parallel for schedule(dynamic) num_threads(s.threads)
        for (size_t index = 0; index < tasks.size(); index++) {
            const Task& task = tasks[index];
            const Group& group = *task.group;
            const Geometry& g = group.stages[which];
            T* padded = scratch<T>(0, g.padded());
            read(which, 0, task.number, group, task.k, padded);
            const long product = l.product(group, which, task.k);
            take_shift(convolution(0, padded, g, group, task.number, task.k, product), group.edges * c, kept.shift(l, product));
        }
    }

    // What a stage's convolution on an edge reads of an image, padded.
    void read(long which, long image, size_t number, const Group& group, long k, T* padded) const {
        const Geometry& g = group.stages[which];
        if (which == 0) {
            relu_padded(l.template x<T>(image), g, padded);
            return;
        }
        const long all = group.edges * c, first = l.product(group, 0, k);
        const T* y = kept.y[number - 1] + image * pixels * all + k * c;
        affine_padded<true>(Affine<T>{y, all, matrices.data() + first * c * c, nullptr, 0, nullptr, biases.data() + first * c}, g, padded);
    }

    void shift_bank() {
        if (!l.measured()) return;
        const T* from = l.template x<T>(0);
        T* buffer = scratch<T>(1, pixels * c);
        for (long side = 0; side < 2 && l.reductions; side++) {
            half(side, from, l.image, half_shift(side), buffer);
            take_shift(buffer, c, kept.shift(l, l.moments - 2 + side));
        }
        for (size_t p = 0; p < l.pools.size(); p++) {
            pool(l.pools[p].largest, from, l.image, kept.pool_shift(l, p), buffer);
            take_shift(buffer, c, kept.pool_shift(l, p));
        }
    }

    // Everything that needs no batch norm before it.
    void first_stages() {
        std::fill(kept.shifts, kept.shift(l, l.moments + l.pools.size()), T(0));
        shift_stage(0);
        shift_bank();
        over_images(s.batch, s.threads, sums.size(), sums.data(), [&](long image, double* mine) {
            const T* from = l.template x<T>(image);
            long padding = -1;
            each_stage(l, 0, [&](size_t number, const Group& group, size_t) {
                const Geometry& g = group.stages[0];
                T* padded = scratch<T>(0, g.padded());
                if (g.padding() != padding) relu_padded(from, g, padded);
                padding = g.padding();
                for (long k = 0; k < group.edges; k++) {
                    const long product = l.product(group, 0, k);
                    const T* y = convolution(image, padded, g, group, number, k, product);
                    if (l.measured()) moments(y, group.edges * c, mine + product * step);
                }
            });
            if (!l.measured()) return;
            T* buffer = scratch<T>(1, pixels * c);
            for (long side = 0; side < 2 && l.reductions; side++) {
                half(side, from, l.image, half_shift(side), buffer);
                moments(buffer, c, mine + (l.moments - 2 + side) * step);
            }
            for (size_t p = 0; p < l.pools.size(); p++) {
                pool(l.pools[p].largest, from, l.image, kept.pool_shift(l, p), buffer);
                sum(buffer, c, pixels, c, mine + of_pools + 2 * p * c);
                dots(buffer, buffer, pixels, c, mine + of_pools + (2 * p + 1) * c);
            }
        });
    }

    void second_stages() {
        shift_stage(1);
        over_images(s.batch, s.threads, l.measured() ? l.first_reduction() * step : 0, sums.data(), [&](long image, double* mine) {
            each_stage(l, 1, [&](size_t number, const Group& group, size_t) {
                const Geometry& g = group.stages[1];
                T* padded = scratch<T>(0, g.padded());
                for (long k = 0; k < group.edges; k++) {
                    const long product = l.product(group, 1, k);
                    read(1, image, number, group, k, padded);
                    const T* y = convolution(image, padded, g, group, number, k, product);
                    if (l.measured()) moments(y, group.edges * c, mine + product * step);
                }
            });
        });
    }
};

// The gradients of all products of one kind, from Σ yᵀg and Σ g.
template <typename T>
struct Gradients {
    std::vector<T> through, direct, constant;  // of each product: see Fold::backward; those of halves are in the first reduction's

    explicit Gradients(const OutgoingEdges& l)
        : through(l.products.size() * l.c * l.c), direct(l.products.size() * l.c * l.c), constant(l.products.size() * l.c) {}

    // crosses(product) and totals(product) point to the sums.
    template <typename Crosses, typename Totals>
    void take(
        const OutgoingEdges& l, const Kept<T>& kept, bool last, Crosses crosses, Totals totals, double* of_weights, T* of_parameters) {
        const long c = l.c;
        std::vector<double> of_factors(l.products.size());
        l.each_product(last, [&](long number) {
            const Product& product = l.products[number];
            std::vector<double> constants(c), of_weight(of_parameters ? c * c : 0);
            const std::vector<double> weight = l.template matrix<T>(product);
            of_factors[number] = kept.fold(l, number).backward(
                weight.data(), l.template weight<T>(product.position), crosses(number), totals(number), l.count, l.measured(),
                through.data() + number * c * c, direct.data() + number * c * c, constants.data(), of_parameters ? of_weight.data() : nullptr);
            std::copy(constants.begin(), constants.end(), constant.begin() + number * c);
            if (of_parameters)
                std::copy(
                    of_weight.begin() + product.row * c, of_weight.begin() + (product.row + product.rows) * c,
                    of_parameters + l.offsets[product.parameter]);
        });
        if (last)
            for (size_t number = 0; number < l.products.size(); number++)
                if (l.products[number].position >= 0) of_weights[l.products[number].position] += of_factors[number];
    }

    // The gradient of y: (y·through + g·direct + constant)
    Affine<T> map(const OutgoingEdges& l, long product, const T* y, long y_step, const T* g, long g_step) const {
        const long at = product * l.c * l.c;
        const bool measured = l.measured();
        return Affine<T>{measured ? y : nullptr, y_step, through.data() + at, g, g_step, direct.data() + at, measured ? constant.data() + product * l.c : nullptr};
    }
};

template <typename T>
void take_kernels(const OutgoingEdges& l, long which, const double* sums, T* of_parameters) {
    each_stage(l, which, [&](size_t, const Group& group, size_t) {
        const long taps = group.stages[which].size * group.stages[which].size;
        for (long k = 0; k < group.edges; k++, sums += taps * l.c) {
            T* to = of_parameters + l.offsets[group.parameter + 2 * which * group.edges + k];
            for (long tap = 0; tap < taps; tap++)
                for (long i = 0; i < l.c; i++) to[i * taps + tap] = T(sums[tap * l.c + i]);
        }
    });
}

// Backward: from the gradient of the nodes that read the state, (edges, batch, rows, columns, channels).
template <typename T>
class Backward {
  public:
    // temporary: for Between. Adds to the gradients of the weights; writes those of the parameters one after the other, unless null.
    Backward(const State& state, char* memory, char* temporary, const T* of_nodes, double* of_weights, T* of_parameters)
        : s(state), l(state), arena{memory}, other{temporary}, kept(l, arena), between(l, other), gradient(of_nodes), of_parameters(of_parameters),
          c(l.c), pixels(l.pixels), edges(l.edges), rows(1 + l.pools.size()), kernels(l.kernels<T>(true)), gradients(l),
          of_products(edges * c), of_bank(of_products + l.products.size() * c * c), sums(of_bank + edges * rows * c),
          scales(edges * rows * c), selves(rows * c), constants(rows * c) {
        gather();
        gradients.take(
            l, kept, true, [&](long product) { return sums.data() + of_products + product * c * c; },
            [&](long product) { return sums.data() + l.products[product].place * c; }, of_weights, of_parameters);
        mix(of_weights);
        to_between();
    }

    // Writes the gradient of the state; the last step.
    void to_state(T* of_x) const {
        std::vector<double> of_first(taps_of(0));
        over_images(s.batch, s.threads, of_first.size(), of_first.data(), [&](long image, double* of_kernels) {
            const T* from = l.template x<T>(image);
            const long size = s.height * s.width * c;
            T* to = of_x + image * size;
            T* buffer = scratch<T>(3, 2 * pixels * c);
            T* back = buffer + pixels * c;
            std::fill(to, to + size, T(0));
            for (long row = l.skips ? 0 : 1; row < rows; row++) {
                if (row) pool(l.pools[row - 1].largest, from, l.image, kept.pool_shift(l, row - 1), buffer);
                T* sums = row ? back : to;
                blocks<T>(c, [&](auto block, long at) {
                    typedef typename decltype(block)::type V;
                    for (long pixel = at; pixel < pixels * c; pixel += c) {
                        V value = load<V>(constants.data() + row * c + at);
                        if (row) value += load<V>(selves.data() + row * c + at) * load<V>(buffer + pixel);
                        for (long k = 0; k < edges; k++)
                            value += load<V>(scales.data() + (k * rows + row) * c + at) * load<V>(of_node(k, image) + pixel);
                        store<V>(sums + pixel, value);
                    }
                });
                if (row) pool_backward(l.pools[row - 1].largest, from, l.image, back, to);
            }
            for (long side = 0; side < 2 && l.reductions; side++) {
                half(side, from, l.image, half_shift(side), buffer);
                std::fill(back, back + pixels * c, T(0));
                for (long product = l.first_reduction() + side; product < long(l.products.size()); product += 2)
                    affine(
                        gradients.map(l, product, buffer, c, of_node(l.products[product].place, image), c), pixels, c,
                        [&](long pixel, long channel, auto values) {
                            typedef decltype(values) V;
                            T* at = back + pixel * c + channel;
                            store<V>(at, load<V>(at) + values);
                        });
                half_backward(side, from, l.image, back, to);
            }
            long padding = -1;
            each_stage(l, 0, [&](size_t number, const Group& group, size_t index) {
                const Geometry& g = group.stages[0];
                const bool direct = g.stride == 1;
                const long all = group.edges * c, taps = g.size * g.size;
                T* padded = scratch<T>(0, g.padded());
                T* reaching = scratch<T>(1, direct ? g.padded() : pixels * c);
                T* scattered = scratch<T>(2, g.padded());
                if (of_parameters && g.padding() != padding) relu_padded(from, g, padded);
                padding = g.padding();
                if (!direct) std::memset(scattered, 0, g.padded() * sizeof(T));
                for (long k = 0; k < group.edges; k++, of_kernels += taps * c) {
                    const long at = image * pixels * all + k * c, first = l.product(group, 0, k);
                    const T* y = kept.y[number] + at;
                    const T* g_y = group.count == 2 ? between.gradients[index] + at : of_node(group.places[k], image);
                    const Affine<T> map = gradients.map(l, first, y, all, g_y, group.count == 2 ? all : c);
                    const T* kernel = kernels[number].data() + k * taps * c;
                    sized(g.size, [&](auto size) {
                        if (direct) {
                            affine_padded<false>(map, g, reaching);
                            convolve<size.value>(reaching, kernel, g, g.height, g.width, [&](long pixel, long channel, auto values) {
                                typedef decltype(values) V;
                                const long here = pixel * c + channel;
                                store<V>(to + here, load<V>(to + here) + (load<V>(from + here) <= V{} ? V{} : values));
                            });
                        } else {
                            affine(map, pixels, c, [&](long pixel, long channel, auto values) { store(reaching + pixel * c + channel, values); });
                            scatter<size.value>(reaching, kernel, g, scattered);
                        }
                        if (of_parameters)
                            kernel_gradient<size.value>(
                                direct ? reaching + place(g, 0) : reaching, (direct ? g.padded_width() : g.columns()) * c, padded, g, of_kernels);
                    });
                }
                if (!direct)
                    for (long pixel = 0; pixel < g.height * g.width; pixel++)
                        for (long i = 0; i < c; i++)
                            to[pixel * c + i] += from[pixel * c + i] <= 0 ? T(0) : scattered[place(g, pixel) + i];
            });
        });
        if (of_parameters) take_kernels(l, 0, of_first.data(), of_parameters);
    }

  private:
    const State& s;
    const OutgoingEdges l;
    Arena arena, other;
    const Kept<T> kept;
    const Between<T> between;
    const T* const gradient;
    T* const of_parameters;
    const long c, pixels, edges, rows;
    const std::vector<std::vector<T>> kernels;
    Gradients<T> gradients;
    const size_t of_products, of_bank;
    std::vector<double> sums;  // Σ g of each node; Σ yᵀg of each product; Σ g times the state and each pool, for each edge
    // What comes back to the state and to each pool: scales of the nodes' gradients (edges, rows, channels), and of the pool itself, and what
    // is added everywhere (rows, channels).
    std::vector<T> scales, selves, constants;

    const T* half_shift(long side) const { return kept.shift(l, l.moments - 2 + side); }

    const T* of_node(long k, long image) const { return gradient + (k * s.batch + image) * pixels * c; }

    // How many gradients of kernels there are in these stages.
    size_t taps_of(long which) const {
        size_t count = 0;
        each_stage(l, which, [&](size_t, const Group& group, size_t) {
            count += group.edges * group.stages[which].size * group.stages[which].size * c;
        });
        return of_parameters ? count : 0;
    }

    void gather() {
        over_images(s.batch, s.threads, sums.size(), sums.data(), [&](long image, double* mine) {
            const T* from = l.template x<T>(image);
            for (long k = 0; k < edges; k++) sum(of_node(k, image), c, pixels, c, mine + k * c);
            size_t number = 0;
            for (const Group& group : l.groups) {
                const long all = group.edges * c;
                number += group.count;
                for (long k = 0; k < group.edges; k++)
                    outer(
                        kept.y[number - 1] + image * pixels * all + k * c, all, of_node(group.places[k], image), c, pixels, c,
                        mine + of_products + l.product(group, group.last(), k) * c * c);
            }
            T* buffer = scratch<T>(1, pixels * c);
            for (long side = 0; side < 2 && l.reductions; side++) {
                half(side, from, l.image, half_shift(side), buffer);
                for (long product = l.first_reduction() + side; product < long(l.products.size()); product += 2)
                    outer(buffer, c, of_node(l.products[product].place, image), c, pixels, c, mine + of_products + product * c * c);
            }
            for (long row = l.skips ? 0 : 1; row < rows; row++) {
                if (row) pool(l.pools[row - 1].largest, from, l.image, kept.pool_shift(l, row - 1), buffer);
                for (long k = 0; k < edges; k++) dots(row ? buffer : from, of_node(k, image), pixels, c, mine + of_bank + (k * rows + row) * c);
            }
        });
    }

    // Skips and pools.
    void mix(double* of_weights) {
        for (long row = l.skips ? 0 : 1; row < rows; row++) {
            std::vector<double> first(c), second(c);
            for (long k = 0; k < edges; k++) {
                const double* dot = sums.data() + of_bank + (k * rows + row) * c;
                T* scale = scales.data() + (k * rows + row) * c;
                if (!row) {
                    const double weight = l.weight<T>(l.skip_positions[k]);
                    for (long i = 0; i < c; i++) {
                        of_weights[l.skip_positions[k]] += dot[i];
                        scale[i] = T(weight);
                    }
                    continue;
                }
                const long position = l.pools[row - 1].positions[k], at = ((row - 1) * edges + k) * c;
                const double weight = l.weight<T>(position);
                for (long i = 0; i < c; i++) {
                    const double inverse = kept.inverses[at + i], mean = kept.means[at + i], total = sums[k * c + i];
                    const double normed = inverse * (dot[i] - mean * total);
                    of_weights[position] += normed;
                    scale[i] = T(weight * inverse);
                    first[i] += weight * total / l.count;
                    second[i] += weight * normed / l.count;
                }
            }
            if (row && l.measured())
                for (long i = 0; i < c; i++) {
                    const double inverse = kept.inverses[(row - 1) * edges * c + i], mean = kept.means[(row - 1) * edges * c + i];
                    selves[row * c + i] = T(-inverse * inverse * second[i]);
                    constants[row * c + i] = T(inverse * (inverse * mean * second[i] - first[i]));
                }
        }
    }

    // To what the first stages gave: writes "between".
    void to_between() {
        const size_t step = l.moment_size(), products = l.first_reduction() * step;
        std::vector<T> matrices(l.first_reduction() * c * c), biases(l.first_reduction() * c);
        l.each_product(false, [&](long number) {
            const std::vector<double> weight = l.template matrix<T>(l.products[number]);
            kept.fold(l, number).map(weight.data(), 1.0, matrices.data() + number * c * c, biases.data() + number * c);
        });
        std::vector<double> middle(products + taps_of(1));
        over_images(s.batch, s.threads, middle.size(), middle.data(), [&](long image, double* mine) {
            double* of_kernels = mine + products;
            each_stage(l, 1, [&](size_t number, const Group& group, size_t index) {
                const Geometry& g = group.stages[1];
                const long all = group.edges * c, taps = g.size * g.size;
                T* z = scratch<T>(0, g.padded());
                T* reaching = scratch<T>(1, g.padded());
                for (long k = 0; k < group.edges; k++, of_kernels += taps * c) {
                    const long at = image * pixels * all + k * c, first = l.product(group, 0, k), last = l.product(group, 1, k);
                    const T* read = kept.y[number - 1] + at;
                    affine_padded<true>(
                        Affine<T>{read, all, matrices.data() + first * c * c, nullptr, 0, nullptr, biases.data() + first * c}, g, z);
                    affine_padded<false>(
                        gradients.map(l, last, kept.y[number] + at, all, of_node(group.places[k], image), c), g, reaching);
                    T* to = between.gradients[index] + at;
                    sized(g.size, [&](auto size) {
                        if (of_parameters) kernel_gradient<size.value>(reaching + place(g, 0), g.padded_width() * c, z, g, of_kernels);
                        convolve<size.value>(
                            reaching, kernels[number].data() + k * taps * c, g, g.height, g.width, [&](long pixel, long channel, auto values) {
                                typedef decltype(values) V;
                                store<V>(to + pixel * all + channel, load<V>(z + place(g, pixel) + channel) <= V{} ? V{} : values);
                            });
                    });
                    double* here = mine + first * step;
                    sum(to, all, pixels, c, here);
                    outer(read, all, to, all, pixels, c, here + c);
                }
            });
        });
        gradients.take(
            l, kept, false, [&](long product) { return middle.data() + product * step + c; },
            [&](long product) { return middle.data() + product * step; }, nullptr, of_parameters);
        if (of_parameters) take_kernels(l, 1, middle.data() + products, of_parameters);
    }
};

// Bytes that forward leaves for backward, and bytes that backward needs besides.
template <typename T>
void measure(const State& s, long* bytes) {
    const OutgoingEdges l(s);
    Arena kept{nullptr}, temporary{nullptr};
    Kept<T>(l, kept);
    Between<T>(l, temporary);
    bytes[0] = kept.used;
    bytes[1] = temporary.used;
}

}  // namespace
