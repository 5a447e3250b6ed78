/* From every rank's shard to the manifest on rank 0. */
#ifndef MT_CHECKPOINT_GATHER_H
#define MT_CHECKPOINT_GATHER_H

#include "checkpoint/shard.h"

/* Collective. On rank 0 the manifest's tensors, pieces and shards (index, step and config hash are
 * the caller's); empty elsewhere. MT_ERR_INTERNAL unless the pieces make every tensor once. */
enum mt_status mt_gather_manifest(struct mt_comm *comm, const struct mt_shard *shard,
                                  const char *config_text, struct mt_manifest *manifest);

#endif
