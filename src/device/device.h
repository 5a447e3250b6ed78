/* A device: memory (device/memory.h), order of work and speed. `cpu` is a real backend; a GPU is
 * driven by a module that is loaded when it is wanted (device/module.h).
 *
 * Paced mode makes many ranks on few cores behave as equal devices: every operation lasts at least
 * its modelled time (FLOPs / pace_gflops or bytes / pace_gbytes_per_s, whichever is longer, times
 * this rank's slowdown), by sleeping the remainder. A slowdown without pacing stretches the
 * measured time. Knows no mathematics. */
#ifndef MT_DEVICE_DEVICE_H
#define MT_DEVICE_DEVICE_H

#include "base/status.h"
#include "config/config.h"
#include "device/account.h"
#include "device/cores.h"

#include <stdbool.h>
#include <stdint.h>

/* What a device does for others while it computes or sleeps: advances communication
 * (docs/decisions/0006-progress.md). True: more is under way, call again soon. Must not use the
 * device. */
typedef bool (*mt_device_idle_fn)(void *context);

struct mt_module;
struct mt_timeline; /* device/timeline.h */

enum { MT_DEVICE_WHY_BYTES = 256 };

struct mt_device {
    enum mt_device_kind kind;   /* MT_DEVICE_CPU or MT_DEVICE_CUDA */
    enum mt_dtype dtype;        /* of the operands of matrix products (docs/decisions/0009) */
    int n_thread;               /* OpenMP threads of this rank, >= 1 */
    char bound[64];             /* what they are bound to, one core each; "": they are not */
    double pace_gflops;         /* 0 = off */
    double pace_gbytes_per_s;   /* 0 = off */
    double slowdown;            /* >= 1 */
    int64_t pace_debt_ns;       /* modelled time not yet slept */
    int64_t operation_start_ns; /* of the operation in progress */
    double operation_flops;
    double operation_bytes;
    enum mt_work operation_work;
    struct mt_account *account; /* NULL: nothing is summed */
    bool is_meter;              /* sums and never sleeps */
    double metered_ns;          /* of a meter's operations */
    mt_device_idle_fn idle;     /* NULL: none */
    void *idle_context;
    int64_t idle_ns;                /* when idle was last called inside an operation */
    const struct mt_module *module; /* NULL: the CPU */
    void *context;                  /* the module's own */
    int64_t n_wait;                 /* for the GPU */
    struct mt_timeline *timeline;   /* when the GPU did what; NULL: the CPU */
    char
        why_cpu[MT_DEVICE_WHY_BYTES]; /* and no GPU, where there was a choice; "": there was none */
};

/* `share`: the cores of this rank. threads = auto takes all of them and binds a thread to each when
 * the rank is alone there; a given number of threads is left to the system. It is the CPU until
 * mt_device_open. */
enum mt_status mt_device_init(struct mt_device *device, const struct mt_config *config, int rank,
                              const struct mt_core_share *share);
/* Where the configuration wants one, takes GPU number `local` of this machine, which has n_local
 * ranks. kind "cuda": MT_ERR_RESOURCE when there is none; "auto": it stays the CPU then, and
 * why_cpu says why. */
enum mt_status mt_device_open(struct mt_device *device, const struct mt_config *config, int local,
                              int n_local);
/* Back to the CPU; all memory of the GPU has been freed. `why`: for why_cpu. */
void mt_device_close(struct mt_device *device, const char *why);
/* One thread, unpaced, float32: for tests and one-process commands. */
void mt_device_init_plain(struct mt_device *device);
/* The kind and type that this configuration's device has: for plans of memory. Opens and sets
 * nothing. */
void mt_device_init_planned(struct mt_device *device, const struct mt_config *config);

/* Around every kernel: FLOPs it computes and bytes it moves. Nearly free when neither paced nor
 * accounted. */
void mt_device_operation_begin(struct mt_device *device, enum mt_work work, double flops,
                               double bytes);
void mt_device_operation_end(struct mt_device *device);

/* Sleeps off what is still owed: before communication, so that a slow device arrives late. */
void mt_device_settle(struct mt_device *device);

/* From now on `idle` is called while the device sleeps, and inside long operations. NULL: none. */
void mt_device_set_idle(struct mt_device *device, mt_device_idle_fn idle, void *context);
/* For long operations, between parts of some ten microseconds, on the thread that called them. */
void mt_device_breathe(struct mt_device *device);

/* A device whose operations are timed instead of slept: metered_ns is the sum of what they last on
 * `device` without its slowdown, modelled where it is paced and measured where not. It has no idle
 * function and no account. */
void mt_device_init_meter(struct mt_device *meter, const struct mt_device *device);

/* One line for logs and metrics: "cpu, 2 threads (CPU 0-1), AMD EPYC, avx512, float32".
 * text [bytes] */
void mt_device_describe(const struct mt_device *device, char *text, size_t bytes);

#endif
