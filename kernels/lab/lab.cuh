// What the variants of the decode loop share; ../include/decode.cuh has the rest.
//
//   // in flight: KERNELS  TILES  TILES MEANWHILE  SHARED
//
// in a source tells scripts/kernel-report how many tiles a warp has asked for at most, how many of them are still on their
// way while it multiplies, and the bytes of dynamic shared memory that a launch asks for.
#pragma once
#include "decode.cuh"

// A Q4_K tile as a lane has it: 64 bytes of codes, and the packed scales of rows g and g + 8.
struct LaneTile {
    Words4 nibbles[4], scales[2];

    LaneTile() = default;
    DEVICE LaneTile(const uint8_t *tile, int lane) {
#pragma unroll
        for (int unit = 0; unit < 4; unit++) nibbles[unit] = load_streaming(words(tile) + WARP * unit + lane);
#pragma unroll
        for (int r = 0; r < 2; r++) scales[r] = load_streaming(words(tile + LayoutQ4K::SCALES) + lane / 4 + 8 * r);
    }
};

// The product's loop over other tiles, for up to 4 N tokens.
template <class Tiles, int N> DEVICE void lab_product(const MatmulDecodeParams &p) {
    SHARED(ClassSums, sums, [2][2]);
    prefetch_weights<OneKind<Tiles>>(p);
    await_inputs();
    decode<OneKind<Tiles>, N>(p, sums);
}
