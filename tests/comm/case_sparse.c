#include "comm/case_sparse.h"

#include "support/test.h"

#include "base/memory.h"

enum { GAP_BYTES = 16 };

static int pick_owner(const struct test_case *test, int64_t chunk, int special)
{
    const int n_rank = test->topology->n_rank;
    const uint64_t bits = test_mix(test->spec.seed, 7, (uint64_t)chunk);
    const int owner = (int)((bits >> 16) % (uint64_t)n_rank);
    if (test->spec.shape == TEST_TO_ONE) {
        return special;
    }
    if (test->spec.shape == TEST_EVEN) {
        return (int)(chunk % n_rank);
    }
    if (test->spec.shape == TEST_EMPTY_RANK && owner == special && n_rank > 1) {
        return (owner + 1) % n_rank;
    }
    return owner;
}

static bool pick_holder(const struct test_case *test, int64_t chunk, int rank, int special)
{
    const uint64_t bits = test_mix(test->spec.seed, 8 + (uint64_t)rank, (uint64_t)chunk);
    if (test->spec.shape == TEST_EMPTY_RANK && rank == special) {
        return false;
    }
    return test->spec.shape == TEST_EVEN || chunk % 5 == 3 || bits % 4 == 0;
}

/* The distribution, the same on every rank. */
static void create_sparse(struct test_case *test)
{
    const int n_rank = test->topology->n_rank;
    const int special = (int)(test->spec.seed % (uint64_t)n_rank);
    const int64_t n_chunk = test->spec.shape == TEST_NOTHING ? 0 : 5 + 2 * (int64_t)n_rank;
    MT_TEST_OK(MT_ALLOCATE(test->sparse_int, n_chunk * (n_rank + 1), "test"));
    MT_TEST_OK(MT_ALLOCATE(test->sparse_long, 4 * n_chunk + 1, "test"));
    int *owner = test->sparse_int;
    int *holder = test->sparse_int + n_chunk;
    int64_t *chunk_bytes = test->sparse_long;
    int64_t *holder_start = test->sparse_long + n_chunk;
    int64_t n_holder = 0;
    for (int64_t chunk = 0; chunk < n_chunk; ++chunk) {
        const uint64_t bits = test_mix(test->spec.seed, 9, (uint64_t)chunk);
        owner[chunk] = pick_owner(test, chunk, special);
        chunk_bytes[chunk] = 4 * (int64_t)(bits % (uint64_t)test->spec.scale);
        for (int rank = 0; rank < n_rank; ++rank) {
            if (rank != owner[chunk] && pick_holder(test, chunk, rank, special)) {
                holder[n_holder++] = rank;
            }
        }
        holder_start[chunk + 1] = n_holder;
    }
    test->sparse = (struct mt_sparse){.n_chunk = n_chunk,
                                      .chunk_bytes = chunk_bytes,
                                      .owner = owner,
                                      .holder_start = holder_start,
                                      .holder = holder};
}

static bool holds(const struct mt_sparse *sparse, int64_t chunk, int rank)
{
    for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
        if (sparse->holder[i] == rank) {
            return true;
        }
    }
    return false;
}

/* Home and copies with the last chunk first and gaps between: an order that nobody relies on.
 * bytes [2]: of home and of copies; copies follow home where they share a buffer. */
static void lay_out(struct test_case *test, int64_t bytes[2])
{
    const int64_t n_chunk = test->sparse.n_chunk;
    int64_t *home = test->sparse_long + 2 * n_chunk + 1;
    int64_t *copy = test->sparse_long + 3 * n_chunk + 1;
    int64_t n_home = GAP_BYTES;
    for (int64_t chunk = n_chunk - 1; chunk >= 0; --chunk) {
        home[chunk] = -1; /* must not be looked at */
        if (test->sparse.owner[chunk] == test->rank) {
            home[chunk] = n_home;
            n_home += test->sparse.chunk_bytes[chunk] + GAP_BYTES;
        }
    }
    int64_t n_copy = test->spec.is_one_buffer ? n_home : GAP_BYTES;
    for (int64_t chunk = n_chunk - 1; chunk >= 0; --chunk) {
        copy[chunk] = -1;
        if (holds(&test->sparse, chunk, test->rank)) {
            copy[chunk] = n_copy;
            n_copy += test->sparse.chunk_bytes[chunk] + GAP_BYTES;
        }
    }
    test->home_offset = home;
    test->copy_offset = copy;
    bytes[0] = test->spec.is_one_buffer ? n_copy : n_home;
    bytes[1] = n_copy;
}

static void fill_chunk(const struct test_case *test, char *to, int64_t chunk, int rank)
{
    test_fill(test->element, to, test->sparse.chunk_bytes[chunk], test->spec.seed * 733,
              (uint64_t)(chunk * 4096 + rank));
}

/* What this rank owns (home) or holds (copies), filled with its own values. */
static void fill_own(const struct test_case *test, char *home, char *copies)
{
    for (int64_t chunk = 0; chunk < test->sparse.n_chunk; ++chunk) {
        if (home != NULL && test->sparse.owner[chunk] == test->rank) {
            fill_chunk(test, home + test->home_offset[chunk], chunk, test->rank);
        }
        if (copies != NULL && holds(&test->sparse, chunk, test->rank)) {
            fill_chunk(test, copies + test->copy_offset[chunk], chunk, test->rank);
        }
    }
}

void test_create_sparse_gather(struct test_case *test)
{
    int64_t bytes[2];
    create_sparse(test);
    lay_out(test, bytes);
    test_case_allocate(test, bytes[0], bytes[1], 0);
    fill_own(test, test->buffer[MT_BUFFER_SEND], NULL);
    test_case_freeze(test);
    for (int64_t chunk = 0; chunk < test->sparse.n_chunk; ++chunk) {
        if (holds(&test->sparse, chunk, test->rank)) {
            fill_chunk(test, test->want + test->copy_offset[chunk], chunk,
                       test->sparse.owner[chunk]);
        }
    }
    MT_TEST_OK(mt_plan_init(&test->plan, mt_plan_sparse_max_op(test->rank, &test->sparse)));
    mt_plan_sparse_allgather(&test->plan, test->rank, &test->sparse, test->home_offset,
                             test->copy_offset);
}

void test_create_sparse_reduce(struct test_case *test)
{
    int64_t bytes[2];
    char *arrival = NULL;
    create_sparse(test);
    lay_out(test, bytes);
    test_case_allocate(test, bytes[1], bytes[0],
                       mt_plan_sparse_reduce_stage_bytes(test->rank, &test->sparse));
    fill_own(test, test->buffer[MT_BUFFER_RECV], test->buffer[MT_BUFFER_SEND]);
    test_case_freeze(test);
    MT_TEST_OK(MT_ALLOCATE(arrival, 4 * test->spec.scale, "test"));
    for (int64_t chunk = 0; chunk < test->sparse.n_chunk; ++chunk) {
        for (int rank = 0; rank < test->topology->n_rank; ++rank) {
            if (test->sparse.owner[chunk] == test->rank && holds(&test->sparse, chunk, rank)) {
                fill_chunk(test, arrival, chunk, rank);
                test_add(test->element, test->want + test->home_offset[chunk], arrival,
                         test->sparse.chunk_bytes[chunk]);
            }
        }
    }
    mt_memory_free(arrival);
    MT_TEST_OK(mt_plan_init(&test->plan, mt_plan_sparse_max_op(test->rank, &test->sparse)));
    mt_plan_sparse_reduce_scatter(&test->plan, test->rank, &test->sparse, test->home_offset,
                                  test->copy_offset, test->element);
}
