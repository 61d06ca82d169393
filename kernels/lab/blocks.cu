// The product's loop for up to four tokens, launched with two blocks on a multiprocessor instead of four: fewer warps have
// fewer tiles under way together, and more registers each (65536 / 256 / blocks).
//
// Mathematics, grid and bytes are those of matmul_decode.cu.
#include "lab.cuh"

// loop: lab_mma_two_blocks 128
// in flight: lab_mma_two_blocks 1 0 0
KERNEL_AHEAD(lab_mma_two_blocks, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<TilesQ4K>, 1>(p); }
