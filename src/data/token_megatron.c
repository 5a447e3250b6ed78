/* Megatron's pair: PREFIX.bin holds ids and nothing else, PREFIX.idx
 *
 *   9 bytes "MMIDIDX\0\0", u64 version 1, u8 type, u64 S, u64 D,
 *   i32 length [S], i64 offset [S] in bytes, i64 document [D] (first sequence of each, and S),
 *   and sometimes i8 mode [S].
 *
 * Opening reads the head and the ends of the arrays, which a truncated or foreign file cannot have
 * right; `moetrain data inspect` reads everything between. */
#include "data/token_internal.h"

#include "base/size.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HEAD_BYTES = 34, LENGTH_BYTES = 4, OFFSET_BYTES = 8, DOCUMENT_BYTES = 8 };
static const char magic[9] = "MMIDIDX\0"; /* and the NUL of the string: nine bytes */

enum { PIECE = 512 }; /* entries of an array that are read at a time */

struct mt_megatron_index {
    char path[MT_PATH_BYTES];
    int descriptor;
    int64_t n_byte;
    enum mt_token_type type;
    int64_t n_sequence, n_document;
};

/* Megatron's numbers of types. */
static enum mt_token_type type_of(unsigned char code)
{
    static const enum mt_token_type type[] = {
        [1] = MT_TOKEN_U8,  [2] = MT_TOKEN_I8,  [3] = MT_TOKEN_I16,
        [4] = MT_TOKEN_I32, [5] = MT_TOKEN_I64, [8] = MT_TOKEN_U16,
    };
    return code < sizeof(type) / sizeof(type[0]) ? type[code] : MT_TOKEN_AUTO;
}

static int64_t offsets_at(const struct mt_megatron_index *index)
{
    return HEAD_BYTES + index->n_sequence * LENGTH_BYTES;
}

static int64_t documents_at(const struct mt_megatron_index *index)
{
    return offsets_at(index) + index->n_sequence * OFFSET_BYTES;
}

static enum mt_status read_index(const struct mt_megatron_index *index, int64_t offset, int64_t n,
                                 void *data)
{
    return mt_token_read_at(index->descriptor, index->path, offset, n, data);
}

static enum mt_status read_magic(const struct mt_megatron_index *index, const unsigned char *head)
{
    uint64_t version = 0;
    memcpy(&version, head + 9, sizeof(version));
    if (memcmp(head, magic, sizeof(magic)) != 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s, offset 0: this is no Megatron index; \"MMIDIDX\" was expected; check "
                       "data.train and data.format",
                       index->path);
    }
    if (version != 1) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s, offset 9: version %llu%s; 1 was expected; write the pair anew",
                       index->path, (unsigned long long)version,
                       version == (uint64_t)1 << 56 ? ", which is 1 with its bytes reversed" : "");
    }
    return MT_OK;
}

static enum mt_status read_head(struct mt_megatron_index *index)
{
    unsigned char head[HEAD_BYTES];
    if (index->n_byte < HEAD_BYTES) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has %lld bytes; an index has at least %d; it is truncated: restore it",
                       index->path, (long long)index->n_byte, HEAD_BYTES);
    }
    MT_TRY(read_index(index, 0, HEAD_BYTES, head));
    MT_TRY(read_magic(index, head));
    index->type = type_of(head[17]);
    if (index->type == MT_TOKEN_AUTO) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s, offset 17: type %d; integers were expected (1, 2, 3, 4, 5 or 8); write "
                       "the pair with an integer type",
                       index->path, head[17]);
    }
    memcpy(&index->n_sequence, head + 18, sizeof(index->n_sequence));
    memcpy(&index->n_document, head + 26, sizeof(index->n_document));
    return MT_OK;
}

/* Numbers of S and D that could not be in a file of this size would make every later product
 * overflow: they are bounded first. */
static enum mt_status check_size(const struct mt_megatron_index *index)
{
    const int64_t most = index->n_byte;
    const bool is_possible = index->n_sequence >= 1 && index->n_sequence < most &&
                             index->n_document >= 1 && index->n_document < most;
    const int64_t expected = !is_possible
                                 ? -1
                                 : HEAD_BYTES + index->n_sequence * (LENGTH_BYTES + OFFSET_BYTES) +
                                       index->n_document * DOCUMENT_BYTES;
    if (index->n_byte != expected && index->n_byte != expected + index->n_sequence) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has %lld bytes, which do not hold the %lld sequences and %lld document "
                       "marks that it names; it is truncated or damaged: restore it",
                       index->path, (long long)index->n_byte, (long long)index->n_sequence,
                       (long long)index->n_document);
    }
    return MT_OK;
}

/* The first sequence begins the ids, the last one ends them, and the documents span all sequences.
 */
static enum mt_status check_ends(const struct mt_megatron_index *index, int64_t bin_bytes)
{
    const int64_t offsets = offsets_at(index);
    const int64_t documents = documents_at(index);
    int32_t length = 0;
    int64_t first = -1;
    int64_t last = -1;
    int64_t first_document = -1;
    int64_t end_document = -1;
    MT_TRY(read_index(index, offsets - LENGTH_BYTES, LENGTH_BYTES, &length));
    MT_TRY(read_index(index, offsets, OFFSET_BYTES, &first));
    MT_TRY(read_index(index, documents - OFFSET_BYTES, OFFSET_BYTES, &last));
    MT_TRY(read_index(index, documents, DOCUMENT_BYTES, &first_document));
    MT_TRY(read_index(index, documents + (index->n_document - 1) * DOCUMENT_BYTES, DOCUMENT_BYTES,
                      &end_document));
    const int64_t last_bytes = (int64_t)length * mt_token_type_bytes(index->type);
    if (first != 0 || length < 0 || last < 0 || last != bin_bytes - last_bytes) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: its first sequence begins at byte %lld and its last, of %d tokens, at "
                       "%lld; the .bin beside it has %lld bytes, so 0 and %lld were expected; the "
                       "two do not belong together, or one is truncated: restore both",
                       index->path, (long long)first, length, (long long)last, (long long)bin_bytes,
                       (long long)(bin_bytes - last_bytes));
    }
    if (first_document != 0 || end_document != index->n_sequence) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: its documents span the sequences %lld to %lld; 0 to %lld were "
                       "expected; restore the file",
                       index->path, (long long)first_document, (long long)end_document,
                       (long long)index->n_sequence);
    }
    return MT_OK;
}

/* Lengths and offsets of all sequences: each begins where the one before it ends. */
static enum mt_status check_sequences(const struct mt_megatron_index *index)
{
    int32_t length[PIECE];
    int64_t offset[PIECE];
    int64_t expected = 0;
    for (int64_t first = 0; first < index->n_sequence; first += PIECE) {
        const int64_t n = mt_min_i64(PIECE, index->n_sequence - first);
        MT_TRY(read_index(index, HEAD_BYTES + first * LENGTH_BYTES, n * LENGTH_BYTES, length));
        MT_TRY(
            read_index(index, offsets_at(index) + first * OFFSET_BYTES, n * OFFSET_BYTES, offset));
        for (int64_t i = 0; i < n; ++i) {
            if (length[i] < 0 || offset[i] != expected) {
                return MT_FAIL(MT_ERR_INPUT,
                               "%s: sequence %lld has %d tokens and begins at byte %lld; %lld was "
                               "expected; restore the file",
                               index->path, (long long)(first + i), length[i], (long long)offset[i],
                               (long long)expected);
            }
            expected += (int64_t)length[i] * mt_token_type_bytes(index->type);
        }
    }
    return MT_OK;
}

/* Byte at which a sequence begins. The end of the last one is known from opening. */
static enum mt_status sequence_start(const struct mt_megatron_index *index, int64_t sequence,
                                     int64_t n_byte, int64_t *start)
{
    *start = n_byte;
    return sequence == index->n_sequence
               ? MT_OK
               : read_index(index, offsets_at(index) + sequence * OFFSET_BYTES, OFFSET_BYTES,
                            start);
}

/* Document marks rise from 0 to S; *longest: bytes of the longest document. */
static enum mt_status check_documents(const struct mt_megatron_index *index, int64_t n_byte,
                                      int64_t *longest)
{
    int64_t before = 0;
    int64_t start = 0;
    for (int64_t d = 0; d < index->n_document; ++d) {
        int64_t mark = 0;
        int64_t end = 0;
        MT_TRY(read_index(index, documents_at(index) + d * DOCUMENT_BYTES, DOCUMENT_BYTES, &mark));
        if (mark < before || mark > index->n_sequence) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: document mark %lld is %lld, after %lld; rising numbers up to %lld "
                           "were expected; restore the file",
                           index->path, (long long)d, (long long)mark, (long long)before,
                           (long long)index->n_sequence);
        }
        MT_TRY(sequence_start(index, mark, n_byte, &end));
        *longest = mt_max_i64(*longest, end - start);
        start = end;
        before = mark;
    }
    return MT_OK;
}

static enum mt_status check_index(struct mt_megatron_index *index, int64_t bin_bytes,
                                  struct mt_token_file *file)
{
    MT_TRY(read_head(index));
    MT_TRY(check_size(index));
    MT_TRY(check_ends(index, bin_bytes));
    file->layout = "Megatron";
    file->n_sequence = index->n_sequence;
    file->n_document = index->n_document - 1;
    return mt_token_layout_bare(bin_bytes, index->type, file);
}

/* PREFIX.idx beside PREFIX.bin, open and measured. */
static enum mt_status open_index(const char *path, struct mt_megatron_index *index)
{
    const size_t n = strlen(path);
    index->descriptor = -1;
    if (n < 4 || n >= sizeof(index->path) || strcmp(path + n - 4, ".bin") != 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s does not end in .bin; a Megatron pair PREFIX.bin and PREFIX.idx was "
                       "expected; name PREFIX or PREFIX.bin in [data]",
                       path);
    }
    (void)snprintf(index->path, sizeof(index->path), "%.*s.idx", (int)(n - 4), path);
    return mt_token_open_plain(index->path, &index->descriptor, &index->n_byte);
}

enum mt_status mt_token_layout_megatron(int64_t n_byte, struct mt_token_file *file)
{
    struct mt_megatron_index index = {.descriptor = -1};
    MT_TRY(open_index(file->path, &index));
    const enum mt_status status = check_index(&index, n_byte, file);
    (void)close(index.descriptor);
    return status;
}

enum mt_status mt_token_megatron_check(const struct mt_token_file *file, int64_t *longest)
{
    struct mt_megatron_index index = {.descriptor = -1};
    const int bytes = mt_token_type_bytes(file->type);
    int64_t longest_bytes = 0;
    MT_TRY(open_index(file->path, &index));
    enum mt_status status = read_head(&index);
    status = status == MT_OK ? check_size(&index) : status;
    status = status == MT_OK ? check_sequences(&index) : status;
    status =
        status == MT_OK ? check_documents(&index, file->n_token * bytes, &longest_bytes) : status;
    (void)close(index.descriptor);
    *longest = longest_bytes / bytes;
    return status;
}

/* Token at which document d begins; behind the last one the file's end. */
static enum mt_status document_start(const struct mt_megatron_index *index, int64_t document,
                                     int64_t n_byte, int64_t *token)
{
    int64_t mark = 0;
    int64_t byte = 0;
    MT_TRY(
        read_index(index, documents_at(index) + document * DOCUMENT_BYTES, DOCUMENT_BYTES, &mark));
    const bool is_mark = mark >= 0 && mark <= index->n_sequence;
    if (is_mark) {
        MT_TRY(sequence_start(index, mark, n_byte, &byte));
    }
    if (!is_mark || byte < 0 || byte > n_byte) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: document mark %lld is sequence %lld, at byte %lld; 0 to %lld, in %lld "
                       "bytes, were expected; restore the file",
                       index->path, (long long)document, (long long)mark, (long long)byte,
                       (long long)index->n_sequence, (long long)n_byte);
    }
    *token = byte / mt_token_type_bytes(index->type);
    return MT_OK;
}

/* *document: the first that begins behind token `first`, or the end mark. */
static enum mt_status find_document(const struct mt_megatron_index *index, int64_t first,
                                    int64_t n_byte, int64_t *document)
{
    int64_t low = 0; /* begins at `first` or before */
    int64_t high = index->n_document - 1;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        int64_t token = 0;
        MT_TRY(document_start(index, middle, n_byte, &token));
        if (token <= first) {
            low = middle;
        } else {
            high = middle;
        }
    }
    *document = high;
    return MT_OK;
}

static enum mt_status list_documents(struct mt_megatron_index *index, int64_t n_byte, int64_t first,
                                     int64_t n, int64_t *start, int64_t *n_start)
{
    int64_t document = 0;
    int64_t before = first;
    *n_start = 0;
    MT_TRY(read_head(index));
    MT_TRY(check_size(index));
    MT_TRY(find_document(index, first, n_byte, &document));
    for (; document < index->n_document; ++document) {
        int64_t token = 0;
        MT_TRY(document_start(index, document, n_byte, &token));
        if (token >= first + n) {
            break;
        }
        if (token > before) { /* empty documents begin where the next one does */
            start[(*n_start)++] = before = token;
        }
    }
    return MT_OK;
}

enum mt_status mt_token_megatron_documents(const struct mt_token_file *file, int64_t first,
                                           int64_t n, int64_t *start, int64_t *n_start)
{
    struct mt_megatron_index index = {.descriptor = -1};
    const int64_t n_byte = file->n_token * mt_token_type_bytes(file->type);
    MT_TRY(open_index(file->path, &index));
    const enum mt_status status = list_documents(&index, n_byte, first, n, start, n_start);
    (void)close(index.descriptor);
    return status;
}
