/* Files of tokens, cut into windows. */
#include "data/corpus.h"

#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "data/file_list.h"
#include "data/token_file.h"

#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <string.h>
#include <xxhash.h>

enum {
    SCAN_TOKENS = 4096,  /* one piece of the check at opening, on the stack */
    MAX_OPEN_FILES = 256 /* beyond, a file is opened for each read: limits start at 1024 */
};
/* Ids checked at opening: about 10 ms a corpus, whatever its size. */
static const int64_t CHECKED_TOKENS = (int64_t)1 << 20;

struct corpus_file {
    struct mt_token_file ids;
    int64_t first_window; /* windows in the files before this one */
};

struct mt_corpus {
    struct mt_corpus_options options;
    struct mt_file_list list;
    int64_t n_file, n_window;
    struct corpus_file *file; /* [n_file] */
};

/* Ids of the first tokens of a file, as long as *budget lasts. With a vocabulary that holds every
 * value of the type no id can be too large, and nothing needs reading. */
static enum mt_status check_ids(const struct mt_corpus *corpus, const struct mt_token_file *ids,
                                int64_t *budget)
{
    int32_t id[SCAN_TOKENS];
    const int64_t vocab_size = corpus->options.vocab_size;
    if (mt_token_type_fits(ids->type, vocab_size)) {
        return MT_OK;
    }
    const int64_t end = mt_min_i64(ids->n_token, *budget);
    for (int64_t first = 0; first < end; first += SCAN_TOKENS) {
        const int64_t n = mt_min_i64(SCAN_TOKENS, end - first);
        MT_TRY(mt_token_file_read(ids, vocab_size, first, n, id));
    }
    *budget -= end;
    return MT_OK;
}

static enum mt_status add_file(struct mt_corpus *corpus, const char *path, int64_t *budget)
{
    struct corpus_file *file = &corpus->file[corpus->n_file++];
    MT_TRY(
        mt_token_file_open(path, corpus->options.format, corpus->options.token_type, &file->ids));
    file->first_window = corpus->n_window;
    corpus->n_window += mt_max_i64(file->ids.n_token - 1, 0) / corpus->options.length;
    MT_TRY(check_ids(corpus, &file->ids, budget));
    if (corpus->n_file > MAX_OPEN_FILES) {
        mt_token_file_close(&file->ids);
    }
    return MT_OK;
}

static enum mt_status open_files(struct mt_corpus *corpus, const struct mt_path_list *paths)
{
    const bool is_pair = corpus->options.format == MT_DATA_MEGATRON;
    int64_t budget = CHECKED_TOKENS;
    MT_TRY(mt_file_list_init(&corpus->list, paths, is_pair ? ".bin" : ""));
    MT_TRY(MT_ALLOCATE(corpus->file, corpus->list.n, "list of data files"));
    for (int64_t i = 0; i < corpus->list.n; ++i) {
        MT_TRY(add_file(corpus, corpus->list.path[i], &budget));
    }
    if (corpus->n_window == 0) {
        return MT_FAIL(
            MT_ERR_INPUT,
            "%s%s: no file of at least max_seq_len + 1 = %lld tokens; one window is that "
            "long; use a longer text or a smaller model.max_seq_len",
            corpus->file[0].ids.path, corpus->n_file > 1 ? " and the others" : "",
            (long long)corpus->options.length + 1);
    }
    return MT_OK;
}

enum mt_status mt_corpus_open(const struct mt_path_list *paths,
                              const struct mt_corpus_options *options, struct mt_corpus **out)
{
    *out = NULL;
    MT_ASSERT(options->length >= 1 && options->vocab_size >= 1);
    if (options->format != MT_DATA_RANDOM && paths->n == 0) {
        return MT_FAIL(MT_ERR_CONFIG, "no data files given; at least one path is needed unless "
                                      "data.format = \"random\"; set data.train");
    }
    struct mt_corpus *corpus = NULL;
    MT_TRY(MT_ALLOCATE(corpus, 1, "corpus"));
    corpus->options = *options;
    enum mt_status status = MT_OK;
    if (options->format == MT_DATA_RANDOM) {
        corpus->n_window = INT64_MAX;
    } else {
        status = open_files(corpus, paths);
    }
    if (status != MT_OK) {
        mt_corpus_close(corpus);
        return status;
    }
    *out = corpus;
    return MT_OK;
}

void mt_corpus_close(struct mt_corpus *corpus)
{
    if (corpus == NULL) {
        return;
    }
    for (int64_t i = 0; i < corpus->n_file; ++i) {
        mt_token_file_close(&corpus->file[i].ids);
    }
    mt_memory_free(corpus->file);
    mt_file_list_clear(&corpus->list);
    mt_memory_free(corpus);
}

int64_t mt_corpus_n_window(const struct mt_corpus *corpus)
{
    return corpus->n_window;
}

enum mt_status mt_corpus_fingerprint(const struct mt_corpus *corpus, uint64_t *fingerprint)
{
    XXH3_state_t hash;
    (void)XXH3_64bits_reset(&hash);
    (void)XXH3_64bits_update(&hash, &corpus->options.seed,
                             corpus->n_file == 0 ? sizeof(corpus->options.seed) : 0);
    for (int64_t i = 0; i < corpus->n_file; ++i) {
        uint64_t part = 0;
        MT_TRY(mt_token_file_fingerprint(&corpus->file[i].ids, &part));
        (void)XXH3_64bits_update(&hash, &part, sizeof(part));
    }
    *fingerprint = XXH3_64bits_digest(&hash);
    return MT_OK;
}

/* The last file whose first window is not beyond: files without windows are never chosen, since
 * their successor starts at the same number. */
static const struct corpus_file *find_file(const struct mt_corpus *corpus, int64_t window)
{
    int64_t low = 0;
    int64_t high = corpus->n_file;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (corpus->file[middle].first_window <= window) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &corpus->file[low];
}

static void make_random(const struct mt_corpus_options *options, int64_t window, int32_t *token,
                        int32_t *target)
{
    const uint64_t stream = mt_random_stream("data.random") + (uint64_t)window;
    for (int64_t t = 0; t <= options->length; ++t) {
        const uint64_t bits = mt_random_u64(options->seed, stream, (uint64_t)t);
        const int32_t id = (int32_t)(bits % (uint64_t)options->vocab_size);
        if (t < options->length) {
            token[t] = id;
        }
        if (t > 0) {
            target[t - 1] = id;
        }
    }
}

enum mt_status mt_corpus_read(const struct mt_corpus *corpus, int64_t window, int32_t *token,
                              int32_t *target)
{
    MT_ASSERT(window >= 0 && window < corpus->n_window);
    if (corpus->options.format == MT_DATA_RANDOM) {
        make_random(&corpus->options, window, token, target);
        return MT_OK;
    }
    /* T + 1 tokens: token t is target t - 1. */
    const struct corpus_file *file = find_file(corpus, window);
    const int64_t vocab_size = corpus->options.vocab_size;
    const int64_t length = corpus->options.length;
    const int64_t first = (window - file->first_window) * length;
    MT_TRY(mt_token_file_read(&file->ids, vocab_size, first, length, token));
    memcpy(target, token + 1, (size_t)(length - 1) * sizeof(*target));
    return mt_token_file_read(&file->ids, vocab_size, first + length, 1, target + length - 1);
}

/* Borders that a token marks: behind each document_end but the window's last token. */
static void find_ends(const struct mt_corpus_options *options, const int32_t *token, int64_t begin,
                      struct mt_document_starts *documents)
{
    for (int64_t t = 1; t < options->length; ++t) {
        if (token[t - 1] == options->document_end) {
            documents->start[documents->n++] = begin + t;
        }
    }
}

static enum mt_status read_index(const struct mt_corpus *corpus, int64_t window, int64_t begin,
                                 struct mt_document_starts *documents)
{
    const struct corpus_file *file = find_file(corpus, window);
    const int64_t length = corpus->options.length;
    const int64_t first = (window - file->first_window) * length;
    int64_t *start = documents->start + documents->n;
    int64_t n = 0;
    MT_TRY(mt_token_file_documents(&file->ids, first, length, start, &n));
    for (int64_t i = 0; i < n; ++i) {
        start[i] += begin - first;
    }
    documents->n += n;
    return MT_OK;
}

enum mt_status mt_corpus_documents(const struct mt_corpus *corpus, int64_t window,
                                   const int32_t *token, struct mt_document_starts *documents)
{
    const int64_t begin = documents->n == 0 ? 0 : documents->start[documents->n];
    documents->start[documents->n++] = begin;
    if (corpus->options.document_end >= 0) {
        find_ends(&corpus->options, token, begin, documents);
    } else {
        MT_TRY(read_index(corpus, window, begin, documents));
    }
    documents->start[documents->n] = begin + corpus->options.length;
    return MT_OK;
}
