/* tokenizer.json of Hugging Face tokenizers, as far as byte-level BPE needs it. What changes ids
 * and is not known here is refused by name, never ignored. */
#include "text/byte_level.h"

#include "base/input_file.h"
#include "base/memory.h"
#include "base/size.h"

#include <jansson.h>
#include <string.h>
#include <utf8proc.h>

/* GPT-2's words: contractions, letters, numbers, other signs, each with one space before, and
 * spaces. What a ByteLevel pre-tokenizer splits by when use_regex is true. */
static const char byte_level_words[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

enum { MAX_TOKEN_BYTES = 4096, MAX_FILE_BYTES = 1 << 28, MAX_IDS = 1 << 24 };

/* The byte-level alphabet: bytes that print are themselves, the others follow from U+0100 on. */
static bool prints(int byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/* byte_of [MT_ALPHABET]: the byte behind each code point, -1: none. */
enum { ALPHABET = 256 + 68 }; /* 68 bytes do not print */
static void make_alphabet(int16_t byte_of[ALPHABET])
{
    int next = 256;
    for (int i = 0; i < ALPHABET; ++i) {
        byte_of[i] = -1;
    }
    for (int byte = 0; byte < 256; ++byte) {
        byte_of[prints(byte) ? byte : next++] = (int16_t)byte;
    }
    MT_ASSERT(next == ALPHABET);
}

/* A token in the alphabet as the bytes it stands for. bytes [MAX_TOKEN_BYTES]; *n_byte -1: it is
 * not in the alphabet, or too long. */
static void to_bytes(const char *token, const int16_t *byte_of, char *bytes, int64_t *n_byte)
{
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)token;
    int64_t n = 0;
    *n_byte = -1;
    while (*at != 0) {
        utf8proc_int32_t point = 0;
        const utf8proc_ssize_t used = utf8proc_iterate(at, -1, &point);
        if (used < 1 || point >= ALPHABET || byte_of[point] < 0 || n == MAX_TOKEN_BYTES) {
            return;
        }
        bytes[n++] = (char)(unsigned char)byte_of[point];
        at += used;
    }
    *n_byte = n;
}

static enum mt_status refuse(const char *path, const char *what, const char *found,
                             const char *expected)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "%s: %s is %.100s; %s was expected, as byte-level BPE has it; a SentencePiece "
                   ".model of the same tokenizer can be given instead",
                   path, what, found, expected);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "not given";
}

/* Absent, null and "" mean off. */
static bool is_off(const json_t *value)
{
    return value == NULL || json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

static enum mt_status check_model(const char *path, const json_t *model)
{
    static const char *const unknown[] = {"continuing_subword_prefix", "end_of_word_suffix",
                                          "byte_fallback", "dropout"};
    if (strcmp(text_of(model, "type"), "BPE") != 0) {
        return refuse(path, "model.type", text_of(model, "type"), "BPE");
    }
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); ++i) {
        if (!is_off(json_object_get(model, unknown[i]))) {
            return refuse(path, unknown[i], "set", "none");
        }
    }
    if (!json_is_object(json_object_get(model, "vocab")) ||
        !json_is_array(json_object_get(model, "merges"))) {
        return refuse(path, "model", "without vocab and merges", "both");
    }
    return MT_OK;
}

/* An id in [0, MAX_IDS); -1: none. */
static int32_t id_of(const json_t *value)
{
    const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    return id >= 0 && id < MAX_IDS ? (int32_t)id : -1;
}

static enum mt_status fail_id(const char *path, const char *token)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "%s: the token \"%.60s\" has no id of its own below %d; restore the file", path,
                   token, (int)MAX_IDS);
}

/* Tables are as long as the largest id: it has to stand in proportion to the file. Vocabularies
 * leave out few ids or none. */
static enum mt_status check_gaps(const char *path, int64_t n_id, int64_t n_token)
{
    const int64_t most = 4 * n_token + 4096;
    return n_id <= most
               ? MT_OK
               : MT_FAIL(MT_ERR_INPUT,
                         "%s: the largest id is %lld, of %lld tokens; at most %lld was "
                         "expected; restore the file",
                         path, (long long)n_id - 1, (long long)n_token, (long long)most - 1);
}

/* The largest id of vocabulary and added tokens, plus one. */
static enum mt_status count_ids(const char *path, json_t *vocab, const json_t *added, int64_t *n)
{
    const char *token = NULL;
    json_t *value = NULL;
    size_t i = 0;
    *n = 0;
    json_object_foreach(vocab, token, value)
    {
        if (id_of(value) < 0) {
            return fail_id(path, token);
        }
        *n = mt_max_i64(*n, (int64_t)id_of(value) + 1);
    }
    json_array_foreach(added, i, value)
    {
        const json_t *id = json_object_get(value, "id");
        if (id_of(id) < 0) {
            return fail_id(path, text_of(value, "content"));
        }
        *n = mt_max_i64(*n, (int64_t)id_of(id) + 1);
    }
    return check_gaps(path, *n, (int64_t)(json_object_size(vocab) + json_array_size(added)));
}

/* Tokens outside the alphabet can only be added tokens, which follow: they are passed over. */
static enum mt_status read_token(const char *path, const char *token, int32_t id,
                                 const int16_t *byte_of, struct mt_bpe *bpe)
{
    char bytes[MAX_TOKEN_BYTES];
    int64_t n = 0;
    bool is_new = true;
    to_bytes(token, byte_of, bytes, &n);
    if (n < 1) {
        return MT_OK;
    }
    MT_TRY(mt_bpe_add_token(bpe, id, bytes, n, &is_new));
    return is_new ? MT_OK : fail_id(path, token);
}

static enum mt_status read_vocab(const char *path, json_t *vocab, const int16_t *byte_of,
                                 struct mt_bpe *bpe)
{
    const char *token = NULL;
    json_t *value = NULL;
    json_object_foreach(vocab, token, value)
    {
        MT_TRY(read_token(path, token, id_of(value), byte_of, bpe));
    }
    for (int byte = 0; byte < 256; ++byte) {
        const char as_char = (char)(unsigned char)byte;
        bpe->byte_id[byte] = mt_bpe_find(bpe, &as_char, 1);
        if (bpe->byte_id[byte] < 0) {
            char found[32];
            (void)snprintf(found, sizeof(found), "without byte 0x%02x", (unsigned)byte);
            return refuse(path, "vocab", found, "a token for every byte");
        }
    }
    return MT_OK;
}

/* "left right", or ["left", "right"]; copies both into text [2 MAX_TOKEN_BYTES]. */
static bool read_pair(const json_t *merge, char *text, const char **left, const char **right)
{
    if (json_is_string(merge) && json_string_length(merge) < 2 * (size_t)MAX_TOKEN_BYTES) {
        (void)snprintf(text, 2 * (size_t)MAX_TOKEN_BYTES, "%s", json_string_value(merge));
        char *space = strchr(text, ' ');
        if (space != NULL) {
            *space = '\0';
            *left = text;
            *right = space + 1;
        }
        return space != NULL;
    }
    *left = json_string_value(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    return *left != NULL && *right != NULL;
}

/* Both halves and their join are tokens. */
static bool read_merge(const json_t *merge, int32_t rank, const int16_t *byte_of,
                       struct mt_bpe *bpe)
{
    char text[2 * MAX_TOKEN_BYTES];
    char join[2 * MAX_TOKEN_BYTES];
    const char *left = NULL;
    const char *right = NULL;
    int64_t n_left = -1;
    int64_t n_right = -1;
    if (!read_pair(merge, text, &left, &right)) {
        return false;
    }
    to_bytes(left, byte_of, join, &n_left);
    if (n_left < 1) {
        return false;
    }
    to_bytes(right, byte_of, join + n_left, &n_right);
    if (n_right < 1) {
        return false;
    }
    const int32_t left_id = mt_bpe_find(bpe, join, n_left);
    const int32_t right_id = mt_bpe_find(bpe, join + n_left, n_right);
    const int32_t id = mt_bpe_find(bpe, join, n_left + n_right);
    if (left_id < 0 || right_id < 0 || id < 0) {
        return false;
    }
    (void)mt_bpe_add_merge(bpe, rank, left_id, right_id, id); /* of two alike the first counts */
    return true;
}

static enum mt_status read_merges(const char *path, const json_t *merges, const int16_t *byte_of,
                                  struct mt_bpe *bpe)
{
    size_t i = 0;
    json_t *merge = NULL;
    json_array_foreach(merges, i, merge)
    {
        if (!read_merge(merge, (int32_t)i, byte_of, bpe)) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: merge %zu is no pair of tokens whose join is a token; restore the "
                           "file",
                           path, i);
        }
    }
    return MT_OK;
}

static enum mt_status read_added(const char *path, const json_t *added, struct mt_byte_level *own)
{
    size_t i = 0;
    json_t *value = NULL;
    json_array_foreach(added, i, value)
    {
        const char *content = json_string_value(json_object_get(value, "content"));
        if (content == NULL || content[0] == '\0' || strlen(content) > MAX_TOKEN_BYTES) {
            return refuse(path, "an added token", "without content", "text");
        }
        if (json_is_true(json_object_get(value, "single_word"))) {
            return refuse(path, "single_word of an added token", "true", "false");
        }
        MT_TRY(mt_byte_level_add(own, id_of(json_object_get(value, "id")), content,
                                 json_is_true(json_object_get(value, "lstrip")),
                                 json_is_true(json_object_get(value, "rstrip")),
                                 json_is_true(json_object_get(value, "special"))));
    }
    return MT_OK;
}

static enum mt_status read_normalizer(const char *path, const json_t *normalizer,
                                      struct mt_byte_level *own)
{
    if (is_off(normalizer)) {
        return MT_OK;
    }
    own->is_nfc = strcmp(text_of(normalizer, "type"), "NFC") == 0;
    return own->is_nfc ? MT_OK
                       : refuse(path, "normalizer", text_of(normalizer, "type"), "NFC or none");
}

static enum mt_status read_split(const char *path, const json_t *step, struct mt_byte_level *own)
{
    const char *expression = text_of(json_object_get(step, "pattern"), "Regex");
    if (json_object_get(json_object_get(step, "pattern"), "Regex") == NULL) {
        return refuse(path, "pattern of a Split", "no Regex", "a regular expression");
    }
    if (strcmp(text_of(step, "behavior"), "Isolated") != 0 ||
        !is_off(json_object_get(step, "invert"))) {
        return refuse(path, "behavior of a Split", text_of(step, "behavior"),
                      "Isolated, not inverted");
    }
    return mt_splitting_add(&own->bpe.splitting, expression, path);
}

static enum mt_status read_step(const char *path, const json_t *step, struct mt_byte_level *own)
{
    const char *type = text_of(step, "type");
    const bool is_first = own->bpe.splitting.n_step == 0;
    if (strcmp(type, "Split") == 0) {
        return read_split(path, step, own);
    }
    if (strcmp(type, "Digits") == 0) {
        const bool each = json_is_true(json_object_get(step, "individual_digits"));
        return mt_splitting_add(&own->bpe.splitting, each ? "\\p{N}" : "\\p{N}+", path);
    }
    if (strcmp(type, "ByteLevel") != 0) {
        return refuse(path, "pre_tokenizer", type, "ByteLevel, Split or Digits");
    }
    own->adds_space = json_is_true(json_object_get(step, "add_prefix_space"));
    if (own->adds_space && !is_first) {
        return refuse(path, "add_prefix_space behind another step", "true", "false");
    }
    return is_off(json_object_get(step, "use_regex")) && json_object_get(step, "use_regex") != NULL
               ? MT_OK
               : mt_splitting_add(&own->bpe.splitting, byte_level_words, path);
}

static enum mt_status read_splitting(const char *path, const json_t *pre, struct mt_byte_level *own)
{
    const json_t *steps = json_object_get(pre, "pretokenizers");
    size_t i = 0;
    json_t *step = NULL;
    if (!json_is_array(steps)) {
        return read_step(path, pre, own);
    }
    json_array_foreach(steps, i, step)
    {
        MT_TRY(read_step(path, step, own));
    }
    return MT_OK;
}

static enum mt_status read_root(const char *path, const json_t *root, struct mt_byte_level *own)
{
    const json_t *model = json_object_get(root, "model");
    json_t *vocab = json_object_get(model, "vocab");
    const json_t *merges = json_object_get(model, "merges");
    const json_t *added = json_object_get(root, "added_tokens");
    int16_t byte_of[ALPHABET];
    int64_t n_id = 0;
    MT_TRY(check_model(path, model));
    MT_TRY(count_ids(path, vocab, added, &n_id));
    MT_TRY(mt_bpe_init(&own->bpe, n_id, (int64_t)json_array_size(merges)));
    make_alphabet(byte_of);
    own->bpe.ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    MT_TRY(read_vocab(path, vocab, byte_of, &own->bpe));
    MT_TRY(read_merges(path, merges, byte_of, &own->bpe));
    MT_TRY(read_added(path, added, own));
    MT_TRY(read_normalizer(path, json_object_get(root, "normalizer"), own));
    return read_splitting(path, json_object_get(root, "pre_tokenizer"), own);
}

enum mt_status mt_byte_level_read(const char *path, struct mt_byte_level *own)
{
    json_error_t error;
    char *text = NULL;
    int64_t n_byte = 0;
    MT_TRY(mt_input_read(path, "a tokenizer.json was expected", MAX_FILE_BYTES, &text, &n_byte));
    json_t *root = json_loadb(text, (size_t)n_byte, JSON_ALLOW_NUL, &error);
    mt_memory_free(text);
    if (root == NULL) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s, line %d column %d: no JSON: %s; a tokenizer.json was expected; restore "
                       "the file",
                       path, error.line, error.column, mt_input_quote(error.text));
    }
    const enum mt_status status = read_root(path, root, own);
    json_decref(root);
    return status;
}
