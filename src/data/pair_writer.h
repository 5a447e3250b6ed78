/* Writes a Megatron pair (token_megatron.c has the layout), document by document. */
#ifndef MT_DATA_PAIR_WRITER_H
#define MT_DATA_PAIR_WRITER_H

#include "base/status.h"
#include "config/config.h"

#include <stdint.h>
#include <stdio.h>

struct mt_pair_writer {
    char path[2][MT_PATH_BYTES];            /* .bin, .idx */
    char unfinished[2][MT_PATH_BYTES + 16]; /* what they are called until they are whole */
    FILE *bin;
    bool is_mine; /* the unfinished files are this writer's */
    enum mt_token_type type;
    int64_t n_document, capacity, n_token;
    int32_t *length; /* [n_document] tokens */
};

/* MT_ERR_CONFIG when one of the two exists, or another process writes them; what a killed one left
 * is written over. u16 holds ids below 65,500, as Megatron chooses. */
enum mt_status mt_pair_open(struct mt_pair_writer *writer, const char *prefix, int64_t vocab_size);
enum mt_status mt_pair_add(struct mt_pair_writer *writer, const int32_t *id, int64_t n);
/* Writes the index, syncs both and gives them their names. */
enum mt_status mt_pair_finish(struct mt_pair_writer *writer);
/* Removes what is not finished. */
void mt_pair_close(struct mt_pair_writer *writer);

#endif
