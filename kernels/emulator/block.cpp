// Runs one block of a kernel on the calling system thread: a fiber for each CUDA thread, which goes on until it has to
// wait for others. A switch goes straight from fiber to fiber. What can never go on is an error, not a hang.
#include "block.hpp"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

namespace emulator {

constinit thread_local const Index *thread_index = nullptr;
constinit thread_local Place place = {};
static thread_local Block *current = nullptr;

// What lies below is the system's.
constexpr uint32_t FIRST_SHARED_ADDRESS = 1024;

// Unwritten memory: not a number as any float, -1 as any integer.
constexpr int POISON = 0xff;

bool Block::run(const Launch &of, const uint32_t (&index)[3], char *message, size_t message_bytes) {
    launch = &of;
    error = message;
    error_bytes = message_bytes;
    error[0] = 0;
    current = this;
    place = {{index[0], index[1], index[2]}, {of.blocks[0], of.blocks[1], of.blocks[2]}, {of.threads, 1, 1}};
    random_state = of.seed ^ ((uint64_t)index[2] << 48 | (uint64_t)index[1] << 32 | index[0]);
    prepare();
    running = ready.pop_front();
    thread_index = &running->index;
    switch_context(outside, running->context);
    allocations.clear();
    const bool went_well = error[0] == 0;
    if (!went_well) threads.clear(); // fibers that will never go on
    return went_well;
}

void Block::prepare() {
    const uint32_t count = launch->threads;
    while (threads.size() < count) threads.push_back(std::make_unique<Thread>());
    warps.resize(count / LANES);
    for (Warp &warp : warps) warp.arrived = 0;
    at_warpgroup.assign((count + WARPGROUP_THREADS - 1) / WARPGROUP_THREADS, 0);
    at_block = returned = 0;
    shared_bytes = 0;
    bulk_copies.clear();
    ready.clear();
    order_threads();
    for (const uint32_t number : order) {
        Thread &thread = *threads[number];
        thread.context = thread.stack.start(enter, number);
        thread.index = {number, 0, 0};
        thread.number = number;
        thread.state = State::Ready;
        thread.group = 0;
        thread.copies.clear();
        thread.may_multiply = false;
        thread.product_group = 0;
        thread.products.clear();
        ready.push_back(&thread);
    }
}

// Warps in order and their lanes in order, or both permuted.
void Block::order_threads() {
    const uint32_t count = launch->threads;
    order.resize(count);
    for (uint32_t i = 0; i < count; i++) order[i] = i;
    if (!launch->shuffled) return;
    std::vector<uint32_t> first(count / LANES);
    for (uint32_t i = 0; i < first.size(); i++) {
        const uint32_t other = random() % (i + 1);
        first[i] = first[other];
        first[other] = i * LANES;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t start = i - i % LANES, other = start + random() % (i % LANES + 1);
        order[i] = order[other];
        order[other] = first[i / LANES] + i % LANES;
    }
}

// SplitMix64.
uint64_t Block::random() {
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

void Block::enter() {
    arrive();
    current->launch->kernel->run(current->launch->params);
    current->finish_thread();
}

// A function of its own, whose frame is gone when the stack is left for good.
__attribute__((noinline)) void Block::expect_nothing_under_way() {
    if (!running->products.empty()) fail("returns while products are under way");
    if (returned == launch->threads && !bulk_copies.empty()) fail("returns while bulk copies are under way");
}

void Block::finish_thread() {
    returned++;
    expect_nothing_under_way();
    if (returned == launch->threads) leave();
    suspend(State::Returned);
    abort(); // nothing makes a thread that returned ready
}

void Block::leave() {
    switch_context(running->context, outside);
    abort(); // nothing comes back
}

void Block::fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int length = snprintf(error, error_bytes, "block (%u, %u, %u), thread %u: ", place.block.x, place.block.y,
                                place.block.z, running->number);
    vsnprintf(error + length, error_bytes - length, format, arguments);
    va_end(arguments);
    leave();
}

static const char *name_of(Meeting kind) {
    switch (kind) {
    case Meeting::Synchronize: return "__syncwarp";
    case Meeting::Exchange: return "a shuffle";
    default: return "a matrix product";
    }
}

void Block::fail_stuck() {
    const uint32_t n = launch->threads;
    for (size_t i = 0; i < warps.size(); i++) {
        const Warp &warp = warps[i];
        if (warp.arrived == 0) continue;
        fail("%s reached by %u of the 32 lanes of warp %zu; %u of %u threads wait at __syncthreads, %u have returned",
             name_of(warp.meeting), warp.arrived, i, at_block, n, returned);
    }
    for (size_t i = 0; i < at_warpgroup.size(); i++) {
        if (at_warpgroup[i] == 0) continue;
        fail("a wait for products reached by %u of the 128 threads of warpgroup %zu, %u of %u threads have returned",
             at_warpgroup[i], i, returned, n);
    }
    uint32_t at_barrier = 0;
    for (uint32_t i = 0; i < n; i++) at_barrier += threads[i]->state == State::AtBarrier;
    if (at_barrier != 0)
        fail("%u of %u threads wait at barriers in shared memory for a phase that does not end, %u wait at __syncthreads, "
             "%u have returned", at_barrier, n, at_block, returned);
    fail("__syncthreads reached by %u of %u threads, %u have returned", at_block, n, returned);
}

void Block::suspend(State state) {
    Thread &self = *running;
    self.state = state;
    if (ready.is_empty()) fail_stuck();
    running = ready.pop_front();
    thread_index = &running->index;
    switch_context(self.context, running->context);
}

// Makes threads ready, in their order: before all others, so that a warp goes on while its data are near, or after.
void Block::release(const uint32_t *numbers, uint32_t count, bool at_once) {
    for (uint32_t i = 0; i < count; i++) {
        Thread *thread = threads[numbers[at_once ? count - 1 - i : i]].get();
        if (thread == running) continue;
        thread->state = State::Ready;
        at_once ? ready.push_front(thread) : ready.push_back(thread);
    }
}

void Block::synchronize() {
    if (++at_block < launch->threads) return suspend(State::AtBlock);
    at_block = 0;
    release(order.data(), launch->threads, false);
}

// The last lane to arrive does what there is to do for all.
template <typename Finish> void Block::meet(Meeting kind, Finish finish) {
    Warp &warp = this->warp();
    if (warp.arrived != 0 && warp.meeting != kind)
        fail("comes to %s, other lanes of its warp to %s", name_of(kind), name_of(warp.meeting));
    warp.meeting = kind;
    if (++warp.arrived < LANES) return suspend(State::AtWarp);
    warp.arrived = 0;
    finish(warp);
    uint32_t lanes[LANES], start = 0;
    while (order[start] / LANES != running->number / LANES) start += LANES;
    memcpy(lanes, &order[start], sizeof lanes);
    release(lanes, LANES, !launch->shuffled || random() % 2);
}

uint32_t Block::exchange(uint32_t value, uint32_t lane) {
    Warp &warp = this->warp();
    const uint32_t own = running->number % LANES;
    warp.values[own] = value;
    warp.from[own] = lane % LANES;
    meet(Meeting::Exchange, [](Warp &warp) {
        for (uint32_t i = 0; i < LANES; i++) warp.exchanged[i] = warp.values[warp.from[i]];
    });
    return warp.exchanged[own];
}

void Block::multiply(Meeting kind, int *c, const Operands &operands) {
    Warp &warp = this->warp();
    const uint32_t own = running->number % LANES;
    warp.operands[own] = operands;
    meet(kind, [](Warp &warp) { multiply_fragments(warp.meeting, warp.operands, warp.products); });
    memcpy(c, warp.products[own], sizeof warp.products[own]);
}

uint8_t *Block::shared(const char *tag, size_t bytes) {
    for (const Shared &shared : allocations) {
        if (shared.tag == tag) return shared.memory.get();
    }
    shared_bytes += bytes;
    if (shared_bytes > MAX_SHARED_BYTES)
        fail("asks for %zu bytes of shared memory of %u", shared_bytes, MAX_SHARED_BYTES);
    void *memory = nullptr;
    if (posix_memalign(&memory, 16, bytes) != 0) fail("found no %zu bytes for shared memory", bytes);
    memset(memory, launch->poisoned ? POISON : 0, bytes);
    const uint32_t address = allocations.empty() ? FIRST_SHARED_ADDRESS
                                                 : allocations.back().address + (allocations.back().bytes + 15) / 16 * 16;
    allocations.push_back({tag, bytes, address, {static_cast<uint8_t *>(memory), free}});
    return static_cast<uint8_t *>(memory);
}

uint8_t *Block::dynamic() {
    static const char tag = 0;
    return shared(&tag, launch->shared_bytes);
}

// Copies are done when they are waited for, so that a wait that is missing shows; where the order is drawn, some are
// done at once, so that a copy over what others still read shows too.
void Block::copy(void *shared, const void *global) {
    if (((uintptr_t)shared | (uintptr_t)global) % 16 != 0) fail("copies between addresses that are no multiples of 16");
    if (launch->shuffled && random() % 2) {
        memcpy(shared, global, 16);
    } else {
        running->copies.push_back({shared, global, running->group});
    }
}

void Block::commit() { running->group++; }

void Block::wait(uint32_t pending) {
    std::vector<Copy> &copies = running->copies;
    size_t done = 0;
    while (done < copies.size() && copies[done].group + pending < running->group) {
        memcpy(copies[done].shared, copies[done].global, 16);
        done++;
    }
    copies.erase(copies.begin(), copies.begin() + (ptrdiff_t)done);
}

Block &current_block() { return *current; }

void synchronize_block() { current->synchronize(); }
void synchronize_warp() {
    current->meet(Meeting::Synchronize, [](Warp &) {});
}
uint32_t exchange_words(uint32_t value, uint32_t lane) { return current->exchange(value, lane); }
void multiply(Meeting kind, int *c, const uint32_t *a, uint32_t b0, uint32_t b1) {
    current->multiply(kind, c, {{a[0], a[1], a[2], a[3]}, b0, b1});
}
uint8_t *dynamic_shared() { return current->dynamic(); }
void *static_shared(const char *tag, size_t bytes) { return current->shared(tag, bytes); }
void copy_async(void *shared, const void *global) { current->copy(shared, global); }
void copy_async_commit() { current->commit(); }
void copy_async_wait(uint32_t pending) { current->wait(pending); }

} // namespace emulator

// Runs one block; answers whether it went well, else says why in `error`.
extern "C" bool emulator_run_block(const emulator::Launch *launch, const uint32_t (*index)[3], char *error,
                                   size_t error_bytes) {
    static thread_local const std::unique_ptr<emulator::Block> block = std::make_unique<emulator::Block>();
    return block->run(*launch, *index, error, error_bytes);
}

// Memory that no kernel may touch, such as what pads an allocation: the address sanitizer is told.
extern "C" void emulator_forbid([[maybe_unused]] const void *memory, [[maybe_unused]] size_t bytes) {
#ifdef ADDRESS_SANITIZER
    __asan_poison_memory_region(memory, bytes);
#endif
}
