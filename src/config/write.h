/* A configuration's values as TOML text. */
#ifndef MT_CONFIG_WRITE_H
#define MT_CONFIG_WRITE_H

#include "config/config.h"
#include "config/table.h"

/* The shortest decimal that reads back as `value`, always with a point or an exponent.
 * text [bytes], 32 suffice */
void mt_write_real(double value, char *text, size_t bytes);

/* The value of one key. Lists that do not fit are cut. text [bytes] */
void mt_write_value(const struct mt_config *config, const struct mt_key *key, char *text,
                    size_t bytes);

/* XXH3 of one key's value: equal exactly when the values are. */
uint64_t mt_write_hash(const struct mt_config *config, const struct mt_key *key);

#endif
