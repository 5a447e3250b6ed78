/* TOML text to a flat list of entries: the C face of toml++, which does the parsing.
 *
 * Knows nothing of keys. Safe on hostile text: nesting is bounded before toml++ sees it, exceptions
 * end here, and nothing is kept between calls. */
#ifndef MT_CONFIG_TOML_READER_H
#define MT_CONFIG_TOML_READER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mt_toml_type {
    MT_TOML_BOOL,
    MT_TOML_INTEGER,
    MT_TOML_REAL,
    MT_TOML_TEXT,
    MT_TOML_ARRAY,
    MT_TOML_TABLE,
    MT_TOML_OTHER /* dates and times */
};

enum { MT_TOML_ERROR_BYTES = 384, MT_TOML_MAX_DEPTH = 8 };

struct mt_toml_value {
    enum mt_toml_type type;
    bool boolean;
    bool is_inline; /* a table written { .. } */
    int64_t integer;
    double real;
    const char *text; /* UTF-8, a NUL in it shown as \x01; NULL unless MT_TOML_TEXT */
    int line, column; /* from 1 */
};

/* One key. Tables have an entry of their own, before those of what they hold. `path` joins the
 * keys by dots; a key that is not made of letters, digits, - and _ stands in quotation marks, and a
 * longer one than any known key is cut. Deeper than MT_TOML_MAX_DEPTH nothing is listed. */
struct mt_toml_entry {
    const char *path;
    int line, column; /* of the key */
    struct mt_toml_value value;
    int64_t n_item;                   /* of an array */
    const struct mt_toml_value *item; /* [n_item]; NULL when there is none */
};

struct mt_toml_document {
    int64_t n_entry;
    const struct mt_toml_entry *entry; /* [n_entry] */
    void *owner;
    int error_line, error_column;
    char error[MT_TOML_ERROR_BYTES]; /* one line; "" when the text is TOML */
};

/* text [text_bytes]. False when it is not TOML (or memory ran out): `error` then says why and
 * there are no entries. Close the document in either case. */
bool mt_toml_open(const char *text, int64_t text_bytes, struct mt_toml_document *document);
void mt_toml_close(struct mt_toml_document *document);

/* What a string of TOML (and of JSON) may be made of. */
bool mt_toml_is_utf8(const char *text);

#ifdef __cplusplus
}
#endif

#endif
