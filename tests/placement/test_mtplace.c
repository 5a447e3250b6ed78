/* The library's face: what strangers may say, and that it answers as a study does. */
#include "base/memory.h"
#include "base/random.h"
#include "mtplace.h"
#include "placement/study.h"
#include "support/test.h"

#include <string.h>

enum { N_RANK = 6, N_LAYER = 2, N_EXPERT = 9, N_STEP = 7, MAX_INSTANCE = N_RANK * N_EXPERT };
static const int32_t node[N_RANK] = {0, 0, 1, 1, 1, 1};

static void fill(int64_t *counts, uint64_t salt)
{
    for (uint64_t i = 0; i < N_RANK * N_EXPERT; ++i) {
        counts[i] = (int64_t)(mt_random_u64(3, salt, i) % 500) * (i % N_EXPERT == 4 ? 9 : 1);
        counts[i] = i / N_EXPERT == 2 || i % N_EXPERT == 1 ? 0 : counts[i];
    }
}

static mtplace_planner *make(const char *policy)
{
    static const struct {
        const char *name;
        int64_t value;
    } told[] = {{"slots", 2},           {"row_ps", 1000},         {"instance_ps", 5000},
                {"node_kib_ps", 20},    {"network_kib_ps", 90},   {"node_alpha_ps", 7},
                {"row_bytes", 256},     {"network_alpha_ps", 11}, {"expert_bytes", 4096},
                {"attention_ps", 9000}, {"reshard_interval", 3},  {"load_window", 2}};
    mtplace_planner *planner = NULL;
    assert_int_equal(mtplace_create(policy, N_RANK, N_LAYER, N_EXPERT, &planner), 0);
    assert_int_equal(mtplace_set_nodes(planner, node), 0);
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); ++i) {
        assert_int_equal(mtplace_set(planner, told[i].name, told[i].value), 0);
    }
    return planner;
}

/* The same in the project's own words. */
static void make_study(const struct mt_policy *policy, struct mt_cluster *cluster,
                       struct mt_study *study, struct mt_arena *scratch)
{
    int64_t n_bytes = 0;
    MT_TEST_OK(mt_cluster_init(cluster, N_RANK, node));
    cluster->costs = (struct mt_costs){.row_ps = 1000,
                                       .instance_ps = 5000,
                                       .attention_ps = 9000,
                                       .alpha_ps = {0, 7, 11},
                                       .kib_ps = {0, 20, 90}};
    cluster->row_bytes = 256;
    cluster->expert_bytes = 4096;
    const struct mt_study_options options = {.policy = policy,
                                             .cluster = cluster,
                                             .n_layer = N_LAYER,
                                             .n_expert = N_EXPERT,
                                             .n_micro = 1,
                                             .slots = 2,
                                             .overlap = -1,
                                             .calibrate = true,
                                             .rematerialize = true,
                                             .load_window = 2,
                                             .reshard_interval = 3};
    MT_TEST_OK(mt_study_init(study, &options));
    assert_true(mt_study_scratch_bytes(&options, &n_bytes));
    MT_TEST_OK(mt_arena_init(scratch, n_bytes, "scratch"));
}

static void expect_same(const mtplace_planner *planner, const struct mt_placement *now,
                        const int64_t *counts)
{
    int32_t expert[MAX_INSTANCE];
    int32_t rank[MAX_INSTANCE];
    uint8_t is_late[MAX_INSTANCE];
    int64_t quota[N_RANK * MAX_INSTANCE];
    const int64_t n = mtplace_n_instance(planner);
    assert_int_equal(n, mt_placement_n_instance(now));
    assert_int_equal(mtplace_get_placement(planner, expert, rank, is_late), 0);
    assert_int_equal(mtplace_get_placement(planner, NULL, NULL, NULL), 0);
    assert_int_equal(mtplace_get_quota(planner, quota), 0);
    for (int i = 0; i < n; ++i) {
        assert_int_equal(rank[i], now->rank[i]);
        assert_int_equal(is_late[i], now->is_late[i]);
        assert_true(now->instance_start[expert[i]] <= i && i < now->instance_start[expert[i] + 1]);
    }
    mt_split_check(now, counts, quota);
}

static void every_policy_answers_as_a_study_does(void **state)
{
    MT_UNUSED(state);
    int64_t counts[N_RANK * N_EXPERT];
    for (int p = 0; p < mtplace_n_policy(); ++p) {
        struct mt_cluster cluster;
        struct mt_study study;
        struct mt_arena scratch;
        mtplace_planner *planner = make(mtplace_policy_name(p));
        make_study(&mt_policies[p], &cluster, &study, &scratch);
        for (int step = 0; step < N_STEP; ++step) {
            for (int layer = 0; layer < N_LAYER; ++layer) {
                struct mt_prediction expected;
                struct mtplace_prediction got;
                fill(counts, (uint64_t)(step * 10 + layer));
                mt_study_layer(&study, layer, counts, &scratch, &expected);
                assert_int_equal(mtplace_plan_before(planner, layer), 0);
                assert_int_equal(mtplace_plan_after(planner, layer, counts), 0);
                expect_same(planner, &study.now, counts);
                assert_int_equal(mtplace_predict(planner, &got, sizeof(got)), 0);
                assert_int_equal(got.total_ps, expected.total_ps);
                assert_int_equal(got.n_copy, expected.n_copy);
                assert_true(got.ideal_ps > 0);
            }
            mt_study_end_step(&study, &scratch);
            assert_int_equal(mtplace_end_step(planner), 0);
        }
        mtplace_destroy(planner);
        mt_study_clear(&study);
        mt_arena_clear(&scratch);
        mt_cluster_clear(&cluster);
    }
    assert_int_equal(mt_memory_n_live(), 0);
}

/* Every time of a prediction is one, and every row has its instance. */
static void expect_sane(const mtplace_planner *planner, const int64_t *counts)
{
    int32_t expert[MAX_INSTANCE];
    int64_t quota[N_RANK * MAX_INSTANCE];
    int64_t sum[N_RANK * N_EXPERT] = {0};
    struct mtplace_prediction got;
    const int64_t n = mtplace_n_instance(planner);
    assert_int_equal(mtplace_get_placement(planner, expert, NULL, NULL), 0);
    assert_int_equal(mtplace_get_quota(planner, quota), 0);
    for (int64_t i = 0; i < N_RANK * n; ++i) {
        assert_true(quota[i] >= 0);
        sum[i / n * N_EXPERT + expert[i % n]] += quota[i];
    }
    assert_memory_equal(sum, counts, sizeof(sum));
    assert_int_equal(mtplace_predict(planner, &got, sizeof(got)), 0);
    assert_true(got.compute_ps >= 0 && got.exchange_ps >= 0 && got.copies_ps >= 0);
    assert_true(got.ideal_ps >= 0 && got.ideal_ps <= got.total_ps);
}

/* Costs of nothing and of 1000 s, 2^40 rows of one source for one expert, as many of all, none. */
static void what_may_be_said_at_most_is_planned_for(void **state)
{
    static const char *const cost[] = {"row_ps",         "instance_ps", "attention_ps",
                                       "node_alpha_ps",  "node_kib_ps", "network_alpha_ps",
                                       "network_kib_ps", "row_bytes",   "expert_bytes"};
    enum { N_COST = 9, N_PAIR = N_RANK * N_EXPERT };
    MT_UNUSED(state);
    for (int p = 0; p < mtplace_n_policy() * 4; ++p) {
        int64_t counts[N_PAIR];
        mtplace_planner *planner = make(mtplace_policy_name(p / 4));
        assert_int_equal(mtplace_set(planner, "rematerialize", p / 2 % 2), 0);
        for (int i = 0; i < N_COST; ++i) {
            const int64_t most = (int64_t)(i < 7 ? 1000000000000000 : 1 << 20) << (i < 7 ? 0 : 24);
            assert_int_equal(mtplace_set(planner, cost[i], p % 2 == 0 ? most : 0), 0);
        }
        for (int step = 0; step < 4 * N_STEP; ++step) {
            for (int i = 0; i < N_PAIR; ++i) {
                counts[i] = step % 3 == 0 ? ((int64_t)1 << 40) / N_PAIR : 0;
            }
            counts[step] = step % 3 == 1 ? (int64_t)1 << 40 : counts[step];
            assert_int_equal(mtplace_plan_before(planner, 1), 0);
            assert_int_equal(mtplace_plan_after(planner, 1, counts), 0);
            expect_sane(planner, counts);
            assert_int_equal(step % 4 < 3 ? 0 : mtplace_end_step(planner), 0);
        }
        mtplace_destroy(planner);
    }
}

static void expect_refusal(int code, const char *part)
{
    assert_int_equal(code, MTPLACE_INVALID);
    if (strstr(mtplace_error(), part) == NULL) {
        fail_msg("expected \"%s\" in \"%s\"", part, mtplace_error());
    }
}

static void what_cannot_be_is_refused(void **state)
{
    MT_UNUSED(state);
    static const int32_t bad_node[N_RANK] = {0, 2, 1, 1, 1, 1};
    mtplace_planner *planner = NULL;
    expect_refusal(mtplace_create("ep", 4, 1, 8, NULL), "no place");
    expect_refusal(mtplace_create("best", 4, 1, 8, &planner), "policy best is not known");
    expect_refusal(mtplace_create(NULL, 4, 1, 8, &planner), "policy NULL");
    expect_refusal(mtplace_create("ep", 0, 1, 8, &planner), "0 ranks, 1 layers, 8 experts");
    expect_refusal(mtplace_create("ep", 4, -1, 8, &planner), "-1 layers");
    expect_refusal(mtplace_create("ep", 4, 1, 1 << 20, &planner), "1048576 experts");
    assert_null(planner);
    planner = make("ep");
    expect_refusal(mtplace_set(planner, "slot", 1), "no setting slot");
    expect_refusal(mtplace_set(planner, NULL, 1), "no setting NULL");
    expect_refusal(mtplace_set(planner, "slots", -1), "slots = -1 is out of range");
    expect_refusal(mtplace_set(planner, "calibrate", 2), "expected 0 to 1");
    expect_refusal(mtplace_set(planner, "split", 3), "split = 3 is out of range; expected 0 to 2");
    expect_refusal(mtplace_set(planner, "row_ps", INT64_MAX), "out of range");
    expect_refusal(mtplace_set(NULL, "slots", 1), "planner is NULL");
    expect_refusal(mtplace_set_nodes(planner, bad_node), "rank 1 is in node 2");
    expect_refusal(mtplace_set_nodes(planner, NULL), "no nodes");
    assert_null(mtplace_policy_name(-1));
    assert_null(mtplace_policy_description(mtplace_n_policy()));
    mtplace_destroy(planner);
    mtplace_destroy(NULL);
}

/* A message is one line that a terminal may print, whatever was passed as a name. */
static void names_from_strangers_do_no_harm(void **state)
{
    MT_UNUSED(state);
    static char endless[1 << 20];
    mtplace_planner *planner = NULL;
    const char *evil = "be\x1b[2Jst\r\xC2\x9B\nmoetrain: all is well";
    expect_refusal(mtplace_create(evil, 4, 1, 8, &planner), "policy be?[2Jst??? is not known; exp");
    memset(endless, 'x', sizeof(endless) - 1);
    expect_refusal(mtplace_create(endless, 4, 1, 8, &planner), "xx is not known; expected a name");
    planner = make("ep");
    expect_refusal(mtplace_set(planner, evil, 1), "no setting be?[2Jst???; expected one");
    expect_refusal(mtplace_set(planner, endless, 1), "xx; expected one of those in mtplace.h");
    assert_true(strlen(mtplace_error()) < 200);
    mtplace_destroy(planner);
}

static void calls_out_of_turn_are_refused(void **state)
{
    MT_UNUSED(state);
    int64_t counts[N_RANK * N_EXPERT] = {0};
    int32_t owner[N_EXPERT];
    struct mtplace_prediction prediction[2];
    mtplace_planner *planner = make("ep");
    assert_int_equal(mtplace_n_instance(planner), -1);
    assert_int_equal(mtplace_n_instance(NULL), -1);
    expect_refusal(mtplace_get_owners(planner, 0, owner), "nothing is planned");
    expect_refusal(mtplace_plan_after(planner, 0, counts), "not planned last before its gate");
    expect_refusal(mtplace_plan_before(planner, N_LAYER), "layer 2 is not there");
    expect_refusal(mtplace_get_placement(planner, NULL, NULL, NULL), "nothing is planned");
    assert_int_equal(mtplace_plan_before(planner, 1), 0);
    expect_refusal(mtplace_set(planner, "slots", 1), "has begun to plan");
    expect_refusal(mtplace_get_quota(planner, counts), "nothing is planned with counts");
    expect_refusal(mtplace_plan_after(planner, 0, counts), "layer 0 was not planned last");
    expect_refusal(mtplace_plan_after(planner, 1, NULL), "no counts; expected 6 x 9");
    counts[10] = -1;
    expect_refusal(mtplace_plan_after(planner, 1, counts), "rank 1 has -1 rows for expert 1");
    counts[10] = INT64_MAX;
    expect_refusal(mtplace_plan_after(planner, 1, counts), "at most 2^40");
    counts[10] = (int64_t)1 << 40;
    assert_int_equal(mtplace_plan_after(planner, 1, counts), 0);
    expect_refusal(mtplace_plan_after(planner, 1, counts), "not planned last before");
    expect_refusal(mtplace_predict(planner, NULL, sizeof(prediction[0])), "no place");
    expect_refusal(mtplace_predict(planner, prediction, 3), "3 bytes");
    memset(prediction, 0xff, sizeof(prediction));
    assert_int_equal(mtplace_predict(planner, prediction, sizeof(prediction)), 0);
    assert_int_equal(prediction[1].total_ps, 0); /* fields of a newer header */
    memset(prediction, 0xff, sizeof(prediction));
    assert_int_equal(mtplace_predict(planner, prediction, sizeof(int64_t)), 0);
    assert_true(prediction[0].total_ps > 0 && prediction[0].compute_ps == -1);
    assert_int_equal(mtplace_get_owners(planner, 1, owner), 0);
    assert_int_equal(owner[N_EXPERT - 1], 2); /* shares turn by 9 % 6 in layer 1 */
    assert_int_equal(mtplace_end_step(planner), 0);
    assert_int_equal(mtplace_n_instance(planner), -1);
    mtplace_destroy(planner);
    assert_int_equal(mt_memory_n_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_policy_answers_as_a_study_does),
        cmocka_unit_test(what_may_be_said_at_most_is_planned_for),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(names_from_strangers_do_no_harm),
        cmocka_unit_test(calls_out_of_turn_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
