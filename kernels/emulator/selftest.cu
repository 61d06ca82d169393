// Kernels that show what the emulator computes and what it finds; tests/emulator_runtime.rs runs them. All but the first
// run as one block, with a few words a thread in and out; the wrong ones are wrong in one way each.
#include "hopper.cuh"
#include "numeric.cuh"
#include "reduce.cuh"

struct SelftestParams {
    const uint32_t *in;
    uint32_t *out;
    uint32_t n, unused;
};

// ---- right

// out[block] = the sum of in[block][256], as float.
KERNEL(selftest_sum, SelftestParams, 256, 1) {
    const float sum = block_sum<256>(float_of(p.in[blockIdx.x * blockDim.x + threadIdx.x]));
    if (threadIdx.x == 0) p.out[blockIdx.x] = bits_of(sum);
}

// out[0][thread] = in[thread ^ n], out[1][thread] = in of lane (thread + n) mod 32, within each warp.
KERNEL(selftest_shuffles, SelftestParams, 1024, 1) {
    const uint32_t value = p.in[threadIdx.x];
    p.out[threadIdx.x] = shuffle_xor(value, p.n);
    p.out[blockDim.x + threadIdx.x] = shuffle(value, (lane_index() + p.n) % WARP);
}

// out[16][8] = a[16][K] · b[8][K] of bytes, for five kinds of product and twice the second; in holds a, then b, four columns a word.
DEVICE void store_product(const SelftestParams &p, int kind, const int (&c)[4]) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    for (int i = 0; i < 4; i++) p.out[128 * kind + (g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
}

KERNEL(selftest_products, SelftestParams, 32, 1) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    const uint32_t *b = p.in + 16 * 8;
    const uint32_t a[4] = {p.in[g * 8 + t], p.in[(g + 8) * 8 + t], p.in[g * 8 + 4 + t], p.in[(g + 8) * 8 + 4 + t]};
    int c[4];
    mma_k32_us(c, a, b[g * 8 + t], b[g * 8 + 4 + t]);
    store_product(p, 0, c);
    mma_k32_ss(c, a, b[g * 8 + t], b[g * 8 + 4 + t]);
    store_product(p, 1, c);
    mma_k16_ss(c, a[0], a[1], b[g * 8 + t]);
    store_product(p, 2, c);
    mma_k16_us(c, a[0], a[1], b[g * 8 + t]);
    store_product(p, 3, c);
    mma_k16_uu(c, a[0], a[1], b[g * 8 + t]);
    store_product(p, 4, c);
    mma_k32_ss(c, a, b[g * 8 + t], b[g * 8 + 4 + t]);
    add_mma_k32_ss(c, a, b[g * 8 + t], b[g * 8 + 4 + t]);
    store_product(p, 5, c);
}

// out[i] = the float of half i, and its upper half the half of in[i], for i < n.
KERNEL(selftest_halves, SelftestParams, 1024, 1) {
    for (uint32_t i = threadIdx.x; i < p.n; i += blockDim.x) {
        p.out[i] = bits_of(half_to_float((uint16_t)i));
        p.out[p.n + i] = float_to_half(float_of(p.in[i]));
    }
}

// out[i] = e^in[i], for i < n.
KERNEL(selftest_exponential, SelftestParams, 1024, 1) {
    for (uint32_t i = threadIdx.x; i < p.n; i += blockDim.x) p.out[i] = bits_of(exponential(float_of(p.in[i])));
}

// The sum of in[blocks][32] in a word of 32 bits; 2^16 times it, and 2^16 times the largest, in words of 64 bits.
KERNEL(selftest_atomics, SelftestParams, 32, 1) {
    const uint32_t value = p.in[WARP * blockIdx.x + threadIdx.x];
    uint64_t *wide = (uint64_t *)p.out;
    atomic_add(p.out, value);
    atomic_add(wide + 1, (uint64_t)value << 16);
    atomic_max(wide + 2, (uint64_t)value << 16);
}

// ---- background copies: out[thread] = in[thread] where the wait came before

DEVICE void copy_two_groups(const SelftestParams &p, uint32_t *shared) {
    copy_async(shared + 4 * threadIdx.x, p.in + 4 * threadIdx.x);
    copy_async_commit();
    copy_async(shared + 4 * (blockDim.x + threadIdx.x), p.in + 4 * (blockDim.x + threadIdx.x));
    copy_async_commit();
}

DEVICE void store_copies(const SelftestParams &p, const uint32_t *shared) {
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < 8 * blockDim.x; i += blockDim.x) p.out[i] = shared[i];
}

KERNEL(selftest_copies, SelftestParams, 64, 1) {
    SHARED(Words4, staged, [128]);
    copy_two_groups(p, (uint32_t *)staged);
    copy_async_wait<0>();
    store_copies(p, (uint32_t *)staged);
}

KERNEL(selftest_copies_of_one_group, SelftestParams, 64, 1) {
    SHARED(Words4, staged, [128]);
    copy_two_groups(p, (uint32_t *)staged);
    copy_async_wait<1>();
    store_copies(p, (uint32_t *)staged);
}

KERNEL(selftest_copies_without_wait, SelftestParams, 64, 1) {
    SHARED(Words4, staged, [128]);
    copy_two_groups(p, (uint32_t *)staged);
    store_copies(p, (uint32_t *)staged);
}

KERNEL(selftest_copy_unaligned, SelftestParams, 64, 1) {
    SHARED(Words4, staged, [2]);
    copy_async((uint32_t *)staged + 1, p.in);
}

// ---- warpgroups

// How a kernel below does something wrong.
enum Fault : uint32_t {
    NO_FAULT, SWAPPED_STRIDES, READ_EARLY, OVERWRITTEN_EARLY, NOT_BEGUN, OUTSIDE, SWIZZLED, NOT_ALL_WAIT, NOT_WAITED_FOR,
};

// out[kind][64][128] = a[64][32] · b[128][32] of bytes, unsigned and signed a, the second on top of what its product makes a
// second time; in holds a, then b, four columns a word.
KERNEL(selftest_warpgroup, SelftestParams, 128, 1) {
    constexpr int ALONG_K = 144, ALONG_COLUMNS = 320; // with gaps, which nothing reads
    SHARED(Words4, staged, [16 * ALONG_COLUMNS / 16]);
    const int row = 16 * warp_index() + lane_index() / 4, t = lane_index() % 4;
    const uint32_t column = threadIdx.x;
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t *core = (uint32_t *)staged + (column / 8 * ALONG_COLUMNS + i / 4 * ALONG_K) / 4;
        core[column % 8 * 4 + i % 4] = p.in[64 * 8 + column * 8 + i];
    }
    __syncthreads();
    const uint32_t *of_row = p.in + 8 * row;
    const uint32_t a[4] = {of_row[t], of_row[64 + t], of_row[4 + t], of_row[64 + 4 + t]};
    const bool is_swapped = p.n == SWAPPED_STRIDES;
    const CoreMatrices cores(staged, is_swapped ? ALONG_COLUMNS : ALONG_K, is_swapped ? ALONG_K : ALONG_COLUMNS);
    uint64_t b = cores.after(0);
    if (p.n == OUTSIDE) b = cores.after(64);
    if (p.n == SWIZZLED) b |= (uint64_t)1 << 62;
    if (p.n == NOT_ALL_WAIT && threadIdx.x == 5) return;
    Accumulators first, second;
    if (p.n != NOT_BEGUN) begin_products();
    multiply_us(first, a, b, false);
    multiply_ss(second, a, b, false);
    commit_products();
    begin_products();
    multiply_ss(second, a, b, true);
    commit_products();
    if (p.n == NOT_WAITED_FOR) return;
    if (p.n == OVERWRITTEN_EARLY) staged[0].x = 0;
    if (p.n == READ_EARLY) p.out[threadIdx.x] = first[0];
    finish_products(first, second);
    if (p.n == READ_EARLY) return;
    for (int i = 0; i < 64; i++) {
        const int at = (row + i % 4 / 2 * 8) * 128 + i / 4 * 8 + 2 * t + i % 2;
        p.out[at] = first[i];
        p.out[64 * 128 + at] = second[i];
    }
}

enum BarrierFault : uint32_t {
    NO_BARRIER_FAULT, NOT_AWAITED, AWAITED_TOO_OFTEN, TOO_FEW_ANNOUNCED, UNALIGNED, NEVER_MADE,
};

// out[thread] = in[thread] of two stages, which the last warp copies and the others read.
KERNEL(selftest_ring, SelftestParams, 128, 1) {
    SHARED(Words4, stages, [2][24]);
    SHARED(Barrier, barriers, [2][2]);
    Barrier(&full)[2] = barriers[0], (&empty)[2] = barriers[1];
    if (threadIdx.x == 0 && p.n != NEVER_MADE) {
        for (int i = 0; i < 2; i++) make_barrier(full[i], 1), make_barrier(empty[i], 96);
        publish_barriers();
    }
    __syncthreads();
    const bool is_producer = warp_index() == 3;
    for (uint32_t step = 0; step < 4; step++) {
        const uint32_t stage = step % 2, parity = step / 2 % 2;
        if (is_producer && lane_index() == 0) {
            wait_for(empty[stage], parity ^ 1);
            const uint32_t bytes = sizeof stages[0];
            arrive_announcing(full[stage], p.n == TOO_FEW_ANNOUNCED ? bytes - 16 : bytes);
            copy_bulk((uint8_t *)stages[stage] + (p.n == UNALIGNED), p.in + 96 * step, bytes, full[stage]);
        }
        if (!is_producer) {
            if (p.n != NOT_AWAITED) wait_for(full[stage], parity);
            p.out[96 * step + threadIdx.x] = ((const uint32_t *)stages[stage])[threadIdx.x];
            if (p.n == AWAITED_TOO_OFTEN) wait_for(full[stage], parity ^ 1);
            arrive_at(empty[stage]);
        }
    }
}

// ---- wrong

// Reads what the next thread writes, without a barrier between.
KERNEL(selftest_race, SelftestParams, 1024, 1) {
    SHARED(uint32_t, values, [1024]);
    values[threadIdx.x] = p.in[threadIdx.x];
    p.out[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}

// Copies over what the next thread still reads.
KERNEL(selftest_race_of_copies, SelftestParams, 64, 1) {
    SHARED(Words4, values, [64]);
    values[threadIdx.x] = Words4{threadIdx.x + 1, 0, 0, 0};
    __syncthreads();
    copy_async(&values[threadIdx.x], p.in);
    copy_async_commit();
    p.out[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x].x;
    copy_async_wait<0>();
}

// Every block writes one word: the last one wins.
KERNEL(selftest_race_of_blocks, SelftestParams, 32, 1) {
    if (threadIdx.x == 0) p.out[0] = blockIdx.x;
}

KERNEL(selftest_unwritten, SelftestParams, 1024, 1) {
    SHARED(uint32_t, values, [1024]);
    p.out[threadIdx.x] = values[threadIdx.x];
}

KERNEL(selftest_unwritten_dynamic, SelftestParams, 1024, 1) {
    DYNAMIC_SHARED(values);
    p.out[threadIdx.x] = values[threadIdx.x];
}

// Threads from n on return before the barrier.
KERNEL(selftest_barrier_of_some, SelftestParams, 1024, 1) {
    if (threadIdx.x >= p.n) return;
    __syncthreads();
    p.out[threadIdx.x] = 1;
}

// Lanes from n on skip the shuffle, and wait for the others at a barrier.
KERNEL(selftest_shuffle_of_some, SelftestParams, 32, 1) {
    uint32_t value = threadIdx.x;
    if (threadIdx.x < p.n) value = shuffle_xor(value, 1);
    __syncthreads();
    p.out[threadIdx.x] = value;
}

// Lanes of one warp meet for different things.
KERNEL(selftest_meetings, SelftestParams, 32, 1) {
    if (threadIdx.x % 2 == 0) {
        __syncwarp();
    } else {
        p.out[threadIdx.x] = shuffle_xor(threadIdx.x, 2);
    }
}

// Reads byte n of dynamic shared memory.
KERNEL(selftest_read_shared, SelftestParams, 32, 1) {
    DYNAMIC_SHARED(bytes);
    p.out[threadIdx.x] = bytes[p.n];
}

// Reads word n of in.
KERNEL(selftest_read_global, SelftestParams, 32, 1) { p.out[threadIdx.x] = p.in[p.n]; }

// ---- for measurements

KERNEL(selftest_many_meetings, SelftestParams, 256, 1) {
    for (uint32_t i = 0; i < p.n; i++) __syncwarp();
}

KERNEL(selftest_many_products, SelftestParams, 256, 1) {
    uint32_t a[4] = {p.in[0], p.in[1], p.in[2], p.in[3]};
    uint32_t sum = 0;
    for (uint32_t i = 0; i < p.n; i++) {
        int c[4];
        mma_k32_us(c, a, p.in[4], p.in[5]);
        sum += c[0];
        a[0] += sum;
    }
    p.out[threadIdx.x] = sum;
}
