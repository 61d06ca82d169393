// Activations for a matmul: y = x, or RMSNorm y = x · (1 / sqrt(mean(x²) + eps)) · norm, as 16-bit fixed point.
//
//   for each 256 columns: scale = largest |y| / 32512, code = y / scale to the nearest integer,
//   high = (code + 128) >> 8, low = code - 256 · high; for each 32 columns the sum of codes in three digits
//
// x is [rows][stride] from row `first_row` on, norm [n_columns], planes as in planes.cuh.
// Grid: x = n_rows to the next multiple of 4, whose last rows get zeros; 256 threads.
// Bytes: reads 4 a value (twice where there is a norm, the second time from a cache), writes 2 and 28/256.
#include "params.cuh"
#include "quantize.cuh"

constexpr int THREADS = 256;

KERNEL(quantize, QuantizeParams, THREADS, 4) {
    const uint32_t row = blockIdx.x;
    const uint32_t n_columns = row < p.n_rows ? p.n_columns : 0; // that are read
    const float *x = p.x + (uint64_t)(p.first_row + row) * p.stride;
    const bool has_norm = p.norm != nullptr && n_columns > 0;
    const float factor = has_norm ? norm_factor<THREADS>(x, n_columns, p.eps) : 1.0f;

    for (uint32_t block = warp_index(); block < blocks_of(p.n_columns); block += THREADS / WARP) {
        LaneColumns y;
        for (int half = 0; half < 2; half++) {
            const uint32_t column = BLOCK_COLUMNS * block + 8 * lane_index() + 4 * half;
            load_four(x, column, n_columns, y[half]);
            if (!has_norm) continue;
            float norm[4];
            load_four(p.norm, column, n_columns, norm);
            for (int i = 0; i < 4; i++) y[half][i] = y[half][i] * factor * norm[i];
        }
        quantize_block(p.planes, row, block, p.n_columns, y);
    }
}
