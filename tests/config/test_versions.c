#include "config/case.h"
#include "support/test.h"

/* What this version lacks: the key is known, its default is accepted, everything else refused. */

static void values_of_later_versions_are_refused_by_name(void **state)
{
    MT_UNUSED(state);
    static const struct {
        const char *override, *message;
    } cases[] = {
        {"moe.score_function=\"sigmoid\"",
         "moe.score_function = \"sigmoid\" is not in this version; \"softmax\" is"},
        {"moe.num_expert_groups=2", "moe.num_expert_groups = 2 is not in this version; 1 is"},
        {"moe.top_k_groups=2", "moe.top_k_groups = 2 is not in this version; 1 is"},
        {"moe.capacity_factor=1.25", "moe.capacity_factor = 1.25 is not in this version; 0.0 is"},
        {"moe.jitter=0.01", "moe.jitter = 0.01 is not in this version; 0.0 is"},
        {"moe.balance.loss=\"sequence\"", "moe.balance.loss = \"sequence\" is not in this version; "
                                          "\"global\", \"micro\" and \"none\" are"},
        {"moe.balance.bias_update_rate=0.001",
         "moe.balance.bias_update_rate = 0.001 is not in this version; 0.0 is"},
        {"comm.transport=\"nccl\"",
         "comm.transport = \"nccl\" is not in this version; \"auto\" and \"mpi\" are"},
        {"optimizer.dense_sharding=\"full\"",
         "optimizer.dense_sharding = \"full\" is not in this version; \"optimizer\" is"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mt_case_override_says(cases[i].override, cases[i].message);
    }
}

static void the_defaults_of_such_keys_are_accepted(void **state)
{
    MT_UNUSED(state);
    static const char *const accepted[] = {"moe.score_function=\"softmax\"",
                                           "moe.num_expert_groups=1",
                                           "moe.capacity_factor=0",
                                           "moe.jitter=0.0",
                                           "moe.balance.bias_update_rate=0",
                                           "moe.balance.loss=\"none\"",
                                           "moe.balance.loss=\"micro\"",
                                           "comm.all_to_all=\"direct\"",
                                           "comm.all_to_all=\"deduplicated\"",
                                           "comm.exact=false",
                                           "comm.transport=\"mpi\"",
                                           "optimizer.dense_sharding=\"optimizer\"",
                                           "profile.enabled=true",
                                           "profile.enabled=false",
                                           "profile.trace_steps=[]",
                                           "profile.trace_steps=[3, 4]",
                                           "profile.window=10",
                                           "device.kind=\"cuda\"",
                                           "device.dtype=\"float32\"",
                                           "device.dtype=\"bfloat16\"",
                                           "optimizer.name=\"adamw\""};
    for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
        mt_case_accepts(accepted[i]);
    }
}

static void the_type_is_checked_before_the_version(void **state)
{
    MT_UNUSED(state);
    mt_case_override_says("moe.jitter=\"a\"", "moe.jitter = \"a\" is a string; a number is "
                                              "expected, e.g. jitter = 0.0");
    mt_case_override_says("profile.trace_steps=[\"a\"]",
                          "profile.trace_steps = \"a\" is a string; a list of integers is "
                          "expected, e.g. trace_steps = [100, 101]");
    mt_case_override_says("profile.trace_steps=[-1]", "profile.trace_steps = -1 is out of range; "
                                                      "allowed: 1 to 1099511627776 (2^40)");
}

#define TEST(name) cmocka_unit_test_teardown(name, mt_case_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(values_of_later_versions_are_refused_by_name),
        TEST(the_defaults_of_such_keys_are_accepted),
        TEST(the_type_is_checked_before_the_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
