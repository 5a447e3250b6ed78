/* From config.json to [model] and [moe]. Each key that was read is taken out of the object, so that
 * what is left can be told. */
#include "interchange/config_reader.h"

#include "base/memory.h"
#include "config/load.h"
#include "config/table.h"
#include "config/write.h"
#include "interchange/foreign.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum mt_status mt_json_refuse(const struct mt_json_reader *reader, const char *key,
                              const json_t *value, const char *supported)
{
    char found[MT_JSON_VALUE_BYTES];
    mt_foreign_describe(value, found, sizeof(found));
    return MT_FAIL(MT_ERR_INPUT,
                   "%s: %s is %s; this program has models with %s; another model is needed",
                   reader->path, key, found, supported);
}

void mt_json_put(struct mt_json_reader *reader, const char *ours, const char *format, ...)
{
    const char *point = strchr(ours, '.');
    char *text = strncmp(ours, "model.", 6) == 0 ? reader->model : reader->moe;
    const size_t room = sizeof(reader->model);
    size_t used = strlen(text);
    va_list arguments;
    used += (size_t)snprintf(text + used, room - used, "%s = ", point + 1);
    va_start(arguments, format);
    used += (size_t)vsnprintf(text + used, room - used, format, arguments);
    va_end(arguments);
    MT_ASSERT(used + 2 < room);
    memcpy(text + used, "\n", 2);
}

enum mt_status mt_json_put_integer(struct mt_json_reader *reader,
                                   const struct mt_interchange_key *key, const json_t *value)
{
    const struct mt_key *ours = mt_table_key(mt_table_index(key->ours));
    const int64_t number = json_integer_value(value);
    if (!json_is_integer(value) || (double)number < ours->min || (double)number > ours->max) {
        char range[MT_JSON_VALUE_BYTES];
        char supported[2 * MT_JSON_VALUE_BYTES];
        mt_key_describe_range(ours, range, sizeof(range));
        (void)snprintf(supported, sizeof(supported), "a whole number there, %s", range);
        return mt_json_refuse(reader, key->theirs, value, supported);
    }
    mt_json_put(reader, key->ours, "%lld", (long long)number);
    return MT_OK;
}

enum mt_status mt_json_put_real(struct mt_json_reader *reader, const struct mt_interchange_key *key,
                                const json_t *value)
{
    const struct mt_key *ours = mt_table_key(mt_table_index(key->ours));
    const double number = json_number_value(value);
    char text[40];
    const bool is_above = ours->bounds == MT_OPEN_MIN ? number > ours->min : number >= ours->min;
    if (!json_is_number(value) || !is_above || number > ours->max) {
        char range[MT_JSON_VALUE_BYTES];
        char supported[2 * MT_JSON_VALUE_BYTES];
        mt_key_describe_range(ours, range, sizeof(range));
        (void)snprintf(supported, sizeof(supported), "a number there, %s", range);
        return mt_json_refuse(reader, key->theirs, value, supported);
    }
    mt_write_real(number, text, sizeof(text));
    mt_json_put(reader, key->ours, "%s", text);
    return MT_OK;
}

static enum mt_status put_bool(struct mt_json_reader *reader, const struct mt_interchange_key *key,
                               const json_t *value)
{
    if (!json_is_boolean(value)) {
        return mt_json_refuse(reader, key->theirs, value, "true or false there");
    }
    mt_json_put(reader, key->ours, "%s", json_is_true(value) ? "true" : "false");
    return MT_OK;
}

static enum mt_status put_dense_count(struct mt_json_reader *reader,
                                      const struct mt_interchange_key *key, const json_t *value)
{
    MT_TRY(mt_json_put_integer(reader, key, value));
    reader->n_dense = json_integer_value(value);
    return MT_OK;
}

/* Layers without experts must be the first ones: [0, 1, 2]. */
static enum mt_status put_dense_list(struct mt_json_reader *reader,
                                     const struct mt_interchange_key *key, const json_t *value)
{
    const size_t n = json_array_size(value);
    bool is_prefix = json_is_array(value) || json_is_null(value);
    for (size_t i = 0; i < n && is_prefix; ++i) {
        const json_t *layer = json_array_get(value, i);
        is_prefix = json_is_integer(layer) && json_integer_value(layer) == (json_int_t)i;
    }
    if (!is_prefix) {
        return mt_json_refuse(reader, key->theirs, value,
                              "dense layers only before all others, such as [0, 1]");
    }
    json_t *count = json_integer((json_int_t)n);
    const enum mt_status status = put_dense_count(reader, key, count);
    json_decref(count);
    return status;
}

static enum mt_status put_shared_width(struct mt_json_reader *reader,
                                       const struct mt_interchange_key *key, const json_t *value)
{
    if (json_is_integer(value) && json_integer_value(value) == 0) {
        return mt_json_refuse(reader, key->theirs, value, "a shared expert in this family");
    }
    MT_TRY(mt_json_put_integer(reader, key, value));
    mt_json_put(reader, "moe.num_shared_experts", "1");
    return MT_OK;
}

/* value: what the file says, or what no key means; NULL: neither. */
static enum mt_status put_key(struct mt_json_reader *reader, const struct mt_interchange_key *key,
                              const json_t *value)
{
    const bool is_null = value == NULL || json_is_null(value);
    json_t *none = NULL;
    enum mt_status status = MT_OK;
    switch (key->kind) {
    case MT_JSON_INTEGER:
        return mt_json_put_integer(reader, key, value);
    case MT_JSON_MAY_BE_NULL:
        return is_null ? MT_OK : mt_json_put_integer(reader, key, value);
    case MT_JSON_REAL:
        return mt_json_put_real(reader, key, value);
    case MT_JSON_BOOL:
        return put_bool(reader, key, value);
    case MT_JSON_THETA:
        return mt_json_put_rope(reader, key, value);
    case MT_JSON_DENSE_COUNT:
        return put_dense_count(reader, key, value);
    case MT_JSON_DENSE_LIST:
        return put_dense_list(reader, key, value);
    case MT_JSON_DENSE_WIDTH:
        return reader->n_dense > 0 ? mt_json_put_integer(reader, key, value) : MT_OK;
    case MT_JSON_SHARED_WIDTH:
        return put_shared_width(reader, key, value);
    case MT_JSON_SHARED_COUNT:
        none = json_integer(0);
        status = mt_json_put_integer(reader, key, is_null ? none : value);
        json_decref(none);
        return status;
    }
    return MT_OK;
}

static enum mt_status read_keys(struct mt_json_reader *reader, const struct mt_interchange_key *key)
{
    for (; key->theirs != NULL; ++key) {
        const char *name = key->theirs;
        if (reader->is_dense && strncmp(key->ours, "moe.", 4) == 0) {
            continue;
        }
        if (json_object_get(reader->object, name) == NULL && key->other != NULL) {
            name = key->other;
        }
        json_t *absent =
            key->absent != NULL ? json_loads(key->absent, JSON_DECODE_ANY, NULL) : NULL;
        const json_t *value = json_object_get(reader->object, name);
        const enum mt_status status = put_key(reader, key, value != NULL ? value : absent);
        json_decref(absent);
        MT_TRY(status);
        (void)json_object_del(reader->object, name);
    }
    return MT_OK;
}

/* Is the value one of `allowed`, which are separated by spaces? */
static bool is_allowed(const json_t *value, const char *allowed)
{
    char found[MT_JSON_VALUE_BYTES];
    mt_foreign_describe(value, found, sizeof(found));
    const size_t n = strlen(found);
    for (const char *word = allowed; *word != '\0'; word += *word == ' ') {
        const size_t n_word = strcspn(word, " ");
        if (n_word == n && strncmp(word, found, n) == 0) {
            return true;
        }
        word += n_word;
    }
    return false;
}

static enum mt_status check_demands(struct mt_json_reader *reader,
                                    const struct mt_interchange_demand *demand)
{
    for (; demand->theirs != NULL; ++demand) {
        const json_t *value = json_object_get(reader->object, demand->theirs);
        if (value != NULL && !is_allowed(value, demand->allowed)) {
            char supported[MT_JSON_VALUE_BYTES];
            (void)snprintf(supported, sizeof(supported), "%s only",
                           demand->absent != NULL ? demand->absent : demand->allowed);
            return mt_json_refuse(reader, demand->theirs, value, supported);
        }
        (void)json_object_del(reader->object, demand->theirs);
    }
    return MT_OK;
}

/* A window as wide as all positions hides nothing. Families with use_sliding_window have it off
 * unless that says otherwise. */
static enum mt_status check_window(struct mt_json_reader *reader)
{
    const json_t *window = json_object_get(reader->object, "sliding_window");
    const json_t *use = json_object_get(reader->object, "use_sliding_window");
    const json_t *most = json_object_get(reader->object, "max_position_embeddings");
    const bool is_on = use != NULL ? !json_is_false(use) && !json_is_null(use)
                                   : window != NULL && !json_is_null(window);
    if (is_on && (!json_is_integer(window) || json_integer_value(window) <= 0 ||
                  json_integer_value(window) < json_integer_value(most))) {
        return mt_json_refuse(reader, "sliding_window", window,
                              "attention over all positions, as if it were null");
    }
    const json_t *types = json_object_get(reader->object, "layer_types");
    bool is_known = types == NULL || json_is_null(types) || json_is_array(types);
    for (size_t i = 0; i < json_array_size(types); ++i) {
        const char *type = json_string_value(json_array_get(types, i));
        is_known = is_known && type != NULL &&
                   (strcmp(type, "full_attention") == 0 ||
                    (is_on && strcmp(type, "sliding_attention") == 0));
    }
    return is_known ? MT_OK
                    : mt_json_refuse(reader, "layer_types", types, "full_attention in every layer");
}

static enum mt_status check_latent(const struct mt_json_reader *reader)
{
    static const char *const latent[] = {"kv_lora_rank", "q_lora_rank"};
    for (int i = 0; i < 2; ++i) {
        const json_t *value = json_object_get(reader->object, latent[i]);
        if (value != NULL && !json_is_null(value)) {
            return mt_json_refuse(
                reader, latent[i], value,
                "grouped-query attention, not multi-head latent attention (DeepSeek-V2 "
                "and V3 have it, DeepSeek-MoE has not)");
        }
    }
    return MT_OK;
}

static enum mt_status find_family(const struct mt_json_reader *reader,
                                  const struct mt_family **family)
{
    const json_t *type = json_object_get(reader->object, "model_type");
    const char *word = json_string_value(type);
    MT_TRY(check_latent(reader));
    if (*family == NULL && word != NULL) {
        *family = mt_family_of_type(word);
    }
    if (*family != NULL) {
        return MT_OK;
    }
    char list[MT_JSON_VALUE_BYTES];
    char found[MT_JSON_VALUE_BYTES];
    mt_family_list(list, sizeof(list));
    mt_foreign_describe(type, found, sizeof(found));
    return MT_FAIL(MT_ERR_INPUT,
                   "%s: model_type is %s; the families are %s; say --family if it is one of them "
                   "under another name",
                   reader->path, found, list);
}

/* Keys that are known to say nothing about what is computed are left out. */
static void list_unread(const struct mt_json_reader *reader, char *text, size_t bytes)
{
    static const char known[] =
        " architectures model_type torch_dtype dtype transformers_version use_cache "
        "sliding_window use_sliding_window layer_types max_window_layers head_dim "
        "output_router_logits router_aux_loss_coef aux_loss_alpha seq_aux intermediate_size "
        "auto_map pretraining_tp _name_or_path ";
    const char *key = NULL;
    json_t *value = NULL;
    size_t used = 0;
    text[0] = '\0';
    json_object_foreach(reader->object, key, value)
    {
        char word[MT_JSON_VALUE_BYTES];
        (void)snprintf(word, sizeof(word), " %.80s ", key);
        if (strstr(known, word) == NULL && mt_foreign_is_name(key, 80) && used + 90 < bytes) {
            used += (size_t)snprintf(text + used, bytes - used, "%s%s", used > 0 ? ", " : "", key);
        }
    }
}

/* Rules across keys are those of every configuration; what they refuse here is foreign data. */
static enum mt_status resolve(const char *path, const char *toml, struct mt_config *config)
{
    static const char rest[] = "[optimizer]\nlr = 0.0\n[data]\nformat = \"random\"\n"
                               "[train]\nsteps = 1\nglobal_batch_size = 1\nmicro_batch_size = 1\n";
    char whole[MT_MODEL_TEXT_BYTES + sizeof(rest)];
    (void)snprintf(whole, sizeof(whole), "%s%s", toml, rest);
    if (mt_config_parse(whole, "model", "", 0, NULL, NULL, config) == MT_OK) {
        return MT_OK;
    }
    char problem[1024];
    (void)snprintf(problem, sizeof(problem), "%.1000s", mt_error_last()->text);
    mt_error_clear();
    return MT_FAIL(MT_ERR_INPUT,
                   "%s describes no model that this program has; as its configuration: %s", path,
                   problem);
}

static enum mt_status read_model(struct mt_json_reader *reader, struct mt_model_text *text)
{
    MT_TRY(find_family(reader, &text->family));
    MT_TRY(check_window(reader));
    MT_TRY(check_demands(reader, mt_common_demands));
    MT_TRY(check_demands(reader, text->family->demand));
    reader->family = text->family;
    reader->n_position =
        json_integer_value(json_object_get(reader->object, "max_position_embeddings"));
    reader->is_dense = text->family->is_dense;
    if (reader->is_dense) {
        reader->n_dense = json_integer_value(json_object_get(reader->object, "num_hidden_layers"));
        mt_json_put(reader, "model.first_k_dense", "%lld", (long long)reader->n_dense);
    }
    MT_TRY(read_keys(reader, mt_common_keys));
    MT_TRY(read_keys(reader, text->family->key));
    for (const struct mt_interchange_trait *trait = text->family->trait; trait->ours != NULL;
         ++trait) {
        mt_json_put(reader, trait->ours, "%s", trait->value);
    }
    (void)snprintf(text->toml, sizeof(text->toml), "[model]\n%s\n[moe]\n%s", reader->model,
                   reader->moe);
    list_unread(reader, text->unread, sizeof(text->unread));
    return MT_OK;
}

enum mt_status mt_config_json_read(const char *path, const struct mt_family *family,
                                   struct mt_model_text *text, struct mt_config **config)
{
    struct mt_json_reader reader = {.path = path};
    enum mt_status status = MT_OK;
    *text = (struct mt_model_text){.family = family};
    *config = NULL;
    MT_TRY(mt_foreign_read_json(path, &reader.object));
    MT_TRY_GOTO(read_model(&reader, text));
    MT_TRY_GOTO(MT_ALLOCATE(*config, 1, "configuration"));
    MT_TRY_GOTO(resolve(path, text->toml, *config));
cleanup:
    json_decref(reader.object);
    if (status != MT_OK) {
        mt_memory_free(*config);
        *config = NULL;
    }
    return status;
}
