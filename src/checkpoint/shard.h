/* A shard: what one rank owns, in one HDF5 file of contiguous datasets.
 *
 * The library lays the file out and is done before any data: it is known to report success on a
 * full disk, and it never syncs. Then the data are written at the datasets' offsets by plain
 * pwrite. */
#ifndef MT_CHECKPOINT_SHARD_H
#define MT_CHECKPOINT_SHARD_H

#include "checkpoint/manifest.h"

/* Rows [first_row, first_row + n_row) of a tensor of the store's table, made of the sorted parts
 * part[first_part .. first_part + n_part - 1]. */
struct mt_shard_piece {
    int tensor;
    enum mt_checkpoint_kind kind;
    int first_part, n_part;
    int64_t first_row, n_row, shard_row;
    int64_t offset; /* bytes, in the file */
    uint64_t checksum;
};

struct mt_shard {
    const struct mt_tensor_table *table;
    bool is_cut; /* experts are */
    int n_part;
    const struct mt_part **part; /* [n_part] by tensor, then first element */
    int64_t n_piece;
    struct mt_shard_piece *piece; /* by tensor, kind, row */
    int64_t n_byte;
    uint64_t checksum; /* of the file */
};

/* Pieces of what the store owns: values, and optimizer state where there is some. */
enum mt_status mt_shard_plan(const struct mt_store *store, struct mt_shard *shard);
/* Whether rows of a tensor of the table are those of its first two dimensions (manifest.h). */
bool mt_shard_is_cut(const struct mt_shard *shard, int tensor);
void mt_shard_clear(struct mt_shard *shard);
/* Writes the file and syncs it; fills in offsets and checksums. The parts must not change
 * meanwhile. */
enum mt_status mt_shard_write(struct mt_shard *shard, const char *path);

#endif
