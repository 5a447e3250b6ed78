/* AdamW over owned chunks, the learning-rate schedule, the one global gradient norm. */
#ifndef MT_OPTIM_OPTIM_H
#define MT_OPTIM_OPTIM_H

#include "config/config.h"
#include "store/store.h"

/* Learning rate of step (1-based). Warm-up: lr * step / warmup_steps; after it the kind's decay to
 * lr * min_lr_ratio over decay_steps (cosine, linear; wsd: constant, then linear over the last
 * decay_steps), constant afterwards. */
double mt_schedule_lr(const struct mt_config *config, int64_t step);

struct mt_optim;
enum mt_status mt_optim_create(struct mt_store *store, struct mt_comm *comm,
                               const struct mt_config *config, struct mt_optim **out);
void mt_optim_destroy(struct mt_optim *optim);

/* Collective: L2 norm of the reduced gradient over all logical parameters, each counted once. Sums
 * in double per chunk, combined by chunk number: the same bits under any ownership, with cut
 * experts on the same ranks. Non-finite when any gradient is. */
enum mt_status mt_optim_grad_norm(struct mt_optim *optim, double *norm);

/* Factor by which clipping multiplies: min(1, grad_clip / norm); 1 when grad_clip is 0. */
double mt_optim_clip_factor(const struct mt_config *config, double norm);

/* Owners update, and their gradients are zero (mt_store_update). `update`: 1-based number of this
 * update (skipped steps do not count). */
void mt_optim_update(struct mt_optim *optim, double lr, double grad_scale, int64_t update);

#endif
