/* The hops alone, for all ranks at once: who may send, over which links, how often. */
#include "support/test.h"

#include "base/memory.h"
#include "comm/cases.h"

#include <string.h>

enum { MAX_RANK = 64, MAX_CHUNK = 256, MAX_COPY = MAX_CHUNK * MAX_RANK };

/* A distribution in static memory, and what routing it led to. */
static struct {
    int64_t bytes[MAX_CHUNK], holder_start[MAX_CHUNK + 1];
    int owner[MAX_CHUNK], holder[MAX_COPY];
    struct mt_sparse sparse;
    int round_of[MAX_CHUNK][MAX_RANK]; /* in which a rank has the chunk first; -1: never */
    int n_sent[MAX_RANK], most_sent;
    int64_t n_network;
} world;

static void begin_chunks(void)
{
    memset(&world, 0, sizeof(world));
    world.sparse = (struct mt_sparse){.chunk_bytes = world.bytes,
                                      .owner = world.owner,
                                      .holder_start = world.holder_start,
                                      .holder = world.holder};
}

/* Held by the ranks of `mask` without the owner. */
static void add_chunk(int owner, int64_t n_bytes, uint64_t mask)
{
    const int64_t chunk = world.sparse.n_chunk++;
    int64_t n = world.holder_start[chunk];
    assert_true(chunk < MAX_CHUNK);
    world.owner[chunk] = owner;
    world.bytes[chunk] = n_bytes;
    for (int rank = 0; rank < MAX_RANK; ++rank) {
        if (rank != owner && (mask >> rank & 1) != 0) {
            world.holder[n++] = rank;
        }
    }
    world.holder_start[chunk + 1] = n;
}

static void check_hop(const struct mt_topology *topology, const struct mt_route_list *list,
                      const struct mt_hop *hop)
{
    assert_true(hop->round >= 0 && hop->round < list->n_round);
    assert_true(world.bytes[hop->chunk] > 0);
    assert_int_equal(world.round_of[hop->chunk][hop->to], -1);
    const int has_since = world.round_of[hop->chunk][hop->from];
    assert_true(has_since >= 0 && has_since <= hop->round); /* before this round's messages */
    assert_true(!list->is_direct || hop->from == world.owner[hop->chunk]);
    bool is_new_node = true;
    for (int rank = 0; rank < topology->n_rank; ++rank) {
        const bool is_there = topology->node[rank] == topology->node[hop->to];
        is_new_node = is_new_node && !(is_there && world.round_of[hop->chunk][rank] >= 0);
    }
    const bool is_network = topology->node[hop->from] != topology->node[hop->to];
    assert_true(list->is_direct || is_network == is_new_node); /* once over the network */
    world.n_network += is_network ? 1 : 0;
    world.n_sent[hop->from] += 1;
    world.most_sent =
        world.n_sent[hop->from] > world.most_sent ? world.n_sent[hop->from] : world.most_sent;
    world.round_of[hop->chunk][hop->to] = hop->round + 1;
}

/* Ports of every round, then that all holders have their copies and nobody else. */
static void check_route(const struct mt_topology *topology, const struct mt_route_list *list)
{
    memset(world.round_of, -1, sizeof(world.round_of));
    for (int64_t chunk = 0; chunk < world.sparse.n_chunk; ++chunk) {
        world.round_of[chunk][world.owner[chunk]] = 0;
    }
    int n_out[MAX_RANK] = {0};
    int n_in[MAX_RANK] = {0};
    for (int64_t i = 0; i < list->n_hop; ++i) {
        const struct mt_hop *hop = &list->hop[i];
        if (i > 0 && hop->round != list->hop[i - 1].round) {
            assert_int_equal(hop->round, list->hop[i - 1].round + 1);
            memset(n_out, 0, sizeof(n_out));
            memset(n_in, 0, sizeof(n_in));
        }
        assert_true(++n_out[hop->from] <= MT_RELAY_PORTS);
        assert_true(++n_in[hop->to] <= MT_RELAY_PORTS);
        check_hop(topology, list, hop);
    }
    int64_t n_copy = 0;
    for (int64_t chunk = 0; chunk < world.sparse.n_chunk; ++chunk) {
        const int64_t end = world.holder_start[chunk + 1];
        for (int64_t i = world.holder_start[chunk]; i < end && world.bytes[chunk] > 0; ++i) {
            assert_true(world.round_of[chunk][world.holder[i]] > 0);
            ++n_copy;
        }
    }
    assert_int_equal(list->n_hop, n_copy);
}

static struct mt_route_list route(struct mt_relay *relay, const struct mt_topology *topology)
{
    const struct mt_route_list list = mt_relay_route(relay, &world.sparse);
    check_route(topology, &list);
    return list;
}

static void random_distributions_reach_every_holder_once(void **state)
{
    static const int n_ranks[] = {1, 2, 3, 5, 8, 13, 64};
    MT_UNUSED(state);
    for (int i = 0; i < 7; ++i) {
        int node[MAX_RANK];
        for (uint64_t seed = 0; seed < 300; ++seed) {
            const int n_rank = n_ranks[i];
            const uint64_t n_node = 1 + test_mix(seed, 1, 1) % 6;
            for (int rank = 0; rank < n_rank; ++rank) { /* uneven, and not in order */
                node[rank] = (int)(test_mix(seed, 2, (uint64_t)rank) % n_node);
            }
            struct mt_topology topology;
            struct mt_relay *relay = NULL;
            MT_TEST_OK(mt_topology_init_nodes(&topology, n_rank, node));
            begin_chunks();
            const uint64_t all = n_rank == 64 ? UINT64_MAX : (1ULL << n_rank) - 1;
            const int n_chunk = (int)(test_mix(seed, 3, 1) % 24);
            for (int chunk = 0; chunk < n_chunk; ++chunk) {
                const uint64_t bits = test_mix(seed, 4, (uint64_t)chunk);
                const uint64_t sparse = test_mix(seed, 5, (uint64_t)chunk) & bits;
                const bool is_hot = bits % 4 == 0;
                add_chunk((int)((bits >> 8) % (uint64_t)(is_hot ? 1 : n_rank)),
                          bits % 9 == 0 ? 0 : 64, all & (is_hot ? UINT64_MAX : sparse));
            }
            MT_TEST_OK(mt_relay_create(&topology, MAX_CHUNK, MAX_COPY, 0, &relay));
            const int64_t n_allocated = mt_memory_n_allocated();
            (void)route(relay, &topology);
            (void)route(relay, &topology); /* nothing is left of the first time */
            assert_int_equal(mt_memory_n_allocated(), n_allocated);
            mt_relay_destroy(relay);
            mt_topology_clear(&topology);
        }
    }
}

/* 8 experts of rank 0 on all 64 ranks: alone it would send 504. */
static void a_hot_owner_sends_little_more_than_others_receive(void **state)
{
    static const int ranks_per_node[] = {0, 8};
    MT_UNUSED(state);
    for (int i = 0; i < 2; ++i) {
        struct mt_topology topology;
        struct mt_relay *relay = NULL;
        MT_TEST_OK(mt_topology_init(&topology, 64, ranks_per_node[i]));
        MT_TEST_OK(mt_relay_create(&topology, MAX_CHUNK, MAX_COPY, 0, &relay));
        begin_chunks();
        for (int chunk = 0; chunk < 8; ++chunk) {
            add_chunk(0, 64, UINT64_MAX);
        }
        const struct mt_route_list list = route(relay, &topology);
        assert_false(list.is_direct);
        assert_int_equal(world.most_sent, i == 0 ? 14 : 26); /* each rank receives 8 */
        assert_int_equal(list.n_round, i == 0 ? 8 : 13);
        assert_int_equal(world.n_network, i == 0 ? 0 : 8 * 7);
        mt_relay_destroy(relay);
        mt_topology_clear(&topology);
    }
}

/* Everybody owns two chunks that all hold: nothing to spread inside a node. */
static void even_owners_send_themselves(void **state)
{
    MT_UNUSED(state);
    struct mt_topology topology;
    struct mt_relay *relay = NULL;
    MT_TEST_OK(mt_topology_init(&topology, 7, 0));
    MT_TEST_OK(mt_relay_create(&topology, MAX_CHUNK, MAX_COPY, 0, &relay));
    begin_chunks();
    for (int chunk = 0; chunk < 14; ++chunk) {
        add_chunk(chunk % 7, 64, 0x7f);
    }
    const struct mt_route_list list = route(relay, &topology);
    assert_true(list.is_direct);
    assert_int_equal(world.most_sent, 12);
    assert_true(list.n_round <= 8); /* 6 at two ports, were every round full */
    mt_relay_destroy(relay);
    mt_topology_clear(&topology);
}

/* Too many copies to choose well one by one: 133 chunks on 64 ranks. */
static void copies_of_everything_everywhere_are_passed_on_in_a_fixed_order(void **state)
{
    MT_UNUSED(state);
    for (int n_node = 1; n_node < 9; n_node += 3) {
        int node[MAX_RANK];
        struct mt_topology topology;
        struct mt_relay *relay = NULL;
        for (int rank = 0; rank < MAX_RANK; ++rank) { /* uneven: node 0 has a fourth more */
            node[rank] = rank < 16 ? 0 : rank * 5 % n_node;
        }
        MT_TEST_OK(mt_topology_init_nodes(&topology, MAX_RANK, node));
        MT_TEST_OK(mt_relay_create(&topology, MAX_CHUNK, MAX_COPY, 0, &relay));
        begin_chunks();
        for (int chunk = 0; chunk < 133; ++chunk) {
            add_chunk(chunk * 64 / 133, chunk == 5 ? 0 : 64, UINT64_MAX);
        }
        const struct mt_route_list list = route(relay, &topology);
        assert_int_equal(list.is_direct, n_node == 1);
        assert_false(list.is_deep);
        assert_true(world.n_network <= (int64_t)132 * (n_node - 1));
        assert_true(list.n_round <= 2 * 66); /* 131 or 132 arrivals a rank, at two ports */
        mt_relay_destroy(relay);
        mt_topology_clear(&topology);
    }
}

static void little_is_sent_directly(void **state)
{
    MT_UNUSED(state);
    for (int64_t n_bytes = 1023; n_bytes < 1025; ++n_bytes) {
        struct mt_topology topology;
        struct mt_relay *relay = NULL;
        MT_TEST_OK(mt_topology_init(&topology, 9, 3));
        MT_TEST_OK(mt_relay_create(&topology, MAX_CHUNK, MAX_COPY, 8 * 1024, &relay));
        begin_chunks();
        add_chunk(0, n_bytes, 0x1ff); /* eight times */
        const struct mt_route_list list = route(relay, &topology);
        assert_int_equal(list.is_direct, n_bytes < 1024);
        mt_relay_destroy(relay);
        mt_topology_clear(&topology);
    }
}

static void a_chunk_for_several_ranks_of_a_node_is_relayed_there(void **state)
{
    MT_UNUSED(state);
    struct mt_topology topology;
    struct mt_relay *relay = NULL;
    MT_TEST_OK(mt_topology_init(&topology, 6, 3));
    MT_TEST_OK(mt_relay_create(&topology, MAX_CHUNK, MAX_COPY, 0, &relay));
    begin_chunks();
    add_chunk(1, 64, 0x38); /* ranks 3, 4, 5 */
    const struct mt_route_list list = route(relay, &topology);
    assert_false(list.is_direct);
    assert_int_equal(world.n_network, 1);
    assert_int_equal(list.n_round, 2);
    begin_chunks();
    add_chunk(1, 64, 0x08); /* rank 3 alone */
    const struct mt_route_list one = route(relay, &topology);
    assert_true(one.is_direct);
    assert_int_equal(one.n_round, 1);
    mt_relay_destroy(relay);
    mt_topology_clear(&topology);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_distributions_reach_every_holder_once),
        cmocka_unit_test(a_hot_owner_sends_little_more_than_others_receive),
        cmocka_unit_test(even_owners_send_themselves),
        cmocka_unit_test(copies_of_everything_everywhere_are_passed_on_in_a_fixed_order),
        cmocka_unit_test(little_is_sent_directly),
        cmocka_unit_test(a_chunk_for_several_ranks_of_a_node_is_relayed_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
