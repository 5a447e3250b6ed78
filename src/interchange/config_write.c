/* From a configuration to config.json. */
#include "interchange/config_json.h"

#include "config/table.h"
#include "config/write.h"
#include "interchange/foreign.h"

#include <stdio.h>
#include <string.h>

enum { VALUE_BYTES = 100 };

static void value_of(const struct mt_config *config, const char *ours, char text[VALUE_BYTES])
{
    mt_write_value(config, mt_table_key(mt_table_index(ours)), text, VALUE_BYTES);
}

static enum mt_status fail(const struct mt_family *family, const char *ours, const char *value,
                           const char *expected)
{
    return MT_FAIL(MT_ERR_CONFIG,
                   "%s models cannot have %s = %s; %s was expected; choose another --family",
                   family->title, ours, value, expected);
}

enum mt_status mt_config_json_check(const struct mt_config *config, const struct mt_family *family)
{
    char value[VALUE_BYTES];
    bool has_head_dim = false;
    for (const struct mt_interchange_trait *trait = family->trait; trait->ours != NULL; ++trait) {
        value_of(config, trait->ours, value);
        if (strcmp(value, trait->value) != 0) {
            return fail(family, trait->ours, value, trait->value);
        }
    }
    for (const struct mt_interchange_key *key = family->key; key->theirs != NULL; ++key) {
        has_head_dim = has_head_dim || strcmp(key->theirs, "head_dim") == 0;
        if (key->kind == MT_JSON_SHARED_WIDTH && mt_config_shared_width(config) == 0) {
            return fail(family, "moe.num_shared_experts", "0", "at least 1");
        }
    }
    if (family->has_plain_rope && config->model.rope_scaling != MT_ROPE_NONE) {
        value_of(config, "model.rope_scaling", value);
        return fail(family, "model.rope_scaling", value, "\"none\"");
    }
    if (!has_head_dim &&
        config->model.head_dim * config->model.num_attention_heads != config->model.hidden_size) {
        value_of(config, "model.head_dim", value);
        return fail(family, "model.head_dim", value, "hidden_size / num_attention_heads");
    }
    if ((config->model.first_k_dense == config->model.num_layers) != family->is_dense) {
        value_of(config, "model.first_k_dense", value);
        return fail(family, "model.first_k_dense", value,
                    family->is_dense ? "a model without experts" : "a model with experts");
    }
    return MT_OK;
}

static json_t *list_of_layers(int64_t n)
{
    json_t *list = json_array();
    for (int64_t l = 0; l < n; ++l) {
        (void)json_array_append_new(list, json_integer(l));
    }
    return list;
}

/* Integers, reals and truth values are written alike in TOML and JSON. */
static json_t *value_json(const struct mt_config *config, const struct mt_interchange_key *key)
{
    char value[VALUE_BYTES];
    if (key->kind == MT_JSON_DENSE_LIST) {
        return list_of_layers(config->model.first_k_dense);
    }
    if (key->kind == MT_JSON_SHARED_WIDTH) {
        return json_integer(mt_config_shared_width(config));
    }
    if (key->kind == MT_JSON_DENSE_WIDTH && config->model.first_k_dense == 0) {
        return json_integer(config->moe.expert_intermediate_size); /* must be there, unused */
    }
    value_of(config, key->ours, value);
    return json_loads(value, JSON_DECODE_ANY, NULL);
}

static void add_keys(json_t *object, const struct mt_config *config, bool is_dense,
                     const struct mt_interchange_key *key)
{
    for (; key->theirs != NULL; ++key) {
        if (!is_dense || strncmp(key->ours, "moe.", 4) != 0) {
            (void)json_object_set_new(object, key->theirs, value_json(config, key));
        }
    }
}

/* As every version of transformers reads it: rope_theta stands beside it. */
static json_t *rope_json(const struct mt_config *config)
{
    char type[VALUE_BYTES];
    json_t *made = json_object();
    if (config->model.rope_scaling == MT_ROPE_NONE) {
        json_decref(made);
        return NULL;
    }
    value_of(config, "model.rope_scaling", type);
    (void)json_object_set_new(made, "rope_type", json_loads(type, JSON_DECODE_ANY, NULL));
    (void)json_object_set_new(made, "factor", json_real(config->model.rope_factor));
    if (config->model.rope_scaling == MT_ROPE_LINEAR) {
        return made;
    }
    const bool is_yarn = config->model.rope_scaling == MT_ROPE_YARN;
    const int64_t original = config->model.rope_original_seq_len;
    (void)json_object_set_new(
        made, "original_max_position_embeddings",
        json_integer((json_int_t)(original > 0 ? original : config->model.max_seq_len)));
    (void)json_object_set_new(made, is_yarn ? "beta_slow" : "low_freq_factor",
                              json_real(config->model.rope_turns[0]));
    (void)json_object_set_new(made, is_yarn ? "beta_fast" : "high_freq_factor",
                              json_real(config->model.rope_turns[1]));
    if (is_yarn) {
        (void)json_object_set_new(made, "attention_factor",
                                  json_real(config->model.rope_magnitude));
    }
    return made;
}

static void add_demands(json_t *object, const struct mt_interchange_demand *demand)
{
    for (; demand->theirs != NULL; ++demand) {
        if (demand->is_written) {
            (void)json_object_set_new(object, demand->theirs,
                                      json_loads(demand->absent, JSON_DECODE_ANY, NULL));
        }
    }
}

enum mt_status mt_config_json_make(const struct mt_config *config, const struct mt_family *family,
                                   enum mt_stored_type type, json_t **object)
{
    MT_TRY(mt_config_json_check(config, family));
    json_t *made =
        json_pack("{s:[s], s:s, s:s}", "architectures", family->architecture, "model_type",
                  family->model_type, "torch_dtype", mt_stored_type_name(type));
    add_keys(made, config, family->is_dense, mt_common_keys);
    add_keys(made, config, family->is_dense, family->key);
    add_demands(made, mt_common_demands);
    add_demands(made, family->demand);
    json_t *rope = rope_json(config);
    if (rope != NULL) {
        (void)json_object_set_new(made, "rope_scaling", rope);
    }
    /* Their defaults are tokens of the family's own vocabularies. */
    (void)json_object_set_new(made, "bos_token_id", json_null());
    (void)json_object_set_new(made, "eos_token_id", json_null());
    (void)json_object_set_new(made, "pad_token_id", json_null());
    if (made == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE, "no memory for config.json; free memory on this machine");
    }
    *object = made;
    return MT_OK;
}
