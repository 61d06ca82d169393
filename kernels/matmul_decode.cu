// out[token][row] = Σ_k weights[row][k] · x[token][k], with weights in tiles of 16 rows and x in planes, of up to 8 tokens.
//
// Shapes: up to three matrices [., n_columns] over the same x, whose outputs stand side by side (16 divides the rows of
// each; 256, or 64 for formats of 32, divides n_columns); or gate and up, [n_rows, n_columns] each. The sums are those of
// strips.cuh.
//
// Where there is a next operation, the finished rows become its planes: the last block to finish a strip of 256 columns of
// the output quantises them (arrival.cuh), times the weights of the next norm.
//
// matmul_decode_<format>: all matrices in one format, up to 4 tokens; with fewer registers four blocks, or three, run on a
// multiprocessor and have more weights under way. matmul_decode_wide_<format>: 5 to 8 tokens. matmul_decode_mixed: each matrix
// in its own format, up to 8 tokens.
// Grid: any number of blocks of 256 threads, each taking every gridDim.x-th strip of 16 rows; warp w sums class w of the
// first, class w + 4 of the second and so on, so that short rows keep all warps busy. Before it waits for its inputs, a
// warp asks for its first weights. Bytes: the weights once, 16 bytes a lane and load; a lane of a token that is not there
// loads no activations.
#include "decode.cuh"

// loop: matmul_decode_(?!mixed|wide).* 128
KERNEL_AHEAD(matmul_decode_q4_k, MatmulDecodeParams, 256, 4) { matmul_decode<OneKind<TilesQ4K>, 1>(p); }
KERNEL_AHEAD(matmul_decode_q5_k, MatmulDecodeParams, 256, 4) { matmul_decode<OneKind<TilesQ5K>, 1>(p); }
KERNEL_AHEAD(matmul_decode_q6_k, MatmulDecodeParams, 256, 4) { matmul_decode<OneKind<TilesQ6K>, 1>(p); }
KERNEL_AHEAD(matmul_decode_q8_0, MatmulDecodeParams, 256, 3) { matmul_decode<OneKind<TilesQ8>, 1>(p); }
KERNEL_AHEAD(matmul_decode_q4_0, MatmulDecodeParams, 256, 4) { matmul_decode<OneKind<TilesQ4>, 1>(p); }
KERNEL_AHEAD(matmul_decode_q5_0, MatmulDecodeParams, 256, 4) { matmul_decode<OneKind<TilesQ5>, 1>(p); }
// loop: matmul_decode_wide_.* 128
// in flight: matmul_decode_(wide_)?q4_k 1 0 0
KERNEL_AHEAD(matmul_decode_wide_q4_k, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<TilesQ4K>, 2>(p); }
KERNEL_AHEAD(matmul_decode_wide_q5_k, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<TilesQ5K>, 2>(p); }
KERNEL_AHEAD(matmul_decode_wide_q6_k, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<TilesQ6K>, 2>(p); }
KERNEL_AHEAD(matmul_decode_wide_q8_0, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<TilesQ8>, 2>(p); }
KERNEL_AHEAD(matmul_decode_wide_q4_0, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<TilesQ4>, 2>(p); }
KERNEL_AHEAD(matmul_decode_wide_q5_0, MatmulDecodeParams, 256, 2) { matmul_decode<OneKind<TilesQ5>, 2>(p); }
KERNEL_AHEAD(matmul_decode_mixed, MatmulDecodeParams, 256, 2) { matmul_decode<AnyTiles, 1, 2>(p); }
