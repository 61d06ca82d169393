// Causal attention of a few rows, each to its own sequence: softmax(q · k / sqrt(head_dim)) · v, f32 over a cache of f16
// or f32. attend.cuh has the order of the sums.
//
// attend_decode_*: a block takes a row, up to 8 query heads of a key head, and a split of 8 pages of the cache; each of
// its 8 warps takes a page for all these heads, so keys and values are read once. It writes the split's partial result. The
// last block to come to 256 columns of the output (arrival.cuh) combines their splits, in order, divides, and makes planes
// of them for the next operation.
//
// Grid: (kv_heads · ceil(group / 8), n_splits, rows) with group = q_heads / kv_heads, 256 threads. Blocks whose split lies
// beyond the row's position leave at once, so n_splits is any bound. Shared memory: DecodeShared, at most 91 KiB.
// Bytes moved: keys and values of the row's positions once; head_dim + 2 floats for each head and split, out and in.
#include "arrival.cuh"
#include "attend.cuh"
#include "quantize.cuh"

// The parts of the shared memory for n heads.
struct DecodeShared {
    float *queries;   // [n][head_dim]
    float *outputs;   // [pages][n][head_dim]
    float *scores;    // [pages][n][64]
    Mass *masses;     // [pages][n]
    Weights *weights; // [n][pages]
};

DEVICE DecodeShared divide(uint8_t *shared, uint32_t n, uint32_t head_dim) {
    DecodeShared parts;
    parts.queries = reinterpret_cast<float *>(shared);
    parts.outputs = parts.queries + n * head_dim;
    parts.scores = parts.outputs + SPLIT_PAGES * n * head_dim;
    parts.masses = reinterpret_cast<Mass *>(parts.scores + SPLIT_PAGES * n * PAGE_TOKENS);
    parts.weights = reinterpret_cast<Weights *>(parts.masses + SPLIT_PAGES * n);
    return parts;
}

// scores[head][position] = scale · q · k over a page. A lane has a quarter of the dot products of four positions at a
// time for all heads: a key's vector is read once, a query's from shared memory for four positions.
template <typename Element>
DEVICE void score(const Element *keys, const float *queries, uint32_t head_dim, int n_valid, int n_heads, float scale,
                  float *scores) {
    constexpr int POSITIONS = 4;
    const int quarter = lane_index() % QUARTERS, place = lane_index() / QUARTERS;
    for (int first = 0; first < n_valid; first += POSITIONS * STEP_POSITIONS) {
        float sums[POSITIONS][ATTEND_HEADS] = {};
#pragma unroll 1
        for (uint32_t d = quarter * VECTOR; d < head_dim; d += QUARTERS * VECTOR) {
            float k[POSITIONS][VECTOR] = {};
#pragma unroll
            for (int i = 0; i < POSITIONS; i++) {
                const int position = first + i * STEP_POSITIONS + place;
                if (position < n_valid) load(keys + position * head_dim + d, k[i]);
            }
#pragma unroll
            for (int head = 0; head < ATTEND_HEADS; head++) {
                if (head >= n_heads) break;
                float q[VECTOR];
                load(queries + head * head_dim + d, q);
#pragma unroll
                for (int i = 0; i < POSITIONS; i++) sums[i][head] = dot(q, k[i], sums[i][head]);
            }
        }
#pragma unroll
        for (int head = 0; head < ATTEND_HEADS; head++) {
            if (head >= n_heads) break;
#pragma unroll
            for (int i = 0; i < POSITIONS; i++) {
                const float sum = sum_of_quarters(sums[i][head]);
                if (quarter == i) scores[head * PAGE_TOKENS + first + i * STEP_POSITIONS + place] = scale * sum;
            }
        }
    }
}

// N positions' part of o for all heads; a lane has four dimensions.
template <int N, typename Element>
DEVICE void add_values(const Element *values, uint32_t head_dim, const float *scores, int n_heads,
                       float (&o)[ATTEND_HEADS][4]) {
    float v[N][4];
#pragma unroll
    for (int i = 0; i < N; i++) load(values + i * head_dim, v[i]);
#pragma unroll
    for (int head = 0; head < ATTEND_HEADS; head++) {
        if (head >= n_heads) break;
        float p[N];
        load(scores + head * PAGE_TOKENS, p);
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) o[head][j] = fmaf(p[i], v[i][j], o[head][j]);
    }
}

// outputs[head][d] = Σ p · v over a page, in the order of positions.
template <typename Element>
DEVICE void weigh_values(const Element *values, uint32_t head_dim, int n_valid, int n_heads, const float *scores,
                         float *outputs) {
    constexpr int POSITIONS = 8;
    for (uint32_t d = lane_index() * 4; d < head_dim; d += WARP * 4) {
        float o[ATTEND_HEADS][4] = {};
        int position = 0;
#pragma unroll 1
        for (; position + POSITIONS <= n_valid; position += POSITIONS)
            add_values<POSITIONS>(values + position * head_dim + d, head_dim, scores + position, n_heads, o);
#pragma unroll 1
        for (; position < n_valid; position++)
            add_values<1>(values + position * head_dim + d, head_dim, scores + position, n_heads, o);
#pragma unroll
        for (int head = 0; head < ATTEND_HEADS; head++) {
            if (head >= n_heads) break;
#pragma unroll
            for (int j = 0; j < 4; j++) outputs[head * head_dim + d + j] = o[head][j];
        }
    }
}

// Combines the block's pages and writes the split's partial result; `partials` are those of the block's first head.
DEVICE void combine_pages(const DecodeShared &shared, int n_pages, int n_heads, uint32_t head_dim, uint32_t n_splits,
                          float *partials) {
    const uint32_t head_stride = n_splits * (head_dim + 2);
    const int head = threadIdx.x;
    if (head < n_heads) {
        Mass total = shared.masses[head];
        for (int page = 1; page < n_pages; page++)
            shared.weights[head * SPLIT_PAGES + page] = merge(total, shared.masses[page * n_heads + head]);
        partials[head * head_stride + head_dim] = total.largest;
        partials[head * head_stride + head_dim + 1] = total.sum;
    }
    __syncthreads();
    const uint32_t width = n_heads * head_dim;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
        const uint32_t at_head = i / head_dim;
        float o = shared.outputs[i];
        for (int page = 1; page < n_pages; page++)
            o = mix(o, shared.outputs[page * width + i], shared.weights[at_head * SPLIT_PAGES + page]);
        partials[at_head * head_stride + i % head_dim] = o;
    }
}

// The query heads that a block takes: of one key head, up to ATTEND_HEADS of them. Parts follow each other in the columns
// of the output.
struct Part {
    uint32_t kv_head, first_head, n_heads;

    DEVICE Part(const HeadCounts &n, uint32_t index) {
        const uint32_t group = n.q_heads / n.kv_heads, parts = (group + ATTEND_HEADS - 1) / ATTEND_HEADS;
        const uint32_t skipped = index % parts * ATTEND_HEADS;
        kv_head = index / parts;
        first_head = kv_head * group + skipped;
        n_heads = min(group - skipped, (uint32_t)ATTEND_HEADS);
    }
    // The part that a column of the output belongs to.
    DEVICE static uint32_t of_column(const HeadCounts &n, uint32_t column) {
        const uint32_t group = n.q_heads / n.kv_heads, parts = (group + ATTEND_HEADS - 1) / ATTEND_HEADS;
        const uint32_t head = column / n.head_dim;
        return head / group * parts + head % group / ATTEND_HEADS;
    }
};

// Combines the splits of a block of 256 columns of a row and makes planes of it: a warp's work, eight columns a lane,
// which lie in one head.
DEVICE void combine_splits(const AttendParams &p, uint32_t row, uint32_t block, uint32_t n_splits) {
    const uint32_t head_dim = p.heads.head_dim, n_columns = p.heads.q_heads * head_dim;
    const uint32_t column = BLOCK_COLUMNS * block + VECTOR * lane_index(), head = column / head_dim;
    float *out = p.out + (size_t)row * p.out_stride;
    if (column < n_columns) {
        const float *partial = p.partials + ((size_t)row * p.heads.q_heads + head) * p.n_splits * (head_dim + 2);
        const uint32_t d = column % head_dim;
        Mass total = {partial[head_dim], partial[head_dim + 1]};
        float o[VECTOR];
#pragma unroll
        for (int i = 0; i < VECTOR; i++) o[i] = partial[d + i];
#pragma unroll 2
        for (uint32_t split = 1; split < n_splits; split++) {
            partial += head_dim + 2;
            const Weights weights = merge(total, {partial[head_dim], partial[head_dim + 1]});
#pragma unroll
            for (int i = 0; i < VECTOR; i++) o[i] = mix(o[i], partial[d + i], weights);
        }
#pragma unroll
        for (int i = 0; i < VECTOR; i++) out[column + i] = o[i] / total.sum;
    }
    quantize_columns(p.next, row, block, n_columns, out, n_columns, nullptr); // a lane reads what it wrote
}

// Counts the block into the columns of its heads, and combines those that it is the last to come to, a warp each.
DEVICE void combine_finished(const AttendParams &p, const Part &part, uint32_t row, uint32_t n_splits) {
    const HeadCounts &n = p.heads;
    const uint32_t n_columns = n.q_heads * n.head_dim;
    const uint32_t first = part.first_head * n.head_dim / BLOCK_COLUMNS;
    const uint32_t last = ((part.first_head + part.n_heads) * n.head_dim - 1) / BLOCK_COLUMNS;
    const uint32_t done = arrive(p.arrivals + row * blocks_of(n_columns) + first, last - first + 1, [&](uint32_t i) {
        const uint32_t begin = BLOCK_COLUMNS * (first + i), end = min(begin + BLOCK_COLUMNS, n_columns);
        return n_splits * (Part::of_column(n, end - 1) - Part::of_column(n, begin) + 1);
    });
    for (uint32_t i = warp_index(); i <= last - first; i += blockDim.x / WARP)
        if (done >> i & 1) combine_splits(p, row, first + i, n_splits);
}

template <typename Element> DEVICE void attend_split(const AttendParams &p) {
    DYNAMIC_SHARED(memory);
    const HeadCounts &n = p.heads;
    const Part part(n, blockIdx.x);
    const uint32_t row = blockIdx.z, split = blockIdx.y, kv_head = part.kv_head, first_head = part.first_head;
    const int n_heads = part.n_heads;
    const uint32_t position = p.tables.positions[row], last_page = position / PAGE_TOKENS;
    if (split * SPLIT_PAGES > last_page) return;

    const DecodeShared shared = divide(memory, n_heads, n.head_dim);
    const float *queries = p.qkv + (size_t)row * p.stride + (size_t)first_head * n.head_dim;
    for (uint32_t i = threadIdx.x; i < n_heads * n.head_dim; i += blockDim.x) shared.queries[i] = queries[i];
    __syncthreads();

    const int warp = uniform_warp_index();
    const uint32_t page = split * SPLIT_PAGES + warp;
    if (page <= last_page) {
        const uint32_t at = page_at(p.tables, row, page);
        const int n_valid = min(position + 1 - page * PAGE_TOKENS, (uint32_t)PAGE_TOKENS);
        float *scores = shared.scores + warp * n_heads * PAGE_TOKENS;
        score(page_of<Element>(p.cache.keys, n, at, kv_head), shared.queries, n.head_dim, n_valid, n_heads, p.scale,
              scores);
        __syncwarp();
        for (int head = 0; head < n_heads; head++) {
            const Mass mass = weigh(scores + head * PAGE_TOKENS, n_valid);
            if (lane_index() == 0) shared.masses[warp * n_heads + head] = mass;
        }
        __syncwarp();
        weigh_values(page_of<Element>(p.cache.values, n, at, kv_head), n.head_dim, n_valid, n_heads, scores,
                     shared.outputs + warp * n_heads * n.head_dim);
    }
    __syncthreads();
    const int n_pages = min(last_page - split * SPLIT_PAGES + 1, (uint32_t)SPLIT_PAGES);
    float *partials = p.partials + (((size_t)row * n.q_heads + first_head) * p.n_splits + split) * (n.head_dim + 2);
    combine_pages(shared, n_pages, n_heads, n.head_dim, p.n_splits, partials);
    combine_finished(p, part, row, last_page / SPLIT_PAGES + 1);
}

KERNEL(attend_decode_f16, AttendParams, 256, 2) { attend_split<uint16_t>(p); }
KERNEL(attend_decode_f32, AttendParams, 256, 2) { attend_split<float>(p); }
