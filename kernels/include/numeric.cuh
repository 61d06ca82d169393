// Functions that must give the same bits on every GPU and in the emulator: IEEE single precision with explicit fmaf.
#pragma once
#include "platform.cuh"

// e^x for x <= 0 (and as far up as 88), within 2 units in the last place: 2^n times a polynomial of the rest. Below -87
// it is 0, so that nothing subnormal arises; exponential(0) is exactly 1.
DEVICE float exponential(float x) {
    if (x < -87.0f) return 0.0f;
    if (x > 88.0f) return INFINITY;
    const float n = rintf(x * 1.44269504f);
    float r = fmaf(n, -0.693145752f, x); // the upper bits of ln 2: n times them is exact
    r = fmaf(n, -1.42860677e-6f, r);
    float p = 1.98756915e-4f;
    p = fmaf(p, r, 1.39819995e-3f);
    p = fmaf(p, r, 8.33345190e-3f);
    p = fmaf(p, r, 4.16657962e-2f);
    p = fmaf(p, r, 1.66666655e-1f);
    p = fmaf(p, r, 5.00000012e-1f);
    p = fmaf(p * r, r, r) + 1.0f;
    return p * float_of((uint32_t)((int)n + 127) << 23);
}

DEVICE float silu(float x) { return x / (1.0f + exponential(-x)); }
