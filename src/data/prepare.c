#include "data/prepare.h"

#include "base/input_file.h"
#include "base/memory.h"
#include "base/size.h"
#include "data/file_list.h"
#include "data/pair_writer.h"
#include "data/token_file.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

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
                       "expected; correct or remove the line",
                       mt_input_quote(error.text), error.column, key);
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

static enum mt_status fail_large(const char *path, int64_t line)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "%s, line %lld: a document of more than %lld bytes; at most that many were "
                   "expected; split it",
                   path, (long long)line, (long long)MAX_DOCUMENT_BYTES);
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
        return fail_large(path, line);
    }
    return work->n_document == MAX_BATCH || work->batch_bytes >= BATCH_BYTES ? flush(work) : MT_OK;
}

/* Bytes [at, n) of a file are there and not yet taken. */
struct line_reader {
    int descriptor;
    bool is_at_end;
    int64_t number; /* of the last line, from 1 */
    char *room;
    int64_t at, n, capacity;
};

static enum mt_status read_more(struct line_reader *reader, const char *path)
{
    enum { PIECE_BYTES = 1 << 20 };
    if (reader->n - reader->at > MAX_DOCUMENT_BYTES) {
        return fail_large(path, reader->number + 1);
    }
    if (reader->at > 0) {
        memmove(reader->room, reader->room + reader->at, (size_t)(reader->n - reader->at));
    }
    reader->n -= reader->at;
    reader->at = 0;
    MT_TRY(MT_MAKE_ROOM(reader->room, reader->n, &reader->capacity, PIECE_BYTES, "a line"));
    const ssize_t got = read(reader->descriptor, reader->room + reader->n, PIECE_BYTES);
    if (got < 0 && errno != EINTR) {
        return MT_FAIL(MT_ERR_INPUT, "cannot read %s, line %lld: %s; check the file and its disk",
                       path, (long long)reader->number + 1, strerror(errno));
    }
    reader->n += mt_max_i64(got, 0);
    reader->is_at_end = got == 0;
    return MT_OK;
}

/* The next line, without its end; *line = NULL behind the last. */
static enum mt_status next_line(struct line_reader *reader, const char *path, const char **line,
                                int64_t *n_byte)
{
    const char *end = NULL;
    int64_t seen = 0;
    do {
        const int64_t n = reader->n - reader->at - seen;
        end = n > 0 ? memchr(reader->room + reader->at + seen, '\n', (size_t)n) : NULL;
        seen += n;
        if (end == NULL && !reader->is_at_end) {
            MT_TRY(read_more(reader, path));
        }
    } while (end == NULL && (!reader->is_at_end || seen < reader->n - reader->at));
    *line = end == NULL && seen == 0 ? NULL : reader->room + reader->at;
    *n_byte = end == NULL ? seen : end - *line;
    reader->at += *n_byte + (end != NULL);
    ++reader->number;
    return MT_OK;
}

/* One line a document, copied out of the reader's room, which is kept from line to line. */
static enum mt_status read_lines(struct preparation *work, const char *path, int descriptor)
{
    struct line_reader reader = {.descriptor = descriptor};
    const char *line = NULL;
    int64_t n_byte = 0;
    enum mt_status status = next_line(&reader, path, &line, &n_byte);
    while (status == MT_OK && line != NULL) {
        char *text = NULL;
        status = MT_ALLOCATE(text, n_byte + 1, "a document");
        if (status == MT_OK) {
            memcpy(text, line, (size_t)n_byte);
            status = add(work, path, reader.number, text, n_byte);
        }
        status = status == MT_OK ? next_line(&reader, path, &line, &n_byte) : status;
    }
    mt_memory_free(reader.room);
    return status;
}

static bool is_lines(const char *path)
{
    const size_t n = strlen(path);
    return n > 6 && strcmp(path + n - 6, ".jsonl") == 0;
}

static const char wanted[] =
    "a text, or one larger than that as JSON lines (NAME.jsonl), was expected; check the path";

/* Sizes of all files first, so that progress has an end. */
static enum mt_status measure(struct preparation *work, const char *path)
{
    int descriptor = -1;
    int64_t n_byte = 0;
    MT_TRY(mt_input_open(path, wanted, &descriptor, &n_byte));
    (void)close(descriptor);
    work->n_byte_total += n_byte;
    return MT_OK;
}

static enum mt_status read_file(struct preparation *work, const char *path)
{
    int descriptor = -1;
    int64_t n_byte = 0;
    char *text = NULL;
    if (!is_lines(path)) {
        MT_TRY(mt_input_read(path, wanted, MAX_DOCUMENT_BYTES, &text, &n_byte));
        return add(work, path, 0, text, n_byte);
    }
    MT_TRY(mt_input_open(path, wanted, &descriptor, &n_byte));
    const enum mt_status status = read_lines(work, path, descriptor);
    (void)close(descriptor);
    return status;
}

static enum mt_status read_files(struct preparation *work, const struct mt_file_list *list)
{
    for (int64_t i = 0; i < list->n; ++i) {
        MT_TRY(measure(work, list->path[i]));
    }
    for (int64_t i = 0; i < list->n; ++i) {
        MT_TRY(read_file(work, list->path[i]));
    }
    MT_TRY(flush(work));
    if (work->writer.n_token == 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s%s: no text; at least one token was expected; nothing was "
                       "written",
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
