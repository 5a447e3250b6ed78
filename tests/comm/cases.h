/* One collective as one rank sees it: its plan, its buffers, and what must be in RECV afterwards.
 *
 * Counts and payloads are functions of (seed, global indices), so that every rank makes its part
 * alone and knows what it must receive. Between and behind blocks RECV holds a filler that must
 * survive. Sums are of floats whose result depends on the order. */
#ifndef MT_TEST_COMM_CASES_H
#define MT_TEST_COMM_CASES_H

#include "comm/collectives.h"

enum test_kind {
    TEST_ALLTOALLV,
    TEST_ALLGATHERV,
    TEST_REDUCE_SCATTER,
    TEST_ALLREDUCE,
    TEST_SPARSE_ALLGATHER,
    TEST_SPARSE_REDUCE_SCATTER,
    TEST_SPARSE_ALLGATHER_RELAY,
    TEST_SPARSE_REDUCE_RELAY,
    TEST_SPARSE_REDUCE_PACED, /* owners may hold copies as well, here and in _OWN */
    TEST_TWO_LEVEL,
    TEST_LEADER,
    TEST_DEDUPLICATED,
    TEST_ROW_NUMBERS,
    TEST_SPARSE_ALLGATHER_CHAIN,
    TEST_SPARSE_REDUCE_CHAIN,
    TEST_SPARSE_ALLGATHER_OWN,
    TEST_DEDUPLICATED_BACK,
    TEST_N_KIND,
    TEST_N_NAME = TEST_SPARSE_ALLGATHER_OWN /* plans from here on have an earlier one's name */
};

/* EMPTY_RANK: one rank has nothing to give and nothing to get. TO_ONE: everything ends up at (or
 * belongs to) one rank. EVEN: the same everywhere; sparse: every chunk on every rank. */
enum test_shape {
    TEST_RAGGED,
    TEST_EMPTY_RANK,
    TEST_TO_ONE,
    TEST_NOTHING,
    TEST_EVEN,
    TEST_N_SHAPE
};

struct test_spec {
    enum test_kind kind;
    enum test_shape shape;
    uint64_t seed;
    int64_t scale;           /* blocks have fewer than this many elements */
    bool is_one_buffer;      /* sparse: home and copies in one buffer, SEND = RECV */
    enum mt_element element; /* BYTE: as the kind has it */
};

struct test_case {
    struct test_spec spec;
    const struct mt_topology *topology;
    int rank;
    enum mt_element element;
    struct mt_plan plan;
    void *buffer[MT_N_BUFFER];
    int64_t buffer_bytes[MT_N_BUFFER];
    char *send_before; /* [buffer_bytes[SEND]] SEND stays as it was */
    char *want;        /* [buffer_bytes[RECV]] */
    int64_t *counts;   /* room for what the plan functions take */
    struct mt_sparse sparse;
    int *sparse_int;                          /* storage of sparse */
    int64_t *sparse_long;                     /* storage of sparse and of the offsets */
    const int64_t *home_offset, *copy_offset; /* [C] */
};

const char *test_kind_name(enum test_kind kind);
void test_case_create(struct test_case *test, struct test_spec spec,
                      const struct mt_topology *topology, int rank);
/* Fails the test where RECV or SEND is not as it must be. */
void test_case_verify(const struct test_case *test);
void test_case_clear(struct test_case *test);

/* A function of the three, well mixed. */
uint64_t test_mix(uint64_t a, uint64_t b, uint64_t c);

#endif
