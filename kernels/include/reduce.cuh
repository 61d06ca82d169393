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
