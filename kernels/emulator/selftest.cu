// Kernels that show what the emulator finds: tests/emulator_runtime.rs runs them.
#include "reduce.cuh"

struct SelftestParams {
    const uint32_t *in;
    uint32_t *out;
    uint32_t n, unused;
};

// out[block] = the sum of in[block][256], as float.
KERNEL(selftest_sum, SelftestParams, 256, 1) {
    const float value = float_of(p.in[blockIdx.x * blockDim.x + threadIdx.x]);
    const float sum = block_sum<256>(value);
    if (threadIdx.x == 0) p.out[blockIdx.x] = bits_of(sum);
}
