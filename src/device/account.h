/* What operations do, summed by phase and by kind of work: for benchmarks, which hang one on a
 * device (device.h). Without one an operation costs what it did: a comparison. */
#ifndef MT_DEVICE_ACCOUNT_H
#define MT_DEVICE_ACCOUNT_H

#include "base/clock.h"

/* MIXED: products and other work that one operation does together, such as attention; its FLOPs are
 * those of its products only. */
enum mt_work { MT_WORK_OTHER, MT_WORK_PRODUCT, MT_WORK_MIXED, MT_N_WORK };

enum { MT_N_ACCOUNT_ROW = MT_N_PHASE + 1 }; /* the last: outside all phases */

struct mt_work_sum {
    double flops, bytes;
    int64_t time_ns; /* computing, without what pacing sleeps; a GPU's, known after a wait */
};

/* Zeroed by its owner. */
struct mt_account {
    struct mt_work_sum sum[MT_N_ACCOUNT_ROW][MT_N_WORK];
};

#endif
