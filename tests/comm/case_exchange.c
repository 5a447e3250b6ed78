/* All-to-alls by way of others, and rows of tokens. */
#include "support/test.h"

#include "base/memory.h"
#include "base/size.h"
#include "comm/case_sparse.h"

#include <string.h>

enum { FILLER = 0x6b, MAX_ROW = 40 };

static int64_t *allocate_matrix(struct test_case *test)
{
    const int64_t n = (int64_t)test->topology->n_rank * test->topology->n_rank;
    MT_TEST_OK(MT_ALLOCATE(test->sparse_long, n, "test"));
    return test->sparse_long;
}

/* Any plan stays within the bound for what a rank sends and receives at most. */
static void check_bound(const struct test_case *test, const int64_t *bytes, int64_t stage_bytes)
{
    const int n_rank = test->topology->n_rank;
    int64_t most_sent = 0;
    int64_t most_received = 0;
    for (int rank = 0; rank < n_rank; ++rank) {
        int64_t sent = 0;
        int64_t received = 0;
        for (int peer = 0; peer < n_rank; ++peer) {
            sent += bytes[(int64_t)rank * n_rank + peer];
            received += bytes[(int64_t)peer * n_rank + rank];
        }
        most_sent = mt_max_i64(most_sent, sent);
        most_received = mt_max_i64(most_received, received);
    }
    const int64_t bound = test->spec.kind == TEST_LEADER
                              ? mt_plan_alltoallv_leader_stage_bound(test->topology, test->rank,
                                                                     most_sent, most_received)
                              : mt_plan_alltoallv_two_level_stage_bound(test->topology, test->rank,
                                                                        most_sent, most_received);
    assert_true(stage_bytes <= bound);
}

void test_create_by_way_of_others(struct test_case *test)
{
    const struct mt_topology *topology = test->topology;
    const bool is_leader = test->spec.kind == TEST_LEADER;
    const int n_rank = topology->n_rank;
    int64_t *bytes = allocate_matrix(test);
    for (int source = 0; source < n_rank; ++source) {
        for (int target = 0; target < n_rank; ++target) {
            bytes[(int64_t)source * n_rank + target] = test_block_bytes(test, source, target);
        }
    }
    const int64_t stage =
        is_leader ? mt_plan_alltoallv_leader_stage_bytes(topology, test->rank, bytes)
                  : mt_plan_alltoallv_two_level_stage_bytes(topology, test->rank, bytes);
    check_bound(test, bytes, stage);
    test_fill_alltoallv(test, stage);
    if (is_leader) {
        MT_TEST_OK(
            mt_plan_init(&test->plan, mt_plan_alltoallv_leader_max_op(topology, test->rank)));
        mt_plan_alltoallv_leader(&test->plan, topology, test->rank, bytes);
    } else {
        MT_TEST_OK(
            mt_plan_init(&test->plan, mt_plan_alltoallv_two_level_max_op(topology, test->rank)));
        mt_plan_alltoallv_two_level(&test->plan, topology, test->rank, bytes);
    }
}

/* ---- rows ---- */

/* Tokens of a source: few, so that they come again, also for one rank. */
enum { N_TOKEN = 13, MAX_WIDTH = 5 };

struct rows_case {
    struct mt_rows rows;
    int64_t *n_row; /* [R,R] */
    int32_t *sent, *relayed;
    int64_t n_sent, n_relayed;
    int64_t seen[N_TOKEN];
};

static int64_t row_count(const struct test_case *test, int source, int target)
{
    return test_block_bytes(test, source, target) / mt_element_bytes(test->element) % MAX_ROW;
}

static int32_t token_of(const struct test_case *test, int source, int target, int64_t row)
{
    const uint64_t pair = (uint64_t)source * 1000 + (uint64_t)target;
    return (int32_t)(test_mix(test->spec.seed, pair, (uint64_t)row) % N_TOKEN);
}

/* Numbers of a source's rows for other nodes: [n_sent of the source]. */
static int64_t number_rows(const struct test_case *test, struct rows_case *rows, int source,
                           int32_t *number)
{
    const int n_rank = test->topology->n_rank;
    int32_t *token = NULL;
    int64_t n = 0;
    MT_TEST_OK(MT_ALLOCATE(token, (int64_t)n_rank * MAX_ROW, "test"));
    for (int target = 0; target < n_rank; ++target) {
        for (int64_t row = 0; row < rows->n_row[(int64_t)source * n_rank + target]; ++row) {
            token[n++] = token_of(test, source, target, row);
        }
    }
    mt_rows_number(test->topology, source, rows->n_row, token, N_TOKEN, rows->seen, number);
    mt_memory_free(token);
    return mt_rows_n_sent(test->topology, source, rows->n_row);
}

static bool works_for(const struct mt_topology *topology, int rank, int source)
{
    const int node = topology->node[rank];
    const int size = mt_topology_node_size(topology, node);
    return topology->node[source] != node &&
           topology->local[source] % size == topology->local[rank];
}

static int64_t rows_between(const struct test_case *test, const struct rows_case *rows, int source,
                            int node)
{
    const struct mt_topology *topology = test->topology;
    int64_t n = 0;
    for (int target = 0; target < topology->n_rank; ++target) {
        n += topology->node[target] == node
                 ? rows->n_row[(int64_t)source * topology->n_rank + target]
                 : 0;
    }
    return n;
}

/* What the sources that this rank works for would tell it. */
static void relay_numbers(const struct test_case *test, struct rows_case *rows)
{
    const struct mt_topology *topology = test->topology;
    int32_t *number = NULL;
    MT_TEST_OK(MT_ALLOCATE(number, (int64_t)topology->n_rank * MAX_ROW, "test"));
    for (int source = 0; source < topology->n_rank; ++source) {
        if (!works_for(topology, test->rank, source)) {
            continue;
        }
        const int own = topology->node[test->rank];
        int64_t before = 0;
        (void)number_rows(test, rows, source, number);
        for (int node = 0; node < own; ++node) {
            before += node != topology->node[source] ? rows_between(test, rows, source, node) : 0;
        }
        const int64_t n = rows_between(test, rows, source, own);
        memcpy(rows->relayed + rows->n_relayed, number + before, (size_t)n * sizeof(*number));
        rows->n_relayed += n;
    }
    mt_memory_free(number);
}

static void make_rows(struct test_case *test, struct rows_case *rows)
{
    const int n_rank = test->topology->n_rank;
    const int64_t room = (int64_t)n_rank * MAX_ROW * n_rank;
    *rows = (struct rows_case){.n_row = allocate_matrix(test)};
    test->element = MT_ELEMENT_F32;
    for (int source = 0; source < n_rank; ++source) {
        for (int target = 0; target < n_rank; ++target) {
            rows->n_row[(int64_t)source * n_rank + target] = row_count(test, source, target);
        }
    }
    MT_TEST_OK(MT_ALLOCATE(test->sparse_int, 2 * room, "test"));
    rows->sent = test->sparse_int;
    rows->relayed = test->sparse_int + room;
    rows->n_sent = number_rows(test, rows, test->rank, rows->sent);
    relay_numbers(test, rows);
    assert_int_equal(rows->n_relayed, mt_rows_n_relayed(test->topology, test->rank, rows->n_row));
    rows->rows = (struct mt_rows){.n_row = rows->n_row,
                                  .row_bytes = (int64_t)(1 + test->spec.seed % MAX_WIDTH) * 4,
                                  .tail_bytes = (int64_t)(test->spec.seed % 2) * 4,
                                  .sent = rows->sent,
                                  .relayed = rows->relayed};
}

void test_create_row_numbers(struct test_case *test)
{
    struct rows_case rows;
    make_rows(test, &rows);
    const int64_t word = (int64_t)sizeof(int32_t);
    test_case_allocate(test, rows.n_sent * word, rows.n_relayed * word + 8, 0);
    memcpy(test->buffer[MT_BUFFER_SEND], rows.sent, (size_t)(rows.n_sent * word));
    test_case_freeze(test);
    memcpy(test->want, rows.relayed, (size_t)(rows.n_relayed * word));
    MT_TEST_OK(mt_plan_init(&test->plan, mt_plan_row_numbers_max_op(test->topology, test->rank)));
    mt_plan_reset(&test->plan, "row_numbers", MT_ELEMENT_BYTE);
    mt_plan_row_numbers(&test->plan, test->topology, test->rank, rows.n_row, 0, 0);
}

/* Row `row` of block (source, target) on its way: to the experts the token's, back its own. */
static void fill_row(const struct test_case *test, char *to, int source, int target, int64_t row,
                     int64_t row_bytes)
{
    const bool is_back = test->spec.kind == TEST_DEDUPLICATED_BACK;
    const uint64_t which = is_back ? 1000 + test_mix(5, (uint64_t)target, (uint64_t)row)
                                   : (uint64_t)token_of(test, source, target, row);
    test_fill(MT_ELEMENT_F32, to, row_bytes, test_stream_of(test, source), which);
}

/* A block of rows and tails; returns what follows it. */
static char *fill_block(const struct test_case *test, const struct rows_case *rows, char *to,
                        int source, int target)
{
    const int64_t n = rows->n_row[(int64_t)source * test->topology->n_rank + target];
    for (int64_t row = 0; row < n; ++row) {
        fill_row(test, to + row * rows->rows.row_bytes, source, target, row, rows->rows.row_bytes);
    }
    to += n * rows->rows.row_bytes;
    test_fill(MT_ELEMENT_F32, to, n * rows->rows.tail_bytes, test_stream_of(test, source),
              (uint64_t)target + 7);
    return to + n * rows->rows.tail_bytes;
}

/* What comes back of one other node: sums in the places of each token's first row, else zeros. The
 * rows are there already; block[t]: where the one from member t begins. */
static void sum_node(const struct test_case *test, const struct rows_case *rows, int node,
                     char **block)
{
    const struct mt_topology *topology = test->topology;
    char *first[N_TOKEN] = {NULL};
    for (int target = 0; target < topology->n_rank; ++target) {
        const int64_t n = topology->node[target] == node
                              ? rows->n_row[(int64_t)test->rank * topology->n_rank + target]
                              : 0;
        for (int64_t row = 0; row < n; ++row) {
            char **sum = &first[token_of(test, test->rank, target, row)];
            char *own = block[target] + row * rows->rows.row_bytes;
            if (*sum == NULL) {
                *sum = own;
            } else {
                test_add(MT_ELEMENT_F32, *sum, own, rows->rows.row_bytes);
                memset(own, 0, (size_t)rows->rows.row_bytes);
            }
        }
    }
}

static void want_sums(struct test_case *test, const struct rows_case *rows)
{
    const struct mt_topology *topology = test->topology;
    char *block[64];
    char *at = test->want;
    for (int target = 0; target < topology->n_rank; ++target) {
        block[target] = at;
        at = fill_block(test, rows, at, test->rank, target);
    }
    for (int node = 0; node < topology->n_node; ++node) {
        if (node != topology->node[test->rank]) {
            sum_node(test, rows, node, block);
        }
    }
}

static void check_rows_bound(const struct test_case *test, const struct rows_case *rows,
                             int64_t stage_bytes)
{
    const int n_rank = test->topology->n_rank;
    int64_t most_sent = 0;
    int64_t most_received = 0;
    for (int rank = 0; rank < n_rank; ++rank) {
        int64_t sent = 0;
        int64_t received = 0;
        for (int peer = 0; peer < n_rank; ++peer) {
            sent += rows->n_row[(int64_t)rank * n_rank + peer];
            received += rows->n_row[(int64_t)peer * n_rank + rank];
        }
        most_sent = mt_max_i64(most_sent, sent);
        most_received = mt_max_i64(most_received, received);
    }
    assert_true(stage_bytes <= (rows->rows.row_bytes + rows->rows.tail_bytes) *
                                   mt_plan_alltoallv_deduplicated_stage_rows(
                                       test->topology, test->rank, most_sent, most_received));
    assert_true(rows->n_relayed <=
                mt_rows_relayed_bound(test->topology, test->rank, most_sent, most_received));
}

void test_create_deduplicated(struct test_case *test)
{
    const bool is_back = test->spec.kind == TEST_DEDUPLICATED_BACK;
    struct rows_case rows;
    make_rows(test, &rows);
    const int n_rank = test->topology->n_rank;
    const int64_t block_bytes = rows.rows.row_bytes + rows.rows.tail_bytes;
    const int64_t stage =
        mt_plan_alltoallv_deduplicated_stage_bytes(test->topology, test->rank, &rows.rows, is_back);
    int64_t n_from = 0; /* rows of this rank's tokens, and at this rank's experts */
    int64_t n_at = 0;
    for (int peer = 0; peer < n_rank; ++peer) {
        n_from += rows.n_row[(int64_t)test->rank * n_rank + peer];
        n_at += rows.n_row[(int64_t)peer * n_rank + test->rank];
    }
    check_rows_bound(test, &rows, stage);
    test_case_allocate(test, (is_back ? n_at : n_from) * block_bytes,
                       (is_back ? n_from : n_at) * block_bytes + 8, stage);
    memset(test->buffer[MT_BUFFER_STAGE], FILLER, (size_t)stage);
    memset(test->buffer[MT_BUFFER_STAGE], 0, (size_t)rows.rows.row_bytes);
    char *send = test->buffer[MT_BUFFER_SEND];
    for (int peer = 0; peer < n_rank; ++peer) {
        send =
            fill_block(test, &rows, send, is_back ? peer : test->rank, is_back ? test->rank : peer);
    }
    test_case_freeze(test);
    char *want = test->want;
    for (int peer = 0; peer < n_rank && !is_back; ++peer) {
        want = fill_block(test, &rows, want, peer, test->rank);
    }
    if (is_back) {
        want_sums(test, &rows);
    }
    MT_TEST_OK(mt_plan_init(&test->plan,
                            mt_plan_alltoallv_deduplicated_max_op(test->topology, test->rank,
                                                                  rows.n_sent, rows.n_relayed)));
    mt_plan_alltoallv_deduplicated(&test->plan, test->topology, test->rank, &rows.rows, is_back);
}
