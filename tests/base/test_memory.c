#include "support/test.h"

#include "base/memory.h"
#include "base/memory_limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void check_zeroed(const char *block, int64_t n_bytes)
{
    for (int64_t i = 0; i < n_bytes; ++i) {
        if (block[i] != 0) {
            fail_msg("byte %d of %d is not zero", (int)i, (int)n_bytes);
        }
    }
}

static void blocks_are_zeroed_and_aligned(void **state)
{
    MT_UNUSED(state);
    const int64_t sizes[] = {0, 1, 63, 64, 65, 4096, (1 << 20) - 64, 1 << 20, (3 << 20) + 1};
    const int64_t reserved = mt_memory_reserved_bytes();
    const int64_t n_live = mt_memory_n_live();
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); ++s) {
        void *block = NULL;
        for (int again = 0; again < 2; ++again) { /* the second time in used memory */
            MT_TEST_OK(mt_memory_allocate(sizes[s], "a test", &block));
            assert_non_null(block);
            assert_int_equal((uintptr_t)block % 64, 0);
            assert_true(mt_memory_reserved_bytes() == reserved + sizes[s]);
            check_zeroed(block, sizes[s]);
            memset(block, 0xA5, (size_t)sizes[s]);
            mt_memory_free(block);
        }
    }
    mt_memory_free(NULL);
    assert_true(mt_memory_reserved_bytes() == reserved);
    assert_true(mt_memory_n_live() == n_live);
}

static void allocations_are_counted(void **state)
{
    MT_UNUSED(state);
    float *x = NULL;
    const int64_t n_allocated = mt_memory_n_allocated();
    const int64_t n_live = mt_memory_n_live();
    MT_TEST_OK(MT_ALLOCATE(x, 1000, "x"));
    assert_true(mt_memory_n_allocated() == n_allocated + 1);
    assert_true(mt_memory_n_live() == n_live + 1);
    x[999] = 1.0F;
    mt_memory_free(x);
    assert_true(mt_memory_n_allocated() == n_allocated + 1);
    assert_true(mt_memory_n_live() == n_live);
}

/* 64 GiB of address space, of which two pages become real. */
static void reserved_space_costs_nothing_until_touched(void **state)
{
    MT_UNUSED(state);
    char *space = NULL;
    const int64_t n_bytes = (int64_t)64 << 30;
    const int64_t peak = mt_memory_peak_resident_bytes();
    assert_true(peak > 0);
    MT_TEST_OK(MT_ALLOCATE(space, n_bytes, "worst-case rows"));
    space[0] = 1;
    space[n_bytes - 1] = 1;
    assert_true(mt_memory_peak_resident_bytes() < peak + (64 << 20));
    mt_memory_free(space);
}

static void what_cannot_be_had_is_refused_with_sizes(void **state)
{
    MT_UNUSED(state);
    void *block = &block;
    float *x = NULL;
    int64_t held = mt_memory_n_live();
    MT_TEST_FAILS(mt_memory_allocate((int64_t)1 << 62, "expert rows", &block), MT_ERR_RESOURCE,
                  "no memory for expert rows: wanted 4611686018427387904 bytes");
    assert_null(block);
    MT_TEST_FAILS(mt_memory_allocate(INT64_MAX, "expert rows", &block), MT_ERR_RESOURCE, "held");
    MT_TEST_FAILS(MT_ALLOCATE(x, INT64_MAX / 2, "rows"), MT_ERR_RESOURCE, "do not fit");
    MT_TEST_FAILS(MT_ALLOCATE(x, -1, "rows"), MT_ERR_RESOURCE, "-1 items");
    assert_null(x);
    assert_true(mt_memory_n_live() == held);
}

static void an_arena_cuts_aligned_and_releases_to_marks(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    MT_TEST_OK(mt_arena_init(&arena, 1024, "scratch"));
    char *a = mt_arena_cut(&arena, 1);
    const int64_t mark = mt_arena_mark(&arena);
    char *b = mt_arena_cut(&arena, 100);
    char *empty = mt_arena_cut(&arena, 0);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_ptr_equal(b, a + 64);
    assert_ptr_equal(empty, b + 128);
    memset(b, 1, 100);
    mt_arena_release(&arena, mark);
    char *c = mt_arena_cut(&arena, 960);
    assert_ptr_equal(c, b);
    memset(c, 2, 960);
    assert_int_equal(arena.used_bytes, 1024);
    mt_arena_release(&arena, 0);
    assert_int_equal(arena.peak_bytes, 1024);
    assert_int_equal(arena.used_bytes, 0);
    mt_arena_clear(&arena);
    assert_null(arena.base);
    mt_arena_clear(&arena);
}

static void an_arena_can_be_filled_to_its_last_byte(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    MT_TEST_OK(mt_arena_init(&arena, 100, "scratch"));
    (void)mt_arena_cut(&arena, 10);
    char *rest = mt_arena_cut(&arena, 36);
    memset(rest, 1, 36);
    assert_int_equal(arena.used_bytes, 100);
    assert_non_null(mt_arena_cut(&arena, 0));
    mt_arena_clear(&arena);
    MT_TEST_OK(mt_arena_init(&arena, 0, "nothing"));
    assert_non_null(mt_arena_cut(&arena, 0));
    mt_arena_clear(&arena);
}

static void cut_too_much(void *arena)
{
    (void)mt_arena_cut(arena, 65);
}

static void release_the_future(void *arena)
{
    mt_arena_release(arena, 1);
}

static void free_a_stranger(void *block)
{
    mt_memory_free((char *)block + 64);
}

static void misuse_is_an_assertion(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    void *block = NULL;
    MT_TEST_OK(mt_arena_init(&arena, 64, "scratch"));
    MT_TEST_ASSERTS(cut_too_much, &arena);
    MT_TEST_ASSERTS(release_the_future, &arena);
    mt_arena_clear(&arena);
    MT_TEST_OK(mt_memory_allocate(256, "block", &block));
    MT_TEST_ASSERTS(free_a_stranger, block);
    mt_memory_free(block);
}

/* A made-up /proc and cgroup tree below a temporary folder. */
static char tree[] = "/tmp/mt-memory-XXXXXX";

static void put(const char *path, const char *text)
{
    char full[256];
    char command[600];
    (void)snprintf(full, sizeof(full), "%s/%s", tree, path);
    (void)snprintf(command, sizeof(command), "mkdir -p \"$(dirname %s)\"", full);
    assert_int_equal(system(command), 0);
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    (void)fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static int64_t limit_of_tree(void)
{
    char proc[128];
    char cgroup[128];
    (void)snprintf(proc, sizeof(proc), "%s/proc", tree);
    (void)snprintf(cgroup, sizeof(cgroup), "%s/cgroup", tree);
    return mt_memory_limit_available_bytes(proc, cgroup);
}

static void room_is_made_for_what_is_to_come(void **state)
{
    MT_UNUSED(state);
    int32_t *item = NULL;
    int64_t capacity = 0;
    for (int32_t n = 0; n < 1000; ++n) {
        const int64_t before = capacity;
        MT_TEST_OK(MT_MAKE_ROOM(item, n, &capacity, 1, "a list"));
        assert_true(capacity == before || capacity >= 2 * before);
        item[n] = n;
    }
    for (int32_t n = 0; n < 1000; ++n) {
        assert_int_equal(item[n], n);
    }
    const int64_t before = capacity;
    MT_TEST_FAILS(MT_MAKE_ROOM(item, 1000, &capacity, INT64_MAX / 4, "a list"), MT_ERR_RESOURCE,
                  "a list");
    assert_int_equal(capacity, before);
    assert_int_equal(item[999], 999);
    mt_memory_free(item);
}

static int make_tree(void **state)
{
    MT_UNUSED(state);
    (void)snprintf(tree, sizeof(tree), "/tmp/mt-memory-XXXXXX");
    return mkdtemp(tree) == NULL;
}

static int remove_tree(void **state)
{
    MT_UNUSED(state);
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf %s", tree);
    return system(command);
}

static void the_tightest_limit_decides(void **state)
{
    MT_UNUSED(state);
    assert_true(limit_of_tree() == INT64_MAX);
    put("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:   8000 kB\n");
    assert_int_equal(limit_of_tree(), 8000 * 1024);
    /* version 2: no limit in the group itself, one in its parent, page cache counts as free */
    put("proc/self/cgroup", "0::/jobs/one\n");
    put("cgroup/jobs/one/memory.max", "max\n");
    put("cgroup/jobs/one/memory.current", "100\n");
    assert_int_equal(limit_of_tree(), 8000 * 1024);
    put("cgroup/jobs/memory.max", "5000\n");
    put("cgroup/jobs/memory.current", "4000\n");
    put("cgroup/jobs/memory.stat", "anon 3500\nactive_file 100\ninactive_file 400\n");
    assert_int_equal(limit_of_tree(), 5000 - 4000 + 400);
    put("cgroup/jobs/memory.current", "6000\n");
    put("cgroup/jobs/memory.stat", "inactive_file 0\n");
    assert_int_equal(limit_of_tree(), 0);
    /* version 1, beside other controllers; its "no limit" is a huge number */
    put("proc/self/cgroup", "5:cpu:/x\n4:memory:/one\n");
    put("cgroup/memory/one/memory.limit_in_bytes", "9223372036854771712\n");
    put("cgroup/memory/one/memory.usage_in_bytes", "1\n");
    assert_int_equal(limit_of_tree(), 8000 * 1024);
    put("cgroup/memory/memory.limit_in_bytes", "777\n");
    put("cgroup/memory/memory.usage_in_bytes", "7\n");
    put("cgroup/memory/memory.stat", "inactive_file 3\ntotal_inactive_file 5\n");
    assert_int_equal(limit_of_tree(), 775);
}

/* The made-up process is 5 KiB below a limit that the real one does not feel. */
static void a_limit_on_address_space_narrows_what_is_available(void **state)
{
    MT_UNUSED(state);
    struct rlimit before;
    put("proc/self/status", "Name: x\nVmSize:\t1125899906842619 kB\n"); /* 2^60 / 1024 - 5 */
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    const struct rlimit finite = {.rlim_cur = (rlim_t)1 << 60, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_AS, &finite), 0);
    const int64_t available = limit_of_tree();
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(available, 5 * 1024);
    assert_true(mt_memory_available_bytes() > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(room_is_made_for_what_is_to_come),
        cmocka_unit_test(blocks_are_zeroed_and_aligned),
        cmocka_unit_test(allocations_are_counted),
        cmocka_unit_test(reserved_space_costs_nothing_until_touched),
        cmocka_unit_test(what_cannot_be_had_is_refused_with_sizes),
        cmocka_unit_test(an_arena_cuts_aligned_and_releases_to_marks),
        cmocka_unit_test(an_arena_can_be_filled_to_its_last_byte),
        cmocka_unit_test(misuse_is_an_assertion),
        cmocka_unit_test_setup_teardown(the_tightest_limit_decides, make_tree, remove_tree),
        cmocka_unit_test_setup_teardown(a_limit_on_address_space_narrows_what_is_available,
                                        make_tree, remove_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
