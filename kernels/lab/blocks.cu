// The product's loop for up to four tokens, with room for two or three blocks on a multiprocessor instead of four: fewer
// warps have fewer tiles under way together, and more registers each (65536 / 256 / blocks).
//
// Mathematics, grid and bytes are those of matmul_decode.cu.
#include "lab.cuh"

// loop: lab_mma_.*_blocks 128
// in flight: lab_mma_.*_blocks 1 0 0
KERNEL_AHEAD(lab_mma_two_blocks, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<TilesQ4K>, 1>(p); }
KERNEL_AHEAD(lab_mma_three_blocks, MatmulDecodeParams, 256, 3) { matmul_decode<OneKind<TilesQ4K>, 1>(p); }
