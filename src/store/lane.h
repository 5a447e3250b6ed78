/* A lane runs one transfer after another: an executor, made once, and the memory that its
 * reductions need. Lanes bound how many transfers of the store are in flight, and the memory for
 * them; a transfer that finds its lane taken waits for the earlier one. Since users take lanes by
 * fixed rules, all ranks wait in the same order. Used by this room only. */
#ifndef MT_STORE_LANE_H
#define MT_STORE_LANE_H

#include "comm/comm.h"

/* All lanes together stay below MT_MAX_ACTIVE (64), with room for token exchanges and the small
 * collectives. Dense gathers want many, so that a whole model travels under the first layers. */
enum {
    MT_GATHER_LANES = 24,
    MT_REDUCE_LANES = 16,
    MT_EXPERT_GATHER_LANES = 4,
    MT_EXPERT_LATE_LANES = 2,
    MT_EXPERT_REDUCE_LANES = 2
};

struct mt_lane {
    struct mt_device *device;
    struct mt_exec *exec;
    struct mt_plan plan; /* where plans change from use to use; else empty */
    void *stage;         /* dev; NULL: this lane only gathers */
    int64_t stage_bytes;
    int user; /* bucket or layer whose transfer is in flight; -1: none */
};

/* max_op: of the largest plan; plan_max_op: capacity of lane->plan, 0 when not used. */
enum mt_status mt_lane_init(struct mt_lane *lane, struct mt_device *device, struct mt_comm *comm,
                            int64_t max_op, int64_t plan_max_op, int64_t stage_bytes);
void mt_lane_clear(struct mt_lane *lane);

/* Starts a transfer from `send` to `recv` memory in a free lane. */
enum mt_status mt_lane_begin(struct mt_lane *lane, int user, const struct mt_plan *plan, void *send,
                             void *recv);
/* Waits for whatever is in flight in the lane. */
enum mt_status mt_lane_end(struct mt_lane *lane);
/* Waits for this user's transfer; free when it is over. */
enum mt_status mt_lane_end_user(struct mt_lane *lane, int user);

#endif
