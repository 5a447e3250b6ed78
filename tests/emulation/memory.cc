/* Memory of the emulated device, and what is known of each of its words: whether it belongs to an
 * allocation, whether it was ever written, who wrote it last and who read it since. Addresses are
 * never used twice, so that a pointer to freed memory is found as one that is out of bounds. */
#include "emulation/machine.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <algorithm>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace
{
enum : uint32_t { OUTSIDE = 0, UNKNOWN = 1, FIRST_RUN = 16 };
/* Threads of a block are below 1024; then several threads of warp w, then these two. */
enum : uint64_t { SEVERAL_OF_WARP = 1024, ATOMIC = 2046, SEVERAL = 2047 };

struct moment {
    uint32_t run; /* of a block or copy; OUTSIDE, UNKNOWN */
    uint64_t thread : 11, barriers : 26, warp_barriers : 27;
};
struct word {
    moment write, read;
};

const size_t arena_bytes = size_t(1) << 36;
const size_t shared_part = size_t(1) << 20; /* the beginning is the block's shared memory */
const size_t gap_bytes = 1024;              /* between allocations: belongs to nobody */

struct arena {
    char *base;  /* the addresses that programs know */
    char *alias; /* the same memory, always open to the emulator */
    word *words;
    size_t used; /* handed out so far */
    bool is_open;
    std::map<char *, size_t> allocations;
    std::vector<emu_operation> operations;
    uint32_t next_run = FIRST_RUN;
    uint32_t known_run = 0; /* of the last operation that was looked up */
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

arena *open_arena()
{
    arena *a = new arena();
    const int file = memfd_create("emulated device", 0);
    if (file < 0 || ftruncate(file, off_t(arena_bytes)) != 0) {
        std::abort();
    }
    a->base = static_cast<char *>(reserve(arena_bytes, PROT_NONE, file));
    a->alias = static_cast<char *>(reserve(arena_bytes, PROT_READ | PROT_WRITE, file));
    a->words =
        static_cast<word *>(reserve(arena_bytes / 4 * sizeof(word), PROT_READ | PROT_WRITE, -1));
    a->used = shared_part;
    close(file);
    return a;
}

arena *device()
{
    static arena *only = open_arena();
    return only;
}

size_t first_word(const void *at)
{
    return size_t(static_cast<const char *>(at) - device()->base) / 4;
}

size_t end_word(const void *at, size_t bytes)
{
    return (size_t(static_cast<const char *>(at) - device()->base) + bytes + 3) / 4;
}

void mark(char *at, size_t bytes, uint32_t run)
{
    const word fresh = {{run, 0, 0, 0}, {OUTSIDE, 0, 0, 0}};
    std::fill(device()->words + first_word(at), device()->words + end_word(at, bytes), fresh);
}

const emu_operation *operation_of(uint32_t run)
{
    const std::vector<emu_operation> &list = device()->operations;
    const auto later =
        std::upper_bound(list.begin(), list.end(), run, [](uint32_t value, const emu_operation &o) {
            return value < o.first_run;
        });
    return &*(later - 1);
}

/* Whether what earlier operation `run` did is over for the actor's operation. */
bool is_ordered(const emu_actor *actor, uint32_t run)
{
    const emu_operation *o = operation_of(run);
    return o->stream == actor->stream || (size_t(o->stream) < actor->clock->size() &&
                                          o->number <= (*actor->clock)[size_t(o->stream)]);
}

/* Whether the moment of the same block is over for the actor, or the actor's own. */
bool is_behind_barrier(const emu_actor *actor, const moment &m)
{
    if (m.barriers != actor->barriers || m.thread == uint64_t(actor->thread)) {
        return true;
    }
    const bool is_one_warp = m.thread < SEVERAL_OF_WARP + 32;
    const uint64_t warp = m.thread < SEVERAL_OF_WARP ? m.thread / 32 : m.thread - SEVERAL_OF_WARP;
    return is_one_warp && warp == uint64_t(actor->thread) / 32 &&
           m.warp_barriers != actor->warp_barriers;
}

/* NULL: in order. */
const char *conflict(const emu_actor *actor, const moment &m)
{
    if (m.run < FIRST_RUN) {
        return nullptr;
    }
    if (m.run == actor->run) {
        return is_behind_barrier(actor, m) ? nullptr : "another thread, with no barrier between";
    }
    if (m.run >= actor->first_run) {
        return "another block of the launch";
    }
    return is_ordered(actor, m.run) ? nullptr : "an operation of another stream, not waited for";
}

moment now(const emu_actor *actor)
{
    return {actor->run, uint64_t(actor->thread), actor->barriers & ((1U << 26) - 1),
            actor->warp_barriers & ((1U << 27) - 1)};
}

void note_read(const emu_actor *actor, word *w)
{
    const moment me = now(actor);
    moment *r = &w->read;
    if (r->run < actor->first_run) {
        *r = me;
    } else if (r->run != actor->run) {
        r->run = actor->first_run; /* several blocks */
    } else if (r->barriers != me.barriers) {
        *r = me;
    } else if (r->thread != me.thread) {
        const uint64_t warp =
            r->thread < SEVERAL_OF_WARP ? r->thread / 32 : r->thread - SEVERAL_OF_WARP;
        const bool is_same = r->thread < ATOMIC && warp == me.thread / 32;
        *r = me;
        r->thread = is_same ? SEVERAL_OF_WARP + warp : uint64_t(SEVERAL);
    } else {
        *r = me;
    }
}

const char *place_of(const void *at)
{
    return static_cast<const char *>(at) < device()->base + shared_part ? "shared" : "global";
}

bool refuse(const emu_actor *actor, const void *at, bool is_write, const char *what)
{
    emu_report("%s of %s memory at +%zu by thread %d: %s", is_write ? "write" : "read",
               place_of(at), size_t(static_cast<const char *>(at) - device()->base), actor->thread,
               what);
    return false;
}

/* The common case by far: shared memory written before the last barrier, read by many since. */
inline bool is_read_again(const emu_actor *actor, const word *w)
{
    const uint64_t barriers = actor->barriers & ((1U << 26) - 1);
    return w->write.run == actor->run && w->write.barriers != barriers &&
           w->read.run == actor->run && w->read.barriers == barriers && w->read.thread == SEVERAL;
}

/* Words of an allocation that nobody touched have no history yet. */
bool is_allocated(const void *at)
{
    char *place = static_cast<char *>(const_cast<void *>(at));
    const auto next = device()->allocations.upper_bound(place);
    if (next == device()->allocations.begin()) {
        return false;
    }
    const auto found = std::prev(next);
    return place < found->first + found->second;
}

bool touch_word(const emu_actor *actor, word *w, const void *at, bool is_write)
{
    if (w->write.run == OUTSIDE && is_allocated(at)) {
        w->write.run = UNKNOWN;
    }
    if (w->write.run == OUTSIDE) {
        return refuse(actor, at, is_write, "out of bounds");
    }
    if (!is_write && w->write.run == UNKNOWN) {
        return refuse(actor, at, is_write, "not initialised");
    }
    const char *who = conflict(actor, w->write);
    if (who == nullptr && is_write) {
        who = conflict(actor, w->read);
    }
    if (who != nullptr) {
        char what[128];
        std::snprintf(what, sizeof(what), "a race with %s", who);
        return refuse(actor, at, is_write, what);
    }
    if (is_write) {
        w->write = now(actor);
    } else {
        note_read(actor, w);
    }
    return true;
}
}  // namespace

void emu_report(const char *format, ...)
{
    arena *a = device();
    if (!a->has_error) {
        va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(a->text, sizeof(a->text), format, arguments);
        va_end(arguments);
        a->has_error = true;
    }
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
    char *at = a->base + a->used;
    const size_t span = (bytes + gap_bytes + 255) / 256 * 256;
    if (bytes > arena_bytes || a->used + span > arena_bytes) {
        return nullptr;
    }
    a->used += span;
    a->allocations[at] = bytes;
    return at;
}

/* Whole pages go back to the system and read as zeros then; what is left of others is cleared. */
static void give_back(void *memory, size_t bytes, int how)
{
    const size_t page = 4096;
    char *begin = static_cast<char *>(memory);
    char *end = begin + bytes;
    char *first = begin + (page - reinterpret_cast<uintptr_t>(begin) % page) % page;
    char *last = end - reinterpret_cast<uintptr_t>(end) % page;
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
    give_back(emu_memory_inside(memory), found->second, MADV_REMOVE);
    word *words = a->words + first_word(memory);
    give_back(words, (end_word(memory, found->second) - first_word(memory)) * sizeof(word),
              MADV_DONTNEED);
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
    return at >= base && at < base + arena_bytes;
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
    if (!a->is_open && mprotect(a->base, a->used, PROT_READ | PROT_WRITE) != 0) {
        std::abort();
    }
    a->is_open = true;
}

void emu_memory_close()
{
    arena *a = device();
    if (a->is_open && mprotect(a->base, a->used, PROT_NONE) != 0) {
        std::abort();
    }
    a->is_open = false;
}

uint32_t emu_memory_begin(int stream, uint64_t number, uint32_t n_run)
{
    arena *a = device();
    const uint32_t first = a->next_run;
    a->next_run += n_run + 1;
    a->operations.push_back({first, stream, number});
    return first;
}

bool emu_memory_touch(const emu_actor *actor, const void *at, size_t bytes, bool is_write)
{
    arena *a = device();
    if (!emu_memory_is_device(at)) {
        emu_report("thread %d of a kernel %s host memory at %p", actor->thread,
                   is_write ? "writes" : "reads", at);
        return false;
    }
    const size_t end = end_word(at, bytes);
    for (size_t i = first_word(at); i < end; i++) {
        word *w = &a->words[i];
        const bool is_known = !is_write && is_read_again(actor, w);
        if (!is_known && !touch_word(actor, w, a->base + 4 * i, is_write)) {
            return false;
        }
    }
    return true;
}

/* Atomic operations of one launch do not race with each other, whoever does them. */
bool emu_memory_touch_atomic(const emu_actor *actor, const void *at, size_t bytes)
{
    arena *a = device();
    if (!emu_memory_is_device(at)) {
        return emu_memory_touch(actor, at, bytes, true);
    }
    for (size_t i = first_word(at); i < end_word(at, bytes); i++) {
        word *w = &a->words[i];
        const bool is_first = w->write.thread != ATOMIC || w->write.run < actor->first_run;
        if (w->write.run == UNKNOWN || is_first) {
            if (!touch_word(actor, w, at, false) || !touch_word(actor, w, at, true)) {
                return false;
            }
        }
        w->write = now(actor);
        w->write.thread = ATOMIC;
        const bool is_shared = static_cast<const char *>(at) < a->base + shared_part;
        w->write.run = is_shared ? actor->run : actor->first_run;
    }
    return true;
}

char *emu_shared_base()
{
    return device()->base;
}

void emu_shared_clear(size_t bytes)
{
    std::memset(device()->alias, 0xff, bytes); /* NaN, should a check be missed */
    mark(device()->base, bytes, OUTSIDE);
}

void emu_shared_declare(size_t offset, size_t bytes)
{
    mark(device()->base + offset, bytes, UNKNOWN);
}
