// Numbers as fixed point in three signed bytes: x = unit · (65536 · high + 256 · middle + low) / 2^22, for numbers that
// share a unit, a power of two. Products of two such numbers are sums of products of bytes, which the tensor cores make
// exactly.
//
// A number is rounded once, to a multiple of unit / 2^21, ties to even: an error of at most 2^-22 of the largest number
// under the unit. Halves down to 2^-11 of the largest are exact.
#pragma once
#include "platform.cuh"

// The unit for numbers up to a magnitude, given as its bits: the power of two at or below it, or the next one where the
// digits would not fit. Numbers all below 2^-100 count as zeros, with a unit of 0. Where there is an infinity among them or
// what is not a number, the unit is not a number, and makes all that it is multiplied by the same.
DEVICE float unit_of(uint32_t largest) {
    const uint32_t exponent = (largest + (1 << 17)) >> 23; // codes stay below 127 · 2^16
    return float_of(exponent >= 255 ? 0x7fffffff : exponent < 27 ? 0 : exponent << 23);
}

// What takes a number under this unit to an integer below 2^22 in magnitude: 2^21 / unit. Where there is no such unit it takes
// finite numbers to 0.
DEVICE float inverse_of(float unit) { return float_of((275u << 23) - bits_of(unit)); }

// What sums of products of codes are multiplied by, besides both units.
constexpr float PRODUCT_UNIT = 9.53674316e-7f; // 2^-20

// A digit each of four numbers.
struct Digits {
    uint32_t high, middle, low;
};

// A number's code in the lower 24 bits, with 128 added to the two lower digits, so that bytes of it are digits from -128 on.
DEVICE uint32_t code_of(float x, float inverse) {
    constexpr float INTEGERS = 12582912.0f; // 1.5 · 2^23: a sum with it is an integer, in the lower bits
    return 2 * bits_of(fmaf(x, inverse, INTEGERS)) + 0x808080; // 2 · 2^22 leave the lower 24 bits
}

DEVICE Digits digits_of(const uint32_t (&codes)[4]) {
    const uint32_t first = pick_bytes(codes[0], codes[1], 0x5140), second = pick_bytes(codes[2], codes[3], 0x5140);
    const uint32_t third = pick_bytes(codes[0], codes[1], 0x0062), fourth = pick_bytes(codes[2], codes[3], 0x0062);
    return {pick_bytes(third, fourth, 0x5410), pick_bytes(first, second, 0x7632) ^ 0x80808080,
            pick_bytes(first, second, 0x5410) ^ 0x80808080};
}

// Digits of eight numbers, as both tensor core operands have them: four neighbours in the columns 4t .. 4t + 3, four in
// 16 + 4t on.
struct Fragment {
    Digits first, second;

    // In shared memory the high digits of all lanes come first, then the middle and the low ones.
    DEVICE static Fragment load(const Words2 *from) {
        const Words2 high = from[0], middle = from[WARP], low = from[2 * WARP];
        return {{high.x, middle.x, low.x}, {high.y, middle.y, low.y}};
    }
    DEVICE void store(Words2 *into) const {
        into[0] = {first.high, second.high};
        into[WARP] = {first.middle, second.middle};
        into[2 * WARP] = {first.low, second.low};
    }
};
constexpr int FRAGMENT_WORDS = 3 * WARP; // pairs of them

DEVICE Fragment fragment_of(const float (&x)[8], float inverse) {
    uint32_t codes[2][4];
#pragma unroll
    for (int i = 0; i < 8; i++) codes[i / 4][i % 4] = code_of(x[i], inverse);
    return {digits_of(codes[0]), digits_of(codes[1])};
}

// Sums of products of rows of the first operand (a lane holds its row g) and columns of the second, on the tensor cores.
// The 16 rows of an mma are the high and the middle digits of eight rows.
struct Products {
    int high[4] = {}, middle[4] = {}, low[4] = {128, 128}; // by digits of the second operand; 128 rounds

    // Adds products over 32 columns, but those of a low digit with a middle or a low one.
    DEVICE void add(const Fragment &a, const Fragment &b) {
        const uint32_t upper[4] = {a.first.high, a.first.middle, a.second.high, a.second.middle};
        const uint32_t lower[4] = {a.first.low, 0, a.second.low, 0};
        add_mma_k32_ss(high, upper, b.first.high, b.second.high);
        add_mma_k32_ss(middle, upper, b.first.middle, b.second.middle);
        add_mma_k32_ss(low, upper, b.first.low, b.second.low);
        add_mma_k32_ss(low, lower, b.first.high, b.second.high);
    }
    // The sum of row g and column 2t + i, to be multiplied by both units. Up to 256 columns fit an integer.
    DEVICE float sum(int i) const {
        const int thousands = 256 * high[i] + (middle[i] + high[i + 2]) + ((low[i] + middle[i + 2]) >> 8);
        return (float)thousands;
    }
};
