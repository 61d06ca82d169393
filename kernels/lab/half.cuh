// The tensor cores' product of halves. It stands here and not in platform.cuh because its order of summation is not
// specified, which no kernel of the product may depend on.
#pragma once
#include "platform.cuh"

// c[16][8] += a[16][16] · b[16][8], halves into singles. PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point
// type". With g = lane / 4 and t = lane % 4 a lane holds two halves a word:
//   a[0]: row g,     columns 2t, 2t+1          a[2]: row g,     columns 8+2t, 9+2t
//   a[1]: row g + 8, columns 2t, 2t+1          a[3]: row g + 8, columns 8+2t, 9+2t
//   b0:   column g,  rows 2t, 2t+1             b1:   column g,  rows 8+2t, 9+2t
//   c[0], c[1]: row g, columns 2t and 2t+1     c[2], c[3]: row g + 8, the same columns
// Every lane of the warp takes part. The twin adds products in the order of t, for each t those of its four halves.
DEVICE void mma_k16_half(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef WORKER_ORCD_EMULATOR
    const int lane = lane_index();
    for (int t = 0; t < 4; t++) {
        uint32_t rows[4];
        for (int i = 0; i < 4; i++) rows[i] = shuffle(a[i], lane / 4 * 4 + t);
        for (int column = 0; column < 2; column++) {
            const int from = (2 * (lane % 4) + column) * 4 + t;
            const uint32_t b[2] = {shuffle(b0, from), shuffle(b1, from)};
            for (int r = 0; r < 2; r++) {
                for (int i = 0; i < 4; i++) {
                    const int shift = 16 * (i % 2);
                    const float x = half_to_float((uint16_t)(rows[r + 2 * (i / 2)] >> shift));
                    c[2 * r + column] = fmaf(x, half_to_float((uint16_t)(b[i / 2] >> shift)), c[2 * r + column]);
                }
            }
        }
    }
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
