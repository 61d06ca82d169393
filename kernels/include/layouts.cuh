// How weights lie in tiles of 16 rows, and where each byte of a row's blocks in file order stands there. A tile has as
// many bytes as its blocks in the file; tiles of 16 rows stand one after another along the columns, and such strips one
// after another. With g = lane / 4 and t = lane % 4 a lane's 16 bytes of codes are four words of an mma's first operand:
//
//   x = bytes 4t..4t+3 of row g,   z = bytes 16+4t..16+4t+3 of row g,    of a run of 32 code bytes
//   y = the same of row g + 8,     w = the same of row g + 8
//
//   format  columns  bytes  parts in order, each with the runs it is made of
//   Q4_K    256      2304   qs: 4 runs of 64 weights | 16 rows × (12 bytes of packed scales, d, dmin)
//   Q5_K    256      2816   qs: 4 runs | qh: 1 run | 16 rows × (12 bytes of packed scales, d, dmin)
//   Q6_K    256      3360   ql: 4 runs, two for each half | qh: 2 runs | 16 rows × 16 scales | 16 rows × d
//   Q8_0     64      1088   qs: a run for each of 2 blocks | 16 rows × (d, d)
//   Q4_0     64       576   qs: 1 run, the first block's 16 bytes and the second's | 16 rows × (d, d)
//   Q5_0     64       704   qs as in Q4_0 | 32 lanes × 4 bytes of fifth bits | 16 rows × (d, d)
//
// The fifth bits of Q5_0: bit 4e + 2r + h of byte b of a lane's word is bit 16h + 4t + b of `qh` of block e, row g + 8r.
#pragma once
#include "bits.cuh"

constexpr int STRIP_ROWS = 16; // of a tile
constexpr uint32_t RUN_BYTES = 512; // of a run of 32 code bytes of 16 rows

// Where byte `at` (0..32) of row `row`'s part of a run stands in the run.
DEVICE uint32_t place_in_run(uint32_t row, uint32_t at) {
    const uint32_t lane = 4 * (row % 8) + at % 16 / 4, word = row / 8 + 2 * (at / 16);
    return 16 * lane + 4 * word + at % 4;
}

// A run and the place in it for byte `at` of codes that take several runs.
DEVICE uint32_t place_in_runs(uint32_t row, uint32_t at) { return at / 32 * RUN_BYTES + place_in_run(row, at % 32); }

// Each layout: COLUMNS and BYTES of a tile, where its parts begin, and place(row, at): where byte `at` of the blocks of
// row `row` (0..16) stands in the tile. Pairs of bytes at even `at`, and words of codes, stay together. FIFTH_BITS says
// that some bytes are taken apart, bit by bit.
struct LayoutQ4K {
    static constexpr bool FIFTH_BITS = false;
    static constexpr uint32_t COLUMNS = 256, BYTES = 2304;
    static constexpr uint32_t CODES = 0, SCALES = 2048;
    DEVICE static uint32_t place(uint32_t row, uint32_t at) {
        if (at < 16) return SCALES + 16 * row + (at + 12) % 16; // d and dmin, in the file before the scales, go behind
        return CODES + place_in_runs(row, at - 16);
    }
};

struct LayoutQ5K {
    static constexpr bool FIFTH_BITS = false;
    static constexpr uint32_t COLUMNS = 256, BYTES = 2816;
    static constexpr uint32_t CODES = 0, HIGH = 2048, SCALES = 2560;
    DEVICE static uint32_t place(uint32_t row, uint32_t at) {
        if (at < 16) return SCALES + 16 * row + (at + 12) % 16;
        if (at < 48) return HIGH + place_in_run(row, at - 16);
        return CODES + place_in_runs(row, at - 48);
    }
};

struct LayoutQ6K {
    static constexpr bool FIFTH_BITS = false;
    static constexpr uint32_t COLUMNS = 256, BYTES = 3360;
    static constexpr uint32_t CODES = 0, HIGH = 2048, SCALES = 3072, SUPER_SCALES = 3328;
    DEVICE static uint32_t place(uint32_t row, uint32_t at) {
        if (at < 128) return CODES + place_in_runs(row, at);
        if (at < 192) return HIGH + place_in_runs(row, at - 128);
        if (at < 208) return SCALES + 16 * row + at - 192;
        return SUPER_SCALES + 2 * row + at - 208;
    }
};

struct LayoutQ8 {
    static constexpr bool FIFTH_BITS = false;
    static constexpr uint32_t COLUMNS = 64, BYTES = 1088;
    static constexpr uint32_t CODES = 0, SCALES = 1024;
    DEVICE static uint32_t place(uint32_t row, uint32_t at) {
        const uint32_t block = at / 34, byte = at % 34;
        if (byte < 2) return SCALES + 4 * row + 2 * block + byte;
        return CODES + block * RUN_BYTES + place_in_run(row, byte - 2);
    }
};

struct LayoutQ4 {
    static constexpr bool FIFTH_BITS = false;
    static constexpr uint32_t COLUMNS = 64, BYTES = 576;
    static constexpr uint32_t CODES = 0, SCALES = 512;
    DEVICE static uint32_t place(uint32_t row, uint32_t at) {
        const uint32_t block = at / 18, byte = at % 18;
        if (byte < 2) return SCALES + 4 * row + 2 * block + byte;
        return CODES + place_in_run(row, 16 * block + byte - 2);
    }
};

// The fifth bits, bytes QH to QS of a block, have no place.
struct LayoutQ5 {
    static constexpr bool FIFTH_BITS = true;
    static constexpr uint32_t COLUMNS = 64, BYTES = 704;
    static constexpr uint32_t CODES = 0, HIGH = 512, SCALES = 640;
    static constexpr uint32_t BLOCK_BYTES = 22, QH = 2, QS = 6;

    DEVICE static bool is_fifth_bits(uint32_t at) {
        return at % BLOCK_BYTES >= QH && at % BLOCK_BYTES < QS;
    }
    DEVICE static uint32_t place(uint32_t row, uint32_t at) {
        const uint32_t block = at / BLOCK_BYTES, byte = at % BLOCK_BYTES;
        if (byte < QH) return SCALES + 4 * row + 2 * block + byte;
        return CODES + place_in_run(row, 16 * block + byte - QS);
    }
    // `qh` of one of a row's blocks.
    DEVICE static uint32_t take_fifth_bits(const uint8_t *tile, uint32_t row, uint32_t block) {
        const uint32_t *lanes = (const uint32_t *)(tile + HIGH) + 4 * (row % 8);
        const uint32_t shift = 4 * block + 2 * (row / 8);
        uint32_t bits = 0;
        for (uint32_t t = 0; t < 4; t++)
            for (uint32_t h = 0; h < 2; h++) bits |= gather_bits(lanes[t] >> (shift + h)) << (16 * h + 4 * t);
        return bits;
    }
    // What a lane's word holds of `qh` of one block of row g + 8r.
    DEVICE static uint32_t lane_of_fifth_bits(uint32_t qh, uint32_t t, uint32_t block, uint32_t r) {
        const uint32_t low = spread_bits(qh >> (4 * t)), high = spread_bits(qh >> (16 + 4 * t));
        return (low | high << 1) << (4 * block + 2 * r);
    }
};
