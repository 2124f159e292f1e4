// What there is to compute from a state, and where it is kept.
#pragma once

#include <type_traits>

#include "depthwise.h"

namespace {

// Version of State and of the numbers in a plan; kernels.py has the same one. Raise both with each change.
constexpr long PLAN_VERSION = 1;

// A state and the candidates on its outgoing edges; compiled.py fills this in.
struct State {
    long batch, height, width, channels;
    const long* plan;               // see OutgoingEdges
    const void* x;                  // (batch, height, width, channels)
    const void* weights;            // of the candidates
    const void* const* parameters;  // of groups: by stage depthwise kernels, then matrices, edge by edge; of reductions: two matrices
    const void* const* statistics;  // mean and variance of each batch norm; null: those of the batch are used
    int threads;
};

// An operation on some of the edges: one or two stages of ReLU, depthwise convolution, 1×1 convolution and batch norm.
struct Group {
    Geometry stages[2];
    long count, edges;  // of stages
    const long *places, *positions;
    long parameter, product;  // the first ones

    long last() const { return count - 1; }
};

struct Pool {
    bool largest;
    const long *positions, *normed;  // edge by edge; whether it has a batch norm
};

// A 1×1 convolution and its batch norm: of a stage on an edge, or one half of a reduction, which gives some of the channels.
struct Product {
    long parameter, row, rows, norm, place, position, moments;
};

// The plan, read: numbers in the order in which they are taken here.
struct OutgoingEdges {
    const State& s;
    long c, edges, skips;
    Geometry image;  // of pools and reductions
    long pixels, count;
    std::vector<Group> groups;
    std::vector<Pool> pools;
    std::vector<Product> products;  // of groups, then of reductions
    const long* skip_positions = nullptr;
    long reductions, moments, norms = 0;
    std::vector<size_t> offsets;  // of the parameters' gradients

    explicit OutgoingEdges(const State& state) : s(state), c(state.channels) {
        const long* at = s.plan;
        const long stride = *at++;
        edges = *at++;
        const long group_count = *at++, pool_count = *at++;
        reductions = *at++;
        skips = *at++;
        image = Geometry{s.height, s.width, c, 3, stride, 1};
        pixels = image.pixels();
        count = s.batch * pixels;
        size_t offset = 0;
        long parameter = 0;
        const auto parameters = [&](long number, size_t size) {
            for (long i = 0; i < number; i++, offset += size) offsets.push_back(offset);
            parameter += number;
        };
        for (long i = 0; i < group_count; i++) {
            Group group{};
            group.stages[0] = Geometry{s.height, s.width, c, at[0], at[1], at[2]};
            group.stages[1] = Geometry{image.rows(), image.columns(), c, at[0], 1, 1};
            group.count = at[3];
            group.edges = at[4];
            group.places = at + 5;
            group.positions = group.places + group.edges;
            at = group.positions + group.edges;
            group.parameter = parameter;
            group.product = products.size();
            for (long stage = 0; stage < group.count; stage++) {
                for (long k = 0; k < group.edges; k++) {
                    const long position = stage == group.last() ? group.positions[k] : -1, number = products.size();
                    products.push_back(Product{parameter + group.edges + k, 0, c, norms++, group.places[k], position, number});
                }
                parameters(group.edges, group.stages[stage].size * group.stages[stage].size * c);
                parameters(group.edges, c * c);
            }
            groups.push_back(group);
        }
        if (skips) {
            skip_positions = at;
            at += edges;
        }
        for (long i = 0; i < pool_count; i++, at += 1 + 2 * edges) {
            pools.push_back(Pool{at[0] == 0, at + 1, at + 1 + edges});
            for (long k = 0; k < edges; k++) norms += pools.back().normed[k];
        }
        const long shared = products.size();
        for (long i = 0; i < reductions; i++, at += 2, norms++)
            for (long side = 0; side < 2; side++) {
                products.push_back(Product{parameter, side * (c / 2), c / 2, norms, at[0], at[1], shared + side});
                parameters(1, c / 2 * c);
            }
        moments = shared + (reductions ? 2 : 0);
    }

    bool measured() const { return !s.statistics; }
    size_t moment_size() const { return (1 + c) * c; }
    long first_reduction() const { return products.size() - 2 * reductions; }
    long product(const Group& group, long stage, long k) const { return group.product + stage * group.edges + k; }

    template <typename T>
    const T* x(long number) const {
        return static_cast<const T*>(s.x) + number * s.height * s.width * c;
    }

    template <typename T>
    const T* parameter(long number) const {
        return static_cast<const T*>(s.parameters[number]);
    }

    template <typename T>
    const T* statistic(long norm, long which) const {
        return static_cast<const T*>(s.statistics[2 * norm + which]);
    }

    template <typename T>
    double weight(long position) const {
        return position < 0 ? 1.0 : static_cast<const T*>(s.weights)[position];
    }

    template <typename T>
    std::vector<double> matrix(const Product& product) const {
        std::vector<double> result(c * c, 0.0);
        const T* from = parameter<T>(product.parameter);
        std::copy(from, from + product.rows * c, result.begin() + product.row * c);
        return result;
    }

    // body(product) for all products from first on, shared by the threads.
    template <typename Body>
    void each_product(bool last, Body body) const {
#pragma omp parallel for schedule(dynamic) num_threads(s.threads)
        for (size_t number = 0; number < products.size(); number++)
            if ((products[number].position >= 0) == last) body(long(number));
    }

    // All kernels of depthwise convolutions as they are read: group → stage → edge.
    template <typename T>
    std::vector<std::vector<T>> kernels(bool flipped_where_direct) const {
        std::vector<std::vector<T>> result;
        for (const Group& group : groups)
            for (long stage = 0; stage < group.count; stage++) {
                const Geometry& g = group.stages[stage];
                const long taps = g.size * g.size;
                result.emplace_back(group.edges * taps * c);
                for (long k = 0; k < group.edges; k++)
                    arrange(
                        parameter<T>(group.parameter + 2 * stage * group.edges + k), g, flipped_where_direct && g.stride == 1,
                        result.back().data() + k * taps * c);
            }
        return result;
    }
};

// Gives out pieces of memory; none if there is none, to see how much it would be.
struct Arena {
    char* base;
    size_t used = 0;

    template <typename T>
    T* take(size_t count) {
        T* result = base ? reinterpret_cast<T*>(base + used) : nullptr;
        used += (count * sizeof(T) + 63) / 64 * 64;
        return result;
    }
};

// What forward leaves for backward.
template <typename T>
struct Kept {
    std::vector<T*> y;  // results of depthwise convolutions less their shifts, (pixels, edges, channels): group → stage
    // Constants near the means of what is normalised, (moments, channels), then (pools, channels): they are taken off first, so that sums of
    // products keep their digits. Zero where running statistics are used.
    T* shifts;
    double* folds;
    double *means, *inverses;  // of pools less their shifts: (pools, edges, channels)

    Kept(const OutgoingEdges& l, Arena& arena) {
        for (const Group& group : l.groups)
            for (long stage = 0; stage < group.count; stage++) y.push_back(arena.take<T>(l.count * group.edges * l.c));
        shifts = arena.take<T>((l.moments + l.pools.size()) * l.c);
        folds = arena.take<double>(l.products.size() * Fold::size(l.c));
        means = arena.take<double>(l.pools.size() * l.edges * l.c);
        inverses = arena.take<double>(l.pools.size() * l.edges * l.c);
    }

    T* shift(const OutgoingEdges& l, long moments) const { return shifts + moments * l.c; }
    T* pool_shift(const OutgoingEdges& l, long pool) const { return shift(l, l.moments + pool); }

    Fold fold(const OutgoingEdges& l, long product) const { return Fold(folds + product * Fold::size(l.c), l.c); }
};

// The gradient of what the first stages gave, of groups that have two.
template <typename T>
struct Between {
    std::vector<T*> gradients;

    Between(const OutgoingEdges& l, Arena& arena) {
        for (const Group& group : l.groups) gradients.push_back(group.count == 2 ? arena.take<T>(l.count * group.edges * l.c) : nullptr);
    }
};

// Calls body(stage number among all, group, stage) for all stages, or for the first or second ones of groups.
template <typename Body>
void each_stage(const OutgoingEdges& l, long which, Body body) {
    size_t number = 0;
    for (size_t group = 0; group < l.groups.size(); group++)
        for (long stage = 0; stage < l.groups[group].count; stage++, number++)
            if (stage == which) body(number, l.groups[group], group);
}

template <typename Body>
void sized(long size, Body body) {
    switch (size) {
        case 3: body(std::integral_constant<long, 3>()); break;
        case 5: body(std::integral_constant<long, 5>()); break;
        case 7: body(std::integral_constant<long, 7>()); break;
    }
}

}  // namespace
