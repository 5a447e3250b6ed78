/* What the all-to-alls that know nodes send between nodes: bytes and messages, counted in plans. */
#include "support/test.h"

#include "base/memory.h"
#include "base/random.h"
#include "comm/collectives.h"

#include <string.h>

enum { MAX_RANK = 64, N_EXPERT = 64, TOP_K = 8, N_TOKEN = 256, WIDTH = 64, SEED = 5 };

/* Messages and bytes of a plan that leave its rank's node. */
struct crossing {
    int64_t n_message, n_bytes;
};

static struct crossing crossing_of(const struct mt_plan *plan, const struct mt_topology *topology,
                                   int rank)
{
    struct crossing crossing = {0, 0};
    for (int64_t i = 0; i < plan->n_op; ++i) {
        const struct mt_op *op = &plan->op[i];
        if (op->kind == MT_OP_SEND && topology->node[op->peer] != topology->node[rank]) {
            ++crossing.n_message;
            crossing.n_bytes += op->n_bytes;
        }
    }
    return crossing;
}

static void eight_nodes_of_eight_get_one_message_a_node(void **state)
{
    enum { N_RANK = 64, PAIR_BYTES = 1024 };
    MT_UNUSED(state);
    struct mt_topology topology;
    struct mt_plan plan;
    static int64_t bytes[N_RANK * N_RANK];
    MT_TEST_OK(mt_topology_init(&topology, N_RANK, 8));
    for (int i = 0; i < N_RANK * N_RANK; ++i) {
        bytes[i] = PAIR_BYTES;
    }
    for (int rank = 0; rank < N_RANK; ++rank) {
        MT_TEST_OK(mt_plan_init(&plan, mt_plan_alltoallv_two_level_max_op(&topology, rank)));
        mt_plan_alltoallv_two_level(&plan, &topology, rank, bytes);
        const struct crossing two = crossing_of(&plan, &topology, rank);
        assert_int_equal(two.n_message, 7); /* direct: 56 */
        assert_int_equal(two.n_bytes, 56 * PAIR_BYTES);
        mt_plan_clear(&plan);
        MT_TEST_OK(mt_plan_init(&plan, mt_plan_alltoallv_leader_max_op(&topology, rank)));
        mt_plan_alltoallv_leader(&plan, &topology, rank, bytes);
        const struct crossing leader = crossing_of(&plan, &topology, rank);
        assert_int_equal(leader.n_message, rank % 8 == 0 ? 7 : 0);
        assert_int_equal(leader.n_bytes, rank % 8 == 0 ? 8 * 56 * PAIR_BYTES : 0);
        mt_plan_clear(&plan);
    }
    mt_topology_clear(&topology);
}

static void one_node_and_nodes_of_one_need_no_stage(void **state)
{
    MT_UNUSED(state);
    int64_t bytes[16];
    memset(bytes, 1, sizeof(bytes));
    for (int ranks_per_node = 0; ranks_per_node <= 1; ++ranks_per_node) {
        struct mt_topology topology;
        MT_TEST_OK(mt_topology_init(&topology, 4, ranks_per_node));
        for (int rank = 0; rank < 4; ++rank) {
            assert_int_equal(mt_plan_alltoallv_two_level_stage_bytes(&topology, rank, bytes), 0);
            assert_int_equal(mt_plan_alltoallv_two_level_stage_bound(&topology, rank, 1, 1), 0);
        }
        mt_topology_clear(&topology);
    }
}

/* Every token of every rank goes to TOP_K different ones of N_EXPERT experts, drawn evenly. */
struct routing {
    struct mt_topology topology;
    int64_t n_row[MAX_RANK * MAX_RANK];
    int32_t token[MAX_RANK][N_TOKEN * TOP_K]; /* of the rows by target */
    int32_t number[MAX_RANK][N_TOKEN * TOP_K];
};

static void draw_experts(int rank, int token, int *expert)
{
    uint64_t draw = 0;
    for (int n = 0; n < TOP_K;) {
        const uint64_t stream = (uint64_t)rank * N_TOKEN + (uint64_t)token;
        const int e = (int)(mt_random_u64(SEED, stream, draw++) % N_EXPERT);
        bool is_new = true;
        for (int i = 0; i < n; ++i) {
            is_new = is_new && expert[i] != e;
        }
        expert[n] = e;
        n += is_new ? 1 : 0;
    }
}

static void draw_routing(struct routing *routing, int n_rank, int ranks_per_node)
{
    static int64_t seen[N_TOKEN];
    static int expert[N_TOKEN][TOP_K];
    MT_TEST_OK(mt_topology_init(&routing->topology, n_rank, ranks_per_node));
    memset(routing->n_row, 0, sizeof(routing->n_row));
    for (int rank = 0; rank < n_rank; ++rank) {
        int64_t n = 0;
        for (int token = 0; token < N_TOKEN; ++token) {
            draw_experts(rank, token, expert[token]);
        }
        for (int target = 0; target < n_rank; ++target) {
            const int64_t before = n;
            for (int i = 0; i < N_TOKEN * TOP_K; ++i) {
                if (expert[i / TOP_K][i % TOP_K] / (N_EXPERT / n_rank) == target) {
                    routing->token[rank][n++] = i / TOP_K;
                }
            }
            routing->n_row[rank * n_rank + target] = n - before;
        }
    }
    for (int rank = 0; rank < n_rank; ++rank) {
        mt_rows_number(&routing->topology, rank, routing->n_row, routing->token[rank], N_TOKEN,
                       seen, routing->number[rank]);
    }
}

/* Bytes between nodes of one rank's plan on the way there, and of what tells the numbers. The
 * numbers of what it relays are any: only its own sends are counted. */
static int64_t deduplicated_bytes(const struct routing *routing, int rank, bool tells)
{
    struct mt_plan plan;
    const struct mt_topology *topology = &routing->topology;
    const int64_t n_sent = mt_rows_n_sent(topology, rank, routing->n_row);
    const int64_t n_relayed = mt_rows_n_relayed(topology, rank, routing->n_row);
    int32_t *relayed = NULL;
    MT_TEST_OK(MT_ALLOCATE(relayed, n_relayed, "test"));
    const struct mt_rows rows = {.n_row = routing->n_row,
                                 .row_bytes = WIDTH * 4,
                                 .tail_bytes = 4,
                                 .sent = routing->number[rank],
                                 .relayed = relayed};
    if (tells) {
        MT_TEST_OK(mt_plan_init(&plan, mt_plan_row_numbers_max_op(topology, rank)));
        mt_plan_reset(&plan, "row_numbers", MT_ELEMENT_BYTE);
        mt_plan_row_numbers(&plan, topology, rank, routing->n_row, 0, 0);
    } else {
        MT_TEST_OK(mt_plan_init(
            &plan, mt_plan_alltoallv_deduplicated_max_op(topology, rank, n_sent, n_relayed)));
        mt_plan_alltoallv_deduplicated(&plan, topology, rank, &rows, false);
    }
    const struct crossing crossing = crossing_of(&plan, topology, rank);
    assert_true(crossing.n_message <= topology->n_node - 1);
    mt_plan_clear(&plan);
    mt_memory_free(relayed);
    return crossing.n_bytes;
}

static void top_8_of_64_on_4_nodes_sends_under_0_6_of_direct(void **state)
{
    static const int ranks[] = {4, 8, 32, 64};
    static struct routing routing;
    MT_UNUSED(state);
    for (int i = 0; i < 4; ++i) {
        const int n_rank = ranks[i];
        int64_t direct = 0;
        int64_t deduplicated = 0;
        draw_routing(&routing, n_rank, n_rank / 4);
        for (int rank = 0; rank < n_rank; ++rank) {
            direct += mt_rows_n_sent(&routing.topology, rank, routing.n_row) * (WIDTH + 1) * 4;
            deduplicated += deduplicated_bytes(&routing, rank, false);
            deduplicated += deduplicated_bytes(&routing, rank, true);
        }
        print_message("%d ranks: %.3f of direct's bytes\n", n_rank,
                      (double)deduplicated / (double)direct);
        assert_true(deduplicated * 10 <= direct * 6);
        assert_true(deduplicated * 10 >= direct * 4); /* 2.74 of 6 rows stay: nothing is lost */
        mt_topology_clear(&routing.topology);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_nodes_of_eight_get_one_message_a_node),
        cmocka_unit_test(one_node_and_nodes_of_one_need_no_stage),
        cmocka_unit_test(top_8_of_64_on_4_nodes_sends_under_0_6_of_direct),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
