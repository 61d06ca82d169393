// The tensor cores' products of 8-bit integers.
#pragma GCC optimize("O3") // vectorises the sums
#include "block.hpp"
#include <string.h>

namespace emulator {

// Its indices depend on nothing that a kernel says, and it is the emulator's innermost loop.
template <int K, typename A, typename B>
__attribute__((no_sanitize("address", "undefined"))) static void
multiply_bytes(const Operands (&operands)[LANES], int (&products)[LANES][4]) {
    A a_bytes[16][K];
    B b_bytes[8][K];
    for (uint32_t lane = 0; lane < LANES; lane++) {
        const uint32_t g = lane / 4, t = lane % 4;
        const Operands &from = operands[lane];
        for (int half = 0; half < K / 16; half++) {
            memcpy(&a_bytes[g][16 * half + 4 * t], &from.a[2 * half], 4);
            memcpy(&a_bytes[g + 8][16 * half + 4 * t], &from.a[2 * half + 1], 4);
            memcpy(&b_bytes[g][16 * half + 4 * t], half ? &from.b1 : &from.b0, 4);
        }
    }
    int16_t a[16][K], b[8][K];
    for (int row = 0; row < 16; row++) {
        for (int k = 0; k < K; k++) a[row][k] = a_bytes[row][k];
    }
    for (int column = 0; column < 8; column++) {
        for (int k = 0; k < K; k++) b[column][k] = b_bytes[column][k];
    }
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++) {
            int sum = 0;
            for (int k = 0; k < K; k++) sum += a[row][k] * b[column][k];
            products[row % 8 * 4 + column / 2][row / 8 * 2 + column % 2] = sum;
        }
    }
}

void multiply_fragments(Meeting kind, const Operands (&operands)[LANES], int (&products)[LANES][4]) {
    switch (kind) {
    case Meeting::MmaK32us: return multiply_bytes<32, uint8_t, int8_t>(operands, products);
    case Meeting::MmaK32ss: return multiply_bytes<32, int8_t, int8_t>(operands, products);
    case Meeting::MmaK16uu: return multiply_bytes<16, uint8_t, uint8_t>(operands, products);
    case Meeting::MmaK16us: return multiply_bytes<16, uint8_t, int8_t>(operands, products);
    default: return multiply_bytes<16, int8_t, int8_t>(operands, products);
    }
}

template <typename A>
__attribute__((no_sanitize("address", "undefined"))) static void
multiply_rows(const WarpgroupProduct *const (&products)[WARPGROUP_THREADS], const int8_t (&b_bytes)[128][32]) {
    A a_bytes[64][32];
    for (uint32_t thread = 0; thread < WARPGROUP_THREADS; thread++) {
        const uint32_t row = thread / LANES * 16 + thread % LANES / 4, t = thread % 4;
        for (uint32_t i = 0; i < 4; i++) memcpy(&a_bytes[row + 8 * (i % 2)][16 * (i / 2) + 4 * t], &products[thread]->a[i], 4);
    }
    int16_t a[64][32], b[128][32];
    for (int row = 0; row < 64; row++) {
        for (int k = 0; k < 32; k++) a[row][k] = a_bytes[row][k];
    }
    for (int column = 0; column < 128; column++) {
        for (int k = 0; k < 32; k++) b[column][k] = b_bytes[column][k];
    }
    for (int row = 0; row < 64; row++) {
        for (int column = 0; column < 128; column++) {
            int sum = 0;
            for (int k = 0; k < 32; k++) sum += a[row][k] * b[column][k];
            const WarpgroupProduct &of = *products[row / 16 * 32 + row % 8 * 4 + column % 8 / 2];
            int &c = of.c[column / 8 * 4 + row % 16 / 8 * 2 + column % 2];
            c = of.adds ? c + sum : sum;
        }
    }
}

void multiply_warpgroup_fragments(const WarpgroupProduct *const (&products)[WARPGROUP_THREADS],
                                  const int8_t (&b)[128][32]) {
    products[0]->is_signed ? multiply_rows<int8_t>(products, b) : multiply_rows<uint8_t>(products, b);
}

} // namespace emulator
