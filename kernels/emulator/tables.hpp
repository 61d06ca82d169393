// What build/emulator.rs lists of the kernels' sources, as Rust reads it (src/device/emulator.rs).
#pragma once
#include "runtime.hpp"

namespace emulator {

struct Field {
    const char *name;
    size_t offset;
};

// A parameter struct.
struct Layout {
    const char *name;
    size_t bytes;
    const Field *fields;
    size_t n_fields;
};

} // namespace emulator

extern "C" {
extern const emulator::Kernel *const emulator_kernels[];
extern const size_t emulator_kernel_count;
extern const emulator::Layout emulator_layouts[];
extern const size_t emulator_layout_count;
}
