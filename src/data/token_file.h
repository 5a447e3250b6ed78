/* One file of token ids, whatever its layout:
 *
 *   bytes      text; a byte is a token
 *   tokens     a header of llm.c or modded-nanogpt that tells type and number, or bare integers
 *              of a declared type
 *   megatron   PREFIX.bin, bare integers, and PREFIX.idx, which tells their type and the documents
 *
 * All integers are little-endian. Sources of the layouts: docs/data.md. Used by corpus.c and by
 * `moetrain data inspect`. */
#ifndef MT_DATA_TOKEN_FILE_H
#define MT_DATA_TOKEN_FILE_H

#include "base/status.h"
#include "config/config.h"

#include <stdint.h>

struct mt_token_file {
    const char *path;   /* of the ids; the caller's, and there as long as this is */
    const char *layout; /* for people: "text", "llm.c (GPT-2)", "Megatron" */
    enum mt_token_type type;
    int64_t first_byte; /* of the first id */
    int64_t n_token;
    int64_t n_sequence, n_document; /* of a Megatron index; else 0 */
    int descriptor;                 /* -1: opened for each read */
};

/* Reads what tells the layout, and nothing that grows with the file. `declared`: the type of
 * integers without a header; MT_TOKEN_AUTO: a header must tell it. MT_ERR_INPUT, naming the file,
 * the offset, what was expected and what was found. */
enum mt_status mt_token_file_open(const char *path, enum mt_data_format format,
                                  enum mt_token_type declared, struct mt_token_file *file);
/* Gives the descriptor back; reads open the file each time. */
void mt_token_file_close(struct mt_token_file *file);

/* id [n]: tokens first .. first + n - 1. MT_ERR_INPUT with the offset when the file ended before,
 * or when an id is not in [0, vocab_size). */
enum mt_status mt_token_file_read(const struct mt_token_file *file, int64_t vocab_size,
                                  int64_t first, int64_t n, int32_t *id);

/* Are all values of the type below vocab_size, so that no id needs checking? */
bool mt_token_type_fits(enum mt_token_type type, int64_t vocab_size);
int mt_token_type_bytes(enum mt_token_type type);
const char *mt_token_type_name(enum mt_token_type type);

/* What all of a file holds: everything is read, the index between its ends as well. */
struct mt_token_summary {
    int64_t smallest, largest; /* ids */
    int64_t longest;           /* tokens of a document; 0 when there is no index */
};
/* MT_ERR_INPUT naming what is wrong, and where. Ids are not held against a vocabulary, but are
 * none when negative. */
enum mt_status mt_token_file_summarize(const struct mt_token_file *file,
                                       struct mt_token_summary *summary);

/* start [n]: tokens in (first, first + n) at which a document begins, rising. MT_ERR_INPUT when the
 * file has no index, or a damaged one. */
enum mt_status mt_token_file_documents(const struct mt_token_file *file, int64_t first, int64_t n,
                                       int64_t *start, int64_t *n_start);

/* A hash of size, type and of sixteen pieces of the content: another file has another, with all
 * likelihood; moving or copying a file keeps it. Does not read more the larger the file is. */
enum mt_status mt_token_file_fingerprint(const struct mt_token_file *file, uint64_t *fingerprint);

#endif
