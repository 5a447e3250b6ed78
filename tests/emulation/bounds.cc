/* In place of history.cc where a sanitizer watches kernels: it is told what is allocated, and
 * accesses that it does not see are looked at here. Its findings become the emulator's. */
#include "emulation/machine.h"

#include <cstring>

#if MT_EMU_WATCH == MT_EMU_ADDRESS
#include <sanitizer/asan_interface.h>
#elif MT_EMU_WATCH == MT_EMU_THREAD
extern "C" void __tsan_read_range(void *at, size_t bytes);
extern "C" void __tsan_write_range(void *at, size_t bytes);
extern "C" int __tsan_atomic32_fetch_add(volatile int *at, int value, int order);
#endif

static const char *place_of(const void *at)
{
    return !emu_memory_is_device(at)                                             ? "host"
           : static_cast<const char *>(at) < emu_shared_base() + EMU_SHARED_PART ? "shared"
                                                                                 : "global";
}

uint32_t emu_memory_begin(int, uint64_t, uint32_t n_run)
{
    static uint32_t next = 0;
    const uint32_t first = next;
    next += n_run + 1;
    return first;
}

/* ---- what the sanitizers say ---- */

#if MT_EMU_WATCH == MT_EMU_ADDRESS
/* With halt_on_error=0 the kernel goes on, else the process ends with the sanitizer's words. */
static void note_address(const char *)
{
    const void *at = __asan_get_report_address();
    emu_note("%s of %s memory: out of bounds",
             __asan_get_report_access_type() != 0 ? "write" : "read", place_of(at));
}

static void forbid(const void *at, size_t bytes)
{
    ASAN_POISON_MEMORY_REGION(at, bytes);
    ASAN_POISON_MEMORY_REGION(emu_memory_inside(at), bytes);
}

static void allow(const void *at, size_t bytes)
{
    ASAN_UNPOISON_MEMORY_REGION(at, bytes);
    ASAN_UNPOISON_MEMORY_REGION(emu_memory_inside(at), bytes);
}
#else
extern "C" void __tsan_on_report(void *)
{
    emu_note("a race with another thread, with no barrier between");
}

static void forbid(const void *, size_t)
{
}

static void allow(const void *, size_t)
{
}
#endif

void emu_watch_open(char *base)
{
#if MT_EMU_WATCH == MT_EMU_ADDRESS
    __asan_set_error_report_callback(note_address);
    ASAN_POISON_MEMORY_REGION(base, EMU_SHARED_PART);
#endif
    (void)base;
}

void emu_watch_allocated(char *at, size_t bytes, char *end)
{
    allow(at, bytes);
    forbid(at + bytes, size_t(end - at) - bytes);
}

void emu_watch_freed(char *at, size_t bytes)
{
    forbid(at, bytes);
}

/* ---- what they do not see ---- */

static bool is_inside(const void *at, size_t bytes)
{
    return emu_memory_is_allocated(at, bytes) || std::strcmp(place_of(at), "shared") == 0;
}

bool emu_memory_touch(const emu_actor *actor, const void *at, size_t bytes, bool is_write)
{
    const char *place = place_of(at);
    const char *what = is_write ? "write" : "read";
    if (!emu_memory_is_device(at)) {
        emu_report("thread %d of a kernel %ss host memory at %p", actor->thread, what, at);
        return false;
    }
    if (bytes > 0 && !is_inside(at, bytes)) {
        emu_report("%s of %s memory by thread %d: out of bounds", what, place, actor->thread);
        return false;
    }
#if MT_EMU_WATCH == MT_EMU_THREAD
    void *range = const_cast<void *>(at);
    if (is_write) {
        __tsan_write_range(range, bytes);
    } else {
        __tsan_read_range(range, bytes);
    }
#endif
    return true;
}

bool emu_memory_touch_atomic(const emu_actor *actor, const void *at, size_t bytes)
{
    if (!emu_memory_is_device(at) || !is_inside(at, bytes)) {
        return emu_memory_touch(actor, at, bytes, true);
    }
#if MT_EMU_WATCH == MT_EMU_THREAD
    __tsan_atomic32_fetch_add(static_cast<volatile int *>(const_cast<void *>(at)), 0,
                              __ATOMIC_RELAXED);
#endif
    return true;
}

void emu_shared_clear(size_t bytes)
{
    std::memset(emu_memory_inside(emu_shared_base()), 0xff, bytes);
#if MT_EMU_WATCH == MT_EMU_ADDRESS
    ASAN_POISON_MEMORY_REGION(emu_shared_base(), bytes);
#endif
}

void emu_shared_declare(size_t offset, size_t bytes)
{
#if MT_EMU_WATCH == MT_EMU_ADDRESS
    ASAN_UNPOISON_MEMORY_REGION(emu_shared_base() + offset, bytes);
#else
    (void)offset;
    (void)bytes;
#endif
}
