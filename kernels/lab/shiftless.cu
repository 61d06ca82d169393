// The product's loop for up to four tokens without the shift that brings the lower nibbles of code bytes to the upper ones'
// place: groups in lower halves come times 1, those in upper halves times 16, and each kind has sums of its own until the
// end of the block. The integers, and so the bits, are those of matmul_decode_q4_k.
//
// Mathematics, grid and bytes are those of matmul_decode.cu.
#include "lab.cuh"

struct ShiftlessTiles : TilesQ4K {
    template <int N, class Activations, class Take>
    DEVICE static void multiply(const ShiftlessTiles (&tiles)[1], uint32_t, const Activations &activations, Take take) {
        const ShiftlessTiles &tile = tiles[0];
        const AffineScales(&rows)[2] = tile.rows;
        DigitSums<N> halves[2];
#pragma unroll
        for (int group = 0; group < 8; group++) {
            const uint32_t mask = group % 2 ? 0xf0f0f0f0 : 0x0f0f0f0f;
            const Words4 v = tile.codes.nibbles[group / 2];
            const uint32_t a[4] = {v.x & mask, v.y & mask, v.z & mask, v.w & mask};
            const int scale0 = unsigned_byte(rows[0].scales[group / 4], group % 4);
            const int scale1 = unsigned_byte(rows[1].scales[group / 4], group % 4);
#pragma unroll
            for (int n = 0; n < N; n++) {
                const Words4 b = activations.codes(n, group / 2);
                int c[4];
                mma_k32_us(c, a, group % 2 ? b.z : b.x, group % 2 ? b.w : b.y);
                halves[group % 2].add(n, c, scale0, scale1);
            }
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
            int minima[2];
            sum_minima(rows, activations, n, minima);
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float high = (float)(16 * halves[0].high[n][r] + halves[1].high[n][r]);
                const float low = (float)(16 * halves[0].low[n][r] + halves[1].low[n][r]);
                const float minimum = rows[r].dmin() * (float)minima[r];
                take(0, n, r, fmaf(rows[r].d() * CodesQ4K::UNIT, fmaf(256.0f, high, low), -minimum));
            }
        }
    }
};

// loop: lab_mma_shiftless 128
// in flight: lab_mma_shiftless 1 0 0
KERNEL_AHEAD(lab_mma_shiftless, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<ShiftlessTiles>, 1>(p); }
