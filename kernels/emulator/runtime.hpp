// The host's side of platform.cuh: what a kernel's text needs when it is compiled as C++ for the emulator. A block runs
// on one thread of the system; each of its CUDA threads is a fiber (fiber.hpp) that runs until it has to wait for others
// (block.cpp). Nothing here is shared between system threads.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <type_traits>

// Always inlined, as on a GPU: functions of one name in two files never meet.
#define DEVICE inline __attribute__((always_inline))
#define __align__(n) alignas(n)

#define threadIdx (*emulator::thread_index)
#define blockIdx (emulator::place.block)
#define blockDim (emulator::place.threads)
#define gridDim (emulator::place.blocks)

#define __syncthreads() emulator::synchronize_block()
#define __syncwarp() emulator::synchronize_warp()

// A kernel is a function and a row of the table that build/emulator.rs writes.
#define KERNEL(name, Params, THREADS, BLOCKS_PER_SM)                                                                   \
    static void name(const Params &p);                                                                                 \
    extern "C" const emulator::Kernel emulator_kernel_##name;                                                          \
    const emulator::Kernel emulator_kernel_##name = {                                                                  \
        #name, [](const void *params) { name(*static_cast<const Params *>(params)); }, THREADS, sizeof(Params),        \
        alignof(Params)};                                                                                              \
    static void name([[maybe_unused]] const Params &p)

#define KERNEL_AHEAD KERNEL

#define DYNAMIC_SHARED(name) uint8_t *const name = emulator::dynamic_shared()
// The tag's address stands for the declaration: each instance of a template has its own.
#define SHARED(type, name, extents)                                                                                    \
    static const char name##_tag = 0;                                                                                  \
    auto &name = *static_cast<type(*) extents>(emulator::static_shared(&name##_tag, sizeof(type extents)))

namespace emulator {

struct Index {
    uint32_t x, y, z;
};

struct Place {
    Index block, blocks, threads;
};

extern constinit thread_local const Index *thread_index;
extern constinit thread_local Place place;

struct Kernel {
    const char *name;
    void (*run)(const void *params);
    uint32_t max_threads, params_bytes, params_alignment;
};

// What the lanes of a warp meet for. Products are named after their columns and whether a and b are unsigned or signed.
enum class Meeting : uint32_t { Synchronize, Exchange, MmaK32us, MmaK32ss, MmaK16uu, MmaK16us, MmaK16ss };

void synchronize_block();
void synchronize_warp();
uint32_t exchange_words(uint32_t value, uint32_t lane);
void multiply(Meeting kind, int *c, const uint32_t *a, uint32_t b0, uint32_t b1);
uint8_t *dynamic_shared();
void *static_shared(const char *tag, size_t bytes);
void copy_async(void *shared, const void *global);
void copy_async_commit();
void copy_async_wait(uint32_t pending);

// Of hopper.cuh: barriers in shared memory, bulk copies, products of warpgroups (hopper.cpp).
uint32_t shared_address(const void *shared);
void make_barrier(uint64_t *barrier, uint32_t count);
void arrive_at(uint64_t *barrier, uint32_t announced_bytes);
void wait_for(uint64_t *barrier, uint32_t parity);
void copy_bulk(void *shared, const void *global, uint32_t bytes, uint64_t *arrived);
void begin_products();
void multiply_warpgroup(int (&c)[64], const uint32_t (&a)[4], uint64_t b, bool adds, bool is_signed);
void commit_products();
void wait_for_products(uint32_t pending);

template <typename To, typename From> To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

template <typename T> T exchange(T value, int lane) {
    return bit_cast<T>(exchange_words(bit_cast<uint32_t>(value), (uint32_t)lane));
}

// NaNs become the one that GPUs answer, in both directions.
inline float half_to_float(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) return bit_cast<float>(fraction ? 0x7fffffffu : sign | 0x7f800000u);
    if (exponent == 0) return copysignf((float)fraction * 0x1p-24f, bit_cast<float>(sign));
    return bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

inline uint16_t float_to_half(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffff;
    const uint16_t sign = bits >> 16 & 0x8000;
    if (magnitude > 0x7f800000) return 0x7fff;
    if (magnitude >= 0x477ff000) return sign | 0x7c00; // halfway beyond the largest half, or more
    if (magnitude < 0x38800000) {                      // subnormal: a multiple of 2^-24, rounded by the addition
        const float rounded = bit_cast<float>(magnitude) + 0.5f; // 0.5 has steps of 2^-24
        return sign | (uint16_t)(bit_cast<uint32_t>(rounded) - 0x3f000000);
    }
    const uint32_t odd = magnitude >> 13 & 1;
    return sign | (uint16_t)((magnitude - 0x38000000 + 0xfff + odd) >> 13);
}

} // namespace emulator

// Of CUDA's overloads the ones for integers; for floats there are fminf and fmaxf.
template <typename T> constexpr std::enable_if_t<std::is_integral_v<T>, T> min(T a, T b) { return b < a ? b : a; }
template <typename T> constexpr std::enable_if_t<std::is_integral_v<T>, T> max(T a, T b) { return a < b ? b : a; }
