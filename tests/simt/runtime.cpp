/* The runtime stand-in: see simt.h. Calls from several threads take turns. */
#include "runtime.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <time.h>
#include <vector>

#include "inside.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace
{

/* Work that has not been done yet. */
struct queue {
    std::deque<std::function<void()>> ops;
    uint64_t issued = 0, done = 0;
    bool running = false;
};
typedef std::shared_ptr<queue> queue_ref;

struct allocation {
    unsigned char *mapping;
    size_t mapped, bytes;
};

std::recursive_mutex turn;
std::map<void *, allocation> device_memory, pinned_memory;
std::vector<pd_simt_stream *> streams;
queue_ref default_queue = std::make_shared<queue>();
uint32_t live, open_depth;
uint64_t calls, fail_nth;
cudaError_t fail_with = cudaSuccess, last = cudaSuccess, sticky = cudaSuccess;
int fail_sticky;
char failure[640];
/* Dynamic shared memory that a kernel may take: what every kernel may, and what was asked for. */
const size_t SHARED_UNASKED = (size_t)48 << 10;
std::map<const void *, size_t> allowed_shared;
int device_count = 1, device_major = 9, device_minor = 0;

} // namespace

struct pd_simt_stream {
    queue_ref work = std::make_shared<queue>();
};
struct pd_simt_event {
    queue_ref where; /* null: never recorded */
    uint64_t seq = 0;
    double ms = 0;
};

namespace
{

cudaError_t say(cudaError_t error)
{
    if (error != cudaSuccess) last = error;
    return error;
}

/* Every call that can fail begins with it. */
cudaError_t begin_call()
{
    calls++;
    if (fail_nth > 0 && --fail_nth == 0) {
        if (fail_sticky) sticky = fail_with;
        return say(fail_with);
    }
    return say(sticky);
}
#define CALL()                                                                                               \
    std::lock_guard<std::recursive_mutex> hold(turn);                                                        \
    do {                                                                                                     \
        cudaError_t injected = begin_call();                                                                 \
        if (injected != cudaSuccess) return injected;                                                        \
    } while (0)

/* Device memory is readable while the device works, and else it is not. */
void protect(int rights)
{
    for (auto &entry : device_memory)
        if (mprotect(entry.second.mapping, entry.second.mapped, rights) != 0) abort();
}
void open_memory()
{
    if (open_depth++ == 0) protect(PROT_READ | PROT_WRITE);
}
void close_memory()
{
    if (--open_depth == 0) protect(PROT_NONE);
}

void drain(queue &q, uint64_t until)
{
    if (q.done >= until || q.ops.empty()) return;
    open_memory();
    while (q.done < until && !q.ops.empty()) {
        std::function<void()> op = std::move(q.ops.front());
        q.ops.pop_front();
        q.done++;
        if (sticky == cudaSuccess) op();
    }
    close_memory();
}

queue_ref queue_of(cudaStream_t stream)
{
    return stream ? stream->work : default_queue;
}

void enqueue(cudaStream_t stream, std::function<void()> op)
{
    queue_ref q = queue_of(stream);
    q->ops.push_back(std::move(op));
    q->issued++;
    /* Late is the rule; now and then work is done at once, as a fast device would. */
    if (open_depth == 0 && pd_simt_random() % 8 == 0) drain(*q, q->issued);
}

void drain_all()
{
    drain(*default_queue, default_queue->issued);
    for (pd_simt_stream *s : streams)
        drain(*s->work, s->work->issued);
}

double now_ms()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

bool inside(const std::map<void *, allocation> &memory, const void *at, size_t bytes)
{
    auto after = memory.upper_bound((void *)at);
    if (after == memory.begin()) return false;
    --after;
    size_t offset = (size_t)((const unsigned char *)at - (const unsigned char *)after->first);
    return offset < after->second.bytes + (bytes == 0) && bytes <= after->second.bytes - offset;
}

/* Does the copy stay within the allocations that its direction names? */
bool copy_fits(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool fits = (!from_device || inside(device_memory, from, bytes)) &&
                (!to_device || inside(device_memory, to, bytes)) &&
                (from_device || !inside(device_memory, from, 0)) &&
                (to_device || !inside(device_memory, to, 0));
    if (!fits) pd_simt_note("a copy of %zu bytes (kind %d) leaves its allocation", bytes, (int)kind);
    return fits;
}

} // namespace

void pd_simt_note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(failure, sizeof failure, format, args);
    va_end(args);
}

cudaError_t pd_simt_enqueue(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared,
                            cudaStream_t stream, std::function<void()> body)
{
    CALL();
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (threads == 0 || threads > 1024 || (uint64_t)grid.x * grid.y * grid.z == 0 || grid.y > 65535 ||
        grid.z > 65535 || shared > (size_t)227 << 10) {
        pd_simt_note("%s: %u x %u x %u blocks of %u x %u x %u threads, %zu bytes shared", name, grid.x,
                     grid.y, grid.z, block.x, block.y, block.z, shared);
        return say(cudaErrorInvalidConfiguration);
    }
    auto allowed = allowed_shared.find(kernel);
    if (shared > (allowed == allowed_shared.end() ? SHARED_UNASKED : allowed->second)) {
        pd_simt_note("%s: %zu bytes of dynamic shared memory, which nobody has asked for", name, shared);
        return say(cudaErrorInvalidValue);
    }
    enqueue(stream, [=] {
        if (!pd_simt_run(name, grid, block, shared, body)) sticky = cudaErrorLaunchFailure;
    });
    return cudaSuccess;
}

cudaError_t pd_simt_host_op(cudaStream_t stream, std::function<void()> op)
{
    CALL();
    enqueue(stream, std::move(op));
    return cudaSuccess;
}

cudaError_t pd_simt_allow_shared(const void *kernel, size_t bytes)
{
    CALL();
    if (bytes > (size_t)227 << 10) return say(cudaErrorInvalidValue);
    allowed_shared[kernel] = bytes > SHARED_UNASKED ? bytes : SHARED_UNASKED;
    return cudaSuccess;
}

/* -------------------------------------------------------------------------------------------------- errors --- */

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorInvalidValue:
        return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
        return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver:
        return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
        return "cudaErrorNoDevice";
    case cudaErrorInvalidResourceHandle:
        return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
        return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
        return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
    case cudaErrorUnknown:
        return "cudaErrorUnknown";
    }
    return "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t error)
{
    return failure[0] ? failure : cudaGetErrorName(error);
}
cudaError_t cudaGetLastError()
{
    std::lock_guard<std::recursive_mutex> hold(turn);
    cudaError_t error = last;
    last = sticky;
    return error;
}
cudaError_t cudaPeekAtLastError()
{
    std::lock_guard<std::recursive_mutex> hold(turn);
    return last;
}

/* ------------------------------------------------------------------------------------------------- device --- */

cudaError_t cudaGetDeviceCount(int *count)
{
    CALL();
    *count = device_count;
    return device_count > 0 ? cudaSuccess : say(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int ordinal)
{
    CALL();
    return ordinal >= 0 && ordinal < device_count ? cudaSuccess : say(cudaErrorInvalidValue);
}
cudaError_t cudaGetDevice(int *ordinal)
{
    CALL();
    *ordinal = 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int ordinal)
{
    CALL();
    if (ordinal < 0 || ordinal >= device_count) return say(cudaErrorInvalidValue);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "fibers on a CPU");
    prop->totalGlobalMem = (size_t)1 << 30;
    prop->sharedMemPerBlockOptin = (size_t)227 << 10;
    prop->major = device_major;
    prop->minor = device_minor;
    prop->multiProcessorCount = 3;
    prop->l2CacheSize = 1 << 20;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int)
{
    CALL();
    switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = 48 << 10;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = 3;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 1 << 20;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = 228 << 10;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = 227 << 10;
        break;
    }
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    CALL();
    *total = (size_t)1 << 30;
    *free = *total;
    for (auto &entry : device_memory)
        *free -= std::min(*free, entry.second.bytes);
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize()
{
    CALL();
    drain_all();
    return say(sticky);
}

/* ------------------------------------------------------------------------------------------------- memory --- */

#define PAGE    ((size_t)4096)
#define RUBBISH ((size_t)1 << 18) /* larger allocations stay untouched beyond this */

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    CALL();
    size_t room = (bytes + 255) / 256 * 256, mapped = (room + PAGE - 1) / PAGE * PAGE;
    if (bytes > (size_t)1 << 30) return say(cudaErrorMemoryAllocation);
    if (bytes == 0) {
        *out = nullptr;
        return cudaSuccess;
    }
    /* A page before and a page behind are never readable; the end of the memory is the end of a page. */
    void *mapping =
        mmap(nullptr, mapped + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return say(cudaErrorMemoryAllocation);
    allocation a = {(unsigned char *)mapping + PAGE, mapped, bytes};
    unsigned char *data = a.mapping + mapped - room;
    if (mprotect(a.mapping, mapped, PROT_READ | PROT_WRITE) != 0) abort();
    memset(data, 0xa5, std::min(bytes, RUBBISH));
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(data + bytes, room - bytes);
#endif
    if (open_depth == 0 && mprotect(a.mapping, mapped, PROT_NONE) != 0) abort();
    device_memory[data] = a;
    live++;
    *out = data;
    return cudaSuccess;
}
/* What gives back cannot be made to fail. */
cudaError_t cudaFree(void *data)
{
    std::lock_guard<std::recursive_mutex> hold(turn);
    if (!data) return cudaSuccess;
    drain_all();
    auto found = device_memory.find(data);
    if (found == device_memory.end()) return say(cudaErrorInvalidValue);
    const allocation &a = found->second;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(a.mapping, a.mapped);
#endif
    munmap(a.mapping - PAGE, a.mapped + 2 * PAGE);
    device_memory.erase(found);
    live--;
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    return cudaHostAlloc(out, bytes, cudaHostAllocDefault);
}
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned int)
{
    CALL();
    void *data = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!data) return say(cudaErrorMemoryAllocation);
    memset(data, 0xa5, std::min(bytes, RUBBISH));
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region((unsigned char *)data + bytes, (bytes + 63) / 64 * 64 + 64 - bytes);
#endif
    pinned_memory[data] = {(unsigned char *)data, (bytes + 63) / 64 * 64 + 64, bytes};
    live++;
    *out = data;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *data)
{
    std::lock_guard<std::recursive_mutex> hold(turn);
    if (!data) return cudaSuccess;
    drain_all();
    auto found = pinned_memory.find(data);
    if (found == pinned_memory.end()) return say(cudaErrorInvalidValue);
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(data, found->second.mapped);
#endif
    pinned_memory.erase(found);
    free(data);
    live--;
    return cudaSuccess;
}

/* Memory that is not pinned: a copy in has read it when the call returns, a copy out has written it. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    CALL();
    if (bytes == 0) return cudaSuccess;
    if (!copy_fits(to, from, bytes, kind)) return say(cudaErrorInvalidValue);
    if (kind == cudaMemcpyHostToDevice && !inside(pinned_memory, from, bytes)) {
        std::vector<unsigned char> now((const unsigned char *)from, (const unsigned char *)from + bytes);
        enqueue(stream, [=] { memcpy(to, now.data(), bytes); });
        return cudaSuccess;
    }
    enqueue(stream, [=] { memcpy(to, from, bytes); });
    if (kind == cudaMemcpyDeviceToHost && !inside(pinned_memory, to, bytes)) {
        queue_ref q = queue_of(stream);
        drain(*q, q->issued);
    }
    return say(sticky);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    std::lock_guard<std::recursive_mutex> hold(turn);
    cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    if (error != cudaSuccess) return error;
    drain(*default_queue, default_queue->issued);
    return say(sticky);
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    CALL();
    if (bytes == 0) return cudaSuccess;
    if (!inside(device_memory, to, bytes)) {
        pd_simt_note("a fill of %zu bytes leaves its allocation", bytes);
        return say(cudaErrorInvalidValue);
    }
    enqueue(stream, [=] { memset(to, value, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    return cudaMemsetAsync(to, value, bytes, nullptr);
}

/* ------------------------------------------------------------------------------------- streams and events --- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned int)
{
    CALL();
    *out = new pd_simt_stream();
    streams.push_back(*out);
    live++;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> hold(turn);
    drain(*stream->work, stream->work->issued);
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
    live--;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    CALL();
    queue_ref q = queue_of(stream);
    drain(*q, q->issued);
    return say(sticky);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned int)
{
    CALL();
    *out = new pd_simt_event();
    live++;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    std::lock_guard<std::recursive_mutex> hold(turn);
    if (event->where) drain(*event->where, event->seq);
    delete event;
    live--;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    CALL();
    event->where = queue_of(stream);
    event->seq = event->where->issued + 1;
    enqueue(stream, [=] { event->ms = now_ms(); });
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int)
{
    CALL();
    queue_ref where = event->where;
    uint64_t seq = event->seq;
    if (where) enqueue(stream, [=] { drain(*where, seq); });
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    CALL();
    if (event->where) drain(*event->where, event->seq);
    return say(sticky);
}
cudaError_t cudaEventQuery(cudaEvent_t event)
{
    CALL();
    return !event->where || event->where->done >= event->seq ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t first, cudaEvent_t second)
{
    CALL();
    if (!first->where || !second->where) return say(cudaErrorInvalidResourceHandle);
    if (first->where->done < first->seq || second->where->done < second->seq) return cudaErrorNotReady;
    *ms = (float)(second->ms - first->ms);
    return cudaSuccess;
}

/* ---------------------------------------------------------------------------------------------- for tests --- */

void pd_simt_fail_at(uint64_t nth, int error, int is_sticky)
{
    std::lock_guard<std::recursive_mutex> hold(turn);
    calls = 0;
    fail_nth = nth;
    fail_with = (cudaError_t)error;
    fail_sticky = is_sticky;
}
uint64_t pd_simt_calls()
{
    return calls;
}
void pd_simt_recover()
{
    std::lock_guard<std::recursive_mutex> hold(turn);
    drain_all();
    fail_nth = 0;
    sticky = last = cudaSuccess;
    failure[0] = '\0';
}
const char *pd_simt_failure()
{
    return failure;
}
uint32_t pd_simt_live()
{
    return live;
}
void pd_simt_devices(int count, int major, int minor)
{
    device_count = count;
    device_major = major;
    device_minor = minor;
}
