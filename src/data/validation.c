#include "data/validation.h"

#include "base/memory.h"
#include "base/size.h"

#include <stdio.h>
#include <string.h>

static enum mt_status open_set(struct mt_validation *out, const char *name,
                               const struct mt_path_list *paths,
                               const struct mt_corpus_options *options)
{
    (void)snprintf(out->name[out->n_set], MT_NAME_BYTES, "%s", name);
    MT_TRY(mt_corpus_open(paths, options, &out->corpus[out->n_set]));
    out->n_set++;
    return MT_OK;
}

static enum mt_status open_named(struct mt_validation *out, const struct mt_path_sets *sets,
                                 const struct mt_corpus_options *options)
{
    enum mt_status status = MT_OK;
    struct mt_path_list *paths = NULL; /* a list is a MiB: too large for the stack */
    MT_TRY(MT_ALLOCATE(paths, 1, "paths of a validation set"));
    for (int s = 0; s < sets->n_set && status == MT_OK; ++s) {
        paths->n = 0;
        for (int i = 0; i < sets->paths.n; ++i) {
            if (sets->set[i] == s) {
                memcpy(paths->path[paths->n++], sets->paths.path[i], MT_PATH_BYTES);
            }
        }
        status = open_set(out, sets->name[s], paths, options);
    }
    mt_memory_free(paths);
    return status;
}

enum mt_status mt_validation_open(const struct mt_config *config, struct mt_validation *out)
{
    const struct mt_corpus_options options = {
        .format = config->data.format,
        .token_type = config->data.token_type,
        .vocab_size = config->model.vocab_size,
        .length = config->model.max_seq_len,
        .seed = (uint64_t)config->run.seed + 1,
        .document_end = config->data.document_end,
    };
    memset(out, 0, sizeof(*out));
    if (config->data.validation.n > 0 || config->data.format == MT_DATA_RANDOM) {
        MT_TRY(open_set(out, "validation", &config->data.validation, &options));
    }
    out->is_named = config->data.validation_sets.n_set > 0 && config->data.format != MT_DATA_RANDOM;
    return out->is_named ? open_named(out, &config->data.validation_sets, &options) : MT_OK;
}

void mt_validation_close(struct mt_validation *validation)
{
    for (int s = 0; s < validation->n_set; ++s) {
        mt_corpus_close(validation->corpus[s]);
    }
    memset(validation, 0, sizeof(*validation));
}

int64_t mt_validation_n_window(const struct mt_validation *validation, int set, int64_t n_sequence)
{
    const int64_t n_window = mt_corpus_n_window(validation->corpus[set]);
    return n_sequence == 0 ? n_window : mt_min_i64(n_sequence, n_window);
}
