/* Threads for the CPU kernels: the one place where OpenMP is entered.
 *
 * Work of n items (rows, blocks) is cut into chunks of a size that the caller derives from the
 * problem alone, never from the number of threads: whatever is summed within a chunk and then over
 * chunks in order has the same bits on any number of threads. */
#ifndef MT_KERNEL_CPU_PARALLEL_H
#define MT_KERNEL_CPU_PARALLEL_H

#include "device/device.h"

#include <stdint.h>

struct mt_cpu_chunk {
    int64_t index;      /* in [0, ceil(n / chunk_size)) */
    int64_t begin, end; /* items begin .. end - 1, never empty */
    int thread;         /* in [0, device->n_thread): for scratch, never for results */
};

typedef void (*mt_cpu_chunk_fn)(void *context, const struct mt_cpu_chunk *chunk);

/* Calls `body` once per chunk of [0, n), chunk_size >= 1. With one thread the calls come in order
 * and OpenMP is not entered. n = 0: no call. */
void mt_cpu_for_chunks(struct mt_device *device, int64_t n, int64_t chunk_size,
                       mt_cpu_chunk_fn body, void *context);

/* Inside chunks that last long: lets communication advance, which is the calling thread's alone.
 * mt_cpu_for_chunks does so between chunks. */
static inline void mt_cpu_breathe(struct mt_device *device, const struct mt_cpu_chunk *chunk)
{
    if (chunk->thread == 0) {
        mt_device_breathe(device);
    }
}

/* Libraries that use OpenMP themselves see one thread from here to the matching `on`: their
 * results must not depend on the number of threads, and nested teams would only fight for cores.
 * mt_cpu_for_chunks does so around its work. */
int mt_cpu_library_threads_off(void);
void mt_cpu_library_threads_on(int before);

#endif
