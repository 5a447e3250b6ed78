#include "base/memory.h"
#include "config/choice.h"
#include "config/load.h"
#include "config/table.h"
#include "support/test.h"

#include <stdio.h>
#include <string.h>

/* The public names: a name in this list keeps its meaning, so none may vanish from the table. */
static const char *const public_names =
    "run.name run.dir run.seed run.wall_time_minutes run.tensorboard model.vocab_size "
    "model.hidden_size "
    "model.num_layers model.num_attention_heads model.num_key_value_heads model.head_dim "
    "model.max_seq_len model.rope_theta model.rope_scaling model.rope_factor "
    "model.rope_original_seq_len model.rope_turns model.rope_magnitude "
    "model.rms_norm_eps model.qk_norm model.attention_bias "
    "model.tie_word_embeddings model.first_k_dense model.dense_intermediate_size model.init_std "
    "moe.num_experts moe.top_k moe.expert_intermediate_size moe.num_shared_experts "
    "moe.shared_intermediate_size moe.shared_gate "
    "moe.score_function moe.normalize_top_k moe.routed_scaling_factor moe.num_expert_groups "
    "moe.top_k_groups moe.capacity_factor moe.jitter moe.routing moe.workload moe.skew moe.trace "
    "moe.balance.loss moe.balance.window moe.balance.loss_coef moe.balance.z_loss_coef "
    "moe.balance.bias_update_rate placement.policy placement.slots placement.overlap_experts "
    "placement.rematerialize placement.calibrate placement.split placement.load_window "
    "placement.reshard_interval placement.costs placement.shadow comm.all_to_all comm.exact "
    "comm.transport comm.ranks_per_node comm.watchdog_seconds comm.rehearse_alpha_us comm.overlap "
    "optimizer.name optimizer.lr "
    "optimizer.betas optimizer.eps optimizer.weight_decay optimizer.grad_clip "
    "optimizer.dense_sharding schedule.kind schedule.warmup_steps schedule.decay_steps "
    "schedule.min_lr_ratio data.train data.validation data.validation_sets data.format "
    "data.token_type data.weights "
    "data.changed data.log_samples data.attention data.document_end data.balance train.steps "
    "train.global_batch_size train.micro_batch_size train.eval_interval train.eval_sequences "
    "train.recompute train.nonfinite_patience train.nonfinite_action train.replica_check_interval "
    "checkpoint.interval "
    "checkpoint.keep checkpoint.keep_every checkpoint.async checkpoint.sparse_saves "
    "checkpoint.max_overhead_percent "
    "profile.enabled profile.trace_steps profile.window device.kind device.dtype device.threads "
    "device.pace_gflops device.pace_gbytes_per_s device.slowdown";

static void every_public_name_is_a_key(void **state)
{
    MT_UNUSED(state);
    char path[64];
    int n = 0;
    for (const char *rest = public_names; *rest != '\0'; n++) {
        const size_t length = strcspn(rest, " ");
        (void)snprintf(path, sizeof(path), "%.*s", (int)length, rest);
        assert_true(mt_table_index(path) >= 0);
        rest += length + (rest[length] == ' ');
    }
    assert_int_equal(n, mt_table_n_key());
}

static void keys_are_unique_and_sections_stand_together(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < mt_table_n_key(); i++) {
        const struct mt_key *key = mt_table_key(i);
        assert_int_equal(mt_table_find(key->section, key->name), i);
        for (int j = i + 1; j < mt_table_n_key(); j++) {
            const bool same = strcmp(mt_table_key(j)->section, key->section) == 0;
            const bool left = strcmp(mt_table_key(j - 1)->section, key->section) != 0;
            assert_false(same && left);
        }
    }
    assert_int_equal(mt_table_find("model", "steps"), -1);
    assert_true(mt_table_has_section("moe.balance"));
    assert_false(mt_table_has_section("balance"));
}

static void every_row_is_complete(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < mt_table_n_key(); i++) {
        const struct mt_key *key = mt_table_key(i);
        const bool is_text = key->type == MT_KEY_TEXT;
        assert_non_null(key->help);
        assert_true(key->value != NULL || key->example != NULL);
        assert_int_equal(key->required + (key->value != NULL) + (key->derived != NULL), 1);
        assert_true(!is_text || key->offset == MT_NO_FIELD || key->field_bytes > 0);
        assert_true(key->type != MT_KEY_CHOICE || key->choices != NULL);
        assert_true(key->offset != MT_NO_FIELD || key->only != NULL ||
                    mt_choice_count(key->choices) == 1);
    }
}

/* The help in one style as a string. */
static char *help_text(enum mt_config_style style)
{
    enum { ROOM = 1 << 17 };
    char *text = NULL;
    assert_int_equal(MT_ALLOCATE(text, ROOM, "test"), MT_OK);
    FILE *file = tmpfile();
    assert_non_null(file);
    mt_config_write_help(style, file);
    rewind(file);
    const size_t n = fread(text, 1, ROOM - 1, file);
    assert_true(n > 0 && n < ROOM - 1);
    (void)fclose(file);
    return text;
}

static void help_names_every_key_default_and_section(void **state)
{
    MT_UNUSED(state);
    for (int style = MT_CONFIG_PLAIN; style <= MT_CONFIG_MARKDOWN; style++) {
        char *text = help_text((enum mt_config_style)style);
        for (int i = 0; i < mt_table_n_key(); i++) {
            const struct mt_key *key = mt_table_key(i);
            char name[128];
            if (style == MT_CONFIG_PLAIN) {
                (void)snprintf(name, sizeof(name), "\n  %s ", key->name);
            } else if (style == MT_CONFIG_ROFF) {
                (void)snprintf(name, sizeof(name), "\n.B %s\n", key->name);
            } else {
                (void)snprintf(name, sizeof(name), "\n- `%s` (", key->name);
            }
            assert_non_null(strstr(text, name));
            (void)snprintf(name, sizeof(name), "[%s]", key->section);
            assert_non_null(strstr(text, name));
        }
        mt_memory_free(text);
    }
    char *text = help_text(MT_CONFIG_PLAIN);
    assert_non_null(strstr(text, "  rope_theta [10000.0] number, above 0, up to 1e+12\n"));
    assert_non_null(
        strstr(text, "  hidden_size (required, e.g. 128) integer, 1 to 1048576 (2^20)"));
    assert_non_null(strstr(text, "This version has only \"softmax\"."));
    mt_memory_free(text);
}

static void help_is_at_most_100_columns_wide(void **state)
{
    MT_UNUSED(state);
    char *text = help_text(MT_CONFIG_PLAIN);
    for (const char *line = text; *line != '\0';) {
        const size_t n = strcspn(line, "\n");
        assert_true(n <= 100);
        line += n + (line[n] == '\n');
    }
    mt_memory_free(text);
}

static void roff_lines_start_with_a_dot_only_for_requests(void **state)
{
    MT_UNUSED(state);
    char *text = help_text(MT_CONFIG_ROFF);
    for (const char *line = text; *line != '\0';) {
        const bool is_request = strncmp(line, ".SS ", 4) == 0 || strncmp(line, ".TP\n", 4) == 0 ||
                                strncmp(line, ".B ", 3) == 0;
        assert_true(is_request || (line[0] != '.' && line[0] != '\''));
        const size_t n = strcspn(line, "\n");
        line += n + (line[n] == '\n');
    }
    mt_memory_free(text);
}

static void choices_are_found_counted_and_listed(void **state)
{
    MT_UNUSED(state);
    char text[64];
    assert_int_equal(mt_choice_find("a|bc|d", "bc"), 1);
    assert_int_equal(mt_choice_find("a|bc|d", "b"), -1);
    assert_int_equal(mt_choice_find("a|bc|d", ""), -1);
    assert_int_equal(mt_choice_count("a|bc|d"), 3);
    mt_choice_list("a|bc|d", true, " or ", text, sizeof(text));
    assert_string_equal(text, "\"a\", \"bc\" or \"d\"");
    mt_choice_list("a", false, " or ", text, sizeof(text));
    assert_string_equal(text, "a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_public_name_is_a_key),
        cmocka_unit_test(keys_are_unique_and_sections_stand_together),
        cmocka_unit_test(every_row_is_complete),
        cmocka_unit_test(help_names_every_key_default_and_section),
        cmocka_unit_test(help_is_at_most_100_columns_wide),
        cmocka_unit_test(roff_lines_start_with_a_dot_only_for_requests),
        cmocka_unit_test(choices_are_found_counted_and_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
