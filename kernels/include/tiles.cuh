// Products of weight tiles with planes of activations on the tensor cores, one struct per tile format.
//
// A format's `multiply` takes a warp, 16 rows and N groups of four tokens through one block of 256 columns and answers
// terms[n][r] = Σ weight · code over the block, for row g + 8r and token t of group n, with g = lane / 4 and t = lane % 4.
// Inside a block everything is integer but the last steps, so the terms do not depend on N.
//
// `activations(n, unit)` answers a lane's 16 bytes of codes (see planes.cuh), `activations.sums(n, digit)` the eight
// sums of token t.
#pragma once
#include "layouts.cuh"
#include "planes.cuh"

template <int N> using Terms = float[N][2];

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

DEVICE float low_half(uint32_t word) { return half_to_float((uint16_t)word); }
DEVICE float high_half(uint32_t word) { return half_to_float((uint16_t)(word >> 16)); }

// ---- Q4_K and Q5_K: y = d · scale · q - dmin · minimum, eight groups of 32

// The six-bit scales and minima of a row, one byte each, and its halves.
struct AffineScales {
    uint32_t scales[2], minima[2];
    float d, dmin;

    DEVICE explicit AffineScales(const Words4 &v) {
        scales[0] = v.x & 0x3f3f3f3f;
        minima[0] = v.y & 0x3f3f3f3f;
        scales[1] = (v.z & 0x0f0f0f0f) | ((v.x >> 2) & 0x30303030);
        minima[1] = ((v.z >> 4) & 0x0f0f0f0f) | ((v.y >> 2) & 0x30303030);
        d = low_half(v.w);
        dmin = high_half(v.w);
    }
    // Σ minimum · (sum of codes) over the eight groups: exact, below 2^30.
    template <class Activations> DEVICE int minimum(const Activations &activations, int n) const {
        const Words2 d0 = activations.sums(n, 0), d1 = activations.sums(n, 1), d2 = activations.sums(n, 2);
        const int first = dot4_uu(minima[1], d0.y, dot4_uu(minima[0], d0.x, 0));
        const int second = dot4_uu(minima[1], d1.y, dot4_uu(minima[0], d1.x, 0));
        const int third = dot4_us(minima[1], d2.y, dot4_us(minima[0], d2.x, 0));
        return first + 256 * second + 65536 * third;
    }
};

// A lane's codes of a Q4_K tile. A group's codes come as fragments of the tensor cores' first operand, times 16.
struct CodesQ4K {
    using Layout = LayoutQ4K;
    static constexpr float UNIT = 1.0f / 16.0f;
    Words4 nibbles[4];

    DEVICE CodesQ4K(const uint8_t *tile, int lane) {
#pragma unroll
        for (int unit = 0; unit < 4; unit++) nibbles[unit] = load_streaming(words(tile) + WARP * unit + lane);
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

    DEVICE CodesQ5K(const uint8_t *tile, int lane) {
#pragma unroll
        for (int unit = 0; unit < 4; unit++) nibbles[unit] = load_streaming(words(tile) + WARP * unit + lane);
        fifths = load_streaming(words(tile + Layout::HIGH) + lane);
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

    template <int N, class Activations>
    DEVICE static void multiply(const uint8_t *tile, uint32_t, const Activations &activations, Terms<N> &terms) {
        const int lane = lane_index(), g = lane / 4;
        DigitSums<N> sums;
        const Codes codes(tile, lane);
        const Words4 *packed = words(tile + Layout::SCALES);
        const AffineScales rows[2] = {AffineScales(load_streaming(packed + g)),
                                      AffineScales(load_streaming(packed + g + 8))};
#pragma unroll
        for (int group = 0; group < 8; group++) {
            if (N > 2) __syncwarp(); // keeps the loads of later groups from filling the registers
            uint32_t a[4];
            codes.fragment(group, a);
            const int scale0 = unsigned_byte(rows[0].scales[group / 4], group % 4), scale1 = unsigned_byte(rows[1].scales[group / 4], group % 4);
#pragma unroll
            for (int n = 0; n < N; n++) {
                const Words4 b = activations.codes(n, group / 2);
                int c[4];
                mma_k32_us(c, a, group % 2 ? b.z : b.x, group % 2 ? b.w : b.y);
                sums.add(n, c, scale0, scale1);
            }
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float minimum = rows[r].dmin * (float)rows[r].minimum(activations, n);
                terms[n][r] = fmaf(rows[r].d * Codes::UNIT, sums.value(n, r), -minimum);
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

    template <int N, class Activations>
    DEVICE static void multiply(const uint8_t *tile, uint32_t, const Activations &activations, Terms<N> &terms) {
        const int lane = lane_index(), g = lane / 4;
        DigitSums<N> sums;
        const Words4 *nibbles = words(tile) + lane, *pairs = words(tile + Layout::HIGH) + lane;
        const Words4 *packed = words(tile + Layout::SCALES);
        const Words4 row0 = load_streaming(packed + g), row1 = load_streaming(packed + g + 8);
        const uint32_t scales[2][4] = {{row0.x, row0.y, row0.z, row0.w}, {row1.x, row1.y, row1.z, row1.w}};
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const Words4 low[2] = {load_streaming(nibbles + WARP * (2 * half)),
                                   load_streaming(nibbles + WARP * (2 * half + 1))};
            const Words4 high = load_streaming(pairs + WARP * half);
#pragma unroll
            for (int quarter = 0; quarter < 4; quarter++) {
                if (N > 2) __syncwarp(); // as above
                const Words4 v = low[quarter % 2];
                const uint32_t a[4] = {place(v.x, high.x, quarter), place(v.y, high.y, quarter),
                                       place(v.z, high.z, quarter), place(v.w, high.w, quarter)};
                const int group = 8 * half + 2 * quarter;
#pragma unroll
                for (int n = 0; n < N; n++) {
                    const Words4 b = activations.codes(n, 2 * half + quarter / 2);
                    int c[4];
                    mma_k16_ss(c, a[0], a[1], quarter % 2 ? b.z : b.x);
                    sums.add(n, c, signed_byte(scales[0][group / 4], group % 4), signed_byte(scales[1][group / 4], group % 4));
                    mma_k16_ss(c, a[2], a[3], quarter % 2 ? b.w : b.y);
                    sums.add(n, c, signed_byte(scales[0][group / 4], group % 4 + 1), signed_byte(scales[1][group / 4], group % 4 + 1));
                }
            }
        }
        const uint16_t *d = (const uint16_t *)(tile + Layout::SUPER_SCALES);
        const float unit[2] = {half_to_float(d[g]) * 0.25f, half_to_float(d[g + 8]) * 0.25f};
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int r = 0; r < 2; r++) terms[n][r] = unit[r] * sums.value(n, r);
        }
    }
};

// ---- Q8_0, Q4_0, Q5_0: y = d · q with signed q, groups of 32, two of them in a tile

struct CodesQ8 {
    using Layout = LayoutQ8;
    static constexpr float UNIT = 1.0f;
    Words4 codes[2];

    DEVICE CodesQ8(const uint8_t *tile, int lane) {
        codes[0] = load_streaming(words(tile) + lane);
        codes[1] = load_streaming(words(tile) + WARP + lane);
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

    DEVICE CodesQ4(const uint8_t *tile, int lane) : nibbles(load_streaming(words(tile) + lane)) {}
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

    DEVICE CodesQ5(const uint8_t *tile, int lane)
        : nibbles(load_streaming(words(tile) + lane)), fifths(((const uint32_t *)(tile + Layout::HIGH))[lane]) {}
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

template <class Codes> struct SignedTiles {
    using Layout = typename Codes::Layout;

    template <int N, class Activations>
    DEVICE static void multiply(const uint8_t *tiles, uint32_t n_units, const Activations &activations,
                                Terms<N> &terms) {
        const int lane = lane_index(), g = lane / 4;
#pragma unroll
        for (int n = 0; n < N; n++) terms[n][0] = terms[n][1] = 0.0f;
#pragma unroll
        for (int unit = 0; unit < BLOCK_COLUMNS / UNIT_COLUMNS; unit++) {
            if ((uint32_t)unit >= n_units) break; // a last block may be shorter
            const uint8_t *tile = tiles + unit * Layout::BYTES;
            const Codes codes(tile, lane);
            const uint32_t *packed = (const uint32_t *)(tile + Layout::SCALES);
            const uint32_t scales[2] = {packed[g], packed[g + 8]};
#pragma unroll
            for (int group = 0; group < 2; group++) {
                uint32_t a[4];
                codes.fragment(group, a);
                float d[2];
#pragma unroll
                for (int r = 0; r < 2; r++)
                    d[r] = (group ? high_half(scales[r]) : low_half(scales[r])) * Codes::UNIT;
#pragma unroll
                for (int n = 0; n < N; n++) {
                    const Words4 b = activations.codes(n, unit);
                    int c[4];
                    mma_k32_ss(c, a, group ? b.z : b.x, group ? b.w : b.y);
                    terms[n][0] = fmaf(d[0], (float)(256 * c[0] + c[1]), terms[n][0]);
                    terms[n][1] = fmaf(d[1], (float)(256 * c[2] + c[3]), terms[n][1]);
                }
            }
        }
    }
};

using TilesQ8 = SignedTiles<CodesQ8>;
using TilesQ4 = SignedTiles<CodesQ4>;
using TilesQ5 = SignedTiles<CodesQ5>;
