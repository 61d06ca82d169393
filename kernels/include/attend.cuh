// Attention's arithmetic, which decode and prefill share: each function has one order of operations, and together they
// make a row's bits the same in both.
//
// A page (64 positions) gives a query a partial result: the largest score m, the sum l of p = e^(score - m), and
// o = Σ p · v. Pages of a split are combined in order, then splits in order, and the row's result is o / l:
//   m' = max(m1, m2),  l' = l1 · e^(m1 - m') + l2 · e^(m2 - m'),  o' likewise; the first partial is taken as it is.
// A page holds at least one position up to the row's own; what lies beyond that one has no part in any sum.
#pragma once
#include "cache.cuh"
#include "numeric.cuh"
#include "reduce.cuh"

constexpr int VECTOR = 8;   // elements of a head that are taken together: 16 bytes of halves
constexpr int QUARTERS = 4; // lanes that share a position's dot product: lane j takes vectors j, j + 4, ..
constexpr int STEP_POSITIONS = WARP / QUARTERS; // positions whose scores a warp works out side by side

DEVICE float dot(const float (&q)[VECTOR], const float (&k)[VECTOR], float sum) {
#pragma unroll
    for (int i = 0; i < VECTOR; i++) sum = fmaf(q[i], k[i], sum);
    return sum;
}

// (quarter 0 + quarter 1) + (quarter 2 + quarter 3); each of the four lanes gets it.
DEVICE float sum_of_quarters(float sum) {
    sum += shuffle_xor(sum, 1);
    return sum + shuffle_xor(sum, 2);
}

struct Mass {
    float largest, sum;
};

// Turns a page's scores, which the warp has written, into p. The lane holds positions `lane` and `lane + 32`.
DEVICE Mass weigh(float *scores, int n_valid) {
    const int lane = lane_index();
    const bool valid[2] = {lane < n_valid, lane + WARP < n_valid};
    const float first = valid[0] ? scores[lane] : -INFINITY, second = valid[1] ? scores[lane + WARP] : -INFINITY;
    const float largest = warp_max(fmaxf(first, second));
    const float p = valid[0] ? exponential(first - largest) : 0.0f;
    const float q = valid[1] ? exponential(second - largest) : 0.0f;
    scores[lane] = p;
    scores[lane + WARP] = q;
    return {largest, warp_sum(p + q)};
}

// What two partial results are multiplied by where they meet.
struct Weights {
    float before, added;
};

DEVICE Weights merge(Mass &into, Mass added) {
    const float largest = fmaxf(into.largest, added.largest);
    const Weights weights = {exponential(into.largest - largest), exponential(added.largest - largest)};
    into.sum = fmaf(added.sum, weights.added, into.sum * weights.before);
    into.largest = largest;
    return weights;
}

DEVICE float mix(float into, float added, Weights weights) {
    return fmaf(added, weights.added, into * weights.before);
}
