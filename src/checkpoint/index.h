/* index.h5: every logical tensor at its full shape, as virtual datasets over the shards beside it,
 * for h5py, h5dump and the like; and the state arrays. This program reads only the arrays.
 *
 * Sources are named without folder: HDF5 looks beside the index first, so a copied directory works
 * from anywhere. What a missing shard leaves open reads as NaN, never as zero. */
#ifndef MT_CHECKPOINT_INDEX_H
#define MT_CHECKPOINT_INDEX_H

#include "checkpoint/manifest.h"

/* The file is made in memory, so that only plain writes can fail, and kept open: what is the same
 * from save to save is made once, and the manifest told where the arrays lie. mt_index_update
 * renews the rest - attributes, arrays - and the image, whose bytes are those of a file made
 * afresh. */
struct mt_index {
    int64_t file; /* hid_t; 0: closed */
    char *image;  /* [n_byte] */
    int64_t n_byte;
};
enum mt_status mt_index_open(struct mt_index *index, struct mt_manifest *manifest,
                             const struct mt_run_state *state);
enum mt_status mt_index_update(struct mt_index *index, const struct mt_manifest *manifest,
                               const struct mt_run_state *state);
void mt_index_close(struct mt_index *index); /* of a zeroed one, too */

/* Fills state->array; one that the file lacks, or has with another length, becomes zeros: what it
 * describes was configured otherwise. */
enum mt_status mt_index_read_arrays(const char *path, const struct mt_manifest *manifest,
                                    const struct mt_run_state *state);
/* All arrays that the file has, in memory that mt_index_free_arrays frees. */
enum mt_status mt_index_take_arrays(const char *path, const struct mt_manifest *manifest,
                                    struct mt_run_state *state);
void mt_index_free_arrays(struct mt_run_state *state); /* of a zeroed one, too */
/* Virtual datasets say what the manifest says. Attributes repeat it for other programs and are not
 * opened: the library reads beyond its buffers when one is damaged (1.10.8; H5Aopen). */
enum mt_status mt_index_check(const char *path, const struct mt_manifest *manifest);

#endif
