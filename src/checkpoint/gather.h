/* From every rank's shard to the manifest on rank 0: once what each holds, then with every save its
 * checksums. */
#ifndef MT_CHECKPOINT_GATHER_H
#define MT_CHECKPOINT_GATHER_H

#include "checkpoint/shard.h"

struct mt_gather {
    struct mt_comm *comm;
    int n_shard;      /* of a rank: 1, or 1 + MT_EXPERT_PARTS */
    int64_t *n_piece; /* [R] */
    int64_t *place;   /* rank 0: [all pieces, rank after rank] index in the manifest */
    int64_t *mine;    /* [n_shard + n_piece] checksums of files and pieces, on their way */
    int64_t *all;     /* rank 0: the same of all ranks, one behind the other */
    struct mt_plan plan;
    struct mt_exec *exec;
};

/* Collective. On rank 0 the manifest's tensors, pieces and sizes of shards, all checksums zero
 * (index, step and config hash are the caller's); empty elsewhere. MT_ERR_INTERNAL unless the
 * pieces make every tensor once. shard [n_shard] are laid out. On failure both are clear. */
enum mt_status mt_gather_layout(struct mt_gather *gather, struct mt_comm *comm,
                                const struct mt_shard *shard, int n_shard, const char *config_text,
                                struct mt_manifest *manifest);
void mt_gather_clear(struct mt_gather *gather); /* of a zeroed one, too */

/* Checksums of the written shards and their pieces travel to rank 0 while everybody goes on; end
 * waits for them and puts them into rank 0's manifest. Begin is collective; shard [n_shard]. */
enum mt_status mt_gather_begin(struct mt_gather *gather, const struct mt_shard *shard);
bool mt_gather_is_active(const struct mt_gather *gather);
enum mt_status mt_gather_poll(struct mt_gather *gather, bool *done);
enum mt_status mt_gather_end(struct mt_gather *gather, struct mt_manifest *manifest);

#endif
