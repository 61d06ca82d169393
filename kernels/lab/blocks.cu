// The product's loop for up to four tokens, with room for two, three or four blocks on a multiprocessor: more warps have
// more tiles under way together, and fewer registers each (65536 / 256 / blocks).
//
// Mathematics, grid and bytes are those of matmul_decode.cu.
#include "lab.cuh"

// loop: lab_mma_.*_blocks 128
// in flight: lab_mma_.*_blocks 1 0 0
KERNEL_AHEAD(lab_mma_two_blocks, MatmulDecodeParams, 256, 2) { lab_product<TilesQ4K, 1>(p); }
KERNEL_AHEAD(lab_mma_three_blocks, MatmulDecodeParams, 256, 3) { lab_product<TilesQ4K, 1>(p); }
KERNEL_AHEAD(lab_mma_four_blocks, MatmulDecodeParams, 256, 4) { lab_product<TilesQ4K, 1>(p); }
