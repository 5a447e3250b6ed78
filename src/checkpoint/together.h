/* What ranks do together around a checkpoint: agree without speaking, share what rank 0 knows,
 * verify with a share of the files each. Collective, in the same order on every rank. */
#ifndef MT_CHECKPOINT_TOGETHER_H
#define MT_CHECKPOINT_TOGETHER_H

#include "checkpoint/manifest.h"

/* MT_OK when every rank passes MT_OK; else the code and text of the lowest failing rank on every
 * rank. Unlike mt_job_agree nothing is printed: the caller may fall back to another checkpoint, or
 * train on. */
enum mt_status mt_together_agree(struct mt_comm *comm, enum mt_status status);

/* Rank 0's values [n] on every rank; n at most 4096. */
enum mt_status mt_together_share(struct mt_comm *comm, int64_t *values, int64_t n);

/* Reads the manifest of a checkpoint and verifies its files. The manifest is valid only after
 * MT_OK; otherwise nothing is held. */
enum mt_status mt_together_verify(struct mt_comm *comm, const char *path,
                                  struct mt_manifest *manifest);

/* The same of a checkpoint that is named after a step: MT_ERR_INPUT too when it holds another. */
enum mt_status mt_together_verify_step(struct mt_comm *comm, const char *path, int64_t step,
                                       struct mt_manifest *manifest);

#endif
