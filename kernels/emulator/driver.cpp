// A stand-in for libcuda, for tests where there is no GPU: the functions of the driver that src/device/cuda calls, over the
// emulated kernels. It is as late as a driver may be: what is queued runs when somebody waits for it, so that memory which
// is overwritten or freed too early changes results. What a driver refuses it refuses.
//
// It is told what to be by the environment: WORKER_ORCD_STAND_IN_GPUS, _CAPABILITY (such as 90), _MEMORY (bytes), _RELEASE
// (of CUDA, such as 13000); and writes what was asked of it to the file _LOG.
#include "block.hpp"
#include "tables.hpp"
#include <functional>
#include <map>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>

extern "C" bool emulator_run_block(const emulator::Launch *launch, const uint32_t (*index)[3], char *error, size_t bytes);

namespace {

enum Result {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900,
};

const char *name_of(int result) {
    switch (result) {
    case SUCCESS: return "success";
    case INVALID_VALUE: return "invalid value";
    case OUT_OF_MEMORY: return "out of memory";
    case NO_DEVICE: return "no device";
    case INVALID_CONTEXT: return "invalid context";
    case ILLEGAL_ADDRESS: return "illegal address";
    case CAPTURE_UNSUPPORTED: return "not permitted while a stream is recorded";
    default: return "an error of the stand-in";
    }
}

uint64_t setting(const char *name, uint64_t otherwise) {
    const char *text = getenv((std::string("WORKER_ORCD_STAND_IN_") + name).c_str());
    return text ? strtoull(text, nullptr, 10) : otherwise;
}

// Whether a kernel is one that the image for sm_90a alone holds.
bool is_of_sm90a(const char *name) { return strncmp(name, "matmul_warpgroup_", 17) == 0; }

using Work = std::function<void()>;

struct Graph {
    std::vector<Work> launches;
};
struct Stream {
    std::vector<Work> queue;
    Graph *recording = nullptr;
};
struct Event {
    Stream *stream = nullptr;
    uint32_t pending = 0; // times that it stands in the stream's queue
};
struct Function {
    const emulator::Kernel *kernel;
    int most_dynamic = 48 << 10;
};

// All there is. Calls come from any thread.
struct Driver {
    std::recursive_mutex lock;
    std::map<uint64_t, uint64_t> allocations; // address to bytes
    uint64_t used = 0;
    int failed = SUCCESS; // for good
    uint64_t launches = 0, overlapped = 0, recorded = 0, replayed = 0, of_sm90a = 0;

    ~Driver() {
        const char *path = getenv("WORKER_ORCD_STAND_IN_LOG");
        FILE *file = path ? fopen(path, "w") : nullptr;
        if (file == nullptr) return;
        fprintf(file, "launches %llu\noverlapped %llu\nrecorded %llu\nreplayed %llu\nof_sm90a %llu\nallocations %zu\n",
                (unsigned long long)launches, (unsigned long long)overlapped, (unsigned long long)recorded,
                (unsigned long long)replayed, (unsigned long long)of_sm90a, allocations.size());
        fclose(file);
    }
    bool holds(uint64_t address, uint64_t bytes) const {
        auto after = allocations.upper_bound(address);
        if (after == allocations.begin()) return false;
        --after;
        return address - after->first <= after->second && bytes <= after->second - (address - after->first);
    }
    void run(Stream &stream, size_t count) {
        std::vector<Work> work(stream.queue.begin(), stream.queue.begin() + (ptrdiff_t)count);
        stream.queue.erase(stream.queue.begin(), stream.queue.begin() + (ptrdiff_t)count);
        for (const Work &each : work)
            if (failed == SUCCESS) each();
    }
};

Driver driver;
int context; // whose address is the only context's
thread_local void *current = nullptr;

// Holds the lock for a call, and says what speaks against it.
struct Call {
    std::lock_guard<std::recursive_mutex> guard{driver.lock};
    int refused() const { return driver.failed ? driver.failed : current == nullptr ? INVALID_CONTEXT : SUCCESS; }
};

// Queues work that a recording cannot hold.
int enqueue(Stream *stream, Work work) {
    if (stream->recording) return CAPTURE_UNSUPPORTED;
    stream->queue.push_back(std::move(work));
    return SUCCESS;
}

struct Attribute {
    uint32_t id, padding;
    int value;
    char rest[60];
};
struct Config {
    uint32_t blocks[3], threads[3], shared_bytes;
    Stream *stream;
    Attribute *attributes;
    uint32_t n_attributes;
};
constexpr uint32_t PROGRAMMATIC_STREAM_SERIALIZATION = 6;

int launch(const Config &config, Function *function, void **parameters) {
    const emulator::Kernel &kernel = *function->kernel;
    const uint32_t threads = config.threads[0];
    if (threads == 0 || threads > kernel.max_threads || threads % 32 != 0 || config.threads[1] * config.threads[2] != 1)
        return INVALID_VALUE;
    if (config.blocks[0] == 0 || config.blocks[1] - 1 > 65534 || config.blocks[2] - 1 > 65534) return INVALID_VALUE;
    if ((int)config.shared_bytes > function->most_dynamic) return INVALID_VALUE;
    const auto *bytes = static_cast<const uint8_t *>(parameters[0]);
    std::vector<uint64_t> params((kernel.params_bytes + 7) / 8);
    memcpy(params.data(), bytes, kernel.params_bytes);
    driver.launches++;
    driver.of_sm90a += is_of_sm90a(kernel.name);
    for (uint32_t i = 0; i < config.n_attributes; i++)
        driver.overlapped += config.attributes[i].id == PROGRAMMATIC_STREAM_SERIALIZATION && config.attributes[i].value;
    Work work = [=, &kernel, shared = config.shared_bytes, x = config.blocks[0], y = config.blocks[1], z = config.blocks[2]] {
        const emulator::Launch of = {&kernel, params.data(), {x, y, z}, threads, shared, 0, 1, 0};
        char error[512];
        for (uint64_t i = 0; i < (uint64_t)x * y * z; i++) {
            const uint32_t index[3] = {(uint32_t)(i % x), (uint32_t)(i / x % y), (uint32_t)(i / x / y)};
            if (emulator_run_block(&of, &index, error, sizeof error)) continue;
            fprintf(stderr, "%s: %s\n", kernel.name, error);
            driver.failed = ILLEGAL_ADDRESS;
            return;
        }
    };
    if (config.stream->recording) config.stream->recording->launches.push_back(std::move(work));
    else config.stream->queue.push_back(std::move(work));
    return SUCCESS;
}

} // namespace

extern "C" {

int cuInit(unsigned) { return setting("GPUS", 1) ? SUCCESS : NO_DEVICE; }
int cuDriverGetVersion(int *version) { return *version = (int)setting("RELEASE", 13000), SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = (int)setting("GPUS", 1), SUCCESS; }
int cuDeviceGet(int *device, int ordinal) {
    if ((uint64_t)ordinal >= setting("GPUS", 1)) return INVALID_DEVICE;
    return *device = ordinal, SUCCESS;
}
int cuDeviceGetName(char *name, int bytes, int) { return snprintf(name, (size_t)bytes, "stand-in"), SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    const int capability = (int)setting("CAPABILITY", 90);
    switch (attribute) {
    case 16: *value = 3; break;                           // multiprocessors
    case 36: *value = 1000000; break;                     // the memory's clock in kHz
    case 37: *value = 64; break;                          // and its bits
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    case 97: *value = (int)emulator::MAX_SHARED_BYTES; break; // of a block that asks for it
    default: *value = 0;
    }
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void **into, int) { return *into = &context, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxGetCurrent(void **into) { return *into = current, SUCCESS; }
int cuCtxSetCurrent(void *to) { return current = to, SUCCESS; }
int cuCtxSynchronize() { return Call().refused(); }

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    Call call;
    *total = setting("MEMORY", 8ull << 30);
    *free = *total - driver.used;
    return call.refused();
}
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    Call call;
    if (const int refused = call.refused()) return refused;
    void *memory = nullptr;
    if (bytes > setting("MEMORY", 8ull << 30) - driver.used || posix_memalign(&memory, 256, bytes)) return OUT_OF_MEMORY;
    memset(memory, 0xff, bytes); // a GPU's new memory holds anything
    driver.allocations[*address = (uint64_t)memory] = bytes;
    driver.used += bytes;
    return SUCCESS;
}
int cuMemFree_v2(uint64_t address) {
    Call call;
    const auto found = driver.allocations.find(address);
    if (found == driver.allocations.end()) return INVALID_VALUE;
    driver.used -= found->second;
    driver.allocations.erase(found);
    free((void *)address);
    return call.refused();
}
int cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
    return *memory = malloc(bytes), *memory ? SUCCESS : OUT_OF_MEMORY;
}
int cuMemFreeHost(void *memory) { return free(memory), SUCCESS; }
int cuMemsetD8Async(uint64_t address, unsigned char value, size_t bytes, Stream *stream) {
    Call call;
    if (!driver.holds(address, bytes)) return INVALID_VALUE;
    const int refused = call.refused();
    return refused ? refused : enqueue(stream, [=] { memset((void *)address, value, bytes); });
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, Stream *stream) {
    Call call;
    if (!driver.holds(to, bytes)) return INVALID_VALUE;
    const int refused = call.refused();
    return refused ? refused : enqueue(stream, [=] { memcpy((void *)to, from, bytes); });
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, Stream *stream) {
    Call call;
    if (!driver.holds(from, bytes)) return INVALID_VALUE;
    const int refused = call.refused();
    return refused ? refused : enqueue(stream, [=] { memcpy(to, (const void *)from, bytes); });
}

// Every kernel is in every module, but for those of one GPU: names decide.
int cuModuleLoadData(void **module, const void *image) { return *module = const_cast<void *>(image), SUCCESS; }
int cuModuleGetFunction(Function **function, void *, const char *name) {
    for (size_t i = 0; i < emulator_kernel_count; i++) {
        if (strcmp(emulator_kernels[i]->name, name) != 0) continue;
        if (is_of_sm90a(name) && setting("CAPABILITY", 90) != 90) break;
        return *function = new Function{emulator_kernels[i]}, SUCCESS; // kept like the module
    }
    return NOT_FOUND;
}
int cuFuncGetAttribute(int *value, int attribute, Function *) {
    // 5: the virtual architecture that it was compiled for; 1: shared memory of its own.
    return *value = attribute == 5 ? (int)setting("CAPABILITY", 90) : 0, SUCCESS;
}
int cuFuncSetAttribute(Function *function, int attribute, int value) {
    if (attribute == 8) function->most_dynamic = value;
    return SUCCESS;
}

int cuStreamCreate(Stream **stream, unsigned) { return *stream = new Stream, SUCCESS; }
int cuStreamDestroy_v2(Stream *stream) { return delete stream, SUCCESS; }
int cuStreamSynchronize(Stream *stream) {
    Call call;
    if (stream->recording) return CAPTURE_UNSUPPORTED;
    if (const int refused = call.refused()) return refused;
    driver.run(*stream, stream->queue.size());
    return driver.failed;
}
int cuEventCreate(Event **event, unsigned) { return *event = new Event, SUCCESS; }
int cuEventDestroy_v2(Event *event) { return delete event, SUCCESS; }
int cuEventRecord(Event *event, Stream *stream) {
    Call call;
    if (stream->recording) return CAPTURE_UNSUPPORTED;
    event->stream = stream;
    event->pending++;
    stream->queue.push_back([event] { event->pending--; });
    return call.refused();
}
int cuEventSynchronize(Event *event) {
    Call call;
    while (driver.failed == SUCCESS && event->pending > 0) driver.run(*event->stream, 1);
    return call.refused();
}

// Of releases from 12.8 on.
int cuEventElapsedTime_v2(float *milliseconds, Event *, Event *) {
    return *milliseconds = 1.0f, setting("RELEASE", 13000) < 12080 ? NOT_FOUND : SUCCESS;
}

int cuStreamBeginCapture_v2(Stream *stream, int) {
    Call call;
    if (stream->recording) return CAPTURE_UNSUPPORTED;
    return stream->recording = new Graph, call.refused();
}
int cuStreamEndCapture(Stream *stream, Graph **graph) {
    Call call;
    *graph = stream->recording;
    stream->recording = nullptr;
    return *graph ? SUCCESS : INVALID_VALUE;
}
int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long) {
    Call call;
    driver.recorded++;
    return *executable = new Graph(*graph), SUCCESS;
}
int cuGraphLaunch(Graph *graph, Stream *stream) {
    Call call;
    if (const int refused = call.refused()) return refused;
    driver.replayed++;
    stream->queue.insert(stream->queue.end(), graph->launches.begin(), graph->launches.end());
    return SUCCESS;
}
int cuGraphDestroy(Graph *graph) { return delete graph, SUCCESS; }
int cuGraphExecDestroy(Graph *graph) { return delete graph, SUCCESS; }

int cuLaunchKernel(Function *function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                   unsigned shared, Stream *stream, void **parameters, void **) {
    Call call;
    const Config config = {{x, y, z}, {tx, ty, tz}, shared, stream, nullptr, 0};
    const int refused = call.refused();
    return refused ? refused : launch(config, function, parameters);
}
int cuLaunchKernelEx(const Config *config, Function *function, void **parameters, void **) {
    Call call;
    const int refused = call.refused();
    return refused ? refused : launch(*config, function, parameters);
}

int cuGetErrorString(int error, const char **text) { return *text = name_of(error), SUCCESS; }
int cuGetErrorName(int error, const char **text) { return *text = name_of(error), SUCCESS; }

} // extern "C"
