// The kernels' parameter structs: pointers, then 32-bit numbers, so that no compiler pads. `src/ops/kernel/params.rs`
// holds the same structs; a test compares sizes and offsets of every field (the emulator answers for this side).
#pragma once
#include "planes.cuh"

// What a pass works on. Filled anew before each pass, at one address, so that a captured graph stays valid.
struct PassTables {
    const uint32_t *tokens;     // [rows]
    const uint32_t *positions;  // [rows] of each row in its sequence
    const uint32_t *page_lists; // [rows] where the row's sequence's pages begin in `pages`
    const uint32_t *pages;      // pages of all sequences, each in order
    const uint32_t *rotary_set; // [rows] 0 or 1
    float *angles;              // [rows][rotated_dims / 2][sin, cos], both times the attention factor
};

// Writes `tables.angles`: sine and cosine of position · frequency (a product of singles) for each row.
struct AnglesParams {
    PassTables tables;
    const float *frequencies[2]; // [rotated_dims / 2] radians a token; a short and a long set, or the same twice
    uint32_t n_rows, rotated_dims;
    float attention_factor;
    uint32_t unused;
};

// x[row] = table[tokens[row]].
struct EmbedParams {
    PassTables tables;
    const uint8_t *table;
    float *x;
    uint32_t n_rows, n_columns, stride, unused;
};

// planes[row] = x[first_row + row], times the weights of a norm where `norm` is not null.
struct QuantizeParams {
    const float *x;    // [rows][stride]
    const float *norm; // [n_columns] or null
    Planes planes;
    uint32_t first_row, n_rows, n_columns, stride;
};

enum Epilogue : uint32_t {
    EPILOGUE_STORE = 0,  // out = product + bias
    EPILOGUE_ADD = 1,    // out += product
    EPILOGUE_SWIGLU = 2, // out = silu(first product) · second product
    EPILOGUE_GATE = 3,   // out = silu(out) · product: where gate and up could not share a kernel
};

// out[token][row] = weights[row] · planes[token], for n_tokens tokens.
struct MatmulParams {
    const uint8_t *weights[2]; // the second alone with EPILOGUE_SWIGLU: gate, then up
    Planes planes;
    const float *bias; // [n_rows] or null
    float *out;        // [tokens][stride]
    uint32_t n_rows, n_columns, n_tokens, stride, epilogue;
    float eps; // of the norm, where planes have one
};

// A matrix in tiles, and where its outputs stand.
struct MatmulPart {
    const uint8_t *weights;
    const float *bias; // one for each of its rows, or null
    uint32_t first_row, end_row, format, unused; // rows of the output; the format's number in GGUF
};

// The same for up to 8 tokens, of several matrices side by side; with EPILOGUE_SWIGLU gate and up, both of all rows.
struct MatmulDecodeParams {
    MatmulPart parts[3];
    Planes planes;
    Planes next;            // what is made of `out`, times the weights `next_norm` where that is not null
    const float *next_norm; // [n_rows]
    uint32_t *arrivals;     // a counter for each 256 columns of `out`, all 0; null where nothing is made of it
    float *out;             // [tokens][stride]
    uint32_t n_rows, n_columns, n_tokens, stride, epilogue;
    float eps; // of the norm, where planes have one
};

// Between GGUF's order of a matrix's bytes and the kernels': whole tiles of 16 rows.
struct RepackParams {
    const uint8_t *from;
    uint8_t *into;
    uint32_t n_rows, n_columns; // rows are a multiple of 16, columns of 64 (256 for K-quants)
};

struct CacheView {
    uint8_t *keys;   // [pages][kv_heads][64][head_dim]
    uint8_t *values; // the same
};

struct HeadCounts {
    uint32_t q_heads, kv_heads, head_dim, rotated_dims;
};

// Norms (where there are norms) and turns the heads of q and k; q stays in qkv, k and v go into the cache.
struct RotateParams {
    PassTables tables;
    float *qkv;          // [rows][stride] of q | k | v
    const float *q_norm; // [head_dim] or null
    const float *k_norm;
    CacheView cache;
    HeadCounts heads;
    uint32_t n_rows, stride;
    uint32_t interleaved; // pairs (2i, 2i+1), else (i, i + rotated_dims / 2)
    float q_eps, k_eps;
    uint32_t unused;
};

// Causal attention of rows to their own sequences: softmax(q · k / sqrt(head_dim)) · v.
struct AttendParams {
    PassTables tables;
    const float *qkv;      // [rows][stride]
    CacheView cache;
    float *out;            // [rows][out_stride] of q_heads · head_dim
    float *partials;       // decode: [rows][q_heads][n_splits][head_dim + 2], of a split its weighted sum, maximum and sum
    Planes next;           // decode: what is made of `out`
    uint32_t *arrivals;    // decode: [rows] counters for each 256 columns of `out`, all 0
    const uint32_t *tiles; // prefill: [n_tiles][2] first row and number of rows, at most ATTEND_TILE_ROWS of one sequence
    HeadCounts heads;
    uint32_t n_rows, n_tiles, n_splits, stride, out_stride;
    float scale; // 1 / sqrt(head_dim)
};

// Shared memory that a block of a kernel is given.
constexpr int PREFILL_SHARED_BYTES = 99 << 10;    // matmul_prefill
constexpr int WARPGROUP_SHARED_BYTES = 216 << 10; // matmul_warpgroup

constexpr int PAGE_TOKENS = 64;        // positions in a page of the cache
constexpr int SPLIT_PAGES = 8;         // pages in a split of the cache: fixed, so that the order of sums is
constexpr int ATTEND_TILE_ROWS = 64;   // rows of a sequence that a block of the prefill kernel takes together
constexpr int ATTEND_HEADS = 8;        // query heads of one key head that a block of the decode kernel takes together
constexpr int ROTATE_HEADS = 8;        // heads of a row that a block of the rotary kernel takes
constexpr int MOST_HEAD_DIM = 256;

// How a token is chosen from a row of logits; `Choice` in src/ops/choice.rs says what it means.
struct ChoiceRow {
    uint64_t random;     // upper 53 bits: times the sum of all weights, the upper word is the unit that is chosen
    uint64_t top_p;      // of 2^64; 0 keeps all
    uint64_t min_weight; // what an untempered weight must reach
    uint32_t top_k;      // 0 keeps all
    float temperature;   // 0 takes the largest
    float repeat, frequency, presence;
    uint32_t recent, n_recent; // words of `ChooseParams::recent` from here: tokens, each with its count
    uint32_t unused;
};

// best[row] = the choice from logits[row]: its upper 32 bits not zero, its lower the token's complement; 0 for a row
// without a finite logit. The logits of recent tokens are changed. `best` is 0 before.
struct ChooseParams {
    float *logits; // [rows][stride]
    uint64_t *best;
    const ChoiceRow *choices; // [rows]
    const uint32_t *recent;
    uint64_t *masses; // [rows][CHOICE_ROUNDS][CHOICE_BUCKETS] weights of the logits in a bucket
    uint32_t *counts; // [rows][CHOICE_ROUNDS][CHOICE_BUCKETS] their number
    uint64_t *bounds; // [rows][CHOICE_ROUNDS + 1][3]
    uint64_t *slices; // [rows][n_slices][2]
    uint32_t n_columns, stride;
    uint32_t n_slices; // of CHOICE_SLICE logits, at most as many as a block can add up
    uint32_t round;
};

constexpr int CHOICE_ROUNDS = 5;     // of narrowing: three by rank, two by probability
constexpr int CHOICE_BUCKETS = 2048; // of a round's histogram
constexpr int CHOICE_SLICE = 2048;   // logits of a block

// Reads vectors of 16 bytes.
struct ReadParams {
    const Words4 *from;
    uint32_t *into; // one number
    uint64_t n_vectors;
};
