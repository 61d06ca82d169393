// Products of weights in file order, of any format, with activations in fixed point:
//
//   out[token][row] = Σ_b scale[token][b] · Σ_c w[row][c] · (256 · high + low)[token][c],   blocks b of 256 columns c
//
// Lane l of a row's warp takes columns 8l .. 8l + 7 of each block, in order, with fmaf; then the block's scale; the blocks
// b mod 8 = 0 in order, those of 1, and so on up to 7, one class after another; at last the warp's butterfly. That order
// holds for every number of tokens, so a token's result does not depend on the others.
//
// Weights are [n_rows] rows of blocks, planes as in planes.cuh, out [tokens][stride]. Any number of rows and of columns.
// Grid: x = ceil(n_rows / 8), y = ceil(n_tokens / 4); 256 threads, a row a warp, four tokens (or the only one) at a time. The
// eight warps share the activations, as floats in shared memory, a stage of four blocks of columns ahead.
// Bytes: the weights once for each four tokens; activations 2 a value for each eight rows, from a cache.
#include "epilogue.cuh"
#include "formats.cuh"
#include "reduce.cuh"

constexpr int THREADS = 256;
constexpr uint32_t STAGE_BLOCKS = 4;

// Blocks of columns of some tokens as floats, without their scale: a lane's eight columns in two halves.
struct Stage {
    Words4 x[STAGE_BLOCKS][TILE_TOKENS][2][WARP];
    float scales[STAGE_BLOCKS][TILE_TOKENS];
};

// Four columns of activations of a high and a low word of codes.
DEVICE Words4 four_values(uint32_t high, uint32_t low) {
    uint32_t x[4];
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = bits_of((float)(256 * signed_byte(high, i) + signed_byte(low, i)));
    return {x[0], x[1], x[2], x[3]};
}

// Fills a stage with the blocks from `block` on, in the order of the sum, and with zeros beyond the last; answers the block
// after them. All threads of the block take part.
template <int TOKENS> DEVICE uint32_t fill(const MatmulParams &p, uint32_t first_token, uint32_t block, Stage &stage) {
    constexpr uint32_t WORDS = BLOCK_COLUMNS / 4;
    const uint32_t n_blocks = blocks_of(p.n_columns), n_units = units_of(p.n_columns);
    const uint32_t *codes = (const uint32_t *)p.planes.codes;
#pragma unroll 1
    for (uint32_t slot = 0; slot < STAGE_BLOCKS; slot++) {
        for (uint32_t i = threadIdx.x; i < TOKENS * WORDS; i += THREADS) {
            const uint32_t token = i / WORDS, word = i % WORDS, column = BLOCK_COLUMNS * block + 4 * word;
            Words4 x = {0, 0, 0, 0};
            if (column < UNIT_COLUMNS * n_units) {
                const uint32_t at = code_word(first_token + token, 0, column, n_units);
                x = four_values(codes[at], codes[at + 4 * 4]); // the low plane's lane is four further on
            }
            stage.x[slot][token][word % 2][word / 2] = x;
        }
        if (threadIdx.x < TOKENS) {
            const float *scale = p.planes.scales + scale_index(first_token + threadIdx.x, block, n_blocks);
            stage.scales[slot][threadIdx.x] = block < n_blocks ? *scale : 0.0f;
        }
        block = next_block(block, n_blocks);
    }
    return block;
}

// sums[i] = weights[row] · planes[first + i] as every lane of the warp gets it.
template <typename Format, int TOKENS, bool REGULAR>
DEVICE void product(const MatmulParams &p, const uint8_t *weights, uint32_t row, uint32_t first, Stage (&stages)[2],
                    float (&sums)[TOKENS]) {
    const uint8_t *bytes = weights + row * format::row_bytes<Format>(p.n_columns);
    const uint32_t n_blocks = blocks_of(p.n_columns), lane = lane_index();
    float of_class[TOKENS] = {};
#pragma unroll
    for (int i = 0; i < TOKENS; i++) sums[i] = 0.0f;
    uint32_t block = 0; // the next to be multiplied
    uint32_t unfilled = fill<TOKENS>(p, first, 0, stages[0]);
#pragma unroll 1
    for (uint32_t turn = 0; block < n_blocks; turn++) {
        __syncthreads(); // the stage is there, and the one before is done with
        if (unfilled < n_blocks) unfilled = fill<TOKENS>(p, first, unfilled, stages[(turn + 1) % 2]);
        const Stage &stage = stages[turn % 2];
#pragma unroll 2
        for (uint32_t slot = 0; slot < STAGE_BLOCKS; slot++) {
            float w[2][4];
            format::eight_of_row<Format, REGULAR>(bytes, BLOCK_COLUMNS * block + 8 * lane, p.n_columns, w);
            const bool last = is_last_of_class(block, n_blocks);
#pragma unroll
            for (int i = 0; i < TOKENS; i++) {
                float sum = 0.0f;
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const Words4 v = stage.x[slot][i][half][lane];
                    const uint32_t x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                    for (int j = 0; j < 4; j++) sum = fmaf(w[half][j], float_of(x[j]), sum);
                }
                of_class[i] = fmaf(stage.scales[slot][i], sum, of_class[i]);
                if (!last) continue;
                sums[i] += of_class[i];
                of_class[i] = 0.0f;
            }
            block = next_block(block, n_blocks);
        }
    }
    __syncthreads(); // before the stages are filled for another matrix
#pragma unroll
    for (int i = 0; i < TOKENS; i++) sums[i] = warp_sum(sums[i]);
}

template <typename Format, int TOKENS, bool REGULAR>
DEVICE void rows_of_tokens(const MatmulParams &p, Stage (&stages)[2]) {
    const uint32_t own = blockIdx.x * (THREADS / WARP) + warp_index(), first = TILE_TOKENS * blockIdx.y;
    const uint32_t row = min(own, p.n_rows - 1); // all warps fill stages
    float firsts[TOKENS] = {}, seconds[TOKENS];
#pragma unroll 1
    for (int matrix = p.epilogue == EPILOGUE_SWIGLU ? 1 : 0; matrix >= 0; matrix--) {
#pragma unroll
        for (int i = 0; i < TOKENS; i++) seconds[i] = firsts[i];
        product<Format, TOKENS, REGULAR>(p, p.weights[matrix], row, first, stages, firsts);
    }
    // Every lane has all sums, and lane i finishes token i. Masks, since a choice of one of four numbers would be compiled
    // into an array in memory.
    uint32_t mine = 0, other = 0;
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
        const uint32_t mask = 0u - (uint32_t)(lane_index() == i);
        mine |= bits_of(firsts[i]) & mask;
        other |= bits_of(seconds[i]) & mask;
    }
    const uint32_t token = first + lane_index();
    if (lane_index() >= TOKENS || token >= p.n_tokens || own != row) return;
    const float factor = row_factor(p.planes, token, p.n_columns, p.eps);
    float &out = p.out[(size_t)token * p.stride + row];
    finish(p.epilogue, out, finished(float_of(mine), factor, p.bias, row), float_of(other) * factor);
}

template <typename Format, bool REGULAR> DEVICE void some_tokens(const MatmulParams &p, Stage (&stages)[2]) {
    if (p.n_tokens - TILE_TOKENS * blockIdx.y == 1) rows_of_tokens<Format, 1, REGULAR>(p, stages);
    else rows_of_tokens<Format, TILE_TOKENS, REGULAR>(p, stages);
}

template <typename Format> DEVICE void matmul(const MatmulParams &p) {
    SHARED(Stage, stages, [2]);
    // Rows of blocks are always regular.
    if (Format::BLOCK_ELEMENTS > 1 || format::is_regular<Format>(p.n_columns)) some_tokens<Format, true>(p, stages);
    else some_tokens<Format, false>(p, stages);
}

// loop: matmul_blocks_.* 16
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
