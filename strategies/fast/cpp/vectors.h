// Channels in blocks as wide as vectors, and images shared by threads.
#pragma once

#include <omp.h>
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

namespace {

// Bytes of the widest vector register of the instruction set that this is compiled for, and how many registers there are. A wider vector type
// would compile, too: element by element.
#if defined(__AVX512F__)
constexpr int WIDTH = 64, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int WIDTH = 32, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int WIDTH = 16, REGISTERS = 32;
#else
constexpr int WIDTH = 16, REGISTERS = 16;
#endif

// Floating-point sums in single precision run over so many numbers at most before they are added up in double precision.
constexpr long CHUNK = 64;

// Channels are processed in blocks as wide as a register, the last few in narrower blocks.
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
template <typename T, int BYTES = WIDTH, typename Body>
inline void blocks(long channels, Body body, long c = 0) {
    constexpr long LANES = Block<T, BYTES>::lanes;
    for (; c + LANES <= channels; c += LANES) body(Block<T, BYTES>(), c);
    if constexpr (BYTES > 16)
        blocks<T, BYTES / 2>(channels, body, c);
    else if constexpr (BYTES == 16)
        blocks<T, 0>(channels, body, c);
}

// Calls body(block, number, channel), where as many blocks as "number" says lie side by side: two as long as there are channels for them.
// Two registers of a row serve each number of the other factor that is broadcast, so that a product is not bound by loads.
template <typename T, typename Body>
inline void pairs(long channels, Body body) {
    constexpr long LANES = Block<T, WIDTH>::lanes;
    long c = 0;
    for (; c + 2 * LANES <= channels; c += 2 * LANES) body(Block<T, WIDTH>(), std::integral_constant<long, 2>(), c);
    blocks<T>(channels, [&](auto block, long at) { body(block, std::integral_constant<long, 1>(), at); }, c);
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

// total[i] += the i-th number of the values
template <typename V>
inline void flush(V values, double* total) {
    typedef decltype(values[0] + values[0]) T;
    constexpr long LANES = sizeof(V) / sizeof(T);
    T lanes[LANES];
    store<V>(lanes, values);
    for (long lane = 0; lane < LANES; lane++) total[lane] += lanes[lane];
}

inline void flush(float value, double* total) { *total += value; }
inline void flush(double value, double* total) { *total += value; }

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
