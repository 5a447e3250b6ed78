/* Sums by phase where a device that is not the host does the work. The host enqueues it in no time,
 * and says so much later that it is over: so a phase's time is
 *
 *   device   [attention][gate]      [expert]~~wait~~[expert  ]        [head]
 *   host     att.gate|wait for the GPU|expert..  |data           |head|
 *   counted   attention  gate  --    expert   wait   expert    data    head
 *
 * - the device's, in pieces, with its waits for messages (device/timeline.h tells them);
 * - and, while the device has nothing to do, the host's in what is the host's own work, and its
 *   waits for other ranks (base/clock.h tells them).
 *
 * So phases exclude each other here too. Of what the host does, all is known when the device has
 * been waited for: until then it is kept, and counts for whichever step it is then. Nothing of this
 * is used while no device is open. Owned by the main thread. */
#ifndef MT_BASE_DEVICE_TIME_H
#define MT_BASE_DEVICE_TIME_H

#include "base/clock.h"

#include <stdbool.h>
#include <stdint.h>

/* ends: what is enqueued from now on is of another phase, or of none for a while. */
void mt_device_time_open(void (*ends)(void *context), void *context);
void mt_device_time_close(void);
bool mt_device_time_is_on(void);

/* Of the device, on mt_clock_ns's clock, ascending, known when it is over. */
struct mt_device_piece {
    enum mt_phase phase; /* MT_N_PHASE: none */
    int layer;           /* -1: none */
    int64_t begin_ns, end_ns;
    bool is_wait; /* it stood still for messages */
};
void mt_device_time_add(const struct mt_device_piece *piece);
/* It has been given something to do: what the host does from now on may be beside it. */
void mt_device_time_begin(void);
/* It has done everything, and all pieces have been added. */
void mt_device_time_settle(void);

/* For clock.c: a phase begins or ends; what the host did, ascending. */
void mt_device_time_change_phase(void);
void mt_device_time_host(enum mt_phase phase, int64_t begin_ns, int64_t end_ns, bool is_wait);

#endif
