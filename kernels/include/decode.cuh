// The decode product of matmul_decode.cu, which says what it computes: written once for any tiles, so that kernels/lab can
// put other tiles in its loop.
#pragma once
#include "arrival.cuh"
#include "epilogue.cuh"
#include "params.cuh"
#include "quantize.cuh"
#include "strips.cuh"

constexpr uint32_t WARPS = 8;
static_assert(WARPS == CLASSES);

// A lane's view of one block of columns in global memory, for N groups of four tokens.
template <int N> struct GlobalActivations {
    const Planes &planes;
    uint32_t n_tokens, block, n_units, n_blocks;

    DEVICE Words4 codes(int n, int unit) const {
        const uint32_t lane = lane_index();
        if (TILE_TOKENS * n + lane / 8 >= n_tokens) return Words4{0, 0, 0, 0};
        return planes.codes[((size_t)n * n_units + 4 * block + unit) * WARP + lane];
    }
    DEVICE uint32_t token(int n) const { return min((uint32_t)(TILE_TOKENS * n + lane_index() % 4), n_tokens - 1); }
    DEVICE uint32_t sums(int n, int digit) const {
        const uint32_t lane = lane_index(), row = TILE_TOKENS * n + lane / 8;
        if (row >= n_tokens) return 0;
        return ((const uint32_t *)(planes.sums + sum_index(row, block, digit, n_blocks)))[lane % 2];
    }
    DEVICE float scale(int n) const { return planes.scales[scale_index(token(n), block, n_blocks)]; }
};

// One class of a strip's product with 4 N tokens.
template <class Tiles, int N>
DEVICE void sum_class(const MatmulDecodeParams &p, const uint8_t *strip, uint32_t number, float (&sums)[N][2]) {
    const uint32_t n_units = units_of(p.n_columns), n_blocks = blocks_of(p.n_columns);
#pragma unroll
    for (int n = 0; n < N; n++) sums[n][0] = sums[n][1] = 0.0f;
#pragma unroll 1
    for (uint32_t block = number; block < n_blocks; block += CLASSES) {
        const GlobalActivations<N> activations{p.planes, p.n_tokens, block, n_units, n_blocks};
        const uint32_t units = units_in_block(block, n_units);
        Tiles tiles[1];
        tiles[0].load(strip + block_offset<Tiles>(block), units, FromGlobal{});
        Tiles::template multiply<N>(tiles, units, activations, [&](int, int n, int r, float term) {
            sums[n][r] = fmaf(activations.scale(n), term, sums[n][r]);
        });
    }
}

// Calls `work` with the tiles of a format, by its number in GGUF.
struct AnyTiles {
    template <class Work> DEVICE static void with(uint32_t format, Work work) {
        switch (format) {
        case 2: return work(SignedTiles<CodesQ4, TilesOnDemand<CodesQ4>>{});
        case 6: return work(SignedTiles<CodesQ5, TilesOnDemand<CodesQ5>>{});
        case 8: return work(SignedTiles<CodesQ8, TilesOnDemand<CodesQ8>>{});
        case 12: return work(TilesQ4K{});
        case 13: return work(TilesQ5K{});
        case 14: return work(TilesQ6K{});
        }
    }
};

// The same where only one format can be.
template <class Tiles> struct OneKind {
    template <class Work> DEVICE static void with(uint32_t, Work work) { work(Tiles{}); }
};

// The matrix that holds row `row` of the outputs that stand side by side.
DEVICE uint32_t part_of(const MatmulDecodeParams &p, uint32_t row) {
    uint32_t part = 0;
    while (row >= p.parts[part].end_row) part++;
    return part;
}

// Asks for the first tile of this warp's class of the block's first strip.
template <class Kind> DEVICE void prefetch_weights(const MatmulDecodeParams &p) {
    const uint32_t row = STRIP_ROWS * blockIdx.x, block = warp_index();
    if (row >= p.n_rows || block >= blocks_of(p.n_columns)) return;
    const MatmulPart &part = p.parts[p.epilogue == EPILOGUE_SWIGLU ? 0 : part_of(p, row)];
    Kind::with(part.format, [&](auto tiles) {
        using Tiles = decltype(tiles);
        const uint8_t *strip = strip_at<Tiles>(part.weights, (row - part.first_row) / STRIP_ROWS, p.n_columns);
        const uint32_t at = 128 * lane_index();
        if (at < Tiles::Layout::BYTES) prefetch(strip + block_offset<Tiles>(block) + at);
    });
}

// The sums of a strip's classes, for the tokens of a launch.
using ClassSums = float[CLASSES][8][STRIP_ROWS];

// Adds the classes of a strip, one element of the output a thread.
DEVICE void finish_strip(const MatmulDecodeParams &p, uint32_t strip, const ClassSums (&classes)[2]) {
    const uint32_t row = STRIP_ROWS * strip + threadIdx.x % STRIP_ROWS, token = threadIdx.x / STRIP_ROWS;
    if (token >= p.n_tokens) return;
    const bool is_gated = p.epilogue == EPILOGUE_SWIGLU;
    const MatmulPart &part = p.parts[is_gated ? 0 : part_of(p, row)];
    const float factor = row_factor(p.planes, token, p.n_columns, p.eps);
    float first = 0.0f, second = 0.0f;
#pragma unroll
    for (uint32_t number = 0; number < CLASSES; number++) first += classes[0][number][token][row % STRIP_ROWS];
    if (is_gated) {
#pragma unroll
        for (uint32_t number = 0; number < CLASSES; number++) second += classes[1][number][token][row % STRIP_ROWS];
        second *= factor;
    }
    float &out = p.out[(size_t)token * p.stride + row];
    finish(p.epilogue, out, finished(first, factor, part.bias, row - part.first_row), second);
}

// The last block to finish 256 columns of the output makes planes of them, a warp for each token.
DEVICE void make_planes(const MatmulDecodeParams &p, uint32_t strip) {
    constexpr uint32_t STRIPS = BLOCK_COLUMNS / STRIP_ROWS;
    const uint32_t block = strip / STRIPS, n_strips = p.n_rows / STRIP_ROWS;
    const uint32_t is_last =
        arrive(p.arrivals + block, 1, [&](uint32_t) { return min(STRIPS, n_strips - STRIPS * block); });
    const uint32_t token = warp_index();
    if (!is_last || token >= p.n_tokens) return;
    quantize_columns(p.next, token, block, p.n_rows, p.out + (size_t)token * p.stride, p.n_rows, p.next_norm);
}

// The class that a warp sums of the block's strip number `turn`.
DEVICE uint32_t class_of(uint32_t turn) { return (warp_index() + WARPS / 2 * turn) % CLASSES; }

template <class Kind, int N> DEVICE void decode(const MatmulDecodeParams &p, ClassSums (&sums)[2][2]) {
    const uint32_t n_strips = p.n_rows / STRIP_ROWS, lane = lane_index();
    const bool is_gated = p.epilogue == EPILOGUE_SWIGLU;
    uint32_t turn = 0;
#pragma unroll 1
    for (uint32_t strip = blockIdx.x; strip < n_strips; strip += gridDim.x, turn++) {
        // A warp that is done goes on to the next strip; only two of them are under way.
        ClassSums(&classes)[2] = sums[turn % 2];
        const uint32_t number = class_of(turn);
#pragma unroll 1
        for (uint32_t product = 0; product < (is_gated ? 2 : 1); product++) {
            const MatmulPart &part = p.parts[is_gated ? product : part_of(p, STRIP_ROWS * strip)];
            Kind::with(part.format, [&](auto tiles) {
                using Tiles = decltype(tiles);
                const uint32_t index = strip - part.first_row / STRIP_ROWS;
                float terms[N][2];
                sum_class<Tiles, N>(p, strip_at<Tiles>(part.weights, index, p.n_columns), number, terms);
#pragma unroll
                for (int n = 0; n < N; n++) {
#pragma unroll
                    for (int r = 0; r < 2; r++)
                        classes[product][number][TILE_TOKENS * n + lane % 4][lane / 4 + 8 * r] = terms[n][r];
                }
            });
        }
        __syncthreads();
        finish_strip(p, strip, classes);
        if (p.arrivals != nullptr) make_planes(p, strip);
    }
}

// For LEAST to MOST groups of four tokens.
template <class Kind, int LEAST, int MOST = LEAST> DEVICE void matmul_decode(const MatmulDecodeParams &p) {
    SHARED(ClassSums, sums, [2][2]);
    prefetch_weights<Kind>(p);
    await_inputs();
    if (LEAST == MOST || p.n_tokens <= LEAST * TILE_TOKENS) decode<Kind, LEAST>(p, sums);
    else decode<Kind, MOST>(p, sums);
}
