/* Rows per expert of all ranks: what the gate counts, on its way to every host.
 *
 * Of devices with memory of their own it is one all-gather of equal blocks between them, behind the
 * gate and beside what the device gets next, and then one copy; else the host's own all-gather. */
#ifndef MT_MOE_COUNTS_H
#define MT_MOE_COUNTS_H

#include "comm/comm.h"
#include "device/device.h"

struct mt_counts {
    struct mt_device *device;
    struct mt_comm *comm;
    int64_t n_expert;
    int64_t *own;      /* dev [E], what the gate writes */
    int64_t *all;      /* dev [R,E]; NULL: hosts gather */
    int64_t *own_host; /* [E] then */
    struct mt_plan plan;
    struct mt_exec *exec;
};

enum mt_status mt_counts_init(struct mt_counts *counts, struct mt_device *device,
                              struct mt_comm *comm, int64_t n_expert);
void mt_counts_clear(struct mt_counts *counts); /* zeros allowed */

/* Behind the gate: `own` begins to travel, and so does what the caller fetches from here to `end`
 * (device/memory.h). Collective. */
enum mt_status mt_counts_begin(struct mt_counts *counts);
/* The one wait of a layer's forward: count [R,E] and what was fetched are there. Collective. */
enum mt_status mt_counts_end(struct mt_counts *counts, int64_t *count);

#endif
