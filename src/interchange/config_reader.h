/* What the files that read config.json share. */
#ifndef MT_INTERCHANGE_CONFIG_READER_H
#define MT_INTERCHANGE_CONFIG_READER_H

#include "config/table.h"
#include "interchange/config_json.h"

enum { MT_JSON_VALUE_BYTES = 100 };

/* Each key that was read is taken out of the object, so that what is left can be told. */
struct mt_json_reader {
    const char *path;
    json_t *object;
    const struct mt_family *family;
    int64_t n_dense, n_position; /* max_position_embeddings */
    bool is_dense;               /* the family has no experts, and no keys of theirs */
    char model[MT_TABLE_TEXT_BYTES], moe[MT_TABLE_TEXT_BYTES];
};

/* MT_ERR_INPUT: the key has this value, and supported is what there are models with. */
enum mt_status mt_json_refuse(const struct mt_json_reader *reader, const char *key,
                              const json_t *value, const char *supported);

/* One line of [model] or [moe]; ours is "model.hidden_size". */
void mt_json_put(struct mt_json_reader *reader, const char *ours, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A whole number, or a number, within what the configuration's key takes. */
enum mt_status mt_json_put_integer(struct mt_json_reader *reader,
                                   const struct mt_interchange_key *key, const json_t *value);
enum mt_status mt_json_put_real(struct mt_json_reader *reader, const struct mt_interchange_key *key,
                                const json_t *value);

/* config_rope.c: the base of the rotary embedding, `value` unless rope_parameters has it, and what
 * stretches it. */
enum mt_status mt_json_put_rope(struct mt_json_reader *reader, const struct mt_interchange_key *key,
                                const json_t *value);

#endif
