/* What the parts of the emulator know of each other. */
#ifndef MT_EMULATION_MACHINE_H
#define MT_EMULATION_MACHINE_H

#include "emulation/emulator.h"
#include "emulation/watch.h"

#include <cuda_runtime.h>

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <vector>

/* ---- errors ---- */

/* Keeps the first text. Inside a kernel it does not return: the launch is abandoned. */
void emu_report(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for what a sanitizer found: returns in any case. */
void emu_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

bool emu_has_error();
const char *emu_error_text(); /* the same that emu_take_error takes; NULL: none */

/* ---- order ---- */

uint64_t emu_random();
enum emu_order emu_order_of();
/* 0 .. n-1 as the chosen order has them. */
void emu_arrange(std::vector<int> *list, int n);

/* ---- memory: one range of addresses ---- */

const size_t EMU_ARENA_BYTES = size_t(1) << 36;
const size_t EMU_SHARED_PART = size_t(1) << 20; /* the beginning is the block's shared memory */

/* A time of one stream's work: `clock[s]` operations of stream s are known to be over. */
struct emu_operation {
    uint32_t first_run; /* of its blocks; first_run itself stands for several of them */
    int stream;
    uint64_t number; /* in its stream */
};

/* Who accesses, as the history has it. */
struct emu_actor {
    uint32_t run, first_run;
    int stream;
    int thread;                       /* in the block */
    uint64_t barriers, warp_barriers; /* passed so far */
    const std::vector<uint64_t> *clock;
};

void *emu_memory_allocate(size_t bytes); /* NULL: the emulated device is full */
bool emu_memory_free(void *memory);      /* false: no such allocation */
size_t emu_memory_bytes(void *memory);   /* of an allocation; 0: it is none */
bool emu_memory_is_device(const void *at);
/* Where the emulator itself finds what a program has at this address. */
void *emu_memory_inside(void *at);
const void *emu_memory_inside(const void *at);
bool emu_memory_is_allocated(const void *at, size_t bytes);
/* Addresses with zeros behind them, and the memory behind some given back: zeros again. */
void *emu_reserve(size_t bytes);
void emu_give_back(void *memory, size_t bytes, int how);
/* A device pointer can be followed only between these two. */
void emu_memory_open();
void emu_memory_close();
/* Around kernels, where there are guards: guards.cc. */
void emu_guards_begin();
void emu_guards_end();

/* ---- who watches it: history.cc, or bounds.cc for the sanitizers (watch.h) ---- */

void emu_watch_open(char *base);
/* [at, at + bytes); nobody has what follows, up to `end`. */
void emu_watch_allocated(char *at, size_t bytes, char *end);
void emu_watch_freed(char *at, size_t bytes);
/* Starts an operation whose blocks will take n_run numbers; returns the first. */
uint32_t emu_memory_begin(int stream, uint64_t number, uint32_t n_run);
/* False, and reported: out of bounds, not initialised, unordered, misaligned, not the device's. */
bool emu_memory_touch(const emu_actor *actor, const void *at, size_t bytes, bool is_write);
bool emu_memory_touch_atomic(const emu_actor *actor, const void *at, size_t bytes);

/* Shared memory of the block that runs: the beginning of the range. */
enum { EMU_SHARED_BYTES = 232448 }; /* what an H100 gives one block */
char *emu_shared_base();
/* Of [0, bytes): unknown values, in no declaration. */
void emu_shared_clear(size_t bytes);
/* Declares bytes [offset, offset + bytes). */
void emu_shared_declare(size_t offset, size_t bytes);

/* ---- blocks ---- */

struct emu_kernel {
    dim3 grid, block;
    size_t dynamic_bytes;
    std::function<void()> thread;
};
void emu_run_kernel(const emu_kernel *kernel, const std::vector<uint64_t> *clock, int stream,
                    uint64_t number);
/* The fiber that runs; NULL on the host. */
const emu_actor *emu_current();
bool emu_is_fiber_stack(const void *at);
[[noreturn]] void emu_abandon();

/* ---- matrix instructions, and copies that a thread does not wait for: matrix.cc ---- */

enum emu_matrix { EMU_MULTIPLY, EMU_LOAD, EMU_LOAD_TURNED };
/* By a lane of a warp that does it together; `given` stays where it is until then. */
void emu_matrix_operation(enum emu_matrix operation, const void *given);
/* given [32]: of all lanes. */
void emu_matrix_complete(enum emu_matrix operation, const void *const *given);
/* A thread's copies when it ends, which must be over; and when its block is given up. */
void emu_copies_end(int thread);
void emu_copies_forget(int thread);

/* ---- the device among others: cudart_device.cc ---- */

/* Whether so many bytes are free; they are taken then. */
bool emu_device_takes(size_t bytes);
void emu_device_gives(size_t bytes);
/* What work takes by the device's clock; 0: what it takes the emulator. */
int64_t emu_device_pace_ns();
int64_t emu_host_now_ns();
/* A device that is paced is not done before its own clock says so. */
bool emu_is_past(int64_t when_ns);

/* ---- pinned memory: pinned.cc ---- */

bool emu_is_pinned(const void *at, size_t bytes);

/* ---- streams ---- */

/* An operation of the stream that touches device memory as `actor`. */
void emu_enqueue(cudaStream_t stream, std::function<void(const emu_actor *)> work);
/* The same, once is_ready says so: what it waits for is another process. Others run meanwhile. */
void emu_enqueue_when(cudaStream_t stream, std::function<bool()> is_ready,
                      std::function<void(const emu_actor *)> work);
/* What takes no time: a mark, a wait. */
void emu_enqueue_mark(cudaStream_t stream, std::function<void(const emu_actor *)> work);
/* When what the stream has run was over, by the device's clock: that of CLOCK_MONOTONIC, but ahead
 * of it on a paced device, and only as far behind as its work is late. */
int64_t emu_stream_now_ns(cudaStream_t stream);
void emu_stream_delay(cudaStream_t stream, int64_t until_ns);
struct emu_counts *emu_counter();

/* ---- what can run beside what: work.cc ---- */

/* The operation of a stream that was enqueued last. */
struct emu_place {
    int stream;
    uint64_t number;
    std::vector<uint64_t> clock; /* what is over before it */
};
struct emu_place emu_last_of(cudaStream_t stream);
void emu_note_kernel();
void emu_note_copy();
void emu_note_product(cudaStream_t stream);
/* Its two operations, leaving and arriving, are the stream's last. */
void emu_note_transfer(cudaStream_t stream, int communicator, int64_t sent_bytes);

#endif
