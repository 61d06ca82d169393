#include "fiber.hpp"
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
constexpr size_t STACK_BYTES = 256 << 10;
#else
constexpr size_t STACK_BYTES = 64 << 10;
#endif

// Stores the callee-saved registers and the stack pointer, takes those of another context.
extern "C" void emulator_switch(void **save, void *go_on) asm("emulator_switch");

#if defined(__x86_64__)
asm(R"(
.text
.globl emulator_switch
emulator_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");
constexpr size_t SAVED_WORDS = 8; // six registers, the address to return to, and that function's own: none
constexpr size_t RETURN_WORD = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.globl emulator_switch
emulator_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
constexpr size_t SAVED_WORDS = 20;
constexpr size_t RETURN_WORD = 11;
#else
#error "the emulator's context switch is written for x86_64 and aarch64"
#endif

namespace emulator {

static thread_local Context *left = nullptr; // the context of the switch that is under way

static size_t page_bytes() {
    static const size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    return bytes;
}

Stack::Stack() {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *mapped = mmap(nullptr, page_bytes() + STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (mapped == MAP_FAILED || mprotect(mapped, page_bytes(), PROT_NONE) != 0) abort();
    memory = static_cast<char *>(mapped);
}

Stack::~Stack() {
#ifdef ADDRESS_SANITIZER
    __asan_unpoison_memory_region(memory + page_bytes(), STACK_BYTES); // of what ran here and was abandoned
#endif
    munmap(memory, page_bytes() + STACK_BYTES);
}

Context Stack::start(void (*entry)(), size_t number) {
    char *bottom = memory + page_bytes();
    const size_t colour = number % 32 * 320;
    void **words = reinterpret_cast<void **>(bottom + STACK_BYTES - colour) - SAVED_WORDS;
    for (size_t i = 0; i < SAVED_WORDS; i++) words[i] = nullptr;
    words[RETURN_WORD] = reinterpret_cast<void *>(entry);
    return {words, bottom, STACK_BYTES, nullptr};
}

#ifdef ADDRESS_SANITIZER
// The bounds of the system thread's own stack are first learnt here, from the switch away from it.
static void landed(void *fake_stack) {
    __sanitizer_finish_switch_fiber(fake_stack, &left->stack, &left->stack_bytes);
}
static void leaving(Context &from, Context &to) {
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
}
#else
static void landed(void *) {}
static void leaving(Context &, Context &) {}
#endif

void switch_context(Context &from, Context &to) {
    left = &from;
    leaving(from, to);
    emulator_switch(&from.stack_pointer, to.stack_pointer);
    landed(from.fake_stack);
}

void arrive() { landed(nullptr); }

} // namespace emulator
