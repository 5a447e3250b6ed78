/* What the rules across keys share. */
#ifndef MT_CONFIG_RULES_INTERNAL_H
#define MT_CONFIG_RULES_INTERNAL_H

#include "config/load.h"
#include "config/rules.h"
#include "config/table.h"

static inline bool is_set(const struct mt_load *load, const char *path)
{
    return load->status[mt_table_index(path)] == MT_KEY_SET;
}

/* The value may be looked at: it is neither refused nor missing. */
static inline bool is_good(const struct mt_load *load, const char *path)
{
    return load->status[mt_table_index(path)] != MT_KEY_BAD;
}

static inline struct mt_text_place place_of(const struct mt_load *load, const char *path)
{
    return load->place[mt_table_index(path)];
}

/* rules_data.c: the rules of [data]. */
void mt_rules_check_data(struct mt_load *load);

#endif
