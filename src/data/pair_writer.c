#include "data/pair_writer.h"

#include "base/memory.h"
#include "base/size.h"
#include "data/token_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BIN, IDX, LARGEST_U16_VOCABULARY = 65500, PIECE = 4096 };

/* Code 4 where the disk is to blame, 2 where the name is. */
static enum mt_status fail_write(const char *path)
{
    const bool is_disk = errno == ENOSPC || errno == EDQUOT || errno == EFBIG || errno == EIO;
    return MT_FAIL(is_disk ? MT_ERR_RESOURCE : MT_ERR_CONFIG, "cannot write %s: %s; %s", path,
                   strerror(errno),
                   is_disk ? "space for the tokens was expected; free some, or choose another "
                             "place with -o"
                           : "a folder that can be written was expected; choose another with -o");
}

static enum mt_status set_paths(struct mt_pair_writer *writer, const char *prefix)
{
    static const char *const suffix[] = {".bin", ".idx"};
    const char *name = strrchr(prefix, '/');
    name = name != NULL ? name + 1 : prefix;
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "-o \"%s\" ends in no name; a prefix was expected; e.g. -o data/train gives "
                       "data/train.bin and data/train.idx",
                       prefix);
    }
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
    }
    return MT_OK;
}

/* The lock is the writer's until it closes: what a killed one has left behind is written over. */
static enum mt_status claim(struct mt_pair_writer *writer)
{
    struct stat opened;
    struct stat there;
    const char *path = writer->unfinished[BIN];
    const int descriptor = open(path, O_RDWR | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0666);
    if (descriptor < 0) {
        return fail_write(path);
    }
    const bool is_mine = flock(descriptor, LOCK_EX | LOCK_NB) == 0 &&
                         fstat(descriptor, &opened) == 0 && stat(path, &there) == 0 &&
                         opened.st_ino == there.st_ino && opened.st_dev == there.st_dev;
    if (!is_mine) { /* the name may by now be that of another writer, or of none */
        (void)close(descriptor);
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s is locked: another process writes this pair; wait for it, or choose "
                       "another prefix with -o",
                       path);
    }
    writer->bin = ftruncate(descriptor, 0) == 0 ? fdopen(descriptor, "wb") : NULL;
    writer->is_mine = writer->bin != NULL;
    if (!writer->is_mine) {
        (void)close(descriptor);
        return fail_write(path);
    }
    return MT_OK;
}

/* Under the lock: no other writer can finish between this look and the end. */
static enum mt_status check_free(const struct mt_pair_writer *writer)
{
    for (int f = BIN; f <= IDX; ++f) {
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
    MT_TRY(claim(writer));
    return check_free(writer);
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

static bool is_synced(FILE *file)
{
    return fflush(file) == 0 && fsync(fileno(file)) == 0;
}

static enum mt_status write_index(const struct mt_pair_writer *writer)
{
    FILE *file = fopen(writer->unfinished[IDX], "wb");
    if (file == NULL) {
        return fail_write(writer->unfinished[IDX]);
    }
    const bool good = put_index(file, writer) && is_synced(file);
    const enum mt_status status = good ? MT_OK : fail_write(writer->unfinished[IDX]);
    (void)fclose(file);
    return status;
}

enum mt_status mt_pair_finish(struct mt_pair_writer *writer)
{
    if (!is_synced(writer->bin)) {
        return fail_write(writer->unfinished[BIN]);
    }
    MT_TRY(write_index(writer));
    for (int f = BIN; f <= IDX; ++f) { /* the index last: without it there is no pair */
        if (rename(writer->unfinished[f], writer->path[f]) != 0) {
            return fail_write(writer->path[f]);
        }
    }
    return MT_OK;
}

void mt_pair_close(struct mt_pair_writer *writer)
{
    for (int f = BIN; f <= IDX && writer->is_mine; ++f) { /* still locked */
        (void)unlink(writer->unfinished[f]);
    }
    if (writer->bin != NULL) {
        (void)fclose(writer->bin);
    }
    mt_memory_free(writer->length);
    memset(writer, 0, sizeof(*writer));
}
