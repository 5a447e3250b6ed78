/* config.json of a model, to and from a configuration of this program. */
#ifndef MT_INTERCHANGE_CONFIG_JSON_H
#define MT_INTERCHANGE_CONFIG_JSON_H

#include "base/status.h"
#include "config/config.h"
#include "interchange/family.h"
#include "interchange/stored_type.h"

#include <jansson.h>

enum { MT_TABLE_TEXT_BYTES = 2048, MT_MODEL_TEXT_BYTES = 4200, MT_UNREAD_BYTES = 1024 };

/* What a config.json says. */
struct mt_model_text {
    const struct mt_family *family;
    char toml[MT_MODEL_TEXT_BYTES]; /* [model] and [moe] of a configuration */
    char unread[MT_UNREAD_BYTES];   /* its keys that say nothing here: "bos_token_id, ..." */
};

/* The file at `path`. family: NULL takes what model_type says. *config: resolved, with what a
 * configuration needs beside the model set to anything; free with mt_memory_free. MT_ERR_INPUT
 * naming the key and its value when the model cannot be had. */
enum mt_status mt_config_json_read(const char *path, const struct mt_family *family,
                                   struct mt_model_text *text, struct mt_config **config);

/* Whether the family has such models: MT_ERR_CONFIG naming the key when not. */
enum mt_status mt_config_json_check(const struct mt_config *config, const struct mt_family *family);
/* config.json for a checked model; json_decref. */
enum mt_status mt_config_json_make(const struct mt_config *config, const struct mt_family *family,
                                   enum mt_stored_type type, json_t **object);

#endif
