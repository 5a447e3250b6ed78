#include "base/memory.h"
#include "base/random.h"
#include "config/case.h"
#include "config/write.h"
#include "support/test.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every key that has a field, away from its default. */
static const char *const unusual[] = {
    "run={name='n \"q\" \\\\', dir='d/e', seed=9007199254740993, wall_time_minutes=0.1, "
    "tensorboard=true}",
    "model={vocab_size=300, num_key_value_heads=2, head_dim=6, rope_theta=1e6}",
    "model={rope_scaling='yarn', rope_factor=2.5, rope_original_seq_len=40, rope_turns=[0.5, 9], "
    "rope_magnitude=1.25}",
    "model.rms_norm_eps=1e-300",
    "model={qk_norm='projection', tie_word_embeddings=true, init_std=0.30000000000000004}",
    "model={first_k_dense=1, dense_intermediate_size=12, attention_bias=true}",
    "moe={num_shared_experts=2, shared_intermediate_size=40, shared_gate=true, "
    "normalize_top_k=false, routed_scaling_factor=2.5}",
    "moe={routing='synthetic', workload='spread_heat', skew=2.5, trace='t \"1\".csv'}",
    "moe.balance={loss='micro', window='exact', loss_coef=0.001, z_loss_coef=1e-4}",
    "placement={policy='quota', slots=3, overlap_experts=0, rematerialize=false}",
    "placement={calibrate=false, load_window=9, reshard_interval=0, costs='c', shadow=true,"
    "split='settled'}",
    "comm={all_to_all='direct', transport='mpi', ranks_per_node=3, watchdog_seconds=0,"
    "exact=false, rehearse_alpha_us=50, overlap='on'}",
    "optimizer={lr=0.0003, betas=[0.85, 0.999], eps=1e-6, weight_decay=0, grad_clip=0}",
    "schedule={kind='wsd', warmup_steps=7, decay_steps=11, min_lr_ratio=0}",
    "data={validation=['v 1', 'v\"2'], validation_sets={web=['w', '/x'], code=['c']}, "
    "log_samples=true, attention='document', document_end=9, balance='cost', format='tokens', "
    "token_type='i16', "
    "weights=[0.25, 3], changed='accept'}",
    "train={eval_interval=3, eval_sequences=5, recompute='layer', nonfinite_patience=0}",
    "train={nonfinite_action='rollback', replica_check_interval=9}",
    "checkpoint={async=false, interval=4, keep=7, keep_every=8, max_overhead_percent=2.5}",
    "checkpoint.sparse_saves=3",
    "profile={enabled=false, trace_steps=[7, 11], window=10}",
    "device={kind='cpu', dtype='bfloat16', threads=3, pace_gflops=1.5}",
    "device={pace_gbytes_per_s=2.25, slowdown={3=1.5, 11=2, 7=1.1}}",
};
enum { N_UNUSUAL = sizeof(unusual) / sizeof(unusual[0]) };

/* mt_case_text resolved: every default as docs and interface promise it. */
static const char *const resolved_case = "[run]\n"
                                         "name = \"x\"\n"
                                         "dir = \"runs/x\"\n"
                                         "seed = 1\n"
                                         "wall_time_minutes = 0.0\n"
                                         "tensorboard = false\n"
                                         "\n"
                                         "[model]\n"
                                         "vocab_size = 256\n"
                                         "hidden_size = 64\n"
                                         "num_layers = 2\n"
                                         "num_attention_heads = 4\n"
                                         "num_key_value_heads = 4\n"
                                         "head_dim = 16\n"
                                         "max_seq_len = 32\n"
                                         "rope_theta = 10000.0\n"
                                         "rope_scaling = \"none\"\n"
                                         "rope_factor = 1.0\n"
                                         "rope_original_seq_len = 0\n"
                                         "rope_turns = [1.0, 4.0]\n"
                                         "rope_magnitude = 1.0\n"
                                         "rms_norm_eps = 1e-05\n"
                                         "qk_norm = \"none\"\n"
                                         "attention_bias = false\n"
                                         "tie_word_embeddings = false\n"
                                         "first_k_dense = 0\n"
                                         "dense_intermediate_size = 0\n"
                                         "init_std = 0.02\n"
                                         "\n"
                                         "[moe]\n"
                                         "num_experts = 8\n"
                                         "top_k = 2\n"
                                         "expert_intermediate_size = 48\n"
                                         "num_shared_experts = 0\n"
                                         "shared_intermediate_size = 0\n"
                                         "shared_gate = false\n"
                                         "score_function = \"softmax\"\n"
                                         "normalize_top_k = true\n"
                                         "routed_scaling_factor = 1.0\n"
                                         "num_expert_groups = 1\n"
                                         "top_k_groups = 1\n"
                                         "capacity_factor = 0.0\n"
                                         "jitter = 0.0\n"
                                         "routing = \"learned\"\n"
                                         "skew = 1.0\n"
                                         "\n"
                                         "[moe.balance]\n"
                                         "loss = \"global\"\n"
                                         "window = \"running\"\n"
                                         "loss_coef = 0.01\n"
                                         "z_loss_coef = 0.0\n"
                                         "bias_update_rate = 0.0\n"
                                         "\n"
                                         "[placement]\n"
                                         "policy = \"adaptive\"\n"
                                         "slots = \"auto\"\n"
                                         "overlap_experts = \"auto\"\n"
                                         "rematerialize = true\n"
                                         "calibrate = true\n"
                                         "split = \"auto\"\n"
                                         "load_window = 5\n"
                                         "reshard_interval = 100\n"
                                         "costs = \"measured\"\n"
                                         "shadow = false\n"
                                         "\n"
                                         "[comm]\n"
                                         "all_to_all = \"auto\"\n"
                                         "exact = true\n"
                                         "overlap = \"auto\"\n"
                                         "transport = \"auto\"\n"
                                         "ranks_per_node = \"auto\"\n"
                                         "watchdog_seconds = 600\n"
                                         "rehearse_alpha_us = 0\n"
                                         "\n"
                                         "[optimizer]\n"
                                         "name = \"adamw\"\n"
                                         "lr = 0.001\n"
                                         "betas = [0.9, 0.95]\n"
                                         "eps = 1e-08\n"
                                         "weight_decay = 0.1\n"
                                         "grad_clip = 1.0\n"
                                         "dense_sharding = \"optimizer\"\n"
                                         "\n"
                                         "[schedule]\n"
                                         "kind = \"cosine\"\n"
                                         "warmup_steps = 0\n"
                                         "decay_steps = 100\n"
                                         "min_lr_ratio = 0.1\n"
                                         "\n"
                                         "[data]\n"
                                         "train = [\"/base/a.txt\", \"/abs/b.txt\"]\n"
                                         "validation = []\n"
                                         "validation_sets = {}\n"
                                         "format = \"bytes\"\n"
                                         "token_type = \"auto\"\n"
                                         "weights = []\n"
                                         "changed = \"refuse\"\n"
                                         "attention = \"sequence\"\n"
                                         "document_end = \"auto\"\n"
                                         "balance = \"count\"\n"
                                         "log_samples = false\n"
                                         "\n"
                                         "[train]\n"
                                         "steps = 100\n"
                                         "global_batch_size = 16\n"
                                         "micro_batch_size = 4\n"
                                         "eval_interval = 0\n"
                                         "eval_sequences = 64\n"
                                         "recompute = \"none\"\n"
                                         "nonfinite_patience = 3\n"
                                         "nonfinite_action = \"stop\"\n"
                                         "replica_check_interval = 0\n"
                                         "\n"
                                         "[checkpoint]\n"
                                         "interval = 0\n"
                                         "keep = 2\n"
                                         "keep_every = 0\n"
                                         "async = true\n"
                                         "sparse_saves = 0\n"
                                         "max_overhead_percent = 0.0\n"
                                         "\n"
                                         "[profile]\n"
                                         "enabled = true\n"
                                         "trace_steps = []\n"
                                         "window = 50\n"
                                         "\n"
                                         "[device]\n"
                                         "kind = \"auto\"\n"
                                         "dtype = \"float32\"\n"
                                         "threads = \"auto\"\n"
                                         "pace_gflops = 0.0\n"
                                         "pace_gbytes_per_s = 0.0\n"
                                         "slowdown = {}\n";

static char *text_of(const struct mt_config *config)
{
    char *text = NULL;
    MT_TEST_OK(mt_config_to_text(config, &text));
    return text;
}

/* The same through the FILE face. */
static char *file_text_of(const struct mt_config *config)
{
    enum { ROOM = 1 << 16 };
    char *text = NULL;
    assert_int_equal(MT_ALLOCATE(text, ROOM, "test"), MT_OK);
    FILE *file = tmpfile();
    assert_non_null(file);
    mt_config_write(config, file);
    rewind(file);
    assert_true(fread(text, 1, ROOM - 1, file) > 0);
    (void)fclose(file);
    return text;
}

static void round_trips(struct mt_config *config)
{
    char *first = text_of(config);
    struct mt_config *again = mt_case_parse(first, 0, NULL);
    char *second = text_of(again);
    char *third = file_text_of(config);
    assert_string_equal(first, second);
    assert_string_equal(first, third);
    assert_memory_equal(config, again, sizeof(*config));
    assert_int_equal(mt_config_hash(config), mt_config_hash(again));
    mt_memory_free(first);
    mt_memory_free(second);
    mt_memory_free(third);
    mt_memory_free(again);
    mt_memory_free(config);
}

static void a_written_configuration_parses_back_to_the_same(void **state)
{
    MT_UNUSED(state);
    round_trips(mt_case_parse(mt_case_text, 0, NULL));
    round_trips(mt_case_parse(mt_case_text, N_UNUSUAL, unusual));
}

static void the_unusual_case_leaves_no_field_at_its_default(void **state)
{
    MT_UNUSED(state);
    struct mt_config *usual = mt_case_parse(mt_case_text, 0, NULL);
    struct mt_config *other = mt_case_parse(mt_case_text, N_UNUSUAL, unusual);
    for (int i = 0; i < mt_table_n_key(); i++) {
        const struct mt_key *key = mt_table_key(i);
        const bool fixed = key->offset == MT_NO_FIELD || key->required ||
                           (key->only != NULL && strchr(key->only, '|') == NULL);
        if (!fixed && mt_write_hash(usual, key) == mt_write_hash(other, key)) {
            fail_msg("%s.%s", key->section, key->name);
        }
    }
    mt_memory_free(usual);
    mt_memory_free(other);
}

static void defaults_are_the_promised_ones(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = mt_case_parse(mt_case_text, 0, NULL);
    char *text = text_of(config);
    assert_string_equal(text, resolved_case);
    mt_memory_free(text);
    mt_memory_free(config);
}

static void keys_of_later_versions_are_written_with_their_only_value(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = mt_case_parse(mt_case_text, 0, NULL);
    char *text = text_of(config);
    mt_case_has(text, "\nscore_function = \"softmax\"\n");
    mt_case_has(text, "\ntrace_steps = []\n");
    mt_memory_free(text);
    mt_memory_free(config);
}

/* "" would be refused when the run directory's config.toml is read again. */
static void texts_that_were_not_given_are_left_out(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = mt_case_parse(mt_case_text, 0, NULL);
    char *text = text_of(config);
    assert_null(strstr(text, "workload"));
    assert_null(strstr(text, "trace ="));
    mt_memory_free(text);
    mt_memory_free(config);
    config = mt_case_with("moe.trace=\"t.csv\"");
    text = text_of(config);
    assert_null(strstr(text, "workload"));
    mt_case_has(text, "\ntrace = \"t.csv\"\n");
    mt_memory_free(text);
    mt_memory_free(config);
}

static void reals_are_shortest_and_exact(void **state)
{
    MT_UNUSED(state);
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.0, "0.0"},
                 {10000.0, "10000.0"},
                 {0.1, "0.1"},
                 {1e-8, "1e-08"},
                 {0.1 + 0.2, "0.30000000000000004"},
                 {1e30, "1e+30"},
                 {1.0 / 3.0, "0.3333333333333333"},
                 {-2.5, "-2.5"},
                 {DBL_MAX, "1.7976931348623157e+308"}};
    char text[40];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mt_write_real(cases[i].value, text, sizeof(text));
        assert_string_equal(text, cases[i].text);
    }
    for (uint64_t i = 0; i < 20000; i++) {
        double value = 0.0;
        const uint64_t bits = mt_random_u64(1, 2, i) & ~(UINT64_C(0x400) << 52);
        memcpy(&value, &bits, sizeof(value));
        mt_write_real(value, text, sizeof(text));
        assert_true(strtod(text, NULL) == value);
    }
}

static void a_value_too_long_for_the_buffer_is_cut(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = mt_case_parse(mt_case_text, 0, NULL);
    const struct mt_key *key = mt_table_key(mt_table_index("data.train"));
    char text[16];
    mt_write_value(config, key, text, sizeof(text));
    assert_string_equal(text, "[\"/base/a.txt\",");
    char one[1];
    mt_write_value(config, key, one, sizeof(one));
    assert_string_equal(one, "");
    mt_memory_free(config);
}

static void the_hash_sees_every_key_but_the_run_directory(void **state)
{
    MT_UNUSED(state);
    const char *overrides[] = {"data.format='random'", "run.dir='elsewhere'"};
    struct mt_config *usual = mt_case_parse(mt_case_text, 1, overrides);
    struct mt_config *elsewhere = mt_case_parse(mt_case_text, 2, overrides);
    const uint64_t hash = mt_config_hash(usual);
    assert_true(mt_config_hash(elsewhere) == hash);
    mt_memory_free(elsewhere);
    mt_memory_free(usual);
    for (int i = 0; i < N_UNUSUAL; i++) {
        overrides[1] = unusual[i];
        struct mt_config *other = mt_case_parse(mt_case_text, 2, overrides);
        assert_true(mt_config_hash(other) != hash);
        mt_memory_free(other);
    }
}

#define TEST(name) cmocka_unit_test_teardown(name, mt_case_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_written_configuration_parses_back_to_the_same),
        TEST(the_unusual_case_leaves_no_field_at_its_default),
        TEST(defaults_are_the_promised_ones),
        TEST(keys_of_later_versions_are_written_with_their_only_value),
        TEST(texts_that_were_not_given_are_left_out),
        TEST(reals_are_shortest_and_exact),
        TEST(a_value_too_long_for_the_buffer_is_cut),
        TEST(the_hash_sees_every_key_but_the_run_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
