/* The double of the CUDA runtime: strict and lazy. Work is only written down when it is enqueued;
 * it runs when the host waits for it, beside work of other streams that need not have run yet, in
 * the chosen order of streams. What orders two operations is followed exactly (clocks of streams,
 * passed on by events and waits), so a missing wait is found in any order (memory.cc). */
#include "emulation/machine.h"

#include <emulated_language.cuh>

#include <cstdlib>
#include <cstring>

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>

#include <unistd.h>

typedef std::vector<uint64_t> emu_clock;

struct emu_task {
    emu_clock clock; /* what must be over */
    uint64_t number;
    bool is_kernel;
    bool takes_time;     /* it is work, not a mark or a wait */
    int64_t enqueued_ns; /* by the host; on a paced device by its first call since it waited */
    emu_kernel kernel;
    std::function<void(const emu_actor *)> work;
    std::function<bool()> is_ready; /* none: as soon as its turn comes */
};

struct CUstream_st {
    int id;
    uint64_t number; /* operations enqueued so far */
    emu_clock clock; /* what events made it wait for */
    std::deque<emu_task> tasks;
    int64_t now_ns; /* when what has run was over, by the device's clock */
};

struct CUevent_st {
    CUstream_st *stream; /* NULL: never recorded */
    uint64_t number;
    emu_clock clock;
    bool is_timed;
    std::shared_ptr<int64_t> when; /* its stream came to it, when it was last recorded */
};

namespace
{
/* Threads of the host may call at once, as they may the runtime itself. A call that waits runs
 * kernels, so that it comes here again. */
std::recursive_mutex *turn()
{
    static std::recursive_mutex *only = new std::recursive_mutex();
    return only;
}
typedef std::lock_guard<std::recursive_mutex> in_turn;

/* Stream 0 is the host's own copies. */
struct runtime {
    std::vector<CUstream_st *> streams = {nullptr};
    emu_clock over = {0};       /* operations that have run, by stream */
    emu_clock host_clock = {0}; /* what the host has waited for */
    struct emu_counts counts = {0, 0, 0, 0};
    bool has_waited = true; /* nothing was enqueued since */
    int64_t enqueued_ns = 0;
};

runtime *rt()
{
    static runtime *only = new runtime();
    return only;
}

void join(emu_clock *clock, const emu_clock &other)
{
    clock->resize(std::max(clock->size(), other.size()));
    for (size_t i = 0; i < other.size(); i++) {
        (*clock)[i] = std::max((*clock)[i], other[i]);
    }
}

bool is_over(const emu_clock &clock)
{
    for (size_t i = 0; i < clock.size(); i++) {
        if (clock[i] > rt()->over[i]) {
            return false;
        }
    }
    return true;
}

/* What the task takes by the device's clock: what it takes the emulator, or as long as is asked
 * for. */
void pass_time(CUstream_st *stream, const emu_task &task)
{
    const int64_t pace_ns = emu_device_pace_ns();
    stream->now_ns =
        pace_ns == 0 ? emu_host_now_ns()
                     : std::max(stream->now_ns, task.enqueued_ns) + (task.takes_time ? pace_ns : 0);
}

void run(CUstream_st *stream)
{
    emu_task task = std::move(stream->tasks.front());
    stream->tasks.pop_front();
    pass_time(stream, task);
    if (task.is_kernel) {
        rt()->counts.n_launch++;
        emu_memory_open();
        emu_run_kernel(&task.kernel, &task.clock, stream->id, task.number);
        emu_memory_close();
    } else {
        const uint32_t first = emu_memory_begin(stream->id, task.number, 1);
        const emu_actor actor = {first + 1, first, stream->id, 0, 0, 0, &task.clock};
        task.work(&actor);
    }
    rt()->over[size_t(stream->id)] = task.number;
}

/* Runs one operation of any stream. False: none can run; *is_waiting: one waits for a peer. */
bool step(bool *is_waiting)
{
    std::vector<int> order;
    *is_waiting = false;
    emu_arrange(&order, int(rt()->streams.size()));
    for (const int i : order) {
        CUstream_st *next = rt()->streams[size_t(i)];
        if (next == nullptr || next->tasks.empty() || !is_over(next->tasks.front().clock)) {
            continue;
        }
        if (next->tasks.front().is_ready && !next->tasks.front().is_ready()) {
            *is_waiting = true;
            continue;
        }
        run(next);
        return true;
    }
    if (*is_waiting) {
        usleep(20); /* the peer may want this core */
    }
    return false;
}

/* Until `number` operations of the stream are over. */
void run_until(const CUstream_st *stream, uint64_t number)
{
    while (rt()->over[size_t(stream->id)] < number) {
        bool is_waiting = false;
        if (!step(&is_waiting) && !is_waiting) {
            emu_report("streams wait for each other");
            return;
        }
    }
}

/* Whether they are over; else one operation more is. */
bool has_run_until(const CUstream_st *stream, uint64_t number)
{
    bool is_waiting = false;
    if (rt()->over[size_t(stream->id)] < number && !step(&is_waiting) && !is_waiting) {
        emu_report("streams wait for each other");
    }
    return rt()->over[size_t(stream->id)] >= number;
}

cudaError_t verdict()
{
    return emu_has_error() ? cudaErrorLaunchFailure : cudaSuccess;
}

void enqueue(cudaStream_t stream, emu_task task)
{
    const in_turn lock(*turn());
    if (stream == nullptr) {
        emu_report("work on the default stream, which orders all others");
        return;
    }
    task.clock = stream->clock;
    join(&task.clock, rt()->host_clock);
    task.number = ++stream->number;
    if (task.is_kernel) {
        emu_note_kernel();
    }
    rt()->enqueued_ns = rt()->has_waited ? emu_host_now_ns() : rt()->enqueued_ns;
    rt()->has_waited = false;
    task.enqueued_ns = rt()->enqueued_ns;
    stream->tasks.push_back(std::move(task));
}

/* Whether both ends are where `kind` says. */
bool has_sides(const void *to, const void *from, enum cudaMemcpyKind kind)
{
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (emu_memory_is_device(to) != to_device || emu_memory_is_device(from) != from_device) {
        emu_report("a copy of kind %d from %s to %s memory", int(kind),
                   emu_memory_is_device(from) ? "device" : "host",
                   emu_memory_is_device(to) ? "device" : "host");
        return false;
    }
    return true;
}

void copy(const emu_actor *actor, void *to, const void *from, size_t bytes)
{
    bool is_right = true;
    rt()->counts.n_copy++;
    if (emu_memory_is_device(from)) {
        is_right = emu_memory_touch(actor, from, bytes, false);
    }
    if (is_right && emu_memory_is_device(to)) {
        is_right = emu_memory_touch(actor, to, bytes, true);
    }
    if (is_right) {
        std::memcpy(emu_memory_inside(to), emu_memory_inside(from), bytes);
    }
}
}  // namespace

struct emu_counts *emu_counter()
{
    return &rt()->counts;
}

/* ---- what the parts of the emulator enqueue ---- */

void emu_enqueue(cudaStream_t stream, std::function<void(const emu_actor *)> work)
{
    emu_task task = {};
    task.takes_time = true;
    task.work = std::move(work);
    enqueue(stream, std::move(task));
}

void emu_enqueue_mark(cudaStream_t stream, std::function<void(const emu_actor *)> work)
{
    emu_task task = {};
    task.work = std::move(work);
    enqueue(stream, std::move(task));
}

int64_t emu_stream_now_ns(cudaStream_t stream)
{
    return stream->now_ns;
}

void emu_stream_delay(cudaStream_t stream, int64_t until_ns)
{
    stream->now_ns = std::max(stream->now_ns, until_ns);
}

void emu_enqueue_when(cudaStream_t stream, std::function<bool()> is_ready,
                      std::function<void(const emu_actor *)> work)
{
    emu_task task = {};
    task.is_ready = std::move(is_ready);
    task.work = std::move(work);
    enqueue(stream, std::move(task));
}

struct emu_place emu_last_of(cudaStream_t stream)
{
    return {stream->id, stream->number, stream->tasks.back().clock};
}

void mt_emu_enqueue_kernel(dim3 grid, dim3 block, int64_t shared_bytes, cudaStream_t stream,
                           std::function<void()> thread)
{
    emu_task task = {};
    task.is_kernel = true;
    task.takes_time = true;
    task.kernel = {grid, block, size_t(shared_bytes), std::move(thread)};
    enqueue(stream, std::move(task));
}

/* ---- the runtime's symbols: memory ---- */

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    const in_turn lock(*turn());
    *memory = emu_device_takes(bytes) ? emu_memory_allocate(bytes) : nullptr;
    return *memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *memory)
{
    const in_turn lock(*turn());
    if (memory == nullptr) {
        return cudaSuccess;
    }
    cudaDeviceSynchronize();
    emu_device_gives(emu_memory_bytes(memory));
    if (!emu_memory_free(memory)) {
        emu_report("free of %p, which is no allocation", memory);
        return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    const in_turn lock(*turn());
    runtime *r = rt();
    if (!has_sides(to, from, kind)) {
        return cudaErrorInvalidValue;
    }
    const uint64_t number = ++r->host_clock[0];
    const uint32_t first = emu_memory_begin(0, number, 1);
    const emu_actor actor = {first + 1, first, 0, 0, 0, 0, &r->host_clock};
    r->over[0] = number;
    copy(&actor, to, from, bytes);
    return verdict();
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    const in_turn lock(*turn());
    if (!has_sides(to, from, kind)) {
        return cudaErrorInvalidValue;
    }
    for (const void *side : {static_cast<const void *>(to), from}) {
        if (!emu_memory_is_device(side) && !emu_is_pinned(side, bytes)) {
            emu_report("an asynchronous copy of host memory that is not pinned");
            return cudaErrorInvalidValue;
        }
    }
    emu_note_copy();
    emu_enqueue(stream, [=](const emu_actor *actor) { copy(actor, to, from, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    const in_turn lock(*turn());
    emu_note_copy();
    emu_enqueue(stream, [=](const emu_actor *actor) {
        if (emu_memory_touch(actor, memory, bytes, true)) {
            std::memset(emu_memory_inside(memory), value, bytes);
        }
    });
    return cudaSuccess;
}

/* ---- streams and events ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    const in_turn lock(*turn());
    runtime *r = rt();
    if (flags != cudaStreamNonBlocking) {
        emu_report("a stream that the default stream orders");
    }
    *stream = new CUstream_st{int(r->streams.size()), 0, {}, {}, 0};
    r->streams.push_back(*stream);
    r->over.push_back(0);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    const in_turn lock(*turn());
    if (!stream->tasks.empty()) {
        emu_report("a stream is destroyed with work that nobody waited for");
    }
    rt()->streams[size_t(stream->id)] = nullptr;
    delete stream;
    return verdict();
}

static cudaError_t know_over(const CUstream_st *stream)
{
    emu_clock clock = stream->clock;
    clock.resize(rt()->streams.size());
    clock[size_t(stream->id)] = stream->number;
    join(&rt()->host_clock, clock);
    rt()->has_waited = true;
    return verdict();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    const in_turn lock(*turn());
    rt()->counts.n_wait++;
    run_until(stream, stream->number);
    while (!emu_is_past(stream->now_ns) && !emu_has_error()) {
    }
    return know_over(stream);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    const in_turn lock(*turn());
    const bool is_over = has_run_until(stream, stream->number) && emu_is_past(stream->now_ns);
    return is_over || emu_has_error() ? know_over(stream) : cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    *event = new CUevent_st{nullptr, 0, {}, (flags & cudaEventDisableTiming) == 0, nullptr};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    const in_turn lock(*turn());
    if (event->is_timed || emu_device_pace_ns() > 0) {
        const std::shared_ptr<int64_t> when = std::make_shared<int64_t>(0);
        event->when = when;
        emu_enqueue_mark(stream, [=](const emu_actor *) { *when = stream->now_ns; });
    }
    event->stream = stream;
    event->number = stream->number;
    event->clock = stream->clock;
    join(&event->clock, rt()->host_clock);
    event->clock.resize(rt()->streams.size());
    event->clock[size_t(stream->id)] = stream->number;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    const in_turn lock(*turn());
    (void)flags;
    if (event->stream == nullptr) {
        emu_report("a stream waits for an event that was never recorded");
    }
    join(&stream->clock, event->clock);
    const std::shared_ptr<int64_t> when = event->when;
    emu_enqueue_mark(stream, [=](const emu_actor *) { /* waiting for the stream waits for it */
                                                      emu_stream_delay(stream,
                                                                       when == nullptr ? 0 : *when);
    });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    const in_turn lock(*turn());
    rt()->counts.n_wait++;
    if (event->stream != nullptr) {
        run_until(event->stream, event->number);
        while (event->when != nullptr && !emu_is_past(*event->when) && !emu_has_error()) {
        }
        join(&rt()->host_clock, event->clock);
    }
    return verdict();
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    const in_turn lock(*turn());
    if (event->stream != nullptr && !has_run_until(event->stream, event->number)) {
        return emu_has_error() ? verdict() : cudaErrorNotReady;
    }
    if (event->when != nullptr && !emu_is_past(*event->when)) {
        return cudaErrorNotReady;
    }
    join(&rt()->host_clock, event->clock);
    return verdict();
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    const in_turn lock(*turn());
    for (const CUevent_st *event : {start, end}) {
        if (!event->is_timed || event->stream == nullptr) {
            return cudaErrorInvalidValue;
        }
        if (rt()->over[size_t(event->stream->id)] < event->number) {
            return cudaErrorNotReady;
        }
    }
    *ms = float(1e-6 * double(*end->when - *start->when));
    return verdict();
}

cudaError_t cudaDeviceSynchronize(void)
{
    const in_turn lock(*turn());
    const std::vector<CUstream_st *> streams = rt()->streams;
    for (CUstream_st *stream : streams) {
        if (stream != nullptr) {
            cudaStreamSynchronize(stream);
        }
    }
    return verdict();
}

cudaError_t cudaGetLastError(void)
{
    return verdict();
}
