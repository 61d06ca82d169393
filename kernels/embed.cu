// The embedding: x[row] = table[tokens[row]], equal to the bit to the weights that the format stands for.
//
// table is a matrix of `n_columns` columns in file order, or (embed_tiles_*) in tiles of 16 rows; x is [rows][stride].
// Grid: x = n_rows; 256 threads, each taking four columns in 1024.
// Bytes: a row of the table, and 4 a value written.
#include "formats.cuh"
#include "layouts.cuh"
#include "params.cuh"

constexpr int THREADS = 256;

// A block in a tile: bytes by their place in the file.
template <typename Layout, typename Format> struct TileBlock {
    const uint8_t *tile;
    uint32_t row, block; // of the tile's 16 rows; of the row's blocks in the tile
    DEVICE const uint8_t *place(uint32_t at) const { return tile + Layout::place(row, block * Format::BLOCK_BYTES + at); }
    DEVICE uint32_t byte(uint32_t at) const { return *place(at); }
    DEVICE uint32_t pair(uint32_t at) const { return *(const uint16_t *)place(at); }
    DEVICE uint32_t word(uint32_t at) const {
        if constexpr (Layout::FIFTH_BITS)
            if (at == Layout::QH) return Layout::take_fifth_bits(tile, row, block);
        return *(const uint32_t *)place(at);
    }
};

DEVICE void store_four(float *row, uint32_t column, uint32_t n, const float (&w)[4]) {
    for (uint32_t i = 0; i < 4; i++)
        if (column + i < n) row[column + i] = w[i];
}

template <typename Format> DEVICE void embed(const EmbedParams &p) {
    const uint32_t token = p.tables.tokens[blockIdx.x];
    const uint8_t *row = p.table + token * format::row_bytes<Format>(p.n_columns);
    float *x = p.x + (uint64_t)blockIdx.x * p.stride;
    for (uint32_t column = 4 * threadIdx.x; column < p.n_columns; column += 4 * THREADS) {
        float w[4];
        format::four_of_row<Format>(row, column, p.n_columns, w);
        store_four(x, column, p.n_columns, w);
    }
}

template <typename Layout, typename Format> DEVICE void embed_tiles(const EmbedParams &p) {
    const uint32_t token = p.tables.tokens[blockIdx.x];
    const uint8_t *strip = p.table + token / STRIP_ROWS * (uint64_t)(p.n_columns / Layout::COLUMNS) * Layout::BYTES;
    float *x = p.x + (uint64_t)blockIdx.x * p.stride;
    for (uint32_t column = 4 * threadIdx.x; column < p.n_columns; column += 4 * THREADS) {
        const uint8_t *tile = strip + (uint64_t)(column / Layout::COLUMNS) * Layout::BYTES;
        const uint32_t block = column % Layout::COLUMNS / Format::BLOCK_ELEMENTS;
        float w[4];
        Format::four(TileBlock<Layout, Format>{tile, token % STRIP_ROWS, block}, column % Format::BLOCK_ELEMENTS, w);
        store_four(x, column, p.n_columns, w);
    }
}

KERNEL(embed_f32, EmbedParams, THREADS, 2) { embed<format::F32>(p); }
KERNEL(embed_f16, EmbedParams, THREADS, 2) { embed<format::F16>(p); }
KERNEL(embed_bf16, EmbedParams, THREADS, 2) { embed<format::BF16>(p); }
KERNEL(embed_q4_0, EmbedParams, THREADS, 2) { embed<format::Q4_0>(p); }
KERNEL(embed_q4_1, EmbedParams, THREADS, 2) { embed<format::Q4_1>(p); }
KERNEL(embed_q5_0, EmbedParams, THREADS, 2) { embed<format::Q5_0>(p); }
KERNEL(embed_q5_1, EmbedParams, THREADS, 2) { embed<format::Q5_1>(p); }
KERNEL(embed_q8_0, EmbedParams, THREADS, 2) { embed<format::Q8_0>(p); }
KERNEL(embed_q2_k, EmbedParams, THREADS, 2) { embed<format::Q2_K>(p); }
KERNEL(embed_q3_k, EmbedParams, THREADS, 2) { embed<format::Q3_K>(p); }
KERNEL(embed_q4_k, EmbedParams, THREADS, 2) { embed<format::Q4_K>(p); }
KERNEL(embed_q5_k, EmbedParams, THREADS, 2) { embed<format::Q5_K>(p); }
KERNEL(embed_q6_k, EmbedParams, THREADS, 2) { embed<format::Q6_K>(p); }
KERNEL(embed_q8_k, EmbedParams, THREADS, 2) { embed<format::Q8_K>(p); }
KERNEL(embed_iq4_nl, EmbedParams, THREADS, 2) { embed<format::IQ4_NL>(p); }
KERNEL(embed_iq4_xs, EmbedParams, THREADS, 2) { embed<format::IQ4_XS>(p); }

KERNEL(embed_tiles_q4_0, EmbedParams, THREADS, 2) { embed_tiles<LayoutQ4, format::Q4_0>(p); }
KERNEL(embed_tiles_q5_0, EmbedParams, THREADS, 2) { embed_tiles<LayoutQ5, format::Q5_0>(p); }
KERNEL(embed_tiles_q8_0, EmbedParams, THREADS, 2) { embed_tiles<LayoutQ8, format::Q8_0>(p); }
KERNEL(embed_tiles_q4_k, EmbedParams, THREADS, 2) { embed_tiles<LayoutQ4K, format::Q4_K>(p); }
KERNEL(embed_tiles_q5_k, EmbedParams, THREADS, 2) { embed_tiles<LayoutQ5K, format::Q5_K>(p); }
KERNEL(embed_tiles_q6_k, EmbedParams, THREADS, 2) { embed_tiles<LayoutQ6K, format::Q6_K>(p); }
