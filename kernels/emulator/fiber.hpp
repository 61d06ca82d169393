// Fibers: a stack each, and a switch from one to another.
#pragma once
#include <stddef.h>

namespace emulator {

// Somewhere that a system thread can be: its own stack, or a fiber's.
struct Context {
    void *stack_pointer = nullptr;
    const void *stack = nullptr; // lowest address
    size_t stack_bytes = 0;
    void *fake_stack = nullptr; // the address sanitizer's
};

// Memory for a fiber's stack above a page that faults.
class Stack {
  public:
    Stack();
    ~Stack();
    Stack(const Stack &) = delete;
    // A context in which `entry` is about to be called. Stacks with different numbers begin at different offsets of a
    // page, so that their hot lines do not share the cache's few ways.
    Context start(void (*entry)(), size_t number);

  private:
    char *memory;
};

// Leaves `from` and goes on where `to` was left; returns when something switches back to `from`.
void switch_context(Context &from, Context &to);
// Must be the first call of a fiber's `entry`: the second half of the switch to it.
void arrive();

} // namespace emulator
