/* The rotary embedding of config.json. Versions of transformers before 5: rope_theta, and
 * rope_scaling where it is stretched. From 5 on both are in rope_parameters. */
#include "config/write.h"
#include "interchange/config_reader.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char ORIGINAL[] = "original_max_position_embeddings";

/* A kind of stretching, and the keys that it has. */
static const struct kind {
    const char *type; /* ours has the same name */
    const char *needed[5], *possible[7];
} kinds[] = {
    {"linear", {"factor"}, {NULL}},
    {"llama3", {"factor", "low_freq_factor", "high_freq_factor"}, {ORIGINAL}},
    {"yarn",
     {"factor"},
     {ORIGINAL, "beta_slow", "beta_fast", "attention_factor", "mscale", "mscale_all_dim",
      "truncate"}},
};
enum { N_KIND = sizeof(kinds) / sizeof(kinds[0]) };

static enum mt_status refuse_scaling(const struct mt_json_reader *reader, const char *key,
                                     const json_t *value)
{
    return mt_json_refuse(reader, key, value,
                          "rope_type \"default\", \"linear\", \"llama3\" or \"yarn\" with the "
                          "numbers of that type");
}

/* A key's value; absent and null are NULL. */
static const json_t *value_of(const json_t *parameters, const char *key)
{
    const json_t *value = json_object_get(parameters, key);
    return json_is_null(value) ? NULL : value;
}

/* A number that must be above 0 when it is there. */
static bool is_positive(const json_t *value)
{
    return value == NULL || (json_is_number(value) && json_number_value(value) > 0.0);
}

static double number_or(const json_t *value, double absent)
{
    return value != NULL ? json_number_value(value) : absent;
}

static size_t count_keys(const json_t *parameters, const char *const *key, size_t n_key)
{
    size_t n = 0;
    for (size_t i = 0; i < n_key && key[i] != NULL; ++i) {
        n += json_object_get(parameters, key[i]) != NULL ? 1 : 0;
    }
    return n;
}

/* All that is there is known, numbers are positive, and yarn rounds its bounds. */
static bool is_known(const struct kind *kind, const json_t *parameters)
{
    static const char *const common[] = {"rope_type", "type", "rope_theta"};
    const size_t n_needed = count_keys(parameters, kind->needed, 5);
    const size_t n =
        count_keys(parameters, common, 3) + n_needed + count_keys(parameters, kind->possible, 7);
    bool is_good = n == json_object_size(parameters);
    for (size_t i = 0; i < 5 && kind->needed[i] != NULL; ++i) {
        is_good = is_good && value_of(parameters, kind->needed[i]) != NULL &&
                  is_positive(value_of(parameters, kind->needed[i]));
    }
    for (size_t i = 0; i < 7 && kind->possible[i] != NULL; ++i) {
        const json_t *value = json_object_get(parameters, kind->possible[i]);
        is_good = is_good && (strcmp(kind->possible[i], "truncate") == 0
                                  ? value == NULL || json_is_true(value)
                                  : is_positive(value_of(parameters, kind->possible[i])));
    }
    return is_good;
}

static void put_number(struct mt_json_reader *reader, const char *ours, double value)
{
    char text[40];
    mt_write_real(value, text, sizeof(text));
    mt_json_put(reader, ours, "%s", text);
}

static void put_turns(struct mt_json_reader *reader, double low, double high)
{
    char text[2][40];
    mt_write_real(low, text[0], sizeof(text[0]));
    mt_write_real(high, text[1], sizeof(text[1]));
    mt_json_put(reader, "model.rope_turns", "[%s, %s]", text[0], text[1]);
}

/* The length before stretching; where it is not given, that after it. */
static enum mt_status put_original(struct mt_json_reader *reader, const json_t *parameters)
{
    static const struct mt_interchange_key key = {ORIGINAL, NULL, "model.rope_original_seq_len",
                                                  MT_JSON_INTEGER, NULL};
    const json_t *value = value_of(reader->object, ORIGINAL);
    value = value != NULL ? value : value_of(parameters, ORIGINAL);
    if (value == NULL) {
        mt_json_put(reader, key.ours, "%lld", (long long)reader->n_position);
        return MT_OK;
    }
    if (!is_positive(value)) { /* 0 would stand for max_seq_len */
        return mt_json_refuse(reader, ORIGINAL, value, "a length of at least 1 there");
    }
    MT_TRY(mt_json_put_integer(reader, &key, value));
    (void)json_object_del(reader->object, ORIGINAL);
    return MT_OK;
}

static double mscale(double factor, double scale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * scale * log(factor) + 1.0;
}

static void put_yarn(struct mt_json_reader *reader, const json_t *parameters)
{
    const double factor = json_number_value(json_object_get(parameters, "factor"));
    const json_t *scale = value_of(parameters, "mscale");
    const json_t *all = value_of(parameters, "mscale_all_dim");
    const double usual = scale != NULL && all != NULL ? mscale(factor, json_number_value(scale)) /
                                                            mscale(factor, json_number_value(all))
                                                      : mscale(factor, 1.0);
    put_turns(reader, number_or(value_of(parameters, "beta_slow"), 1.0),
              number_or(value_of(parameters, "beta_fast"), 32.0));
    put_number(reader, "model.rope_magnitude",
               number_or(value_of(parameters, "attention_factor"), usual));
}

static enum mt_status put_scaling(struct mt_json_reader *reader, const char *name,
                                  const json_t *parameters, const struct kind *kind)
{
    if (reader->family->has_plain_rope) {
        return mt_json_refuse(reader, name, parameters, "rope_type \"default\" in this family");
    }
    if (!is_known(kind, parameters)) {
        return refuse_scaling(reader, name, parameters);
    }
    mt_json_put(reader, "model.rope_scaling", "\"%s\"", kind->type);
    put_number(reader, "model.rope_factor",
               json_number_value(json_object_get(parameters, "factor")));
    if (strcmp(kind->type, "linear") == 0) {
        return MT_OK;
    }
    MT_TRY(put_original(reader, parameters));
    if (strcmp(kind->type, "yarn") == 0) {
        put_yarn(reader, parameters);
    } else {
        put_turns(reader, json_number_value(json_object_get(parameters, "low_freq_factor")),
                  json_number_value(json_object_get(parameters, "high_freq_factor")));
    }
    return MT_OK;
}

/* The object `name` [not null]: its type, which may be absent. */
static enum mt_status put_parameters(struct mt_json_reader *reader, const char *name,
                                     const json_t *parameters)
{
    const json_t *type = value_of(parameters, "rope_type");
    type = type != NULL ? type : value_of(parameters, "type");
    const char *word = type != NULL ? json_string_value(type) : "default";
    static const char *const plain[] = {"rope_type", "type", "rope_theta"};
    if (!json_is_object(parameters) || word == NULL) {
        return refuse_scaling(reader, name, parameters);
    }
    for (int k = 0; k < N_KIND; ++k) {
        if (strcmp(word, kinds[k].type) == 0) {
            return put_scaling(reader, name, parameters, &kinds[k]);
        }
    }
    return strcmp(word, "default") == 0 &&
                   count_keys(parameters, plain, 3) == json_object_size(parameters)
               ? MT_OK
               : refuse_scaling(reader, name, parameters);
}

enum mt_status mt_json_put_rope(struct mt_json_reader *reader, const struct mt_interchange_key *key,
                                const json_t *value)
{
    static const char *const names[] = {"rope_parameters", "rope_scaling"};
    const json_t *first = value_of(reader->object, names[0]);
    const json_t *second = value_of(reader->object, names[1]);
    const json_t *parameters = first != NULL ? first : second;
    if (first != NULL && second != NULL && !json_equal(first, second)) {
        return mt_json_refuse(reader, names[1], second, "what rope_parameters has there");
    }
    if (parameters != NULL) {
        const json_t *theta = value_of(parameters, "rope_theta");
        const json_t *plain = json_object_get(reader->object, "rope_theta");
        MT_TRY(put_parameters(reader, names[first != NULL ? 0 : 1], parameters));
        if (theta != NULL && plain != NULL &&
            (!json_is_number(plain) || json_number_value(plain) != json_number_value(theta))) {
            return mt_json_refuse(reader, "rope_theta", plain, "the base that rope_parameters has");
        }
        value = theta != NULL ? theta : value;
    }
    MT_TRY(mt_json_put_real(reader, key, value));
    (void)json_object_del(reader->object, names[0]);
    (void)json_object_del(reader->object, names[1]);
    return MT_OK;
}
