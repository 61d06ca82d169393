// Rows of singles into 16-bit fixed point in two planes (planes.cuh), a warp for each block of 256 columns.
#pragma once
#include <float.h>

#include "planes.cuh"
#include "reduce.cuh"

// A block whose largest value is below this counts as zero: its scale would come near the subnormal numbers.
constexpr float SMALLEST_LARGEST = 7.8886091e-31f; // 2^-100

// Four columns of a row that has `n` of them, zeros beyond; the row begins at a multiple of 16 bytes.
DEVICE void load_four(const float *row, uint32_t column, uint32_t n, float (&values)[4]) {
    if (column + 4 <= n) {
        const Words4 words = *(const Words4 *)(row + column);
        values[0] = float_of(words.x), values[1] = float_of(words.y);
        values[2] = float_of(words.z), values[3] = float_of(words.w);
        return;
    }
    for (uint32_t i = 0; i < 4; i++) values[i] = column + i < n ? row[column + i] : 0.0f;
}

// A value without its sign, as bits: in the order of magnitudes, with what is not a number last.
DEVICE uint32_t magnitude(float value) { return bits_of(value) & 0x7fffffff; }

// The largest of the warp's numbers.
DEVICE uint32_t warp_largest(uint32_t value) {
    for (int mask = WARP / 2; mask > 0; mask /= 2) value = max(value, shuffle_xor(value, mask));
    return value;
}

// A warp's 256 columns as lane `l` holds them: columns 8l .. 8l + 3 and 8l + 4 .. 8l + 7 of block `block`.
using LaneColumns = float[2][4];

// Writes a block of row `row`: codes in an order, scale and sums. What is infinite or not a number stands in the scale alone,
// with codes of zero: products are then not numbers either. Every lane of the warp takes part.
template <Order ORDER>
DEVICE void quantize_block(const Planes &to, uint32_t row, uint32_t block, uint32_t n_columns, const LaneColumns &y) {
    const uint32_t n_units = units_of(n_columns), n_blocks = blocks_of(n_columns), lane = lane_index();
    uint32_t bits = 0;
    for (int i = 0; i < 8; i++) bits = max(bits, magnitude(y[i / 4][i % 4]));
    float largest = float_of(warp_largest(bits));
    if (largest < SMALLEST_LARGEST) largest = 0.0f;
    const bool coded = largest > 0.0f && largest <= FLT_MAX;
    const float inverse = coded ? (float)LARGEST_CODE / largest : 0.0f;

    int sum = 0;
    for (int half = 0; half < 2; half++) {
        uint32_t high = 0, low = 0;
        for (int i = 0; i < 4; i++) {
            int code = coded ? round_to_int(y[half][i] * inverse) : 0;
            code = min(max(code, -LARGEST_CODE), LARGEST_CODE);
            const int upper = (code + 128) >> 8;
            high |= (uint32_t)(upper & 255) << (8 * i);
            low |= (uint32_t)((code - 256 * upper) & 255) << (8 * i);
            sum += code;
        }
        const uint32_t column = BLOCK_COLUMNS * block + 8 * lane + 4 * half;
        if (column < UNIT_COLUMNS * n_units) {
            uint32_t *words = (uint32_t *)to.codes;
            words[code_word<ORDER>(row, 0, column, n_units)] = high;
            words[code_word<ORDER>(row, 1, column, n_units)] = low;
        }
    }
    sum += shuffle_xor(sum, 1);
    sum += shuffle_xor(sum, 2); // of 32 columns
    const int digit = lane % 4;
    if (digit < 3) {
        const int value = digit == 2 ? sum >> 16 : sum >> (8 * digit) & 255;
        uint8_t *groups = (uint8_t *)(to.sums + sum_index(row, block, digit, n_blocks));
        groups[lane / 4] = (uint8_t)value;
    }
    if (lane == 0) to.scales[scale_index(row, block, n_blocks)] = largest / (float)LARGEST_CODE;
}

// A warp's block of row `row` of planes: y = x, or x times the weights of a norm, of the first `n_read` columns of `x`
// (n_columns, or none for a row of zeros). Every lane of the warp takes part.
template <Order ORDER = Order::Lanes>
DEVICE void quantize_columns(const Planes &to, uint32_t row, uint32_t block, uint32_t n_columns, const float *x,
                             uint32_t n_read, const float *norm) {
    LaneColumns y;
    float squares = 0.0f;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint32_t column = BLOCK_COLUMNS * block + 8 * lane_index() + 4 * half;
        load_four(x, column, n_read, y[half]);
        if (norm == nullptr) continue;
        float weights[4];
        load_four(norm, column, n_read, weights);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            squares = fmaf(y[half][i], y[half][i], squares);
            y[half][i] *= weights[i];
        }
    }
    quantize_block<ORDER>(to, row, block, n_columns, y);
    if (norm == nullptr) return;
    squares = warp_sum(squares);
    if (lane_index() == 0) to.squares[scale_index(row, block, blocks_of(n_columns))] = squares;
}
