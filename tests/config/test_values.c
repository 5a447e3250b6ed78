#include "base/memory.h"
#include "config/case.h"
#include "support/test.h"

#include <stdio.h>
#include <string.h>

static void wrong_types_name_the_expected_one_with_an_example(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("model.hidden_size=\"64\"",
                          "model.hidden_size = \"64\" is a string; an integer is expected, e.g. "
                          "hidden_size = 128");
    mt_case_override_says("model.num_layers=2.0", "model.num_layers = 2.0 is a number; an integer "
                                                  "is expected, e.g. num_layers = 3");
    mt_case_override_says("optimizer.lr=true", "optimizer.lr = true is a truth value; a number is "
                                               "expected, e.g. lr = 3e-3");
    mt_case_override_says("moe.normalize_top_k=1",
                          "moe.normalize_top_k = 1 is an integer; true or false is expected, e.g. "
                          "normalize_top_k = true");
    mt_case_override_says("optimizer.betas=0.9",
                          "optimizer.betas = 0.9 is a number; a list of two numbers is expected, "
                          "e.g. betas = [0.9, 0.95]");
    mt_case_override_says("optimizer.betas=[0.9]",
                          "optimizer.betas = [...] is a list; a list of two numbers is expected, "
                          "e.g. betas = [0.9, 0.95]");
    mt_case_override_says("data.train=\"x\"", "data.train = \"x\" is a string; a list of strings "
                                              "is expected, e.g. train = [\"corpus.txt\"]");
    mt_case_override_says("data.train=[3]", "data.train = 3 is an integer; a list of strings is "
                                            "expected, e.g. train = [\"corpus.txt\"]");
    mt_case_override_says("device.threads=\"many\"",
                          "device.threads = \"many\" is a string; \"auto\" or an integer is "
                          "expected, e.g. threads = \"auto\"");
    mt_case_override_says("run.seed={a=1}", "run.seed = {...} is a table; an integer is expected, "
                                            "e.g. seed = 1");
    mt_case_override_says("run.name=2020-01-02",
                          "run.name = a date or time is a date or time; a string is expected, e.g. "
                          "name = \"first-run\"");
}

static void integers_serve_as_numbers(void **state)
{
    MT_UNUSED(state);
    const char *const overrides[] = {"optimizer.lr=0", "optimizer.betas=[0, 0.5]",
                                     "model.rope_theta=500000"};
    struct mt_config *config = mt_case_parse(mt_case_text, 3, overrides);
    assert_true(config->optimizer.lr == 0.0);
    assert_true(config->optimizer.betas[0] == 0.0 && config->optimizer.betas[1] == 0.5);
    assert_true(config->model.rope_theta == 500000.0);
    mt_memory_free(config);
}

static void values_out_of_range_name_the_limit(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("model.hidden_size=-3", "model.hidden_size = -3 is out of range; "
                                                  "allowed: 1 to 1048576 (2^20)");
    mt_case_override_says("model.hidden_size=1048577", "model.hidden_size = 1048577 is out of "
                                                       "range; allowed: 1 to 1048576 (2^20)");
    mt_case_override_says("moe.num_experts=65537",
                          "moe.num_experts = 65537 is out of range; allowed: 1 to 65536 (2^16)");
    mt_case_override_says("model.num_layers=4097",
                          "model.num_layers = 4097 is out of range; allowed: 1 to 4096");
    mt_case_override_says("model.num_layers=9223372036854775807",
                          "model.num_layers = 9223372036854775807 is out of range; allowed: 1 to "
                          "4096");
    mt_case_override_says("run.seed=-1", "run.seed = -1 is out of range; allowed: 0 to 2^63 - 1");
    mt_case_override_says("optimizer.betas=[0.9, 1]",
                          "optimizer.betas = 1 is out of range; allowed: 0 to below 1");
    mt_case_override_says("model.rms_norm_eps=0",
                          "model.rms_norm_eps = 0 is out of range; allowed: above 0, up to 1");
    mt_case_override_says("optimizer.lr=-1e-3",
                          "optimizer.lr = -0.001 is out of range; allowed: 0 to 1e+38");
    mt_case_override_says("device.threads=0",
                          "device.threads = 0 is out of range; allowed: 1 to 512");
    mt_case_override_says("schedule.min_lr_ratio=1.5",
                          "schedule.min_lr_ratio = 1.5 is out of range; allowed: 0 to 1");
}

static void the_limits_themselves_are_accepted(void **state)
{
    MT_UNUSED(state);
    const char *const overrides[] = {"model.hidden_size=1048576", "model.num_layers=4096",
                                     "model.head_dim=65536",      "moe.num_experts=65536",
                                     "moe.top_k=65536",           "run.seed=9223372036854775807"};
    struct mt_config *config = mt_case_parse(mt_case_text, 6, overrides);
    assert_int_equal(config->model.hidden_size, 1 << 20);
    assert_int_equal(config->run.seed, INT64_MAX);
    mt_memory_free(config);
}

static void numbers_that_are_not_finite_are_refused(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("optimizer.lr=nan",
                          "optimizer.lr = nan is not a finite number; allowed: 0 to 1e+38");
    mt_case_override_says("optimizer.grad_clip=inf",
                          "optimizer.grad_clip = inf is not a finite number; allowed: 0 to 1e+30");
    mt_case_override_says("model.init_std=-inf",
                          "model.init_std = -inf is not a finite number; allowed: 0 to 100");
    mt_case_override_says("optimizer.betas=[nan, 0.9]",
                          "optimizer.betas = nan is not a finite number; allowed: 0 to below 1");
    mt_case_override_says("device.slowdown={1=nan}",
                          "device.slowdown = nan is not a finite number; allowed: 1 to 1e+06");
}

static void integers_beyond_64_bits_are_told_the_limit(void **state)
{
    MT_UNUSED(state);
    const char *override = "model.hidden_size=99999999999999999999";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override),
                "not representable in 64 bits; integers reach from -9223372036854775808 to "
                "9223372036854775807");
}

static void an_unknown_choice_lists_all_and_the_nearest(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("model.qk_norm=\"heads\"",
                          "model.qk_norm = \"heads\" is not one of \"none\", \"head\" or "
                          "\"projection\"; nearest is \"head\"");
    mt_case_override_says("placement.policy=\"pe\"",
                          "placement.policy = \"pe\" is not one of \"ep\", \"fsdp\", "
                          "\"fastermoe\", \"smartmoe\", \"flexmoe\", \"eplb\", \"fssdp\", "
                          "\"fsep\", \"least_loaded\", \"quota\" or \"adaptive\"; nearest is "
                          "\"ep\"");
    mt_case_override_says("optimizer.name=\"sgd\"",
                          "optimizer.name = \"sgd\" is not one of \"adamw\"; nearest is "
                          "\"adamw\"");
    const char *override = "schedule.kind=\"cosine\\u0000x\"";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override), "is not one of");
}

static void texts_must_fit_and_print(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("run.name=\"\"", "run.name is empty; a string of 1 to 255 bytes without "
                                           "control characters is expected");
    mt_case_override_says("run.name=\"a\\tb\"",
                          "run.name is not printable; a string of 1 to 255 bytes without control "
                          "characters is expected");
    mt_case_override_says("data.train=[\"\"]",
                          "data.train holds a path that is empty or not printable; at most 256 "
                          "paths of 1 to 4095 bytes without control characters are expected");
    char override[512] = "run.name=\"";
    memset(override + 10, 'a', 256);
    memcpy(override + 266, "\"", 2);
    const char *long_name = override;
    mt_case_has(mt_case_refuse(mt_case_text, 1, &long_name), "run.name is too long");
}

static void too_many_or_too_long_paths_are_refused(void **state)
{
    MT_UNUSED(state);
    char text[8192] = "data.train=[";
    const char *override = text;
    size_t used = strlen(text);
    for (int i = 0; i < MT_MAX_PATHS + 1; i++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, "'f',");
    }
    (void)snprintf(text + used, sizeof(text) - used, "]");
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override), "data.train has too many entries");
    /* With "/base/" in front, 4089 bytes are as many as fit. */
    (void)snprintf(text, sizeof(text), "data.train=['%0*d']", 4090, 0);
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override), "holds a path that is too long");
    (void)snprintf(text, sizeof(text), "data.train=['%0*d']", 4089, 0);
    mt_case_accepts(override);
}

static void too_many_validation_sets_are_told_once(void **state)
{
    MT_UNUSED(state);
    char text[1024] = "data.validation_sets={";
    const char *override = text;
    for (int i = 0; i < MT_MAX_SETS + 8; i++) {
        const size_t used = strlen(text);
        (void)snprintf(text + used, sizeof(text) - used, "%sset%d=['f']", i > 0 ? ", " : "", i);
    }
    (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "}");
    const char *refused = mt_case_refuse(mt_case_text, 1, &override);
    mt_case_has(refused, "data.validation_sets has one set too many, set");
    assert_int_equal(mt_case_n_line(refused), 1);
}

static void slowdown_takes_ranks_and_factors(void **state)
{
    MT_UNUSED(state);
    const char *const overrides[] = {"device.slowdown={10=1.5, 2=3}", "device.slowdown.5=2.0",
                                     "device.slowdown.10=4.0"};
    struct mt_config *config = mt_case_parse(mt_case_text, 3, overrides);
    assert_int_equal(config->device.n_slowdown, 3);
    const int ranks[] = {2, 5, 10};
    const double factors[] = {3.0, 2.0, 4.0};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(config->device.slowdown_rank[i], ranks[i]);
        assert_true(config->device.slowdown_factor[i] == factors[i]);
    }
    mt_memory_free(config);
    const char *const cleared[] = {"device.slowdown={10=1.5}", "device.slowdown={}"};
    config = mt_case_parse(mt_case_text, 2, cleared);
    assert_int_equal(config->device.n_slowdown, 0);
    mt_memory_free(config);
}

static void slowdown_refuses_what_is_no_rank_or_factor(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("device.slowdown={a=2.0}",
                          "device.slowdown has the key a, which is no rank; expected { 3 = 2.0 }: "
                          "rank 3 takes twice as long");
    const char *override = "device.slowdown.99999999999=2.0";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override), "which is no rank");
    mt_case_override_says("device.slowdown.1=0.5",
                          "device.slowdown = 0.5 is out of range; allowed: 1 to 1e+06");
    mt_case_override_says("device.slowdown=3", "device.slowdown = 3 is an integer; a table of "
                                               "rank = factor is expected, e.g. slowdown = "
                                               "{ 3 = 2.0 }");
    override = "device.slowdown.1={x=2}";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override), "a table of rank = factor is expected");
}

#define TEST(name) cmocka_unit_test_teardown(name, mt_case_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(wrong_types_name_the_expected_one_with_an_example),
        TEST(integers_serve_as_numbers),
        TEST(values_out_of_range_name_the_limit),
        TEST(the_limits_themselves_are_accepted),
        TEST(numbers_that_are_not_finite_are_refused),
        TEST(integers_beyond_64_bits_are_told_the_limit),
        TEST(an_unknown_choice_lists_all_and_the_nearest),
        TEST(texts_must_fit_and_print),
        TEST(too_many_or_too_long_paths_are_refused),
        TEST(too_many_validation_sets_are_told_once),
        TEST(slowdown_takes_ranks_and_factors),
        TEST(slowdown_refuses_what_is_no_rank_or_factor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
