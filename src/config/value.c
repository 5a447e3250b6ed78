#include "config/value.h"

#include "config/choice.h"
#include "config/suggest.h"
#include "config/write.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_BYTES = 96, WORDS_BYTES = 256 };

/* One assignment on its way. */
struct assignment {
    struct mt_load *load;
    const struct mt_key *key;
    const struct mt_toml_entry *entry;
    struct mt_text_place place;
    void *field; /* NULL when the key has none in this version */
};

void mt_value_show(const struct mt_toml_value *value, char *text, size_t bytes)
{
    switch (value->type) {
    case MT_TOML_BOOL:
        (void)snprintf(text, bytes, "%s", value->boolean ? "true" : "false");
        break;
    case MT_TOML_INTEGER:
        (void)snprintf(text, bytes, "%" PRId64, value->integer);
        break;
    case MT_TOML_REAL:
        mt_write_real(value->real, text, bytes);
        break;
    case MT_TOML_TEXT:
        (void)snprintf(text, bytes, "\"%.60s%s\"", value->text,
                       strlen(value->text) > 60 ? "..." : "");
        break;
    case MT_TOML_ARRAY:
        (void)snprintf(text, bytes, "[...]");
        break;
    case MT_TOML_TABLE:
        (void)snprintf(text, bytes, "{...}");
        break;
    case MT_TOML_OTHER:
        (void)snprintf(text, bytes, "a date or time");
        break;
    }
}

static const char *found_word(enum mt_toml_type type)
{
    static const char *const word[] = {
        [MT_TOML_BOOL] = "a truth value",   [MT_TOML_INTEGER] = "an integer",
        [MT_TOML_REAL] = "a number",        [MT_TOML_TEXT] = "a string",
        [MT_TOML_ARRAY] = "a list",         [MT_TOML_TABLE] = "a table",
        [MT_TOML_OTHER] = "a date or time",
    };
    return word[type];
}

static bool refuse_type(const struct assignment *a, const struct mt_toml_value *found)
{
    static const char *const wanted[] = {
        [MT_KEY_INTEGER] = "an integer",
        [MT_KEY_AUTO_INTEGER] = "\"auto\" or an integer",
        [MT_KEY_REAL] = "a number",
        [MT_KEY_BOOL] = "true or false",
        [MT_KEY_CHOICE] = "a string",
        [MT_KEY_TEXT] = "a string",
        [MT_KEY_REAL_PAIR] = "a list of two numbers",
        [MT_KEY_REALS] = "a list of numbers",
        [MT_KEY_INTEGERS] = "a list of integers",
        [MT_KEY_PATHS] = "a list of strings",
        [MT_KEY_PATH_SETS] = "a table of name = paths",
        [MT_KEY_FACTORS] = "a table of rank = factor",
    };
    char shown[SHOWN_BYTES];
    mt_value_show(found, shown, sizeof(shown));
    const struct mt_key *key = a->key;
    mt_report_add(&a->load->report, a->place, "%s.%s = %s is %s; %s is expected, e.g. %s = %s",
                  key->section, key->name, shown, found_word(found->type), wanted[key->type],
                  key->name, key->example != NULL ? key->example : key->value);
    return false;
}

static bool refuse_range(const struct assignment *a, const struct mt_toml_value *found)
{
    char shown[SHOWN_BYTES];
    char range[WORDS_BYTES];
    mt_value_show(found, shown, sizeof(shown));
    mt_key_describe_range(a->key, range, sizeof(range));
    const bool finite = found->type != MT_TOML_REAL || isfinite(found->real);
    mt_report_add(&a->load->report, a->place, "%s.%s = %s is %s; allowed: %s", a->key->section,
                  a->key->name, shown, finite ? "out of range" : "not a finite number", range);
    return false;
}

static bool is_in_range(const struct mt_key *key, double value)
{
    if (!isfinite(value) || value < key->min || value > key->max) {
        return false;
    }
    return !(key->bounds == MT_OPEN_MIN && value <= key->min) &&
           !(key->bounds == MT_OPEN_MAX && value >= key->max);
}

/* Is the value what `word` of a key's `only` list means? */
static bool value_is_word(const struct mt_toml_entry *entry, const char *word)
{
    const struct mt_toml_value *value = &entry->value;
    switch (value->type) {
    case MT_TOML_BOOL:
        return strcmp(word, value->boolean ? "true" : "false") == 0;
    case MT_TOML_INTEGER:
        return strtod(word, NULL) == (double)value->integer;
    case MT_TOML_REAL:
        return strtod(word, NULL) == value->real;
    case MT_TOML_TEXT:
        return strcmp(word, value->text) == 0;
    case MT_TOML_ARRAY:
        return strcmp(word, "[]") == 0 && entry->n_item == 0;
    case MT_TOML_TABLE:
    case MT_TOML_OTHER:
        break;
    }
    return false;
}

static bool is_in_version(const struct assignment *a)
{
    const struct mt_key *key = a->key;
    char word[64];
    for (int i = 0; key->only != NULL && mt_choice_word(key->only, i, word, sizeof(word)); i++) {
        if (key->only[0] != '\0' && value_is_word(a->entry, word)) {
            return true;
        }
    }
    if (key->only == NULL) {
        return true;
    }
    char shown[SHOWN_BYTES];
    char list[WORDS_BYTES];
    mt_value_show(&a->entry->value, shown, sizeof(shown));
    const bool quoted = a->entry->value.type == MT_TOML_TEXT;
    mt_choice_list(key->only, quoted, " and ", list, sizeof(list));
    const int n = mt_choice_count(key->only);
    mt_report_add(&a->load->report, a->place, "%s.%s = %s is not in this version; %s%s",
                  key->section, key->name, shown, key->only[0] == '\0' ? "leave the key out" : list,
                  key->only[0] == '\0' ? ""
                  : n == 1             ? " is"
                                       : " are");
    return false;
}

static bool store(const struct assignment *a, const void *value, size_t bytes)
{
    if (!is_in_version(a)) {
        return false;
    }
    if (a->field != NULL) {
        memcpy(a->field, value, bytes);
    }
    return true;
}

static bool assign_integer(const struct assignment *a)
{
    const struct mt_toml_value *value = &a->entry->value;
    int64_t integer = value->integer;
    if (a->key->type == MT_KEY_AUTO_INTEGER && value->type == MT_TOML_TEXT &&
        strcmp(value->text, "auto") == 0) {
        integer = mt_key_auto(a->key);
    } else if (value->type != MT_TOML_INTEGER) {
        return refuse_type(a, value);
    } else if (!is_in_range(a->key, (double)integer)) {
        return refuse_range(a, value);
    }
    return store(a, &integer, sizeof(integer));
}

static bool is_number(const struct mt_toml_value *value)
{
    return value->type == MT_TOML_INTEGER || value->type == MT_TOML_REAL;
}

static double number(const struct mt_toml_value *value)
{
    return value->type == MT_TOML_INTEGER ? (double)value->integer : value->real;
}

static bool assign_real(const struct assignment *a)
{
    const struct mt_toml_value *value = &a->entry->value;
    if (!is_number(value)) {
        return refuse_type(a, value);
    }
    const double real = number(value);
    if (!is_in_range(a->key, real)) {
        return refuse_range(a, value);
    }
    return store(a, &real, sizeof(real));
}

static bool assign_bool(const struct assignment *a)
{
    if (a->entry->value.type != MT_TOML_BOOL) {
        return refuse_type(a, &a->entry->value);
    }
    return store(a, &a->entry->value.boolean, sizeof(bool));
}

/* The index of a text among the key's choices; -1 after reporting that it is none. */
static int find_choice(const struct assignment *a)
{
    const char *text = a->entry->value.text;
    const int index = mt_choice_find(a->key->choices, text);
    if (index < 0) {
        char shown[SHOWN_BYTES];
        char list[WORDS_BYTES];
        char nearest[64];
        mt_value_show(&a->entry->value, shown, sizeof(shown));
        mt_choice_list(a->key->choices, true, " or ", list, sizeof(list));
        mt_suggest_choice(a->key->choices, text, nearest, sizeof(nearest));
        mt_report_add(&a->load->report, a->place, "%s.%s = %s is not one of %s; nearest is \"%s\"",
                      a->key->section, a->key->name, shown, list, nearest);
    }
    return index;
}

static bool assign_choice(const struct assignment *a)
{
    if (a->entry->value.type != MT_TOML_TEXT) {
        return refuse_type(a, &a->entry->value);
    }
    _Static_assert(sizeof(enum mt_dtype) == sizeof(int), "choices are stored as int");
    const int index = find_choice(a);
    return index >= 0 && store(a, &index, sizeof(index));
}

static bool has_control_character(const struct mt_toml_value *value)
{
    bool found = false;
    for (const char *c = value->text; *c != '\0'; c++) {
        found = found || (unsigned char)*c < 0x20 || *c == 0x7F;
    }
    return found;
}

static bool assign_text(const struct assignment *a)
{
    const struct mt_toml_value *value = &a->entry->value;
    if (value->type != MT_TOML_TEXT) {
        return refuse_type(a, value);
    }
    if (a->key->choices != NULL && find_choice(a) < 0) {
        return false;
    }
    if (a->field == NULL) {
        return is_in_version(a);
    }
    const size_t n = strlen(value->text);
    if (n == 0 || n >= a->key->field_bytes || has_control_character(value)) {
        mt_report_add(&a->load->report, a->place,
                      "%s.%s is %s; a string of 1 to %zu bytes without control characters is "
                      "expected",
                      a->key->section, a->key->name,
                      n == 0                         ? "empty"
                      : has_control_character(value) ? "not printable"
                                                     : "too long",
                      a->key->field_bytes - 1);
        return false;
    }
    return store(a, value->text, n + 1);
}

static bool assign_real_pair(const struct assignment *a)
{
    const struct mt_toml_entry *entry = a->entry;
    double pair[2] = {0.0, 0.0};
    if (entry->value.type != MT_TOML_ARRAY || entry->n_item != 2) {
        return refuse_type(a, &entry->value);
    }
    for (int i = 0; i < 2; i++) {
        if (!is_number(&entry->item[i])) {
            return refuse_type(a, &entry->item[i]);
        }
        pair[i] = number(&entry->item[i]);
        if (!is_in_range(a->key, pair[i])) {
            return refuse_range(a, &entry->item[i]);
        }
    }
    return store(a, pair, sizeof(pair));
}

static bool assign_reals(const struct assignment *a)
{
    const struct mt_toml_entry *entry = a->entry;
    struct mt_real_list *list = a->field;
    if (entry->value.type != MT_TOML_ARRAY) {
        return refuse_type(a, &entry->value);
    }
    memset(list, 0, sizeof(*list));
    for (int64_t i = 0; i < entry->n_item; i++) {
        if (!is_number(&entry->item[i])) {
            return refuse_type(a, &entry->item[i]);
        }
        if (i == MT_MAX_PATHS || !is_in_range(a->key, number(&entry->item[i]))) {
            return refuse_range(a, &entry->item[i]);
        }
        list->value[list->n++] = number(&entry->item[i]);
    }
    return true;
}

static bool assign_integers(const struct assignment *a)
{
    const struct mt_toml_entry *entry = a->entry;
    struct mt_integer_list *list = a->field;
    if (entry->value.type != MT_TOML_ARRAY) {
        return refuse_type(a, &entry->value);
    }
    if (entry->n_item > MT_MAX_INTEGERS) {
        mt_report_add(&a->load->report, a->place, "%s.%s has %lld entries; at most %d are expected",
                      a->key->section, a->key->name, (long long)entry->n_item,
                      (int)MT_MAX_INTEGERS);
        return false;
    }
    memset(list, 0, sizeof(*list));
    for (int64_t i = 0; i < entry->n_item; i++) {
        const struct mt_toml_value *item = &entry->item[i];
        if (item->type != MT_TOML_INTEGER) {
            return refuse_type(a, item);
        }
        if (!is_in_range(a->key, (double)item->integer)) {
            return refuse_range(a, item);
        }
        list->value[i] = item->integer;
    }
    list->n = (int)entry->n_item;
    return true;
}

static bool refuse_path(const struct assignment *a, const char *why)
{
    mt_report_add(&a->load->report, a->place,
                  "%s.%s %s; at most %d paths of 1 to %d bytes without control characters are "
                  "expected",
                  a->key->section, a->key->name, why, (int)MT_MAX_PATHS, (int)MT_PATH_BYTES - 1);
    return false;
}

static bool append_paths(const struct assignment *a, struct mt_path_list *list)
{
    const struct mt_toml_entry *entry = a->entry;
    if (entry->value.type != MT_TOML_ARRAY) {
        return refuse_type(a, &entry->value);
    }
    if (entry->n_item > MT_MAX_PATHS - list->n) {
        return refuse_path(a, "has too many entries");
    }
    for (int64_t i = 0; i < entry->n_item; i++) {
        const struct mt_toml_value *item = &entry->item[i];
        if (item->type != MT_TOML_TEXT) {
            return refuse_type(a, item);
        }
        if (item->text[0] == '\0' || has_control_character(item)) {
            return refuse_path(a, "holds a path that is empty or not printable");
        }
        const char *base = item->text[0] == '/' ? "" : a->load->base_dir;
        const int n = snprintf(list->path[list->n + i], MT_PATH_BYTES, "%s%s%s", base,
                               base[0] == '\0' ? "" : "/", item->text);
        if (n < 0 || n >= MT_PATH_BYTES) {
            return refuse_path(a, "holds a path that is too long");
        }
    }
    list->n += (int)entry->n_item;
    return true;
}

static bool assign_paths(const struct assignment *a)
{
    memset(a->field, 0, sizeof(struct mt_path_list));
    return append_paths(a, a->field);
}

static bool assign_path_sets(const struct assignment *a)
{
    if (a->entry->value.type != MT_TOML_TABLE) {
        return refuse_type(a, &a->entry->value);
    }
    if (a->entry->value.is_inline) {
        memset(a->field, 0, sizeof(struct mt_path_sets));
    }
    return true;
}

/* The table as a whole; its members follow as entries of their own. */
static bool assign_factors(const struct assignment *a)
{
    if (a->entry->value.type != MT_TOML_TABLE) {
        return refuse_type(a, &a->entry->value);
    }
    if (a->entry->value.is_inline) {
        a->load->config->device.n_slowdown = 0;
    }
    return true;
}

void mt_value_assign(struct mt_load *load, int index, const struct mt_toml_entry *entry,
                     struct mt_text_place place)
{
    static bool (*const assign[])(const struct assignment *) = {
        [MT_KEY_INTEGER] = assign_integer,     [MT_KEY_AUTO_INTEGER] = assign_integer,
        [MT_KEY_REAL] = assign_real,           [MT_KEY_BOOL] = assign_bool,
        [MT_KEY_CHOICE] = assign_choice,       [MT_KEY_TEXT] = assign_text,
        [MT_KEY_REAL_PAIR] = assign_real_pair, [MT_KEY_INTEGERS] = assign_integers,
        [MT_KEY_PATHS] = assign_paths,         [MT_KEY_FACTORS] = assign_factors,
        [MT_KEY_REALS] = assign_reals,         [MT_KEY_PATH_SETS] = assign_path_sets,
    };
    const struct mt_key *key = mt_table_key(index);
    struct assignment a = {.load = load, .key = key, .entry = entry, .place = place};
    if (key->offset != MT_NO_FIELD) {
        a.field = (char *)load->config + key->offset;
    }
    const bool good = assign[key->type](&a);
    load->status[index] = good && load->status[index] != MT_KEY_BAD ? MT_KEY_SET : MT_KEY_BAD;
    load->place[index] = place;
}

/* Ranks stand in rising order, so that equal configurations are written alike. */
static void insert_factor(struct mt_config *config, int rank, double factor)
{
    int *ranks = config->device.slowdown_rank;
    double *factors = config->device.slowdown_factor;
    int at = 0;
    while (at < config->device.n_slowdown && ranks[at] < rank) {
        at++;
    }
    if (at == config->device.n_slowdown || ranks[at] != rank) {
        const size_t n_after = (size_t)(config->device.n_slowdown - at);
        memmove(&ranks[at + 1], &ranks[at], n_after * sizeof(*ranks));
        memmove(&factors[at + 1], &factors[at], n_after * sizeof(*factors));
        config->device.n_slowdown++;
    }
    ranks[at] = rank;
    factors[at] = factor;
}

void mt_value_assign_factor(struct mt_load *load, const char *rank,
                            const struct mt_toml_entry *entry, struct mt_text_place place)
{
    const int index = mt_table_index("device.slowdown");
    const struct assignment a = {
        .load = load, .key = mt_table_key(index), .entry = entry, .place = place};
    char *end = NULL;
    const long value = strtol(rank, &end, 10);
    const bool is_rank = rank[0] >= '0' && rank[0] <= '9' && *end == '\0' && value <= INT32_MAX;
    const bool is_room = load->config->device.n_slowdown < MT_MAX_SLOWDOWNS;
    if (!is_rank) {
        mt_report_add(
            &load->report, place,
            "device.slowdown has the key %s, which is no rank; expected { 3 = 2.0 }: rank "
            "3 takes twice as long",
            rank);
    } else if (!is_number(&entry->value)) {
        (void)refuse_type(&a, &entry->value);
    } else if (!is_in_range(a.key, number(&entry->value))) {
        (void)refuse_range(&a, &entry->value);
    } else if (!is_room) {
        mt_report_add(&load->report, place, "device.slowdown names too many ranks; at most %d",
                      (int)MT_MAX_SLOWDOWNS);
    } else {
        insert_factor(load->config, (int)value, number(&entry->value));
        return;
    }
    load->status[index] = MT_KEY_BAD;
}

bool mt_value_append_paths(struct mt_load *load, int index, const struct mt_toml_entry *entry,
                           struct mt_text_place place, struct mt_path_list *list)
{
    const struct assignment a = {
        .load = load, .key = mt_table_key(index), .entry = entry, .place = place};
    return append_paths(&a, list);
}
