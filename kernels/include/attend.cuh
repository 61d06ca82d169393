// Attention's arithmetic, which decode and prefill share: each function has one order of operations, and together they
// make a row's bits the same in both.
//
// Dot products are sums of products in fixed point (digits.cuh). A query has one unit, so has the key of a position, and
// its value has one for each GROUP of dimensions: codes depend on nothing but the number's own vector. A warp takes up to
// 8 queries and a page (64 positions):
//   score = q · k · scale: an integer sum over the head's dimensions, turned into a single once
//   m = the largest score, p = e^(score - m), l = Σ p
//   o = Σ p · v: p times the unit of v, in fixed point with one unit for each row, 32 positions and GROUP dimensions: an
//   integer sum over 32 positions; the first 32 positions, then the others
// Pages of a split are combined in order, then splits in order, and the row's result is o / l:
//   m' = max(m1, m2),  l' = l1 · e^(m1 - m') + l2 · e^(m2 - m'),  o' likewise; the first partial is taken as it is.
// A page holds at least one position up to the row's own; what lies beyond that one is read and has no part in any sum.
// A key or a value (GROUP dimensions of it) with an infinity in it, or with what is not a number, makes results that are
// not numbers.
//
// With g = lane / 4 and t = lane % 4, a lane has query g and
//   of a tile of 8 positions the scores of positions 2t and 2t + 1
//   of 32 positions those of its scores; so weights are operands where they arise
//   of 32 dimensions 8t .. 8t + 7 of queries, keys and results, 4g .. 4g + 3 of values.
#pragma once
#include "cache.cuh"
#include "digits.cuh"
#include "numeric.cuh"

constexpr int VECTOR = 8;         // dimensions of a head that a lane has side by side
constexpr int CHUNK = 32;         // columns of an mma: dimensions of scores, positions of weighted values
constexpr int TILE_POSITIONS = 8; // positions whose scores are made together
constexpr int TILES = PAGE_TOKENS / TILE_POSITIONS;
constexpr int HALVES = PAGE_TOKENS / CHUNK;
constexpr int LANE_SCORES = 2 * TILES; // of a page
constexpr int GROUP = 64;              // dimensions of a value under one unit
constexpr int GROUP_CHUNKS = GROUP / CHUNK;

DEVICE int query_of_lane() { return lane_index() / 4; }
DEVICE int part_of_lane() { return lane_index() % 4; }

// The largest of the four lanes that have a query or a key.
DEVICE uint32_t largest_of_parts(uint32_t value) {
    value = max(value, shuffle_xor(value, 1));
    return max(value, shuffle_xor(value, 2));
}

// The largest of the eight lanes that have a position's value, of four positions.
DEVICE void largest_of_queries(const Largest<float> (&of_lane)[4], uint32_t (&bits)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        bits[i] = of_lane[i].word;
#pragma unroll
        for (int mask = 4; mask < WARP; mask *= 2) bits[i] = max(bits[i], shuffle_xor(bits[i], mask));
    }
}

// Halves go two positions in a word.
DEVICE void largest_of_queries(const Largest<uint16_t> (&of_lane)[4], uint32_t (&bits)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t a = of_lane[i].word, b = of_lane[i + 1].word;
        uint32_t both = larger_halves(select_bytes(a, b, 0x5410), select_bytes(a, b, 0x7632));
#pragma unroll
        for (int mask = 4; mask < WARP; mask *= 2) both = larger_halves(both, shuffle_xor(both, mask));
        bits[i] = bits_of(half_to_float((uint16_t)both));
        bits[i + 1] = bits_of(half_to_float((uint16_t)(both >> 16)));
    }
}

// ---- scores

// Queries as first operands.
template <int CHUNKS> struct Queries {
    Fragment chunks[CHUNKS];
    float factor; // what their scores are multiplied by, besides the unit of a key

    // `query` is the lane's; zeros where it is not there.
    DEVICE void load_rows(const float *query, bool is_there, uint32_t head_dim, float scale) {
        float x[CHUNKS][VECTOR] = {};
        uint32_t largest = 0;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const uint32_t d = CHUNK * c + VECTOR * part_of_lane();
            if (is_there && d < head_dim) load(query + d, x[c]);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) largest = max(largest, bits_of(x[c][i]) & 0x7fffffff);
        }
        const float unit = unit_of(largest_of_parts(largest));
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) chunks[c] = fragment_of(x[c], inverse_of(unit));
        factor = unit * (scale * PRODUCT_UNIT);
    }
};

// Keys of a tile as the cache holds them; the lane's is that of position g.
template <typename Element, int CHUNKS> struct KeyTile {
    Pack<Element, VECTOR> chunks[CHUNKS];

    DEVICE void load_key(const Element *key, uint32_t head_dim) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const uint32_t d = CHUNK * c + VECTOR * part_of_lane();
            chunks[c].load(key + d, d < head_dim);
        }
    }
    DEVICE float unit() const {
        Largest<Element> largest;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) largest.add(chunks[c]);
        return unit_of(largest_of_parts(largest.bits()));
    }
    // A second operand.
    DEVICE Fragment fragment(int c, float unit) const {
        float x[VECTOR];
#pragma unroll
        for (int i = 0; i < VECTOR; i++) x[i] = chunks[c].at(i);
        return fragment_of(x, inverse_of(unit));
    }
};

// The lane's score of a tile's position 2t + i, whose key has this unit.
DEVICE float score_of(const Products &products, int i, float query_factor, float key_unit) {
    return products.sum(i) * query_factor * key_unit;
}

// ---- weights

struct Mass {
    float largest, sum;
};

// Whether the lane's score `index` of a page is of one of the row's n_valid positions.
DEVICE bool is_valid(int index, int n_valid) {
    return index / 2 * TILE_POSITIONS + index % 2 < n_valid - 2 * part_of_lane();
}

// Turns the lane's scores of a page into p. Σ p: a lane's in the order of positions, then (part 0 + part 1) + (part 2 +
// part 3).
DEVICE Mass weigh(float (&scores)[LANE_SCORES], int n_valid) {
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < LANE_SCORES; i++) {
        if (!is_valid(i, n_valid)) scores[i] = -INFINITY;
        largest = fmaxf(largest, scores[i]);
    }
    largest = fmaxf(largest, shuffle_xor(largest, 1));
    largest = fmaxf(largest, shuffle_xor(largest, 2));
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < LANE_SCORES; i++) {
        scores[i] = exponential(scores[i] - largest);
        sum += scores[i];
    }
    sum += shuffle_xor(sum, 1);
    return {largest, sum + shuffle_xor(sum, 2)};
}

// The position in a page of the lane's score `i` of a half.
DEVICE int position_of(int half, int i) { return CHUNK * half + TILE_POSITIONS * (i / 2) + 2 * part_of_lane() + i % 2; }

// The lane's weights of a page in shared memory, in pairs, one for each tile; no other lane reads or writes them.
DEVICE void store_weights(Words2 *into, const float (&p)[LANE_SCORES]) {
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) into[tile * WARP] = {bits_of(p[2 * tile]), bits_of(p[2 * tile + 1])};
}

template <int N> DEVICE void load_weights(const Words2 *from, float (&p)[N]) {
#pragma unroll
    for (int tile = 0; tile < N / 2; tile++) {
        const Words2 both = from[tile * WARP];
        p[2 * tile] = float_of(both.x), p[2 * tile + 1] = float_of(both.y);
    }
}

// Weights of 32 positions as a first operand.
struct WeightedRows {
    Fragment rows;
    float factor; // what their sums are multiplied by

    // `weights` are the lane's of a page; `value_unit(i)` is that of the value at its position `i` of this half.
    template <typename ValueUnit>
    DEVICE WeightedRows(const Words2 *weights, int half, int n_valid, ValueUnit value_unit) {
        float p[VECTOR];
        load_weights(weights + half * (VECTOR / 2) * WARP, p);
        float weighted[VECTOR];
        uint32_t largest = 0;
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            weighted[i] = is_valid(VECTOR * half + i, n_valid) ? p[i] * value_unit(i) : 0.0f;
            largest = max(largest, bits_of(weighted[i]) & 0x7fffffff);
        }
        const float unit = unit_of(largest_of_parts(largest));
        rows = fragment_of(weighted, inverse_of(unit));
        factor = unit * PRODUCT_UNIT;
    }
};

// ---- values

// Four of the lane's eight positions of a half, GROUP dimensions of their values as the cache holds them.
template <typename Element> struct ValueQuad {
    Pack<Element, 4> values[4][GROUP_CHUNKS];
    float units[4];

    // Quad `quad` (0 or 1) of a half; `page` begins at the group's first dimension, from which on the head has `dims`.
    DEVICE void load_values(const Element *page, int half, int quad, uint32_t head_dim, int dims) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const Element *value = page + (position_of(half, 4 * quad + i) * head_dim + 4 * query_of_lane());
#pragma unroll
            for (int c = 0; c < GROUP_CHUNKS; c++)
                values[i][c].load(value + CHUNK * c, CHUNK * c + 4 * query_of_lane() < dims);
        }
    }
    DEVICE void find_units() {
        Largest<Element> largest[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int c = 0; c < GROUP_CHUNKS; c++) largest[i].add(values[i][c]);
        uint32_t bits[4];
        largest_of_queries(largest, bits);
#pragma unroll
        for (int i = 0; i < 4; i++) units[i] = unit_of(bits[i]);
    }
    // Digits of the four positions' dimension 32c + 4g + i.
    DEVICE Digits digits(int c, int i) const {
        uint32_t codes[4];
#pragma unroll
        for (int position = 0; position < 4; position++)
            codes[position] = code_of(values[position][c].at(i), inverse_of(units[position]));
        return digits_of(codes);
    }
};

// Σ p · v over a half of a page: `values` is the second operand whose column g is dimension 4g + i of 32; the lane's
// results are those of dimensions 8t + i and 8t + 4 + i. The second half adds to what the first one gave.
DEVICE void weigh_values(const WeightedRows &rows, const Fragment &values, bool is_first, float &o, float &o_beyond) {
    const Products products(rows.rows, values);
    o = is_first ? products.sum(0) * rows.factor : fmaf(products.sum(0), rows.factor, o);
    o_beyond = is_first ? products.sum(1) * rows.factor : fmaf(products.sum(1), rows.factor, o_beyond);
}

// ---- partial results

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
