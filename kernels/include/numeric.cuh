// Functions that must give the same bits on every GPU and in the emulator: IEEE single precision with explicit fmaf.
#pragma once
#include "platform.cuh"

// e^x for x <= 0 (and as far up as 88), within 2 units in the last place: 2^n times a polynomial of the rest. Below -87
// it is 0, so that nothing subnormal arises; exponential(0) is exactly 1. What is not a number stays so. Without branches:
// what is worked out beyond the bounds is not taken.
DEVICE float exponential(float x) {
    constexpr float INTEGERS = 12582912.0f; // 1.5 · 2^23: a sum with it is rounded to an integer, in the lower bits
    const float shifted = x * 1.44269504f + INTEGERS, n = shifted - INTEGERS;
    float r = fmaf(n, -0.693145752f, x); // the upper bits of ln 2: n times them is exact
    r = fmaf(n, -1.42860677e-6f, r);
    float p = 1.98756915e-4f;
    p = fmaf(p, r, 1.39819995e-3f);
    p = fmaf(p, r, 8.33345190e-3f);
    p = fmaf(p, r, 4.16657962e-2f);
    p = fmaf(p, r, 1.66666655e-1f);
    p = fmaf(p, r, 5.00000012e-1f);
    p = fmaf(p * r, r, r) + 1.0f;
    const float scaled = float_of(bits_of(p) + (bits_of(shifted) << 23));
    return x < -87.0f ? 0.0f : x <= 88.0f ? scaled : x + INFINITY;
}

DEVICE float silu(float x) { return x / (1.0f + exponential(-x)); }
