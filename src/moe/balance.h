/* The shares f that the balance loss E * sum_i f_i P_i holds constant, and the windows over which
 * they are counted. Counts are of (token, choice) pairs per expert over all ranks; they come from
 * the gate of every micro-batch, the shares go to the gate's backward.
 *
 *   running   the step's micro-batches so far, the current one included
 *   lagged    the previous step; none before the first one
 *   exact     all micro-batches of this step: counted ahead of the first backward by a counting
 *             pass, or by the forward itself when there is only one
 *
 * loss = "micro" needs no window: f is of one rank's micro-batch. */
#ifndef MT_MOE_BALANCE_H
#define MT_MOE_BALANCE_H

#include "base/status.h"
#include "config/config.h"

#include <stdint.h>

struct mt_balance {
    enum mt_balance_loss loss;
    enum mt_balance_window window;
    int64_t n_layer, n_expert;
    int64_t *window_count; /* [L,E] this step, as far as counted */
    int64_t *lagged_count; /* [L,E] the whole previous step; zeros: there was none */
    float *share;          /* [E] what mt_balance_share returns */
    bool is_counting;      /* a counting pass is under way */
    bool is_complete;      /* a counting pass has filled this step's window */
};

/* MT_ERR_CONFIG for a loss that this version does not have. */
enum mt_status mt_balance_init(struct mt_balance *balance, enum mt_balance_loss loss,
                               enum mt_balance_window window, int64_t n_layer, int64_t n_expert);
void mt_balance_clear(struct mt_balance *balance);

/* A new step: an empty window. */
void mt_balance_begin_step(struct mt_balance *balance);
/* count [E] of one layer and micro-batch over all ranks. is_kept: backward follows. */
void mt_balance_add(struct mt_balance *balance, int layer, const int64_t *count, bool is_kept);
void mt_balance_set_counting(struct mt_balance *balance, bool counting);
/* f [E] for the backward of a layer; NULL: no balance loss, or nothing counted. own_count [E]: this
 * rank's micro-batch. Valid until the next call. */
const float *mt_balance_share(struct mt_balance *balance, int layer, const int64_t *own_count);
/* The step is over. step_count [L,E] over all ranks and micro-batches. */
void mt_balance_end_step(struct mt_balance *balance, const int64_t *step_count);

#endif
