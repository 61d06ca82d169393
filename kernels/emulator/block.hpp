// The state of the block that a system thread runs.
#pragma once
#include "fiber.hpp"
#include "runtime.hpp"
#include <memory>
#include <vector>

namespace emulator {

constexpr uint32_t LANES = 32;
constexpr uint32_t MAX_THREADS = 1024;
constexpr uint32_t MAX_SHARED_BYTES = 227 << 10;

// A launch as Rust describes it (src/device/emulator.rs).
struct Launch {
    const Kernel *kernel;
    const void *params;
    uint32_t blocks[3];
    uint32_t threads, shared_bytes;
    uint32_t shuffled, poisoned;
    uint64_t seed;
};

// What lane and warp bring to a meeting, and take from it. Results are not overwritten before every lane has come
// to the next meeting, and so has read them.
struct Operands {
    uint32_t a[4], b0, b1;
};
struct Warp {
    Meeting meeting;
    uint32_t arrived;
    uint32_t values[LANES], from[LANES], exchanged[LANES];
    Operands operands[LANES];
    int products[LANES][4];
};

// products = a · b over the fragments that platform.cuh describes.
void multiply_fragments(Meeting kind, const Operands (&operands)[LANES], int (&products)[LANES][4]);

enum class State : uint8_t { Ready, AtWarp, AtBlock, AtBarrier, AtWarpgroup, Returned };

struct Copy {
    void *shared;
    const void *global;
    uint32_t group;
};

// A copy whose bytes count at a barrier.
struct BulkCopy {
    void *shared;
    const void *global;
    uint32_t bytes;
    uint64_t *arrived;
};

constexpr uint32_t WARPGROUP_THREADS = 128;

// What a thread brings to a product of its warpgroup: a[64][32] as the four warps hold it, where b[32][128] is, and its part
// of c[64][128].
struct WarpgroupProduct {
    uint32_t a[4];
    uint64_t b;
    bool adds, is_signed;
    int *c;
    uint32_t group;
};

// c = a · b, or c += a · b, over what the 128 threads bring and the columns of b.
void multiply_warpgroup_fragments(const WarpgroupProduct *const (&products)[WARPGROUP_THREADS], const int8_t (&b)[128][32]);

struct Thread {
    Stack stack;
    Context context;
    Index index;
    uint32_t number;
    State state;
    uint32_t group; // of copies, that is open
    std::vector<Copy> copies;
    const uint64_t *barrier; // that it waits for
    bool may_multiply;       // begin_products() came after all that was committed
    uint32_t product_group;  // of products, that is open
    std::vector<WarpgroupProduct> products;
};

// Threads that can run: each at most once.
class Queue {
  public:
    bool is_empty() const { return length == 0; }
    void clear() { length = 0; }
    void push_back(Thread *thread) { ring[(first + length++) % MAX_THREADS] = thread; }
    void push_front(Thread *thread) {
        first = (first + MAX_THREADS - 1) % MAX_THREADS;
        ring[first] = thread;
        length++;
    }
    Thread *pop_front() {
        Thread *thread = ring[first];
        first = (first + 1) % MAX_THREADS;
        length--;
        return thread;
    }

  private:
    Thread *ring[MAX_THREADS];
    uint32_t first = 0, length = 0;
};

// Shared memory of its own allocation, so that the address sanitizer sees its ends, and its address in the block's.
struct Shared {
    const char *tag;
    size_t bytes;
    uint32_t address;
    std::unique_ptr<uint8_t, void (*)(void *)> memory;
};

class Block {
  public:
    bool run(const Launch &launch, const uint32_t (&index)[3], char *error, size_t error_bytes);

    void synchronize();
    template <typename Finish> void meet(Meeting kind, Finish finish);
    uint32_t exchange(uint32_t value, uint32_t lane);
    void multiply(Meeting kind, int *c, const Operands &operands);
    uint8_t *shared(const char *tag, size_t bytes);
    uint8_t *dynamic();
    void copy(void *shared, const void *global);
    void commit();
    void wait(uint32_t pending);

    uint32_t address_of(const void *shared);
    void make_barrier(uint64_t *barrier, uint32_t count);
    void arrive_at(uint64_t *barrier, uint32_t announced_bytes);
    void wait_for(uint64_t *barrier, uint32_t parity);
    void copy_bulk(const BulkCopy &copy);
    void begin_products() { running->may_multiply = true; }
    void add_product(const WarpgroupProduct &product);
    void commit_products();
    void finish_products(uint32_t pending);

  private:
    [[noreturn]] static void enter();
    [[noreturn]] void finish_thread();
    void expect_nothing_under_way();
    [[noreturn]] void leave();
    [[noreturn]] [[gnu::format(printf, 2, 3)]] void fail(const char *format, ...);
    [[noreturn]] void fail_stuck();
    void prepare();
    void order_threads();
    void suspend(State state);
    void release(const uint32_t *numbers, uint32_t count, bool at_once);
    void finish(const BulkCopy &copy);
    void end_phase(uint64_t *barrier);
    void multiply_warpgroup(uint32_t first_thread, size_t index);
    const uint8_t *at_address(uint32_t address, size_t bytes);
    uint64_t random();
    Warp &warp() { return warps[running->number / LANES]; }

    const Launch *launch;
    char *error;
    size_t error_bytes;
    Context outside;
    Thread *running;
    uint32_t at_block, returned;
    uint64_t random_state;
    Queue ready;
    std::vector<std::unique_ptr<Thread>> threads;
    std::vector<Warp> warps;
    std::vector<uint32_t> order; // of threads: a warp's lanes stand together
    std::vector<Shared> allocations;
    size_t shared_bytes;
    std::vector<BulkCopy> bulk_copies;  // under way
    std::vector<uint32_t> at_warpgroup; // threads of each warpgroup that wait for products
};

// The block that this system thread runs.
Block &current_block();

} // namespace emulator
