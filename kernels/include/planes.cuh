// Activations as 16-bit fixed point in two planes of signed bytes: x = scale · (256 · high + low), one scale per row and
// 256 columns. Products with integer weights are exact, so any tile, any split of lanes and any batch give the same
// integers, and only the sum over blocks of 256 columns needs one order.
//
// |256 · high + low| <= 32512 = 127 · 256, so that both digits fit a signed byte: low in [-128, 127], high in [-127, 127].
// The error of a value is at most scale / 2 = largest / 65024: about 1e-4 of a row's root mean square.
#pragma once
#include "platform.cuh"

constexpr int BLOCK_COLUMNS = 256; // columns under one scale
constexpr int UNIT_COLUMNS = 64;   // columns that a lane's 16 bytes belong to
constexpr int GROUP_COLUMNS = 32;  // columns under one sum
constexpr int TILE_TOKENS = 4;     // rows that stand together: with two planes each, the 8 columns of an mma
constexpr int LARGEST_CODE = 32512;

// Rows of activations in the order in which the tensor cores' second operand wants them. With T = ceil(rows / 4),
// U = ceil(columns / 64), B = ceil(columns / 256):
//   codes  [T][U][lane]        16 bytes: lane = 8 · token + 4 · plane + t (token in 0..4, plane 0 high, 1 low, t in 0..4)
//                              holds columns 4t..4t+3, 16+4t.., 32+4t.., 48+4t.. of the unit
//   scales [T][B][token]       f32
//   sums   [T][B][digit][token] 8 bytes, one for each 32 columns: Σ(256 · high + low) = d0 + 256 · d1 + 65536 · d2 with
//                              d0, d1 unsigned and d2 signed
//   squares [T][B][token]      f32, Σ x² of the block: where there is a norm, planes hold x times the norm's weights, and
//                              row_factor() makes of the squares what all of a row is still to be multiplied by
// Columns beyond the last hold zeros; rows beyond the last are nobody's.
//
// Where products of warpgroups read the codes, each unit's 512 bytes stand in core matrices (hopper.cuh) instead:
//   codes  [T][U][quarter][8 columns of the mma][16 bytes], a column being 2 · token + plane: columns 16 · quarter .. 16 ·
//                              quarter + 15 of the unit
struct Planes {
    Words4 *codes;
    float *scales;
    Words2 *sums;
    float *squares; // null where there is no norm
};

DEVICE uint32_t blocks_of(uint32_t n_columns) { return (n_columns + BLOCK_COLUMNS - 1) / BLOCK_COLUMNS; }
DEVICE uint32_t units_of(uint32_t n_columns) { return (n_columns + UNIT_COLUMNS - 1) / UNIT_COLUMNS; }

// The two orders of codes.
enum class Order { Lanes, Cores };

// The word of `planes.codes` that holds columns `column` .. `column + 3` (a multiple of four) of a row.
template <Order ORDER = Order::Lanes>
DEVICE uint32_t code_word(uint32_t row, int plane, uint32_t column, uint32_t n_units) {
    const uint32_t unit = column / UNIT_COLUMNS, quarter = column % UNIT_COLUMNS / 16, t = column % 16 / 4;
    const uint32_t lane = 8 * (row % TILE_TOKENS) + 4 * plane + t, tile_unit = row / TILE_TOKENS * n_units + unit;
    return ORDER == Order::Cores ? (tile_unit * 4 + quarter) * WARP + lane : (tile_unit * WARP + lane) * 4 + quarter;
}

DEVICE uint32_t scale_index(uint32_t row, uint32_t block, uint32_t n_blocks) {
    return (row / TILE_TOKENS * n_blocks + block) * TILE_TOKENS + row % TILE_TOKENS;
}

DEVICE uint32_t sum_index(uint32_t row, uint32_t block, int digit, uint32_t n_blocks) {
    return ((row / TILE_TOKENS * n_blocks + block) * 3 + digit) * TILE_TOKENS + row % TILE_TOKENS;
}

// The order in which a float sum over blocks goes: class after class (number mod 8), each in order. The block after `block`;
// n_blocks after the last.
constexpr uint32_t CLASSES = 8;
DEVICE uint32_t next_block(uint32_t block, uint32_t n_blocks) {
    if (block + CLASSES < n_blocks) return block + CLASSES;
    const uint32_t next = block % CLASSES + 1;
    return block < n_blocks && next < min(CLASSES, n_blocks) ? next : n_blocks;
}
DEVICE bool is_last_of_class(uint32_t block, uint32_t n_blocks) { return block + CLASSES >= n_blocks; }

// What the products of a row are multiplied by: 1 / sqrt(mean(x²) + eps), or 1 where there is no norm. The sums of
// squares are added in the order of the blocks.
DEVICE float row_factor(const Planes &planes, uint32_t row, uint32_t n_columns, float eps) {
    if (planes.squares == nullptr) return 1.0f;
    const uint32_t n_blocks = blocks_of(n_columns);
    float sum = 0.0f;
#pragma unroll 4
    for (uint32_t block = 0; block < n_blocks; block++) sum += planes.squares[scale_index(row, block, n_blocks)];
    return 1.0f / sqrtf(sum / (float)n_columns + eps);
}
