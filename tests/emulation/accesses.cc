/* Accesses of kernels: what dev.cuh says of vectors and atomics, the compiler of all others. */
#include "emulation/fiber.h"
#include "emulation/machine.h"

#include <emulated_language.cuh>

int emu_watch(void)
{
    return MT_EMU_WATCH;
}

bool emu_has_guards(void)
{
    return MT_EMU_GUARDS != 0;
}

void mt_emu_touch(const void *at, size_t bytes, bool is_write, size_t alignment)
{
    const emu_actor *actor = emu_current();
    if (actor == nullptr) {
        return;
    }
    if (reinterpret_cast<uintptr_t>(at) % alignment != 0) {
        emu_report("%s of %zu bytes at %p, which is no multiple of %zu: misaligned",
                   is_write ? "write" : "read", bytes, at, alignment);
    }
    if (!emu_is_fiber_stack(at)) {
        emu_memory_touch(actor, at, bytes, is_write);
    }
}

void mt_emu_touch_atomic(const void *at, size_t bytes)
{
    const emu_actor *actor = emu_current();
    if (actor != nullptr && !emu_is_fiber_stack(at)) {
        emu_memory_touch_atomic(actor, at, bytes);
    }
}

#if MT_EMU_WATCH == MT_EMU_HISTORY
/* What the compiler calls before each access of instrumented code. */
#define EMU_ACCESS(bytes)                                   \
    extern "C" void __tsan_read##bytes(void *at)            \
    {                                                       \
        mt_emu_touch(at, bytes, false, bytes);              \
    }                                                       \
    extern "C" void __tsan_write##bytes(void *at)           \
    {                                                       \
        mt_emu_touch(at, bytes, true, bytes);               \
    }                                                       \
    extern "C" void __tsan_unaligned_read##bytes(void *at)  \
    {                                                       \
        mt_emu_touch(at, bytes, false, 1);                  \
    }                                                       \
    extern "C" void __tsan_unaligned_write##bytes(void *at) \
    {                                                       \
        mt_emu_touch(at, bytes, true, 1);                   \
    }
EMU_ACCESS(1)
EMU_ACCESS(2)
EMU_ACCESS(4)
EMU_ACCESS(8)
EMU_ACCESS(16)

extern "C" void __tsan_read_range(void *at, size_t bytes)
{
    mt_emu_touch(at, bytes, false, 1);
}
extern "C" void __tsan_write_range(void *at, size_t bytes)
{
    mt_emu_touch(at, bytes, true, 1);
}
extern "C" void __tsan_vptr_update(void **at, void *value)
{
    (void)at;
    (void)value;
}
extern "C" void __tsan_init(void)
{
}
extern "C" void __tsan_func_entry(void *caller)
{
    (void)caller;
}
extern "C" void __tsan_func_exit(void)
{
}
#endif
