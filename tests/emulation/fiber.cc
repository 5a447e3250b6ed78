#include "emulation/fiber.h"

#include "emulation/watch.h"

#include <cstdio>
#include <cstdlib>

#include <sys/mman.h>
#include <ucontext.h>

#if MT_EMU_WATCH == MT_EMU_ADDRESS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif MT_EMU_WATCH == MT_EMU_THREAD
#include <sanitizer/tsan_interface.h>
#endif

namespace
{
/* Instrumented frames are larger. */
enum { STACK_BYTES = (MT_EMU_WATCH == MT_EMU_ADDRESS ? 256 : 64) << 10 };

struct fiber {
    void *stack_pointer;
    void *known_as; /* by ThreadSanitizer, for which it is a thread for as long as possible */
};

struct pool {
    char *stacks;
    fiber fibers[EMU_MAX_THREAD];
    void *host; /* the scheduler's stack pointer */
    void *host_known_as;
    const void *host_stack; /* where AddressSanitizer has it */
    size_t host_bytes;
    void *host_fake;
};

/* Of n fibers, at this address unless it is NULL. */
char *reserve_stacks(char *at, int n)
{
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at != nullptr ? MAP_FIXED : 0);
    void *stacks = mmap(at, size_t(n) * STACK_BYTES, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (stacks == MAP_FAILED) {
        std::fprintf(stderr, "the emulated device could not reserve stacks\n");
        std::abort();
    }
    return static_cast<char *>(stacks);
}

pool *all()
{
    static pool *only = nullptr;
    if (only == nullptr) {
        only = new pool();
        only->stacks = reserve_stacks(nullptr, EMU_MAX_THREAD);
    }
    return only;
}

char *stack_of(int thread)
{
    return all()->stacks + size_t(thread) * STACK_BYTES;
}
}  // namespace

/* ---- switching stacks ---- */

#if defined(__x86_64__)
/* Saves what a call must keep, exchanges stacks. */
extern "C" void emu_switch(void **from, void *to);
asm(R"(
.text
.globl emu_switch
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, .-emu_switch
)");

static void *make_stack(char *end, void (*main)())
{
    void **top = reinterpret_cast<void **>(end) - 2; /* as after a call: rsp + 8 divides by 16 */
    top[0] = reinterpret_cast<void *>(main);
    return top - 6;
}
#else
/* Slower, and everywhere: a context a stack, kept at its end. */
static ucontext_t host_context;

static void emu_switch(void **from, void *to)
{
    ucontext_t *mine = static_cast<ucontext_t *>(*from);
    ucontext_t *other = static_cast<ucontext_t *>(to);
    swapcontext(mine == nullptr ? &host_context : mine, other == nullptr ? &host_context : other);
}

static void *make_stack(char *end, void (*main)())
{
    ucontext_t *context = reinterpret_cast<ucontext_t *>(end - sizeof(ucontext_t) - 64);
    getcontext(context);
    context->uc_stack.ss_sp = end - STACK_BYTES;
    context->uc_stack.ss_size = STACK_BYTES - sizeof(ucontext_t) - 64;
    context->uc_link = nullptr;
    makecontext(context, main, 0);
    return context;
}
#endif

/* ---- what sanitizers are told ---- */

#if MT_EMU_WATCH == MT_EMU_ADDRESS
static void switch_to_fiber(int thread)
{
    pool *p = all();
    __sanitizer_start_switch_fiber(&p->host_fake, stack_of(thread), STACK_BYTES);
    emu_switch(&p->host, p->fibers[thread].stack_pointer);
    __sanitizer_finish_switch_fiber(p->host_fake, nullptr, nullptr);
}

static void switch_to_host(int thread)
{
    pool *p = all();
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, p->host_stack, p->host_bytes);
    emu_switch(&p->fibers[thread].stack_pointer, p->host);
    __sanitizer_finish_switch_fiber(fake, &p->host_stack, &p->host_bytes);
}

static void note_entry()
{
    pool *p = all();
    __sanitizer_finish_switch_fiber(nullptr, &p->host_stack, &p->host_bytes);
}

/* Frames that nobody returns from have marked their stack: the first few of every fiber, and all of
 * one that is given up. */
static void note_begin(int thread)
{
    enum { FIRST_BYTES = 16 << 10 };
    ASAN_UNPOISON_MEMORY_REGION(stack_of(thread + 1) - FIRST_BYTES, FIRST_BYTES);
}

void emu_fiber_forget(int thread)
{
    ASAN_UNPOISON_MEMORY_REGION(stack_of(thread), STACK_BYTES);
}

#elif MT_EMU_WATCH == MT_EMU_THREAD
enum { ORDERS_NOTHING = 1 };

/* A switch orders nothing: barriers do (emu_order_give). A thread costs a millisecond to make, so
 * that a block's first thread is the same as the last block's; blocks are not told apart. */
static void switch_to_fiber(int thread)
{
    pool *p = all();
    fiber *f = &p->fibers[thread];
    if (f->known_as == nullptr) {
        f->known_as = __tsan_create_fiber(0);
    }
    p->host_known_as = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(f->known_as, ORDERS_NOTHING);
    emu_switch(&p->host, f->stack_pointer);
}

static void switch_to_host(int thread)
{
    pool *p = all();
    __tsan_switch_to_fiber(p->host_known_as, ORDERS_NOTHING);
    emu_switch(&p->fibers[thread].stack_pointer, p->host);
}

static void note_entry()
{
}

static void note_begin(int)
{
}

/* Calls that nobody returned from are still on its list, and accesses that nobody waited for in its
 * stack: both are made anew. */
void emu_fiber_forget(int thread)
{
    fiber *f = &all()->fibers[thread];
    if (f->known_as != nullptr) {
        __tsan_destroy_fiber(f->known_as);
        f->known_as = nullptr;
    }
    reserve_stacks(stack_of(thread), 1);
}

#else
static void switch_to_fiber(int thread)
{
    emu_switch(&all()->host, all()->fibers[thread].stack_pointer);
}

static void switch_to_host(int thread)
{
    emu_switch(&all()->fibers[thread].stack_pointer, all()->host);
}

static void note_entry()
{
}

static void note_begin(int)
{
}

void emu_fiber_forget(int)
{
}
#endif

void emu_order_give(void *key)
{
#if MT_EMU_WATCH == MT_EMU_THREAD
    __tsan_release(key);
#else
    (void)key;
#endif
}

void emu_order_take(void *key)
{
#if MT_EMU_WATCH == MT_EMU_THREAD
    __tsan_acquire(key);
#else
    (void)key;
#endif
}

/* ---- fibers ---- */

/* What the fiber that is resumed first is to run: there is one at a time. */
static void (*entry)();

static void enter()
{
    note_entry();
    entry();
}

void emu_fiber_begin(int thread, void (*main)())
{
    entry = main;
    note_begin(thread);
    all()->fibers[thread].stack_pointer = make_stack(stack_of(thread + 1), enter);
}

void emu_fiber_resume(int thread)
{
    switch_to_fiber(thread);
}

void emu_fiber_leave(int thread)
{
    switch_to_host(thread);
}

bool emu_is_fiber_stack(const void *at)
{
    const char *stacks = all()->stacks;
    return at >= stacks && at < stacks + size_t(EMU_MAX_THREAD) * STACK_BYTES;
}
