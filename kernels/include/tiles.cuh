// Products of weight tiles with planes of activations on the tensor cores, one struct per tile format.
//
// A format's struct holds a lane's part of one strip's block of 256 columns (16 rows): load() takes it from where the tiles
// lie. `multiply` takes a warp, S strips and N groups of four tokens through the block and calls take(s, n, r, term) with
// term = Σ weight · code over the block, for row g + 8r of strip s and token t of group n, with g = lane / 4 and
// t = lane % 4. Inside a block everything is integer but the last steps, so terms depend on neither S nor N.
//
// `activations.codes(n, unit)` answers a lane's 16 bytes of codes (see planes.cuh), `activations.sums(n, digit)` four sums
// of token g / 2: groups 0 to 3 where t is even, else 4 to 7.
#pragma once
#include "layouts.cuh"
#include "planes.cuh"

// Two integer sums for each row and token: of high and of low digits.
template <int N> struct DigitSums {
    int high[N][2] = {}, low[N][2] = {};

    DEVICE void add(int n, const int (&c)[4], int scale0, int scale1) {
        high[n][0] += scale0 * c[0];
        low[n][0] += scale0 * c[1];
        high[n][1] += scale1 * c[2];
        low[n][1] += scale1 * c[3];
    }
    DEVICE float value(int n, int r) const { return fmaf(256.0f, (float)high[n][r], (float)low[n][r]); }
};

DEVICE const Words4 *words(const uint8_t *bytes) { return (const Words4 *)bytes; }

// Where tiles lie: in global memory, read once, or in shared memory.
struct FromGlobal {
    DEVICE Words4 operator()(const Words4 *from) const { return load_streaming(from); }
    template <class T> DEVICE T operator()(const T *from) const { return *from; }
};
struct FromShared {
    template <class T> DEVICE T operator()(const T *from) const { return *from; }
};

DEVICE float low_half(uint32_t word) { return half_to_float((uint16_t)word); }
DEVICE float high_half(uint32_t word) { return half_to_float((uint16_t)(word >> 16)); }

// ---- Q4_K and Q5_K: y = d · scale · q - dmin · minimum, eight groups of 32

// The six-bit scales and minima of a row, one byte each, and its halves.
struct AffineScales {
    uint32_t scales[2];
    uint32_t minima; // the lane's word of an mma's first operand: the row's eight minima, then eight zeros
    uint32_t halves;

    DEVICE void load(const Words4 &v) {
        const uint32_t t = lane_index() % 4;
        const uint32_t first = v.y & 0x3f3f3f3f, second = ((v.z >> 4) & 0x0f0f0f0f) | ((v.y >> 2) & 0x30303030);
        scales[0] = v.x & 0x3f3f3f3f;
        scales[1] = (v.z & 0x0f0f0f0f) | ((v.x >> 2) & 0x30303030);
        minima = t == 0 ? first : t == 1 ? second : 0;
        halves = v.w;
    }
    DEVICE float d() const { return low_half(halves); }
    DEVICE float dmin() const { return high_half(halves); }
};

// sums[r] = Σ minimum · (sum of codes) over the eight groups of row g + 8r, digit by digit: exact, below 2^30.
template <class Activations>
DEVICE void sum_minima(const AffineScales (&rows)[2], const Activations &activations, int n, int (&sums)[2]) {
    int lower[4], upper[4];
    mma_k16_uu(lower, rows[0].minima, rows[1].minima, activations.sums(n, lane_index() / 4 % 2));
    mma_k16_us(upper, rows[0].minima, rows[1].minima, activations.sums(n, 2));
#pragma unroll
    for (int r = 0; r < 2; r++) sums[r] = lower[2 * r] + 256 * lower[2 * r + 1] + 65536 * upper[2 * r];
}

// A lane's codes of a Q4_K tile. A group's codes come as fragments of the tensor cores' first operand, times 16.
struct CodesQ4K {
    using Layout = LayoutQ4K;
    static constexpr float UNIT = 1.0f / 16.0f;
    Words4 nibbles[4];

    template <class From> DEVICE void load(const uint8_t *tile, From from) {
#pragma unroll
        for (int unit = 0; unit < 4; unit++) nibbles[unit] = from(words(tile) + WARP * unit + lane_index());
    }
    DEVICE static uint32_t place(uint32_t word, int half) { return (half ? word : word << 4) & 0xf0f0f0f0; }

    DEVICE void fragment(int group, uint32_t (&a)[4]) const {
        const Words4 v = nibbles[group / 2];
        const uint32_t word[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = place(word[i], group % 2);
    }
};

// Q5_K: the same with a fifth bit, times 8.
struct CodesQ5K {
    using Layout = LayoutQ5K;
    static constexpr float UNIT = 1.0f / 8.0f;
    Words4 nibbles[4], fifths;

    template <class From> DEVICE void load(const uint8_t *tile, From from) {
#pragma unroll
        for (int unit = 0; unit < 4; unit++) nibbles[unit] = from(words(tile) + WARP * unit + lane_index());
        fifths = from(words(tile + Layout::HIGH) + lane_index());
    }
    DEVICE void fragment(int group, uint32_t (&a)[4]) const {
        const Words4 v = nibbles[group / 2];
        const uint32_t word[4] = {v.x, v.y, v.z, v.w}, fifth[4] = {fifths.x, fifths.y, fifths.z, fifths.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t four = (group % 2 ? word[i] >> 1 : word[i] << 3) & 0x78787878;
            a[i] = four | ((fifth[i] << (7 - group)) & 0x80808080);
        }
    }
};

template <class Codes> struct AffineTiles {
    using Layout = typename Codes::Layout;
    Codes codes;
    AffineScales rows[2]; // g and g + 8

    template <class From> DEVICE void load(const uint8_t *tile, uint32_t, From from) {
        codes.load(tile, from);
#pragma unroll
        for (int r = 0; r < 2; r++) rows[r].load(from(words(tile + Layout::SCALES) + lane_index() / 4 + 8 * r));
    }

    template <int N, int S, class Activations, class Take>
    DEVICE static void multiply(const AffineTiles (&strips)[S], uint32_t, const Activations &activations,
                                Take take) {
        DigitSums<N> sums[S];
#pragma unroll
        for (int group = 0; group < 8; group++) {
            if (N > 1) __syncwarp(); // keeps the loads of later groups from filling the registers
            uint32_t a[S][4];
            int scales[S][2];
#pragma unroll
            for (int s = 0; s < S; s++) {
                strips[s].codes.fragment(group, a[s]);
#pragma unroll
                for (int r = 0; r < 2; r++) scales[s][r] = unsigned_byte(strips[s].rows[r].scales[group / 4], group % 4);
            }
#pragma unroll
            for (int n = 0; n < N; n++) {
                const Words4 b = activations.codes(n, group / 2);
#pragma unroll
                for (int s = 0; s < S; s++) {
                    int c[4];
                    mma_k32_us(c, a[s], group % 2 ? b.z : b.x, group % 2 ? b.w : b.y);
                    sums[s].add(n, c, scales[s][0], scales[s][1]);
                }
            }
        }
#pragma unroll
        for (int s = 0; s < S; s++) {
            const AffineScales(&rows)[2] = strips[s].rows;
#pragma unroll
            for (int n = 0; n < N; n++) {
                int minima[2];
                sum_minima(rows, activations, n, minima);
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const float minimum = rows[r].dmin() * (float)minima[r];
                    take(s, n, r, fmaf(rows[r].d() * Codes::UNIT, sums[s].value(n, r), -minimum));
                }
            }
        }
    }
};

using TilesQ4K = AffineTiles<CodesQ4K>;
using TilesQ5K = AffineTiles<CodesQ5K>;

// ---- Q6_K: y = d · scale · (q - 32), sixteen groups of 16

struct TilesQ6K {
    using Layout = LayoutQ6K;

    // 4 · (q - 32) as signed bytes: the six bits at the top, the highest inverted.
    DEVICE static uint32_t place(uint32_t nibbles, uint32_t pairs, int quarter) {
        const uint32_t four = (quarter < 2 ? nibbles << 2 : nibbles >> 2) & 0x3c3c3c3c;
        return four | (((pairs << (6 - 2 * quarter)) & 0xc0c0c0c0) ^ 0x80808080);
    }

    Words4 nibbles[4], pairs[2], scales[2];
    uint16_t d[2];

    template <class From> DEVICE void load(const uint8_t *tile, uint32_t, From from) {
        const int lane = lane_index(), g = lane / 4;
#pragma unroll
        for (int unit = 0; unit < 4; unit++) nibbles[unit] = from(words(tile) + WARP * unit + lane);
#pragma unroll
        for (int half = 0; half < 2; half++) pairs[half] = from(words(tile + Layout::HIGH) + WARP * half + lane);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            scales[r] = from(words(tile + Layout::SCALES) + g + 8 * r);
            d[r] = from((const uint16_t *)(tile + Layout::SUPER_SCALES) + g + 8 * r);
        }
    }
    // Of 32 columns.
    DEVICE void fragment(int group, uint32_t (&a)[4]) const {
        const int half = group / 4, quarter = group % 4;
        const Words4 low = nibbles[2 * half + quarter % 2], high = pairs[half];
        a[0] = place(low.x, high.x, quarter), a[1] = place(low.y, high.y, quarter);
        a[2] = place(low.z, high.z, quarter), a[3] = place(low.w, high.w, quarter);
    }
    // Of 16 columns.
    DEVICE int scale(int r, int group) const {
        const uint32_t packed[4] = {scales[r].x, scales[r].y, scales[r].z, scales[r].w};
        return signed_byte(packed[group / 4], group % 4);
    }

    template <int N, int S, class Activations, class Take>
    DEVICE static void multiply(const TilesQ6K (&strips)[S], uint32_t, const Activations &activations,
                                Take take) {
        DigitSums<N> sums[S];
#pragma unroll
        for (int group = 0; group < 8; group++) {
            if (N > 1) __syncwarp(); // as above
            uint32_t a[S][4];
            int of_group[S][2][2];
#pragma unroll
            for (int s = 0; s < S; s++) {
                strips[s].fragment(group, a[s]);
#pragma unroll
                for (int i = 0; i < 4; i++) of_group[s][i / 2][i % 2] = strips[s].scale(i % 2, 2 * group + i / 2);
            }
#pragma unroll
            for (int n = 0; n < N; n++) {
                const Words4 b = activations.codes(n, group / 2);
#pragma unroll
                for (int s = 0; s < S; s++) {
                    int c[4];
                    mma_k16_ss(c, a[s][0], a[s][1], group % 2 ? b.z : b.x);
                    sums[s].add(n, c, of_group[s][0][0], of_group[s][0][1]);
                    mma_k16_ss(c, a[s][2], a[s][3], group % 2 ? b.w : b.y);
                    sums[s].add(n, c, of_group[s][1][0], of_group[s][1][1]);
                }
            }
        }
#pragma unroll
        for (int s = 0; s < S; s++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int r = 0; r < 2; r++)
                    take(s, n, r, half_to_float(strips[s].d[r]) * 0.25f * sums[s].value(n, r));
    }
};

// ---- Q8_0, Q4_0, Q5_0: y = d · q with signed q, groups of 32, two of them in a tile

struct CodesQ8 {
    using Layout = LayoutQ8;
    static constexpr float UNIT = 1.0f;
    Words4 codes[2];

    template <class From> DEVICE void load(const uint8_t *tile, From from) {
        codes[0] = from(words(tile) + lane_index());
        codes[1] = from(words(tile) + WARP + lane_index());
    }
    DEVICE void fragment(int group, uint32_t (&a)[4]) const {
        const Words4 v = codes[group];
        a[0] = v.x, a[1] = v.y, a[2] = v.z, a[3] = v.w;
    }
};

// 16 · (q - 8) as signed bytes: the four bits at the top, the highest inverted.
struct CodesQ4 {
    using Layout = LayoutQ4;
    static constexpr float UNIT = 1.0f / 16.0f;
    Words4 nibbles;

    template <class From> DEVICE void load(const uint8_t *tile, From from) { nibbles = from(words(tile) + lane_index()); }
    DEVICE void fragment(int group, uint32_t (&a)[4]) const {
        const uint32_t v0 = group ? nibbles.z : nibbles.x, v1 = group ? nibbles.w : nibbles.y;
        a[0] = ((v0 << 4) & 0xf0f0f0f0) ^ 0x80808080, a[2] = (v0 & 0xf0f0f0f0) ^ 0x80808080;
        a[1] = ((v1 << 4) & 0xf0f0f0f0) ^ 0x80808080, a[3] = (v1 & 0xf0f0f0f0) ^ 0x80808080;
    }
};

// 8 · (q - 16) likewise.
struct CodesQ5 {
    using Layout = LayoutQ5;
    static constexpr float UNIT = 1.0f / 8.0f;
    Words4 nibbles;
    uint32_t fifths;

    template <class From> DEVICE void load(const uint8_t *tile, From from) {
        nibbles = from(words(tile) + lane_index());
        fifths = from((const uint32_t *)(tile + Layout::HIGH) + lane_index());
    }
    DEVICE void fragment(int group, uint32_t (&a)[4]) const {
        const uint32_t v[2] = {group ? nibbles.z : nibbles.x, group ? nibbles.w : nibbles.y};
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int bit = 4 * group + 2 * r;
            a[r] = ((v[r] << 3) & 0x78787878) | (((fifths << (7 - bit)) & 0x80808080) ^ 0x80808080);
            a[r + 2] = ((v[r] >> 1) & 0x78787878) | (((fifths << (6 - bit)) & 0x80808080) ^ 0x80808080);
        }
    }
};

// A lane's part of one tile.
template <class Codes> struct SignedTile {
    Codes codes;
    uint32_t scales[2]; // of rows g and g + 8

    template <class From> DEVICE void load(const uint8_t *tile, From from) {
        codes.load(tile, from);
#pragma unroll
        for (int r = 0; r < 2; r++) scales[r] = from((const uint32_t *)(tile + Codes::Layout::SCALES) + lane_index() / 4 + 8 * r);
    }
};

// The tiles of a block, all at once.
template <class Codes> struct HeldTiles {
    SignedTile<Codes> tiles[BLOCK_COLUMNS / UNIT_COLUMNS];

    // A last block may be shorter.
    template <class From> DEVICE void load(const uint8_t *block, uint32_t n_units, From from) {
#pragma unroll
        for (int unit = 0; unit < BLOCK_COLUMNS / UNIT_COLUMNS; unit++)
            if ((uint32_t)unit < n_units) tiles[unit].load(block + unit * Codes::Layout::BYTES, from);
    }
    DEVICE const SignedTile<Codes> &tile(int unit) const { return tiles[unit]; }
};

// The same one by one, as they are used: for a kernel that has no registers for all.
template <class Codes> struct TilesOnDemand {
    const uint8_t *tiles;

    DEVICE void load(const uint8_t *block, uint32_t, FromGlobal) { tiles = block; }
    DEVICE SignedTile<Codes> tile(int unit) const {
        SignedTile<Codes> tile;
        tile.load(tiles + unit * Codes::Layout::BYTES, FromGlobal{});
        return tile;
    }
};

template <class Codes, class Held = HeldTiles<Codes>> struct SignedTiles : Held {
    using Layout = typename Codes::Layout;
    static constexpr int UNITS = BLOCK_COLUMNS / UNIT_COLUMNS;

    template <int N, int S, class Activations, class Take>
    DEVICE static void multiply(const SignedTiles (&strips)[S], uint32_t n_units, const Activations &activations,
                                Take take) {
        float terms[S][N][2] = {};
#pragma unroll
        for (int unit = 0; unit < UNITS; unit++) {
            if ((uint32_t)unit >= n_units) break;
            SignedTile<Codes> tiles[S];
            uint32_t a[S][2][4];
            float d[S][2][2];
#pragma unroll
            for (int s = 0; s < S; s++) tiles[s] = strips[s].tile(unit);
#pragma unroll
            for (int i = 0; i < 2 * S; i++) {
                const int s = i / 2, group = i % 2;
                const SignedTile<Codes> &tile = tiles[s];
                tile.codes.fragment(group, a[s][group]);
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const uint32_t both = tile.scales[r];
                    d[s][group][r] = (group ? high_half(both) : low_half(both)) * Codes::UNIT;
                }
            }
#pragma unroll
            for (int n = 0; n < N; n++) {
                const Words4 b = activations.codes(n, unit);
#pragma unroll
                for (int i = 0; i < 2 * S; i++) {
                    const int s = i / 2, group = i % 2;
                    int c[4];
                    mma_k32_ss(c, a[s][group], group ? b.z : b.x, group ? b.w : b.y);
#pragma unroll
                    for (int r = 0; r < 2; r++)
                        terms[s][n][r] = fmaf(d[s][group][r], (float)(256 * c[2 * r] + c[2 * r + 1]), terms[s][n][r]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < S * N * 2; i++) take(i / (2 * N), i / 2 % N, i % 2, terms[i / (2 * N)][i / 2 % N][i % 2]);
    }
};

using TilesQ8 = SignedTiles<CodesQ8>;
using TilesQ4 = SignedTiles<CodesQ4>;
using TilesQ5 = SignedTiles<CodesQ5>;
