/* Costs as numbers and as a file: quantising, medians, partners, costs.json. */
#include "base/memory.h"
#include "base/ps.h"
#include "base/size.h"
#include "placement/exchange.h"
#include "support/test.h"
#include "train/costs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/moetrain-costs-XXXXXX";
static char path[64];

static int set_up(void **state)
{
    MT_UNUSED(state);
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    (void)snprintf(path, sizeof(path), "%s/costs.json", folder);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    MT_UNUSED(state);
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

static void quantised_costs_have_two_digits(void **state)
{
    static const int64_t pair[][2] = {{0, 0},        {1, 1},
                                      {99, 99},      {100, 100},
                                      {104, 100},    {105, 110},
                                      {994, 990},    {995, 1000},
                                      {999, 1000},   {1049, 1000},
                                      {1050, 1100},  {12345, 12000},
                                      {9950, 10000}, {123456789012, 120000000000}};
    MT_UNUSED(state);
    for (size_t i = 0; i < sizeof(pair) / sizeof(pair[0]); i++) {
        assert_int_equal(mt_costs_quantise(pair[i][0]), pair[i][1]);
    }
    assert_int_equal(mt_costs_quantise(INT64_C(4611686018427387904)), INT64_C(4600000000000000000));
    for (int64_t value = 0; value < 3000; value++) {
        const int64_t once = mt_costs_quantise(value);
        assert_int_equal(mt_costs_quantise(once), once);
        assert_true(llabs(once - value) * 20 <= value);
        assert_true(value == 0 || mt_costs_quantise(value - 1) <= once);
    }
}

static void check_partners(struct mt_topology *topology)
{
    for (int rank = 0; rank < topology->n_rank; rank++) {
        const int near = mt_costs_partner(topology, rank, MT_LEVEL_NODE);
        const int far = mt_costs_partner(topology, rank, MT_LEVEL_NETWORK);
        if (near >= 0) {
            assert_int_not_equal(near, rank);
            assert_int_equal(topology->node[near], topology->node[rank]);
            assert_int_equal(mt_costs_partner(topology, near, MT_LEVEL_NODE), rank);
        }
        if (far >= 0) {
            assert_int_not_equal(topology->node[far], topology->node[rank]);
            assert_int_equal(mt_costs_partner(topology, far, MT_LEVEL_NETWORK), rank);
        }
    }
}

static void partners_are_mutual_on_uneven_nodes(void **state)
{
    static const int node[] = {0, 1, 0, 2, 0, 1, 2, 2, 2};
    struct mt_topology topology;
    MT_UNUSED(state);
    MT_TEST_OK(mt_topology_init_nodes(&topology, 9, node));
    check_partners(&topology);
    assert_int_equal(mt_costs_partner(&topology, 0, MT_LEVEL_NODE), 2);
    assert_int_equal(mt_costs_partner(&topology, 4, MT_LEVEL_NODE), -1); /* third of three */
    assert_int_equal(mt_costs_partner(&topology, 0, MT_LEVEL_NETWORK), 1);
    assert_int_equal(mt_costs_partner(&topology, 3, MT_LEVEL_NETWORK), -1); /* third node */
    mt_topology_clear(&topology);
    for (int n_rank = 1; n_rank <= 9; n_rank++) {
        for (int ranks_per_node = 0; ranks_per_node <= 4; ranks_per_node++) {
            MT_TEST_OK(mt_topology_init(&topology, n_rank, ranks_per_node));
            check_partners(&topology);
            mt_topology_clear(&topology);
        }
    }
}

static const struct mt_costs example = {
    .row_ps = 6900000,
    .instance_ps = 140000000,
    .attention_ps = 1000000000000000,
    .alpha_ps = {0, 2800000, 13000000},
    .kib_ps = {0, 230000, 90000},
    .alone_kib_ps = 45000,
    .exchange_percent = {{{1, 20, 300, 10000}, {5, 6, 7, 8}, {9, 8, 7, 6}},
                         {{11, 12, 13, 14}, {15, 16, 17, 18}, {1, 1, 1, 1}}}};

static void a_file_gives_back_what_was_written(void **state)
{
    struct mt_costs back;
    struct stat about;
    char leftover[96];
    MT_UNUSED(state);
    (void)snprintf(leftover, sizeof(leftover), "%s.new", path);
    FILE *file = fopen(leftover, "w"); /* of a start that was cut off */
    assert_non_null(file);
    (void)fclose(file);
    MT_TEST_OK(mt_costs_write(folder, &example, "a \"test\""));
    MT_TEST_OK(mt_costs_read(path, &back));
    assert_memory_equal(&back, &example, sizeof(example));
    MT_TEST_OK(mt_costs_write(folder, &(struct mt_costs){.row_ps = 1}, "replaced"));
    MT_TEST_OK(mt_costs_read(path, &back));
    assert_int_equal(back.row_ps, 1);
    assert_false(mt_exchange_is_measured(&back));
    assert_int_equal(stat(leftover, &about), -1);
}

static void write_text(const char *text, size_t n_byte)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n_byte, file), n_byte);
    assert_int_equal(fclose(file), 0);
}

#define HEAD   "{\"format\": \"moetrain-costs\", \"format_version\": 1, "
#define COSTS  "\"row_ps\": 1, \"instance_ps\": 2, \"attention_ps\": 3, "
#define LEVEL  "{\"alpha_ps\": 4, \"kib_ps\": 5}"
#define LEVELS "\"node\": " LEVEL ", \"network\": " LEVEL "}"

static void a_file_by_hand_needs_no_origin(void **state)
{
    struct mt_costs back;
    static const char text[] = HEAD COSTS LEVELS;
    MT_UNUSED(state);
    write_text(text, strlen(text));
    MT_TEST_OK(mt_costs_read(path, &back));
    assert_int_equal(back.attention_ps, 3);
    assert_int_equal(back.alpha_ps[MT_LEVEL_NETWORK], 4);
    assert_int_equal(back.kib_ps[MT_LEVEL_RANK], 0);
    assert_false(mt_exchange_is_measured(&back));
    assert_int_equal(back.alone_kib_ps, 0); /* as files from before it are: not known */
}

#define WAYS(leader) \
    "{\"direct\": [1, 2, 3, 4], \"hierarchical\": [1, 2, 3, 4], \"leader\": " leader "}"
#define PERCENTS(even, hot) \
    HEAD COSTS "\"exchange_percent\": {\"even\": " even ", \"hot\": " hot "}, " LEVELS
#define GOOD_WAYS WAYS("[1, 2, 3, 10000]")

static void percents_are_all_there_and_in_range(void **state)
{
    static const char good[] = PERCENTS(GOOD_WAYS, WAYS("[9, 8, 7, 6]"));
    static const char *const bad[] = {
        PERCENTS(GOOD_WAYS, WAYS("[1, 2, 3]")),
        PERCENTS(GOOD_WAYS, WAYS("[1, 2, 3, 4, 5]")),
        PERCENTS(GOOD_WAYS, WAYS("[1, 2, 3, 0]")),
        PERCENTS(GOOD_WAYS, WAYS("[1, 2, 3, 10001]")),
        PERCENTS(GOOD_WAYS, WAYS("[1, 2, 3, -1]")),
        PERCENTS(GOOD_WAYS, WAYS("[1, 2, 3, 1.5]")),
        PERCENTS(GOOD_WAYS, WAYS("[1, 2, 3, \"4\"]")),
        PERCENTS(GOOD_WAYS, WAYS("[1, 2, 3, null]")),
        PERCENTS(GOOD_WAYS, WAYS("{}")),
        PERCENTS(GOOD_WAYS, WAYS("7")),
        PERCENTS(GOOD_WAYS, WAYS("[1, 2, 3, 4], \"deduplicated\": [1, 2, 3, 4]")),
        PERCENTS("{}", GOOD_WAYS),
        PERCENTS("3", GOOD_WAYS),
        PERCENTS(GOOD_WAYS, GOOD_WAYS ", \"cold\": " GOOD_WAYS),
        HEAD COSTS "\"exchange_percent\": [], " LEVELS,
        HEAD COSTS "\"exchange_percent\": {\"even\": " GOOD_WAYS "}, " LEVELS};
    struct mt_costs costs;
    MT_UNUSED(state);
    write_text(good, strlen(good));
    MT_TEST_OK(mt_costs_read(path, &costs));
    assert_int_equal(costs.exchange_percent[MT_EXCHANGE_EVEN][MT_EXCHANGE_LEADER][3], 10000);
    assert_int_equal(costs.exchange_percent[MT_EXCHANGE_HOT][MT_EXCHANGE_LEADER][0], 9);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_text(bad[i], strlen(bad[i]));
        MT_TEST_FAILS(mt_costs_read(path, &costs), MT_ERR_INPUT,
                      "\"exchange_percent\" is missing or wrong; a list of 4 whole numbers from 1 "
                      "to 10000");
    }
}

static void bad_files_are_refused_with_what_was_expected(void **state)
{
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "costs.json:1:0"},
        {"{", "costs.json"},
        {"[1]", "an object"},
        {"{}", "\"format\""},
        {"{\"format\": \"moetrain-checkpoint\"}", "\"moetrain-costs\" was expected"},
        {"{\"format\": \"moetrain-costs\", \"format_version\": 2, " COSTS LEVELS,
         "\"format_version\""},
        {HEAD LEVELS, "\"row_ps\""},
        {HEAD COSTS "\"node\": " LEVEL "}", "\"network\""},
        {HEAD COSTS "\"node\": 7, \"network\": " LEVEL "}", "\"node\""},
        {HEAD COSTS "\"node\": {\"alpha_ps\": 4}, \"network\": " LEVEL "}", "\"node.kib_ps\""},
        {HEAD COSTS "\"row_us\": 1, " LEVELS, "unknown key \"row_us\""},
        {HEAD COSTS "\"kib_ps\": 1, " LEVELS, "unknown key \"kib_ps\""},
        {HEAD COSTS "\"node\": {\"alpha_ps\": 4, \"kib_ps\": 5, \"beta\": 1}, \"network\": " LEVEL
                    "}",
         "unknown key \"beta\" in node"},
        {HEAD "\"row_ps\": -1, \"instance_ps\": 2, \"attention_ps\": 3, " LEVELS,
         "from 0 to 1000000000000"},
        {HEAD "\"row_ps\": 1.5, \"instance_ps\": 2, \"attention_ps\": 3, " LEVELS, "\"row_ps\""},
        {HEAD "\"row_ps\": \"1\", \"instance_ps\": 2, \"attention_ps\": 3, " LEVELS, "\"row_ps\""},
        {HEAD "\"row_ps\": 1000000000001, \"instance_ps\": 2, \"attention_ps\": 3, " LEVELS,
         "\"row_ps\""},
        {HEAD "\"row_ps\": 99999999999999999999, \"instance_ps\": 2, \"attention_ps\": 3, " LEVELS,
         "costs.json"},
        {HEAD "\"row_ps\": 1, " COSTS LEVELS, "duplicate"},
        {HEAD COSTS "\"alone_kib_ps\": 1, " LEVELS, "unknown key \"alone_kib_ps\""},
        {HEAD COSTS "\"node\": " LEVEL ", \"network\": {\"alpha_ps\": 4, \"kib_ps\": 5, "
                    "\"alone_kib_ps\": -1}}",
         "\"network.alone_kib_ps\""},
        {HEAD COSTS "\"node\": {\"alpha_ps\": 4, \"kib_ps\": 5, \"alone_kib_ps\": 1}, "
                    "\"network\": " LEVEL "}",
         "unknown key \"alone_kib_ps\" in node"},
        {HEAD "\"origin\": 3, " COSTS LEVELS, "\"origin\""},
        {HEAD COSTS LEVELS " x", "costs.json"},
    };
    struct mt_costs costs;
    MT_UNUSED(state);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_text(bad[i].text, strlen(bad[i].text));
        MT_TEST_FAILS(mt_costs_read(path, &costs), MT_ERR_INPUT, bad[i].part);
    }
    write_text("{\0}", 3);
    MT_TEST_FAILS(mt_costs_read(path, &costs), MT_ERR_INPUT, "costs.json");
}

static void what_is_no_small_file_is_refused(void **state)
{
    struct mt_costs costs;
    char *large = NULL;
    enum { LARGE = 70000 };
    MT_UNUSED(state);
    MT_TEST_FAILS(mt_costs_read("/nowhere/costs.json", &costs), MT_ERR_INPUT,
                  "/nowhere/costs.json");
    MT_TEST_FAILS(mt_costs_read(folder, &costs), MT_ERR_INPUT, "no regular file");
    MT_TEST_FAILS(mt_costs_read("", &costs), MT_ERR_INPUT, "placement.costs");
    MT_TEST_OK(MT_ALLOCATE(large, LARGE, "test"));
    memset(large, ' ', LARGE);
    write_text(large, LARGE);
    mt_memory_free(large);
    MT_TEST_FAILS(mt_costs_read(path, &costs), MT_ERR_INPUT, "too large");
    const enum mt_status status = mt_costs_write("/nowhere", &example, "x");
    assert_null(strstr(mt_error_last()->text, "checkpoint")); /* it is none */
    MT_TEST_FAILS(status, MT_ERR_RESOURCE, "/nowhere");
}

/* However small and large messages were measured, no level comes out free of bytes. */
static void bytes_never_come_out_free(void **state)
{
    static const int64_t measured[][3] = {{100, 256100, 1024100},
                                          {100, 200100, 968100}, /* the first part is sooner */
                                          {9000000, 8000000, 8500000},
                                          {5000, 5001, 4000},
                                          {0, 0, 0}};
    static const int64_t fitted[][2] = {
        {100, 1000}, {100, 1000}, {8000000, 3906}, {5000, 2}, {0, 1}};
    MT_UNUSED(state);
    for (size_t i = 0; i < sizeof(measured) / sizeof(measured[0]); i++) {
        int64_t alpha = -1;
        int64_t kib = -1;
        mt_costs_fit_link(measured[i][0], measured[i][1], measured[i][2], &alpha, &kib);
        assert_int_equal(alpha, fitted[i][0]);
        assert_int_equal(kib, fitted[i][1]);
    }
}

/* Alone a rank has its share at least, and at most what all of its node have. */
static void what_a_rank_takes_alone_lies_between_its_share_and_all(void **state)
{
    MT_UNUSED(state);
    assert_int_equal(mt_costs_fit_alone(500, 900, 2), 500);
    assert_int_equal(mt_costs_fit_alone(1000, 900, 2), 900);
    assert_int_equal(mt_costs_fit_alone(300, 900, 2), 450);
    assert_int_equal(mt_costs_fit_alone(0, 1, 8), 1);
}

/* Links of a node from what its ranks take together and alone, where nodes usually have 4. */
static void links_of_a_node_are_one_or_as_many_as_ranks(void **state)
{
    MT_UNUSED(state);
    for (int64_t n_member = 1; n_member <= 9; ++n_member) {
        assert_int_equal(mt_ps_link_kib(4000, 1000, 4, n_member), 1000);    /* one for all */
        assert_in_range(mt_ps_link_kib(1000, 1000, 4, n_member) * n_member, /* one for each */
                        1000 - n_member, 1000);
        assert_int_equal(mt_ps_link_kib(1000, 0, 4, n_member),
                         mt_ps_link_kib(1000, 1000, 4, n_member)); /* not known */
    }
    assert_in_range(mt_ps_link_kib(4000, 1000, 8, 8), 499, 500); /* two for 8 ranks */
    assert_int_equal(mt_ps_link_kib(0, 0, 4, 4), 0);
    assert_int_equal(mt_ps_link_kib(700, 700, 1, 1), 700);
    const int64_t second_ps = 1000000000000;
    assert_in_range(mt_ps_link_kib(second_ps, second_ps / 4096, 4096, 4096), second_ps / 4100,
                    second_ps / 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantised_costs_have_two_digits),
        cmocka_unit_test(partners_are_mutual_on_uneven_nodes),
        cmocka_unit_test(bytes_never_come_out_free),
        cmocka_unit_test(what_a_rank_takes_alone_lies_between_its_share_and_all),
        cmocka_unit_test(links_of_a_node_are_one_or_as_many_as_ranks),
        cmocka_unit_test(a_file_gives_back_what_was_written),
        cmocka_unit_test(a_file_by_hand_needs_no_origin),
        cmocka_unit_test(percents_are_all_there_and_in_range),
        cmocka_unit_test(bad_files_are_refused_with_what_was_expected),
        cmocka_unit_test(what_is_no_small_file_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
