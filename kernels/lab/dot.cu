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

template <int PLANES> struct DotTiles {
    using Layout = LayoutQ4K;

    template <int N, class Activations>
    DEVICE static void multiply(const uint8_t *tile, uint32_t, const Activations &activations, Terms<N> &terms) {
        static_assert(N == 1);
        const int lane = lane_index(), t = lane % 4;
        const LaneTile held(tile, lane);
        const AffineScales rows[2] = {AffineScales(held.scales[0]), AffineScales(held.scales[1])};
        // Of groups in lower and in upper halves of code bytes, whose codes come times 1 and times 16.
        int halves[2][PLANES][2] = {};
#pragma unroll
        for (int unit = 0; unit < 4; unit++) {
            const Words4 v = held.nibbles[unit];
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
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float digits[2] = {};
#pragma unroll
            for (int plane = 0; plane < PLANES; plane++) {
                int sum = 16 * halves[0][plane][r] + halves[1][plane][r];
                sum += shuffle_xor(sum, 1);
                sum += shuffle_xor(sum, 2);
                digits[plane] = (float)sum;
            }
            const float minimum = rows[r].dmin * (float)rows[r].minimum(activations, 0);
            terms[0][r] = fmaf(rows[r].d * CodesQ4K::UNIT, fmaf(256.0f, digits[0], digits[1]), -minimum);
        }
    }
};

// loop: lab_dot_.* 128
// in flight: lab_dot_.* 1 0 0
KERNEL_AHEAD(lab_dot_int8, MatmulDecodeParams, 256, 3) { lab_product<DotTiles<1>, 1>(p); }
KERNEL_AHEAD(lab_dot_planes, MatmulDecodeParams, 256, 2) { lab_product<DotTiles<2>, 1>(p); }
