#include "config/write.h"

#include "base/memory.h"
#include "config/choice.h"
#include "config/load.h"

#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Where text goes: to a file, into a buffer (cut at its end, counted beyond) or into a hash. */
struct sink {
    FILE *file;
    char *text;
    size_t text_bytes;
    int64_t used; /* bytes put so far */
    XXH3_state_t *hash;
};

static void put(struct sink *sink, const char *data, size_t n)
{
    if (sink->file != NULL) {
        (void)fwrite(data, 1, n, sink->file);
    }
    if (sink->hash != NULL) {
        (void)XXH3_64bits_update(sink->hash, data, n);
    }
    const size_t used = (size_t)sink->used;
    if (sink->text != NULL && used + 1 < sink->text_bytes) {
        const size_t room = sink->text_bytes - 1 - used;
        memcpy(sink->text + used, data, n < room ? n : room);
        sink->text[used + (n < room ? n : room)] = '\0';
    }
    sink->used += (int64_t)n;
}

static void put_word(struct sink *sink, const char *word)
{
    put(sink, word, strlen(word));
}

/* Control characters are refused on the way in, so only two characters need an escape. */
static void put_quoted(struct sink *sink, const char *text)
{
    put_word(sink, "\"");
    while (*text != '\0') {
        const size_t n = strcspn(text, "\"\\");
        put(sink, text, n);
        text += n;
        if (*text != '\0') {
            put_word(sink, "\\");
            put(sink, text, 1);
            text++;
        }
    }
    put_word(sink, "\"");
}

void mt_write_real(double value, char *text, size_t bytes)
{
    MT_ASSERT(text != NULL);
    if (!isfinite(value)) {
        (void)snprintf(text, bytes, "%s", isnan(value) ? "nan" : value > 0.0 ? "inf" : "-inf");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, bytes, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    if (strpbrk(text, ".e") == NULL) {
        const size_t n = strlen(text);
        (void)snprintf(text + n, bytes - n, ".0");
    }
}

static void put_real(struct sink *sink, double value)
{
    char text[40];
    mt_write_real(value, text, sizeof(text));
    put_word(sink, text);
}

static void put_integer(struct sink *sink, int64_t value)
{
    char text[32];
    (void)snprintf(text, sizeof(text), "%" PRId64, value);
    put_word(sink, text);
}

static void put_paths(struct sink *sink, const struct mt_path_list *list)
{
    put_word(sink, "[");
    for (int i = 0; i < list->n; i++) {
        put_word(sink, i == 0 ? "" : ", ");
        put_quoted(sink, list->path[i]);
    }
    put_word(sink, "]");
}

static void put_path_sets(struct sink *sink, const struct mt_path_sets *sets)
{
    put_word(sink, "{");
    for (int s = 0; s < sets->n_set; s++) {
        const char *between = "";
        put_word(sink, s == 0 ? " " : ", ");
        put_word(sink, sets->name[s]);
        put_word(sink, " = [");
        for (int i = 0; i < sets->paths.n; i++) {
            if (sets->set[i] == s) {
                put_word(sink, between);
                put_quoted(sink, sets->paths.path[i]);
                between = ", ";
            }
        }
        put_word(sink, "]");
    }
    put_word(sink, sets->n_set == 0 ? "}" : " }");
}

static void put_reals(struct sink *sink, const struct mt_real_list *list)
{
    put_word(sink, "[");
    for (int i = 0; i < list->n; i++) {
        put_word(sink, i == 0 ? "" : ", ");
        put_real(sink, list->value[i]);
    }
    put_word(sink, "]");
}

static void put_integers(struct sink *sink, const struct mt_integer_list *list)
{
    put_word(sink, "[");
    for (int i = 0; i < list->n; i++) {
        put_word(sink, i == 0 ? "" : ", ");
        put_integer(sink, list->value[i]);
    }
    put_word(sink, "]");
}

static void put_factors(struct sink *sink, const struct mt_config *config)
{
    put_word(sink, "{");
    for (int i = 0; i < config->device.n_slowdown; i++) {
        put_word(sink, i == 0 ? " " : ", ");
        put_integer(sink, config->device.slowdown_rank[i]);
        put_word(sink, " = ");
        put_real(sink, config->device.slowdown_factor[i]);
    }
    put_word(sink, config->device.n_slowdown == 0 ? "}" : " }");
}

static void put_choice(struct sink *sink, const struct mt_key *key, const void *field)
{
    int index = 0;
    char word[64];
    memcpy(&index, field, sizeof(index));
    const bool known = mt_choice_word(key->choices, index, word, sizeof(word));
    MT_ASSERT(known);
    put_quoted(sink, word);
}

static void put_value(struct sink *sink, const struct mt_config *config, const struct mt_key *key)
{
    if (key->offset == MT_NO_FIELD) {
        put_word(sink, key->value); /* the only value that this version accepts */
        return;
    }
    const void *field = (const char *)config + key->offset;
    switch (key->type) {
    case MT_KEY_INTEGER:
        put_integer(sink, *(const int64_t *)field);
        break;
    case MT_KEY_AUTO_INTEGER:
        if (*(const int64_t *)field == mt_key_auto(key)) {
            put_quoted(sink, "auto");
        } else {
            put_integer(sink, *(const int64_t *)field);
        }
        break;
    case MT_KEY_REAL:
        put_real(sink, *(const double *)field);
        break;
    case MT_KEY_BOOL:
        put_word(sink, *(const bool *)field ? "true" : "false");
        break;
    case MT_KEY_CHOICE:
        put_choice(sink, key, field);
        break;
    case MT_KEY_TEXT:
        put_quoted(sink, field);
        break;
    case MT_KEY_REAL_PAIR:
        put_word(sink, "[");
        put_real(sink, ((const double *)field)[0]);
        put_word(sink, ", ");
        put_real(sink, ((const double *)field)[1]);
        put_word(sink, "]");
        break;
    case MT_KEY_REALS:
        put_reals(sink, field);
        break;
    case MT_KEY_PATHS:
        put_paths(sink, field);
        break;
    case MT_KEY_PATH_SETS:
        put_path_sets(sink, field);
        break;
    case MT_KEY_FACTORS:
        put_factors(sink, config);
        break;
    case MT_KEY_INTEGERS:
        put_integers(sink, field);
        break;
    }
}

/* Keys whose default is to be absent have neither field nor default, or a text that was not given:
 * "" is no value of any text. */
static bool is_written(const struct mt_config *config, const struct mt_key *key)
{
    if (key->offset == MT_NO_FIELD) {
        return key->value != NULL;
    }
    return key->type != MT_KEY_TEXT || ((const char *)config)[key->offset] != '\0';
}

/* All keys but `left_out` (NULL = none), by section. */
static void put_config(struct sink *sink, const struct mt_config *config,
                       const struct mt_key *left_out)
{
    const char *section = "";
    for (int i = 0; i < mt_table_n_key(); i++) {
        const struct mt_key *key = mt_table_key(i);
        if (key == left_out || !is_written(config, key)) {
            continue;
        }
        if (strcmp(section, key->section) != 0) {
            put_word(sink, section[0] == '\0' ? "[" : "\n[");
            section = key->section;
            put_word(sink, section);
            put_word(sink, "]\n");
        }
        put_word(sink, key->name);
        put_word(sink, " = ");
        put_value(sink, config, key);
        put_word(sink, "\n");
    }
}

void mt_write_value(const struct mt_config *config, const struct mt_key *key, char *text,
                    size_t bytes)
{
    struct sink sink = {.text = text, .text_bytes = bytes};
    text[0] = '\0';
    put_value(&sink, config, key);
}

uint64_t mt_write_hash(const struct mt_config *config, const struct mt_key *key)
{
    XXH3_state_t state;
    struct sink sink = {.hash = &state};
    (void)XXH3_64bits_reset(&state);
    put_value(&sink, config, key);
    return XXH3_64bits_digest(&state);
}

void mt_config_write(const struct mt_config *config, FILE *out)
{
    struct sink sink = {.file = out};
    put_config(&sink, config, NULL);
}

enum mt_status mt_config_to_text(const struct mt_config *config, char **text)
{
    struct sink measure = {.used = 0};
    put_config(&measure, config, NULL);
    char *buffer = NULL;
    MT_TRY(MT_ALLOCATE(buffer, measure.used + 1, "configuration text"));
    struct sink sink = {.text = buffer, .text_bytes = (size_t)measure.used + 1};
    put_config(&sink, config, NULL);
    *text = buffer;
    return MT_OK;
}

uint64_t mt_config_hash(const struct mt_config *config)
{
    XXH3_state_t state;
    struct sink sink = {.hash = &state};
    (void)XXH3_64bits_reset(&state);
    put_config(&sink, config, mt_table_key(mt_table_index("run.dir")));
    return XXH3_64bits_digest(&state);
}
