/* What a damaged shard has lost: found by the manifest's offsets and plain reads, for a file that
 * is not what it was is never given to HDF5. */
#ifndef MT_CHECKPOINT_DAMAGE_H
#define MT_CHECKPOINT_DAMAGE_H

#include "checkpoint/manifest.h"

enum { MT_DAMAGE_BYTES = 256 };

/* text [n_byte] about file[index] at `path`: "; the first damage is in rows 3 to 5 of /model/norm",
 * or that no tensor has suffered; "" when the manifest cannot tell. */
enum mt_status mt_damage_describe(const char *path, const struct mt_manifest *manifest,
                                  int64_t index, char *text, size_t n_byte);

#endif
