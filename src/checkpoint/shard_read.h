/* Rows out of one shard, by plain reads at the places that the manifest names. Older checkpoints do
 * not say; of them HDF5 does. The file's checksum has been verified. */
#ifndef MT_CHECKPOINT_SHARD_READ_H
#define MT_CHECKPOINT_SHARD_READ_H

#include "checkpoint/manifest.h"

struct mt_shard_reader {
    const struct mt_manifest *manifest;
    int shard;
    char path[MT_PATH_BYTES];
    int descriptor;
    int64_t *place;                          /* [n_tensor] by HDF5's word; NULL: not asked */
    const struct mt_manifest_tensor *tensor; /* whose place is known, or NULL */
    int64_t offset;                          /* of its dataset's bytes */
};

/* After an error, too, the reader is closed by mt_shard_close. */
enum mt_status mt_shard_open(struct mt_shard_reader *reader, const char *folder,
                             const struct mt_manifest *manifest, int shard);
void mt_shard_close(struct mt_shard_reader *reader);

/* HDF5 finds every tensor in the shard, of the type and shape that the manifest says, and where it
 * says. */
enum mt_status mt_shard_check_datasets(struct mt_shard_reader *reader);
/* Elements [first, first + n_element) of the shard's dataset of a tensor, as float32. */
enum mt_status mt_shard_read_elements(struct mt_shard_reader *reader,
                                      const struct mt_manifest_tensor *tensor, int64_t first,
                                      int64_t n_element, float *data);
/* Reads a piece and compares its checksum; buffer [buffer_bytes]. */
enum mt_status mt_shard_check_piece(struct mt_shard_reader *reader,
                                    const struct mt_manifest_tensor *tensor,
                                    const struct mt_manifest_piece *piece, char *buffer,
                                    int64_t buffer_bytes);
/* MT_ERR_INPUT naming shard, tensor and rows: the checksum is not the piece's. */
enum mt_status mt_shard_fail_piece(const struct mt_shard_reader *reader,
                                   const struct mt_manifest_tensor *tensor,
                                   const struct mt_manifest_piece *piece);

#endif
