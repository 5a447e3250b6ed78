/* What the parts of the kernel benchmark share. */
#ifndef MT_KERNEL_BENCH_INTERNAL_H
#define MT_KERNEL_BENCH_INTERNAL_H

#include "base/memory.h"
#include "kernel/kernel.h"

#include <stdio.h>

struct mt_bench {
    struct mt_device *device;
    FILE *out;
    const char *only;      /* lines with this in their name; NULL: all */
    int n_line;            /* printed so far */
    struct mt_arena arena; /* data of the case that runs; released after it */
    double peak_gflops;    /* of all threads */
    double copy_gbytes_per_s;
};

enum mt_bench_bound { MT_BENCH_FLOPS, MT_BENCH_BYTES };

/* One operation on data held in `context`. */
typedef void (*mt_bench_fn)(struct mt_device *device, void *context);

/* Times `run` and prints a line: `work` is the FLOPs or bytes of one call, as `bound` says. */
void mt_bench_line(struct mt_bench *bench, const char *name, const char *shape,
                   enum mt_bench_bound bound, double work, mt_bench_fn run, void *context);

/* [n] floats in [-1, 1) from the arena. */
float *mt_bench_floats(struct mt_bench *bench, int64_t n);

enum mt_status mt_bench_products(struct mt_bench *bench);
enum mt_status mt_bench_experts(struct mt_bench *bench);
void mt_bench_attention(struct mt_bench *bench);
void mt_bench_rows(struct mt_bench *bench);
void mt_bench_tokens(struct mt_bench *bench);

#endif
