// GGUF's block formats: the weights of a row, equal to the bit to `src/quant` (the same products and sums of singles, in
// the same order), wherever a block's bytes lie.
#pragma once
#include "bits.cuh"

namespace format {

// ---- a block's bytes by their place in the file

// A block as the file has it. Every block of more than one weight has an even number of bytes and every matrix starts at
// a multiple of 256, so that pairs are aligned; words are where the block's size is a multiple of four.
template <typename Format> struct FileBlock {
    const uint8_t *bytes;
    DEVICE uint32_t byte(uint32_t at) const { return bytes[at]; }
    DEVICE uint32_t pair(uint32_t at) const { return *(const uint16_t *)(bytes + at); }
    DEVICE uint32_t word(uint32_t at) const {
        if constexpr (Format::BLOCK_BYTES % 4 == 0) return *(const uint32_t *)(bytes + at);
        return pair(at) | pair(at + 2) << 16;
    }
};

template <typename Block> DEVICE float half_at(const Block &block, uint32_t at) {
    return half_to_float((uint16_t)block.pair(at));
}

// ---- what formats share

// Four codes below 128, one a byte, less `center`.
DEVICE void centered(uint32_t codes, int center, float scale, float (&w)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = (float)(unsigned_byte(codes, i) - center) * scale;
}

// scale · code + offset, each rounded. `scale · code - minimum` is the same with the minimum's sign turned.
DEVICE void affine(uint32_t codes, float scale, float offset, float (&w)[4]) {
    centered(codes, 0, scale, w);
    for (int i = 0; i < 4; i++) w[i] = w[i] + offset;
}

DEVICE void signed_codes(uint32_t codes, float scale, float (&w)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = (float)signed_byte(codes, i) * scale;
}

// What a four-bit code of IQ4_NL and IQ4_XS stands for: -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113.
DEVICE float iq4_value(uint32_t code) {
    const uint64_t values = code < 8 ? 0xf6eaddcfbfad9881 : 0x7159453526190d01;
    return (float)(int8_t)(values >> (8 * (code % 8)));
}

DEVICE void iq4_codes(uint32_t codes, float scale, float (&w)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = iq4_value(unsigned_byte(codes, i)) * scale;
}

// Four codes of four bits of a group of 32 whose byte j holds codes j and j + 16.
template <typename Block> DEVICE uint32_t nibbles_of_32(const Block &block, uint32_t at, uint32_t column) {
    return block.word(at + column % 16) >> (column / 16 * 4) & 0x0f0f0f0f;
}

// The fifth bits of the same codes: bit j of `qh` belongs to code j.
DEVICE uint32_t fifths_of_32(uint32_t qh, uint32_t column) {
    return spread_bits(qh >> column) << 4;
}

// Q4_K and Q5_K: d and dmin, then 12 bytes of scales and minima of 6 bits, then (Q5_K) a fifth bit of each weight.
template <typename Block> struct PackedGroup {
    float scale, offset;
    DEVICE PackedGroup(const Block &block, uint32_t group) {
        const uint32_t low = block.byte(4 + group % 4), high = block.byte(8 + group % 4);
        uint32_t factor = low & 63, minimum = high & 63;
        if (group >= 4) {
            const uint32_t both = block.byte(12 + group % 4);
            factor = (both & 15) | low >> 6 << 4;
            minimum = both >> 4 | high >> 6 << 4;
        }
        scale = half_at(block, 0) * (float)factor;
        offset = -(half_at(block, 2) * (float)minimum);
    }
};

// Four codes of two bits, for each half of a block of 256 in 32 bytes: those at `2 plane` of byte `lane`.
template <typename Block> DEVICE uint32_t two_bits(const Block &block, uint32_t at, uint32_t column) {
    return block.word(at + column / 128 * 32 + column % 32) >> (column % 128 / 32 * 2) & 0x03030303;
}

// ---- the formats: four(block, column, w) gives the weights of columns `column` .. `column + 3` of a block, with `column`
// a multiple of four. Formats of single weights give one(bits).

struct F32 {
    static constexpr uint32_t BLOCK_ELEMENTS = 1, BLOCK_BYTES = 4;
    DEVICE static float one(uint32_t bits) { return float_of(bits); }
};

struct F16 {
    static constexpr uint32_t BLOCK_ELEMENTS = 1, BLOCK_BYTES = 2;
    DEVICE static float one(uint32_t bits) { return half_to_float((uint16_t)bits); }
};

struct BF16 {
    static constexpr uint32_t BLOCK_ELEMENTS = 1, BLOCK_BYTES = 2;
    DEVICE static float one(uint32_t bits) { return float_of(bits << 16); }
};

// d · (q - 8)
struct Q4_0 {
    static constexpr uint32_t BLOCK_ELEMENTS = 32, BLOCK_BYTES = 18;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        centered(nibbles_of_32(block, 2, column), 8, half_at(block, 0), w);
    }
};

// d · q + m
struct Q4_1 {
    static constexpr uint32_t BLOCK_ELEMENTS = 32, BLOCK_BYTES = 20;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        affine(nibbles_of_32(block, 4, column), half_at(block, 0), half_at(block, 2), w);
    }
};

// d · (q - 16)
struct Q5_0 {
    static constexpr uint32_t BLOCK_ELEMENTS = 32, BLOCK_BYTES = 22;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        const uint32_t codes = nibbles_of_32(block, 6, column) | fifths_of_32(block.word(2), column);
        centered(codes, 16, half_at(block, 0), w);
    }
};

// d · q + m
struct Q5_1 {
    static constexpr uint32_t BLOCK_ELEMENTS = 32, BLOCK_BYTES = 24;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        const uint32_t codes = nibbles_of_32(block, 8, column) | fifths_of_32(block.word(4), column);
        affine(codes, half_at(block, 0), half_at(block, 2), w);
    }
};

// d · q
struct Q8_0 {
    static constexpr uint32_t BLOCK_ELEMENTS = 32, BLOCK_BYTES = 34;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        signed_codes(block.word(2 + column), half_at(block, 0), w);
    }
};

// (d · scale) · q - dmin · minimum, a group of 16 under one byte of both
struct Q2_K {
    static constexpr uint32_t BLOCK_ELEMENTS = 256, BLOCK_BYTES = 84;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        const uint32_t group = block.byte(column / 16);
        const float minimum = half_at(block, 82) * (float)(group >> 4);
        affine(two_bits(block, 16, column), half_at(block, 80) * (float)(group & 15), -minimum, w);
    }
};

// (d · (scale - 32)) · (q - 4): the third bits stand first, in 32 bytes
struct Q3_K {
    static constexpr uint32_t BLOCK_ELEMENTS = 256, BLOCK_BYTES = 110;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        const uint32_t group = column / 16;
        const uint32_t low = block.byte(96 + group % 8) >> (group / 8 * 4) & 15;
        const uint32_t high = block.byte(104 + group % 4) >> (group / 4 * 2) & 3;
        const uint32_t third = block.word(column % 32) >> (column / 32) & 0x01010101;
        const float scale = half_at(block, 108) * (float)((int)(low | high << 4) - 32);
        centered(two_bits(block, 32, column) | third << 2, 4, scale, w);
    }
};

// (d · scale) · q - dmin · minimum
struct Q4_K {
    static constexpr uint32_t BLOCK_ELEMENTS = 256, BLOCK_BYTES = 144;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        const PackedGroup<Block> group(block, column / 32);
        const uint32_t codes = block.word(16 + column / 64 * 32 + column % 32) >> (column % 64 / 32 * 4) & 0x0f0f0f0f;
        affine(codes, group.scale, group.offset, w);
    }
};

// The same with a fifth bit: bit `group` of one of 32 bytes.
struct Q5_K {
    static constexpr uint32_t BLOCK_ELEMENTS = 256, BLOCK_BYTES = 176;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        const PackedGroup<Block> group(block, column / 32);
        const uint32_t low = block.word(48 + column / 64 * 32 + column % 32) >> (column % 64 / 32 * 4) & 0x0f0f0f0f;
        const uint32_t fifth = block.word(16 + column % 32) >> (column / 32) & 0x01010101;
        affine(low | fifth << 4, group.scale, group.offset, w);
    }
};

// (d · scale) · (q - 32)
struct Q6_K {
    static constexpr uint32_t BLOCK_ELEMENTS = 256, BLOCK_BYTES = 210;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        const uint32_t at = column / 128 * 64 + column % 64; // the upper 64 of a half share the lower 64's bytes
        const uint32_t low = block.word(at) >> (column % 128 / 64 * 4) & 0x0f0f0f0f;
        const float scale = half_at(block, 208) * (float)(int8_t)block.byte(192 + column / 16);
        centered(low | two_bits(block, 128, column) << 4, 32, scale, w);
    }
};

// d · q, with d a single
struct Q8_K {
    static constexpr uint32_t BLOCK_ELEMENTS = 256, BLOCK_BYTES = 292;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        signed_codes(block.word(4 + column), float_of(block.word(0)), w);
    }
};

// d · value(q)
struct IQ4_NL {
    static constexpr uint32_t BLOCK_ELEMENTS = 32, BLOCK_BYTES = 18;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        iq4_codes(nibbles_of_32(block, 2, column), half_at(block, 0), w);
    }
};

// (d · (scale - 32)) · value(q)
struct IQ4_XS {
    static constexpr uint32_t BLOCK_ELEMENTS = 256, BLOCK_BYTES = 136;
    template <typename Block> DEVICE static void four(const Block &block, uint32_t column, float (&w)[4]) {
        const uint32_t group = column / 32;
        const uint32_t low = block.byte(4 + group / 2) >> (group % 2 * 4) & 15;
        const uint32_t high = block.pair(2) >> (2 * group) & 3;
        const float scale = half_at(block, 0) * (float)((int)(low | high << 4) - 32);
        iq4_codes(nibbles_of_32(block, 8 + 16 * group, column % 32), scale, w);
    }
};

// ---- rows in file order

template <typename Format> DEVICE uint64_t row_bytes(uint32_t n_columns) {
    return (uint64_t)(n_columns / Format::BLOCK_ELEMENTS) * Format::BLOCK_BYTES;
}

// The weights of columns `column` .. `column + 3` of a row in file order, zeros beyond the last.
template <typename Format>
DEVICE void four_of_row(const uint8_t *row, uint32_t column, uint32_t n_columns, float (&w)[4]) {
    if constexpr (Format::BLOCK_ELEMENTS == 1) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const FileBlock<Format> block{row + (uint64_t)(column + i) * Format::BLOCK_BYTES};
            uint32_t bits = 0; // of 0 in each of these formats
            if (column + i < n_columns) bits = Format::BLOCK_BYTES == 4 ? block.word(0) : block.pair(0);
            w[i] = Format::one(bits);
        }
    } else if (column < n_columns) {
        const uint64_t at = (uint64_t)(column / Format::BLOCK_ELEMENTS) * Format::BLOCK_BYTES;
        Format::four(FileBlock<Format>{row + at}, column % Format::BLOCK_ELEMENTS, w);
    } else {
        for (int i = 0; i < 4; i++) w[i] = 0.0f;
    }
}

// Whether every eight columns of a row lie within it and, of single weights, at a multiple of 16 bytes.
template <typename Format> DEVICE bool is_regular(uint32_t n_columns) {
    return n_columns % 8 == 0 && (Format::BLOCK_ELEMENTS > 1 || n_columns * Format::BLOCK_BYTES % 16 == 0);
}

// Columns `column` .. `column + 7` with `column` a multiple of eight, zeros beyond the row: of a REGULAR row of single
// weights by 16 bytes.
template <typename Format, bool REGULAR>
DEVICE void eight_of_row(const uint8_t *row, uint32_t column, uint32_t n_columns, float (&w)[2][4]) {
    if constexpr (REGULAR && Format::BLOCK_ELEMENTS == 1) {
        constexpr uint32_t BYTES = Format::BLOCK_BYTES;
        const Words4 *vectors = (const Words4 *)(row + (uint64_t)column * BYTES);
#pragma unroll
        for (uint32_t i = 0; i < BYTES / 2; i++) {
            const Words4 v = column < n_columns ? load_streaming(vectors + i) : Words4{0, 0, 0, 0};
            const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (uint32_t j = 0; j < 16 / BYTES; j++) {
                const uint32_t at = i * (16 / BYTES) + j, bits = words[j * BYTES / 4] >> (8 * (j * BYTES % 4));
                w[at / 4][at % 4] = Format::one(BYTES == 4 ? bits : bits & 0xffff);
            }
        }
    } else {
        four_of_row<Format>(row, column, n_columns, w[0]);
        four_of_row<Format>(row, column + 4, n_columns, w[1]);
    }
}

} // namespace format
