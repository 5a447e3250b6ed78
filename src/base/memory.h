/* Host memory with an account: every allocation of the run goes through here, is counted by bytes,
 * and fails with a message that says what wanted how much while how much was held.
 *
 * Large blocks are reserved address space whose pages become real when first touched. So a buffer
 * can be planned for the worst routing (all tokens to one expert) at no cost until that happens,
 * and nothing is allocated inside a step. */
#ifndef MT_BASE_MEMORY_H
#define MT_BASE_MEMORY_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 64-byte aligned, zeroed; `what` is a literal for messages. n_bytes = 0 gives a non-NULL pointer
 * that may be freed. MT_ERR_RESOURCE when the system refuses. */
enum mt_status mt_memory_allocate(int64_t n_bytes, const char *what, void **out);
void mt_memory_free(void *pointer); /* NULL allowed */

/* [count] items of type T, checked product. */
#define MT_ALLOCATE(pointer, count, what) \
    mt_memory_allocate_items((int64_t)sizeof(*(pointer)), (count), (what), (void **)&(pointer))
enum mt_status mt_memory_allocate_items(int64_t item_bytes, int64_t count, const char *what,
                                        void **out);

/* Room for n_more items behind the n_used of pointer [*capacity]. At least doubles it, so that
 * appending one by one is linear; what is there stays. On failure nothing has changed. */
#define MT_MAKE_ROOM(pointer, n_used, capacity, n_more, what)                                \
    mt_memory_make_room((int64_t)sizeof(*(pointer)), (n_used), (n_more), (what), (capacity), \
                        (void **)&(pointer))
enum mt_status mt_memory_make_room(int64_t item_bytes, int64_t n_used, int64_t n_more,
                                   const char *what, int64_t *capacity, void **items);

int64_t mt_memory_reserved_bytes(void);      /* what is allocated now */
int64_t mt_memory_n_live(void);              /* allocations not freed: 0 at the end of a test */
int64_t mt_memory_n_allocated(void);         /* allocations ever: constant across a warm step */
int64_t mt_memory_peak_resident_bytes(void); /* largest resident set of this process (VmHWM) */
int64_t mt_memory_available_bytes(void); /* MemAvailable of this machine, cgroup limit respected */

/* An arena: one allocation, cut from the front, released back to a mark. Cuts are 64-byte
 * aligned and not zeroed. */
struct mt_arena {
    char *base;
    int64_t capacity_bytes;
    int64_t used_bytes;
    int64_t peak_bytes;
};
enum mt_status mt_arena_init(struct mt_arena *arena, int64_t capacity_bytes, const char *what);
void mt_arena_clear(struct mt_arena *arena);
/* Asserts that the planned capacity suffices: planning is checked before, running out is a bug. */
void *mt_arena_cut(struct mt_arena *arena, int64_t n_bytes);
int64_t mt_arena_mark(const struct mt_arena *arena);
void mt_arena_release(struct mt_arena *arena, int64_t mark);

#ifdef __cplusplus
}
#endif

#endif
