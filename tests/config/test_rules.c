#include "base/memory.h"
#include "config/case.h"
#include "support/test.h"

#include <stdio.h>
#include <string.h>

static void what_shared_experts_have_needs_shared_experts(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("moe.shared_intermediate_size=96",
                          "moe.shared_intermediate_size = 96 is the width of shared experts, but "
                          "num_shared_experts = 0; set num_shared_experts or leave the width out");
    mt_case_override_says("moe.shared_gate=true",
                          "moe.shared_gate = true weighs shared experts, but num_shared_experts = "
                          "0; set num_shared_experts or leave the gate out");
    mt_case_accepts("moe={num_shared_experts=1, shared_gate=true, shared_intermediate_size=96}");
}

static void width_of_shared_experts_is_theirs_together(void **state)
{
    MT_UNUSED(state);
    const char *const two[] = {"moe.num_shared_experts=2"};
    struct mt_config *config = mt_case_parse(mt_case_text, 0, NULL);
    assert_int_equal(mt_config_shared_width(config), 0);
    mt_memory_free(config);
    config = mt_case_parse(mt_case_text, 1, two);
    assert_int_equal(mt_config_shared_width(config), 2 * config->moe.expert_intermediate_size);
    config->moe.shared_intermediate_size = 7;
    assert_int_equal(mt_config_shared_width(config), 7);
    mt_memory_free(config);
}

static void heads_must_divide_by_key_value_heads(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("model.num_key_value_heads=3",
                          "model.num_attention_heads = 4 does not divide by num_key_value_heads = "
                          "3: 4 mod 3 = 1; nearest legal num_key_value_heads: 2 or 4");
    mt_case_override_says("model.num_key_value_heads=8",
                          "model.num_attention_heads = 4 does not divide by num_key_value_heads = "
                          "8: 4 mod 8 = 4; nearest legal num_key_value_heads: 4");
    mt_case_accepts("model.num_key_value_heads=1");
}

static void key_value_heads_default_to_heads(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = mt_case_parse(mt_case_text, 0, NULL);
    assert_int_equal(config->model.num_key_value_heads, 4);
    assert_int_equal(config->model.head_dim, 16);
    mt_memory_free(config);
}

static void hidden_size_must_divide_by_heads_unless_head_dim_is_given(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("model.num_attention_heads=6",
                          "model.hidden_size = 64 does not divide by num_attention_heads = 6: 64 "
                          "mod 6 = 4; nearest legal num_attention_heads: 4 or 8; or set head_dim");
    const char *const odd[] = {"model.hidden_size=63"};
    mt_case_has(mt_case_refuse(mt_case_text, 1, odd), "nearest legal num_attention_heads: none; or "
                                                      "set head_dim");
    const char *const given[] = {"model.num_attention_heads=6", "model.head_dim=10"};
    struct mt_config *config = mt_case_parse(mt_case_text, 2, given);
    assert_int_equal(config->model.head_dim, 10);
    assert_int_equal(config->model.num_key_value_heads, 6);
    mt_memory_free(config);
}

static void head_dim_must_be_even_and_in_range(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says(
        "model.head_dim=33",
        "model.head_dim = 33 is odd; the rotary embedding turns pairs, so it must "
        "be even; nearest legal head_dim: 32 or 34");
    mt_case_override_says(
        "model.num_attention_heads=64",
        "model.head_dim = hidden_size / num_attention_heads = 64 / 64 = 1 is odd; "
        "the rotary embedding turns pairs, so it must be even; nearest legal "
        "head_dim: 2");
    const char *const huge[] = {"model.hidden_size=1048576"};
    mt_case_has(mt_case_refuse(mt_case_text, 1, huge), "model.head_dim = hidden_size / "
                                                       "num_attention_heads = 1048576 / 4 = 262144 "
                                                       "is out of range; allowed: 2 to 65536");
}

static void stretching_has_the_numbers_of_its_kind(void **state)
{
    MT_UNUSED(state);
    const char *const yarn[] = {"model={rope_scaling='yarn', rope_factor=4}"};
    struct mt_config *config = mt_case_parse(mt_case_text, 1, yarn);
    assert_true(config->model.rope_turns[0] == 1.0 && config->model.rope_turns[1] == 32.0);
    assert_float_equal(config->model.rope_magnitude, 1.1386294361119891, 1e-15);
    mt_memory_free(config);
    const char *const llama[] = {"model={rope_scaling='llama3', rope_factor=8}"};
    config = mt_case_parse(mt_case_text, 1, llama);
    assert_true(config->model.rope_turns[0] == 1.0 && config->model.rope_turns[1] == 4.0);
    assert_true(config->model.rope_magnitude == 1.0);
    mt_memory_free(config);
    mt_case_override_says("model.rope_factor=2",
                          "model.rope_factor = 2 is for model.rope_scaling, which is \"none\"; set "
                          "that, too, or leave the factor out");
    mt_case_override_says("model.rope_turns=[4, 4]",
                          "model.rope_turns = [4, 4] does not rise; the first is what is stretched "
                          "at most; expected e.g. [1.0, 4.0]");
    mt_case_override_says("model.rope_magnitude=2",
                          "model.rope_magnitude = 2 is for model.rope_scaling = \"yarn\"; leave it "
                          "out");
}

static void top_k_is_at_most_num_experts(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("moe.top_k=9", "moe.top_k = 9 exceeds num_experts = 8; a token goes to "
                                         "different experts; allowed: 1 to 8");
    mt_case_accepts("moe.top_k=8");
}

static void dense_layers_need_their_width(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("model.first_k_dense=1",
                          "model.first_k_dense = 1 needs dense_intermediate_size, the width of the "
                          "dense layers; add it to [model]");
    const char *const many[] = {"model.first_k_dense=3", "model.dense_intermediate_size=8"};
    mt_case_has(mt_case_refuse(mt_case_text, 2, many),
                "model.first_k_dense = 3 exceeds num_layers = 2; allowed: 0 to 2");
    const char *const fine[] = {"model.first_k_dense=1", "model.dense_intermediate_size=8"};
    struct mt_config *config = mt_case_parse(mt_case_text, 2, fine);
    assert_true(mt_config_is_dense_layer(config, 0));
    assert_false(mt_config_is_dense_layer(config, 1));
    mt_memory_free(config);
}

static void the_dense_width_counts_for_nothing_without_dense_layers(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = mt_case_with("model.dense_intermediate_size=8");
    assert_int_equal(config->model.dense_intermediate_size, 0);
    mt_memory_free(config);
}

static void moe_may_be_left_out_when_all_layers_are_dense(void **state)
{
    MT_UNUSED(state);
    static const char text[] = "[model]\nhidden_size = 8\nnum_layers = 2\nnum_attention_heads = 2\n"
                               "max_seq_len = 4\nfirst_k_dense = 2\ndense_intermediate_size = 16\n"
                               "[optimizer]\nlr = 0\n[data]\nformat = \"random\"\n"
                               "[train]\nsteps = 1\nglobal_batch_size = 1\nmicro_batch_size = 1\n";
    struct mt_config *config = mt_case_parse(text, 0, NULL);
    assert_int_equal(config->moe.num_experts, 1);
    assert_int_equal(config->moe.top_k, 1);
    mt_memory_free(config);
    const char *const one_moe[] = {"model.first_k_dense=1"};
    mt_case_has(mt_case_refuse(text, 1, one_moe),
                "the table [moe] is missing; it needs num_experts, top_k, "
                "expert_intermediate_size");
}

/* Whether a text holds larger ids is known when it is read: an input error, not a mistake here. */
static void a_vocabulary_below_256_may_fit_a_text(void **state)
{
    MT_UNUSED(state);
    const char *const small[] = {"model.vocab_size=128", "data.format=\"bytes\""};
    mt_memory_free(mt_case_parse(mt_case_text, 2, small));
}

static void training_files_are_needed_unless_data_are_random(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("data.train=[]", "data.train is empty; at least one path is expected, or "
                                           "data.format = \"random\"");
    const char *const random[] = {"data.train=[]", "data.format=\"random\""};
    mt_memory_free(mt_case_parse(mt_case_text, 2, random));
}

static void weights_are_one_a_path_whatever_the_format(void **state)
{
    MT_UNUSED(state);
    const char *const random[] = {"data.train=[]", "data.format='random'", "data.weights=[1]"};
    mt_case_has(mt_case_refuse(mt_case_text, 3, random),
                "data.weights has 1 numbers for 0 paths of data.train; one a path is expected");
    mt_case_override_says("data.weights=[1, 2, 3]",
                          "data.weights has 3 numbers for 2 paths of data.train; one a path is "
                          "expected, or none");
    mt_case_accepts("data.weights=[1, 2]");
}

static void what_no_format_reads_is_refused(void **state)
{
    MT_UNUSED(state);
    const char *const file[] = {"data.format='random'", "data.validation=['v']"};
    mt_case_has(mt_case_refuse(mt_case_text, 2, file),
                "data.validation names files, which data.format = \"random\" does not read; leave "
                "them out (data.validation = []) or choose a format of files");
    const char *const sets[] = {"data.format='random'", "data.validation_sets={a=['v']}"};
    mt_case_has(mt_case_refuse(mt_case_text, 2, sets),
                "data.validation_sets names files, which data.format = \"random\" does not read; "
                "leave them out (data.validation_sets = {})");
    mt_case_accepts("data.format='random'");
    mt_case_override_says("data.token_type='u16'",
                          "data.token_type is for data.format = \"tokens\", whose files may lack a "
                          "header; other formats have their own types; leave it out");
    const char *const bare[] = {"data.format='tokens'", "data.token_type='u16'"};
    mt_memory_free(mt_case_parse(mt_case_text, 2, bare));
    mt_case_accepts("data.token_type='auto'");
    mt_case_override_says("data.document_end=10",
                          "data.document_end = 10 is for data.attention = \"document\": otherwise "
                          "nothing looks for ends; leave it out");
    const char *const ends[] = {"data.attention='document'", "data.document_end=10"};
    mt_memory_free(mt_case_parse(mt_case_text, 2, ends));
}

static void evaluation_needs_a_file(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("train.eval_interval=5",
                          "train.eval_interval = 5 needs data.validation, which is empty; name a "
                          "file there or set eval_interval = 0");
    const char *const fine[] = {"train.eval_interval=5", "data.validation=['v']"};
    mt_memory_free(mt_case_parse(mt_case_text, 2, fine));
    const char *const random[] = {"train.eval_interval=5", "data.format='random'"};
    mt_memory_free(mt_case_parse(mt_case_text, 2, random));
}

static void decay_defaults_to_what_warm_up_leaves(void **state)
{
    MT_UNUSED(state);
    static const struct {
        const char *override;
        int64_t decay_steps;
    } cases[] = {{"schedule.warmup_steps=0", 100},
                 {"schedule.warmup_steps=30", 70},
                 {"schedule.warmup_steps=100", 0},
                 {"schedule.warmup_steps=500", 0},
                 {"schedule.decay_steps=7", 7}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mt_config *config = mt_case_with(cases[i].override);
        assert_int_equal(config->schedule.decay_steps, cases[i].decay_steps);
        mt_memory_free(config);
    }
}

static void the_count_of_all_tokens_must_fit(void **state)
{
    MT_UNUSED(state);
    const char *const overrides[] = {"train.steps=1099511627776",
                                     "train.global_batch_size=16777216"};
    mt_case_has(mt_case_refuse(mt_case_text, 2, overrides),
                "train.steps x global_batch_size x max_seq_len = 1099511627776 x 16777216 x 32 "
                "tokens is out of range; allowed: up to 2^63 - 1");
}

static void routing_of_a_study_needs_its_source(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("moe.routing=\"synthetic\"",
                          "moe.routing = \"synthetic\" needs moe.workload, the shape of the load; "
                          "add for example workload = \"hot_rank\"");
    mt_case_override_says("moe.routing=\"replay\"",
                          "moe.routing = \"replay\" needs moe.trace, the file of counts to replay; "
                          "name it");
    const char *const synthetic[] = {"moe={routing=\"synthetic\", workload=\"burst\"}"};
    mt_memory_free(mt_case_parse(mt_case_text, 1, synthetic));
    const char *const replay[] = {"moe={routing=\"replay\", trace=\"t.csv\"}"};
    mt_memory_free(mt_case_parse(mt_case_text, 1, replay));
    mt_case_override_says("moe.workload=\"burst\"",
                          "moe.workload is the load of synthetic routing, and moe.routing is "
                          "another; set moe.routing = \"synthetic\", or leave it out");
    mt_case_override_says("moe.skew=2.0",
                          "moe.skew is the load of synthetic routing, and moe.routing is another; "
                          "set moe.routing = \"synthetic\", or leave it out");
    const char *const even[] = {"moe.skew=1.0"}; /* as a written configuration has it */
    mt_memory_free(mt_case_parse(mt_case_text, 1, even));
    /* One mistake, one line: a workload that is refused is not also missing. */
    const char *const bad[] = {"moe={routing=\"synthetic\", workload=\"zipf\"}"};
    assert_int_equal(mt_case_n_line(mt_case_refuse(mt_case_text, 1, bad)), 1);
}

static void every_policy_of_the_list_may_be_asked_for(void **state)
{
    MT_UNUSED(state);
    static const char *const policies[] = {"ep",           "fsdp",  "fastermoe", "smartmoe",
                                           "flexmoe",      "eplb",  "fssdp",     "fsep",
                                           "least_loaded", "quota", "adaptive"};
    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
        char override[64];
        (void)snprintf(override, sizeof(override), "placement.policy=\"%s\"", policies[i]);
        struct mt_config *config = mt_case_with(override);
        assert_string_equal(config->placement.policy, policies[i]);
        mt_memory_free(config);
    }
}

static void a_run_name_must_name_a_folder(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("run.name=\"a/b\"",
                          "run.name = \"a/b\" cannot name a folder; no \"/\", \".\" or \"..\"; use "
                          "run.dir to place the run elsewhere");
    const char *override = "run.name=\"..\"";
    mt_case_has(mt_case_refuse(mt_case_text, 1, &override), "cannot name a folder");
}

static void a_refused_value_causes_no_further_complaints(void **state)
{
    MT_UNUSED(state);
    const char *const overrides[] = {"model.hidden_size=0",    "model.num_attention_heads=0",
                                     "moe.num_experts=0",      "data.format=\"byte\"",
                                     "train.eval_interval=-1", "model.first_k_dense=-1"};
    const char *text = mt_case_refuse(mt_case_text, 6, overrides);
    assert_int_equal(mt_case_n_line(text), 6);
}

#define TEST(name) cmocka_unit_test_teardown(name, mt_case_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_shared_experts_have_needs_shared_experts),
        TEST(width_of_shared_experts_is_theirs_together),
        TEST(heads_must_divide_by_key_value_heads),
        TEST(key_value_heads_default_to_heads),
        TEST(hidden_size_must_divide_by_heads_unless_head_dim_is_given),
        TEST(head_dim_must_be_even_and_in_range),
        TEST(stretching_has_the_numbers_of_its_kind),
        TEST(top_k_is_at_most_num_experts),
        TEST(dense_layers_need_their_width),
        TEST(the_dense_width_counts_for_nothing_without_dense_layers),
        TEST(moe_may_be_left_out_when_all_layers_are_dense),
        TEST(a_vocabulary_below_256_may_fit_a_text),
        TEST(training_files_are_needed_unless_data_are_random),
        TEST(weights_are_one_a_path_whatever_the_format),
        TEST(what_no_format_reads_is_refused),
        TEST(evaluation_needs_a_file),
        TEST(decay_defaults_to_what_warm_up_leaves),
        TEST(the_count_of_all_tokens_must_fit),
        TEST(routing_of_a_study_needs_its_source),
        TEST(every_policy_of_the_list_may_be_asked_for),
        TEST(a_run_name_must_name_a_folder),
        TEST(a_refused_value_causes_no_further_complaints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
