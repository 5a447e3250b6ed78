/* The module's inside (device/module.h): what stands behind mt_device.context. */
#ifndef MT_KERNEL_CUDA_DEVICE_H
#define MT_KERNEL_CUDA_DEVICE_H

#include "device/module.h"
#include "kernel/cuda/cuda.h"

/* Copies between host and device go through a ring of pinned memory, in parts: the host enters a
 * part when the device has left it, which it did long ago unless there are more copies between two
 * waits than the ring holds. */
enum { MT_CUDA_RING_PARTS = 4 };

/* A download that has to be handed on after the wait. */
struct mt_cuda_arrival {
    void *to;
    const char *from; /* in the ring */
    int64_t n_bytes;
};
enum { MT_CUDA_MAX_ARRIVALS = 256 };

struct mt_cuda_ring {
    cudaStream_t stream; /* that its copies are on */
    int64_t part_bytes;
    char *base; /* pinned */
    int64_t at; /* of the part at hand, from its beginning */
    int part;
    bool is_busy[MT_CUDA_RING_PARTS]; /* `left` was recorded since the last wait */
    cudaEvent_t left[MT_CUDA_RING_PARTS];
    int n_arrival;
    struct mt_cuda_arrival arrival[MT_CUDA_MAX_ARRIVALS];
};

/* device->context, which begins with the context of the kernels */
struct mt_cuda_device {
    struct mt_cuda cuda;
    struct mt_cuda_ring ring;
    struct mt_cuda_ring fetched;
    char *lent;         /* dev: host arrays for the operations that follow, one behind another */
    int64_t lent_bytes; /* of which begins anew where it ends: the stream keeps the order */
    int64_t lent_at;
    cudaEvent_t mark[MT_DEVICE_MARKS];
    int gpu;
    char name[256];
};

static inline struct mt_cuda_device *mt_cuda_device_of(const struct mt_device *device)
{
    return static_cast<struct mt_cuda_device *>(device->context);
}

extern const struct mt_device_table mt_cuda_device_table;
extern const struct mt_kernel_table mt_cuda_kernel_table;

#endif
