// Weights from the file's order into tiles (layouts.cuh) and back, byte for byte.
//
// from and into are whole strips of 16 rows of `n_columns` columns. Each kernel takes a tile a block and goes on by the
// number of blocks, so that any grid does; a block per tile, (n_rows / 16) · (n_columns / COLUMNS), is best. 256 threads.
// Bytes: each of the matrix's once read and once written.
#include "layouts.cuh"
#include "params.cuh"

constexpr int THREADS = 256;

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
    using Tile = tile::Q5_0;
    if (threadIdx.x >= WARP) return;
    if constexpr (INTO_TILES) {
        const uint32_t g = threadIdx.x / 4, t = threadIdx.x % 4;
        uint32_t word = 0;
        for (uint32_t r = 0; r < 2; r++)
            for (uint32_t block = 0; block < 2; block++) {
                uint8_t *qh = sides.row(g + 8 * r) + block * Tile::BLOCK_BYTES + Tile::QH;
                word |= Tile::lane_of_fifth_bits(*pair(qh) | (uint32_t)*pair(qh + 2) << 16, t, block, r);
            }
        ((uint32_t *)(sides.tile + Tile::HIGH))[threadIdx.x] = word;
    } else {
        const uint32_t row = threadIdx.x / 2, block = threadIdx.x % 2;
        uint8_t *qh = sides.row(row) + block * Tile::BLOCK_BYTES + Tile::QH;
        const uint32_t bits = Tile::take_fifth_bits(sides.tile, row, block);
        *pair(qh) = (uint16_t)bits;
        *pair(qh + 2) = (uint16_t)(bits >> 16);
    }
}

template <typename Tile, bool INTO_TILES> DEVICE void move(const RepackParams &p) {
    constexpr uint32_t PART = Tile::BYTES / TILE_ROWS; // bytes of a row in a tile
    const uint32_t across = p.n_columns / Tile::COLUMNS;
    const uint64_t n_tiles = (uint64_t)(p.n_rows / TILE_ROWS) * across;
    for (uint64_t index = blockIdx.x; index < n_tiles; index += gridDim.x) {
        const uint64_t in_file = index / across * across * Tile::BYTES + index % across * PART;
        const uint64_t in_tiles = index * Tile::BYTES;
        uint8_t *from = (uint8_t *)p.from; // written on neither way
        const Sides sides = INTO_TILES ? Sides{from + in_file, (uint64_t)across * PART, p.into + in_tiles}
                                       : Sides{p.into + in_file, (uint64_t)across * PART, from + in_tiles};
        for (uint32_t i = threadIdx.x; i < Tile::BYTES / 2; i += THREADS) {
            const uint32_t row = 2 * i / PART, at = 2 * i % PART;
            if constexpr (Tile::FIFTH_BITS)
                if (Tile::is_fifth_bits(at)) continue;
            uint16_t *in_row = pair(sides.row(row) + at), *in_tile = pair(sides.tile + Tile::place(row, at));
            if constexpr (INTO_TILES) *in_tile = *in_row;
            else *in_row = *in_tile;
        }
        if constexpr (Tile::FIFTH_BITS) move_fifth_bits<INTO_TILES>(sides);
    }
}

KERNEL(repack_q4_0, RepackParams, THREADS, 4) { move<tile::Q4_0, true>(p); }
KERNEL(repack_q5_0, RepackParams, THREADS, 4) { move<tile::Q5_0, true>(p); }
KERNEL(repack_q8_0, RepackParams, THREADS, 4) { move<tile::Q8_0, true>(p); }
KERNEL(repack_q4_k, RepackParams, THREADS, 4) { move<tile::Q4_K, true>(p); }
KERNEL(repack_q5_k, RepackParams, THREADS, 4) { move<tile::Q5_K, true>(p); }
KERNEL(repack_q6_k, RepackParams, THREADS, 4) { move<tile::Q6_K, true>(p); }

KERNEL(unpack_q4_0, RepackParams, THREADS, 4) { move<tile::Q4_0, false>(p); }
KERNEL(unpack_q5_0, RepackParams, THREADS, 4) { move<tile::Q5_0, false>(p); }
KERNEL(unpack_q8_0, RepackParams, THREADS, 4) { move<tile::Q8_0, false>(p); }
KERNEL(unpack_q4_k, RepackParams, THREADS, 4) { move<tile::Q4_K, false>(p); }
KERNEL(unpack_q5_k, RepackParams, THREADS, 4) { move<tile::Q5_K, false>(p); }
KERNEL(unpack_q6_k, RepackParams, THREADS, 4) { move<tile::Q6_K, false>(p); }
