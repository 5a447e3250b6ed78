#include "comm/cases.h"

#include "support/test.h"

#include "base/memory.h"
#include "comm/blocks.h"
#include "comm/case_sparse.h"

#include <string.h>

enum { FILLER = 0x5a };

uint64_t test_mix(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t x = a * 0x9e3779b97f4a7c15ull + b * 0xc2b2ae3d27d4eb4full + c * 0x165667b19e3779f9ull;
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 32)) * 0x94d049bb133111ebull;
    return x ^ (x >> 30);
}

const char *test_kind_name(enum test_kind kind)
{
    static const char *const names[TEST_N_KIND] = {"alltoallv",
                                                   "allgatherv",
                                                   "reduce_scatter",
                                                   "allreduce",
                                                   "sparse_allgather",
                                                   "sparse_reduce_scatter",
                                                   "sparse_allgather_relay",
                                                   "sparse_reduce_relay",
                                                   "sparse_reduce_paced",
                                                   "alltoallv_two_level",
                                                   "alltoallv_leader",
                                                   "alltoallv_deduplicated",
                                                   "row_numbers",
                                                   "sparse_allgather_chain",
                                                   "sparse_reduce_chain",
                                                   "sparse_allgather_own",
                                                   "alltoallv_deduplicated back"};
    return names[kind];
}

void test_fill(enum mt_element element, char *to, int64_t n_bytes, uint64_t stream, uint64_t which)
{
    const int64_t n = n_bytes / mt_element_bytes(element);
    for (int64_t i = 0; i < n; ++i) {
        const uint64_t bits = test_mix(stream, which, (uint64_t)i);
        /* 24 significant bits over 32 binades: sums of a few round at every addition */
        const double value =
            ((double)(bits >> 40) - 0x1p23) * (double)(1ull << (bits & 31)) * 0x1p-16;
        switch (element) {
        case MT_ELEMENT_F32:
            ((float *)(void *)to)[i] = (float)value;
            break;
        case MT_ELEMENT_F64:
            ((double *)(void *)to)[i] = value * 1.1;
            break;
        case MT_ELEMENT_I64:
            ((int64_t *)(void *)to)[i] = (int64_t)(bits >> 8) - (1ll << 55);
            break;
        case MT_ELEMENT_BYTE:
        default:
            to[i] = (char)(bits & 0xff);
        }
    }
}

void test_add(enum mt_element element, char *to, const char *from, int64_t n_bytes)
{
    for (int64_t at = 0; at < n_bytes; at += mt_element_bytes(element)) {
        if (element == MT_ELEMENT_F32) {
            *(float *)(void *)(to + at) += *(const float *)(const void *)(from + at);
        } else if (element == MT_ELEMENT_F64) {
            *(double *)(void *)(to + at) += *(const double *)(const void *)(from + at);
        } else {
            *(int64_t *)(void *)(to + at) += *(const int64_t *)(const void *)(from + at);
        }
    }
}

static char *allocate(int64_t n_bytes)
{
    void *memory = NULL;
    MT_TEST_OK(mt_memory_allocate(n_bytes, "test", &memory));
    return memory;
}

void test_case_allocate(struct test_case *test, int64_t send_bytes, int64_t recv_bytes,
                        int64_t stage_bytes)
{
    const bool is_one = test->spec.is_one_buffer;
    test->buffer_bytes[MT_BUFFER_SEND] = send_bytes;
    test->buffer_bytes[MT_BUFFER_RECV] = recv_bytes;
    test->buffer_bytes[MT_BUFFER_STAGE] = stage_bytes;
    test->buffer[MT_BUFFER_SEND] = allocate(send_bytes);
    test->buffer[MT_BUFFER_RECV] = is_one ? test->buffer[MT_BUFFER_SEND] : allocate(recv_bytes);
    test->buffer[MT_BUFFER_STAGE] = allocate(stage_bytes);
    test->send_before = allocate(send_bytes);
    test->want = allocate(recv_bytes);
    memset(test->buffer[MT_BUFFER_SEND], FILLER, (size_t)send_bytes);
    memset(test->buffer[MT_BUFFER_RECV], FILLER, (size_t)recv_bytes);
}

/* After SEND (and what sums start from in RECV) was filled, before `want` is. */
void test_case_freeze(struct test_case *test)
{
    memcpy(test->send_before, test->buffer[MT_BUFFER_SEND],
           (size_t)test->buffer_bytes[MT_BUFFER_SEND]);
    memcpy(test->want, test->buffer[MT_BUFFER_RECV], (size_t)test->buffer_bytes[MT_BUFFER_RECV]);
}

int64_t test_block_bytes(const struct test_case *test, int source, int target)
{
    const struct test_spec *spec = &test->spec;
    const int special = (int)(spec->seed % (uint64_t)test->topology->n_rank);
    const uint64_t bits = test_mix(spec->seed, (uint64_t)source, 1000 + (uint64_t)target);
    int64_t n = bits % 4 == 0 ? 0 : (int64_t)((bits >> 8) % (uint64_t)spec->scale);
    if (spec->shape == TEST_NOTHING || (spec->shape == TEST_TO_ONE && target != special) ||
        (spec->shape == TEST_EMPTY_RANK && (source == special || target == special))) {
        n = 0;
    }
    n = spec->shape == TEST_EVEN ? spec->scale - 1 : n;
    return n * mt_element_bytes(test->element);
}

uint64_t test_stream_of(const struct test_case *test, int source)
{
    return test->spec.seed * 1031 + (uint64_t)source;
}

void test_fill_alltoallv(struct test_case *test, int64_t stage_bytes)
{
    const int n_rank = test->topology->n_rank;
    int64_t *send_bytes = test->counts;
    int64_t *recv_bytes = test->counts + n_rank;
    for (int peer = 0; peer < n_rank; ++peer) {
        send_bytes[peer] = test_block_bytes(test, test->rank, peer);
        recv_bytes[peer] = test_block_bytes(test, peer, test->rank);
    }
    test_case_allocate(test, mt_blocks_before(send_bytes, n_rank),
                       mt_blocks_before(recv_bytes, n_rank) + 8, stage_bytes);
    char *send = test->buffer[MT_BUFFER_SEND];
    for (int peer = 0; peer < n_rank; ++peer) {
        test_fill(test->element, send + mt_blocks_before(send_bytes, peer), send_bytes[peer],
                  test_stream_of(test, test->rank), (uint64_t)peer);
    }
    test_case_freeze(test);
    for (int peer = 0; peer < n_rank; ++peer) {
        test_fill(test->element, test->want + mt_blocks_before(recv_bytes, peer), recv_bytes[peer],
                  test_stream_of(test, peer), (uint64_t)test->rank);
    }
}

static void create_alltoallv(struct test_case *test)
{
    const int n_rank = test->topology->n_rank;
    test_fill_alltoallv(test, 0);
    MT_TEST_OK(mt_plan_init(&test->plan, mt_plan_alltoallv_direct_max_op(n_rank)));
    mt_plan_alltoallv_direct(&test->plan, test->topology, test->rank, test->counts,
                             test->counts + n_rank);
}

static void create_allgatherv(struct test_case *test)
{
    const int n_rank = test->topology->n_rank;
    int64_t *bytes = test->counts;
    for (int rank = 0; rank < n_rank; ++rank) {
        bytes[rank] = test_block_bytes(test, 0, rank);
    }
    test_case_allocate(test, bytes[test->rank], mt_blocks_before(bytes, n_rank) + 8, 0);
    test_fill(test->element, test->buffer[MT_BUFFER_SEND], bytes[test->rank],
              test_stream_of(test, test->rank), 0);
    test_case_freeze(test);
    for (int rank = 0; rank < n_rank; ++rank) {
        test_fill(test->element, test->want + mt_blocks_before(bytes, rank), bytes[rank],
                  test_stream_of(test, rank), 0);
    }
    MT_TEST_OK(mt_plan_init(&test->plan, mt_plan_allgatherv_max_op(n_rank)));
    mt_plan_allgatherv(&test->plan, test->topology, test->rank, bytes);
}

static void create_reduce_scatter(struct test_case *test)
{
    const int n_rank = test->topology->n_rank;
    int64_t *bytes = test->counts;
    for (int rank = 0; rank < n_rank; ++rank) {
        bytes[rank] = test_block_bytes(test, 0, rank);
    }
    const int64_t mine = bytes[test->rank];
    test_case_allocate(test, mt_blocks_before(bytes, n_rank), mine + 8,
                       mt_plan_reduce_scatter_stage_bytes(n_rank, test->rank, bytes));
    char *send = test->buffer[MT_BUFFER_SEND];
    for (int rank = 0; rank < n_rank; ++rank) {
        test_fill(test->element, send + mt_blocks_before(bytes, rank), bytes[rank],
                  test_stream_of(test, test->rank), (uint64_t)rank);
    }
    test_case_freeze(test);
    char *block = allocate(mine);
    for (int source = 0; source < n_rank; ++source) {
        char *to = source == 0 ? test->want : block;
        test_fill(test->element, to, mine, test_stream_of(test, source), (uint64_t)test->rank);
        if (source > 0) {
            test_add(test->element, test->want, block, mine);
        }
    }
    mt_memory_free(block);
    MT_TEST_OK(mt_plan_init(&test->plan, mt_plan_reduce_scatter_max_op(n_rank)));
    mt_plan_reduce_scatter(&test->plan, test->topology, test->rank, bytes, test->element);
}

/* want = sum over nodes of (sum over the node's members), node by node, member by member. */
static void want_allreduce(struct test_case *test, int64_t n_bytes)
{
    const struct mt_topology *topology = test->topology;
    char *node_sum = allocate(n_bytes);
    char *vector = allocate(n_bytes);
    for (int node = 0; node < topology->n_node; ++node) {
        for (int i = topology->node_start[node]; i < topology->node_start[node + 1]; ++i) {
            const bool is_first = i == topology->node_start[node];
            test_fill(test->element, is_first ? node_sum : vector, n_bytes,
                      test_stream_of(test, topology->member[i]), 0);
            if (!is_first) {
                test_add(test->element, node_sum, vector, n_bytes);
            }
        }
        if (node == 0) {
            memcpy(test->want, node_sum, (size_t)n_bytes);
        } else {
            test_add(test->element, test->want, node_sum, n_bytes);
        }
    }
    mt_memory_free(vector);
    mt_memory_free(node_sum);
}

static void create_allreduce(struct test_case *test)
{
    static const enum mt_element elements[] = {MT_ELEMENT_F32, MT_ELEMENT_F64, MT_ELEMENT_I64};
    test->element = elements[test->spec.seed % 3];
    int64_t n_bytes = test->spec.scale * mt_element_bytes(test->element);
    n_bytes = test->spec.shape == TEST_NOTHING ? 0 : n_bytes;
    test_case_allocate(test, n_bytes, n_bytes + 8,
                       mt_plan_allreduce_stage_bytes(test->topology, n_bytes));
    test_fill(test->element, test->buffer[MT_BUFFER_SEND], n_bytes,
              test_stream_of(test, test->rank), 0);
    test_case_freeze(test);
    want_allreduce(test, n_bytes);
    MT_TEST_OK(mt_plan_init(&test->plan, mt_plan_allreduce_max_op(test->topology)));
    mt_plan_allreduce(&test->plan, test->topology, test->rank, n_bytes, test->element);
}

void test_case_create(struct test_case *test, struct test_spec spec,
                      const struct mt_topology *topology, int rank)
{
    static void (*const create[TEST_N_KIND])(struct test_case *) = {create_alltoallv,
                                                                    create_allgatherv,
                                                                    create_reduce_scatter,
                                                                    create_allreduce,
                                                                    test_create_sparse_gather,
                                                                    test_create_sparse_reduce,
                                                                    test_create_sparse_gather,
                                                                    test_create_sparse_reduce,
                                                                    test_create_sparse_reduce,
                                                                    test_create_by_way_of_others,
                                                                    test_create_by_way_of_others,
                                                                    test_create_deduplicated,
                                                                    test_create_row_numbers,
                                                                    test_create_sparse_gather,
                                                                    test_create_sparse_reduce,
                                                                    test_create_sparse_gather,
                                                                    test_create_deduplicated};
    const bool is_sum =
        spec.kind == TEST_REDUCE_SCATTER || spec.kind == TEST_SPARSE_REDUCE_SCATTER ||
        spec.kind == TEST_SPARSE_REDUCE_RELAY || spec.kind == TEST_SPARSE_REDUCE_PACED ||
        spec.kind == TEST_SPARSE_REDUCE_CHAIN;
    const enum mt_element usual = is_sum ? MT_ELEMENT_F32 : MT_ELEMENT_BYTE;
    *test = (struct test_case){.spec = spec,
                               .topology = topology,
                               .rank = rank,
                               .element = spec.element != MT_ELEMENT_BYTE ? spec.element : usual};
    MT_TEST_OK(MT_ALLOCATE(test->counts, 2 * (int64_t)topology->n_rank, "test"));
    create[spec.kind](test);
}

static void verify(const struct test_case *test, const char *what, const char *got,
                   const char *want, int64_t n_bytes)
{
    for (int64_t i = 0; i < n_bytes; ++i) {
        if (got[i] != want[i]) {
            fail_msg(
                "%s: rank %d of %d (%d nodes), shape %d, seed %llu: byte %lld of %lld of %s is "
                "%02x and should be %02x",
                test_kind_name(test->spec.kind), test->rank, test->topology->n_rank,
                test->topology->n_node, (int)test->spec.shape, (unsigned long long)test->spec.seed,
                (long long)i, (long long)n_bytes, what, (unsigned char)got[i],
                (unsigned char)want[i]);
        }
    }
}

void test_case_verify(const struct test_case *test)
{
    verify(test, "RECV", test->buffer[MT_BUFFER_RECV], test->want,
           test->buffer_bytes[MT_BUFFER_RECV]);
    /* who passes sums on leaves partial ones in its copies */
    if (!test->spec.is_one_buffer && test->spec.kind != TEST_SPARSE_REDUCE_RELAY &&
        test->spec.kind != TEST_SPARSE_REDUCE_CHAIN) {
        verify(test, "SEND", test->buffer[MT_BUFFER_SEND], test->send_before,
               test->buffer_bytes[MT_BUFFER_SEND]);
    }
}

void test_case_clear(struct test_case *test)
{
    mt_plan_clear(&test->plan);
    mt_memory_free(test->buffer[MT_BUFFER_SEND]);
    if (!test->spec.is_one_buffer) {
        mt_memory_free(test->buffer[MT_BUFFER_RECV]);
    }
    mt_memory_free(test->buffer[MT_BUFFER_STAGE]);
    mt_memory_free(test->send_before);
    mt_memory_free(test->want);
    mt_memory_free(test->counts);
    mt_memory_free(test->sparse_int);
    mt_memory_free(test->sparse_long);
    *test = (struct test_case){0};
}
