#include "comm/case_sparse.h"

#include "support/test.h"

#include "base/memory.h"

#include <string.h>

enum { GAP_BYTES = 16 };

static bool is_relayed(const struct test_case *test)
{
    return test->spec.kind == TEST_SPARSE_ALLGATHER_RELAY ||
           test->spec.kind == TEST_SPARSE_REDUCE_RELAY;
}

static bool may_own_copies(const struct test_case *test)
{
    return test->spec.kind == TEST_SPARSE_ALLGATHER_OWN ||
           test->spec.kind == TEST_SPARSE_REDUCE_PACED;
}

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
        chunk_bytes[chunk] = 8 * (int64_t)(bits % (uint64_t)test->spec.scale);
        for (int rank = 0; rank < n_rank; ++rank) {
            if ((rank != owner[chunk] || may_own_copies(test)) &&
                pick_holder(test, chunk, rank, special)) {
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

static struct mt_relay *create_relay(const struct test_case *test)
{
    struct mt_relay *relay = NULL;
    MT_TEST_OK(mt_relay_create(test->topology, test->sparse.n_chunk,
                               test->sparse.holder_start[test->sparse.n_chunk], 0, &relay));
    return relay;
}

static struct mt_chain *create_chain(const struct test_case *test)
{
    struct mt_chain *chain = NULL;
    MT_TEST_OK(mt_chain_create(test->topology, test->sparse.n_chunk,
                               test->sparse.holder_start[test->sparse.n_chunk], &chain));
    return chain;
}

static int64_t piece_bytes_of(const struct test_case *test)
{
    return 32 * (int64_t)(1 + test->spec.seed % 5); /* up to 10 a chunk */
}

static void create_chained_gather(struct test_case *test)
{
    struct mt_chain *chain = create_chain(test);
    const int64_t piece_bytes = piece_bytes_of(test);
    MT_TEST_OK(mt_plan_init(&test->plan, mt_chain_needs(chain, &test->sparse, piece_bytes).n_op));
    mt_plan_sparse_allgather_chain(&test->plan, test->rank, &test->sparse, chain, piece_bytes,
                                   test->home_offset, test->copy_offset);
    mt_chain_destroy(chain);
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
    if (test->spec.kind == TEST_SPARSE_ALLGATHER_CHAIN) {
        create_chained_gather(test);
        return;
    }
    if (is_relayed(test)) {
        struct mt_relay *relay = create_relay(test);
        const int64_t max_op =
            mt_plan_sparse_relay_max_op(test->topology->n_rank, test->sparse.n_chunk);
        MT_TEST_OK(mt_plan_init(&test->plan, max_op));
        mt_plan_sparse_allgather_relay(&test->plan, test->rank, &test->sparse, relay,
                                       test->home_offset, test->copy_offset);
        mt_relay_destroy(relay);
        return;
    }
    MT_TEST_OK(mt_plan_init(&test->plan, mt_plan_sparse_max_op(test->rank, &test->sparse)));
    mt_plan_sparse_allgather(&test->plan, test->rank, &test->sparse, test->home_offset,
                             test->copy_offset);
}

/* Own chunks in `want` become the sums that the direct algorithm must give. */
static void want_rank_order(struct test_case *test)
{
    char *arrival = NULL;
    MT_TEST_OK(MT_ALLOCATE(arrival, 8 * test->spec.scale, "test"));
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
}

static void create_paced_reduce(struct test_case *test)
{
    const int n_rank = test->topology->n_rank;
    char *arrival = NULL;
    MT_TEST_OK(MT_ALLOCATE(arrival, 8 * test->spec.scale, "test"));
    /* windows of distances: 0 alone, then MT_PACED_PEERS at a time */
    for (int first = 0; first < n_rank; first += first == 0 ? 1 : MT_PACED_PEERS) {
        const int end = first == 0 ? 1 : first + MT_PACED_PEERS;
        for (int64_t chunk = 0; chunk < test->sparse.n_chunk; ++chunk) {
            for (int rank = 0; rank < n_rank && test->sparse.owner[chunk] == test->rank; ++rank) {
                const int distance = (test->rank - rank + n_rank) % n_rank;
                if (distance >= first && distance < end && holds(&test->sparse, chunk, rank)) {
                    fill_chunk(test, arrival, chunk, rank);
                    test_add(test->element, test->want + test->home_offset[chunk], arrival,
                             test->sparse.chunk_bytes[chunk]);
                }
            }
        }
    }
    mt_memory_free(arrival);
    MT_TEST_OK(mt_plan_init(&test->plan, mt_plan_sparse_max_op(test->rank, &test->sparse)));
    mt_plan_sparse_reduce_scatter_paced(&test->plan, test->rank, n_rank, &test->sparse,
                                        test->home_offset, test->copy_offset, test->element);
}

/* The same along the hops, last round first: every rank's sum of one chunk at a time, [R, bytes].
 * What relays do, without plans, rounds of messages or stages. */
static void want_hop_order(struct test_case *test, const struct mt_route_list *list)
{
    const int64_t room = 8 * test->spec.scale;
    char *sum = NULL;
    MT_TEST_OK(MT_ALLOCATE(sum, room * test->topology->n_rank, "test"));
    for (int64_t chunk = 0; chunk < test->sparse.n_chunk; ++chunk) {
        const int64_t n_bytes = test->sparse.chunk_bytes[chunk];
        if (test->sparse.owner[chunk] != test->rank) {
            continue;
        }
        for (int rank = 0; rank < test->topology->n_rank; ++rank) {
            fill_chunk(test, sum + rank * room, chunk, rank);
        }
        for (int round = list->n_round - 1; round >= 0; --round) {
            for (int64_t i = 0; i < list->n_hop; ++i) {
                const struct mt_hop *hop = &list->hop[i];
                if (hop->round == round && hop->chunk == chunk) {
                    test_add(test->element, sum + hop->from * room, sum + hop->to * room, n_bytes);
                }
            }
        }
        if (test->sparse.owner[chunk] == test->rank) {
            memcpy(test->want + test->home_offset[chunk], sum + test->rank * room, (size_t)n_bytes);
        }
    }
    mt_memory_free(sum);
}

static void create_relayed_reduce(struct test_case *test)
{
    struct mt_relay *relay = create_relay(test);
    if (test->element == MT_ELEMENT_I64) {
        want_rank_order(test); /* exact in any order */
    } else {
        const struct mt_route_list list = mt_relay_route(relay, &test->sparse);
        want_hop_order(test, &list);
    }
    MT_TEST_OK(mt_plan_init(
        &test->plan, mt_plan_sparse_relay_max_op(test->topology->n_rank, test->sparse.n_chunk)));
    mt_plan_sparse_reduce_scatter_relay(&test->plan, test->rank, &test->sparse, relay,
                                        test->home_offset, test->copy_offset, test->element);
    mt_relay_destroy(relay);
}

/* Who adds up in that node: the owner at home, else the holder whose turn it is; -1: nobody. */
static int chain_head(const struct test_case *test, int64_t chunk, int node)
{
    const struct mt_topology *topology = test->topology;
    const int owner = test->sparse.owner[chunk];
    int n_holder = 0;
    for (int rank = 0; rank < topology->n_rank; ++rank) {
        n_holder += topology->node[rank] == node && holds(&test->sparse, chunk, rank) ? 1 : 0;
    }
    if (topology->node[owner] == node || n_holder == 0) {
        return topology->node[owner] == node ? owner : -1;
    }
    int turn = topology->local[owner] % n_holder;
    int rank = 0;
    while (topology->node[rank] != node || !holds(&test->sparse, chunk, rank) || turn-- > 0) {
        ++rank;
    }
    return rank;
}

/* The copy of each node's head, those of its others by rank, then the sum of the nodes behind. */
static void want_chain_order(struct test_case *test, int64_t chunk)
{
    const struct mt_topology *topology = test->topology;
    const int64_t n_bytes = test->sparse.chunk_bytes[chunk];
    const int home = topology->node[test->sparse.owner[chunk]];
    bool is_any_behind = false;
    char *behind = NULL;
    char *sum = NULL;
    char *copy = NULL;
    MT_TEST_OK(MT_ALLOCATE(behind, 8 * test->spec.scale, "test"));
    MT_TEST_OK(MT_ALLOCATE(sum, 8 * test->spec.scale, "test"));
    MT_TEST_OK(MT_ALLOCATE(copy, 8 * test->spec.scale, "test"));
    for (int hop = topology->n_node - 1; hop >= 0; --hop) {
        const int node = (home + hop) % topology->n_node;
        const int head = chain_head(test, chunk, node);
        if (head < 0) {
            continue;
        }
        fill_chunk(test, sum, chunk, head);
        for (int rank = 0; rank < topology->n_rank; ++rank) {
            if (topology->node[rank] == node && rank != head && holds(&test->sparse, chunk, rank)) {
                fill_chunk(test, copy, chunk, rank);
                test_add(test->element, sum, copy, n_bytes);
            }
        }
        if (is_any_behind) {
            test_add(test->element, sum, behind, n_bytes);
        }
        memcpy(behind, sum, (size_t)n_bytes);
        is_any_behind = true;
    }
    memcpy(test->want + test->home_offset[chunk], sum, (size_t)n_bytes);
    mt_memory_free(behind);
    mt_memory_free(sum);
    mt_memory_free(copy);
}

static void create_chained_reduce(struct test_case *test)
{
    struct mt_chain *chain = create_chain(test);
    const int64_t *const offset[2] = {test->home_offset, test->copy_offset};
    const int64_t piece_bytes = piece_bytes_of(test);
    for (int64_t chunk = 0; chunk < test->sparse.n_chunk; ++chunk) {
        if (test->sparse.owner[chunk] == test->rank) {
            want_chain_order(test, chunk);
        }
    }
    MT_TEST_OK(mt_plan_init(&test->plan, mt_chain_needs(chain, &test->sparse, piece_bytes).n_op));
    mt_plan_sparse_reduce_scatter_chain(&test->plan, test->rank, &test->sparse, chain, piece_bytes,
                                        offset, test->element);
    mt_chain_destroy(chain);
}

static int64_t stage_bytes_of(const struct test_case *test)
{
    if (is_relayed(test)) {
        return mt_plan_sparse_relay_stage_bytes(&test->sparse);
    }
    if (may_own_copies(test)) {
        return mt_plan_sparse_paced_stage_bytes(test->rank, test->topology->n_rank, &test->sparse);
    }
    if (test->spec.kind == TEST_SPARSE_REDUCE_CHAIN) {
        struct mt_chain *chain = create_chain(test);
        const int64_t piece_bytes = piece_bytes_of(test);
        const int64_t n = mt_chain_needs(chain, &test->sparse, piece_bytes).n_arrival;
        mt_chain_destroy(chain);
        return n * piece_bytes;
    }
    return mt_plan_sparse_reduce_stage_bytes(test->rank, &test->sparse);
}

void test_create_sparse_reduce(struct test_case *test)
{
    int64_t bytes[2];
    if (is_relayed(test) && test->spec.seed % 2 == 1) {
        test->element = MT_ELEMENT_I64;
    }
    create_sparse(test);
    lay_out(test, bytes);
    test_case_allocate(test, bytes[1], bytes[0], stage_bytes_of(test));
    fill_own(test, test->buffer[MT_BUFFER_RECV], test->buffer[MT_BUFFER_SEND]);
    test_case_freeze(test);
    if (is_relayed(test)) {
        create_relayed_reduce(test);
        return;
    }
    if (may_own_copies(test)) {
        create_paced_reduce(test);
        return;
    }
    if (test->spec.kind == TEST_SPARSE_REDUCE_CHAIN) {
        create_chained_reduce(test);
        return;
    }
    want_rank_order(test);
    MT_TEST_OK(mt_plan_init(&test->plan, mt_plan_sparse_max_op(test->rank, &test->sparse)));
    mt_plan_sparse_reduce_scatter(&test->plan, test->rank, &test->sparse, test->home_offset,
                                  test->copy_offset, test->element);
}
