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

// N singles at a multiple of 16 bytes.
template <int N> DEVICE void load(const float *from, float (&values)[N]) {
#pragma unroll
    for (int part = 0; part < N / 4; part++) {
        const Vector<float, 4> vector = reinterpret_cast<const Vector<float, 4> *>(from)[part];
#pragma unroll
        for (int i = 0; i < 4; i++) values[4 * part + i] = vector.at[i];
    }
}

template <int N> DEVICE void store(float *into, const float (&values)[N]) {
#pragma unroll
    for (int part = 0; part < N / 4; part++) {
        Vector<float, 4> vector;
#pragma unroll
        for (int i = 0; i < 4; i++) vector.at[i] = values[4 * part + i];
        reinterpret_cast<Vector<float, 4> *>(into)[part] = vector;
    }
}

// N elements as the cache holds them, at a multiple of their size or of 16 bytes.
template <typename Element, int N> struct Pack {
    static constexpr int WORDS = N * sizeof(Element) / 4, WIDTH = WORDS < 4 ? WORDS : 4;
    uint32_t words[WORDS];

    DEVICE void load(const Element *from, bool is_there) {
#pragma unroll
        for (int part = 0; part < WORDS / WIDTH; part++) {
            Vector<uint32_t, WIDTH> vector = {};
            if (is_there) vector = reinterpret_cast<const Vector<uint32_t, WIDTH> *>(from)[part];
#pragma unroll
            for (int i = 0; i < WIDTH; i++) words[WIDTH * part + i] = vector.at[i];
        }
    }
    DEVICE float at(int i) const {
        if constexpr (sizeof(Element) == 4) return float_of(words[i]);
        return half_to_float((uint16_t)(words[i / 2] >> 16 * (i % 2)));
    }
};

// The largest magnitude of packs of elements; what is not a number is larger than all.
template <typename Element> struct Largest {
    uint32_t word = 0; // of a single, or of two halves

    template <int N> DEVICE void add(const Pack<Element, N> &pack) {
#pragma unroll
        for (uint32_t other : pack.words)
            word = sizeof(Element) == 4 ? max(word, other & 0x7fffffff) : larger_halves(word, other);
    }
    // As the bits of a single.
    DEVICE uint32_t bits() const {
        if constexpr (sizeof(Element) == 4) return word;
        return bits_of(half_to_float((uint16_t)larger_halves(word, word >> 16)));
    }
};
