/* Memory of the emulated device. Addresses are never used twice, so that a pointer to freed memory
 * is found as one that is out of bounds. Who looks at accesses is in history.cc or bounds.cc. */
#include "emulation/machine.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace
{
const size_t page_bytes = 4096;
const size_t gap_bytes = 1024; /* between allocations: belongs to nobody */

struct arena {
    char *base;  /* the addresses that programs know */
    char *alias; /* the same memory, always open to the emulator */
    size_t used; /* handed out so far */
    bool is_open;
    std::map<char *, size_t> allocations;
    char text[512];
    bool has_error = false;
};

/* Of a file in memory, or of nothing (-1). */
void *reserve(size_t bytes, int protection, int file)
{
    const int kind = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *memory = mmap(nullptr, bytes, protection, kind | MAP_NORESERVE, file, 0);
    if (memory == MAP_FAILED) {
        std::fprintf(stderr, "the emulated device could not reserve %zu bytes of addresses\n",
                     bytes);
        std::abort();
    }
    return memory;
}

void protect(void *at, size_t bytes, int protection)
{
    if (mprotect(at, bytes, protection) != 0) {
        std::fprintf(stderr, "the emulated device could not protect %zu bytes\n", bytes);
        std::abort();
    }
}

arena *open_arena()
{
    arena *a = new arena();
    const int file = memfd_create("emulated device", 0);
    if (file < 0 || ftruncate(file, off_t(EMU_ARENA_BYTES)) != 0) {
        std::abort();
    }
    a->base = static_cast<char *>(reserve(EMU_ARENA_BYTES, PROT_NONE, file));
    a->alias = static_cast<char *>(
        reserve(EMU_ARENA_BYTES, MT_EMU_GUARDS ? PROT_NONE : PROT_READ | PROT_WRITE, file));
    protect(a->alias, EMU_SHARED_PART, PROT_READ | PROT_WRITE);
    a->used = EMU_SHARED_PART;
    close(file);
    emu_watch_open(a->base);
    return a;
}

arena *device()
{
    static arena *only = open_arena();
    return only;
}

/* The pages of an allocation that ends where they do, to within 16 bytes. */
char *first_page(const std::pair<char *const, size_t> &one)
{
    return one.first - reinterpret_cast<uintptr_t>(one.first) % page_bytes;
}

size_t pages_of(const std::pair<char *const, size_t> &one)
{
    const size_t bytes = size_t(one.first - first_page(one)) + one.second;
    return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

/* Opens or closes what programs see: all that is used, or with guards what is allocated. */
void protect_all(int protection)
{
    arena *a = device();
    protect(a->base, MT_EMU_GUARDS ? EMU_SHARED_PART : a->used, protection);
    for (const auto &one : a->allocations) {
        if (MT_EMU_GUARDS && one.second > 0) {
            protect(first_page(one), pages_of(one), protection);
        }
    }
}
}  // namespace

static void keep(const char *format, va_list arguments)
{
    arena *a = device();
    if (!a->has_error) {
        std::vsnprintf(a->text, sizeof(a->text), format, arguments);
        a->has_error = true;
    }
}

void emu_note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    keep(format, arguments);
    va_end(arguments);
}

void emu_report(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    keep(format, arguments);
    va_end(arguments);
    if (emu_current() != nullptr) {
        emu_abandon();
    }
}

bool emu_has_error()
{
    return device()->has_error;
}

const char *emu_error_text()
{
    return device()->has_error ? device()->text : nullptr;
}

const char *emu_take_error(void)
{
    arena *a = device();
    const bool had = a->has_error;
    a->has_error = false;
    return had ? a->text : nullptr;
}

void *emu_memory_allocate(size_t bytes)
{
    arena *a = device();
    const size_t gap = MT_EMU_GUARDS ? page_bytes : gap_bytes;
    const size_t unit = MT_EMU_GUARDS ? page_bytes : 256;
    const size_t body = (bytes + (MT_EMU_GUARDS ? 0 : gap) + unit - 1) / unit * unit;
    const size_t span = MT_EMU_GUARDS ? body + gap : body;
    if (bytes > EMU_ARENA_BYTES || a->used + span > EMU_ARENA_BYTES) {
        return nullptr;
    }
    const size_t before = MT_EMU_GUARDS ? (body - bytes) / 16 * 16 : 0;
    char *at = a->base + a->used + before;
    a->used += span;
    a->allocations[at] = bytes;
    if (MT_EMU_GUARDS && body > 0) {
        protect(a->alias + (at - a->base) - before, body, PROT_READ | PROT_WRITE);
    }
    emu_watch_allocated(at, bytes, a->base + a->used);
    return at;
}

/* Whole pages go back to the system and read as zeros then; what is left of others is cleared. */
void emu_give_back(void *memory, size_t bytes, int how)
{
    char *begin = static_cast<char *>(memory);
    char *end = begin + bytes;
    char *first =
        begin + (page_bytes - reinterpret_cast<uintptr_t>(begin) % page_bytes) % page_bytes;
    char *last = end - reinterpret_cast<uintptr_t>(end) % page_bytes;
    if (first >= last) {
        std::memset(begin, 0, bytes);
        return;
    }
    madvise(first, size_t(last - first), how);
    std::memset(begin, 0, size_t(first - begin));
    std::memset(last, 0, size_t(end - last));
}

bool emu_memory_free(void *memory)
{
    arena *a = device();
    const auto found = a->allocations.find(static_cast<char *>(memory));
    if (found == a->allocations.end()) {
        return false;
    }
    if (MT_EMU_GUARDS && found->second > 0) {
        madvise(emu_memory_inside(first_page(*found)), pages_of(*found), MADV_REMOVE);
        protect(emu_memory_inside(first_page(*found)), pages_of(*found), PROT_NONE);
    } else {
        emu_give_back(emu_memory_inside(memory), found->second, MADV_REMOVE);
    }
    emu_watch_freed(found->first, found->second);
    a->allocations.erase(found);
    return true;
}

size_t emu_memory_bytes(void *memory)
{
    const auto found = device()->allocations.find(static_cast<char *>(memory));
    return found == device()->allocations.end() ? 0 : found->second;
}

bool emu_memory_is_device(const void *at)
{
    const char *base = device()->base;
    return at >= base && at < base + EMU_ARENA_BYTES;
}

void *emu_memory_inside(void *at)
{
    arena *a = device();
    return emu_memory_is_device(at) ? a->alias + (static_cast<char *>(at) - a->base) : at;
}

const void *emu_memory_inside(const void *at)
{
    return emu_memory_inside(const_cast<void *>(at));
}

void emu_memory_open()
{
    arena *a = device();
    if (!a->is_open) {
        protect_all(PROT_READ | PROT_WRITE);
        if (MT_EMU_GUARDS) {
            emu_guards_begin();
        }
    }
    a->is_open = true;
}

void emu_memory_close()
{
    arena *a = device();
    if (a->is_open) {
        protect_all(PROT_NONE);
        if (MT_EMU_GUARDS) {
            emu_guards_end();
        }
    }
    a->is_open = false;
}

bool emu_memory_is_allocated(const void *at, size_t bytes)
{
    char *place = static_cast<char *>(const_cast<void *>(at));
    const auto next = device()->allocations.upper_bound(place);
    if (next == device()->allocations.begin()) {
        return false;
    }
    const auto found = std::prev(next);
    return place < found->first + found->second &&
           bytes <= size_t(found->first + found->second - place);
}

void *emu_reserve(size_t bytes)
{
    return reserve(bytes, PROT_READ | PROT_WRITE, -1);
}

char *emu_shared_base()
{
    return device()->base;
}
