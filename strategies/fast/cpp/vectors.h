// Channels in blocks as wide as vectors, and images shared by threads.
#pragma once

#include <omp.h>
#include <algorithm>
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

}  // namespace
