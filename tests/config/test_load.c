#include "base/memory.h"
#include "config/case.h"
#include "config/load.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void an_unknown_key_is_named_with_place_and_nearest(void **state)
{
    MT_UNUSED(state);
    char text[1024];
    (void)snprintf(text, sizeof(text), "%s[run]\n  sede = 3\n", mt_case_text);
    assert_string_equal(
        mt_case_refuse(text, 0, NULL),
        "configs/x.toml:19:3: unknown key \"sede\" in [run]; nearest valid key is \"seed\"");
}

static void a_key_in_the_wrong_table_is_sent_to_its_own(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("train.lr=1", "unknown key \"lr\" in [train]; nearest valid key is "
                                        "\"lr\" in [optimizer]");
    mt_case_override_says("hidden_size=64", "unknown key \"hidden_size\" outside of all tables; "
                                            "nearest valid key is \"hidden_size\" in [model]");
}

static void a_quoted_key_is_no_way_around_the_table(void **state)
{
    MT_UNUSED(state);
    const char *override = "\"model.hidden_size\"=3";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override),
                "unknown key \"\"model.hidden_size\"\" outside of all tables");
    override = "model.\"a.hidden_size\"=3";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override),
                "unknown key \"\"a.hidden_size\"\" in [model]");
}

static void an_unknown_table_is_one_error(void **state)
{
    MT_UNUSED(state);
    char text[1024];
    (void)snprintf(text, sizeof(text), "%s[modle]\na = 1\nb = 2\n[modle.deep]\nc = 1\n",
                   mt_case_text);
    assert_string_equal(
        mt_case_refuse(text, 0, NULL),
        "configs/x.toml:18:2: unknown table [modle]; nearest valid table is [model]");
    (void)snprintf(text, sizeof(text), "%s[moe.balanec]\na = 1\nb = 2\n", mt_case_text);
    assert_string_equal(
        mt_case_refuse(text, 0, NULL),
        "configs/x.toml:18:6: unknown table [moe.balanec]; nearest valid table is [moe.balance]");
    (void)snprintf(text, sizeof(text), "%s[[extra]]\na = 1\n[[extra]]\nb = 2\n", mt_case_text);
    mt_case_has(mt_case_refuse(text, 0, NULL), "configs/x.toml:18:3: unknown table [extra]");
    (void)snprintf(text, sizeof(text), "%s[empty]\n", mt_case_text);
    mt_case_has(mt_case_refuse(text, 0, NULL), "unknown table [empty]");
}

static void a_table_that_is_none_is_refused(void **state)
{
    MT_UNUSED(state);
    const char *text = mt_case_refuse("run = 3\n[[train]]\nsteps = 1\n", 0, NULL);
    mt_case_has(text, "configs/x.toml:1:1: \"run\" is a table; expected its keys below [run]\n");
    mt_case_has(text, "configs/x.toml:2:3: \"train\" is a table; expected its keys below [train]");
}

static void missing_keys_of_a_table_share_a_line(void **state)
{
    MT_UNUSED(state);
    const char *text = mt_case_refuse("[moe]\nnum_experts = 8\n\n[model]\nnum_layers = 2\n"
                                      "[optimizer]\n[data]\nformat = \"random\"\n",
                                      0, NULL);
    assert_string_equal(
        text, "configs/x.toml: the table [train] is missing; it needs steps, global_batch_size, "
              "micro_batch_size\n"
              "configs/x.toml:1:2: [moe] lacks the required keys top_k, "
              "expert_intermediate_size; add them\n"
              "configs/x.toml:4:2: [model] lacks the required keys hidden_size, "
              "num_attention_heads, max_seq_len; add them\n"
              "configs/x.toml:6:2: [optimizer] lacks the required key lr; add it");
}

static void an_empty_file_names_every_missing_table(void **state)
{
    MT_UNUSED(state);
    const char *text = mt_case_refuse("", 0, NULL);
    assert_int_equal(mt_case_n_line(text), 5);
    mt_case_has(text, "the table [data] is missing; it needs train");
}

static void all_mistakes_are_listed_in_the_order_of_the_text(void **state)
{
    MT_UNUSED(state);
    char text[2048];
    (void)snprintf(text, sizeof(text),
                   "%s[schedule]\nkind = \"cosin\"\n[run]\nseed = \"x\"\n[comm]\nexact = 3\n"
                   "[oops]\n",
                   mt_case_text);
    const char *const overrides[] = {"moe.top_k=9", "model.hiden_size=3", "train.steps=0"};
    const char *const lines[] = {
        "configs/x.toml:19:1: schedule.kind = \"cosin\" is not one of ",
        "configs/x.toml:21:1: run.seed = \"x\" is a string; an integer is expected",
        "configs/x.toml:23:1: comm.exact = 3 is an integer; true or false is expected",
        "configs/x.toml:24:2: unknown table [oops]",
        "--set moe.top_k=9: moe.top_k = 9 exceeds num_experts = 8",
        "--set model.hiden_size=3: unknown key \"hiden_size\" in [model]",
        "--set train.steps=0: train.steps = 0 is out of range",
    };
    const char *at = mt_case_refuse(text, 3, overrides);
    assert_int_equal(mt_case_n_line(at), 7);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (strncmp(at, lines[i], strlen(lines[i])) != 0) {
            fail_msg("line %zu: %s\nwant: %s", i, at, lines[i]);
        }
        at = strchr(at, '\n');
        at = at == NULL ? "" : at + 1;
    }
}

static void at_most_fifty_mistakes_are_listed_and_the_rest_counted(void **state)
{
    MT_UNUSED(state);
    enum { ROOM = 1 << 15 };
    char *text = NULL;
    assert_int_equal(MT_ALLOCATE(text, ROOM, "test"), MT_OK);
    size_t used = (size_t)snprintf(text, ROOM, "%s[run]\n", mt_case_text);
    for (int i = 0; i < 73; i++) {
        used += (size_t)snprintf(text + used, ROOM - used, "wrong_%d = 1\n", i);
    }
    const char *error = mt_case_refuse(text, 0, NULL);
    assert_int_equal(mt_case_n_line(error), 51);
    mt_case_has(error, "unknown key \"wrong_49\"");
    mt_case_has(error, "\n... and 23 more mistakes; correct these first");
    mt_memory_free(text);
}

static void a_syntax_error_is_placed_and_stands_alone(void **state)
{
    MT_UNUSED(state);
    const char *text = mt_case_refuse("[model]\nhidden_size = \n", 0, NULL);
    assert_int_equal(mt_case_n_line(text), 1);
    mt_case_has(text, "configs/x.toml:2:15: Error while parsing key-value pair");
    text = mt_case_refuse("[run]\nseed = 1\nseed = 2\n", 0, NULL);
    mt_case_has(text, "configs/x.toml:3:");
    mt_case_has(text, "cannot redefine existing integer 'seed'");
}

static void control_characters_never_reach_the_message(void **state)
{
    MT_UNUSED(state);
    const char *text =
        mt_case_refuse("\"a\\u001b[31m\\n\" = 1\n[run]\nname = \"\\u0007\"\n", 0, NULL);
    assert_null(strchr(text, '\x1b'));
    assert_null(strchr(text, '\x07'));
}

static void overrides_replace_the_file_and_the_last_one_wins(void **state)
{
    MT_UNUSED(state);
    const char *const overrides[] = {"model.hidden_size=128", "run.name=\"foo\"",
                                     "model.hidden_size = 256", "moe.balance.loss='micro'",
                                     "optimizer={lr=2, eps=1e-6}"};
    struct mt_config *config = mt_case_parse(mt_case_text, 5, overrides);
    assert_int_equal(config->model.hidden_size, 256);
    assert_int_equal(config->model.head_dim, 64);
    assert_string_equal(config->run.name, "foo");
    assert_string_equal(config->run.dir, "runs/foo");
    assert_int_equal(config->balance.loss, MT_BALANCE_MICRO);
    assert_true(config->optimizer.lr == 2.0 && config->optimizer.eps == 1e-6);
    mt_memory_free(config);
}

static void an_override_can_supply_a_required_key(void **state)
{
    MT_UNUSED(state);
    static const char model[] = "model={hidden_size=4,num_layers=1,num_attention_heads=2,"
                                "max_seq_len=4}";
    const char *const overrides[] = {
        "optimizer.lr=1e-3",
        "data.train=[\"x\"]",
        "train.steps=1",
        "train.global_batch_size=1",
        "train.micro_batch_size=1",
        "moe={num_experts=2,top_k=1,expert_intermediate_size=4}",
        model,
    };
    mt_memory_free(mt_case_parse("", 7, overrides));
}

static void an_unquoted_word_is_told_to_quote(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("run.name=foo",
                          "foo is no TOML value; a string stands in quotation marks; write --set "
                          "'run.name=\"foo\"'");
    mt_case_override_says("run.dir=/tmp/x",
                          "/tmp/x is no TOML value; a string stands in quotation marks; write "
                          "--set 'run.dir=\"/tmp/x\"'");
    mt_case_override_says("placement.slots=auto",
                          "auto is no TOML value; a string stands in quotation marks; write --set "
                          "'placement.slots=\"auto\"'");
    mt_case_override_says("train.zork=x", "x is no TOML value; a string stands in quotation marks; "
                                          "write --set 'train.zork=\"x\"'");
    const char *override = "train.steps =banana"; /* no quotation marks would help */
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override),
                "banana is no TOML value; train.steps takes: integer, 1 to ");
    override = "optimizer.betas=x";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override), "two numbers, each 0 to below 1; e.g.");
    override = "model.tie_word_embeddings=True";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override), "expected 'true'");
    override = "train.steps=007";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override), "leading zeroes");
}

static void an_override_that_is_no_assignment_is_refused(void **state)
{
    MT_UNUSED(state);
    static const char *const wrong[] = {"",        "train.steps", "[train]\nsteps=3",
                                        "[run]=3", "# a = 1",     "train.steps=3\ntrain.steps=4"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        mt_case_has(mt_case_refuse(mt_case_text, 1, &wrong[i]), "expected one section.key=value");
    }
    const char *override = "=3";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override), "--set =3: Error while parsing");
}

static void run_dir_argument_replaces_the_key(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = NULL;
    assert_int_equal(MT_ALLOCATE(config, 1, "test"), MT_OK);
    MT_TEST_OK(mt_config_parse(mt_case_text, "x.toml", NULL, 0, NULL, "/elsewhere", config));
    assert_string_equal(config->run.dir, "/elsewhere");
    MT_TEST_FAILS(mt_config_parse(mt_case_text, "x.toml", NULL, 0, NULL, "", config), MT_ERR_CONFIG,
                  "x.toml: --run-dir \"\" is no path");
    mt_memory_free(config);
}

static void the_run_is_named_after_the_file(void **state)
{
    MT_UNUSED(state);
    static const struct {
        const char *origin, *name;
    } cases[] = {{"configs/x.toml", "x"}, {"a/b.c.toml", "b.c"}, {"plain", "plain"},
                 {"d/.toml", "run"},      {"d/..", "run"},       {"", "run"}};
    struct mt_config *config = NULL;
    assert_int_equal(MT_ALLOCATE(config, 1, "test"), MT_OK);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        MT_TEST_OK(mt_config_parse(mt_case_text, cases[i].origin, NULL, 0, NULL, NULL, config));
        assert_string_equal(config->run.name, cases[i].name);
    }
    mt_memory_free(config);
}

static void relative_paths_start_at_the_folder_of_the_file(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = mt_case_parse(mt_case_text, 0, NULL);
    assert_int_equal(config->data.train.n, 2);
    assert_string_equal(config->data.train.path[0], "/base/a.txt");
    assert_string_equal(config->data.train.path[1], "/abs/b.txt");
    MT_TEST_OK(mt_config_parse(mt_case_text, "x.toml", NULL, 0, NULL, NULL, config));
    assert_string_equal(config->data.train.path[0], "a.txt");
    mt_memory_free(config);
}

static void write_file(const char *path, const char *text, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void a_file_is_loaded_and_its_paths_made_absolute(void **state)
{
    MT_UNUSED(state);
    char folder[] = "mt_config_XXXXXX";
    char path[64];
    char working[MT_PATH_BYTES];
    char want[MT_PATH_BYTES + 64];
    struct mt_config *config = NULL;
    assert_int_equal(MT_ALLOCATE(config, 1, "test"), MT_OK);
    assert_non_null(mkdtemp(folder));
    assert_non_null(getcwd(working, sizeof(working)));
    (void)snprintf(path, sizeof(path), "%s/my.toml", folder);
    write_file(path, mt_case_text, strlen(mt_case_text));
    MT_TEST_OK(mt_config_load(path, 0, NULL, NULL, config));
    (void)snprintf(want, sizeof(want), "%s/%s/a.txt", working, folder);
    assert_string_equal(config->data.train.path[0], want);
    assert_string_equal(config->run.name, "my");
    assert_string_equal(config->run.dir, "runs/my");

    char *large = NULL;
    const size_t n_large = (1 << 20) + 1;
    assert_int_equal(MT_ALLOCATE(large, (int64_t)n_large, "test"), MT_OK);
    memset(large, '#', n_large);
    write_file(path, large, n_large);
    MT_TEST_FAILS(mt_config_load(path, 0, NULL, NULL, config), MT_ERR_CONFIG,
                  "my.toml: larger than 1048576 bytes");
    write_file(path, large, n_large - 1);
    MT_TEST_FAILS(mt_config_load(path, 0, NULL, NULL, config), MT_ERR_CONFIG,
                  "the table [model] is missing");
    mt_memory_free(large);
    mt_memory_free(config);
    assert_int_equal(remove(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void an_unreadable_file_is_named_with_the_reason(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = NULL;
    assert_int_equal(MT_ALLOCATE(config, 1, "test"), MT_OK);
    MT_TEST_FAILS(mt_config_load("no/such.toml", 0, NULL, NULL, config), MT_ERR_CONFIG,
                  "no/such.toml: No such file or directory; a readable configuration file was "
                  "expected");
    MT_TEST_FAILS(mt_config_load("/", 0, NULL, NULL, config), MT_ERR_CONFIG, "/: Is a directory");
    mt_memory_free(config);
}

static void the_example_configurations_load(void **state)
{
    MT_UNUSED(state);
    static const char *const names[] = {"quickstart", "tiny", "bench-cpu", "many-experts"};
    struct mt_config *config = NULL;
    assert_int_equal(MT_ALLOCATE(config, 1, "test"), MT_OK);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[MT_PATH_BYTES];
        (void)snprintf(path, sizeof(path), "%s/%s.toml", MT_CONFIGS, names[i]);
        MT_TEST_OK(mt_config_load(path, 0, NULL, NULL, config));
        assert_string_equal(config->run.name, names[i]);
    }
    mt_memory_free(config);
}

#define TEST(name) cmocka_unit_test_teardown(name, mt_case_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_unknown_key_is_named_with_place_and_nearest),
        TEST(a_key_in_the_wrong_table_is_sent_to_its_own),
        TEST(a_quoted_key_is_no_way_around_the_table),
        TEST(an_unknown_table_is_one_error),
        TEST(a_table_that_is_none_is_refused),
        TEST(missing_keys_of_a_table_share_a_line),
        TEST(an_empty_file_names_every_missing_table),
        TEST(all_mistakes_are_listed_in_the_order_of_the_text),
        TEST(at_most_fifty_mistakes_are_listed_and_the_rest_counted),
        TEST(a_syntax_error_is_placed_and_stands_alone),
        TEST(control_characters_never_reach_the_message),
        TEST(overrides_replace_the_file_and_the_last_one_wins),
        TEST(an_override_can_supply_a_required_key),
        TEST(an_unquoted_word_is_told_to_quote),
        TEST(an_override_that_is_no_assignment_is_refused),
        TEST(run_dir_argument_replaces_the_key),
        TEST(the_run_is_named_after_the_file),
        TEST(relative_paths_start_at_the_folder_of_the_file),
        TEST(a_file_is_loaded_and_its_paths_made_absolute),
        TEST(an_unreadable_file_is_named_with_the_reason),
        TEST(the_example_configurations_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
