// Bits of four neighbouring codes, between a word of code bytes and four bits in a row.
#pragma once
#include "platform.cuh"

// Four bits as the lowest bits of a word's bytes; what stands above them is left out.
DEVICE uint32_t spread_bits(uint32_t bits) {
    bits &= 15;
    return (bits | bits << 7 | bits << 14 | bits << 21) & 0x01010101;
}

// The lowest bits of a word's bytes as four bits.
DEVICE uint32_t gather_bits(uint32_t bytes) {
    bytes &= 0x01010101;
    return (bytes | bytes >> 7 | bytes >> 14 | bytes >> 21) & 15;
}
