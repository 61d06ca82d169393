// What Hopper (sm_90a) alone has of the machine, as platform.cuh has what all GPUs have: barriers in shared memory, bulk
// copies, and products of warpgroups. Each wrapper stands beside its twin in plain C++.
//
// An image for another GPU does not hold what KERNEL_SM90A defines: its text is read there and left out.
#pragma once
#include "platform.cuh"

#ifdef WORKER_ORCD_EMULATOR
#define KERNEL_SM90A KERNEL
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define KERNEL_SM90A KERNEL
#else
#define KERNEL_SM90A(name, Params, THREADS, BLOCKS_PER_SM) DEVICE void name##_left_out(const Params &p)
#endif

constexpr int WARPGROUP = 4 * WARP;

DEVICE int warpgroup_index() { return threadIdx.x / WARPGROUP; }

// The address of shared memory as instructions take it: bytes from the beginning of the block's.
DEVICE uint32_t shared_address(const void *shared) {
#ifdef WORKER_ORCD_EMULATOR
    return emulator::shared_address(shared);
#else
    return (uint32_t)__cvta_generic_to_shared(shared);
#endif
}

// Gives registers of this warpgroup back, or takes some: COUNT a thread, which all of its threads ask for. The emulator has
// no registers to count.
template <int COUNT> DEVICE void shrink_registers() {
#ifndef WORKER_ORCD_EMULATOR
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
#endif
}
template <int COUNT> DEVICE void grow_registers() {
#ifndef WORKER_ORCD_EMULATOR
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
#endif
}

// ---- barriers in shared memory. PTX ISA, "mbarrier": phases follow one another, and one ends when as many have arrived as
// the barrier was made for and all bytes that were announced are there.

struct Barrier {
    uint64_t state;
};

// One thread makes a barrier for `count` arrivals a phase; all may use it after publish_barriers() and __syncthreads().
DEVICE void make_barrier(Barrier &barrier, uint32_t count) {
#ifdef WORKER_ORCD_EMULATOR
    emulator::make_barrier(&barrier.state, count);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(count) : "memory");
#endif
}

// Lets bulk copies see the barriers that this thread has made, and what earlier kernels wrote.
DEVICE void publish_barriers() {
#ifndef WORKER_ORCD_EMULATOR
    asm volatile("fence.proxy.async;" ::: "memory");
#endif
}

// What this thread did before is seen by who waits for the phase.
DEVICE void arrive_at(Barrier &barrier) {
#ifdef WORKER_ORCD_EMULATOR
    emulator::arrive_at(&barrier.state, 0);
#else
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
#endif
}

// The same, and announces `bytes` of bulk copies, without which the phase does not end.
DEVICE void arrive_announcing(Barrier &barrier, uint32_t bytes) {
#ifdef WORKER_ORCD_EMULATOR
    emulator::arrive_at(&barrier.state, bytes);
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes)
                 : "memory");
#endif
}

// Waits until the phase of this parity has ended: 0 for the first, 1 for the second and so on; 1 of a new barrier has.
DEVICE void wait_for(Barrier &barrier, uint32_t parity) {
#ifdef WORKER_ORCD_EMULATOR
    emulator::wait_for(&barrier.state, parity);
#else
    uint32_t has_ended;
    do {
        asm volatile("{\n"
                     ".reg .pred ended;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
                     "selp.b32 %0, 1, 0, ended;\n"
                     "}"
                     : "=r"(has_ended)
                     : "r"(shared_address(&barrier)), "r"(parity)
                     : "memory");
    } while (!has_ended);
#endif
}

// One thread copies from global to shared memory in the background; addresses and bytes are multiples of 16. The bytes count
// at `arrived`, whose phase has announced them.
DEVICE void copy_bulk(void *shared, const void *global, uint32_t bytes, Barrier &arrived) {
#ifdef WORKER_ORCD_EMULATOR
    emulator::copy_bulk(shared, global, bytes, &arrived.state);
#else
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(&arrived))
                 : "memory");
#endif
}

// ---- products of warpgroups. PTX ISA, "wgmma.mma_async" and "Shared memory matrix descriptor".

// Where a second operand lies in shared memory: core matrices of 8 columns with 16 bytes each, which stand together (128
// bytes, a multiple of 16 from the beginning), as K-major order without swizzling wants them. `along_k` bytes lead to the
// core matrix with the next 16 rows, `along_columns` bytes to the one with the next 8 columns.
struct CoreMatrices {
    uint64_t descriptor;

    DEVICE CoreMatrices(const void *first, uint32_t along_k, uint32_t along_columns)
        : descriptor((uint64_t)(shared_address(first) >> 4) | (uint64_t)(along_k >> 4) << 16 |
                     (uint64_t)(along_columns >> 4) << 32) {}
    // Those that begin `bytes` later.
    DEVICE uint64_t after(uint32_t bytes) const { return descriptor + (bytes >> 4); }
};

constexpr int PRODUCT_COLUMNS = 128;

// A lane's part of c[64][128], whose rows 16w .. 16w + 15 are warp w's: element 4j + i is element i of an mma's result
// (platform.cuh) for columns 8j .. 8j + 7.
using Accumulators = int[PRODUCT_COLUMNS / 2];

// Before its first product, and before one for which registers of its first operand were written, a warpgroup calls this.
DEVICE void begin_products() {
#ifdef WORKER_ORCD_EMULATOR
    emulator::begin_products();
#else
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// Ends a group of products.
DEVICE void commit_products() {
#ifdef WORKER_ORCD_EMULATOR
    emulator::commit_products();
#else
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until at most PENDING groups are under way: operands of the others may be written.
template <int PENDING> DEVICE void wait_for_products() {
#ifdef WORKER_ORCD_EMULATOR
    emulator::wait_for_products(PENDING);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
#endif
}

// "+r" of 64 registers.
#define REGISTERS_4(c, i) "+r"(c[i]), "+r"(c[i + 1]), "+r"(c[i + 2]), "+r"(c[i + 3])
#define REGISTERS_16(c, i) REGISTERS_4(c, i), REGISTERS_4(c, i + 4), REGISTERS_4(c, i + 8), REGISTERS_4(c, i + 12)
#define REGISTERS_64(c) REGISTERS_16(c, 0), REGISTERS_16(c, 16), REGISTERS_16(c, 32), REGISTERS_16(c, 48)

// Waits for all, whose results may then be read.
DEVICE void finish_products([[maybe_unused]] Accumulators &first, [[maybe_unused]] Accumulators &second) {
    wait_for_products<0>();
#ifndef WORKER_ORCD_EMULATOR
    // Nothing that reads them moves before the wait.
    asm volatile("" : REGISTERS_64(first)::"memory");
    asm volatile("" : REGISTERS_64(second)::"memory");
#endif
}

// c = a · b, or c += a · b, in the background: a[64][32] in registers, b[32][128] in core matrices. Warp w has rows 16w ..
// 16w + 15 of a, in the order of an mma's first operand. A is unsigned (_us) or signed (_ss), b is signed. Every thread of
// the warpgroup takes part.
#define PRODUCT(kind)                                                                                                  \
    asm volatile("{\n"                                                                                                 \
                 ".reg .pred adds;\n"                                                                                  \
                 "setp.ne.b32 adds, %69, 0;\n"                                                                         \
                 "wgmma.mma_async.sync.aligned.m64n128k32.s32." kind " "                                               \
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                             \
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"                                    \
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"                                    \
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "                                  \
                 "{%64,%65,%66,%67}, %68, adds;\n"                                                                     \
                 "}"                                                                                                   \
                 : REGISTERS_64(c)                                                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)adds))

DEVICE void multiply_us(Accumulators &c, const uint32_t (&a)[4], uint64_t b, bool adds) {
#ifdef WORKER_ORCD_EMULATOR
    emulator::multiply_warpgroup(c, a, b, adds, false);
#else
    PRODUCT("u8.s8");
#endif
}

DEVICE void multiply_ss(Accumulators &c, const uint32_t (&a)[4], uint64_t b, bool adds) {
#ifdef WORKER_ORCD_EMULATOR
    emulator::multiply_warpgroup(c, a, b, adds, true);
#else
    PRODUCT("s8.s8");
#endif
}

#undef PRODUCT
#undef REGISTERS_64
#undef REGISTERS_16
#undef REGISTERS_4
