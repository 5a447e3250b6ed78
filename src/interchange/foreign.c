#include "interchange/foreign.h"

#include "base/input_file.h"
#include "base/memory.h"
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum mt_status fail_system(const char *path, const char *what)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "cannot %s %s: %s; a readable file of a model was expected; check the path, its "
                   "permissions and the disk",
                   what, path, strerror(errno));
}

enum mt_status mt_foreign_open(const char *path, int *descriptor, int64_t *n_byte)
{
    struct stat about;
    /* Not blocking: a pipe would wait for somebody to write into it. */
    *descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (*descriptor < 0 || fstat(*descriptor, &about) != 0) {
        return fail_system(path, "open");
    }
    if (!S_ISREG(about.st_mode)) {
        return MT_FAIL(MT_ERR_INPUT, "%s is not a regular file; models are made of such; give one",
                       path);
    }
    *n_byte = about.st_size;
    return MT_OK;
}

enum mt_status mt_foreign_read(int descriptor, const char *path, int64_t offset, void *data,
                               int64_t n_byte)
{
    const int64_t n = mt_input_read_at(descriptor, offset, data, n_byte);
    if (n < 0) {
        return fail_system(path, "read");
    }
    if (n < n_byte) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s ends at byte %lld; %lld were expected; it was cut while it was "
                       "read: get it again",
                       path, (long long)(offset + n), (long long)(offset + n_byte));
    }
    return MT_OK;
}

bool mt_foreign_is_there(const char *folder, const char *name)
{
    char path[MT_PATH_BYTES];
    const int n = snprintf(path, sizeof(path), "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof(path) && access(path, F_OK) == 0;
}

/* Values cost memory, not text: [[],[],[],..] takes fifty times its bytes. */
static enum mt_status check_values(const char *path, const char *what, const char *text,
                                   int64_t n_byte)
{
    enum { FREE = 64 };
    int64_t n = 0;
    MT_ASSERT(text != NULL);
    for (int64_t i = 0; i < n_byte; ++i) {
        n += text[i] == ',' || text[i] == '[' || text[i] == '{';
    }
    if (n > FREE + n_byte / MT_FOREIGN_VALUE_BYTES) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: %s has %lld values in %lld bytes; at most a quarter as many were "
                       "expected of a file about a model; get the file again",
                       path, what, (long long)n, (long long)n_byte);
    }
    return MT_OK;
}

enum mt_status mt_foreign_parse(const char *path, const char *what, const char *text,
                                int64_t n_byte, json_t **object)
{
    json_error_t error;
    *object = NULL;
    MT_TRY(check_values(path, what, text, n_byte));
    *object = json_loadb(text, (size_t)n_byte, JSON_REJECT_DUPLICATES, &error);
    if (*object == NULL) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: %s, line %d, column %d: %.160s; one JSON object was "
                       "expected; get the file again",
                       path, what, error.line, error.column, mt_input_quote(error.text));
    }
    if (!json_is_object(*object)) {
        json_decref(*object);
        *object = NULL;
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: %s is no JSON object; {...} was expected; get the file again", path,
                       what);
    }
    return MT_OK;
}

/* text [n_byte], of a file that is at most MT_FOREIGN_MOST_BYTES. */
static enum mt_status read_text(int descriptor, const char *path, int64_t n_byte, char **text)
{
    if (n_byte > MT_FOREIGN_MOST_BYTES) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has %lld bytes; at most %d were expected of a JSON file about a model; "
                       "check the path",
                       path, (long long)n_byte, (int)MT_FOREIGN_MOST_BYTES);
    }
    MT_TRY(MT_ALLOCATE(*text, n_byte + 1, "JSON text"));
    return mt_foreign_read(descriptor, path, 0, *text, n_byte);
}

enum mt_status mt_foreign_read_json(const char *path, json_t **object)
{
    int descriptor = -1;
    int64_t n_byte = 0;
    char *text = NULL;
    const char *slash = strrchr(path, '/');
    enum mt_status status = mt_foreign_open(path, &descriptor, &n_byte);
    *object = NULL;
    MT_TRY_GOTO(status);
    MT_TRY_GOTO(read_text(descriptor, path, n_byte, &text));
    MT_TRY_GOTO(mt_foreign_parse(path, slash != NULL ? slash + 1 : path, text, n_byte, object));
cleanup:
    if (descriptor >= 0) {
        (void)close(descriptor);
    }
    mt_memory_free(text);
    return status;
}

void mt_foreign_describe(const json_t *value, char *text, size_t n_byte)
{
    const size_t n =
        json_dumpb(value, text, n_byte - 1, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
    const size_t used = n < n_byte ? n : n_byte - 1;
    text[used] = '\0';
    if (n >= n_byte && n_byte > 4) {
        memcpy(text + n_byte - 4, "...", 4);
    }
    if (n == 0) {
        (void)snprintf(text, n_byte, "not given");
    }
}

bool mt_foreign_is_name(const char *name, size_t most)
{
    const size_t n = strlen(name);
    bool is_plain = n >= 1 && n <= most;
    for (size_t i = 0; i < n && is_plain; ++i) {
        const unsigned char byte = (unsigned char)name[i];
        is_plain = byte >= 0x20 && byte != 0x7F;
    }
    return is_plain;
}
