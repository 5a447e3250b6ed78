/* One entry of a TOML text into one field of the configuration. */
#ifndef MT_CONFIG_VALUE_H
#define MT_CONFIG_VALUE_H

#include "config/config.h"
#include "config/report.h"
#include "config/table.h"
#include "config/toml_reader.h"

enum mt_key_status { MT_KEY_UNSET, MT_KEY_SET, MT_KEY_BAD };

/* A configuration while it is being loaded. */
struct mt_load {
    struct mt_config *config;
    const char *base_dir; /* where relative data paths start; "" = the working directory */
    enum mt_key_status status[MT_MAX_KEYS];    /* by table index */
    struct mt_text_place place[MT_MAX_KEYS];   /* of the last assignment; zero while unset */
    struct mt_text_place section[MT_MAX_KEYS]; /* by index of a section's first key: its header */
    bool has_syntax_error;
    struct mt_report report;
};

/* Checks type, range and what this version has; then stores. A mistake is reported and the key
 * marked MT_KEY_BAD. */
void mt_value_assign(struct mt_load *load, int index, const struct mt_toml_entry *entry,
                     struct mt_text_place place);

/* One member of [device.slowdown]: `rank` is its key. */
void mt_value_assign_factor(struct mt_load *load, const char *rank,
                            const struct mt_toml_entry *entry, struct mt_text_place place);

/* One member of [data.validation_sets]: value_sets.c. */
void mt_value_assign_set(struct mt_load *load, const char *name, const struct mt_toml_entry *entry,
                         struct mt_text_place place);
/* The paths of a list behind those that `list` has; false after reporting that it is none. */
bool mt_value_append_paths(struct mt_load *load, int index, const struct mt_toml_entry *entry,
                           struct mt_text_place place, struct mt_path_list *list);

/* A value as it stood in the text, short enough for a message. text [bytes] */
void mt_value_show(const struct mt_toml_value *value, char *text, size_t bytes);

#endif
