// Causal attention of a few rows, each to its own sequence: softmax(q · k / sqrt(head_dim)) · v over a cache of f16 or
// f32. attend.cuh has the arithmetic and the order of the sums.
//
// attend_decode_*: a block takes a row, up to 8 query heads of a key head, and a split of 8 pages of the cache; each of
// its 8 warps takes a page for all these heads, so keys and values are read once. It writes the split's partial result. The
// last block to come to 256 columns of the output (arrival.cuh) combines their splits, in order, divides, and makes planes
// of them for the next operation.
//
// Grid: (kv_heads · ceil(group / 8), n_splits, rows) with group = q_heads / kv_heads, 256 threads. Blocks whose split lies
// beyond the row's position leave at once, so n_splits is any bound. Shared memory: DecodeShared, at most 90 KiB.
// Compiled for heads of up to 64, 96, 128 and 256 dimensions.
// Bytes moved: keys and values of the row's positions once; head_dim + 2 floats for each head and split, out and in.
#include "arrival.cuh"
#include "attend.cuh"
#include "quantize.cuh"

// The parts of the shared memory for n heads.
struct DecodeShared {
    Words4 *queries;  // [chunks][upper and lower rows][lane]
    Words2 *scores;   // [pages][tiles][lane], of two positions; then their weights
    float *factors;   // [lane] what its query's scores are multiplied by
    float *outputs;   // [pages][n][head_dim]
    Mass *masses;     // [pages][n]
    Weights *weights; // [n][pages]
};

DEVICE DecodeShared divide(uint8_t *shared, uint32_t n, uint32_t head_dim, int chunks) {
    DecodeShared parts;
    parts.queries = reinterpret_cast<Words4 *>(shared);
    parts.scores = reinterpret_cast<Words2 *>(parts.queries + chunks * 2 * WARP);
    parts.factors = reinterpret_cast<float *>(parts.scores + SPLIT_PAGES * TILES * WARP);
    parts.outputs = parts.factors + WARP;
    parts.masses = reinterpret_cast<Mass *>(parts.outputs + SPLIT_PAGES * n * head_dim);
    parts.weights = reinterpret_cast<Weights *>(parts.masses + SPLIT_PAGES * n);
    return parts;
}

// The lane's scores of a page. A tile's keys are on their way while those of the one before are multiplied.
template <typename Element, int CHUNKS>
DEVICE void score_page(const Element *keys, const DecodeShared &shared, uint32_t head_dim, int n_valid,
                       Words2 *scores) {
    const int own = lane_index() / 4;
    const float factor = shared.factors[lane_index()];
    KeyTile<Element, CHUNKS> tile, next;
    tile.load_key(keys + own * head_dim, head_dim);
#pragma unroll 2
    for (int first = 0; first < n_valid; first += TILE_POSITIONS) {
        const int position = min(first + TILE_POSITIONS, PAGE_TOKENS - TILE_POSITIONS) + own; // the last one again
        next.load_key(keys + position * head_dim, head_dim);
        const float unit = tile.unit();
        auto rows = [&](int c) { return RowOperands(shared.queries + 2 * WARP * c + lane_index()); };
        Products products(rows(0), tile.fragment(0, unit));
#pragma unroll
        for (int c = 1; c < CHUNKS; c++) products.add(rows(c), tile.fragment(c, unit));
        // The unit of position g is in lane 4g.
        const float units[2] = {shuffle(unit, 8 * part_of_lane()), shuffle(unit, 8 * part_of_lane() + 4)};
        scores[first / TILE_POSITIONS * WARP] = {bits_of(score_of(products, 0, factor, units[0])),
                                                 bits_of(score_of(products, 1, factor, units[1]))};
        tile = next;
    }
}

// Σ p · v of half a page for all heads, a group of dimensions.
template <typename Element>
DEVICE void weigh_half(const Element *values, const Words2 *weights, int half, int n_valid, uint32_t head_dim, int dims,
                       bool is_head, float *output) {
    ValueQuad<Element> quads[2];
#pragma unroll
    for (int quad = 0; quad < 2; quad++) quads[quad].load_values(values, half, quad, head_dim, dims);
#pragma unroll
    for (int quad = 0; quad < 2; quad++) quads[quad].find_units();
    const WeightedRows rows(weights, half, n_valid, [&](int i) { return quads[i / 4].units[i % 4]; });
#pragma unroll
    for (int c = 0; c < GROUP_CHUNKS; c++) {
        if (CHUNK * c >= dims) break;
        const int d = CHUNK * c + VECTOR * part_of_lane();
        const bool is_mine = is_head && d < dims;
        float o[VECTOR] = {};
        if (half > 0 && is_mine) load(output + d, o);
#pragma unroll
        for (int i = 0; i < 4; i++)
            weigh_values(rows, {quads[0].digits(c, i), quads[1].digits(c, i)}, half == 0, o[i], o[4 + i]);
        if (is_mine) store(output + d, o);
    }
}

// A warp's work: page `page` of the block's split, for all heads.
template <typename Element, int CHUNKS>
DEVICE void attend_page(const Element *keys, const Element *values, const DecodeShared &shared, int page,
                        uint32_t head_dim, int n_valid, int n_heads) {
    Words2 *scores = shared.scores + page * TILES * WARP + lane_index();
    score_page<Element, CHUNKS>(keys, shared, head_dim, n_valid, scores);
    float p[LANE_SCORES];
    load_weights(scores, p); // as far as there are positions, a lane reads what it wrote
    const int head = query_of_lane();
    const Mass mass = weigh(p, n_valid);
    if (head < n_heads && part_of_lane() == 0) shared.masses[page * n_heads + head] = mass;
    store_weights(scores, p);
    float *output = shared.outputs + (page * n_heads + head) * head_dim;
    for (int first = 0; first < (int)head_dim; first += GROUP)
#pragma unroll 1
        for (int half = 0; CHUNK * half < n_valid; half++)
            weigh_half(values + first, scores, half, n_valid, head_dim, (int)head_dim - first, head < n_heads,
                       output + first);
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

template <typename Element, int WIDTH> DEVICE void attend_split(const AttendParams &p) {
    DYNAMIC_SHARED(memory);
    const HeadCounts &n = p.heads;
    const Part part(n, blockIdx.x);
    const uint32_t row = blockIdx.z, split = blockIdx.y, kv_head = part.kv_head, first_head = part.first_head;
    const int n_heads = part.n_heads;
    const uint32_t position = p.tables.positions[row], last_page = position / PAGE_TOKENS;
    if (split * SPLIT_PAGES > last_page) return;

    constexpr int CHUNKS = WIDTH / CHUNK;
    const DecodeShared shared = divide(memory, n_heads, n.head_dim, CHUNKS);
    const int warp = uniform_warp_index();
    if (warp == 0) {
        const int head = query_of_lane();
        const float *query = p.qkv + (size_t)row * p.stride + (size_t)(first_head + head) * n.head_dim;
        Queries<CHUNKS> queries;
        queries.load_rows(query, head < n_heads, n.head_dim, p.scale);
        for (int c = 0; c < CHUNKS; c++)
            RowOperands(queries.chunks[c]).store(shared.queries + 2 * WARP * c + lane_index());
        shared.factors[lane_index()] = queries.factor;
    }
    __syncthreads();
    const uint32_t page = split * SPLIT_PAGES + warp;
    if (page <= last_page) {
        const uint32_t at = page_at(p.tables, row, page);
        const int n_valid = min(position + 1 - page * PAGE_TOKENS, (uint32_t)PAGE_TOKENS);
        attend_page<Element, CHUNKS>(page_of<Element>(p.cache.keys, n, at, kv_head),
                                    page_of<Element>(p.cache.values, n, at, kv_head), shared, warp, n.head_dim, n_valid,
                                    n_heads);
    }
    __syncthreads();
    const int n_pages = min(last_page - split * SPLIT_PAGES + 1, (uint32_t)SPLIT_PAGES);
    float *partials = p.partials + (((size_t)row * n.q_heads + first_head) * p.n_splits + split) * (n.head_dim + 2);
    combine_pages(shared, n_pages, n_heads, n.head_dim, p.n_splits, partials);
    combine_finished(p, part, row, last_page / SPLIT_PAGES + 1);
}

KERNEL(attend_decode_f16_d64, AttendParams, 256, 2) { attend_split<uint16_t, 64>(p); }
KERNEL(attend_decode_f16_d96, AttendParams, 256, 2) { attend_split<uint16_t, 96>(p); }
KERNEL(attend_decode_f16_d128, AttendParams, 256, 2) { attend_split<uint16_t, 128>(p); }
KERNEL(attend_decode_f16_d256, AttendParams, 256, 1) { attend_split<uint16_t, 256>(p); }
KERNEL(attend_decode_f32_d64, AttendParams, 256, 1) { attend_split<float, 64>(p); }
KERNEL(attend_decode_f32_d96, AttendParams, 256, 1) { attend_split<float, 96>(p); }
KERNEL(attend_decode_f32_d128, AttendParams, 256, 1) { attend_split<float, 128>(p); }
KERNEL(attend_decode_f32_d256, AttendParams, 256, 1) { attend_split<float, 256>(p); }
