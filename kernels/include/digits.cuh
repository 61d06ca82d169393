// Numbers as fixed point in three signed bytes: x = unit · (65536 · high + 256 · middle + low) / 2^22, for numbers that
// share a unit, a power of two. Products of two such numbers are sums of products of bytes, which the tensor cores make
// exactly.
//
// A number is rounded once, to a multiple of unit / 2^21, ties to even: an error of at most 2^-22 of the largest number
// under the unit. Halves down to 2^-11 of the largest are exact.
#pragma once
#include "platform.cuh"

// The unit for numbers up to a magnitude, given as its bits: the power of two at or below it, or the next one where the
// digits would not fit. Numbers all below 2^-100 count as zeros, with a unit of 0. Where there is an infinity among them
// or what is not a number, the unit is not a number, and makes all that it is multiplied by the same.
DEVICE float unit_of(uint32_t largest) {
    // Times 1 + 2^-6, so that codes stay below 127 · 2^16.
    const uint32_t exponent = bits_of(float_of(largest) * 1.015625f) & 0x7f800000;
    const float unit = float_of(exponent < 27 << 23 ? 0 : exponent);
    return fmaf(unit, 0.0f, unit); // infinity becomes what is not a number
}

// What takes a number under this unit to an integer below 2^22 in magnitude: 2^21 / unit. For a unit of 0 it is too small
// to matter.
DEVICE float inverse_of(float unit) { return float_of((275u << 23) - bits_of(unit)); }

// What sums of products of codes are multiplied by, besides both units.
constexpr float PRODUCT_UNIT = 9.53674316e-7f; // 2^-20

// A digit each of four numbers.
struct Digits {
    uint32_t high, middle, low;
};

// A number's code in the lower 24 bits, with 128 added to the two lower digits: its bytes are then digits from -128 on.
DEVICE uint32_t code_of(float x, float inverse) {
    constexpr float INTEGERS = 12582912.0f; // 1.5 · 2^23: a sum with it is an integer, in the lower bits
    return 2 * bits_of(fmaf(x, inverse, INTEGERS)) + 0x808080; // 2 · 2^22 leave the lower 24 bits
}

DEVICE Digits digits_of(const uint32_t (&codes)[4]) {
    const uint32_t first = select_bytes(codes[0], codes[1], 0x5140), second = select_bytes(codes[2], codes[3], 0x5140);
    const uint32_t third = select_bytes(codes[0], codes[1], 0x0062), fourth = select_bytes(codes[2], codes[3], 0x0062);
    return {select_bytes(third, fourth, 0x5410), select_bytes(first, second, 0x7632) ^ 0x80808080,
            select_bytes(first, second, 0x5410) ^ 0x80808080};
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

// Eight rows as first operands, whose 16 rows are high and middle digits, then low ones and nothing.
struct RowOperands {
    uint32_t upper[4], lower[4];

    DEVICE RowOperands(const Fragment &a)
        : upper{a.first.high, a.first.middle, a.second.high, a.second.middle}, lower{a.first.low, 0, a.second.low, 0} {}

    // In shared memory the upper rows of all lanes come first.
    DEVICE explicit RowOperands(const Words4 *from) {
        const Words4 first = from[0], then = from[WARP];
        upper[0] = first.x, upper[1] = first.y, upper[2] = first.z, upper[3] = first.w;
        lower[0] = then.x, lower[1] = then.y, lower[2] = then.z, lower[3] = then.w;
    }
    DEVICE void store(Words4 *into) const {
        into[0] = {upper[0], upper[1], upper[2], upper[3]};
        into[WARP] = {lower[0], lower[1], lower[2], lower[3]};
    }
};

// Sums of products of rows (a lane has row g) and columns, on the tensor cores.
struct Products {
    int high[4], middle[4], low[4]; // by digits of the second operand

    // Products over 32 columns, but those of a low digit with a middle or a low one.
    DEVICE Products(const RowOperands &a, const Fragment &b) {
        mma_k32_ss(high, a.upper, b.first.high, b.second.high);
        mma_k32_ss(middle, a.upper, b.first.middle, b.second.middle);
        mma_k32_ss(low, a.upper, b.first.low, b.second.low);
        add_mma_k32_ss(low, a.lower, b.first.high, b.second.high);
    }
    // Adds 32 more.
    DEVICE void add(const RowOperands &a, const Fragment &b) {
        add_mma_k32_ss(high, a.upper, b.first.high, b.second.high);
        add_mma_k32_ss(middle, a.upper, b.first.middle, b.second.middle);
        add_mma_k32_ss(low, a.upper, b.first.low, b.second.low);
        add_mma_k32_ss(low, a.lower, b.first.high, b.second.high);
    }
    // The sum of row g and column 2t + i, to be multiplied by both units. Up to 256 columns fit an integer.
    DEVICE float sum(int i) const {
        const int lowest = low[i] + middle[i + 2] + 128; // 128 rounds
        return (float)(256 * high[i] + (middle[i] + high[i + 2]) + (lowest >> 8));
    }
};
