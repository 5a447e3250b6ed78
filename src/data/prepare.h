/* Text to a Megatron pair: documents of text files and JSON lines, encoded side by side by threads,
 * in the order in which they come. */
#ifndef MT_DATA_PREPARE_H
#define MT_DATA_PREPARE_H

#include "config/config.h"
#include "text/tokenizer.h"

struct mt_prepare_options {
    const struct mt_tokenizer *tokenizer;
    const char *key;         /* of a line's text, e.g. "text" */
    int32_t end_of_document; /* the id behind each document; -1: none */
    const char *prefix;      /* PREFIX.bin and PREFIX.idx are written */
};

struct mt_prepare_result {
    int64_t n_byte, n_document, n_token; /* read, written, written */
    int64_t n_empty;                     /* documents without text: left out */
    const char *type;                    /* of the ids */
};

/* Called now and then, by the calling thread. n_byte of all n_byte_total are read. */
typedef void (*mt_prepare_progress_fn)(const struct mt_prepare_result *so_far,
                                       int64_t n_byte_total);

/* paths: files or folders of them. NAME.jsonl holds a JSON object a line, each a document; any
 * other file is one document. Both files appear under their names only when they are whole.
 * MT_ERR_INPUT with file and line when a document cannot be read, MT_ERR_CONFIG when the pair
 * exists, MT_ERR_RESOURCE when the disk refuses; then nothing is left behind. */
enum mt_status mt_prepare(const struct mt_path_list *paths,
                          const struct mt_prepare_options *options, mt_prepare_progress_fn progress,
                          struct mt_prepare_result *result);

#endif
