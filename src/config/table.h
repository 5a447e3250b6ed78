/* The one table of configuration keys. Parser, rules, --help, man page, docs and the writer are all
 * made from it, so a key is described once, here.
 *
 * Sections are tables of the TOML file ("moe.balance" is [moe.balance]); rows of a section stand
 * together, in the order in which help and the resolved file print them. */
#ifndef MT_CONFIG_TABLE_H
#define MT_CONFIG_TABLE_H

#include "config/config.h"

#include <stdbool.h>
#include <stddef.h>

enum mt_key_type {
    MT_KEY_INTEGER,      /* int64_t */
    MT_KEY_AUTO_INTEGER, /* int64_t; "auto" is mt_key_auto: min - 1 */
    MT_KEY_REAL,         /* double; integers are accepted */
    MT_KEY_BOOL,         /* bool */
    MT_KEY_CHOICE,       /* an enum whose values number `choices` from 0 */
    MT_KEY_TEXT,         /* char [field_bytes]; one of `choices` when there are any */
    MT_KEY_REAL_PAIR,    /* double [2] */
    MT_KEY_REALS,        /* struct mt_real_list */
    MT_KEY_INTEGERS,     /* struct mt_integer_list */
    MT_KEY_PATHS,        /* struct mt_path_list */
    MT_KEY_PATH_SETS,    /* name -> paths: struct mt_path_sets */
    MT_KEY_FACTORS       /* rank -> factor: config.device.slowdown_* */
};

enum mt_key_bounds { MT_CLOSED, MT_OPEN_MIN, MT_OPEN_MAX };

struct mt_key {
    const char *section, *name;
    enum mt_key_type type;
    const char *value;   /* the default as TOML text; NULL: required, derived or absent */
    const char *derived; /* words for a default that rules.c computes; NULL = none */
    const char *example; /* a TOML value for messages; NULL: `value` serves */
    const char *choices; /* "a|b|c"; NULL = free */
    const char *only;    /* what this version has of it, "a|b" without quotes; "" = the key must
                             be left out; NULL = everything */
    double min, max;     /* numbers, inclusive unless `bounds` says otherwise */
    enum mt_key_bounds bounds;
    bool required;      /* unless a rule waives it: mt_rules_is_required */
    size_t offset;      /* of the field in struct mt_config; MT_NO_FIELD = none */
    size_t field_bytes; /* MT_KEY_TEXT: room of the field, its final NUL included */
    const char *help;   /* one or two sentences */
};

#define MT_NO_FIELD SIZE_MAX

static inline int64_t mt_key_auto(const struct mt_key *key)
{
    return (int64_t)key->min - 1;
}

/* Rows of the table: at most this many, so that states per key are plain arrays. */
enum { MT_MAX_KEYS = 128 };

int mt_table_n_key(void);
const struct mt_key *mt_table_key(int index); /* index in [0, n_key) */
/* Index of section.name; -1 when there is none. */
int mt_table_find(const char *section, const char *name);
/* Index of "section.name" as one word; asserts that it exists: for code that names keys. */
int mt_table_index(const char *path);
bool mt_table_has_section(const char *section);

/* What values a key takes, e.g. `integer, 1 to 1048576 (2^20)`. text [bytes] */
void mt_key_describe_values(const struct mt_key *key, char *text, size_t bytes);
/* Only the interval, e.g. `above 0, up to 1`. text [bytes] */
void mt_key_describe_range(const struct mt_key *key, char *text, size_t bytes);

#endif
