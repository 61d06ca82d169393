// What hopper.cuh takes from a block: barriers in shared memory, bulk copies, products of warpgroups. All of it happens as late
// as it may: a copy when its barrier is waited for, a product with its reads of shared memory when it is waited for. A wait
// that is missing and memory that is overwritten too early then change results. Where the order is drawn, copies may also be
// early.
#include "block.hpp"
#include <string.h>

namespace emulator {

// A barrier's eight bytes.
struct BarrierState {
    uint16_t count, missing; // arrivals of a phase, and those still to come
    int32_t bytes : 31;      // announced and not there yet; below 0 where they were there first
    uint32_t parity : 1;     // of the phase
};
static_assert(sizeof(BarrierState) == sizeof(uint64_t));

static BarrierState load(const uint64_t *barrier) { return bit_cast<BarrierState>(*barrier); }
static void store(uint64_t *barrier, BarrierState state) { *barrier = bit_cast<uint64_t>(state); }

void Block::make_barrier(uint64_t *barrier, uint32_t count) {
    if (count == 0 || count > UINT16_MAX) fail("makes a barrier for %u arrivals", count);
    store(barrier, {(uint16_t)count, (uint16_t)count, 0, 0});
}

void Block::arrive_at(uint64_t *barrier, uint32_t announced_bytes) {
    BarrierState state = load(barrier);
    if (state.missing == 0) fail("arrives at a barrier in shared memory for which none is missing");
    state.missing--;
    state.bytes += (int32_t)announced_bytes;
    store(barrier, state);
    end_phase(barrier);
}

// Ends the phase if nothing is missing, and wakes those who wait for that.
void Block::end_phase(uint64_t *barrier) {
    BarrierState state = load(barrier);
    if (state.missing != 0 || state.bytes != 0) return;
    state.missing = state.count;
    state.parity ^= 1;
    store(barrier, state);
    std::vector<uint32_t> numbers;
    for (const uint32_t number : order)
        if (threads[number]->state == State::AtBarrier && threads[number]->barrier == barrier) numbers.push_back(number);
    release(numbers.data(), (uint32_t)numbers.size(), launch->shuffled && random() % 2);
}

void Block::wait_for(uint64_t *barrier, uint32_t parity) {
    for (size_t i = 0; i < bulk_copies.size();) {
        if (bulk_copies[i].arrived != barrier) {
            i++;
            continue;
        }
        const BulkCopy copy = bulk_copies[i];
        bulk_copies.erase(bulk_copies.begin() + (ptrdiff_t)i);
        finish(copy);
    }
    while (load(barrier).parity == (parity & 1)) {
        running->barrier = barrier;
        suspend(State::AtBarrier);
    }
}

void Block::copy_bulk(const BulkCopy &copy) {
    if (((uintptr_t)copy.shared | (uintptr_t)copy.global | copy.bytes) % 16 != 0)
        fail("copies %u bytes between addresses, of which something is no multiple of 16", copy.bytes);
    // A thread that waits already gets its bytes at once, as nobody else will ask for them.
    bool is_awaited = false;
    for (const uint32_t number : order)
        is_awaited |= threads[number]->state == State::AtBarrier && threads[number]->barrier == copy.arrived;
    if (is_awaited || (launch->shuffled && random() % 2)) finish(copy);
    else bulk_copies.push_back(copy);
}

void Block::finish(const BulkCopy &copy) {
    memcpy(copy.shared, copy.global, copy.bytes);
    BarrierState state = load(copy.arrived);
    state.bytes -= (int32_t)copy.bytes;
    store(copy.arrived, state);
    end_phase(copy.arrived);
}

uint32_t Block::address_of(const void *shared) {
    for (const Shared &of : allocations) {
        const ptrdiff_t offset = static_cast<const uint8_t *>(shared) - of.memory.get();
        if (offset >= 0 && (size_t)offset < of.bytes) return of.address + (uint32_t)offset;
    }
    fail("takes the address of what is no shared memory");
}

const uint8_t *Block::at_address(uint32_t address, size_t bytes) {
    for (const Shared &of : allocations) {
        if (address >= of.address && address - of.address + bytes <= of.bytes) return of.memory.get() + (address - of.address);
    }
    fail("multiplies with %zu bytes at %u, which are no shared memory", bytes, address);
}

// The results are not there before they are waited for.
void Block::add_product(const WarpgroupProduct &product) {
    if (!running->may_multiply) fail("multiplies without begin_products() after what was committed");
    running->products.push_back(product);
    running->products.back().group = running->product_group;
    if (!product.adds) memset(product.c, 0xff, 64 * sizeof(int));
}

void Block::commit_products() {
    running->product_group++;
    running->may_multiply = false;
}

// The last of the warpgroup to arrive makes the products for all.
void Block::finish_products(uint32_t pending) {
    Thread &self = *running;
    const uint32_t warpgroup = self.number / WARPGROUP_THREADS, first = warpgroup * WARPGROUP_THREADS;
    if (first + WARPGROUP_THREADS > launch->threads) fail("is in no whole warpgroup");
    size_t done = 0;
    while (done < self.products.size() && self.products[done].group + pending < self.product_group) done++;
    if (++at_warpgroup[warpgroup] < WARPGROUP_THREADS) {
        suspend(State::AtWarpgroup);
    } else {
        at_warpgroup[warpgroup] = 0;
        for (size_t i = 0; i < done; i++) multiply_warpgroup(first, i);
        uint32_t numbers[WARPGROUP_THREADS], count = 0;
        for (const uint32_t number : order)
            if (number / WARPGROUP_THREADS == warpgroup) numbers[count++] = number;
        release(numbers, count, !launch->shuffled || random() % 2);
    }
    self.products.erase(self.products.begin(), self.products.begin() + (ptrdiff_t)done);
}

// Makes the warpgroup's product number `index`: reads its second operand as the descriptor says.
void Block::multiply_warpgroup(uint32_t first_thread, size_t index) {
    const WarpgroupProduct *products[WARPGROUP_THREADS];
    for (uint32_t i = 0; i < WARPGROUP_THREADS; i++) {
        const Thread &thread = *threads[first_thread + i];
        if (index >= thread.products.size()) fail("waits for a product that thread %u has no part in", first_thread + i);
        products[i] = &thread.products[index];
        const bool agrees = products[i]->b == products[0]->b && products[i]->adds == products[0]->adds &&
                            products[i]->is_signed == products[0]->is_signed;
        if (!agrees) fail("multiplies other matrices than the first thread of its warpgroup");
    }
    const uint64_t descriptor = products[0]->b;
    const auto field = [&](int bit) { return (uint32_t)(descriptor >> bit & 0x3fff) << 4; };
    const uint32_t start = field(0), along_k = field(16), along_columns = field(32);
    if (descriptor >> 46 != 0) fail("multiplies with a matrix in swizzled order, which the emulator has not");
    int8_t b[128][32];
    for (uint32_t column = 0; column < 128; column++) {
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t address = start + column / 8 * along_columns + half * along_k + column % 8 * 16;
            memcpy(&b[column][16 * half], at_address(address, 16), 16);
        }
    }
    multiply_warpgroup_fragments(products, b);
}

uint32_t shared_address(const void *shared) { return current_block().address_of(shared); }
void make_barrier(uint64_t *barrier, uint32_t count) { current_block().make_barrier(barrier, count); }
void arrive_at(uint64_t *barrier, uint32_t announced_bytes) { current_block().arrive_at(barrier, announced_bytes); }
void wait_for(uint64_t *barrier, uint32_t parity) { current_block().wait_for(barrier, parity); }
void copy_bulk(void *shared, const void *global, uint32_t bytes, uint64_t *arrived) {
    current_block().copy_bulk({shared, global, bytes, arrived});
}
void begin_products() { current_block().begin_products(); }
void multiply_warpgroup(int (&c)[64], const uint32_t (&a)[4], uint64_t b, bool adds, bool is_signed) {
    current_block().add_product({{a[0], a[1], a[2], a[3]}, b, adds, is_signed, c, 0});
}
void commit_products() { current_block().commit_products(); }
void wait_for_products(uint32_t pending) { current_block().finish_products(pending); }

} // namespace emulator
