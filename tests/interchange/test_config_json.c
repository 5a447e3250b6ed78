/* config.json of other programs: what this one cannot compute is refused by key and value, with
 * code 3; what it can is the same from and to. */
#include "base/memory.h"
#include "config/write.h"
#include "interchange/config_json.h"
#include "interchange/foreign.h"
#include "model/model.h"
#include "mutate.h"
#include "support/folder.h"
#include "support/test.h"

#include <stdio.h>
#include <string.h>

enum { SEED = 20261124 };

static void vector_path(const char *family, char path[512])
{
    (void)snprintf(path, 512, MT_VECTORS "/%s/config.json", family);
}

/* The family's config.json with one key replaced by JSON; NULL: taken out. */
static void write_changed(const char *family, const char *key, const char *value)
{
    char path[512];
    json_t *object = NULL;
    vector_path(family, path);
    MT_TEST_OK(mt_foreign_read_json(path, &object));
    if (value == NULL) {
        (void)json_object_del(object, key);
    } else {
        (void)json_object_set_new(object, key, json_loads(value, JSON_DECODE_ANY, NULL));
    }
    assert_int_equal(json_dump_file(object, mt_test_path("config.json"), 0), 0);
    json_decref(object);
}

static enum mt_status read_file(struct mt_config **config)
{
    struct mt_model_text text;
    return mt_config_json_read(mt_test_path("config.json"), NULL, &text, config);
}

static const struct {
    const char *family, *key, *value, *message;
} refusals[] = {
    {"mixtral", "model_type", "\"gpt2\"", "model_type is \"gpt2\"; the families are mixtral"},
    {"llama", "mlp_bias", "true", "mlp_bias is true;"},
    {"llama", "num_hidden_layers", "null", "num_hidden_layers is null;"},
    {"llama", "intermediate_size", NULL, "intermediate_size is not given"},
    {"mixtral", "model_type", NULL, "model_type is not given"},
    {"mixtral", "sliding_window", "16", "sliding_window is 16;"},
    {"mixtral", "hidden_act", "\"gelu\"", "hidden_act is \"gelu\";"},
    {"mixtral", "attention_dropout", "0.1", "attention_dropout is 0.1"},
    {"mixtral", "router_jitter_noise", "0.01", "router_jitter_noise is 0.01"},
    {"mixtral", "rope_parameters", "{\"rope_type\":\"dynamic\",\"rope_theta\":1e4,\"factor\":4}",
     "rope_parameters is {\"rope_type\":\"dynamic\""},
    {"mixtral", "rope_parameters", "{\"rope_type\":\"longrope\",\"factor\":4}",
     "\"linear\", \"llama3\""},
    {"mixtral", "rope_parameters", "{\"rope_type\":\"linear\"}", "with the numbers of that type"},
    {"mixtral", "rope_parameters", "{\"rope_type\":\"linear\",\"factor\":\"2\"}",
     "numbers of that type"},
    {"mixtral", "rope_parameters", "{\"rope_type\":\"linear\",\"factor\":-2}",
     "numbers of that type"},
    {"mixtral", "rope_parameters", "{\"rope_type\":\"linear\",\"factor\":0.5}",
     "describes no model"},
    {"mixtral", "rope_parameters", "{\"rope_type\":\"linear\",\"factor\":2,\"beta_fast\":2}",
     "numbers of that type"},
    {"mixtral", "rope_parameters", "{\"rope_type\":\"llama3\",\"factor\":2,\"low_freq_factor\":1}",
     "numbers of that type"},
    {"mixtral", "rope_parameters",
     "{\"type\":\"llama3\",\"factor\":2,\"low_freq_factor\":4,\"high_freq_factor\":1}",
     "model.rope_turns = [4, 1] does not rise"},
    {"mixtral", "rope_parameters", "{\"type\":\"yarn\",\"factor\":4,\"truncate\":false}",
     "numbers of that type"},
    {"mixtral", "rope_parameters", "{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":0}",
     "numbers of that type"},
    {"mixtral", "rope_parameters",
     "{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":1.5}",
     "original_max_position_embeddings is 1.5"},
    {"llama.llama3", "original_max_position_embeddings", "0",
     "original_max_position_embeddings is 0; this program has models with a length of at least 1"},
    {"mixtral", "rope_scaling", "{\"type\":\"linear\",\"factor\":2.0}",
     "rope_scaling is {\"type\":\"linear\",\"factor\":2.0}; this program has models with what "
     "rope_parameters has there"},
    {"deepseek", "rope_scaling", "{\"type\":\"linear\",\"factor\":2.0}",
     "rope_type \"default\" in this family"},
    {"mixtral", "rope_scaling", "[]", "rope_scaling is []"},
    {"mixtral", "rope_parameters", "{\"rope_theta\":-1.0}", "rope_theta is -1.0"},
    {"mixtral", "quantization_config", "{\"bits\":4}", "quantization_config is {\"bits\":4}"},
    {"mixtral", "partial_rotary_factor", "0.5", "partial_rotary_factor is 0.5"},
    {"mixtral", "hidden_size", "16.0", "hidden_size is 16.0;"},
    {"mixtral", "hidden_size", "0", "hidden_size is 0;"},
    {"mixtral", "hidden_size", "-16", "hidden_size is -16;"},
    {"mixtral", "hidden_size", "9007199254740993", "hidden_size is 9007199254740993;"},
    {"mixtral", "hidden_size", NULL, "hidden_size is not given"},
    {"mixtral", "hidden_size", "\"16\"", "hidden_size is \"16\""},
    {"mixtral", "hidden_size", "18", "describes no model"},
    {"mixtral", "num_key_value_heads", "3", "describes no model"},
    {"mixtral", "num_experts_per_tok", "6", "describes no model"},
    {"mixtral", "num_local_experts", NULL, "num_local_experts is not given"},
    {"mixtral", "rms_norm_eps", "\"small\"", "rms_norm_eps is \"small\""},
    {"mixtral", "tie_word_embeddings", "1", "tie_word_embeddings is 1;"},
    {"olmoe", "clip_qkv", "8.0", "clip_qkv is 8.0;"},
    {"olmoe", "attention_bias", "true", "attention_bias is true;"},
    {"olmoe", "norm_topk_prob", "null", "norm_topk_prob is null;"},
    {"qwen2-moe", "decoder_sparse_step", "2", "decoder_sparse_step is 2;"},
    {"qwen2-moe", "mlp_only_layers", "[1]", "mlp_only_layers is [1];"},
    {"qwen2-moe", "mlp_only_layers", "[0,0]", "mlp_only_layers is [0,0];"},
    {"qwen2-moe", "mlp_only_layers", "[0,1,2]", "describes no model"},
    {"qwen2-moe", "shared_expert_intermediate_size", "0", "shared_expert_intermediate_size is 0;"},
    {"qwen2-moe", "shared_expert_intermediate_size", "null",
     "shared_expert_intermediate_size is null;"},
    {"qwen2-moe", "use_sliding_window", "true", "sliding_window is 0;"},
    {"qwen2-moe", "layer_types", "[\"sliding_attention\"]", "layer_types is [\"sliding_"},
    {"qwen2-moe", "layer_types", "{}", "layer_types is {}"},
    {"qwen2-moe", "intermediate_size", NULL, "intermediate_size is not given"},
    {"qwen3-moe", "attention_bias", "true", "attention_bias is true;"},
    {"qwen3-moe", "head_dim", "7", "describes no model"},
    {"qwen3-moe", "head_dim", "\"8\"", "head_dim is \"8\""},
    {"deepseek", "model_type", "\"deepseek_v3\"", "model_type is \"deepseek_v3\""},
    {"deepseek", "kv_lora_rank", "512",
     "kv_lora_rank is 512; this program has models with "
     "grouped-query attention, not multi-head latent"},
    {"deepseek", "moe_layer_freq", "2", "moe_layer_freq is 2;"},
    {"deepseek", "scoring_func", "\"sigmoid\"", "scoring_func is \"sigmoid\";"},
    {"deepseek", "topk_method", "\"noaux_tc\"", "topk_method is \"noaux_tc\";"},
    {"deepseek", "n_group", "8", "n_group is 8;"},
    {"deepseek", "routed_scaling_factor", "2.5", "routed_scaling_factor is 2.5;"},
    {"deepseek", "n_shared_experts", "-1", "n_shared_experts is -1;"},
    {"deepseek", "first_k_dense_replace", "3", "describes no model"},
};

static void what_cannot_be_computed_is_refused_by_key_and_value(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); ++i) {
        struct mt_config *config = NULL;
        write_changed(refusals[i].family, refusals[i].key, refusals[i].value);
        MT_TEST_FAILS(read_file(&config), MT_ERR_INPUT, refusals[i].message);
        assert_null(config);
    }
}

/* What differs in form alone: older versions' keys, nulls that mean the usual. */
static void the_same_model_may_be_said_in_other_words(void **state)
{
    static const struct {
        const char *family, *key, *value;
    } cases[] = {
        {"mixtral", "sliding_window", "32"},
        {"mixtral", "rope_parameters", NULL}, /* 1e6 is the family's own */
        {"mixtral", "rope_scaling", "null"},
        {"mixtral", "rope_parameters", "{\"type\":\"default\",\"rope_theta\":null}"},
        {"mixtral", "rms_norm_eps", NULL},
        {"mixtral", "head_dim", "4"},
        {"mixtral", "attention_dropout", "0"},
        {"mixtral", "use_cache", "false"},
        {"olmoe", "norm_topk_prob", NULL},
        {"qwen2-moe", "sliding_window", "4096"},
        {"qwen2-moe", "qkv_bias", NULL},
        {"qwen2-moe", "layer_types", NULL},
        {"qwen3-moe", "num_experts", "5"},
        {"deepseek", "n_group", "1"},
        {"deepseek", "routed_scaling_factor", "1"},
        {"deepseek", "moe_layer_freq", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        char path[512];
        struct mt_model_text want;
        struct mt_model_text got;
        struct mt_config *config = NULL;
        vector_path(cases[i].family, path);
        MT_TEST_OK(mt_config_json_read(path, NULL, &want, &config));
        mt_memory_free(config);
        write_changed(cases[i].family, cases[i].key, cases[i].value);
        MT_TEST_OK(mt_config_json_read(mt_test_path("config.json"), NULL, &got, &config));
        const char *without = strcmp(cases[i].key, "head_dim") == 0 ? "head_dim = 4\n" : "";
        assert_true(strlen(got.toml) == strlen(want.toml) + strlen(without));
        mt_memory_free(config);
    }
}

/* What the published models say of themselves, in the words of older versions; published, too, are
 * their numbers of parameters. */
static void published_models_have_their_number_of_parameters(void **state)
{
    json_t *models = NULL;
    json_t *model = NULL;
    const char *name = NULL;
    (void)state;
    MT_TEST_OK(mt_foreign_read_json(MT_VECTORS "/../published.json", &models));
    json_object_foreach(models, name, model)
    {
        struct mt_config *config = NULL;
        struct mt_model_size size;
        assert_int_equal(
            json_dump_file(json_object_get(model, "config"), mt_test_path("config.json"), 0), 0);
        MT_TEST_OK(read_file(&config));
        mt_model_size(config, &size);
        assert_int_equal(size.n_parameter,
                         json_integer_value(json_object_get(model, "n_parameter")));
        mt_memory_free(config);
    }
    json_decref(models);
}

/* Made from the model and read again, every key of [model] and [moe] has its value. */
static void write_and_read_again(const char *model)
{
    char path[512];
    struct mt_model_text text;
    struct mt_config *config = NULL;
    struct mt_config *again = NULL;
    json_t *object = NULL;
    vector_path(model, path);
    MT_TEST_OK(mt_config_json_read(path, NULL, &text, &config));
    assert_memory_equal(text.family->word, model, strlen(text.family->word));
    MT_TEST_OK(mt_config_json_make(config, text.family, MT_STORED_BF16, &object));
    assert_string_equal(json_string_value(json_object_get(object, "torch_dtype")), "bfloat16");
    assert_int_equal(json_dump_file(object, mt_test_path("config.json"), 0), 0);
    json_decref(object);
    MT_TEST_OK(read_file(&again));
    for (int k = 0; k < mt_table_n_key(); ++k) {
        const struct mt_key *key = mt_table_key(k);
        if (key->offset != MT_NO_FIELD && mt_write_hash(config, key) != mt_write_hash(again, key)) {
            fail_msg("%s: %s.%s differs", model, key->section, key->name);
        }
    }
    mt_memory_free(config);
    mt_memory_free(again);
}

static void what_is_written_reads_back_the_same(void **state)
{
    (void)state;
    for (int i = 0; i < mt_n_family; ++i) {
        write_and_read_again(mt_families[i].word);
    }
    write_and_read_again("llama.llama3");
    write_and_read_again("qwen3-moe.yarn");
}

/* Every family's model fits its own family alone, but for what another can say as well. */
static void a_family_refuses_what_it_has_no_words_for(void **state)
{
    static const struct {
        const char *model, *family, *message;
    } cases[] = {
        {"olmoe", "mixtral", "model.qk_norm = \"projection\"; \"none\" was expected"},
        {"qwen3-moe", "olmoe", "model.qk_norm = \"head\""},
        {"qwen2-moe", "mixtral", "model.attention_bias = true"},
        {"deepseek", "qwen2-moe", "moe.shared_gate = false"},
        {"mixtral", "qwen2-moe", "moe.shared_gate = false"},
        {"qwen2-moe", "deepseek", "model.attention_bias = true"},
        {"llama.llama3", "deepseek", "model.rope_scaling = \"llama3\"; \"none\" was expected"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        char path[512];
        struct mt_model_text text;
        struct mt_config *config = NULL;
        vector_path(cases[i].model, path);
        MT_TEST_OK(mt_config_json_read(path, NULL, &text, &config));
        MT_TEST_FAILS(mt_config_json_check(config, mt_family_of_word(cases[i].family)),
                      MT_ERR_CONFIG, cases[i].message);
        mt_memory_free(config);
    }
}

static void mutated_files_are_accepted_or_refused_never_fatal(void **state)
{
    int n_accepted = 0;
    (void)state;
    for (uint64_t round = 0; round < 1500; ++round) {
        char path[512];
        char text[4096];
        struct mt_config *config = NULL;
        const uint64_t which = round % (uint64_t)(mt_n_family + 2);
        vector_path(which < (uint64_t)mt_n_family    ? mt_families[which].word
                    : which == (uint64_t)mt_n_family ? "llama.llama3"
                                                     : "qwen3-moe.yarn",
                    path);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        size_t n = fread(text, 1, sizeof(text), file);
        (void)fclose(file);
        mutate(text, &n, sizeof(text), SEED, round);
        file = fopen(mt_test_path("config.json"), "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(text, 1, n, file), n);
        (void)fclose(file);
        mt_error_clear();
        const enum mt_status status = read_file(&config);
        assert_true(status == MT_OK || status == MT_ERR_INPUT);
        n_accepted += status == MT_OK;
        mt_memory_free(config);
        assert_int_equal(mt_memory_n_live(), 0);
    }
    mt_error_clear();
    assert_true(n_accepted > 60 && n_accepted < 900);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_computed_is_refused_by_key_and_value),
        cmocka_unit_test(the_same_model_may_be_said_in_other_words),
        cmocka_unit_test(published_models_have_their_number_of_parameters),
        cmocka_unit_test(what_is_written_reads_back_the_same),
        cmocka_unit_test(a_family_refuses_what_it_has_no_words_for),
        cmocka_unit_test(mutated_files_are_accepted_or_refused_never_fatal),
    };
    return cmocka_run_group_tests(tests, mt_test_folder_make, mt_test_folder_remove);
}
