// out[token][row] = Σ_k weights[row][k] · x[token][k], with weights in tiles of 16 rows and x in planes, of many tokens.
//
// Shapes: weights [n_rows, n_columns] (16 divides n_rows; 256, or 64 for formats of 32, divides n_columns), x [n_tokens,
// n_columns]. The sums are those of strips.cuh, with the bits of matmul_decode_*.
//
// matmul_prefill_<format>: 32 tokens and 256 rows a block. Grid (ceil(n_rows / 256), ceil(n_tokens / 32)), 256 threads: a
// warp takes two strips of 16 rows and all tokens through all classes, so that what it reads of the activations serves 32
// rows. A block of 256 columns ahead, activations are copied to shared memory in two stages, and each warp copies its own
// weights there; it takes them to registers before it asks for the next. Shared memory: PrefillShared<format>.
// Bytes: the weights once for each 32 tokens, from a cache but for the first; activations 2 a value for each 256 rows.
#include "epilogue.cuh"
#include "params.cuh"
#include "strips.cuh"

constexpr int PREFILL_WARPS = 8;
constexpr int PREFILL_GROUPS = 8;
constexpr int PREFILL_STRIPS = 2; // of a warp
constexpr int BLOCK_UNITS = BLOCK_COLUMNS / UNIT_COLUMNS;

// Strips that a warp holds in registers at a time: as many as fit without spilling, on each GPU; elsewhere it
// goes through the columns again for the second.
template <class Tiles> constexpr int HELD_STRIPS = 1;
#if !defined(__CUDA_ARCH__) || (__CUDA_ARCH__ != 800 && __CUDA_ARCH__ < 1200)
template <> constexpr int HELD_STRIPS<TilesQ4K> = 2;
#endif

// The activations of one block of columns.
struct StagedBlock {
    Words4 codes[PREFILL_GROUPS][BLOCK_UNITS][WARP];
    Words2 sums[PREFILL_GROUPS][3][TILE_TOKENS];
    float scales[PREFILL_GROUPS][TILE_TOKENS];
};

// The weights of a block of 256 columns, strip by strip.
template <class Tiles> struct StagedWeights {
    static constexpr uint32_t TILES = BLOCK_COLUMNS / Tiles::Layout::COLUMNS;
    static constexpr uint32_t VECTORS = Tiles::Layout::BYTES / 16; // of a tile
    Words4 strips[HELD_STRIPS<Tiles>][TILES * VECTORS];
};

// A thread's sums over the finished classes. They are looked for once a class: those for which there are no registers stand
// in shared memory.
template <int S> struct Totals {
    static constexpr int COUNT = S * PREFILL_GROUPS * 2, IN_REGISTERS = S == 1 ? COUNT : 4;
    using Parked = float[COUNT > IN_REGISTERS ? COUNT - IN_REGISTERS : 1][PREFILL_WARPS * WARP];
    float held[IN_REGISTERS];
    Parked &parked;

    DEVICE float &at(int s, int n, int r) {
        const int i = (s * PREFILL_GROUPS + n) * 2 + r;
        return i < IN_REGISTERS ? held[i] : parked[i - IN_REGISTERS][threadIdx.x];
    }
};

template <class Tiles> struct PrefillShared {
    StagedBlock activations[2];
    StagedWeights<Tiles> weights[PREFILL_WARPS];
    typename Totals<HELD_STRIPS<Tiles>>::Parked totals;
};

struct StagedActivations {
    const StagedBlock &staged;

    DEVICE Words4 codes(int n, int unit) const { return staged.codes[n][unit][lane_index()]; }
    DEVICE uint32_t sums(int n, int digit) const {
        const uint32_t lane = lane_index();
        return ((const uint32_t *)&staged.sums[n][digit][lane / 8])[lane % 2];
    }
    DEVICE float scale(int n) const { return staged.scales[n][lane_index() % 4]; }
};

// Begins to copy a block's activations; a group beyond the last is a copy of the last, whose results nobody reads.
DEVICE void stage(const MatmulParams &p, uint32_t first_group, uint32_t block, uint32_t units, StagedBlock &into) {
    const uint32_t n_units = units_of(p.n_columns), n_blocks = blocks_of(p.n_columns);
    const uint32_t last = (p.n_tokens - 1) / TILE_TOKENS, lane = lane_index();
    constexpr uint32_t SUM_VECTORS = sizeof(into.sums[0]) / 16, VECTORS = SUM_VECTORS + 1;
#pragma unroll
    for (uint32_t i = warp_index(); i < PREFILL_GROUPS * BLOCK_UNITS; i += PREFILL_WARPS) {
        const uint32_t n = i / BLOCK_UNITS, unit = i % BLOCK_UNITS, group = min(first_group + n, last);
        const size_t at = (size_t)group * n_units + BLOCK_UNITS * block + unit;
        if (unit < units) copy_async(&into.codes[n][unit][lane], &p.planes.codes[at * WARP + lane]);
    }
    if (threadIdx.x < PREFILL_GROUPS * VECTORS) {
        const uint32_t n = threadIdx.x / VECTORS, vector = threadIdx.x % VECTORS, group = min(first_group + n, last);
        const size_t at = (size_t)group * n_blocks + block;
        if (vector < SUM_VECTORS) {
            copy_async((Words4 *)into.sums[n] + vector, (const Words4 *)(p.planes.sums + at * 3 * TILE_TOKENS) + vector);
        } else {
            copy_async(into.scales[n], p.planes.scales + at * TILE_TOKENS);
        }
    }
}

// A warp's strips, on their way through the columns.
template <class Tiles> struct WarpStrips {
    static constexpr int S = HELD_STRIPS<Tiles>;
    const uint8_t *weights;
    uint32_t first, n_strips, n_columns;
    StagedWeights<Tiles> &staged;

    // Begins to copy a block's weights.
    DEVICE void stage(uint32_t block, uint32_t units) const {
        using Staged = StagedWeights<Tiles>;
        const uint32_t vectors = Staged::TILES == 1 ? Staged::VECTORS : units * Staged::VECTORS;
#pragma unroll
        for (int s = 0; s < S; s++) {
            // A strip beyond the last is a copy of the last and is not written.
            const uint8_t *strip = strip_at<Tiles>(weights, min(first + s, n_strips - 1), n_columns);
            const Words4 *from = words(strip + block_offset<Tiles>(block));
#pragma unroll
            for (uint32_t i = lane_index(); i < Staged::TILES * Staged::VECTORS; i += WARP)
                if (i < vectors) copy_async(&staged.strips[s][i], from + i);
        }
    }
    DEVICE void load(uint32_t units, Tiles (&tiles)[S]) const {
#pragma unroll
        for (int s = 0; s < S; s++) tiles[s].load((const uint8_t *)staged.strips[s], units, FromShared{});
    }
};

// The strips' product with the held tokens from `first_group` on; every warp of the block takes part in the staging.
template <class Tiles>
DEVICE void sum_strips(const MatmulParams &p, uint32_t first_group, WarpStrips<Tiles> strips, StagedBlock *staged,
                       Totals<HELD_STRIPS<Tiles>> &totals) {
    constexpr int N = PREFILL_GROUPS, S = HELD_STRIPS<Tiles>;
    const uint32_t n_units = units_of(p.n_columns), n_blocks = blocks_of(p.n_columns);
    uint32_t block = 0, step = 0;
    auto fetch = [&](uint32_t block, uint32_t stage_index) {
        const uint32_t units = units_in_block(block, n_units);
        stage(p, first_group, block, units, staged[stage_index]);
        strips.stage(block, units);
        copy_async_commit();
    };
    fetch(0, 0);
#pragma unroll
    for (int i = 0; i < S * N * 2; i++) totals.at(i / (2 * N), i / 2 % N, i % 2) = 0.0f;
#pragma unroll 1
    while (block < n_blocks) {
        float sums[S][N][2] = {};
        bool is_last;
#pragma unroll 1
        do { // the blocks of a class
            copy_async_wait<0>();
            __syncthreads(); // the stage has come for all threads, and the one before is done with
            const uint32_t units = units_in_block(block, n_units), next = next_block(block, n_blocks);
            Tiles tiles[S];
            strips.load(units, tiles);
            __syncwarp(); // the warp's weights are in registers
            if (next < n_blocks) fetch(next, (step + 1) % 2);
            const StagedActivations activations{staged[step % 2]};
            Tiles::template multiply<N>(tiles, units, activations, [&](int s, int n, int r, float term) {
                sums[s][n][r] = fmaf(activations.scale(n), term, sums[s][n][r]);
            });
            is_last = is_last_of_class(block, n_blocks);
            block = next;
            step++;
        } while (!is_last);
#pragma unroll
        for (int i = 0; i < S * N * 2; i++)
            totals.at(i / (2 * N), i / 2 % N, i % 2) += sums[i / (2 * N)][i / 2 % N][i % 2];
    }
    __syncthreads(); // the stages are free
}

template <class Tiles> DEVICE void matmul_prefill(const MatmulParams &p) {
    DYNAMIC_SHARED(memory);
    PrefillShared<Tiles> &shared = *reinterpret_cast<PrefillShared<Tiles> *>(memory);
    static_assert(sizeof shared <= PREFILL_SHARED_BYTES);
    constexpr int S = HELD_STRIPS<Tiles>, N = PREFILL_GROUPS;
    const uint32_t n_strips = p.n_rows / STRIP_ROWS, lane = lane_index();
    const uint32_t n_products = p.epilogue == EPILOGUE_SWIGLU ? 2 : 1, n_held = PREFILL_STRIPS / S;
    // Gate waits in `out` for up, not in registers: a thread reads what it wrote itself.
#pragma unroll 1
    for (uint32_t i = 0; i < n_held * n_products; i++) {
        const uint32_t product = i % n_products;
        const uint32_t epilogue = n_products == 1 ? p.epilogue : product == 0 ? EPILOGUE_STORE : EPILOGUE_GATE;
        const uint32_t first_group = blockIdx.y * N;
        const uint32_t warp = blockIdx.x * PREFILL_WARPS + warp_index();
        const uint32_t first_strip = warp * PREFILL_STRIPS + i / n_products * S;
        const WarpStrips<Tiles> strips{p.weights[product], first_strip, n_strips, p.n_columns,
                                       shared.weights[warp_index()]};
        Totals<S> totals{{}, shared.totals};
        sum_strips<Tiles>(p, first_group, strips, shared.activations, totals);
#pragma unroll
        for (int n = 0; n < N; n++) {
            const uint32_t token = TILE_TOKENS * (first_group + n) + lane % 4;
            if (token >= p.n_tokens) continue;
            const float factor = row_factor(p.planes, token, p.n_columns, p.eps);
#pragma unroll
            for (int s = 0; s < S; s++) {
                if (first_strip + s >= n_strips) continue;
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const uint32_t row = STRIP_ROWS * (first_strip + s) + lane / 4 + 8 * r;
                    float &out = p.out[(size_t)token * p.stride + row];
                    finish(epilogue, out, finished(totals.at(s, n, r), factor, p.bias, row), 0.0f);
                }
            }
        }
    }
}

// loop: matmul_prefill_q4_k@(80|120) 1024
// loop: matmul_prefill_q4_k 2048
// loop: matmul_prefill_.* 1024
KERNEL(matmul_prefill_q4_k, MatmulParams, 256, 1) { matmul_prefill<TilesQ4K>(p); }
KERNEL(matmul_prefill_q5_k, MatmulParams, 256, 1) { matmul_prefill<TilesQ5K>(p); }
KERNEL(matmul_prefill_q6_k, MatmulParams, 256, 1) { matmul_prefill<TilesQ6K>(p); }
KERNEL(matmul_prefill_q8_0, MatmulParams, 256, 1) { matmul_prefill<TilesQ8>(p); }
KERNEL(matmul_prefill_q4_0, MatmulParams, 256, 1) { matmul_prefill<TilesQ4>(p); }
KERNEL(matmul_prefill_q5_0, MatmulParams, 256, 1) { matmul_prefill<TilesQ5>(p); }
