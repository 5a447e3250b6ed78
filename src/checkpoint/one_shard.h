/* A checkpoint of one shard, written by one process, a tensor's elements after another: memory for
 * one block, whatever the size of the model. */
#ifndef MT_CHECKPOINT_ONE_SHARD_H
#define MT_CHECKPOINT_ONE_SHARD_H

#include "checkpoint/manifest.h"
#include "checkpoint/new_folder.h"

struct mt_one_shard;

/* Puts every element of manifest->tensor[tensor], in order. */
typedef enum mt_status (*mt_one_shard_fn)(void *context, int64_t tensor,
                                          struct mt_one_shard *shard);
/* The next elements value [n] of the tensor; rounded where it is bfloat16. */
enum mt_status mt_one_shard_put(struct mt_one_shard *shard, const float *value, int64_t n);

/* manifest: complete but for files, offsets and checksums, which are filled in; world_size is 1 and
 * each tensor has one piece, tensor t piece[t]. state: arrays of the index. The directory is there
 * whole afterwards, or not at all. MT_ERR_RESOURCE when the disk refuses. */
enum mt_status mt_one_shard_write(const struct mt_new_folder *made, struct mt_manifest *manifest,
                                  const struct mt_run_state *state, mt_one_shard_fn put_tensor,
                                  void *context);

#endif
