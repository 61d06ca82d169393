// out[token][row] = Σ_k weights[row][k] · x[token][k], with weights in tiles of 16 rows and x in planes, of many tokens, on
// the tensor cores of Hopper as warpgroups use them.
//
// Shapes: weights [n_rows, n_columns] (16 divides n_rows, 256 n_columns), x [n_tokens, n_columns] with its codes in core
// matrices (planes.cuh). The sums are those of strips.cuh, with the bits of matmul_prefill_* and matmul_decode_*.
//
// matmul_warpgroup_<format>: 128 rows and 64 tokens a block. Grid (ceil(n_rows / 128), ceil(n_tokens / 64)), 384 threads: the
// third warpgroup copies blocks of columns into a ring of stages, the first two take 64 rows each through all classes. A
// warp has 16 rows, whose weights it turns into digits (weight_digits.cuh) in registers, 32 columns at a time, while the tensor
// cores work on those before; the warpgroups take turns, so that one's other work falls into the other's products.
// Bytes: the weights once for each 64 tokens, from a cache but for the first; activations 2 a value for each 128 rows.
#include "weight_digits.cuh"
#include "epilogue.cuh"
#include "params.cuh"
#include "strips.cuh"

constexpr int CONSUMERS = 2, CONSUMER_WARPS = 8, CONSUMER_THREADS = CONSUMERS * WARPGROUP;
constexpr int TOKEN_GROUPS = 16, STAGES = 3;
constexpr int CORE_BYTES = 128, BLOCK_CORES = BLOCK_COLUMNS / 16, GROUP_CORES = GROUP_COLUMNS / 16;
static_assert(PRODUCT_COLUMNS == 8 * TOKEN_GROUPS);

// A block of columns: the activations of the tokens and the tiles of the strips.
template <class Digits> struct Stage {
    alignas(16) uint8_t codes[TOKEN_GROUPS][BLOCK_CORES][CORE_BYTES];
    Words2 sums_of[TOKEN_GROUPS][3][TILE_TOKENS];
    float scales[TOKEN_GROUPS][TILE_TOKENS];
    uint8_t tiles[CONSUMER_WARPS][Digits::Layout::BYTES];

    DEVICE uint32_t sums(int n, int digit) const {
        return ((const uint32_t *)&sums_of[n][digit][lane_index() / 8])[lane_index() % 2];
    }
    DEVICE float scale(int n) const { return scales[n][lane_index() % 4]; }
};

// All of a block's shared memory. A stage is full when its copies are there, and empty when each warp has read it.
template <class Digits> struct Ring {
    Stage<Digits> stages[STAGES];
    float totals[2 * TOKEN_GROUPS][CONSUMER_THREADS];
    Barrier full[STAGES], empty[STAGES];
    Barrier turns[CONSUMERS]; // a consumer's turn to multiply
};
static_assert(sizeof(Ring<DigitsQ4K>) <= WARPGROUP_SHARED_BYTES && sizeof(Ring<DigitsQ5K>) <= WARPGROUP_SHARED_BYTES &&
              sizeof(Ring<DigitsQ6K>) <= WARPGROUP_SHARED_BYTES);

// Where producer and consumers are in the ring: the stage, and the parity of the phase in which it fills.
struct Place {
    uint32_t stage = 0, parity = 0;

    DEVICE void advance() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

DEVICE uint32_t products_of(const MatmulParams &p) { return p.epilogue == EPILOGUE_SWIGLU ? 2 : 1; }

// Copies one block of columns: a lane for each group of tokens, one for each strip. A group or strip beyond the last is a
// copy of the last, whose results nobody reads.
template <class Digits>
DEVICE void fill(const MatmulParams &p, const uint8_t *weights, uint32_t block, Stage<Digits> &stage, Barrier &full) {
    using Layout = typename Digits::Layout;
    const uint32_t lane = lane_index(), n_blocks = blocks_of(p.n_columns);
    if (lane == 0) arrive_announcing(full, sizeof stage);
    __syncwarp();
    if (lane < TOKEN_GROUPS) {
        const uint32_t group = min(blockIdx.y * TOKEN_GROUPS + lane, (p.n_tokens - 1) / TILE_TOKENS);
        const size_t at = (size_t)group * n_blocks + block;
        const uint8_t *codes = (const uint8_t *)p.planes.codes + at * sizeof stage.codes[0];
        copy_bulk(stage.codes[lane], codes, sizeof stage.codes[0], full);
        copy_bulk(stage.sums_of[lane], p.planes.sums + at * 3 * TILE_TOKENS, sizeof stage.sums_of[0], full);
        copy_bulk(stage.scales[lane], p.planes.scales + at * TILE_TOKENS, sizeof stage.scales[0], full);
    } else if (lane < TOKEN_GROUPS + CONSUMER_WARPS) {
        const uint32_t strip = lane - TOKEN_GROUPS;
        const uint32_t index = min(blockIdx.x * CONSUMER_WARPS + strip, p.n_rows / STRIP_ROWS - 1);
        const uint8_t *tile = weights + ((size_t)index * n_blocks + block) * Layout::BYTES;
        copy_bulk(stage.tiles[strip], tile, Layout::BYTES, full);
    }
}

// One warp fills stage after stage.
template <class Digits> DEVICE void produce(const MatmulParams &p, Ring<Digits> &ring) {
    const uint32_t n_blocks = blocks_of(p.n_columns);
    Place place;
#pragma unroll 1
    for (uint32_t product = 0; product < products_of(p); product++) {
#pragma unroll 1
        for (uint32_t block = 0; block < n_blocks; block = next_block(block, n_blocks)) {
            wait_for(ring.empty[place.stage], place.parity ^ 1);
            fill(p, p.weights[product], block, ring.stages[place.stage], ring.full[place.stage]);
            place.advance();
        }
    }
}

// Makes a warpgroup's products of one block of columns, digit by digit.
template <class Digits>
DEVICE void multiply(const Digits &weights, const Stage<Digits> &stage, Accumulators &upper, Accumulators &lower) {
    const CoreMatrices codes(stage.codes, CORE_BYTES, sizeof stage.codes[0]);
#pragma unroll
    for (int group = 0; group < BLOCK_COLUMNS / GROUP_COLUMNS; group++) {
        const uint64_t b = codes.after(group * GROUP_CORES * CORE_BYTES);
        uint32_t a_upper[4], a_lower[4];
        weights.fragments(group, a_upper, a_lower);
        begin_products();
        Digits::multiply_upper(upper, a_upper, b, group > 0);
        multiply_us(lower, a_lower, b, group > 0);
        commit_products();
        wait_for_products<2>(); // fragments but those of the last two groups may be overwritten
    }
}

// Takes a warp's 16 rows, and its warpgroup's 64, through all blocks of columns; what they sum to is in ring.totals.
template <class Digits> DEVICE void sum_rows(const MatmulParams &p, Ring<Digits> &ring, Place &place, uint32_t &turn) {
    const uint32_t n_blocks = blocks_of(p.n_columns), consumer = warpgroup_index();
    float sums[TOKEN_GROUPS][2] = {};
#pragma unroll
    for (int i = 0; i < 2 * TOKEN_GROUPS; i++) ring.totals[i][threadIdx.x] = 0.0f;
#pragma unroll 1
    for (uint32_t block = 0; block < n_blocks; block = next_block(block, n_blocks)) {
        const Stage<Digits> &stage = ring.stages[place.stage];
        wait_for(ring.full[place.stage], place.parity);
        const Digits weights(stage.tiles[warp_index()]);
        Accumulators upper, lower;
        wait_for(ring.turns[consumer], turn);
        multiply(weights, stage, upper, lower);
        if (lane_index() == 0) arrive_at(ring.turns[1 - consumer]);
        turn ^= 1;
        finish_products(upper, lower);
#pragma unroll
        for (int n = 0; n < TOKEN_GROUPS; n++) {
            float values[2], terms[2];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const int at = 4 * n + 2 * r;
                values[r] = value_of(256 * upper[at] + lower[at], 256 * upper[at + 1] + lower[at + 1]);
            }
            weights.terms(stage, n, values, terms);
#pragma unroll
            for (int r = 0; r < 2; r++) sums[n][r] = fmaf(stage.scale(n), terms[r], sums[n][r]);
        }
        __syncwarp();
        if (lane_index() == 0) arrive_at(ring.empty[place.stage]);
        place.advance();
        if (!is_last_of_class(block, n_blocks)) continue;
#pragma unroll
        for (int i = 0; i < 2 * TOKEN_GROUPS; i++) {
            ring.totals[i][threadIdx.x] += sums[i / 2][i % 2];
            sums[i / 2][i % 2] = 0.0f;
        }
    }
}

template <class Digits> DEVICE void consume(const MatmulParams &p, Ring<Digits> &ring) {
    const uint32_t index = blockIdx.x * CONSUMER_WARPS + warp_index(), lane = lane_index();
    Place place;
    uint32_t turn = warpgroup_index() == 0 ? 1 : 0; // the first one's has come
    // Gate waits in `out` for up: a thread reads what it wrote itself.
#pragma unroll 1
    for (uint32_t product = 0; product < products_of(p); product++) {
        const uint32_t epilogue = products_of(p) == 1 ? p.epilogue : product == 0 ? EPILOGUE_STORE : EPILOGUE_GATE;
        sum_rows(p, ring, place, turn);
        if (index >= p.n_rows / STRIP_ROWS) continue;
#pragma unroll 1
        for (uint32_t n = 0; n < TOKEN_GROUPS; n++) {
            const uint32_t token = TILE_TOKENS * (blockIdx.y * TOKEN_GROUPS + n) + lane % 4;
            if (token >= p.n_tokens) continue;
            const float factor = row_factor(p.planes, token, p.n_columns, p.eps);
#pragma unroll
            for (uint32_t r = 0; r < 2; r++) {
                const uint32_t row = STRIP_ROWS * index + lane / 4 + 8 * r;
                float &out = p.out[(size_t)token * p.stride + row];
                finish(epilogue, out, finished(ring.totals[2 * n + r][threadIdx.x], factor, p.bias, row), 0.0f);
            }
        }
    }
}

template <class Digits> DEVICE void matmul_warpgroup(const MatmulParams &p) {
    DYNAMIC_SHARED(shared);
    Ring<Digits> &ring = *(Ring<Digits> *)shared;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            make_barrier(ring.full[i], 1);
            make_barrier(ring.empty[i], CONSUMER_WARPS);
        }
        for (int i = 0; i < CONSUMERS; i++) make_barrier(ring.turns[i], WARPGROUP / WARP);
        publish_barriers();
    }
    __syncthreads();
    // 384 threads begin with 168 registers each.
    if (warpgroup_index() == CONSUMERS) {
        shrink_registers<40>();
        if (warp_index() == CONSUMER_WARPS) produce(p, ring);
    } else {
        grow_registers<232>();
        consume(p, ring);
    }
}

// loop: matmul_warpgroup_.* 2048
KERNEL_SM90A(matmul_warpgroup_q4_k, MatmulParams, 384, 1) { matmul_warpgroup<DigitsQ4K>(p); }
KERNEL_SM90A(matmul_warpgroup_q5_k, MatmulParams, 384, 1) { matmul_warpgroup<DigitsQ5K>(p); }
KERNEL_SM90A(matmul_warpgroup_q6_k, MatmulParams, 384, 1) { matmul_warpgroup<DigitsQ6K>(p); }
