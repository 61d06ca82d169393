// Choosing the next token from each row of logits: penalties, top-k, top-p, min-p, temperature, as `Choice` in
// src/ops/choice.rs defines them. All sums are of integers, so neither blocks nor their order change a choice.
//
// Mathematics. A finite logit l is a key of 32 bits in the order of logits; the largest is L. Its weight is the integer
// part of 2^32 e^(l - L), tempered 2^32 e^((l - L) / temperature). Filters end in a bound: a key, and how many of its
// equals are kept, the first of the vocabulary. It is found digit by digit (11, 11 and 10 bits) from histograms of counts
// and weights: top-k by rank, then top-p by weight, whose first digit is in the first histogram too.
//
//   choose_largest  penalties; best = the largest; clears the histograms. All that a greedy choice takes
//   choose_narrow   a round: narrows the bound by the histogram before, makes that of the next digit
//   choose_weigh    the tempered weights of a slice above the bound, and how many logits are the bound's equals
//   choose_pick     the token in which the drawn unit of all weights falls, in the order of the vocabulary
//
// Shapes: logits [rows][stride], the rest as in params.cuh. Grid: (n_slices, rows), choose_pick (1, rows); 256 threads.
// Bytes: 4 a logit and kernel, from the second on from a cache; the narrowing kernels 24 KiB a row and round beside.
#include "numeric.cuh"
#include "params.cuh"
#include "reduce.cuh"

constexpr int THREADS = 256;
constexpr int ITEMS = 8; // logits, buckets or slices of a thread
static_assert(CHOICE_SLICE == THREADS * ITEMS && CHOICE_BUCKETS == THREADS * ITEMS);

// Of the keys that begin with `prefix`, the largest that have so much are wanted.
struct Bound {
    uint64_t left;  // logits or weight wanted within the prefix, at least 1; of a whole key how many of its equals
    uint64_t above; // weight of the larger keys
    uint32_t prefix, unused;
};
static_assert(sizeof(Bound) == 3 * sizeof(uint64_t));

struct Slice {
    uint64_t weight, ties;
};
static_assert(sizeof(Slice) == 2 * sizeof(uint64_t));

// The digits of a key: how wide each is, and how many bits are below it.
DEVICE int digit_bits(int digit) { return digit < 2 ? 11 : 10; }
DEVICE int digit_shift(int digit) { return digit == 0 ? 21 : digit == 1 ? 10 : 0; }

// ---- logits

// Their order as integers; 0 for what is not finite. Both zeros are one.
DEVICE uint32_t key_of(float logit) {
    const uint32_t bits = bits_of(logit), sign = 0x80000000u;
    if ((bits & 0x7f800000u) == 0x7f800000u) return 0;
    if (bits == sign) return sign;
    return bits & sign ? ~bits : bits | sign;
}

DEVICE float logit_of(uint32_t key) { return float_of(key & 0x80000000u ? key ^ 0x80000000u : ~key); }

// 2^32 e^x, x <= 0. Below the bound it is less than 1.
DEVICE uint64_t weight_of(float x) { return x < -23.0f ? 0 : (uint64_t)(exponential(x) * 4294967296.0f); }

// What a row's kernels share.
struct Row {
    const ChoiceRow &choice;
    float *logits;
    uint64_t *masses;
    uint32_t *counts;
    Bound *bounds;
    Slice *slices;
    uint32_t largest; // key; 0 where no logit is finite, or before it is known

    DEVICE bool draws() const { return largest != 0 && choice.temperature > 0.0f; }
    DEVICE uint64_t mass(uint32_t key) const { return weight_of(logit_of(key) - logit_of(largest)); }
    DEVICE uint64_t weight(uint32_t key) const {
        if (mass(key) < choice.min_weight) return 0;
        return weight_of((logit_of(key) - logit_of(largest)) / choice.temperature);
    }
};

DEVICE Row row_of(const ChooseParams &p, uint32_t largest) {
    const size_t row = blockIdx.y;
    return {p.choices[row],
            p.logits + row * p.stride,
            p.masses + row * CHOICE_ROUNDS * CHOICE_BUCKETS,
            p.counts + row * CHOICE_ROUNDS * CHOICE_BUCKETS,
            (Bound *)p.bounds + row * (CHOICE_ROUNDS + 1),
            (Slice *)p.slices + row * p.n_slices,
            largest};
}

DEVICE Row row_of(const ChooseParams &p) { return row_of(p, (uint32_t)(p.best[blockIdx.y] >> 32)); }

// The key of a token, 0 beyond the vocabulary.
DEVICE uint32_t key_at(const ChooseParams &p, const Row &row, uint32_t token) {
    return token < p.n_columns ? key_of(row.logits[token]) : 0;
}

// ---- the largest

DEVICE float clamp_to_finite(float x) {
    constexpr float MOST = 3.40282347e38f;
    return x > MOST ? MOST : x < -MOST ? -MOST : x;
}

// Changes the logits of recent tokens from `first` on, for a slice.
DEVICE void penalize(const ChooseParams &p, const Row &row, uint32_t first) {
    const ChoiceRow &choice = row.choice;
    const uint32_t *recent = p.recent + choice.recent;
    for (uint32_t i = threadIdx.x; i < choice.n_recent; i += THREADS) {
        const uint32_t token = recent[2 * i];
        if (token < first || token - first >= CHOICE_SLICE || key_at(p, row, token) == 0) continue;
        const float logit = row.logits[token];
        const float scaled = clamp_to_finite(logit > 0.0f ? logit / choice.repeat : logit * choice.repeat);
        const float taken = (float)recent[2 * i + 1] * choice.frequency + choice.presence;
        row.logits[token] = clamp_to_finite(scaled - taken);
    }
}

KERNEL(choose_largest, ChooseParams, THREADS, 4) {
    const Row row = row_of(p, 0);
    const uint32_t first = CHOICE_SLICE * blockIdx.x;
    penalize(p, row, first);
    for (uint32_t i = THREADS * blockIdx.x + threadIdx.x; i < CHOICE_ROUNDS * CHOICE_BUCKETS; i += THREADS * gridDim.x) {
        row.masses[i] = 0;
        row.counts[i] = 0;
    }
    __syncthreads(); // the slice's logits are final
    uint64_t best = 0;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        const uint32_t token = first + THREADS * i + threadIdx.x, key = key_at(p, row, token);
        const uint64_t candidate = (uint64_t)key << 32 | ~token;
        if (key != 0 && candidate > best) best = candidate;
    }
    best = warp_max(best);
    if (lane_index() == 0 && best != 0) atomic_max(p.best + blockIdx.y, best);
}

// ---- the bound

struct Found {
    uint64_t before;
    uint32_t item;
};

// The item of all threads' in which a unit falls, counted through them in order, and the units before it.
DEVICE Found locate(const uint64_t (&units)[ITEMS], uint64_t before, uint64_t unit) {
    SHARED(Found, found, [1]);
    __syncthreads(); // an earlier call's readers are done
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        if (unit >= before && unit - before < units[i]) found[0] = {before, ITEMS * threadIdx.x + i};
        before += units[i];
    }
    __syncthreads();
    return found[0];
}

DEVICE uint64_t sum_of(const uint64_t (&values)[ITEMS]) {
    uint64_t sum = 0;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) sum += values[i];
    return sum;
}

// The bound one digit further, by the histogram of a round: by weight or by rank.
DEVICE Bound narrowed(const Row &row, int round, Bound bound, int digit, bool by_weight) {
    uint64_t masses[ITEMS], units[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        const int bucket = CHOICE_BUCKETS * round + CHOICE_BUCKETS - 1 - (ITEMS * (int)threadIdx.x + i);
        masses[i] = row.masses[bucket];
        units[i] = by_weight ? masses[i] : row.counts[bucket];
    }
    const Prefix prefix = block_prefix<THREADS>(sum_of(units));
    const uint64_t wanted = bound.left < prefix.total ? bound.left : prefix.total;
    const Found found = locate(units, prefix.before, wanted - 1);
    uint64_t larger = 0;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        if (ITEMS * threadIdx.x + i < found.item) larger += masses[i];
    }
    const uint64_t above = bound.above + block_prefix<THREADS>(larger).total;
    const uint32_t bucket = CHOICE_BUCKETS - 1 - found.item;
    return {wanted - found.before, above, bound.prefix << digit_bits(digit) | bucket, 0};
}

// The weight of all that top-k keeps.
DEVICE uint64_t kept_mass(const Row &row) {
    if (row.choice.top_k > 0) {
        const Bound bound = narrowed(row, 2, row.bounds[2], 2, false);
        return bound.above + bound.left * row.mass(bound.prefix);
    }
    uint64_t mass = 0;
    for (int i = 0; i < ITEMS; i++) mass += row.masses[ITEMS * threadIdx.x + i];
    return block_prefix<THREADS>(mass).total;
}

// What is known before a round; of that after the last: the key, and how many of its equals are kept.
DEVICE Bound bound_before(const Row &row, int round) {
    const ChoiceRow &choice = row.choice;
    switch (round) {
    case 0: return {0, 0, 0, 0};
    case 1: return narrowed(row, 0, {choice.top_k, 0, 0, 0}, 0, false);
    case 2: return narrowed(row, 1, row.bounds[1], 1, false);
    case 3: {
        const uint64_t wanted = multiply_high(choice.top_p, kept_mass(row));
        return narrowed(row, 0, {wanted > 0 ? wanted : 1, 0, 0, 0}, 0, true);
    }
    case 4: return narrowed(row, 3, row.bounds[3], 1, true);
    }
    if (choice.top_p > 0) {
        Bound bound = narrowed(row, 4, row.bounds[4], 2, true);
        const uint64_t each = row.mass(bound.prefix);
        bound.left = (bound.left + each - 1) / each;
        return bound;
    }
    if (choice.top_k > 0) return narrowed(row, 2, row.bounds[2], 2, false);
    return {0, 0, 0, 0};
}

// Whether a row's filters need a round.
DEVICE bool takes_part(const ChoiceRow &choice, uint32_t round) {
    const bool by_rank = round <= 2 && choice.top_k > 0, by_weight = (round == 0 || round >= 3) && choice.top_p > 0;
    return by_rank || by_weight;
}

KERNEL(choose_narrow, ChooseParams, THREADS, 2) {
    // A sum of 64 bits in shared memory would be a loop of comparisons: weights are added in two parts of at most 17 bits.
    SHARED(uint32_t, counts, [CHOICE_BUCKETS]);
    SHARED(uint32_t, low, [CHOICE_BUCKETS]);
    SHARED(uint32_t, high, [CHOICE_BUCKETS]);
    const Row row = row_of(p);
    if (!row.draws() || !takes_part(row.choice, p.round)) return;
    for (int i = threadIdx.x; i < CHOICE_BUCKETS; i += THREADS) counts[i] = low[i] = high[i] = 0;
    const Bound bound = bound_before(row, p.round);
    if (blockIdx.x == 0 && threadIdx.x == 0) row.bounds[p.round] = bound;
    const int digit = p.round <= 2 ? p.round : p.round - 2;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        const uint32_t key = key_at(p, row, CHOICE_SLICE * blockIdx.x + THREADS * i + threadIdx.x);
        const uint32_t head = (uint64_t)key >> (digit_shift(digit) + digit_bits(digit));
        if (key == 0 || head != bound.prefix) continue;
        const uint32_t bucket = key >> digit_shift(digit) & ((1u << digit_bits(digit)) - 1);
        const uint64_t mass = row.mass(key);
        atomic_add(&counts[bucket], 1u);
        if (mass == 0) continue;
        atomic_add(&low[bucket], (uint32_t)mass & 0xffff);
        atomic_add(&high[bucket], (uint32_t)(mass >> 16));
    }
    __syncthreads();
    for (int i = threadIdx.x; i < CHOICE_BUCKETS; i += THREADS) {
        if (counts[i] == 0) continue;
        atomic_add(row.counts + CHOICE_BUCKETS * p.round + i, counts[i]);
        atomic_add(row.masses + CHOICE_BUCKETS * p.round + i, ((uint64_t)high[i] << 16) + low[i]);
    }
}

// ---- the draw

KERNEL(choose_weigh, ChooseParams, THREADS, 2) {
    const Row row = row_of(p);
    if (!row.draws()) return;
    const Bound bound = bound_before(row, CHOICE_ROUNDS);
    uint64_t weight = 0, ties = 0;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        const uint32_t key = key_at(p, row, CHOICE_SLICE * blockIdx.x + THREADS * i + threadIdx.x);
        if (key > bound.prefix) weight += row.weight(key);
        ties += key == bound.prefix;
    }
    const Slice slice = {block_prefix<THREADS>(weight).total, block_prefix<THREADS>(ties).total};
    if (threadIdx.x != 0) return;
    row.slices[blockIdx.x] = slice;
    if (blockIdx.x == 0) row.bounds[CHOICE_ROUNDS] = bound;
}

// Adds the weights of the bound's equals, `each`, as far as they are kept; `before` of them came before.
DEVICE void add_kept(const Bound &bound, uint64_t each, uint64_t before, const uint64_t (&ties)[ITEMS],
                     uint64_t (&weights)[ITEMS]) {
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        const uint64_t left = bound.left > before ? bound.left - before : 0;
        weights[i] += each * (left < ties[i] ? left : ties[i]);
        before += ties[i];
    }
}

KERNEL(choose_pick, ChooseParams, THREADS, 2) {
    const Row row = row_of(p);
    if (!row.draws()) return;
    const Bound bound = row.bounds[CHOICE_ROUNDS];
    const uint64_t tie_weight = bound.left > 0 ? row.weight(bound.prefix) : 0;
    uint64_t ties[ITEMS], weights[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        const uint32_t slice = ITEMS * threadIdx.x + i;
        ties[i] = slice < p.n_slices ? row.slices[slice].ties : 0;
        weights[i] = slice < p.n_slices ? row.slices[slice].weight : 0;
    }
    add_kept(bound, tie_weight, block_prefix<THREADS>(sum_of(ties)).before, ties, weights);
    const Prefix slices = block_prefix<THREADS>(sum_of(weights));
    const uint64_t unit = multiply_high(row.choice.random, slices.total);
    const Found slice = locate(weights, slices.before, unit);
    uint64_t ties_before = 0;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        if (ITEMS * threadIdx.x + i < slice.item) ties_before += ties[i];
    }
    ties_before = block_prefix<THREADS>(ties_before).total;

    const uint32_t first = CHOICE_SLICE * slice.item + ITEMS * threadIdx.x;
    uint32_t keys[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        keys[i] = key_at(p, row, first + i);
        ties[i] = keys[i] == bound.prefix;
        weights[i] = keys[i] > bound.prefix ? row.weight(keys[i]) : 0;
    }
    add_kept(bound, tie_weight, ties_before + block_prefix<THREADS>(sum_of(ties)).before, ties, weights);
    const Prefix tokens = block_prefix<THREADS>(sum_of(weights));
    const Found token = locate(weights, tokens.before, unit - slice.before);
    const uint32_t chosen = CHOICE_SLICE * slice.item + token.item;
    if (threadIdx.x == 0) p.best[blockIdx.y] = (uint64_t)row.largest << 32 | (uint32_t)~chosen;
}
