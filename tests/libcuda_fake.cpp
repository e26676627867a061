// A stand-in for NVIDIA's driver library, libcuda.so.1, without a GPU: pycuda and cuda-python run over it as they are.
//
// It counts what is taken. A stream does its work when it is waited for and no earlier; memory is full of rubbish when
// it is taken; every call wants a current context. What it does not have, the packages are told is not supported.

#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

enum Status {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

const std::map<int, std::pair<const char *, const char *>> NAMES = {
    {SUCCESS, {"CUDA_SUCCESS", "no error"}},
    {INVALID_VALUE, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {INVALID_DEVICE, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {INVALID_CONTEXT, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {INVALID_HANDLE, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {ILLEGAL_ADDRESS, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {CAPTURE_UNSUPPORTED,
     {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"}},
    {CAPTURE_INVALIDATED,
     {"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"}},
};

using Work = std::function<int()>;

struct Stream {
    unsigned flags;
    std::vector<Work> queue, captured;
    bool capturing = false, spoilt = false;
};

struct Event {
    Stream *stream = nullptr;
    size_t moment = 0;
};

struct Graph {
    std::vector<Work> work;
};

struct Held {
    std::string kind;
    size_t size;
};

const size_t CAPACITY = size_t(8) << 30;
const int THREAD_LOCAL = 1, NON_BLOCKING = 1, RUBBISH = 0xCB;
std::mutex guard;
std::map<const void *, Held> live;
size_t used = 0;
thread_local std::vector<void *> contexts;

void take(const void *thing, const char *kind, size_t size = 0) {
    std::lock_guard<std::mutex> lock(guard);
    live[thing] = {kind, size};
}

bool holds(const void *thing, const char *kind, size_t size = 0) {
    std::lock_guard<std::mutex> lock(guard);
    auto found = live.find(thing);
    return found != live.end() && found->second.kind == kind && found->second.size >= size;
}

template <typename Thing> int destroy(Thing *thing, const char *kind) {
    if (contexts.empty()) return INVALID_CONTEXT;
    if (!holds(thing, kind)) return INVALID_HANDLE;
    {
        std::lock_guard<std::mutex> lock(guard);
        live.erase(thing);
    }
    delete thing;
    return SUCCESS;
}

void *memory(const char *kind, size_t size) {
    void *taken = malloc(size);
    memset(taken, RUBBISH, size);
    take(taken, kind, size);
    return taken;
}

int give_back(void *taken, const char *kind) {
    if (contexts.empty()) return INVALID_CONTEXT;
    if (!holds(taken, kind)) return INVALID_VALUE;
    std::lock_guard<std::mutex> lock(guard);
    if (live[taken].kind == "buffer") used -= live[taken].size;
    live.erase(taken);
    free(taken);
    return SUCCESS;
}

int copy(void *to, const char *kind_to, const void *from, const char *kind_from, size_t size, Stream *stream) {
    if (contexts.empty()) return INVALID_CONTEXT;
    if (!holds(stream, "stream")) return INVALID_HANDLE;
    auto fits = [=] { return holds(to, kind_to, size) && holds(from, kind_from, size); };
    if (!fits()) return INVALID_VALUE;
    auto work = [=] {
        if (!fits()) return int(ILLEGAL_ADDRESS);
        memcpy(to, from, size);
        return int(SUCCESS);
    };
    (stream->capturing ? stream->captured : stream->queue).push_back(work);
    return SUCCESS;
}

}  // namespace

extern "C" {

// What tests ask.

int fake_live() {
    std::lock_guard<std::mutex> lock(guard);
    return int(live.size());
}

int fake_depth() { return int(contexts.size()); }

// What CUDA has.

int cuInit(unsigned) { return SUCCESS; }

int cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }

int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }

int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 ? SUCCESS : INVALID_DEVICE; }

int cuDeviceGetName(char *name, int size, int) { return strncpy(name, "Fake 4000", size), SUCCESS; }

int cuDeviceComputeCapability(int *major, int *minor, int) { return *major = 8, *minor = 9, SUCCESS; }

int cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : 0;
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *size, int) { return *size = CAPACITY, SUCCESS; }

int cuDevicePrimaryCtxRetain(void **context, int) { return *context = &live, SUCCESS; }

int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

int cuCtxPushCurrent_v2(void *context) { return contexts.push_back(context), SUCCESS; }

int cuCtxPopCurrent_v2(void **context) {
    if (contexts.empty()) return INVALID_CONTEXT;
    *context = contexts.back();
    contexts.pop_back();
    return SUCCESS;
}

int cuStreamCreate(Stream **stream, unsigned flags) {
    if (contexts.empty()) return INVALID_CONTEXT;
    take(*stream = new Stream{flags, {}, {}}, "stream");
    return SUCCESS;
}

int cuStreamDestroy_v2(Stream *stream) { return destroy(stream, "stream"); }

int cuStreamSynchronize(Stream *stream) {
    if (contexts.empty()) return INVALID_CONTEXT;
    if (!holds(stream, "stream")) return INVALID_HANDLE;
    if (stream->capturing) return stream->spoilt = true, CAPTURE_UNSUPPORTED;
    std::vector<Work> queue;
    queue.swap(stream->queue);
    for (auto &work : queue)
        if (int status = work()) return status;
    return SUCCESS;
}

int cuMemAlloc_v2(void **buffer, size_t size) {
    if (contexts.empty()) return INVALID_CONTEXT;
    if (used + size > CAPACITY) return OUT_OF_MEMORY;
    used += size;
    return *buffer = memory("buffer", size), SUCCESS;
}

int cuMemFree_v2(void *buffer) { return give_back(buffer, "buffer"); }

int cuMemHostAlloc(void **pinned, size_t size, unsigned) {
    if (contexts.empty()) return INVALID_CONTEXT;
    return *pinned = memory("pinned", size), SUCCESS;
}

int cuMemFreeHost(void *pinned) { return give_back(pinned, "pinned"); }

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    if (contexts.empty()) return INVALID_CONTEXT;
    return *free_bytes = CAPACITY - used, *total = CAPACITY, SUCCESS;
}

int cuMemcpyHtoDAsync_v2(void *buffer, const void *pinned, size_t size, Stream *stream) {
    return copy(buffer, "buffer", pinned, "pinned", size, stream);
}

int cuMemcpyDtoHAsync_v2(void *pinned, const void *buffer, size_t size, Stream *stream) {
    return copy(pinned, "pinned", buffer, "buffer", size, stream);
}

int cuEventCreate(Event **event, unsigned) {
    if (contexts.empty()) return INVALID_CONTEXT;
    take(*event = new Event, "event");
    return SUCCESS;
}

int cuEventDestroy_v2(Event *event) { return destroy(event, "event"); }

int cuEventRecord(Event *event, Stream *stream) {
    if (!holds(event, "event") || !holds(stream, "stream")) return INVALID_HANDLE;
    *event = {stream, stream->queue.size()};
    return SUCCESS;
}

int cuEventSynchronize(Event *event) { return cuStreamSynchronize(event->stream); }

// A millisecond for each piece of work between.
int cuEventElapsedTime(float *milliseconds, Event *first, Event *second) {
    return *milliseconds = float(second->moment) - float(first->moment), SUCCESS;
}

int cuEventElapsedTime_v2(float *milliseconds, Event *first, Event *second) {
    return cuEventElapsedTime(milliseconds, first, second);
}

int cuStreamBeginCapture_v2(Stream *stream, int mode) {
    if (contexts.empty()) return INVALID_CONTEXT;
    if (mode != THREAD_LOCAL || stream->flags != NON_BLOCKING) return INVALID_VALUE;
    stream->capturing = true, stream->spoilt = false;
    stream->captured.clear();
    return SUCCESS;
}

int cuStreamEndCapture(Stream *stream, Graph **graph) {
    if (!stream->capturing) return INVALID_VALUE;
    stream->capturing = false;
    if (stream->spoilt) return CAPTURE_INVALIDATED;
    take(*graph = new Graph{stream->captured}, "template");
    return SUCCESS;
}

int cuGraphInstantiateWithFlags(Graph **made, Graph *graph, unsigned long long) {
    if (!holds(graph, "template")) return INVALID_HANDLE;
    take(*made = new Graph{graph->work}, "graph");
    return SUCCESS;
}

int cuGraphDestroy(Graph *graph) { return destroy(graph, "template"); }

int cuGraphExecDestroy(Graph *graph) { return destroy(graph, "graph"); }

int cuGraphLaunch(Graph *graph, Stream *stream) {
    if (contexts.empty()) return INVALID_CONTEXT;
    if (!holds(graph, "graph") || !holds(stream, "stream")) return INVALID_HANDLE;
    stream->queue.insert(stream->queue.end(), graph->work.begin(), graph->work.end());
    return SUCCESS;
}

int cuGetErrorName(int status, const char **name) {
    auto found = NAMES.find(status);
    return *name = found == NAMES.end() ? "CUDA_ERROR_UNKNOWN" : found->second.first, SUCCESS;
}

int cuGetErrorString(int status, const char **words) {
    auto found = NAMES.find(status);
    return *words = found == NAMES.end() ? "unknown error" : found->second.second, SUCCESS;
}

// How cuda-python finds all of these.
int cuGetProcAddress_v2(const char *symbol, void **function, int, unsigned long long, int *found) {
    static void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    std::string name = symbol;
    if (name == "cuGraphInstantiate") name += "WithFlags";
    *function = nullptr;
    for (const char *version : {"_v2", ""})
        if (!*function) *function = dlsym(self, (name + version).c_str());
    if (found) *found = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}

int cuGetProcAddress(const char *symbol, void **function, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(symbol, function, version, flags, nullptr);
}

}  // extern "C"
