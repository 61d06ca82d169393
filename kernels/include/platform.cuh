// What a kernel needs of the machine below it. All inline PTX of the project stands here, and in hopper.cuh what one GPU
// alone has, each wrapper beside its twin in plain C++, which the emulator compiles (see ../emulator/runtime.hpp). Twins
// give the same bits: kernels use IEEE single precision with explicit fmaf, integers, and nothing whose rounding a GPU
// leaves open.
#pragma once
#include <math.h>
#include <stdint.h>

#ifdef WORKER_ORCD_EMULATOR
#include "runtime.hpp"
#else
#include <cuda_fp16.h>
#define DEVICE __device__ __forceinline__
// A kernel takes one parameter struct by value; THREADS is the block size it is compiled for. It may be started before the
// kernel before it has ended, and begins with await_inputs().
#define KERNEL(name, Params, THREADS, BLOCKS_PER_SM)                                                                   \
    DEVICE void name##_body(const Params &p);                                                                          \
    KERNEL_AHEAD(name, Params, THREADS, BLOCKS_PER_SM) {                                                               \
        await_inputs();                                                                                                \
        name##_body(p);                                                                                                \
    }                                                                                                                  \
    DEVICE void name##_body(const Params &p)
// The same, but every thread calls await_inputs() itself: before it does, it touches nothing that a kernel writes.
#define KERNEL_AHEAD(name, Params, THREADS, BLOCKS_PER_SM)                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) name(const __grid_constant__ Params p)
// Shared memory whose size the launch gives, aligned to 16 bytes.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) uint8_t name[]
// Shared memory of fixed size: SHARED(float, sums, [4][8]) is `float sums[4][8]`.
#define SHARED(type, name, extents) __shared__ type name extents
#endif

constexpr int WARP = 32;

DEVICE int lane_index() { return threadIdx.x % WARP; }
DEVICE int warp_index() { return threadIdx.x / WARP; }

// ---- kernels one after another

// Lets the next kernel's blocks start, as far as there is room, and waits until all that earlier kernels wrote is there.
// PTX ISA, "griddepcontrol"; GPUs before sm_90 start a kernel when the one before it has ended.
DEVICE void await_inputs() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Asks for the line of 128 bytes around an address to be brought nearer, to the second-level cache.
DEVICE void prefetch(const void *address) {
#ifdef WORKER_ORCD_EMULATOR
    __builtin_prefetch(address);
#else
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#endif
}

// Adds one to a counter in global memory and answers what it was. What this block wrote before (and a barrier between)
// is seen by whoever finds it counted.
DEVICE uint32_t count_in(uint32_t *counter) {
#ifdef WORKER_ORCD_EMULATOR
    return __atomic_fetch_add(counter, 1, __ATOMIC_ACQ_REL);
#else
    uint32_t before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
#endif
}

// ---- numbers as bits

DEVICE uint32_t bits_of(float value) {
#ifdef WORKER_ORCD_EMULATOR
    return emulator::bit_cast<uint32_t>(value);
#else
    return __float_as_uint(value);
#endif
}

DEVICE float float_of(uint32_t bits) {
#ifdef WORKER_ORCD_EMULATOR
    return emulator::bit_cast<float>(bits);
#else
    return __uint_as_float(bits);
#endif
}

// The exact value of an IEEE half.
DEVICE float half_to_float(uint16_t bits) {
#ifdef WORKER_ORCD_EMULATOR
    return emulator::half_to_float(bits);
#else
    return __half2float(__ushort_as_half(bits));
#endif
}

// The nearest IEEE half, ties to even; beyond the range infinity.
DEVICE uint16_t float_to_half(float value) {
#ifdef WORKER_ORCD_EMULATOR
    return emulator::float_to_half(value);
#else
    return __half_as_ushort(__float2half_rn(value));
#endif
}

// The nearest integer, ties to even; |value| < 2^31.
DEVICE int round_to_int(float value) {
#ifdef WORKER_ORCD_EMULATOR
    return (int)nearbyintf(value);
#else
    return __float2int_rn(value);
#endif
}

// Byte `index` of a word, zero- or sign-extended: one instruction where the index is known at compile time.
DEVICE int unsigned_byte(uint32_t word, int index) {
#ifdef WORKER_ORCD_EMULATOR
    return (uint8_t)(word >> (8 * index));
#else
    int value;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(value) : "r"(word), "r"(0x4440 | index));
    return value;
#endif
}

DEVICE int signed_byte(uint32_t word, int index) {
#ifdef WORKER_ORCD_EMULATOR
    return (int8_t)(word >> (8 * index));
#else
    int value;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(value) : "r"(word), "r"(0x8880 | 0x1110 * index | index));
    return value;
#endif
}

// The bytes of two words that the digits of `selector` name, the lowest first: 0..3 of `a`, 4..7 of `b`.
DEVICE uint32_t select_bytes(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef WORKER_ORCD_EMULATOR
    const uint64_t both = (uint64_t)b << 32 | a;
    uint32_t selected = 0;
    for (int i = 0; i < 4; i++) selected |= (uint32_t)(uint8_t)(both >> (selector >> (4 * i) & 7) * 8) << (8 * i);
    return selected;
#else
    return __byte_perm(a, b, selector);
#endif
}

// Of each of two halves the larger magnitude; what is not a number is larger than all.
DEVICE uint32_t larger_halves(uint32_t a, uint32_t b) {
#ifdef WORKER_ORCD_EMULATOR
    const uint32_t low = max(a & 0x7fff, b & 0x7fff), high = max(a & 0x7fff0000, b & 0x7fff0000);
    return high | low;
#else
    uint32_t larger;
    asm("{\n\t.reg .b32 a, b;\n\tabs.f16x2 a, %1;\n\tabs.f16x2 b, %2;\n\tmax.NaN.f16x2 %0, a, b;\n\t}"
        : "=r"(larger)
        : "r"(a), "r"(b));
    return larger;
#endif
}

// ---- integer products

// sum += Σ a[i] · b[i] over four bytes: a unsigned, b signed.
DEVICE int dot4_us(uint32_t a, uint32_t b, int sum) {
#ifdef WORKER_ORCD_EMULATOR
    for (int i = 0; i < 4; i++) sum += (int)(uint8_t)(a >> (8 * i)) * (int8_t)(b >> (8 * i));
    return sum;
#else
    int result;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
#endif
}

// The same with both unsigned.
DEVICE int dot4_uu(uint32_t a, uint32_t b, int sum) {
#ifdef WORKER_ORCD_EMULATOR
    for (int i = 0; i < 4; i++) sum += (int)(uint8_t)(a >> (8 * i)) * (uint8_t)(b >> (8 * i));
    return sum;
#else
    int result;
    asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
#endif
}

// The same with both signed.
DEVICE int dot4_ss(uint32_t a, uint32_t b, int sum) {
#ifdef WORKER_ORCD_EMULATOR
    for (int i = 0; i < 4; i++) sum += (int)(int8_t)(a >> (8 * i)) * (int8_t)(b >> (8 * i));
    return sum;
#else
    int result;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
#endif
}

// The upper word of a product of two words of 64 bits.
DEVICE uint64_t multiply_high(uint64_t a, uint64_t b) {
#ifdef WORKER_ORCD_EMULATOR
    return (uint64_t)((unsigned __int128)a * b >> 64);
#else
    return __umul64hi(a, b);
#endif
}

// Products of 8-bit integers on the tensor cores, exact: c[16][8] = a[16][K] · b[K][8]. PTX ISA, "Matrix fragments for
// mma.m16n8k32". With g = lane / 4 and t = lane % 4 a lane holds
//   a[0]: row g,     columns 4t .. 4t+3        a[2]: row g,     columns 16+4t .. 16+4t+3   (k32 alone)
//   a[1]: row g + 8, columns 4t .. 4t+3        a[3]: row g + 8, columns 16+4t .. 16+4t+3   (k32 alone)
//   b0:   column g,  rows 4t .. 4t+3           b1:   column g,  rows 16+4t .. 16+4t+3      (k32 alone)
//   c[0], c[1]: row g, columns 2t and 2t+1     c[2], c[3]: row g + 8, the same columns
// Every lane of the warp takes part. The last letters of a name: whether a and b are unsigned or signed.
DEVICE void mma_k32_us(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef WORKER_ORCD_EMULATOR
    emulator::multiply(emulator::Meeting::MmaK32us, c, a, b0, b1);
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
        : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(0));
#endif
}

DEVICE void mma_k32_ss(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef WORKER_ORCD_EMULATOR
    emulator::multiply(emulator::Meeting::MmaK32ss, c, a, b0, b1);
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
        : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(0));
#endif
}

// The same, added to what `sums` holds.
DEVICE void add_mma_k32_ss(int (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef WORKER_ORCD_EMULATOR
    int c[4];
    mma_k32_ss(c, a, b0, b1);
    for (int i = 0; i < 4; i++) sums[i] += c[i];
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

#ifdef WORKER_ORCD_EMULATOR
#define MMA_K16(types, kind)                                                                                           \
    const uint32_t a[4] = {a0, a1, 0, 0};                                                                              \
    emulator::multiply(emulator::Meeting::kind, c, a, b0, 0)
#else
#define MMA_K16(types, kind)                                                                                           \
    asm("mma.sync.aligned.m16n8k16.row.col.s32." types ".s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"             \
        : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])                                                               \
        : "r"(a0), "r"(a1), "r"(b0), "r"(0))
#endif
DEVICE void mma_k16_ss(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) { MMA_K16("s8.s8", MmaK16ss); }
DEVICE void mma_k16_us(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) { MMA_K16("u8.s8", MmaK16us); }
DEVICE void mma_k16_uu(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) { MMA_K16("u8.u8", MmaK16uu); }
#undef MMA_K16

// ---- warps: every lane of the warp takes part

// The value of the lane whose number differs in the bits of `mask`. T has 4 bytes.
template <typename T> DEVICE T shuffle_xor(T value, int mask) {
#ifdef WORKER_ORCD_EMULATOR
    return emulator::exchange(value, lane_index() ^ mask);
#else
    return __shfl_xor_sync(0xffffffffu, value, mask);
#endif
}

// The value of lane `lane`.
template <typename T> DEVICE T shuffle(T value, int lane) {
#ifdef WORKER_ORCD_EMULATOR
    return emulator::exchange(value, lane);
#else
    return __shfl_sync(0xffffffffu, value, lane);
#endif
}

// ---- memory

struct alignas(16) Words4 {
    uint32_t x, y, z, w;
};
struct alignas(8) Words2 {
    uint32_t x, y;
};

// 16 bytes that nothing writes while the kernel runs, read once: past the first-level cache where the GPU allows it.
DEVICE Words4 load_streaming(const Words4 *from) {
#ifdef WORKER_ORCD_EMULATOR
    return *from;
#else
    Words4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
#endif
}

// Copies 16 bytes from global to shared memory in the background; both addresses are multiples of 16.
DEVICE void copy_async(void *shared, const void *global) {
#ifdef WORKER_ORCD_EMULATOR
    emulator::copy_async(shared, global);
#else
    const uint32_t address = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
#endif
}

// Ends a group of this thread's copies.
DEVICE void copy_async_commit() {
#ifdef WORKER_ORCD_EMULATOR
    emulator::copy_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most PENDING of this thread's groups are under way. Other threads' copies need a barrier after it.
template <int PENDING> DEVICE void copy_async_wait() {
#ifdef WORKER_ORCD_EMULATOR
    emulator::copy_async_wait(PENDING);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

// ---- integer atomics: exact, so their order does not matter. What they leave is read behind a barrier where it is shared
// memory, and by a later kernel where it is global.

DEVICE void atomic_add(uint32_t *to, uint32_t value) {
#ifdef WORKER_ORCD_EMULATOR
    __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
#else
    atomicAdd(to, value);
#endif
}

DEVICE void atomic_add(uint64_t *to, uint64_t value) {
#ifdef WORKER_ORCD_EMULATOR
    __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
#else
    atomicAdd((unsigned long long *)to, (unsigned long long)value);
#endif
}

DEVICE void atomic_max(uint64_t *to, uint64_t value) {
#ifdef WORKER_ORCD_EMULATOR
    uint64_t found = __atomic_load_n(to, __ATOMIC_RELAXED);
    while (found < value && !__atomic_compare_exchange_n(to, &found, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
#else
    atomicMax((unsigned long long *)to, (unsigned long long)value);
#endif
}
