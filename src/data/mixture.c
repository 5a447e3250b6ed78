#include "data/mixture.h"

#include "base/memory.h"
#include "base/random.h"
#include "data/sampler.h"

#include <stdio.h>
#include <string.h>

struct mt_mixture {
    int64_t length; /* T */
    bool is_blend;  /* each path is a source */
    struct mt_blend blend;
    struct mt_corpus *corpus[MT_MAX_PATHS];
    char name[MT_MAX_PATHS][MT_NAME_BYTES];
    struct mt_blend_source source[MT_MAX_PATHS];
    int64_t state[MT_BLEND_STATE];
};

static const char *last_component(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

static enum mt_status open_source(struct mt_mixture *mixture, int source,
                                  const struct mt_path_list *paths, const char *name,
                                  const struct mt_corpus_options *options)
{
    MT_TRY(mt_corpus_open(paths, options, &mixture->corpus[source]));
    (void)snprintf(mixture->name[source], MT_NAME_BYTES, "%s", name);
    mixture->source[source].name = mt_random_stream(mixture->name[source]);
    return mt_corpus_fingerprint(mixture->corpus[source], &mixture->source[source].fingerprint);
}

static enum mt_status open_each(struct mt_mixture *mixture, const struct mt_path_list *paths,
                                const struct mt_corpus_options *options)
{
    enum mt_status status = MT_OK;
    struct mt_path_list *one = NULL; /* a list is a MiB: too large for the stack */
    MT_TRY(MT_ALLOCATE(one, 1, "path of a source"));
    one->n = 1;
    for (int k = 0; k < paths->n && status == MT_OK; ++k) {
        (void)snprintf(one->path[0], MT_PATH_BYTES, "%s", paths->path[k]);
        status = open_source(mixture, k, one, last_component(paths->path[k]), options);
    }
    mt_memory_free(one);
    return status;
}

enum mt_status mt_mixture_open(const struct mt_path_list *paths, const struct mt_real_list *weights,
                               const struct mt_corpus_options *options, struct mt_mixture **out)
{
    struct mt_mixture *mixture = NULL;
    *out = NULL;
    MT_TRY(MT_ALLOCATE(mixture, 1, "sources of data"));
    mixture->length = options->length;
    MT_ASSERT(weights->n == 0 || weights->n == paths->n);
    const bool is_blend = weights->n > 0 && options->format != MT_DATA_RANDOM;
    mixture->is_blend = is_blend;
    mt_blend_init(&mixture->blend, is_blend ? weights->n : 1, is_blend ? weights->value : NULL);
    const enum mt_status status = is_blend ? open_each(mixture, paths, options)
                                           : open_source(mixture, 0, paths, "data", options);
    if (status != MT_OK) {
        mt_mixture_close(mixture);
        return status;
    }
    mt_blend_save(&mixture->blend, mixture->source, mixture->state);
    *out = mixture;
    return MT_OK;
}

void mt_mixture_close(struct mt_mixture *mixture)
{
    if (mixture == NULL) {
        return;
    }
    for (int k = 0; k < mixture->blend.n_source; ++k) {
        mt_corpus_close(mixture->corpus[k]);
    }
    mt_memory_free(mixture);
}

void mt_mixture_place(const struct mt_mixture *mixture, uint64_t seed, int64_t sequence,
                      int *source, int64_t *window)
{
    int64_t index = 0;
    mt_blend_place(&mixture->blend, sequence, source, &index);
    *window = mt_sampler_window(seed, mt_corpus_n_window(mixture->corpus[*source]), index);
}

static enum mt_status fill_one(const struct mt_mixture *mixture, uint64_t seed, int64_t sequence,
                               int32_t *token, int32_t *target,
                               struct mt_document_starts *documents)
{
    int source = 0;
    int64_t window = 0;
    mt_mixture_place(mixture, seed, sequence, &source, &window);
    MT_TRY(mt_corpus_read(mixture->corpus[source], window, token, target));
    return documents != NULL
               ? mt_corpus_documents(mixture->corpus[source], window, token, documents)
               : MT_OK;
}

enum mt_status mt_mixture_fill(const struct mt_mixture *mixture, uint64_t seed, int64_t first,
                               const int64_t *sequence, int64_t n, int32_t *token, int32_t *target,
                               struct mt_document_starts *documents)
{
    if (documents != NULL) {
        documents->n = 0;
    }
    for (int64_t i = 0; i < n; ++i) {
        const int64_t at = i * mixture->length;
        MT_TRY(fill_one(mixture, seed, first + sequence[i], token + at, target + at, documents));
    }
    return MT_OK;
}

int mt_mixture_n_source(const struct mt_mixture *mixture)
{
    return mixture->blend.n_source;
}

const char *mt_mixture_name(const struct mt_mixture *mixture, int source)
{
    return mixture->name[source];
}

int64_t mt_mixture_drawn(const struct mt_mixture *mixture, int source, int64_t sequence)
{
    return mt_blend_drawn(&mixture->blend, source, sequence);
}

int64_t *mt_mixture_state(struct mt_mixture *mixture)
{
    return mixture->state;
}

static enum mt_status refuse_change(const struct mt_mixture *mixture, int source)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "%s%s not the content that the checkpoint was trained on; the same files were "
                   "expected; restore them, or go on with the new ones by --set "
                   "data.changed='\"accept\"'",
                   mixture->is_blend ? mixture->name[source] : "the files of data.train have",
                   mixture->is_blend ? " of data.train has" : "");
}

enum mt_status mt_mixture_resume(struct mt_mixture *mixture, int64_t sequence, bool accept_changes,
                                 char *notes, size_t notes_bytes)
{
    int changed = -1;
    notes[0] = '\0';
    if (!mt_blend_state_is_valid(mixture->state, sequence)) {
        return MT_FAIL(MT_ERR_INPUT,
                       "the checkpoint's /state/data is no position in training data; "
                       "verify the checkpoint, or resume from another");
    }
    if (mt_blend_resume(&mixture->blend, mixture->source, mixture->state, sequence, &changed)) {
        (void)snprintf(notes, notes_bytes,
                       "data: other sources or weights than in the checkpoint; each source goes on "
                       "behind what it gave%s",
                       changed >= 0 ? ", also where its content changed" : "");
    }
    if (changed >= 0 && !accept_changes) {
        return refuse_change(mixture, changed);
    }
    mt_blend_save(&mixture->blend, mixture->source, mixture->state);
    return MT_OK;
}
