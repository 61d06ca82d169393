// Reads memory and keeps nothing: what the memory delivers, against which other kernels are measured.
//
// Grid: any number of blocks of 256 threads, each striding over the vectors, four loads of 16 bytes under way a thread.
// Bytes moved: all of the region. A block writes its exclusive or only if it is one number of four thousand million, so
// that the compiler cannot leave the loads out.
#include "params.cuh"

KERNEL(read, ReadParams, 256, 4) {
    const uint32_t step = gridDim.x * blockDim.x;
    uint32_t mixed = 0;
    uint64_t i = blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 3 * (uint64_t)step < p.n_vectors; i += 4 * (uint64_t)step) {
        Words4 v[4];
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] = load_streaming(p.from + i + j * (uint64_t)step);
#pragma unroll
        for (int j = 0; j < 4; j++) mixed ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    for (; i < p.n_vectors; i += step) {
        const Words4 v = load_streaming(p.from + i);
        mixed ^= v.x ^ v.y ^ v.z ^ v.w;
    }
    if (mixed == 0x9e3779b9) *p.into = mixed;
}
