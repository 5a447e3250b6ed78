/* Files of ids that begin with 256 32-bit words: a magic number, a version, the number of tokens.
 * llm.c writes them for GPT-2 (u16) and Llama 3 (u32), modded-nanogpt with the bytes of a token in
 * word 3. */
#include "data/token_internal.h"

#include "base/size.h"

enum { N_WORD = 256, HEADER_BYTES = 4 * N_WORD };

static const struct header {
    const char *layout;
    uint32_t magic, version;
    enum mt_token_type type; /* MT_TOKEN_AUTO: word 3 has its bytes */
} headers[] = {
    {"llm.c (GPT-2)", 20240520, 1, MT_TOKEN_U16},
    {"llm.c (Llama 3)", 20240801, 7, MT_TOKEN_U32},
    {"modded-nanogpt", 278895051, 1, MT_TOKEN_AUTO},
};
enum { N_HEADER = sizeof(headers) / sizeof(headers[0]) };

/* The header whose magic number this is, NULL: none. */
static const struct header *find_header(uint32_t magic)
{
    for (int i = 0; i < N_HEADER; ++i) {
        if (headers[i].magic == magic) {
            return &headers[i];
        }
    }
    return NULL;
}

static enum mt_status read_type(const struct header *header, const uint32_t *word,
                                struct mt_token_file *file)
{
    file->type = header->type;
    if (header->type != MT_TOKEN_AUTO) {
        return MT_OK;
    }
    if (word[3] != 2 && word[3] != 4) {
        return MT_FAIL(
            MT_ERR_INPUT,
            "%s, offset 12: a token of %u bytes; 2 or 4 were expected in a header of %s; "
            "restore the file",
            file->path, word[3], header->layout);
    }
    file->type = word[3] == 2 ? MT_TOKEN_U16 : MT_TOKEN_U32;
    return MT_OK;
}

static enum mt_status read_header(const struct header *header, const uint32_t *word, int64_t n_byte,
                                  struct mt_token_file *file)
{
    if (word[1] != header->version) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s, offset 4: version %u; %u was expected in a header of %s; this version "
                       "of moetrain does not know it: write the file anew",
                       file->path, word[1], header->version, header->layout);
    }
    MT_TRY(read_type(header, word, file));
    file->layout = header->layout;
    file->first_byte = HEADER_BYTES;
    file->n_token = word[2];
    const int64_t expected = HEADER_BYTES + file->n_token * mt_token_type_bytes(file->type);
    if (n_byte != expected) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has %lld bytes; its header (%s, %lld tokens of %s) makes %lld; it is "
                       "%s: restore it",
                       file->path, (long long)n_byte, header->layout, (long long)file->n_token,
                       mt_token_type_name(file->type), (long long)expected,
                       n_byte < expected ? "truncated" : "followed by something else");
    }
    return MT_OK;
}

static enum mt_status refuse_unknown(const struct mt_token_file *file, uint32_t magic)
{
    if (find_header(__builtin_bswap32(magic)) != NULL) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s, offset 0: the header of %s with its bytes reversed; little-endian "
                       "integers were expected; write the file on a little-endian machine",
                       file->path, find_header(__builtin_bswap32(magic))->layout);
    }
    return MT_FAIL(MT_ERR_INPUT,
                   "%s, offset 0: 0x%08x begins no header; the magic number of llm.c or "
                   "modded-nanogpt was expected; for integers without a header set "
                   "data.token_type, e.g. \"u16\"",
                   file->path, magic);
}

enum mt_status mt_token_layout_header(int64_t n_byte, enum mt_token_type declared,
                                      struct mt_token_file *file)
{
    uint32_t word[N_WORD] = {0};
    const int64_t n_here = mt_min_i64(n_byte, HEADER_BYTES);
    MT_TRY(mt_token_read_at(file->descriptor, file->path, 0, n_here, word));
    const struct header *header = find_header(word[0]);
    if (header != NULL && n_here == HEADER_BYTES) {
        return read_header(header, word, n_byte, file);
    }
    if (declared == MT_TOKEN_AUTO) {
        return refuse_unknown(file, word[0]);
    }
    file->layout = "bare integers";
    return mt_token_layout_bare(n_byte, declared, file);
}
