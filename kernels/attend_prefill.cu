// Causal attention of many rows of a sequence: softmax(q · k / sqrt(head_dim)) · v, f32 over a cache of f16 or f32, with
// the bits that attend_decode gives. attend.cuh has the order of the sums.
//
// A block takes a tile (up to 32 rows of one sequence at consecutive positions) and a query head, each of its 8 warps
// four rows. It walks the sequence's pages: a page's keys come into shared memory, then its values, in stages of 64, 32
// or 16 positions (16 KiB and padding), one stage ahead of the sums.
//
// Grid: (n_tiles, q_heads), 256 threads. Shared memory: TileLayout::BYTES. Compiled for heads of up to 64, 96, 128 and
// 256 dimensions. Bytes moved: keys and values up to the tile's last row once for each tile and query head.
#include "attend.cuh"

constexpr int WARPS = 8;
constexpr int ROWS = ATTEND_TILE_ROWS / WARPS; // of a warp: warp, warp + 8, ..

template <typename Element, int WIDTH> struct TileLayout {
    static constexpr int ROW_BYTES = WIDTH * sizeof(Element);
    static constexpr int POSITIONS = ROW_BYTES <= 256 ? 64 : ROW_BYTES <= 512 ? 32 : 16; // of a stage
    static constexpr int PARTS = PAGE_TOKENS / POSITIONS;                                // stages of a page's keys
    // The padding puts neighbouring positions' vectors into different banks.
    static constexpr int PADDING = sizeof(Element) == 4 ? 16 : ROW_BYTES % 128 == 0 ? 64 : 0;
    static constexpr int STRIDE = (ROW_BYTES + PADDING) / sizeof(Element);
    static constexpr int STAGE_BYTES = POSITIONS * (ROW_BYTES + PADDING);
    static constexpr int QUERY_BYTES = ATTEND_TILE_ROWS * WIDTH * sizeof(float);
    static constexpr int SCORE_BYTES = ATTEND_TILE_ROWS * PAGE_TOKENS * sizeof(float);
    static constexpr int BYTES = QUERY_BYTES + SCORE_BYTES + 2 * STAGE_BYTES;
    // A lane has dimensions 2 lane and 2 lane + 1, those 64 further on, and so forth.
    static constexpr int PAIRS = (WIDTH + 2 * WARP - 1) / (2 * WARP);
};

// A row's weighted sums, as far as a lane has them.
template <int PAIRS> struct Sums {
    Mass mass;
    float o[2 * PAIRS];
};

template <int PAIRS> DEVICE void combine(Sums<PAIRS> &into, const Sums<PAIRS> &added, bool is_first) {
    if (is_first) {
        into = added;
        return;
    }
    const Weights weights = merge(into.mass, added.mass);
#pragma unroll
    for (int i = 0; i < 2 * PAIRS; i++) into.o[i] = mix(into.o[i], added.o[i], weights);
}

// Where a block is in the sequence of stages: keys of a page, then its values.
template <typename Element, int WIDTH> struct Stage {
    uint32_t page;
    int first; // position in the page
    bool is_values;

    DEVICE explicit Stage(uint32_t index) {
        constexpr int PARTS = TileLayout<Element, WIDTH>::PARTS;
        page = index / (2 * PARTS);
        first = index % PARTS * TileLayout<Element, WIDTH>::POSITIONS;
        is_values = index / PARTS % 2;
    }
    DEVICE bool is_last_of_page() const { return first + TileLayout<Element, WIDTH>::POSITIONS == PAGE_TOKENS; }
};

// Starts copying a stage's positions up to the tile's last.
template <typename Element, int WIDTH>
DEVICE void fetch(const AttendParams &p, Stage<Element, WIDTH> stage, uint32_t row, uint32_t kv_head,
                  uint32_t last_position, Element *into) {
    using Layout = TileLayout<Element, WIDTH>;
    const uint32_t at = page_at(p.tables, row, stage.page), head_dim = p.heads.head_dim;
    const Element *from = page_of<Element>(stage.is_values ? p.cache.values : p.cache.keys, p.heads, at, kv_head);
    from += stage.first * head_dim;
    const int left = (int)(last_position + 1 - stage.page * PAGE_TOKENS) - stage.first;
    constexpr int COPY = 16 / sizeof(Element);
    const int copies_of_position = head_dim / COPY, copies = min(left, Layout::POSITIONS) * copies_of_position;
    for (int i = threadIdx.x; i < copies; i += blockDim.x) {
        const int position = i / copies_of_position, d = i % copies_of_position * COPY;
        copy_async(into + position * Layout::STRIDE + d, from + i * COPY);
    }
    copy_async_commit();
}

// scores[row][position] = scale · q · k over a stage, for the warp's rows. A lane has a quarter of the dot products of
// every eighth position.
template <typename Element, int WIDTH>
DEVICE void score(const Element *keys, const float *queries, uint32_t head_dim, float scale, float *scores) {
    using Layout = TileLayout<Element, WIDTH>;
    constexpr int STEPS = Layout::POSITIONS / STEP_POSITIONS;
    const int quarter = lane_index() % QUARTERS, place = lane_index() / QUARTERS;
    float sums[ROWS][STEPS] = {};
#pragma unroll 1
    for (int d = quarter * VECTOR; d < (int)head_dim; d += QUARTERS * VECTOR) {
        float q[ROWS][VECTOR];
#pragma unroll
        for (int r = 0; r < ROWS; r++) load(queries + r * WARPS * WIDTH + d, q[r]);
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            float k[VECTOR];
            load(keys + (step * STEP_POSITIONS + place) * Layout::STRIDE + d, k);
#pragma unroll
            for (int r = 0; r < ROWS; r++) sums[r][step] = dot(q[r], k, sums[r][step]);
        }
    }
    // Each of the four lanes that share a position writes it for one row.
    static_assert(ROWS == QUARTERS);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        float mine = 0.0f;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float sum = sum_of_quarters(sums[r][step]);
            if (quarter == r) mine = sum;
        }
        scores[quarter * PAGE_TOKENS + step * STEP_POSITIONS + place] = scale * mine;
    }
}

// A lane's dimensions of a position's values; zeros beyond the head.
template <typename Element, int PAIRS>
DEVICE void load_pairs(const Element *values, uint32_t head_dim, float (&v)[2 * PAIRS]) {
#pragma unroll
    for (int pair = 0; pair < PAIRS; pair++) {
        const uint32_t d = 2 * (lane_index() + pair * WARP);
        float both[2] = {};
        if (d < head_dim) load(values + d, both);
        v[2 * pair] = both[0];
        v[2 * pair + 1] = both[1];
    }
}

// sums[row].o += Σ p · v over a stage, in the order of positions; row r has n_valid[r] of them.
template <typename Element, int WIDTH, int PAIRS>
DEVICE void weigh_values(const Element *values, uint32_t head_dim, const int (&n_valid)[ROWS], const float *scores,
                         Sums<PAIRS> (&sums)[ROWS]) {
    constexpr int STRIDE = TileLayout<Element, WIDTH>::STRIDE, POSITIONS = 4;
    int least = n_valid[0], most = n_valid[0];
#pragma unroll
    for (int r = 1; r < ROWS; r++) {
        least = min(least, n_valid[r]);
        most = max(most, n_valid[r]);
    }
    int position = 0;
#pragma unroll 1
    for (; position + POSITIONS <= least; position += POSITIONS) {
        float p[ROWS][POSITIONS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) load(scores + r * PAGE_TOKENS + position, p[r]);
#pragma unroll
        for (int i = 0; i < POSITIONS; i++) {
            float v[2 * PAIRS];
            load_pairs<Element, PAIRS>(values + (position + i) * STRIDE, head_dim, v);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
#pragma unroll
                for (int j = 0; j < 2 * PAIRS; j++) sums[r].o[j] = fmaf(p[r][i], v[j], sums[r].o[j]);
        }
    }
#pragma unroll 1
    for (; position < most; position++) {
        float v[2 * PAIRS];
        load_pairs<Element, PAIRS>(values + position * STRIDE, head_dim, v);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (position >= n_valid[r]) continue;
            const float weight = scores[r * PAGE_TOKENS + position];
#pragma unroll
            for (int j = 0; j < 2 * PAIRS; j++) sums[r].o[j] = fmaf(weight, v[j], sums[r].o[j]);
        }
    }
}

// The four rows of a warp, on their way through the pages.
template <typename Element, int WIDTH> struct WarpRows {
    using Layout = TileLayout<Element, WIDTH>;
    static constexpr int PAIRS = Layout::PAIRS;
    int positions[ROWS];
    Sums<PAIRS> page[ROWS], split[ROWS], total[ROWS];

    // Positions of a row in a page, from `first` on, up to the row's own.
    DEVICE int valid(int r, uint32_t page_index, int first, int most) const {
        return max(0, min(positions[r] + 1 - (int)page_index * PAGE_TOKENS - first, most));
    }

    DEVICE void begin_page(uint32_t index, float *scores) {
        __syncwarp();
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int n_valid = valid(r, index, 0, PAGE_TOKENS);
            page[r] = {};
            if (n_valid > 0) page[r].mass = weigh(scores + r * PAGE_TOKENS, n_valid);
        }
        __syncwarp();
    }

    DEVICE void end_page(uint32_t index) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const uint32_t last = positions[r] / PAGE_TOKENS;
            if (index > last) continue;
            combine(split[r], page[r], index % SPLIT_PAGES == 0);
            if (index == last || index % SPLIT_PAGES == SPLIT_PAGES - 1)
                combine(total[r], split[r], index < SPLIT_PAGES);
        }
    }

    DEVICE void take(Stage<Element, WIDTH> stage, const Element *staged, const float *queries, const AttendParams &p,
                     float *scores) {
        if (!stage.is_values) {
            score<Element, WIDTH>(staged, queries, p.heads.head_dim, p.scale, scores + stage.first);
            if (stage.is_last_of_page()) begin_page(stage.page, scores);
            return;
        }
        int n_valid[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) n_valid[r] = valid(r, stage.page, stage.first, Layout::POSITIONS);
        weigh_values<Element, WIDTH>(staged, p.heads.head_dim, n_valid, scores + stage.first, page);
        if (stage.is_last_of_page()) end_page(stage.page);
    }

    DEVICE void write(int r, float *out, uint32_t head_dim) const {
#pragma unroll
        for (int i = 0; i < 2 * PAIRS; i++) {
            const uint32_t d = 2 * (lane_index() + i / 2 * WARP) + i % 2;
            if (d < head_dim) out[d] = total[r].o[i] / total[r].mass.sum;
        }
    }
};

template <typename Element, int WIDTH> DEVICE void attend_tile(const AttendParams &p) {
    using Layout = TileLayout<Element, WIDTH>;
    DYNAMIC_SHARED(memory);
    float *queries = reinterpret_cast<float *>(memory);
    float *scores = reinterpret_cast<float *>(memory + Layout::QUERY_BYTES);
    uint8_t *stages = memory + Layout::QUERY_BYTES + Layout::SCORE_BYTES;
    auto buffer = [&](uint32_t stage) { return reinterpret_cast<Element *>(stages + stage % 2 * Layout::STAGE_BYTES); };

    // The longest tiles first, so that no block is left with one at the end.
    const uint32_t tile = p.n_tiles - 1 - blockIdx.x, head = blockIdx.y, head_dim = p.heads.head_dim;
    const uint32_t first_row = p.tiles[2 * tile], n_rows = p.tiles[2 * tile + 1];
    const uint32_t kv_head = head / (p.heads.q_heads / p.heads.kv_heads);
    const uint32_t position = p.tables.positions[first_row], last_position = position + n_rows - 1;
    const uint32_t n_stages = (last_position / PAGE_TOKENS + 1) * 2 * Layout::PARTS;
    using At = Stage<Element, WIDTH>;
    fetch(p, At(0), first_row, kv_head, last_position, buffer(0));

    const float *from = p.qkv + (size_t)first_row * p.stride + (size_t)head * head_dim;
    for (uint32_t i = threadIdx.x; i < ATTEND_TILE_ROWS * head_dim; i += blockDim.x) {
        const uint32_t row = i / head_dim, d = i % head_dim;
        queries[row * WIDTH + d] = row < n_rows ? from[(size_t)row * p.stride + d] : 0.0f;
    }
    // Rows that are not there stand for the last one and are not written.
    const uint32_t warp = uniform_warp_index();
    WarpRows<Element, WIDTH> rows;
#pragma unroll
    for (int r = 0; r < ROWS; r++) rows.positions[r] = position + min(warp + r * WARPS, n_rows - 1);

    for (uint32_t stage = 0; stage < n_stages; stage++) {
        copy_async_wait<0>();
        __syncthreads(); // the stage has come for all threads, and the one before is done with
        if (stage + 1 < n_stages) fetch(p, At(stage + 1), first_row, kv_head, last_position, buffer(stage + 1));
        if (warp < n_rows)
            rows.take(At(stage), buffer(stage), queries + warp * WIDTH, p, scores + warp * ROWS * PAGE_TOKENS);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const uint32_t row = warp + r * WARPS;
        if (row < n_rows) rows.write(r, p.out + (size_t)(first_row + row) * p.out_stride + head * head_dim, head_dim);
    }
}

KERNEL(attend_prefill_f16_d64, AttendParams, 256, 2) { attend_tile<uint16_t, 64>(p); }
KERNEL(attend_prefill_f16_d96, AttendParams, 256, 2) { attend_tile<uint16_t, 96>(p); }
KERNEL(attend_prefill_f16_d128, AttendParams, 256, 2) { attend_tile<uint16_t, 128>(p); }
KERNEL(attend_prefill_f16_d256, AttendParams, 256, 1) { attend_tile<uint16_t, 256>(p); }
KERNEL(attend_prefill_f32_d64, AttendParams, 256, 1) { attend_tile<float, 64>(p); }
KERNEL(attend_prefill_f32_d96, AttendParams, 256, 1) { attend_tile<float, 96>(p); }
KERNEL(attend_prefill_f32_d128, AttendParams, 256, 1) { attend_tile<float, 128>(p); }
KERNEL(attend_prefill_f32_d256, AttendParams, 256, 1) { attend_tile<float, 256>(p); }
