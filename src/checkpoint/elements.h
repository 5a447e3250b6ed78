/* Any elements of a checkpoint's tensors, in one process, whatever ranks wrote them: one shard is
 * open at a time. The checkpoint has been verified. */
#ifndef MT_CHECKPOINT_ELEMENTS_H
#define MT_CHECKPOINT_ELEMENTS_H

#include "checkpoint/shard_read.h"

struct mt_element_reader {
    const char *folder; /* of the checkpoint; the caller's, like the manifest */
    const struct mt_manifest *manifest;
    struct mt_shard_reader shard; /* shard.shard = -1: none is open */
};

void mt_elements_init(struct mt_element_reader *reader, const char *folder,
                      const struct mt_manifest *manifest);
void mt_elements_clear(struct mt_element_reader *reader); /* of a zeroed one, too */

/* data [n]: elements [first, first + n) of the whole tensor, row-major, as float32. */
enum mt_status mt_elements_read(struct mt_element_reader *reader,
                                const struct mt_manifest_tensor *tensor, int64_t first, int64_t n,
                                float *data);

#endif
