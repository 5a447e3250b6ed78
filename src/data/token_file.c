/* Files are read with pread, not mapped: one window is a few KiB, so the copy costs nothing beside
 * a step, and a file that shrinks meanwhile is a short read with a message instead of a SIGBUS. */
#include "data/token_internal.h"

#include "base/input_file.h"
#include "base/size.h"

#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "token files are little-endian");

enum {
    READ_BYTES = 4096, /* one piece of a window, on the stack */
    N_SAMPLE = 16      /* pieces of a fingerprint */
};

static const char wanted[] = "a data file was expected; check the path and the file's permissions";

static const struct {
    const char *name;
    int bytes;
    int64_t largest;
} types[] = {
    [MT_TOKEN_AUTO] = {"auto", 0, 0},       [MT_TOKEN_U8] = {"u8", 1, UINT8_MAX},
    [MT_TOKEN_I8] = {"i8", 1, INT8_MAX},    [MT_TOKEN_U16] = {"u16", 2, UINT16_MAX},
    [MT_TOKEN_I16] = {"i16", 2, INT16_MAX}, [MT_TOKEN_U32] = {"u32", 4, UINT32_MAX},
    [MT_TOKEN_I32] = {"i32", 4, INT32_MAX}, [MT_TOKEN_U64] = {"u64", 8, INT64_MAX},
    [MT_TOKEN_I64] = {"i64", 8, INT64_MAX},
};

int mt_token_type_bytes(enum mt_token_type type)
{
    return types[type].bytes;
}

const char *mt_token_type_name(enum mt_token_type type)
{
    return types[type].name;
}

static bool is_signed(enum mt_token_type type)
{
    return type == MT_TOKEN_I8 || type == MT_TOKEN_I16 || type == MT_TOKEN_I32 ||
           type == MT_TOKEN_I64;
}

bool mt_token_type_fits(enum mt_token_type type, int64_t vocab_size)
{
    return !is_signed(type) && types[type].largest < vocab_size;
}

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

enum mt_status mt_token_read_at(int descriptor, const char *path, int64_t offset, int64_t n,
                                void *data)
{
    const int64_t got = mt_input_read_at(descriptor, offset, data, n);
    return got == n ? MT_OK : fail_read(path, offset + mt_max_i64(got, 0), got);
}

enum mt_status mt_token_open_plain(const char *path, int *descriptor, int64_t *n_byte)
{
    MT_TRY(mt_input_open(path, wanted, descriptor, n_byte));
    if (*n_byte > 0) {
        return MT_OK;
    }
    (void)close(*descriptor);
    *descriptor = -1;
    return MT_FAIL(MT_ERR_INPUT,
                   "%s is empty; a file with data was expected; fill it or take it out of the list",
                   path);
}

enum mt_status mt_token_layout_bare(int64_t n_byte, enum mt_token_type declared,
                                    struct mt_token_file *file)
{
    const int bytes = mt_token_type_bytes(declared);
    if (n_byte % bytes != 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has %lld bytes, which is no multiple of the %d bytes of a %s token; it "
                       "is truncated or of another type: restore it, or change data.token_type",
                       file->path, (long long)n_byte, bytes, mt_token_type_name(declared));
    }
    file->type = declared;
    file->first_byte = 0;
    file->n_token = n_byte / bytes;
    return MT_OK;
}

static enum mt_status find_layout(enum mt_data_format format, enum mt_token_type declared,
                                  int64_t n_byte, struct mt_token_file *file)
{
    switch (format) {
    case MT_DATA_BYTES:
        file->layout = "text";
        return mt_token_layout_bare(n_byte, MT_TOKEN_U8, file);
    case MT_DATA_TOKENS:
        return mt_token_layout_header(n_byte, declared, file);
    case MT_DATA_MEGATRON:
        return mt_token_layout_megatron(n_byte, file);
    case MT_DATA_RANDOM:
        break;
    }
    MT_ASSERT(format != MT_DATA_RANDOM);
    return MT_ERR_INTERNAL;
}

enum mt_status mt_token_file_open(const char *path, enum mt_data_format format,
                                  enum mt_token_type declared, struct mt_token_file *file)
{
    int64_t n_byte = 0;
    *file = (struct mt_token_file){.path = path, .descriptor = -1};
    MT_TRY(mt_token_open_plain(path, &file->descriptor, &n_byte));
    const enum mt_status status = find_layout(format, declared, n_byte, file);
    if (status != MT_OK) {
        mt_token_file_close(file);
    }
    return status;
}

void mt_token_file_close(struct mt_token_file *file)
{
    if (file->descriptor >= 0) {
        (void)close(file->descriptor);
        file->descriptor = -1;
    }
}

/* The descriptor that stays open, or one for this read. */
static enum mt_status begin_read(const struct mt_token_file *file, int *descriptor)
{
    int64_t n_byte = 0;
    *descriptor = file->descriptor;
    return *descriptor >= 0 ? MT_OK : mt_input_open(file->path, wanted, descriptor, &n_byte);
}

static void end_read(const struct mt_token_file *file, int descriptor)
{
    if (descriptor != file->descriptor) {
        (void)close(descriptor);
    }
}

/* Token `index` of data; u64 values beyond INT64_MAX become negative: no ids either. */
static int64_t token_at(enum mt_token_type type, const unsigned char *data, int64_t index)
{
    const int bytes = types[type].bytes;
    uint64_t value = 0;
    memcpy(&value, data + index * bytes, (size_t)bytes);
    const int unused = 64 - 8 * bytes;
    return is_signed(type) ? (int64_t)(value << unused) >> unused : (int64_t)value;
}

static enum mt_status refuse_id(const struct mt_token_file *file, int64_t vocab_size, int64_t index,
                                int64_t value)
{
    const bool is_text = file->type == MT_TOKEN_U8 && file->first_byte == 0;
    return MT_FAIL(MT_ERR_INPUT,
                   "%s, offset %lld: %s %lld is no token id; ids below vocab_size = %lld were "
                   "expected; raise model.vocab_size%s or change the file",
                   file->path,
                   (long long)(file->first_byte + index * mt_token_type_bytes(file->type)),
                   is_text ? "byte value" : "value", (long long)value, (long long)vocab_size,
                   is_text ? " (256 fits every file)" : "");
}

static enum mt_status read_ids(const struct mt_token_file *file, int descriptor, int64_t vocab_size,
                               int64_t first, int64_t n, int32_t *id)
{
    unsigned char data[READ_BYTES];
    const int bytes = mt_token_type_bytes(file->type);
    const int64_t n_piece = READ_BYTES / bytes;
    for (int64_t start = 0; start < n; start += n_piece) {
        const int64_t n_here = mt_min_i64(n_piece, n - start);
        MT_TRY(mt_token_read_at(descriptor, file->path, file->first_byte + (first + start) * bytes,
                                n_here * bytes, data));
        for (int64_t i = 0; i < n_here; ++i) {
            const int64_t value = token_at(file->type, data, i);
            if (value < 0 || value >= vocab_size) {
                return refuse_id(file, vocab_size, first + start + i, value);
            }
            id[start + i] = (int32_t)value;
        }
    }
    return MT_OK;
}

enum mt_status mt_token_file_read(const struct mt_token_file *file, int64_t vocab_size,
                                  int64_t first, int64_t n, int32_t *id)
{
    int descriptor = -1;
    MT_ASSERT(first >= 0 && n >= 0 && first + n <= file->n_token);
    MT_TRY(begin_read(file, &descriptor));
    const enum mt_status status = read_ids(file, descriptor, vocab_size, first, n, id);
    end_read(file, descriptor);
    return status;
}

static enum mt_status find_range(const struct mt_token_file *file, int descriptor,
                                 struct mt_token_summary *summary)
{
    unsigned char data[READ_BYTES];
    const int bytes = mt_token_type_bytes(file->type);
    const int64_t n_piece = READ_BYTES / bytes;
    for (int64_t first = 0; first < file->n_token; first += n_piece) {
        const int64_t n = mt_min_i64(n_piece, file->n_token - first);
        MT_TRY(mt_token_read_at(descriptor, file->path, file->first_byte + first * bytes, n * bytes,
                                data));
        for (int64_t i = 0; i < n; ++i) {
            const int64_t value = token_at(file->type, data, i);
            if (value < 0) {
                return refuse_id(file, INT32_MAX, first + i, value);
            }
            summary->smallest = mt_min_i64(summary->smallest, value);
            summary->largest = mt_max_i64(summary->largest, value);
        }
    }
    return MT_OK;
}

enum mt_status mt_token_file_summarize(const struct mt_token_file *file,
                                       struct mt_token_summary *summary)
{
    int descriptor = -1;
    *summary = (struct mt_token_summary){.smallest = INT64_MAX, .largest = -1};
    if (file->n_sequence > 0) {
        MT_TRY(mt_token_megatron_check(file, &summary->longest));
    }
    MT_TRY(begin_read(file, &descriptor));
    const enum mt_status status = find_range(file, descriptor, summary);
    end_read(file, descriptor);
    return status;
}

static enum mt_status hash_samples(const struct mt_token_file *file, int descriptor,
                                   XXH3_state_t *hash)
{
    unsigned char data[READ_BYTES];
    const int64_t end = file->first_byte + file->n_token * mt_token_type_bytes(file->type);
    const int64_t last = mt_max_i64(end - READ_BYTES, 0);
    const int64_t n = mt_min_i64(end, READ_BYTES);
    for (int64_t i = 0; i < N_SAMPLE; ++i) {
        const int64_t offset = last / (N_SAMPLE - 1) * i;
        MT_TRY(mt_token_read_at(descriptor, file->path, i + 1 < N_SAMPLE ? offset : last, n, data));
        (void)XXH3_64bits_update(hash, data, (size_t)n);
    }
    return MT_OK;
}

enum mt_status mt_token_file_documents(const struct mt_token_file *file, int64_t first, int64_t n,
                                       int64_t *start, int64_t *n_start)
{
    if (file->n_document == 0) {
        return MT_FAIL(
            MT_ERR_INPUT,
            "%s has no index of documents; a Megatron pair was expected, or a token that "
            "ends them; set data.document_end",
            file->path);
    }
    return mt_token_megatron_documents(file, first, n, start, n_start);
}

enum mt_status mt_token_file_fingerprint(const struct mt_token_file *file, uint64_t *fingerprint)
{
    XXH3_state_t hash;
    int descriptor = -1;
    const int64_t shape[] = {file->n_token, file->type, file->first_byte};
    MT_TRY(begin_read(file, &descriptor));
    (void)XXH3_64bits_reset(&hash);
    (void)XXH3_64bits_update(&hash, shape, sizeof(shape));
    const enum mt_status status = hash_samples(file, descriptor, &hash);
    end_read(file, descriptor);
    *fingerprint = XXH3_64bits_digest(&hash);
    return status;
}
