// A decode product of Q4_K on the tensor cores' path of halves, of up to 8 tokens, which take the eight columns of an mma:
// column c is token c / 2 + 4 · (c % 2), so that a lane's two columns are the tokens t and t + 4.
//
//   Σ y · x over 256 columns = s · (d · Σ scale · (Σ q · half(code)) - dmin · Σ minimum · Σ code),  x = s · code
//
// Codes are those of the planes, 256 · high + low, rounded to halves: 11 bits each, where planes keep 16 bits of the
// largest of 256. The row is rounded so before it is made planes, so that the sums of codes are of what is multiplied.
//
// A nibble is taken as the fraction of a half: q · 2^-24, or 2^-20 from the upper half of a byte, one `and` for two weights.
// Tensor cores take such subnormal halves as they are (Fasi et al., "Numerical behavior of NVIDIA tensor cores", PeerJ
// Computer Science 7:e330). Sums of 32 columns are integers below 2^24 times that, so that a single holds them in any order.
//
// lab_halves makes the second operand: [unit][half of code bytes][lane] 16 bytes, two mma's b0 and b1.
// Grid of lab_halves: n_columns / 256 blocks of 256 threads. Grid and bytes of lab_mma_half: those of matmul_decode.cu, and
// twice the bytes of activations; one matrix.
#include "half.cuh"
#include "lab.cuh"

// From p.planes into p.next.codes.
KERNEL(lab_halves, MatmulDecodeParams, 256, 4) {
    const uint32_t n_units = units_of(p.n_columns), lane = lane_index();
    const uint32_t group = blockIdx.x * (blockDim.x / WARP) + warp_index(); // of 32 columns
    const uint32_t token = lane / 8 + TILE_TOKENS * (lane / 4 % 2), t = lane % 4;
    if (group >= 2 * n_units) return;
    const uint32_t *codes = (const uint32_t *)p.planes.codes;
    uint32_t b[4] = {};
    for (int part = 0; part < 2 && token < p.n_tokens; part++) {
        const uint32_t column = GROUP_COLUMNS * group + 16 * part + 4 * t;
        const uint32_t high = codes[code_word(token, 0, column, n_units)];
        const uint32_t low = codes[code_word(token, 1, column, n_units)];
        for (int i = 0; i < 4; i++) {
            const float code = (float)(256 * signed_byte(high, i) + signed_byte(low, i));
            // Columns 4t and 4t + 2 lie in one word of weights' halves, 4t + 1 and 4t + 3 in the next.
            b[2 * part + i % 2] |= (uint32_t)float_to_half(code) << (16 * (i / 2));
        }
    }
    p.next.codes[group * WARP + lane] = Words4{b[0], b[1], b[2], b[3]};
}

// p.planes.codes are what lab_halves made.
struct HalfTiles : TilesQ4K {
    template <int N, class Activations, class Take>
    DEVICE static void multiply(const HalfTiles (&tiles)[1], uint32_t, const Activations &activations, Take take) {
        static_assert(N == 2);
        const int lane = lane_index();
        const HalfTiles &tile = tiles[0];
        const AffineScales(&rows)[2] = tile.rows;
        float halves[2][N][2] = {};
#pragma unroll
        for (int group = 0; group < 8; group++) {
            const int half = group % 2;
            const Words4 v = tile.codes.nibbles[group / 2];
            const Words4 b = activations.planes.codes[(8 * activations.block + group) * WARP + lane];
            const uint32_t mask = half ? 0x00f000f0 : 0x000f000f;
            const uint32_t first[4] = {v.x & mask, v.y & mask, v.x >> 8 & mask, v.y >> 8 & mask};
            const uint32_t second[4] = {v.z & mask, v.w & mask, v.z >> 8 & mask, v.w >> 8 & mask};
            float c[4] = {};
            mma_k16_half(c, first, b.x, b.y);
            mma_k16_half(c, second, b.z, b.w);
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float scale = (float)unsigned_byte(rows[r].scales[group / 4], group % 4);
#pragma unroll
                for (int n = 0; n < N; n++) halves[half][n][r] = fmaf(scale, c[2 * r + n], halves[half][n][r]);
            }
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
            int minima[2];
            sum_minima(rows, activations, n, minima);
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float minimum = rows[r].dmin() * (float)minima[r];
                const float sum = fmaf(1.0f / 16.0f, halves[1][n][r], halves[0][n][r]) * 16777216.0f; // 2^24
                take(0, n, r, fmaf(rows[r].d(), sum, -minimum));
            }
        }
    }
};

// loop: lab_mma_half 128
// in flight: lab_mma_half 1 0 0
KERNEL_AHEAD(lab_mma_half, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<HalfTiles>, 2>(p); }
