// The product's arithmetic for up to four tokens, with weights asked for ahead: while a warp multiplies a tile, its next
// ones are on their way, over the ends of strips too.
//
//   lab_mma_ahead:  the next tile, into registers
//   lab_mma_staged: the next STAGES tiles, into shared memory that is the warp's own (cp.async)
//
// Mathematics, order of sums and grid are those of matmul_decode.cu, and so are the bits; one matrix, stored. A warp asks
// for its first tiles before it waits for its inputs.
#include "lab.cuh"

// The tiles of a warp in the order in which it takes them: its class of a strip, then of the block's next strip.
struct Tour {
    const MatmulDecodeParams &p;
    uint32_t strip, turn = 0, block;

    DEVICE explicit Tour(const MatmulDecodeParams &p) : p(p), strip(blockIdx.x), block(class_of(0)) { find(); }
    DEVICE bool is_over() const { return strip >= p.n_rows / STRIP_ROWS; }
    DEVICE const uint8_t *tile() const {
        return p.parts[0].weights + (size_t)(strip * blocks_of(p.n_columns) + block) * LayoutQ4K::BYTES;
    }
    DEVICE void go_on() {
        block += CLASSES;
        find();
    }
    // A class of a short row may have no tile.
    DEVICE void find() {
        while (!is_over() && block >= blocks_of(p.n_columns)) strip += gridDim.x, block = class_of(++turn);
    }
};

struct RegisterQueue {
    Tour tour;
    TilesQ4K next;

    DEVICE explicit RegisterQueue(const MatmulDecodeParams &p) : tour(p) { ask(); }
    DEVICE void ask() {
        if (tour.is_over()) return;
        next.load(tour.tile(), 0, FromGlobal{});
        tour.go_on();
    }
    DEVICE TilesQ4K take() {
        const TilesQ4K tile = next;
        ask();
        return tile;
    }
};

constexpr int STAGES = 3;

struct SharedQueue {
    Tour tour;
    uint8_t *ring; // of this warp
    int at = 0;    // the stage that is taken next

    DEVICE SharedQueue(const MatmulDecodeParams &p, uint8_t *rings)
        : tour(p), ring(rings + warp_index() * STAGES * LayoutQ4K::BYTES) {
        for (int stage = 0; stage < STAGES; stage++) ask(stage);
    }
    DEVICE void ask(int stage) {
        if (!tour.is_over()) {
            const uint8_t *tile = tour.tile();
            for (uint32_t at = 16 * lane_index(); at < LayoutQ4K::BYTES; at += 16 * WARP)
                copy_async(ring + stage * LayoutQ4K::BYTES + at, tile + at);
            tour.go_on();
        }
        copy_async_commit(); // of nothing at the end, so that the wait counts alike
    }
    DEVICE TilesQ4K take() {
        TilesQ4K tile;
        copy_async_wait<STAGES - 1>();
        __syncwarp();
        tile.load(ring + at * LayoutQ4K::BYTES, 0, FromShared{});
        __syncwarp();
        ask(at);
        at = at + 1 == STAGES ? 0 : at + 1;
        return tile;
    }
};

template <class Queue> DEVICE void decode_ahead(const MatmulDecodeParams &p, Queue &queue, ClassSums (&sums)[2][2]) {
    const uint32_t n_units = units_of(p.n_columns), n_blocks = blocks_of(p.n_columns), lane = lane_index();
    uint32_t turn = 0;
#pragma unroll 1
    for (uint32_t strip = blockIdx.x; strip < p.n_rows / STRIP_ROWS; strip += gridDim.x, turn++) {
        const uint32_t number = class_of(turn);
        float sum[2] = {};
#pragma unroll 1
        for (uint32_t block = number; block < n_blocks; block += CLASSES) {
            const GlobalActivations<1> activations{p.planes, p.n_tokens, block, n_units, n_blocks};
            const TilesQ4K tiles[1] = {queue.take()};
            TilesQ4K::multiply<1>(tiles, 0, activations, [&](int, int, int r, float term) {
                sum[r] = fmaf(activations.scale(0), term, sum[r]);
            });
        }
#pragma unroll
        for (int r = 0; r < 2; r++) sums[turn % 2][0][number][lane % 4][lane / 4 + 8 * r] = sum[r];
        __syncthreads();
        finish_strip(p, strip, sums[turn % 2]);
    }
}

// loop: lab_mma_(ahead|staged) 128
// in flight: lab_mma_ahead 2 1 0
// in flight: lab_mma_staged 3 3 55296
KERNEL_AHEAD(lab_mma_ahead, MatmulDecodeParams, 256, 2) {
    SHARED(ClassSums, sums, [2][2]);
    RegisterQueue queue(p);
    await_inputs();
    decode_ahead(p, queue, sums);
}
KERNEL_AHEAD(lab_mma_staged, MatmulDecodeParams, 256, 2) {
    SHARED(ClassSums, sums, [2][2]);
    DYNAMIC_SHARED(rings);
    SharedQueue queue(p, rings);
    await_inputs();
    decode_ahead(p, queue, sums);
}
