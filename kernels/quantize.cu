// Activations for a matmul: y = x, or y = x · norm with the sums of squares that RMSNorm still needs, as 16-bit fixed
// point.
//
//   for each 256 columns: scale = largest |y| / 32512, code = y / scale to the nearest integer,
//   high = (code + 128) >> 8, low = code - 256 · high; for each 32 columns the sum of codes in three digits;
//   where there is a norm, Σ x²
//
// quantize: for the kernels of all GPUs. quantize_cores: the codes in core matrices.
//
// x is [rows][stride] from row `first_row` on, norm [n_columns], planes as in planes.cuh.
// Grid: x = ceil(n_columns / 2048), y = n_rows to the next multiple of 4, whose last rows get zeros; 256 threads, a warp for
// each block of 256 columns. Bytes: reads 4 a value, writes 2 and 32/256.
#include "params.cuh"
#include "quantize.cuh"

constexpr int THREADS = 256;

template <Order ORDER> DEVICE void quantize_row(const QuantizeParams &p) {
    const uint32_t block = blockIdx.x * (THREADS / WARP) + warp_index(), row = blockIdx.y;
    if (block >= blocks_of(p.n_columns)) return;
    const uint32_t n_read = row < p.n_rows ? p.n_columns : 0;
    const float *x = p.x + (uint64_t)(p.first_row + row) * p.stride;
    quantize_columns<ORDER>(p.planes, row, block, p.n_columns, x, n_read, p.norm);
}

KERNEL(quantize, QuantizeParams, THREADS, 4) { quantize_row<Order::Lanes>(p); }
KERNEL(quantize_cores, QuantizeParams, THREADS, 4) { quantize_row<Order::Cores>(p); }
