/* Policies side by side: the trainer's own step under each, on routing of a wanted skew. */
#ifndef MT_TRAIN_BENCH_POLICIES_H
#define MT_TRAIN_BENCH_POLICIES_H

#include "config/config.h"

#include "base/status.h"

#include <stdio.h>

enum { MT_BENCH_MAX_SKEWS = 16 };

struct mt_bench_policies {
    const struct mt_config
        *config; /* routing = "synthetic" with a workload; its policy is not used */
    int n_skew;
    double skew[MT_BENCH_MAX_SKEWS];
    const char *policies; /* "ep,adaptive": only these; NULL: all of the table */
    bool ablation;        /* adaptive with parts switched off beside it */
};

/* Collective, agreed; rank 0 prints. For every skew all contestants are open at a time and make
 * their steps in turn, so that a disturbance of the machine meets all of them. */
enum mt_status mt_bench_policies(const struct mt_bench_policies *bench, FILE *out);

#endif
