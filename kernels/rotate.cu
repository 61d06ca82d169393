// Rotary embedding, and the append of keys and values to the cache.
//
//   angle[row][i]  = (float)position · frequency[i], one product of singles; then sine and cosine, times a factor
//   q, k           : x / sqrt(mean(x²) + eps) · norm for each head, where there are norms
//                    then each pair (a, b) becomes (a cos - b sin, a sin + b cos)
//   cache          : k and v of the row at its position, rounded to the cache's type; q goes back where it was
//
// Shapes: qkv [rows][q_heads + 2 kv_heads][head_dim], cache [pages][kv_heads][64][head_dim]; head_dim up to 256.
// Grid of angles:   (rows), 256 threads over the pairs of a row.
// Grid of rotate_*: (rows, heads of q, k and v in eights), 256 threads, a warp for each head.
// Bytes moved: qkv once in, q once out, k and v into the cache.
#include "angles.cuh"
#include "cache.cuh"
#include "params.cuh"
#include "reduce.cuh"

KERNEL(angles, AnglesParams, 256, 4) {
    const uint32_t row = blockIdx.x, n_pairs = p.rotated_dims / 2;
    const float *frequencies = p.frequencies[p.tables.rotary_set[row]];
    const float position = (float)p.tables.positions[row];
    for (uint32_t i = threadIdx.x; i < n_pairs; i += blockDim.x) {
        const SineCosine turn = sine_cosine((double)(position * frequencies[i]));
        float *angle = p.tables.angles + ((size_t)row * n_pairs + i) * 2;
        angle[0] = (float)turn.sine * p.attention_factor;
        angle[1] = (float)turn.cosine * p.attention_factor;
    }
}

// head = head / sqrt(mean(head²) + eps) · weight. A lane has every 32nd dimension; the sum is a lane's in order, then
// the butterfly.
DEVICE void norm_head(float *head, uint32_t head_dim, const float *weight, float eps) {
    float sum = 0.0f;
    for (uint32_t d = lane_index(); d < head_dim; d += WARP) sum = fmaf(head[d], head[d], sum);
    const float mean = warp_sum(sum) / (float)head_dim;
    const float scale = 1.0f / sqrtf(mean + eps);
    for (uint32_t d = lane_index(); d < head_dim; d += WARP) head[d] = head[d] * scale * weight[d];
}

// Turns the pairs of a head; a lane has every 32nd pair.
DEVICE void turn_head(float *head, uint32_t n_pairs, bool interleaved, const float *angles) {
    for (uint32_t i = lane_index(); i < n_pairs; i += WARP) {
        float &first = head[interleaved ? 2 * i : i], &second = head[interleaved ? 2 * i + 1 : i + n_pairs];
        const float a = first, b = second, sine = angles[2 * i], cosine = angles[2 * i + 1];
        first = a * cosine - b * sine;
        second = a * sine + b * cosine;
    }
}

template <typename Element> DEVICE void rotate(const RotateParams &p) {
    SHARED(float, heads, [ROTATE_HEADS][MOST_HEAD_DIM]);
    const HeadCounts &n = p.heads;
    const uint32_t row = blockIdx.x, number = blockIdx.y * ROTATE_HEADS + warp_index();
    if (number >= n.q_heads + 2 * n.kv_heads) return;
    const bool is_query = number < n.q_heads, is_value = number >= n.q_heads + n.kv_heads;
    float *from = p.qkv + (size_t)row * p.stride + (size_t)number * n.head_dim;
    float *head = heads[warp_index()];
    for (uint32_t d = lane_index(); d < n.head_dim; d += WARP) head[d] = from[d];
    if (!is_value) {
        const float *norm = is_query ? p.q_norm : p.k_norm;
        if (norm) norm_head(head, n.head_dim, norm, is_query ? p.q_eps : p.k_eps);
        __syncwarp();
        const uint32_t n_pairs = n.rotated_dims / 2;
        turn_head(head, n_pairs, p.interleaved, p.tables.angles + (size_t)row * n_pairs * 2);
        __syncwarp();
    }
    if (is_query) {
        for (uint32_t d = lane_index(); d < n.head_dim; d += WARP) from[d] = head[d];
        return;
    }
    const uint32_t kv_head = (number - n.q_heads) % n.kv_heads, position = p.tables.positions[row];
    const uint32_t page = page_at(p.tables, row, position / PAGE_TOKENS);
    Element *into = page_of<Element>(is_value ? p.cache.values : p.cache.keys, n, page, kv_head);
    into += position % PAGE_TOKENS * n.head_dim;
    for (uint32_t d = lane_index(); d < n.head_dim; d += WARP) store(into + d, head[d]);
}

KERNEL(rotate_f16, RotateParams, 256, 4) { rotate<uint16_t>(p); }
KERNEL(rotate_f32, RotateParams, 256, 4) { rotate<float>(p); }
