/* Whether a file of a checkpoint is what it was when it was saved; of a shard that is not, what has
 * suffered: found by the manifest's offsets and plain reads. */
#ifndef MT_CHECKPOINT_DAMAGE_H
#define MT_CHECKPOINT_DAMAGE_H

#include "checkpoint/manifest.h"

/* Size and checksum of file[index] in `folder`. MT_ERR_INPUT when they are others, naming the
 * file, and of a shard the first tensor and rows that have suffered. */
enum mt_status mt_damage_check_file(const char *folder, const struct mt_manifest *manifest,
                                    int64_t index);

#endif
