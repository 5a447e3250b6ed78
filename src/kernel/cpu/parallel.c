#include "kernel/cpu/parallel.h"

#include "base/size.h"

#include <omp.h>

int mt_cpu_library_threads_off(void)
{
    const int before = omp_get_max_threads();
    if (before != 1) {
        omp_set_num_threads(1);
    }
    return before;
}

void mt_cpu_library_threads_on(int before)
{
    if (before != 1) {
        omp_set_num_threads(before);
    }
}

struct work {
    struct mt_device *device;
    int64_t n, chunk_size;
    mt_cpu_chunk_fn body;
    void *context;
};

static void do_chunk(const struct work *work, int64_t index)
{
    const int64_t begin = index * work->chunk_size;
    const struct mt_cpu_chunk chunk = {index, begin, mt_min_i64(begin + work->chunk_size, work->n),
                                       omp_get_thread_num()};
    work->body(work->context, &chunk);
    mt_cpu_breathe(work->device, &chunk);
}

void mt_cpu_for_chunks(struct mt_device *device, int64_t n, int64_t chunk_size,
                       mt_cpu_chunk_fn body, void *context)
{
    MT_ASSERT(n >= 0 && chunk_size >= 1);
    const struct work work = {device, n, chunk_size, body, context};
    const int64_t n_chunk = mt_ceil_div(n, chunk_size);
    const int before = mt_cpu_library_threads_off();
    if (device->n_thread <= 1 || n_chunk <= 1) {
        for (int64_t index = 0; index < n_chunk; index++) {
            do_chunk(&work, index);
        }
    } else {
        /* Team members inherit the setting of 1 for anything that they enter themselves. */
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->n_thread)
        for (int64_t index = 0; index < n_chunk; index++) {
            do_chunk(&work, index);
        }
    }
    mt_cpu_library_threads_on(before);
}
