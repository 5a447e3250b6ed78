/* What a resumed run must share with the checkpoint it goes on from, and what it may change. */
#include "config/load.h"
#include "config/table.h"
#include "config/write.h"

#include <stdio.h>
#include <string.h>

enum { SHOWN_BYTES = 160, TEXT_BYTES = 16384 };

/* Keys that decide what the checkpoint's tensors are and what the run computes: [model], the shapes
 * of [moe] and the seed. */
static bool must_match(const struct mt_key *key)
{
    static const char *const names[] = {"num_experts",
                                        "top_k",
                                        "expert_intermediate_size",
                                        "num_shared_experts",
                                        "shared_intermediate_size",
                                        "shared_gate"};
    if (strcmp(key->section, "model") == 0) {
        return true;
    }
    if (strcmp(key->section, "run") == 0) {
        return strcmp(key->name, "seed") == 0;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(key->section, "moe") == 0 && strcmp(key->name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Appends "section.key: then -> now" to text [bytes]; what does not fit is left out. */
static void append_difference(const struct mt_key *key, const struct mt_config *now,
                              const struct mt_config *then, char *text, size_t bytes)
{
    char old_value[SHOWN_BYTES];
    char new_value[SHOWN_BYTES];
    mt_write_value(then, key, old_value, sizeof(old_value));
    mt_write_value(now, key, new_value, sizeof(new_value));
    const size_t used = strlen(text);
    const int n = snprintf(text + used, bytes - used, "%s%s.%s: %s -> %s", used == 0 ? "" : "\n",
                           key->section, key->name, old_value, new_value);
    if (n < 0 || (size_t)n >= bytes - used) {
        text[used] = '\0';
    }
}

enum mt_status mt_config_check_resume(const struct mt_config *now, const struct mt_config *then,
                                      char *changes, size_t changes_bytes)
{
    char refused[TEXT_BYTES] = "";
    if (changes != NULL && changes_bytes > 0) {
        changes[0] = '\0';
    }
    for (int i = 0; i < mt_table_n_key(); i++) {
        const struct mt_key *key = mt_table_key(i);
        if (key->offset == MT_NO_FIELD || mt_write_hash(now, key) == mt_write_hash(then, key)) {
            continue;
        }
        if (must_match(key)) {
            append_difference(key, now, then, refused, sizeof(refused));
        } else if (changes != NULL && changes_bytes > 0) {
            append_difference(key, now, then, changes, changes_bytes);
        }
    }
    if (refused[0] != '\0') {
        return MT_FAIL(MT_ERR_CONFIG,
                       "the checkpoint was trained with another configuration (checkpoint -> now); "
                       "[model], the shapes in [moe] and run.seed must stay; set them back or use "
                       "another run directory:\n%s",
                       refused);
    }
    return MT_OK;
}
