/* Every block is preceded by one cache line that holds its size, so that freeing needs no table:
 *
 *   | block_header (64 bytes) | n_bytes, zeroed, 64-byte aligned |
 *
 * Blocks of MAP_FROM_BYTES and more are address space from mmap: untouched pages cost nothing.
 * Those of HUGE_FROM_BYTES and more ask for pages of 2 MiB. */
#include "base/memory.h"

#include "base/memory_limit.h"
#include "base/size.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
/* AddressSanitizer sees the ends of heap blocks, not of mappings, so it gets more of the former. */
static const int64_t MAP_FROM_BYTES = (int64_t)64 << 20;
#else
#define ASAN_POISON_MEMORY_REGION(address, size)   ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
static const int64_t MAP_FROM_BYTES = (int64_t)1 << 20;
#endif

/* Where pages of 2 MiB are left to who asks for them, asking saves 3 % of a step of
 * configs/bench-cpu.toml (0.623 to 0.604 s, one Zen 4 core, 2026-11): weights, moments and
 * activations are walked in more places at once than the processor knows small pages. What is
 * reserved and not touched costs up to a page more wherever a touched range ends, so blocks of only
 * some pages do not ask: 1 % of that run's memory. */
static const int64_t HUGE_FROM_BYTES = (int64_t)8 << 20;

enum { ALIGNMENT_BYTES = 64 };

static const uint64_t HEADER_MAGIC = 0x6D6F65626C6F636BU; /* "moeblock" */

struct block_header {
    uint64_t magic;
    int64_t n_bytes;
    int64_t total_bytes; /* with this header and padding */
    int64_t is_mapped;
    char padding[ALIGNMENT_BYTES - 32];
};
_Static_assert(sizeof(struct block_header) == ALIGNMENT_BYTES, "keeps blocks aligned");

/* Atomic because the checkpoint's writer thread allocates too. */
static _Atomic int64_t reserved_bytes;
static _Atomic int64_t n_live;
static _Atomic int64_t n_allocated;

static enum mt_status refuse(int64_t n_bytes, const char *what)
{
    static const double GIB = 0x1p30;
    const int64_t held = mt_memory_reserved_bytes();
    const int64_t available = mt_memory_available_bytes();
    return MT_FAIL(MT_ERR_RESOURCE,
                   "no memory for %s: wanted %lld bytes (%.2f GiB) while %lld bytes (%.2f GiB) are "
                   "held and %lld bytes (%.2f GiB) are available here; use more ranks or nodes, or "
                   "a smaller model or batch",
                   what, (long long)n_bytes, (double)n_bytes / GIB, (long long)held,
                   (double)held / GIB, (long long)available, (double)available / GIB);
}

/* NULL: the system refuses. */
static void *map(int64_t n_bytes)
{
    void *mapping = mmap(NULL, (size_t)n_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) {
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    if (n_bytes >= HUGE_FROM_BYTES) {
        (void)madvise(mapping, (size_t)n_bytes, MADV_HUGEPAGE); /* a wish: small pages do as well */
    }
#endif
    return mapping;
}

enum mt_status mt_memory_allocate(int64_t n_bytes, const char *what, void **out)
{
    MT_ASSERT(n_bytes >= 0);
    *out = NULL;
    if (n_bytes > INT64_MAX - 2 * (int64_t)ALIGNMENT_BYTES) {
        return refuse(n_bytes, what);
    }
    const int64_t total_bytes = ALIGNMENT_BYTES + mt_round_up(n_bytes, ALIGNMENT_BYTES);
    const bool is_mapped = total_bytes >= MAP_FROM_BYTES;
    struct block_header *header = NULL;
    if (is_mapped) {
        header = map(total_bytes);
    } else {
        header = aligned_alloc(ALIGNMENT_BYTES, (size_t)total_bytes);
    }
    if (header == NULL) {
        return refuse(n_bytes, what);
    }
    if (!is_mapped) {
        memset(header, 0, (size_t)total_bytes);
    }
    header->magic = HEADER_MAGIC;
    header->n_bytes = n_bytes;
    header->total_bytes = total_bytes;
    header->is_mapped = is_mapped;
    atomic_fetch_add(&reserved_bytes, n_bytes);
    atomic_fetch_add(&n_live, 1);
    atomic_fetch_add(&n_allocated, 1);
    *out = header + 1;
    return MT_OK;
}

void mt_memory_free(void *pointer)
{
    if (pointer == NULL) {
        return;
    }
    struct block_header *header = (struct block_header *)pointer - 1;
    MT_ASSERT(header->magic == HEADER_MAGIC);
    header->magic = 0;
    atomic_fetch_sub(&reserved_bytes, header->n_bytes);
    atomic_fetch_sub(&n_live, 1);
    if (header->is_mapped) {
        (void)munmap(header, (size_t)header->total_bytes);
    } else {
        free(header);
    }
}

enum mt_status mt_memory_allocate_items(int64_t item_bytes, int64_t count, const char *what,
                                        void **out)
{
    int64_t n_bytes = 0;
    if (!mt_size_multiply(item_bytes, count, &n_bytes)) {
        *out = NULL;
        return MT_FAIL(MT_ERR_RESOURCE,
                       "no memory for %s: %lld items of %lld bytes do not fit 63 bits; use a "
                       "smaller model or batch",
                       what, (long long)count, (long long)item_bytes);
    }
    return mt_memory_allocate(n_bytes, what, out);
}

enum mt_status mt_memory_make_room(int64_t item_bytes, int64_t n_used, int64_t n_more,
                                   const char *what, int64_t *capacity, void **items)
{
    enum { LEAST_ITEMS = 64 };
    void *larger = NULL;
    if (n_more <= *capacity - n_used) {
        return MT_OK;
    }
    const int64_t wanted =
        mt_max_i64(n_used + n_more, mt_max_i64(2 * *capacity, (int64_t)LEAST_ITEMS));
    MT_TRY(mt_memory_allocate_items(item_bytes, wanted, what, &larger));
    MT_ASSERT(larger != NULL);
    if (n_used > 0) {
        memcpy(larger, *items, (size_t)(n_used * item_bytes));
    }
    mt_memory_free(*items);
    *items = larger;
    *capacity = wanted;
    return MT_OK;
}

int64_t mt_memory_reserved_bytes(void)
{
    return atomic_load(&reserved_bytes);
}

int64_t mt_memory_n_live(void)
{
    return atomic_load(&n_live);
}

int64_t mt_memory_n_allocated(void)
{
    return atomic_load(&n_allocated);
}

enum mt_status mt_arena_init(struct mt_arena *arena, int64_t capacity_bytes, const char *what)
{
    void *base = NULL;
    memset(arena, 0, sizeof(*arena));
    MT_TRY(mt_memory_allocate(capacity_bytes, what, &base));
    arena->base = base;
    arena->capacity_bytes = capacity_bytes;
    return MT_OK;
}

void mt_arena_clear(struct mt_arena *arena)
{
    if (arena->base != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(arena->base, (size_t)arena->capacity_bytes);
        mt_memory_free(arena->base);
    }
    memset(arena, 0, sizeof(*arena));
}

void *mt_arena_cut(struct mt_arena *arena, int64_t n_bytes)
{
    MT_ASSERT(n_bytes >= 0 && n_bytes <= arena->capacity_bytes - arena->used_bytes);
    char *cut = arena->base + arena->used_bytes;
    const int64_t end = arena->used_bytes + n_bytes;
    const int64_t capacity = arena->capacity_bytes;
    arena->used_bytes = mt_min_i64(mt_round_up(end, ALIGNMENT_BYTES), capacity);
    arena->peak_bytes = mt_max_i64(arena->peak_bytes, arena->used_bytes);
    /* Up to the next cut and one line beyond, nobody has business here. */
    const int64_t guard_end = mt_min_i64(arena->used_bytes + ALIGNMENT_BYTES, capacity);
    ASAN_UNPOISON_MEMORY_REGION(cut, (size_t)n_bytes);
    ASAN_POISON_MEMORY_REGION(arena->base + end, (size_t)(guard_end - end));
    MT_UNUSED(guard_end);
    return cut;
}

int64_t mt_arena_mark(const struct mt_arena *arena)
{
    return arena->used_bytes;
}

void mt_arena_release(struct mt_arena *arena, int64_t mark)
{
    MT_ASSERT(mark >= 0 && mark <= arena->used_bytes);
    ASAN_POISON_MEMORY_REGION(arena->base + mark, (size_t)(arena->used_bytes - mark));
    arena->used_bytes = mark;
}
