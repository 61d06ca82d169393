// Products of weights in file order, of any format, with activations in fixed point:
//
//   out[token][row] = Σ_b scale[token][b] · Σ_c w[row][c] · (256 · high + low)[token][c],   blocks b of 256 columns c
//
// Lane l of a row's warp takes columns 8l .. 8l + 7 of each block, in order, with fmaf; then the block's scale; the blocks
// b mod 8 = 0 in order, those of 1, and so on up to 7, one class after another; at last the warp's butterfly. That order
// holds for every number of tokens, so a token's result does not depend on the others.
//
// Weights are [n_rows] rows of blocks, planes as in planes.cuh, out [tokens][stride]. Any number of rows and of columns.
// Grid: x = ceil(n_rows / 8), y = ceil(n_tokens / 4); 256 threads, a row a warp, four tokens (or the only one) at a time.
// Bytes: the weights once for each four tokens; activations 2 a value, from a cache.
#include "epilogue.cuh"
#include "formats.cuh"
#include "reduce.cuh"

constexpr int THREADS = 256;
constexpr uint32_t CLASSES = 8;

// Four columns of a row of activations, without their scale.
DEVICE void four_codes(const uint32_t *words, uint32_t row, uint32_t column, uint32_t n_units, float (&x)[4]) {
    const uint32_t high = words[code_word(row, 0, column, n_units)], low = words[code_word(row, 1, column, n_units)];
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = (float)(256 * signed_byte(high, i) + signed_byte(low, i));
}

// sums[i] = weights[row] · planes[first + i] as every lane of the warp gets it.
template <typename Format, int TOKENS>
DEVICE void product(const MatmulParams &p, const uint8_t *weights, uint32_t row, uint32_t first, float (&sums)[TOKENS]) {
    const uint8_t *bytes = weights + row * format::row_bytes<Format>(p.n_columns);
    const uint32_t n_blocks = blocks_of(p.n_columns), n_units = units_of(p.n_columns);
    for (int i = 0; i < TOKENS; i++) sums[i] = 0.0f;
    for (uint32_t first_block = 0; first_block < CLASSES; first_block++) {
        float of_class[TOKENS] = {};
#pragma unroll 2
        for (uint32_t block = first_block; block < n_blocks; block += CLASSES) {
            const uint32_t column = BLOCK_COLUMNS * block + 8 * lane_index();
            float w[2][4];
            format::eight_of_row<Format>(bytes, column, p.n_columns, w);
            for (int i = 0; i < TOKENS; i++) {
                float sum = 0.0f;
                for (int half = 0; half < 2; half++) {
                    if (column + 4 * half >= p.n_columns) continue;
                    float x[4];
                    four_codes((const uint32_t *)p.planes.codes, first + i, column + 4 * half, n_units, x);
                    for (int j = 0; j < 4; j++) sum = fmaf(w[half][j], x[j], sum);
                }
                of_class[i] = fmaf(p.planes.scales[scale_index(first + i, block, n_blocks)], sum, of_class[i]);
            }
        }
        for (int i = 0; i < TOKENS; i++) sums[i] += of_class[i];
    }
    for (int i = 0; i < TOKENS; i++) sums[i] = warp_sum(sums[i]);
}

template <typename Format, int TOKENS> DEVICE void rows_of_tokens(const MatmulParams &p, uint32_t row, uint32_t first) {
    float firsts[TOKENS] = {}, seconds[TOKENS];
#pragma unroll 1
    for (int matrix = p.epilogue == EPILOGUE_SWIGLU ? 1 : 0; matrix >= 0; matrix--) {
        for (int i = 0; i < TOKENS; i++) seconds[i] = firsts[i];
        product<Format>(p, p.weights[matrix], row, first, firsts);
    }
    for (int i = 0; i < TOKENS; i++) {
        const uint32_t token = first + i;
        if (lane_index() != i || token >= p.n_tokens) continue;
        const float factor = row_factor(p.planes, token, p.n_columns, p.eps);
        float &out = p.out[(size_t)token * p.stride + row];
        finish(p.epilogue, out, finished(firsts[i], factor, p.bias, row), seconds[i] * factor);
    }
}

template <typename Format> DEVICE void matmul(const MatmulParams &p) {
    const uint32_t row = blockIdx.x * (THREADS / WARP) + warp_index(), first = TILE_TOKENS * blockIdx.y;
    if (row >= p.n_rows) return;
    if (p.n_tokens - first == 1) rows_of_tokens<Format, 1>(p, row, first);
    else rows_of_tokens<Format, TILE_TOKENS>(p, row, first);
}

KERNEL(matmul_blocks_f32, MatmulParams, THREADS, 2) { matmul<format::F32>(p); }
KERNEL(matmul_blocks_f16, MatmulParams, THREADS, 2) { matmul<format::F16>(p); }
KERNEL(matmul_blocks_bf16, MatmulParams, THREADS, 2) { matmul<format::BF16>(p); }
KERNEL(matmul_blocks_q4_0, MatmulParams, THREADS, 2) { matmul<format::Q4_0>(p); }
KERNEL(matmul_blocks_q4_1, MatmulParams, THREADS, 2) { matmul<format::Q4_1>(p); }
KERNEL(matmul_blocks_q5_0, MatmulParams, THREADS, 2) { matmul<format::Q5_0>(p); }
KERNEL(matmul_blocks_q5_1, MatmulParams, THREADS, 2) { matmul<format::Q5_1>(p); }
KERNEL(matmul_blocks_q8_0, MatmulParams, THREADS, 2) { matmul<format::Q8_0>(p); }
KERNEL(matmul_blocks_q2_k, MatmulParams, THREADS, 2) { matmul<format::Q2_K>(p); }
KERNEL(matmul_blocks_q3_k, MatmulParams, THREADS, 2) { matmul<format::Q3_K>(p); }
KERNEL(matmul_blocks_q4_k, MatmulParams, THREADS, 2) { matmul<format::Q4_K>(p); }
KERNEL(matmul_blocks_q5_k, MatmulParams, THREADS, 2) { matmul<format::Q5_K>(p); }
KERNEL(matmul_blocks_q6_k, MatmulParams, THREADS, 2) { matmul<format::Q6_K>(p); }
KERNEL(matmul_blocks_q8_k, MatmulParams, THREADS, 2) { matmul<format::Q8_K>(p); }
KERNEL(matmul_blocks_iq4_nl, MatmulParams, THREADS, 2) { matmul<format::IQ4_NL>(p); }
KERNEL(matmul_blocks_iq4_xs, MatmulParams, THREADS, 2) { matmul<format::IQ4_XS>(p); }
