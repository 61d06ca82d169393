// Decode products of Q4_K on the ordinary integer units (dp4a), of one token: out[row] = Σ_k weights[row][k] · x[k].
//
//   y = d · scale · q - dmin · minimum,  x = s · (256 · high + low)
//   Σ y · x over 256 columns = s · (d · Σ scale · (256 · Σ q · high + Σ q · low) - dmin · Σ minimum · Σ(256 · high + low))
//
// lab_dot_planes multiplies with both planes: integers inside 256 columns, the same as on the tensor cores, so the bits are
// those of matmul_decode_q4_k. lab_dot_int8 multiplies with the upper plane alone, which is what 8-bit activations with one
// scale for 256 columns are; it is fed rows that were rounded to 8 bits before they were made planes, whose lower plane
// is 0.
//
// A lane has the same part of a tile as for an mma: rows g and g + 8, the columns of t (layouts.cuh). It multiplies them
// with the columns of t of the one token; the four lanes of a row add up their integers at the end of a block.
//
// Grid and bytes: those of matmul_decode.cu; one matrix, one token.
#include "lab.cuh"

// The sum over the four lanes that share a row.
DEVICE int sum_of_row(int sum) {
    sum += shuffle_xor(sum, 1);
    return sum + shuffle_xor(sum, 2);
}

template <int PLANES> struct DotTiles : TilesQ4K {
    template <int N, class Activations, class Take>
    DEVICE static void multiply(const DotTiles (&tiles)[1], uint32_t, const Activations &activations, Take take) {
        static_assert(N == 1);
        const int t = lane_index() % 4;
        const DotTiles &tile = tiles[0];
        const AffineScales(&rows)[2] = tile.rows;
        // Of groups in lower and in upper halves of code bytes, whose codes come times 1 and times 16.
        int halves[2][PLANES][2] = {};
#pragma unroll
        for (int unit = 0; unit < 4; unit++) {
            const Words4 v = tile.codes.nibbles[unit];
            const uint32_t codes[2][2] = {{v.x, v.z}, {v.y, v.w}};
            Words4 x[PLANES];
#pragma unroll
            for (int plane = 0; plane < PLANES; plane++)
                x[plane] = activations.planes.codes[(4 * activations.block + unit) * WARP + 4 * plane + t];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint32_t mask = half ? 0xf0f0f0f0 : 0x0f0f0f0f;
                const int group = 2 * unit + half;
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const int scale = unsigned_byte(rows[r].scales[group / 4], group % 4);
#pragma unroll
                    for (int plane = 0; plane < PLANES; plane++) {
                        const Words4 &b = x[plane];
                        int sum = dot4_us(codes[r][0] & mask, half ? b.z : b.x, 0);
                        sum = dot4_us(codes[r][1] & mask, half ? b.w : b.y, sum);
                        halves[half][plane][r] += scale * sum;
                    }
                }
            }
        }
        uint32_t sums[3];
#pragma unroll
        for (int digit = 0; digit < 3; digit++) {
            const uint32_t at = sum_index(0, activations.block, digit, activations.n_blocks);
            sums[digit] = ((const uint32_t *)(activations.planes.sums + at))[t % 2];
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float digits[2] = {};
#pragma unroll
            for (int plane = 0; plane < PLANES; plane++) {
                digits[plane] = (float)sum_of_row(16 * halves[0][plane][r] + halves[1][plane][r]);
            }
            // The lanes of t = 0 and 1 have four minima each, the others zeros.
            int minima = dot4_uu(rows[r].minima, sums[0], 0) + 256 * dot4_uu(rows[r].minima, sums[1], 0);
            minima = sum_of_row(minima + 65536 * dot4_us(rows[r].minima, sums[2], 0));
            const float minimum = rows[r].dmin() * (float)minima;
            take(0, 0, r, fmaf(rows[r].d() * CodesQ4K::UNIT, fmaf(256.0f, digits[0], digits[1]), -minimum));
        }
    }
};

// loop: lab_dot_.* 128
// in flight: lab_dot_.* 1 0 0
KERNEL_AHEAD(lab_dot_int8, MatmulDecodeParams, 256, 3) { matmul_decode<OneKind<DotTiles<1>>, 1>(p); }
KERNEL_AHEAD(lab_dot_planes, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<DotTiles<2>>, 1>(p); }
