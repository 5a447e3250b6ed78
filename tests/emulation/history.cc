/* The history of each word of device and shared memory: whether it was ever written, who wrote it
 * last and who read it since. Answers the calls that the compiler puts before accesses of kernels
 * when it is told to instrument for ThreadSanitizer (accesses.cc). */
#include "emulation/machine.h"

#include <cstdio>
#include <cstring>

#include <algorithm>
#include <sys/mman.h>

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

/* Of every word from the first that the device can have. */
struct history {
    const char *base;
    word *words;
    std::vector<emu_operation> operations;
    uint32_t next_run = FIRST_RUN;
};

history *known()
{
    static history *only = nullptr;
    if (only == nullptr) {
        only = new history();
        only->words = static_cast<word *>(emu_reserve(EMU_ARENA_BYTES / 4 * sizeof(word)));
    }
    return only;
}

size_t first_word(const void *at)
{
    return size_t(static_cast<const char *>(at) - known()->base) / 4;
}

size_t end_word(const void *at, size_t bytes)
{
    return (size_t(static_cast<const char *>(at) - known()->base) + bytes + 3) / 4;
}

void mark(const char *at, size_t bytes, uint32_t run)
{
    const word fresh = {{run, 0, 0, 0}, {OUTSIDE, 0, 0, 0}};
    std::fill(known()->words + first_word(at), known()->words + end_word(at, bytes), fresh);
}

const emu_operation *operation_of(uint32_t run)
{
    const std::vector<emu_operation> &list = known()->operations;
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
    return static_cast<const char *>(at) < known()->base + EMU_SHARED_PART ? "shared" : "global";
}

bool refuse(const emu_actor *actor, const void *at, bool is_write, const char *what)
{
    emu_report("%s of %s memory at +%zu by thread %d: %s", is_write ? "write" : "read",
               place_of(at), size_t(static_cast<const char *>(at) - known()->base), actor->thread,
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

bool touch_word(const emu_actor *actor, word *w, const void *at, bool is_write)
{
    if (w->write.run == OUTSIDE && emu_memory_is_allocated(at, 1)) {
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

uint32_t emu_memory_begin(int stream, uint64_t number, uint32_t n_run)
{
    history *a = known();
    const uint32_t first = a->next_run;
    a->next_run += n_run + 1;
    a->operations.push_back({first, stream, number});
    return first;
}

bool emu_memory_touch(const emu_actor *actor, const void *at, size_t bytes, bool is_write)
{
    history *a = known();
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
    history *a = known();
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
        const bool is_shared = static_cast<const char *>(at) < a->base + EMU_SHARED_PART;
        w->write.run = is_shared ? actor->run : actor->first_run;
    }
    return true;
}

void emu_shared_clear(size_t bytes)
{
    std::memset(emu_memory_inside(emu_shared_base()), 0xff,
                bytes); /* NaN, should a check be missed */
    mark(emu_shared_base(), bytes, OUTSIDE);
}

void emu_shared_declare(size_t offset, size_t bytes)
{
    mark(emu_shared_base() + offset, bytes, UNKNOWN);
}

void emu_watch_open(char *base)
{
    known()->base = base;
}

/* Words that nobody touched have no history yet. */
void emu_watch_allocated(char *, size_t, char *)
{
}

void emu_watch_freed(char *at, size_t bytes)
{
    emu_give_back(known()->words + first_word(at),
                  (end_word(at, bytes) - first_word(at)) * sizeof(word), MADV_DONTNEED);
}
