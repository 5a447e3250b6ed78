/* Members of [data.validation_sets]: a name and its paths. */
#include "config/value.h"

#include "config/load.h"

#include <stdio.h>
#include <string.h>

/* Keys of metrics and of TOML. */
bool mt_value_is_set_name(const char *name, size_t n)
{
    return n > 0 && n < MT_NAME_BYTES &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") >= n;
}

/* Takes out a set that is given again, with its paths. What is unused stays zero. */
static void remove_set(struct mt_path_sets *sets, int set)
{
    int kept = 0;
    for (int i = 0; i < sets->paths.n; i++) {
        if (sets->set[i] != set) {
            memmove(sets->paths.path[kept], sets->paths.path[i], MT_PATH_BYTES);
            sets->set[kept++] = sets->set[i] - (sets->set[i] > set);
        }
    }
    for (int i = kept; i < sets->paths.n; i++) {
        memset(sets->paths.path[i], 0, MT_PATH_BYTES);
        sets->set[i] = 0;
    }
    sets->paths.n = kept;
    sets->n_set--;
    memmove(sets->name[set], sets->name[set + 1], (size_t)(sets->n_set - set) * MT_NAME_BYTES);
    memset(sets->name[sets->n_set], 0, MT_NAME_BYTES);
}

/* Names rise, so that equal configurations are written alike. The paths from `first` on are its. */
static void insert_set(struct mt_path_sets *sets, const char *name, int first)
{
    int at = 0;
    while (at < sets->n_set && strcmp(sets->name[at], name) < 0) {
        at++;
    }
    memmove(sets->name[at + 1], sets->name[at], (size_t)(sets->n_set - at) * MT_NAME_BYTES);
    memset(sets->name[at], 0, MT_NAME_BYTES);
    (void)snprintf(sets->name[at], MT_NAME_BYTES, "%s", name);
    sets->n_set++;
    for (int i = 0; i < sets->paths.n; i++) {
        sets->set[i] = i >= first ? at : sets->set[i] + (sets->set[i] >= at);
    }
}

void mt_value_assign_set(struct mt_load *load, const char *name, const struct mt_toml_entry *entry,
                         struct mt_text_place place)
{
    struct mt_path_sets *sets = &load->config->data.validation_sets;
    const int index = mt_table_index("data.validation_sets");
    for (int s = 0; s < sets->n_set; s++) {
        if (strcmp(sets->name[s], name) == 0) {
            remove_set(sets, s);
        }
    }
    const int first = sets->paths.n;
    const bool is_name = mt_value_is_set_name(name, strlen(name));
    if (is_name && sets->n_set == MT_MAX_SETS && load->status[index] == MT_KEY_BAD) {
        return; /* told already: one message for all that are too many */
    }
    if (!is_name || sets->n_set == MT_MAX_SETS) {
        mt_report_add(&load->report, place,
                      "data.validation_sets has %s %.80s; at most %d names of letters, digits, - "
                      "and _ are expected",
                      is_name ? "one set too many," : "the key", name, (int)MT_MAX_SETS);
    } else if (mt_value_append_paths(load, index, entry, place, &sets->paths)) {
        if (first < sets->paths.n) {
            insert_set(sets, name, first);
            return;
        }
        mt_report_add(&load->report, place,
                      "data.validation_sets.%.80s is empty; at least one path is expected", name);
    }
    load->status[index] = MT_KEY_BAD;
}
