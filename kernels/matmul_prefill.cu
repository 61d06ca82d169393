// out[token][row] = Σ_k weights[row][k] · x[token][k], with weights in tiles of 16 rows and x in planes, of many tokens.
//
// Shapes: weights [n_rows, n_columns] (16 divides n_rows; 256, or 64 for formats of 32, divides n_columns), x [n_tokens,
// n_columns]. The sums are those of strips.cuh, with the bits of matmul_decode_*.
//
// matmul_prefill_<format>: 32 tokens a block. Grid (ceil(n_rows / 128), ceil(n_tokens / 32)), 256 threads: a warp takes 16
// rows and all tokens through all classes. The activations of a block of columns are staged in shared memory, two deep.
// Bytes: the weights once for each 32 tokens, from a cache but for the first; activations 2 a value for each 128 rows.
#include "epilogue.cuh"
#include "params.cuh"
#include "strips.cuh"

constexpr int PREFILL_STRIPS = 8;
constexpr int PREFILL_GROUPS = 8;

// Groups that a warp holds in registers at a time: as many as fit without spilling, on each GPU.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int HELD_GROUPS = PREFILL_GROUPS / 2;
#else
constexpr int HELD_GROUPS = PREFILL_GROUPS;
#endif

// The activations of the held tokens and one block of columns.
struct StagedBlock {
    Words4 codes[HELD_GROUPS][BLOCK_COLUMNS / UNIT_COLUMNS][WARP];
    Words2 sums[HELD_GROUPS][3][TILE_TOKENS];
    float scales[HELD_GROUPS][TILE_TOKENS];
};

struct StagedActivations {
    const StagedBlock &staged;

    DEVICE Words4 codes(int n, int unit) const { return staged.codes[n][unit][lane_index()]; }
    DEVICE Words2 sums(int n, int digit) const { return staged.sums[n][digit][lane_index() % 4]; }
    DEVICE float scale(int n) const { return staged.scales[n][lane_index() % 4]; }
};

// Begins to copy a block's activations; a group beyond the last is a copy of the last, whose results nobody reads.
DEVICE void stage(const MatmulParams &p, uint32_t first_group, uint32_t block, StagedBlock &into) {
    const uint32_t n_units = units_of(p.n_columns), n_blocks = blocks_of(p.n_columns);
    const uint32_t units = units_in_block(block, n_units), last = (p.n_tokens - 1) / TILE_TOKENS;
    constexpr uint32_t SUM_VECTORS = sizeof(into.sums[0]) / 16, VECTORS = SUM_VECTORS + 1;
    for (uint32_t i = threadIdx.x; i < HELD_GROUPS * units * WARP; i += blockDim.x) {
        const uint32_t n = i / (units * WARP), group = min(first_group + n, last);
        const uint32_t unit = i / WARP % units, lane = i % WARP;
        copy_async(&into.codes[n][unit][lane], &p.planes.codes[((size_t)group * n_units + 4 * block + unit) * WARP + lane]);
    }
    for (uint32_t i = threadIdx.x; i < HELD_GROUPS * VECTORS; i += blockDim.x) {
        const uint32_t n = i / VECTORS, vector = i % VECTORS, group = min(first_group + n, last);
        const size_t at = (size_t)group * n_blocks + block;
        if (vector < SUM_VECTORS) {
            copy_async((Words4 *)into.sums[n] + vector, (const Words4 *)(p.planes.sums + at * 3 * TILE_TOKENS) + vector);
        } else {
            copy_async(into.scales[n], p.planes.scales + at * TILE_TOKENS);
        }
    }
    copy_async_commit();
}

// One strip's product with the held tokens from `first_group` on; every warp of the block takes part in the staging.
template <class Tiles>
DEVICE void sum_strip(const MatmulParams &p, uint32_t first_group, const uint8_t *strip, bool wanted,
                      StagedBlock *staged, float (&totals)[HELD_GROUPS][2]) {
    constexpr int N = HELD_GROUPS;
    const uint32_t n_units = units_of(p.n_columns), n_blocks = blocks_of(p.n_columns);
    float sums[N][2] = {};
#pragma unroll
    for (int n = 0; n < N; n++) totals[n][0] = totals[n][1] = 0.0f;
    stage(p, first_group, 0, staged[0]);
    uint32_t block = 0;
#pragma unroll 1
    for (uint32_t step = 0; step < n_blocks; step++) {
        const uint32_t next = next_block(block, n_blocks);
        if (step + 1 < n_blocks) {
            stage(p, first_group, next, staged[(step + 1) % 2]);
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
        __syncthreads();
        if (wanted) {
            const StagedActivations activations{staged[step % 2]};
            Terms<N> terms;
            Tiles::template multiply<N>(strip + block_offset<Tiles>(block), units_in_block(block, n_units), activations,
                                        terms);
            const bool last_of_class = is_last_of_class(block, n_blocks);
#pragma unroll
            for (int n = 0; n < N; n++) {
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    sums[n][r] = fmaf(activations.scale(n), terms[n][r], sums[n][r]);
                    if (last_of_class) {
                        totals[n][r] += sums[n][r];
                        sums[n][r] = 0.0f;
                    }
                }
            }
        }
        __syncthreads(); // the stage is free for the block after the next
        block = next;
    }
}

template <class Tiles> DEVICE void matmul_prefill(const MatmulParams &p) {
    SHARED(StagedBlock, staged, [2]);
    const int lane = lane_index();
    const uint32_t index = blockIdx.x * PREFILL_STRIPS + warp_index();
    const bool wanted = index < p.n_rows / STRIP_ROWS;
    const uint32_t safe = wanted ? index : 0;
    const uint32_t n_products = p.epilogue == EPILOGUE_SWIGLU ? 2 : 1, held = PREFILL_GROUPS / HELD_GROUPS;
    // Gate waits in `out` for up, not in registers: a thread reads what it wrote itself.
#pragma unroll 1
    for (uint32_t i = 0; i < held * n_products; i++) {
        const uint32_t product = i % n_products, first_group = blockIdx.y * PREFILL_GROUPS + i / n_products * HELD_GROUPS;
        const uint32_t epilogue = n_products == 1 ? p.epilogue : product == 0 ? EPILOGUE_STORE : EPILOGUE_GATE;
        float totals[HELD_GROUPS][2];
        sum_strip<Tiles>(p, first_group, strip_at<Tiles>(p.weights[product], safe, p.n_columns), wanted, staged, totals);
        if (!wanted) continue;
#pragma unroll
        for (int n = 0; n < HELD_GROUPS; n++) {
            const uint32_t token = TILE_TOKENS * (first_group + n) + lane % 4;
            if (token >= p.n_tokens) continue;
            const float factor = row_factor(p.planes, token, p.n_columns, p.eps);
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const uint32_t row = STRIP_ROWS * index + lane / 4 + 8 * r;
                float &out = p.out[(size_t)token * p.stride + row];
                finish(epilogue, out, finished(totals[n][r], factor, p.bias, row), 0.0f);
            }
        }
    }
}

// loop: matmul_prefill_.* 1024
KERNEL(matmul_prefill_q4_k, MatmulParams, 256, 1) { matmul_prefill<TilesQ4K>(p); }
KERNEL(matmul_prefill_q5_k, MatmulParams, 256, 1) { matmul_prefill<TilesQ5K>(p); }
KERNEL(matmul_prefill_q6_k, MatmulParams, 256, 1) { matmul_prefill<TilesQ6K>(p); }
KERNEL(matmul_prefill_q8_0, MatmulParams, 256, 1) { matmul_prefill<TilesQ8>(p); }
KERNEL(matmul_prefill_q4_0, MatmulParams, 256, 1) { matmul_prefill<TilesQ4>(p); }
KERNEL(matmul_prefill_q5_0, MatmulParams, 256, 1) { matmul_prefill<TilesQ5>(p); }
