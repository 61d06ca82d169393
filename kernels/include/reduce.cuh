// Sums and maxima over a warp and over a block, each with one order whatever the schedule.
#pragma once
#include "platform.cuh"

// Butterfly: the partners at distance 16 first, then 8, 4, 2, 1. Every lane gets the sum.
DEVICE float warp_sum(float value) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

DEVICE float warp_max(float value) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
    return value;
}

// The warp's number, in a form of which the compiler knows that all lanes have the same.
DEVICE int uniform_warp_index() { return shuffle(warp_index(), 0); }

// The sum of a block's warps, in their order; every thread gets it. All threads of the block take part.
template <int THREADS> DEVICE float block_sum(float value) {
    SHARED(float, sums, [THREADS / WARP]);
    value = warp_sum(value);
    __syncthreads(); // an earlier call's readers are done
    if (lane_index() == 0) sums[warp_index()] = value;
    __syncthreads();
    float total = 0.0f;
#pragma unroll
    for (int warp = 0; warp < THREADS / WARP; warp++) total += sums[warp];
    return total;
}

// ---- integers of 64 bits

DEVICE uint64_t shuffle_words(uint64_t value, int lane) {
    const uint32_t low = shuffle((uint32_t)value, lane), high = shuffle((uint32_t)(value >> 32), lane);
    return (uint64_t)high << 32 | low;
}

DEVICE uint64_t warp_max(uint64_t value) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        const uint64_t other = shuffle_words(value, lane_index() ^ mask);
        if (other > value) value = other;
    }
    return value;
}

struct Prefix {
    uint64_t before, total;
};

// The sum of the values of a block's threads before this one, and of all. All threads of the block take part.
template <int THREADS> DEVICE Prefix block_prefix(uint64_t value) {
    SHARED(uint64_t, sums, [THREADS / WARP]);
    uint64_t sum = value;
#pragma unroll
    for (int distance = 1; distance < WARP; distance *= 2) {
        const uint64_t other = shuffle_words(sum, max(lane_index() - distance, 0));
        if (lane_index() >= distance) sum += other;
    }
    __syncthreads(); // an earlier call's readers are done
    if (lane_index() == WARP - 1) sums[warp_index()] = sum;
    __syncthreads();
    Prefix prefix = {sum - value, 0};
#pragma unroll
    for (int warp = 0; warp < THREADS / WARP; warp++) {
        if (warp < warp_index()) prefix.before += sums[warp];
        prefix.total += sums[warp];
    }
    return prefix;
}
