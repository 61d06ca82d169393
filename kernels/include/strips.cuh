// Strips of 16 rows of a matrix in tiles, and the order in which blocks of 256 columns are added.
//
// The term of a block is exact but for its last steps (tiles.cuh); acc = fma(scale of x, term, acc) over the blocks of a
// class (number mod 8) in order, then the eight classes are added in order. Decode and prefill follow it, so their bits are
// the same, and no result depends on which tokens are computed together.
#pragma once
#include "tiles.cuh"

// One strip after another along the rows of a matrix.
template <class Tiles> DEVICE const uint8_t *strip_at(const uint8_t *weights, uint32_t index, uint32_t n_columns) {
    return weights + (size_t)index * (n_columns / Tiles::Layout::COLUMNS) * Tiles::Layout::BYTES;
}

template <class Tiles> DEVICE size_t block_offset(uint32_t block) {
    return (size_t)block * (BLOCK_COLUMNS / Tiles::Layout::COLUMNS) * Tiles::Layout::BYTES;
}

DEVICE uint32_t units_in_block(uint32_t block, uint32_t n_units) {
    return min(n_units - 4 * block, (uint32_t)(BLOCK_COLUMNS / UNIT_COLUMNS));
}
