// Causal attention of many rows of a sequence: softmax(q · k / sqrt(head_dim)) · v over a cache of f16 or f32, with the
// bits that attend_decode gives. attend.cuh has the arithmetic and the order of the sums.
//
// A block takes a tile (up to 64 rows of one sequence at consecutive positions; of heads beyond 128 dimensions half of it)
// and a query head, each of its warps eight rows. It walks the sequence's pages: its warps turn a page's keys into operands
// of the tensor cores in shared memory, once for all rows, and multiply; then likewise the values.
//
// Grid: (n_tiles, q_heads, parts of a tile), 256 threads. Shared memory: TileLayout::BYTES, at most 90 KiB. Compiled for
// heads of up to 64, 96, 128 and 256 dimensions. Bytes moved: keys and values up to the tile's last row once for each tile
// and query head.
#include "attend.cuh"
#include "reduce.cuh"

constexpr int WARPS = 8;
constexpr int ROWS = 8; // of a warp, one for each g
static_assert(WARPS == TILES);

template <int WIDTH> struct TileLayout {
    static constexpr int CHUNKS = WIDTH / CHUNK, GROUPS = (WIDTH + GROUP - 1) / GROUP;
    static constexpr int ROW_WARPS = WIDTH <= 128 ? WARPS : WARPS / 2; // that have rows; all turn keys and values
    static constexpr int STEPS = 4 * CHUNKS; // of eight dimensions
    static constexpr int FRAGMENTS = CHUNKS * TILES;
    static constexpr int OPERAND_BYTES = FRAGMENTS * FRAGMENT_WORDS * sizeof(Words2);
    static constexpr int WEIGHT_BYTES = ROW_WARPS * TILES * WARP * sizeof(Words2);
    static constexpr int SUM_BYTES = ROW_WARPS * ROWS * WIDTH * sizeof(float);
    static constexpr int BYTES = OPERAND_BYTES + WEIGHT_BYTES + SUM_BYTES + (1 + GROUPS) * PAGE_TOKENS * sizeof(float);
    static_assert(FRAGMENTS == STEPS * HALVES && ATTEND_TILE_ROWS % (ROW_WARPS * ROWS) == 0);
};

// The block's shared memory as a lane sees it.
template <int WIDTH> struct TileShared {
    using Layout = TileLayout<WIDTH>;
    Words2 *operands;   // fragments: of keys [tile][chunk], of values [half][step]
    Words2 *weights;    // [tile] the lane's own, of two positions
    Words2 *sums;       // [step] the lane's own weighted sums of a split
    float *key_units;   // [64]
    float *value_units; // [groups][64]

    DEVICE TileShared(uint8_t *shared, int warp) {
        operands = reinterpret_cast<Words2 *>(shared) + lane_index();
        uint8_t *next = shared + Layout::OPERAND_BYTES;
        weights = reinterpret_cast<Words2 *>(next) + warp * TILES * WARP + lane_index();
        next += Layout::WEIGHT_BYTES;
        sums = reinterpret_cast<Words2 *>(next) + warp * Layout::STEPS * WARP + lane_index();
        key_units = reinterpret_cast<float *>(next + Layout::SUM_BYTES);
        value_units = key_units + PAGE_TOKENS;
    }
    DEVICE Words2 *key(int tile, int chunk) const {
        return operands + (tile * Layout::CHUNKS + chunk) * FRAGMENT_WORDS;
    }
    DEVICE Words2 *value(int half, int step) const { return operands + (half * Layout::STEPS + step) * FRAGMENT_WORDS; }
};

// Turns a warp's tile of a page's keys into operands.
template <typename Element, int WIDTH>
DEVICE void turn_keys(const TileShared<WIDTH> &shared, const Element *page, int tile, uint32_t head_dim) {
    const int position = tile * TILE_POSITIONS + lane_index() / 4;
    KeyTile<Element, WIDTH / CHUNK> keys;
    keys.load_key(page + position * head_dim, head_dim);
    const float unit = keys.unit();
    if (part_of_lane() == 0) shared.key_units[position] = unit;
#pragma unroll
    for (int c = 0; c < WIDTH / CHUNK; c++) keys.fragment(c, unit).store(shared.key(tile, c));
}

// Turns sixteen positions of a page's values, a group of dimensions.
template <typename Element, int WIDTH>
DEVICE void turn_values(const TileShared<WIDTH> &shared, const Element *page, int group, int half, int quad,
                        uint32_t head_dim) {
    ValueQuad<Element> values;
    const int first = GROUP * group;
    values.load_values(page + first, half, quad, head_dim, (int)head_dim - first);
    values.find_units();
    if (query_of_lane() == 0)
#pragma unroll
        for (int i = 0; i < 4; i++)
            shared.value_units[PAGE_TOKENS * group + position_of(half, 4 * quad + i)] = values.units[i];
#pragma unroll
    for (int c = 0; c < GROUP_CHUNKS; c++) {
        if (first + CHUNK * c >= WIDTH) break;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const Digits digits = values.digits(c, i);
            uint32_t *into = &shared.value(half, 4 * (GROUP_CHUNKS * group + c) + i)->x + quad;
            into[0] = digits.high;
            into[2 * WARP] = digits.middle;
            into[4 * WARP] = digits.low;
        }
    }
}

// A warp's eight rows on their way through the pages; a lane has row g.
template <int WIDTH> struct WarpRows {
    using Layout = TileLayout<WIDTH>;
    TileShared<WIDTH> shared;
    int position; // of the lane's row
    float *out;   // null where the row is not to be written; a total stands there until it is the result
    Queries<Layout::CHUNKS> queries = {};
    Mass page = {}, split = {}, total = {};

    // Weights of a page's positions; the warp's last row has n_most of them, the lane's n_valid.
    DEVICE void score_page(int n_most, int n_valid) {
        float p[LANE_SCORES];
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            p[2 * tile] = p[2 * tile + 1] = 0.0f;
            if (tile * TILE_POSITIONS >= n_most) continue;
            Products products(queries.chunks[0], Fragment::load(shared.key(tile, 0)));
#pragma unroll
            for (int c = 1; c < Layout::CHUNKS; c++)
                products.add(queries.chunks[c], Fragment::load(shared.key(tile, c)));
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float unit = shared.key_units[tile * TILE_POSITIONS + 2 * part_of_lane() + i];
                p[2 * tile + i] = score_of(products, i, queries.factor, unit);
            }
        }
        page = weigh(p, n_valid);
        store_weights(shared.weights, p);
    }

    // Adds a page's weighted values to the split.
    DEVICE void add_page(bool is_first, int n_most, int n_valid) {
        Weights weights = {};
        if (is_first)
            split = page;
        else if (n_valid > 0)
            weights = merge(split, page);
#pragma unroll 1
        for (int group = 0; group < Layout::GROUPS; group++) {
            const float *units = shared.value_units + PAGE_TOKENS * group;
            auto rows_of = [&](int half) {
                return WeightedRows(shared.weights, half, n_valid, [=](int i) { return units[position_of(half, i)]; });
            };
            const WeightedRows rows[HALVES] = {rows_of(0), rows_of(1)};
            const int end = min(4 * GROUP_CHUNKS * (group + 1), Layout::STEPS);
#pragma unroll 2
            for (int step = 4 * GROUP_CHUNKS * group; step < end; step++) {
                float o[2];
#pragma unroll
                for (int half = 0; half < HALVES; half++)
                    if (half * CHUNK < n_most)
                        weigh_values(rows[half], Fragment::load(shared.value(half, step)), half == 0, o[0], o[1]);
                Words2 &sums = shared.sums[step * WARP];
                if (!is_first) {
                    o[0] = mix(float_of(sums.x), o[0], weights);
                    o[1] = mix(float_of(sums.y), o[1], weights);
                }
                if (n_valid > 0) sums = {bits_of(o[0]), bits_of(o[1])};
            }
        }
    }

    // Adds the split to the total, which the last split makes the result.
    DEVICE void add_split(bool is_first, bool is_last, uint32_t head_dim) {
        Weights weights = {};
        if (is_first)
            total = split;
        else
            weights = merge(total, split);
        if (out == nullptr) return;
#pragma unroll 1
        for (int step = 0; step < Layout::STEPS; step++) {
            const int d = CHUNK * (step / 4) + VECTOR * part_of_lane() + step % 4;
            if (d >= (int)head_dim) return;
            const Words2 sums = shared.sums[step * WARP];
            const float of_split[2] = {float_of(sums.x), float_of(sums.y)};
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float &to = out[d + 4 * i];
                const float o = is_first ? of_split[i] : mix(to, of_split[i], weights);
                to = is_last ? o / total.sum : o;
            }
        }
    }
};

template <typename Element, int WIDTH> DEVICE void attend_tile(const AttendParams &p) {
    using Layout = TileLayout<WIDTH>;
    DYNAMIC_SHARED(memory);
    const int warp = uniform_warp_index();
    // The longest tiles first, so that no block is left with one at the end.
    const uint32_t tile = p.n_tiles - 1 - blockIdx.x, head = blockIdx.y, head_dim = p.heads.head_dim;
    constexpr int MOST_ROWS = Layout::ROW_WARPS * ROWS;
    const uint32_t skipped = blockIdx.z * MOST_ROWS, first_row = p.tiles[2 * tile] + skipped;
    const int n_rows = min((int)(p.tiles[2 * tile + 1] - skipped), MOST_ROWS);
    if (n_rows <= 0) return;
    const uint32_t kv_head = head / (p.heads.q_heads / p.heads.kv_heads);
    const int position = p.tables.positions[first_row], last_position = position + n_rows - 1;

    // Rows that are not there stand for the last one and are not written.
    const int first = ROWS * warp, row = first + query_of_lane();
    const int last_of_warp = position + min(first + ROWS, n_rows) - 1;
    const bool has_rows = first < n_rows;
    float *out = row < n_rows ? p.out + (size_t)(first_row + row) * p.out_stride + head * head_dim : nullptr;
    WarpRows<WIDTH> rows = {TileShared<WIDTH>(memory, warp), position + min(row, n_rows - 1), out};
    const float *query = p.qkv + (size_t)(first_row + row) * p.stride + (size_t)head * head_dim;
    rows.queries.load_rows(query, row < n_rows, head_dim, p.scale);

    for (int page = 0; page * PAGE_TOKENS <= last_position; page++) {
        const uint32_t at = page_at(p.tables, first_row, page);
        auto valid = [&](int last) { return min(last + 1 - page * PAGE_TOKENS, PAGE_TOKENS); };
        const int n_most = valid(last_of_warp), n_valid = valid(rows.position);
        const bool is_taken = has_rows && n_most > 0;

        turn_keys(rows.shared, page_of<Element>(p.cache.keys, p.heads, at, kv_head), warp, head_dim);
        __syncthreads();
        if (is_taken) rows.score_page(n_most, n_valid);
        __syncthreads(); // keys are done with
        const Element *values = page_of<Element>(p.cache.values, p.heads, at, kv_head);
#pragma unroll 1
        for (int part = warp; part < Layout::GROUPS * HALVES * 2; part += WARPS)
            turn_values(rows.shared, values, part / (2 * HALVES), part / 2 % HALVES, part % 2, head_dim);
        __syncthreads();
        if (is_taken) {
            rows.add_page(page % SPLIT_PAGES == 0, n_most, n_valid);
            const int last = rows.position / PAGE_TOKENS;
            if (page == last || (page < last && page % SPLIT_PAGES == SPLIT_PAGES - 1))
                rows.add_split(page < SPLIT_PAGES, page == last, head_dim);
        }
        __syncthreads(); // values are done with
    }
}

KERNEL(attend_prefill_f16_d64, AttendParams, 256, 2) { attend_tile<uint16_t, 64>(p); }
KERNEL(attend_prefill_f16_d96, AttendParams, 256, 2) { attend_tile<uint16_t, 96>(p); }
KERNEL(attend_prefill_f16_d128, AttendParams, 256, 2) { attend_tile<uint16_t, 128>(p); }
KERNEL(attend_prefill_f16_d256, AttendParams, 256, 1) { attend_tile<uint16_t, 256>(p); }
KERNEL(attend_prefill_f32_d64, AttendParams, 256, 2) { attend_tile<float, 64>(p); }
KERNEL(attend_prefill_f32_d96, AttendParams, 256, 2) { attend_tile<float, 96>(p); }
KERNEL(attend_prefill_f32_d128, AttendParams, 256, 2) { attend_tile<float, 128>(p); }
KERNEL(attend_prefill_f32_d256, AttendParams, 256, 1) { attend_tile<float, 256>(p); }
