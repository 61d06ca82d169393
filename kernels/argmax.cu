// The first of the largest finite logits of each row: what greedy decoding chooses.
//
// Shapes: logits [rows][stride], best [rows]; a row without a finite logit answers 0xffffffff.
// Grid: (rows), 1024 threads. Bytes moved: 4 a logit.
#include "params.cuh"

// A logit and where it stands. None is minus infinity, which no finite logit is.
struct Candidate {
    float logit;
    uint32_t index;
};

// The larger, or the first of two equal.
DEVICE Candidate better(Candidate a, Candidate b) {
    const bool second = b.logit > a.logit || (b.logit == a.logit && b.index < a.index);
    return second ? b : a;
}

DEVICE Candidate warp_best(Candidate best) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2)
        best = better(best, {shuffle_xor(best.logit, mask), shuffle_xor(best.index, mask)});
    return best;
}

KERNEL(argmax, ArgmaxParams, 1024, 1) {
    SHARED(Candidate, of_warps, [WARP]);
    const float *logits = p.logits + (size_t)blockIdx.x * p.stride;
    Candidate best = {-INFINITY, 0xffffffffu};
#pragma unroll 8
    for (uint32_t i = threadIdx.x; i < p.n_columns; i += blockDim.x) {
        const float logit = logits[i];
        if (logit > best.logit && logit < INFINITY) best = {logit, i};
    }
    best = warp_best(best);
    if (lane_index() == 0) of_warps[warp_index()] = best;
    __syncthreads();
    if (warp_index() != 0) return;
    best = warp_best(of_warps[lane_index()]);
    if (lane_index() == 0) p.best[blockIdx.x] = best.index;
}
