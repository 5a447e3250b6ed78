/* What holds between keys: required keys, defaults that follow from other keys, legal
 * combinations. Runs once every value stands in its field. */
#ifndef MT_CONFIG_RULES_H
#define MT_CONFIG_RULES_H

#include "config/value.h"

/* origin: the file's path, for run.name. run_dir: NULL or replaces run.dir. */
void mt_rules_apply(struct mt_load *load, const char *origin, const char *run_dir);

#endif
