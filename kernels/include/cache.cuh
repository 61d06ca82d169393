// Where a token's keys and values lie in a layer of the cache, and its element types: IEEE half (as its bits) and
// single.
#pragma once
#include "params.cuh"

// A row's page number `index`.
DEVICE uint32_t page_at(const PassTables &tables, uint32_t row, uint32_t index) {
    return tables.pages[tables.page_lists[row] + index];
}

// A head's keys or values of a page: [64][head_dim].
template <typename Element>
DEVICE Element *page_of(uint8_t *cache, const HeadCounts &n, uint32_t page, uint32_t kv_head) {
    return reinterpret_cast<Element *>(cache) + ((size_t)page * n.kv_heads + kv_head) * PAGE_TOKENS * n.head_dim;
}

DEVICE void store(float *into, float value) { *into = value; }
DEVICE void store(uint16_t *into, float value) { *into = float_to_half(value); }

template <typename Word, int N> struct alignas(sizeof(Word) * N) Vector {
    Word at[N];
};

// N elements at a multiple of their own size or of 16 bytes, in as few loads as can be.
template <int N> DEVICE void load(const float *from, float (&values)[N]) {
    constexpr int WIDTH = N < 4 ? N : 4;
#pragma unroll
    for (int part = 0; part < N / WIDTH; part++) {
        const Vector<float, WIDTH> vector = reinterpret_cast<const Vector<float, WIDTH> *>(from)[part];
#pragma unroll
        for (int i = 0; i < WIDTH; i++) values[part * WIDTH + i] = vector.at[i];
    }
}

template <int N> DEVICE void load(const uint16_t *from, float (&values)[N]) {
    const Vector<uint32_t, N / 2> vector = *reinterpret_cast<const Vector<uint32_t, N / 2> *>(from);
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        values[2 * i] = half_to_float((uint16_t)vector.at[i]);
        values[2 * i + 1] = half_to_float((uint16_t)(vector.at[i] >> 16));
    }
}
