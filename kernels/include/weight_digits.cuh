// Weights times their integer scales as two digits of eight bits, q · scale = 256 · upper + lower, one struct per tile
// format. A sum of products over all of a block of 256 columns then needs nothing between its groups: the tensor cores add
// digit by digit, and
//
//   Σ q · scale · code = 256 · Σ upper · code + Σ lower · code
//
// are the integers of tiles.cuh, but for the power of two that its codes carry: a block's terms have the same bits.
//
//   Q4_K  q ≤ 15, scale ≤ 63: at most 945       Q5_K  q ≤ 31, scale ≤ 63: at most 1953     both digits unsigned
//   Q6_K  q - 32 in -32..31, scale in -128..127: -4064..4096                               lower unsigned, upper signed
//
// `fragments(group, ...)` answers a lane's part of both digits for 32 columns as an mma's first operand; `multiply_upper` is
// the product that upper digits want. `terms(activations, n, values, terms)` answers the terms of tiles.cuh for rows g and
// g + 8, of the two rows' values (value_of()). Every lane of the warp takes part.
#pragma once
#include "hopper.cuh"
#include "tiles.cuh"

// The digits of four products, of the bytes of `codes` with one scale; `offset` is added to both halves of a word.
DEVICE void split(uint32_t codes, uint32_t scale, uint32_t offset, uint32_t &upper, uint32_t &lower) {
    const uint32_t even = (codes & 0x00ff00ff) * scale + offset;
    const uint32_t odd = select_bytes(codes, 0, 0x4341) * scale + offset;
    upper = select_bytes(even, odd, 0x7351);
    lower = select_bytes(even, odd, 0x6240);
}

// The two sums as one number of 256 columns, as DigitSums has it.
DEVICE float value_of(int high, int low) {
    DigitSums<1> sums;
    sums.high[0][0] = high;
    sums.low[0][0] = low;
    return sums.value(0, 0);
}

// ---- Q4_K and Q5_K

struct NibblesQ4K {
    using Layout = LayoutQ4K;

    // The codes of a group: a byte each.
    DEVICE static void codes(const uint8_t *tile, int group, uint32_t (&q)[4]) {
        const Words4 v = words(tile)[WARP * (group / 2) + lane_index()];
        const uint32_t word[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) q[i] = (group % 2 ? word[i] >> 4 : word[i]) & 0x0f0f0f0f;
    }
};

struct NibblesQ5K {
    using Layout = LayoutQ5K;

    DEVICE static void codes(const uint8_t *tile, int group, uint32_t (&q)[4]) {
        const Words4 v = words(tile)[WARP * (group / 2) + lane_index()], f = words(tile + Layout::HIGH)[lane_index()];
        const uint32_t word[4] = {v.x, v.y, v.z, v.w}, fifth[4] = {f.x, f.y, f.z, f.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t bits = group < 4 ? fifth[i] << (4 - group) : fifth[i] >> (group - 4);
            q[i] = ((group % 2 ? word[i] >> 4 : word[i]) & 0x0f0f0f0f) | (bits & 0x10101010);
        }
    }
};

template <class Nibbles> struct AffineDigits {
    using Layout = typename Nibbles::Layout;
    const uint8_t *tile;
    AffineScales rows[2];

    DEVICE explicit AffineDigits(const uint8_t *tile) : tile(tile) {
#pragma unroll
        for (int r = 0; r < 2; r++) rows[r].load(words(tile + Layout::SCALES)[lane_index() / 4 + 8 * r]);
    }
    DEVICE void fragments(int group, uint32_t (&upper)[4], uint32_t (&lower)[4]) const {
        uint32_t q[4];
        Nibbles::codes(tile, group, q);
#pragma unroll
        for (int i = 0; i < 4; i++)
            split(q[i], unsigned_byte(rows[i % 2].scales[group / 4], group % 4), 0, upper[i], lower[i]);
    }
    DEVICE static void multiply_upper(Accumulators &c, const uint32_t (&a)[4], uint64_t b, bool adds) {
        multiply_us(c, a, b, adds);
    }
    template <class Activations>
    DEVICE void terms(const Activations &activations, int n, const float (&values)[2], float (&terms)[2]) const {
        int minima[2];
        sum_minima(rows, activations, n, minima);
#pragma unroll
        for (int r = 0; r < 2; r++) terms[r] = fmaf(rows[r].d(), values[r], -(rows[r].dmin() * (float)minima[r]));
    }
};

using DigitsQ4K = AffineDigits<NibblesQ4K>;
using DigitsQ5K = AffineDigits<NibblesQ5K>;

// ---- Q6_K

struct DigitsQ6K {
    using Layout = LayoutQ6K;
    const uint8_t *tile;

    DEVICE explicit DigitsQ6K(const uint8_t *tile) : tile(tile) {}
    DEVICE void fragments(int group, uint32_t (&upper)[4], uint32_t (&lower)[4]) const {
        const int lane = lane_index(), half = group / 4, quarter = group % 4;
        const Words4 v = words(tile)[WARP * (2 * half + quarter % 2) + lane];
        const Words4 f = words(tile + Layout::HIGH)[WARP * half + lane];
        const uint32_t word[4] = {v.x, v.y, v.z, v.w}, pair[4] = {f.x, f.y, f.z, f.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t bits = quarter < 2 ? pair[i] << (4 - 2 * quarter) : pair[i] >> (2 * quarter - 4);
            const uint32_t q = ((quarter < 2 ? word[i] : word[i] >> 4) & 0x0f0f0f0f) | (bits & 0x30303030);
            const int8_t *scales = (const int8_t *)(tile + Layout::SCALES) + STRIP_ROWS * (lane / 4 + 8 * (i % 2));
            const uint32_t scale = (uint32_t)(int)scales[2 * group + i / 2];
            // (q - 32) · scale + 2^15 in each half of a word is not negative, so that no half borrows from the other.
            split(q, scale, 0x80008000 - 0x00200020 * scale, upper[i], lower[i]);
            upper[i] ^= 0x80808080;
        }
    }
    DEVICE static void multiply_upper(Accumulators &c, const uint32_t (&a)[4], uint64_t b, bool adds) {
        multiply_ss(c, a, b, adds);
    }
    template <class Activations>
    DEVICE void terms(const Activations &, int, const float (&values)[2], float (&terms)[2]) const {
        const uint16_t *d = (const uint16_t *)(tile + Layout::SUPER_SCALES) + lane_index() / 4;
#pragma unroll
        for (int r = 0; r < 2; r++) terms[r] = half_to_float(d[8 * r]) * values[r];
    }
};
