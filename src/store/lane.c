#include "store/lane.h"

#include "device/memory.h"

#include <string.h>

enum mt_status mt_lane_init(struct mt_lane *lane, struct mt_device *device, struct mt_comm *comm,
                            int64_t max_op, int64_t plan_max_op, int64_t stage_bytes)
{
    memset(lane, 0, sizeof(*lane));
    lane->device = device;
    lane->user = -1;
    MT_TRY(mt_exec_create_device(comm, MT_BACKGROUND, max_op, &lane->exec));
    if (plan_max_op > 0) {
        MT_TRY(mt_plan_init(&lane->plan, plan_max_op));
    }
    if (stage_bytes > 0) {
        MT_TRY(mt_device_allocate(device, stage_bytes, "gradients on their way", &lane->stage));
        lane->stage_bytes = stage_bytes;
    }
    return MT_OK;
}

/* What is in flight is waited for, since its memory goes away; not after a failure, when the peers
 * may never come. */
void mt_lane_clear(struct mt_lane *lane)
{
    if (mt_error_last()->code == MT_OK) {
        (void)mt_lane_end(lane);
    }
    mt_exec_destroy(lane->exec);
    if (lane->plan.op != NULL) {
        mt_plan_clear(&lane->plan);
    }
    mt_device_free(lane->device, lane->stage);
    memset(lane, 0, sizeof(*lane));
    lane->user = -1;
}

enum mt_status mt_lane_begin(struct mt_lane *lane, int user, const struct mt_plan *plan, void *send,
                             void *recv)
{
    MT_ASSERT(lane->user < 0 && user >= 0);
    void *buffer[MT_N_BUFFER] = {NULL};
    buffer[MT_BUFFER_SEND] = send;
    buffer[MT_BUFFER_RECV] = recv;
    buffer[MT_BUFFER_STAGE] = lane->stage;
    MT_TRY(mt_exec_begin(lane->exec, plan, buffer));
    lane->user = user;
    return MT_OK;
}

enum mt_status mt_lane_end(struct mt_lane *lane)
{
    if (lane->user < 0) {
        return MT_OK;
    }
    lane->user = -1;
    return mt_exec_end(lane->exec);
}

enum mt_status mt_lane_end_user(struct mt_lane *lane, int user)
{
    return lane->user == user ? mt_lane_end(lane) : MT_OK;
}
