/* A device: memory, order of work and speed. `cpu` is the real backend of this build.
 *
 * Paced mode makes many ranks on few cores behave as equal devices: every operation lasts at least
 * its modelled time (FLOPs / pace_gflops or bytes / pace_gbytes_per_s, whichever is longer, times
 * this rank's slowdown), by sleeping the remainder. A slowdown without pacing stretches the
 * measured time. Knows no mathematics. */
#ifndef MT_DEVICE_DEVICE_H
#define MT_DEVICE_DEVICE_H

#include "base/status.h"
#include "config/config.h"

#include <stdint.h>

struct mt_device {
    enum mt_device_kind kind;   /* MT_DEVICE_CPU */
    int n_thread;               /* OpenMP threads of this rank, >= 1 */
    double pace_gflops;         /* 0 = off */
    double pace_gbytes_per_s;   /* 0 = off */
    double slowdown;            /* >= 1 */
    int64_t pace_debt_ns;       /* modelled time not yet slept */
    int64_t operation_start_ns; /* of the operation in progress */
    double operation_flops;
    double operation_bytes;
};

/* `local_size`: ranks on this machine, for threads = auto: cores / local_size, at least 1.
 * MT_ERR_RESOURCE for kind cuda: no device. */
enum mt_status mt_device_init(struct mt_device *device, const struct mt_config *config, int rank,
                              int local_size);
/* One thread, unpaced: for tests and one-process commands. */
void mt_device_init_plain(struct mt_device *device);

/* Around every kernel: FLOPs it computes and bytes it moves. Nearly free when not paced. */
void mt_device_operation_begin(struct mt_device *device, double flops, double bytes);
void mt_device_operation_end(struct mt_device *device);

/* Sleeps off what is still owed: before communication, so that a slow device arrives late. */
void mt_device_settle(struct mt_device *device);

/* One line for logs and metrics: "cpu, 2 threads, AMD EPYC, avx512". text [bytes] */
void mt_device_describe(const struct mt_device *device, char *text, size_t bytes);

#endif
