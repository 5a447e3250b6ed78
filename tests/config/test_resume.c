#include "base/memory.h"
#include "config/case.h"
#include "support/test.h"

#include <string.h>

enum { CHANGES_BYTES = 1024 };

static enum mt_status check(const char *override, char *changes)
{
    struct mt_config *then = mt_case_parse(mt_case_text, 0, NULL);
    struct mt_config *now = mt_case_with(override);
    const enum mt_status status = mt_config_check_resume(now, then, changes, CHANGES_BYTES);
    mt_memory_free(then);
    mt_memory_free(now);
    return status;
}

static void the_same_configuration_resumes_without_a_word(void **state)
{
    MT_UNUSED(state);
    char changes[CHANGES_BYTES];
    MT_TEST_OK(check("run.seed=1", changes));
    assert_string_equal(changes, "");
}

static void model_expert_shapes_and_seed_must_stay(void **state)
{
    MT_UNUSED(state);
    char changes[CHANGES_BYTES];
    static const char *const refused[] = {"model.hidden_size=32",
                                          "model.max_seq_len=64",
                                          "model.qk_norm='head'",
                                          "model.attention_bias=true",
                                          "model.rope_theta=5000.0",
                                          "model.tie_word_embeddings=true",
                                          "moe.num_experts=16",
                                          "moe.expert_intermediate_size=8",
                                          "moe.num_shared_experts=1",
                                          "moe={num_shared_experts=1,shared_gate=true}",
                                          "moe.top_k=1",
                                          "run.seed=2"};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        MT_TEST_FAILS(check(refused[i], changes), MT_ERR_CONFIG, "must stay");
    }
    MT_TEST_FAILS(check("run.seed=2", changes), MT_ERR_CONFIG, "\nrun.seed: 1 -> 2");
    MT_TEST_FAILS(check("model.hidden_size=32", changes), MT_ERR_CONFIG,
                  "\nmodel.hidden_size: 64 -> 32\nmodel.head_dim: 16 -> 8");
}

static void other_changes_are_allowed_and_told(void **state)
{
    MT_UNUSED(state);
    char changes[CHANGES_BYTES];
    MT_TEST_OK(check("optimizer.lr=0.5", changes));
    assert_string_equal(changes, "optimizer.lr: 0.001 -> 0.5");
    MT_TEST_OK(check("device.dtype='bfloat16'", changes));
    assert_string_equal(changes, "device.dtype: \"float32\" -> \"bfloat16\"");
    MT_TEST_OK(check("train.steps=200", changes));
    assert_string_equal(changes, "schedule.decay_steps: 100 -> 200\ntrain.steps: 100 -> 200");
    MT_TEST_OK(check("data.train=['/c']", changes));
    assert_string_equal(changes, "data.train: [\"/base/a.txt\", \"/abs/b.txt\"] -> [\"/c\"]");
    MT_TEST_OK(check("moe.normalize_top_k=false", NULL));
}

static void changes_that_do_not_fit_are_left_out_whole(void **state)
{
    MT_UNUSED(state);
    struct mt_config *then = mt_case_parse(mt_case_text, 0, NULL);
    struct mt_config *now = mt_case_with("train.steps=200");
    char changes[40];
    MT_TEST_OK(mt_config_check_resume(now, then, changes, sizeof(changes)));
    assert_string_equal(changes, "schedule.decay_steps: 100 -> 200");
    MT_TEST_OK(mt_config_check_resume(now, then, changes, 0));
    mt_memory_free(then);
    mt_memory_free(now);
}

#define TEST(name) cmocka_unit_test_teardown(name, mt_case_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_same_configuration_resumes_without_a_word),
        TEST(model_expert_shapes_and_seed_must_stay),
        TEST(other_changes_are_allowed_and_told),
        TEST(changes_that_do_not_fit_are_left_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
