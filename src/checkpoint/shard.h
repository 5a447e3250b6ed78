/* A shard: what one rank owns, or one part of it, in one HDF5 file of contiguous datasets.
 *
 * HDF5 lays the file out where there is no disk, and is done before any data: the library is known
 * to report success on a full disk, it never syncs, and only one thread may call it. What it put
 * around the data is kept as the shard's frame. From then on a save is plain writing in ascending
 * order, by any thread:
 *
 *   | frame | piece | piece | frame | piece | ...                      every byte of the file once
 *
 * A layout serves until experts change owners. */
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

/* Bytes [offset, offset + n_byte) of the file: those of a piece, or piece -1: of the frame. */
struct mt_shard_extent {
    int64_t offset, n_byte, piece;
};

/* What is copied and summed at once: fits the second-level cache twice. */
enum { MT_SHARD_BLOCK_BYTES = 256 << 10 };

struct mt_shard {
    const struct mt_tensor_table *table;
    bool is_cut; /* experts are */
    int n_part;
    const struct mt_part **part; /* [n_part] by tensor, then first element */
    int64_t n_piece;
    struct mt_shard_piece *piece; /* by tensor, kind, row */
    int64_t n_extent;
    struct mt_shard_extent *extent; /* ascending, without gaps */
    char *frame;                    /* the frame's bytes, one extent behind the other */
    int64_t n_data_byte;            /* of all pieces */
    int64_t n_byte;                 /* of the file */
    uint64_t checksum;              /* of the file, after writing */
};

/* What a shard holds: everything, dense tensors alone, or p = 0, 1 .. part p of the experts. */
enum { MT_SHARD_ALL = -2, MT_SHARD_DENSE = -1 };
/* The part of expert 0 of a layer; the next one is in the next part. */
int mt_shard_first_part(int layer);

/* Pieces of what the store owns of it: values, and optimizer state where there is some. */
enum mt_status mt_shard_plan(const struct mt_store *store, int what, struct mt_shard *shard);
/* Whether rows of a tensor of the table are those of its first two dimensions (manifest.h). */
bool mt_shard_is_cut(const struct mt_shard *shard, int tensor);
void mt_shard_clear(struct mt_shard *shard);
/* Offsets, extents and frame of a planned shard. Calls HDF5; touches no disk. */
enum mt_status mt_shard_lay_out(struct mt_shard *shard);

/* ---- shard_write.c: no HDF5, nothing allocated ---- */

/* Begins to copy what a GPU has of the pieces to staging, in the order of the extents; it is there
 * after mt_device_wait, for mt_shard_stage with is_there. */
void mt_shard_fetch(const struct mt_shard *shard, struct mt_device *device, float *staging);
/* Copies what the pieces are made of to staging [n_data_byte / 4], in the order of the extents;
 * fills in all checksums on the way. */
void mt_shard_stage(struct mt_shard *shard, float *staging, bool is_there);
/* Writes a new file and syncs it. staging: NULL takes the data from the store's parts, which must
 * not change meanwhile, and fills in the checksums. */
enum mt_status mt_shard_write(struct mt_shard *shard, const float *staging, const char *path);

#endif
