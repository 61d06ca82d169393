// Work that the last block to arrive does for all: each block of a group writes its part and counts itself in; the one that
// finds all others counted reads what they wrote. Which block that is does not matter to what it computes.
#pragma once
#include "platform.cuh"

constexpr int MOST_GROUPS = 16; // that a block counts itself into at a time

// Counts this block into groups 0 .. n, of which group i has `expected(i)` blocks, after all that its threads wrote; bit i
// of the answer says that it was the last of group i and may read what the others wrote. Counters are 0 before the first
// and after the last. All threads of the block take part.
template <class Expected> DEVICE uint32_t arrive(uint32_t *counters, uint32_t n, Expected expected) {
    SHARED(uint32_t, is_last, [MOST_GROUPS]);
    __syncthreads();
    if (threadIdx.x < n) {
        const bool last = count_in(counters + threadIdx.x) + 1 == expected(threadIdx.x);
        if (last) counters[threadIdx.x] = 0;
        is_last[threadIdx.x] = last;
    }
    __syncthreads();
    uint32_t bits = 0;
    for (uint32_t i = 0; i < n; i++) bits |= is_last[i] << i;
    return bits;
}
