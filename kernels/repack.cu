// Weights from the file's order into tiles (layouts.cuh) and back, byte for byte.
//
// from and into are whole strips of 16 rows of `n_columns` columns.
// Grid: x = n_rows / 16, y = n_columns / COLUMNS, a block a tile; 128 threads, each taking pairs of bytes.
// Bytes: each of the matrix's once read and once written.
#include "layouts.cuh"
#include "params.cuh"

constexpr int THREADS = 128;

// The part of a tile's 16 rows in the file, and the tile: one of them written.
struct Sides {
    uint8_t *file; // of the first row
    uint64_t row_bytes;
    uint8_t *tile;
    DEVICE uint8_t *row(uint32_t row) const { return file + row * row_bytes; }
};

DEVICE uint16_t *pair(uint8_t *bytes) { return (uint16_t *)bytes; }

// The fifth bits of Q5_0: a thread for each lane's word, or for each block.
template <bool INTO_TILES> DEVICE void move_fifth_bits(const Sides &sides) {
    using Layout = LayoutQ5;
    if (threadIdx.x >= WARP) return;
    if constexpr (INTO_TILES) {
        const uint32_t g = threadIdx.x / 4, t = threadIdx.x % 4;
        uint32_t word = 0;
        for (uint32_t r = 0; r < 2; r++)
            for (uint32_t block = 0; block < 2; block++) {
                uint8_t *qh = sides.row(g + 8 * r) + block * Layout::BLOCK_BYTES + Layout::QH;
                word |= Layout::lane_of_fifth_bits(*pair(qh) | (uint32_t)*pair(qh + 2) << 16, t, block, r);
            }
        ((uint32_t *)(sides.tile + Layout::HIGH))[threadIdx.x] = word;
    } else {
        const uint32_t row = threadIdx.x / 2, block = threadIdx.x % 2;
        uint8_t *qh = sides.row(row) + block * Layout::BLOCK_BYTES + Layout::QH;
        const uint32_t bits = Layout::take_fifth_bits(sides.tile, row, block);
        *pair(qh) = (uint16_t)bits;
        *pair(qh + 2) = (uint16_t)(bits >> 16);
    }
}

template <typename Layout, bool INTO_TILES> DEVICE void move(const RepackParams &p) {
    constexpr uint32_t PART = Layout::BYTES / STRIP_ROWS; // bytes of a row in a tile
    const uint64_t row_bytes = (uint64_t)(p.n_columns / Layout::COLUMNS) * PART, strip = blockIdx.x * STRIP_ROWS * row_bytes;
    const uint64_t in_file = strip + blockIdx.y * PART, in_tiles = strip + blockIdx.y * Layout::BYTES;
    uint8_t *from = (uint8_t *)p.from; // of which nothing is written
    const Sides sides = INTO_TILES ? Sides{from + in_file, row_bytes, p.into + in_tiles}
                                   : Sides{p.into + in_file, row_bytes, from + in_tiles};
    for (uint32_t i = threadIdx.x; i < Layout::BYTES / 2; i += THREADS) {
        const uint32_t row = 2 * i / PART, at = 2 * i % PART;
        if constexpr (Layout::FIFTH_BITS)
            if (Layout::is_fifth_bits(at)) continue;
        uint16_t *in_row = pair(sides.row(row) + at), *in_tile = pair(sides.tile + Layout::place(row, at));
        if constexpr (INTO_TILES) *in_tile = *in_row;
        else *in_row = *in_tile;
    }
    if constexpr (Layout::FIFTH_BITS) move_fifth_bits<INTO_TILES>(sides);
}

KERNEL(repack_q4_0, RepackParams, THREADS, 8) { move<LayoutQ4, true>(p); }
KERNEL(repack_q5_0, RepackParams, THREADS, 8) { move<LayoutQ5, true>(p); }
KERNEL(repack_q8_0, RepackParams, THREADS, 8) { move<LayoutQ8, true>(p); }
KERNEL(repack_q4_k, RepackParams, THREADS, 8) { move<LayoutQ4K, true>(p); }
KERNEL(repack_q5_k, RepackParams, THREADS, 8) { move<LayoutQ5K, true>(p); }
KERNEL(repack_q6_k, RepackParams, THREADS, 8) { move<LayoutQ6K, true>(p); }

KERNEL(unpack_q4_0, RepackParams, THREADS, 8) { move<LayoutQ4, false>(p); }
KERNEL(unpack_q5_0, RepackParams, THREADS, 8) { move<LayoutQ5, false>(p); }
KERNEL(unpack_q8_0, RepackParams, THREADS, 8) { move<LayoutQ8, false>(p); }
KERNEL(unpack_q4_k, RepackParams, THREADS, 8) { move<LayoutQ4K, false>(p); }
KERNEL(unpack_q5_k, RepackParams, THREADS, 8) { move<LayoutQ5K, false>(p); }
KERNEL(unpack_q6_k, RepackParams, THREADS, 8) { move<LayoutQ6K, false>(p); }
