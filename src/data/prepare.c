#include "data/prepare.h"

#include "base/memory.h"
#include "base/size.h"
#include "data/file_list.h"
#include "data/pair_writer.h"
#include "data/token_file.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_BATCH = 512 };                          /* documents that threads share out */
static const int64_t BATCH_BYTES = 8 << 20;        /* text of a batch, unless one is larger */
static const int64_t MAX_DOCUMENT_BYTES = 1 << 30; /* lengths in tokens are 31 bits */

/* One document on its way from a file into the pair. */
struct document {
    const char *path;
    int64_t line; /* 0: the whole file */
    char *text;
    int64_t n_byte;
    struct mt_ids ids;
    char error[512]; /* "": it went well */
    enum mt_status status;
};

struct preparation {
    const struct mt_prepare_options *options;
    struct mt_pair_writer writer;
    int n_document; /* of the batch */
    int64_t batch_bytes;
    struct document document[MAX_BATCH];
    struct mt_prepare_result result;
    int64_t n_byte_total;
    mt_prepare_progress_fn progress;
};

/* The text of a JSON line; the caller releases *value. */
static enum mt_status read_line(const struct document *document, const char *key, json_t **value,
                                const char **text, int64_t *n)
{
    json_error_t error;
    *value = json_loadb(document->text, (size_t)document->n_byte, JSON_ALLOW_NUL, &error);
    const json_t *found = json_object_get(*value, key);
    if (*value == NULL) {
        return MT_FAIL(MT_ERR_INPUT,
                       "no JSON: %s at column %d; an object with the key \"%s\" was "
                       "expected",
                       error.text, error.column, key);
    }
    if (!json_is_string(found)) {
        return MT_FAIL(MT_ERR_INPUT,
                       "no text under the key \"%s\"; name the key of the text with "
                       "--key",
                       key);
    }
    *text = json_string_value(found);
    *n = (int64_t)json_string_length(found);
    return MT_OK;
}

static enum mt_status encode_text(const struct mt_prepare_options *options, const char *text,
                                  int64_t n, struct mt_ids *ids)
{
    MT_TRY(mt_tokenizer_encode(options->tokenizer, text, n, ids));
    if (options->end_of_document >= 0 && ids->n > 0) {
        MT_TRY(mt_ids_append(ids, &options->end_of_document, 1));
    }
    return MT_OK;
}

/* In any thread: an error is that thread's, and carried over as text. */
static void encode(const struct mt_prepare_options *options, struct document *document)
{
    json_t *value = NULL;
    const char *text = document->text;
    int64_t n = document->n_byte;
    enum mt_status status =
        document->line == 0 ? MT_OK : read_line(document, options->key, &value, &text, &n);
    document->ids.n = 0;
    status = status == MT_OK ? encode_text(options, text, n, &document->ids) : status;
    json_decref(value);
    document->status = status;
    document->error[0] = '\0';
    if (status != MT_OK) {
        (void)snprintf(document->error, sizeof(document->error), "%.500s", mt_error_last()->text);
        mt_error_clear();
    }
}

static enum mt_status fail_document(const struct document *document)
{
    char place[48] = "";
    if (document->line > 0) {
        (void)snprintf(place, sizeof(place), ", line %lld", (long long)document->line);
    }
    return MT_FAIL(document->status, "%s%s: %s", document->path, place, document->error);
}

/* Encodes the batch, and writes it in order. */
static enum mt_status flush(struct preparation *work)
{
    enum mt_status status = MT_OK;
#pragma omp parallel for schedule(dynamic)
    for (int d = 0; d < work->n_document; ++d) {
        encode(work->options, &work->document[d]);
    }
    for (int d = 0; d < work->n_document; ++d) {
        struct document *document = &work->document[d];
        if (status == MT_OK && document->status != MT_OK) {
            status = fail_document(document);
        }
        if (status == MT_OK && document->ids.n > 0) {
            status = mt_pair_add(&work->writer, document->ids.item, document->ids.n);
        }
        work->result.n_empty += document->ids.n == 0;
        mt_memory_free(document->text);
        document->text = NULL;
    }
    work->n_document = 0;
    work->batch_bytes = 0;
    work->result.n_document = work->writer.n_document;
    work->result.n_token = work->writer.n_token;
    work->progress(&work->result, work->n_byte_total);
    return status;
}

/* Takes text over. */
static enum mt_status add(struct preparation *work, const char *path, int64_t line, char *text,
                          int64_t n_byte)
{
    struct document *document = &work->document[work->n_document++];
    document->path = path;
    document->line = line;
    document->text = text;
    document->n_byte = n_byte;
    work->batch_bytes += n_byte;
    work->result.n_byte += n_byte + (line > 0);
    if (n_byte > MAX_DOCUMENT_BYTES) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has a document of %lld bytes; at most %lld were expected; split it",
                       path, (long long)n_byte, (long long)MAX_DOCUMENT_BYTES);
    }
    return work->n_document == MAX_BATCH || work->batch_bytes >= BATCH_BYTES ? flush(work) : MT_OK;
}

/* One line a document, copied out of getline's room, which is kept from line to line. */
static enum mt_status read_line_by_line(struct preparation *work, const char *path, FILE *file,
                                        char **line, size_t *room)
{
    for (int64_t number = 1;; ++number) {
        char *text = NULL;
        errno = 0;
        const ssize_t n = getline(line, room, file);
        if (n < 0) {
            return feof(file) ? MT_OK
                              : MT_FAIL(MT_ERR_INPUT, "cannot read %s, line %lld: %s", path,
                                        (long long)number, strerror(errno));
        }
        const int64_t n_byte = n > 0 && (*line)[n - 1] == '\n' ? n - 1 : n;
        MT_TRY(MT_ALLOCATE(text, n_byte + 1, "a document"));
        memcpy(text, *line, (size_t)n_byte);
        MT_TRY(add(work, path, number, text, n_byte));
    }
}

static enum mt_status read_lines(struct preparation *work, const char *path, FILE *file)
{
    char *line = NULL;
    size_t room = 0;
    const enum mt_status status = read_line_by_line(work, path, file, &line, &room);
    free(line); /* NOLINT: getline's */
    return status;
}

static enum mt_status read_whole(struct preparation *work, const char *path, FILE *file,
                                 int64_t n_byte)
{
    char *text = NULL;
    if (n_byte > MAX_DOCUMENT_BYTES) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s is a text of %lld bytes; at most %lld were expected in one document; "
                       "split it, or write it as JSON lines (.jsonl)",
                       path, (long long)n_byte, (long long)MAX_DOCUMENT_BYTES);
    }
    MT_TRY(MT_ALLOCATE(text, n_byte + 1, "a document"));
    const size_t n = fread(text, 1, (size_t)n_byte, file);
    if (ferror(file) != 0) {
        mt_memory_free(text);
        return MT_FAIL(MT_ERR_INPUT, "cannot read %s: %s", path, strerror(errno));
    }
    return add(work, path, 0, text, (int64_t)n);
}

static enum mt_status measure(const char *path, FILE *file, int64_t *n_byte)
{
    struct stat about;
    if (file == NULL || fstat(fileno(file), &about) != 0 || !S_ISREG(about.st_mode)) {
        return MT_FAIL(MT_ERR_INPUT, "cannot read %s: %s; a text file or NAME.jsonl was expected",
                       path, file == NULL ? strerror(errno) : "it is no regular file");
    }
    *n_byte = about.st_size;
    return MT_OK;
}

static bool is_lines(const char *path)
{
    const size_t n = strlen(path);
    return n > 6 && strcmp(path + n - 6, ".jsonl") == 0;
}

/* Sizes of all files first, so that progress has an end. */
static enum mt_status read_file(struct preparation *work, const char *path, bool only_measures)
{
    int64_t n_byte = 0;
    FILE *file = fopen(path, "rb");
    enum mt_status status = measure(path, file, &n_byte);
    if (status == MT_OK && only_measures) {
        work->n_byte_total += n_byte;
    } else if (status == MT_OK) {
        status =
            is_lines(path) ? read_lines(work, path, file) : read_whole(work, path, file, n_byte);
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return status;
}

static enum mt_status read_files(struct preparation *work, const struct mt_file_list *list)
{
    for (int64_t i = 0; i < list->n; ++i) {
        MT_TRY(read_file(work, list->path[i], true));
    }
    for (int64_t i = 0; i < list->n; ++i) {
        MT_TRY(read_file(work, list->path[i], false));
    }
    MT_TRY(flush(work));
    if (work->writer.n_token == 0) {
        return MT_FAIL(MT_ERR_INPUT, "%s%s: no text; at least one token was expected",
                       list->path[0], list->n > 1 ? " and the others" : "");
    }
    return mt_pair_finish(&work->writer);
}

static void release(struct preparation *work)
{
    for (int d = 0; d < MAX_BATCH; ++d) {
        mt_memory_free(work->document[d].text);
        mt_memory_free(work->document[d].ids.item);
    }
    mt_pair_close(&work->writer);
    mt_memory_free(work);
}

enum mt_status mt_prepare(const struct mt_path_list *paths,
                          const struct mt_prepare_options *options, mt_prepare_progress_fn progress,
                          struct mt_prepare_result *result)
{
    struct mt_file_list list;
    struct preparation *work = NULL;
    enum mt_status status = mt_file_list_init(&list, paths, "");
    json_object_seed(0); /* before threads parse: it is made once */
    status = status == MT_OK ? MT_ALLOCATE(work, 1, "documents") : status;
    if (status == MT_OK) {
        work->options = options;
        work->progress = progress;
        status = mt_pair_open(&work->writer, options->prefix,
                              mt_tokenizer_vocab_size(options->tokenizer));
        work->result.type = mt_token_type_name(work->writer.type);
        status = status == MT_OK ? read_files(work, &list) : status;
        *result = work->result;
        release(work);
    }
    mt_file_list_clear(&list);
    return status;
}
