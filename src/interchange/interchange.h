/* Models in and out, in the layout of Hugging Face transformers: safetensors and config.json. One
 * process; a tensor's elements after another, so memory is a few MiB of buffers, 500 bytes a tensor
 * of the files, and one file's header while it is parsed, whatever the size of the model. */
#ifndef MT_INTERCHANGE_EXCHANGE_H
#define MT_INTERCHANGE_EXCHANGE_H

#include "interchange/config_json.h"

/* What was done, for people. */
struct mt_interchange_report {
    const struct mt_family *family;
    enum mt_expert_layout layout;
    int64_t n_stored;  /* tensors in the files */
    int64_t n_element; /* parameters */
    int n_file;
    char unread[MT_UNREAD_BYTES]; /* import: keys of config.json that say nothing here */
};

/* A folder with config.json and safetensors becomes a checkpoint of weights, step 0, and a file
 * with [model] and [moe] of a configuration. Both absent before, or MT_ERR_CONFIG; what is wrong
 * with the model is MT_ERR_INPUT. */
struct mt_import_options {
    const char *from, *to, *config_path;
    const struct mt_family *family; /* NULL: as model_type says */
    enum mt_dtype dtype;            /* of the checkpoint */
};
enum mt_status mt_interchange_import(const struct mt_import_options *options,
                                     struct mt_interchange_report *report);

/* The weights of a checkpoint become such a folder. */
struct mt_export_options {
    const char *from, *to;
    const char *tokenizer;          /* file to copy: tokenizer.json or .model; NULL: none */
    const struct mt_family *family; /* NULL: the first that has such models */
    enum mt_expert_layout layout;
    enum mt_stored_type type;
    int64_t shard_bytes; /* of tensors in a file, at most, but for one that is larger */
};
enum mt_status mt_interchange_export(const struct mt_export_options *options,
                                     struct mt_interchange_report *report);

#endif
