/* What token_file.c and the layouts share. */
#ifndef MT_DATA_TOKEN_INTERNAL_H
#define MT_DATA_TOKEN_INTERNAL_H

#include "data/token_file.h"

/* MT_ERR_INPUT, naming the file, when it is missing, unreadable, not regular or empty. */
enum mt_status mt_token_open_plain(const char *path, int *descriptor, int64_t *n_byte);
/* data [n] from offset, whole. */
enum mt_status mt_token_read_at(int descriptor, const char *path, int64_t offset, int64_t n,
                                void *data);

/* Layouts. They get an open file of n_byte bytes with its path, and fill in layout, type,
 * first_byte and n_token (and documents). */
enum mt_status mt_token_layout_bare(int64_t n_byte, enum mt_token_type declared,
                                    struct mt_token_file *file);
/* With a header, or as bare when there is none. */
enum mt_status mt_token_layout_header(int64_t n_byte, enum mt_token_type declared,
                                      struct mt_token_file *file);
/* Reads the index beside it. */
enum mt_status mt_token_layout_megatron(int64_t n_byte, struct mt_token_file *file);

/* mt_token_file_documents of a pair. */
enum mt_status mt_token_megatron_documents(const struct mt_token_file *file, int64_t first,
                                           int64_t n, int64_t *start, int64_t *n_start);

/* All of the index of `file`, against what opening read of it; tokens of the longest document. */
enum mt_status mt_token_megatron_check(const struct mt_token_file *file, int64_t *longest);

#endif
