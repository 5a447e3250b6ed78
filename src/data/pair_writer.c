#include "data/pair_writer.h"

#include "base/memory.h"
#include "base/size.h"
#include "data/token_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { BIN, IDX, LARGEST_U16_VOCABULARY = 65500, PIECE = 4096 };

static enum mt_status fail_write(const char *path)
{
    return MT_FAIL(MT_ERR_RESOURCE,
                   "cannot write %s: %s; space for the tokens was expected; free some, or choose "
                   "another place with -o",
                   path, strerror(errno));
}

static enum mt_status set_paths(struct mt_pair_writer *writer, const char *prefix)
{
    static const char *const suffix[] = {".bin", ".idx"};
    for (int f = BIN; f <= IDX; ++f) {
        const int n = snprintf(writer->path[f], sizeof(writer->path[f]), "%s%s", prefix, suffix[f]);
        if (n < 0 || (size_t)n >= sizeof(writer->path[f])) {
            return MT_FAIL(MT_ERR_CONFIG,
                           "-o %.60s... is too long a path; at most %d bytes are "
                           "expected",
                           prefix, (int)MT_PATH_BYTES - 5);
        }
        (void)snprintf(writer->unfinished[f], sizeof(writer->unfinished[f]), "%s.unfinished",
                       writer->path[f]);
        if (access(writer->path[f], F_OK) == 0) {
            return MT_FAIL(MT_ERR_CONFIG,
                           "%s exists; it is not written over: remove it, or choose another "
                           "prefix with -o",
                           writer->path[f]);
        }
    }
    return MT_OK;
}

enum mt_status mt_pair_open(struct mt_pair_writer *writer, const char *prefix, int64_t vocab_size)
{
    memset(writer, 0, sizeof(*writer));
    writer->type = vocab_size < LARGEST_U16_VOCABULARY ? MT_TOKEN_U16 : MT_TOKEN_I32;
    MT_TRY(set_paths(writer, prefix));
    writer->bin = fopen(writer->unfinished[BIN], "wbx");
    writer->is_mine = writer->bin != NULL;
    if (writer->bin == NULL && errno == EEXIST) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s exists: another process writes this pair, or one was killed; wait for "
                       "it, or remove the file",
                       writer->unfinished[BIN]);
    }
    return writer->is_mine ? MT_OK : fail_write(writer->unfinished[BIN]);
}

static enum mt_status keep_length(struct mt_pair_writer *writer, int64_t n)
{
    MT_TRY(MT_MAKE_ROOM(writer->length, writer->n_document, &writer->capacity, 1,
                        "lengths of documents"));
    writer->length[writer->n_document++] = (int32_t)n;
    writer->n_token += n;
    return MT_OK;
}

enum mt_status mt_pair_add(struct mt_pair_writer *writer, const int32_t *id, int64_t n)
{
    MT_ASSERT(n <= INT32_MAX);
    MT_TRY(keep_length(writer, n));
    for (int64_t start = 0; start < n; start += PIECE) {
        uint16_t narrow[PIECE];
        const size_t n_here = (size_t)mt_min_i64(PIECE, n - start);
        const void *data = id + start;
        if (writer->type == MT_TOKEN_U16) {
            for (size_t i = 0; i < n_here; ++i) {
                narrow[i] = (uint16_t)id[start + (int64_t)i];
            }
            data = narrow;
        }
        const size_t bytes = (size_t)mt_token_type_bytes(writer->type);
        if (fwrite(data, bytes, n_here, writer->bin) != n_here) {
            return fail_write(writer->unfinished[BIN]);
        }
    }
    return MT_OK;
}

static bool put(FILE *file, const void *data, size_t n_byte)
{
    return fwrite(data, 1, n_byte, file) == n_byte;
}

/* Each document is one sequence. */
static bool put_index(FILE *file, const struct mt_pair_writer *writer)
{
    const uint64_t version = 1;
    const unsigned char type = writer->type == MT_TOKEN_U16 ? 8 : 4;
    const int64_t n_mark = writer->n_document + 1;
    bool good = put(file, "MMIDIDX\0", 9) && put(file, &version, 8) && put(file, &type, 1) &&
                put(file, &writer->n_document, 8) && put(file, &n_mark, 8) &&
                put(file, writer->length, (size_t)writer->n_document * sizeof(*writer->length));
    int64_t offset = 0;
    for (int64_t d = 0; d < writer->n_document && good; ++d) {
        good = put(file, &offset, 8);
        offset += (int64_t)writer->length[d] * mt_token_type_bytes(writer->type);
    }
    for (int64_t d = 0; d < n_mark && good; ++d) {
        good = put(file, &d, 8);
    }
    return good;
}

/* Whole on the disk, and closed. */
static bool finish_file(FILE *file)
{
    const bool good = fflush(file) == 0 && fsync(fileno(file)) == 0;
    const int code = errno;
    const bool closed = fclose(file) == 0;
    errno = good ? errno : code;
    return good && closed;
}

enum mt_status mt_pair_finish(struct mt_pair_writer *writer)
{
    FILE *bin = writer->bin;
    writer->bin = NULL;
    if (!finish_file(bin)) {
        return fail_write(writer->unfinished[BIN]);
    }
    FILE *idx = fopen(writer->unfinished[IDX], "wb");
    if (idx == NULL) {
        return fail_write(writer->unfinished[IDX]);
    }
    const bool good = put_index(idx, writer);
    if (!finish_file(idx) || !good) {
        return fail_write(writer->unfinished[IDX]);
    }
    for (int f = BIN; f <= IDX; ++f) { /* the index last: without it there is no pair */
        if (rename(writer->unfinished[f], writer->path[f]) != 0) {
            return fail_write(writer->path[f]);
        }
    }
    return MT_OK;
}

void mt_pair_close(struct mt_pair_writer *writer)
{
    if (writer->bin != NULL) {
        (void)fclose(writer->bin);
    }
    for (int f = BIN; f <= IDX && writer->is_mine; ++f) {
        (void)unlink(writer->unfinished[f]);
    }
    mt_memory_free(writer->length);
    memset(writer, 0, sizeof(*writer));
}
