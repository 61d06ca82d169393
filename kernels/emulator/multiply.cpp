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

} // namespace emulator
