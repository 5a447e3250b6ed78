/* Files are read with pread, not mapped: one window is T + 1 bytes, so the copy costs nothing
 * beside a step, and a file that shrinks meanwhile is a short read with a message instead of a
 * SIGBUS. */
#include "data/corpus.h"

#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "data/file_list.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    READ_BYTES = 4096,    /* one piece of a window, on the stack */
    SCAN_BYTES = 1 << 16, /* one piece of the check at opening */
    MAX_OPEN_FILES = 256  /* beyond, a file is opened for each read: limits start at 1024 */
};
static const int64_t CHECKED_BYTES = (int64_t)256 << 20;

struct corpus_file {
    const char *path; /* in the file list */
    int descriptor;   /* -1: opened for each read */
    int64_t n_byte;
    int64_t first_window; /* windows in the files before this one */
};

struct mt_corpus {
    struct mt_corpus_options options;
    struct mt_file_list list;
    int64_t n_file, n_window;
    struct corpus_file *file; /* [n_file] */
};

static enum mt_status fail_read(const char *path, int64_t offset, ssize_t got)
{
    if (got < 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "cannot read %s at offset %lld: %s; check the file and its disk", path,
                       (long long)offset, strerror(errno));
    }
    return MT_FAIL(MT_ERR_INPUT,
                   "%s ends at offset %lld; more bytes were expected, as when it was opened; "
                   "something shortened it during the run: restore it and start again",
                   path, (long long)offset);
}

/* data [n] from offset, whole. */
static enum mt_status read_at(int descriptor, const char *path, int64_t offset, int64_t n,
                              unsigned char *data)
{
    for (int64_t done = 0; done < n;) {
        const ssize_t got =
            pread(descriptor, data + done, (size_t)(n - done), (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return fail_read(path, offset + done, got);
        }
        done += got;
    }
    return MT_OK;
}

static enum mt_status check_ids(const struct mt_corpus *corpus, const char *path, int64_t offset,
                                const unsigned char *data, int64_t n)
{
    for (int64_t i = 0; i < n; ++i) {
        if (data[i] >= corpus->options.vocab_size) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s, offset %lld: byte value %d is no token id; ids below vocab_size = "
                           "%lld were expected; raise model.vocab_size (256 fits every file) or "
                           "change the file",
                           path, (long long)(offset + i), (int)data[i],
                           (long long)corpus->options.vocab_size);
        }
    }
    return MT_OK;
}

static enum mt_status open_file(const char *path, int *descriptor)
{
    /* Not blocking: a pipe would wait for somebody to write into it. */
    *descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (*descriptor < 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "cannot open %s: %s; a readable data file was expected; check "
                       "[data] and the file's permissions",
                       path, strerror(errno));
    }
    return MT_OK;
}

/* Ids of the first bytes of a file, as long as *budget_bytes lasts. */
static enum mt_status scan_file(const struct mt_corpus *corpus, const struct corpus_file *file,
                                int descriptor, int64_t *budget_bytes)
{
    unsigned char data[SCAN_BYTES];
    const int64_t end = mt_min_i64(file->n_byte, *budget_bytes);
    for (int64_t offset = 0; offset < end; offset += SCAN_BYTES) {
        const int64_t n = mt_min_i64(SCAN_BYTES, end - offset);
        MT_TRY(read_at(descriptor, file->path, offset, n, data));
        MT_TRY(check_ids(corpus, file->path, offset, data, n));
    }
    *budget_bytes -= end;
    return MT_OK;
}

static enum mt_status measure_file(struct mt_corpus *corpus, struct corpus_file *file,
                                   int descriptor)
{
    struct stat about;
    if (fstat(descriptor, &about) != 0) {
        return fail_read(file->path, 0, -1);
    }
    if (!S_ISREG(about.st_mode)) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s is not a regular file; text files or folders of them were expected; "
                       "check [data]",
                       file->path);
    }
    if (about.st_size == 0) {
        return MT_FAIL(
            MT_ERR_INPUT,
            "%s is empty; a file with text was expected; fill it or take it out of [data]",
            file->path);
    }
    file->n_byte = about.st_size;
    file->first_window = corpus->n_window;
    corpus->n_window += (file->n_byte - 1) / corpus->options.length;
    return MT_OK;
}

static enum mt_status add_file(struct mt_corpus *corpus, const char *path, int64_t *budget_bytes)
{
    struct corpus_file *file = &corpus->file[corpus->n_file];
    int descriptor = -1;
    MT_TRY(open_file(path, &descriptor));
    file->path = path;
    enum mt_status status = measure_file(corpus, file, descriptor);
    /* With V >= 256 no byte can be too large, and nothing needs reading. */
    if (status == MT_OK && corpus->options.vocab_size <= UINT8_MAX) {
        status = scan_file(corpus, file, descriptor, budget_bytes);
    }
    if (status != MT_OK || corpus->n_file >= MAX_OPEN_FILES) {
        (void)close(descriptor);
        descriptor = -1;
    }
    file->descriptor = descriptor;
    ++corpus->n_file;
    return status;
}

static enum mt_status open_files(struct mt_corpus *corpus, const struct mt_path_list *paths)
{
    int64_t budget_bytes = CHECKED_BYTES;
    MT_TRY(mt_file_list_init(&corpus->list, paths));
    MT_TRY(MT_ALLOCATE(corpus->file, corpus->list.n, "list of data files"));
    for (int64_t i = 0; i < corpus->list.n; ++i) {
        MT_TRY(add_file(corpus, corpus->list.path[i], &budget_bytes));
    }
    if (corpus->n_window == 0) {
        return MT_FAIL(
            MT_ERR_INPUT,
            "%s%s: no file of at least max_seq_len + 1 = %lld tokens; one window is that "
            "long; use a longer text or a smaller model.max_seq_len",
            corpus->file[0].path, corpus->n_file > 1 ? " and the others" : "",
            (long long)corpus->options.length + 1);
    }
    return MT_OK;
}

static enum mt_status check_format(const struct mt_path_list *paths,
                                   const struct mt_corpus_options *options)
{
    if (options->format != MT_DATA_BYTES && options->format != MT_DATA_RANDOM) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "data.format = \"%s\" is not in this version; use \"bytes\" or \"random\"",
                       options->format == MT_DATA_TOKENS ? "tokens" : "megatron");
    }
    if (options->format == MT_DATA_BYTES && paths->n == 0) {
        return MT_FAIL(MT_ERR_CONFIG, "no data files given; data.format = \"bytes\" needs at least "
                                      "one path; set data.train");
    }
    return MT_OK;
}

enum mt_status mt_corpus_open(const struct mt_path_list *paths,
                              const struct mt_corpus_options *options, struct mt_corpus **out)
{
    *out = NULL;
    MT_ASSERT(options->length >= 1 && options->vocab_size >= 1);
    MT_TRY(check_format(paths, options));
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
        if (corpus->file[i].descriptor >= 0) {
            (void)close(corpus->file[i].descriptor);
        }
    }
    mt_memory_free(corpus->file);
    mt_file_list_clear(&corpus->list);
    mt_memory_free(corpus);
}

int64_t mt_corpus_n_window(const struct mt_corpus *corpus)
{
    return corpus->n_window;
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

/* Tokens [start, start + n) of a window into both arrays: token t is target t - 1. */
static void store_ids(int64_t length, int64_t start, int64_t n, const unsigned char *data,
                      int32_t *token, int32_t *target)
{
    for (int64_t i = 0; i < n; ++i) {
        const int64_t t = start + i;
        if (t < length) {
            token[t] = data[i];
        }
        if (t > 0) {
            target[t - 1] = data[i];
        }
    }
}

static enum mt_status read_bytes(const struct mt_corpus *corpus, const struct corpus_file *file,
                                 int descriptor, int64_t offset, int32_t *token, int32_t *target)
{
    unsigned char data[READ_BYTES];
    const int64_t length = corpus->options.length;
    for (int64_t start = 0; start <= length; start += READ_BYTES) {
        const int64_t n = mt_min_i64(READ_BYTES, length + 1 - start);
        MT_TRY(read_at(descriptor, file->path, offset + start, n, data));
        MT_TRY(check_ids(corpus, file->path, offset + start, data, n));
        store_ids(length, start, n, data, token, target);
    }
    return MT_OK;
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
    const struct corpus_file *file = find_file(corpus, window);
    const int64_t offset = (window - file->first_window) * corpus->options.length;
    if (file->descriptor >= 0) {
        return read_bytes(corpus, file, file->descriptor, offset, token, target);
    }
    int descriptor = -1;
    MT_TRY(open_file(file->path, &descriptor));
    const enum mt_status status = read_bytes(corpus, file, descriptor, offset, token, target);
    (void)close(descriptor);
    return status;
}
