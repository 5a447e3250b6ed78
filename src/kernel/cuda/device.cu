/* The GPU as the device of device/module.h: its memory, and copies in the order of its work. */
#include "kernel/cuda/device.h"

#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

#include <stdio.h>
#include <string.h>

#include <new>

static const double mib = 1024.0 * 1024.0;

static struct mt_cuda *cuda_of(const struct mt_device *device)
{
    return &mt_cuda_device_of(device)->cuda;
}

/* ---- rings ---- */

static void open_ring(struct mt_cuda *cuda, struct mt_cuda_ring *ring, cudaStream_t stream,
                      int64_t part_bytes)
{
    void *base = NULL;
    ring->stream = stream;
    ring->part_bytes = part_bytes;
    mt_cuda_check(cuda, cudaMallocHost(&base, (size_t)(MT_CUDA_RING_PARTS * part_bytes)),
                  "allocating pinned memory");
    ring->base = static_cast<char *>(base);
    for (int i = 0; i < MT_CUDA_RING_PARTS; i++) {
        mt_cuda_check(cuda, cudaEventCreateWithFlags(&ring->left[i], cudaEventDisableTiming),
                      "a new event");
    }
}

/* What is fetched is small and soon: counts and choices of one layer. */
static enum mt_status open_rings(struct mt_cuda_device *d)
{
    open_ring(&d->cuda, &d->ring, d->cuda.stream, INT64_C(16) << 20);
    open_ring(&d->cuda, &d->fetched, d->cuda.fetch, INT64_C(1) << 20);
    return d->cuda.status;
}

static void close_ring(struct mt_cuda_ring *ring)
{
    for (int i = 0; i < MT_CUDA_RING_PARTS; i++) {
        if (ring->left[i] != NULL) {
            (void)cudaEventDestroy(ring->left[i]);
        }
    }
    (void)cudaFreeHost(ring->base);
}

/* Hands on the downloads that lie in [begin, end) of the ring, whose copies are over. */
static void hand_on(struct mt_cuda_ring *ring, const char *begin, const char *end)
{
    int n_kept = 0;
    for (int i = 0; i < ring->n_arrival; i++) {
        const struct mt_cuda_arrival *a = &ring->arrival[i];
        if (a->from >= begin && a->from < end) {
            memcpy(a->to, a->from, (size_t)a->n_bytes);
        } else {
            ring->arrival[n_kept++] = *a;
        }
    }
    ring->n_arrival = n_kept;
}

static bool is_stream_over(const struct mt_cuda *cuda, cudaStream_t stream)
{
    return cuda->status != MT_OK || cudaStreamQuery(stream) != cudaErrorNotReady;
}

static bool is_over(const struct mt_device *device)
{
    return is_stream_over(cuda_of(device), cuda_of(device)->stream);
}

/* Everything on the ring's stream is over. */
static enum mt_status wait_for_ring(struct mt_device *device, struct mt_cuda_ring *ring)
{
    struct mt_cuda *cuda = cuda_of(device);
    while (!is_stream_over(cuda, ring->stream)) {
        if (device->idle != NULL) {
            (void)device->idle(device->idle_context); /* notices when a peer is gone */
        }
    }
    const enum mt_status status = mt_cuda_wait_for(cuda, ring->stream);
    hand_on(ring, ring->base, ring->base + MT_CUDA_RING_PARTS * ring->part_bytes);
    memset(ring->is_busy, 0, sizeof(ring->is_busy));
    ring->part = 0;
    ring->at = 0;
    return status;
}

static enum mt_status wait(struct mt_device *device)
{
    struct mt_cuda_device *d = mt_cuda_device_of(device);
    const enum mt_status status = wait_for_ring(device, &d->ring);
    return d->fetched.n_arrival > 0 ? wait_for_ring(device, &d->fetched) : status;
}

static void enter_next_part(struct mt_cuda *cuda, struct mt_cuda_ring *ring)
{
    mt_cuda_check(cuda, cudaEventRecord(ring->left[ring->part], ring->stream),
                  "recording an event");
    ring->is_busy[ring->part] = true;
    ring->part = (ring->part + 1) % MT_CUDA_RING_PARTS;
    ring->at = 0;
    if (ring->is_busy[ring->part]) {
        const char *begin = ring->base + ring->part * ring->part_bytes;
        mt_cuda_check(cuda, cudaEventSynchronize(ring->left[ring->part]), "a copy");
        hand_on(ring, begin, begin + ring->part_bytes);
        ring->is_busy[ring->part] = false;
    }
}

/* Room for n_bytes <= part_bytes that nothing on the way still needs. */
static char *stage(struct mt_cuda *cuda, struct mt_cuda_ring *ring, int64_t n_bytes)
{
    if (ring->at + n_bytes > ring->part_bytes) {
        enter_next_part(cuda, ring);
    }
    char *at = ring->base + ring->part * ring->part_bytes + ring->at;
    ring->at += (n_bytes + 255) / 256 * 256;
    return at;
}

static void upload(struct mt_device *device, void *to, const void *from, int64_t n_bytes)
{
    struct mt_cuda *cuda = cuda_of(device);
    struct mt_cuda_ring *ring = &mt_cuda_device_of(device)->ring;
    MT_ASSERT(!cuda->is_aside);
    for (int64_t done = 0; done < n_bytes && cuda->status == MT_OK; done += ring->part_bytes) {
        const int64_t n = mt_cuda_min(n_bytes - done, ring->part_bytes);
        char *at = stage(cuda, ring, n);
        memcpy(at, static_cast<const char *>(from) + done, (size_t)n);
        mt_cuda_check(cuda,
                      cudaMemcpyAsync(static_cast<char *>(to) + done, at, (size_t)n,
                                      cudaMemcpyHostToDevice, ring->stream),
                      "copying to the GPU");
    }
}

static void download_by(struct mt_device *device, struct mt_cuda_ring *ring, void *to,
                        const void *from, int64_t n_bytes)
{
    struct mt_cuda *cuda = cuda_of(device);
    for (int64_t done = 0; done < n_bytes && cuda->status == MT_OK; done += ring->part_bytes) {
        const int64_t n = mt_cuda_min(n_bytes - done, ring->part_bytes);
        if (ring->n_arrival == MT_CUDA_MAX_ARRIVALS) {
            (void)wait_for_ring(device, ring);
        }
        char *at = stage(cuda, ring, n);
        mt_cuda_check(cuda,
                      cudaMemcpyAsync(at, static_cast<const char *>(from) + done, (size_t)n,
                                      cudaMemcpyDeviceToHost, ring->stream),
                      "copying from the GPU");
        ring->arrival[ring->n_arrival++] = {static_cast<char *>(to) + done, at, n};
    }
}

static void download(struct mt_device *device, void *to, const void *from, int64_t n_bytes)
{
    MT_ASSERT(!cuda_of(device)->is_aside);
    download_by(device, &mt_cuda_device_of(device)->ring, to, from, n_bytes);
}

/* ---- beside the order ---- */

static void fetch_begin(struct mt_device *device)
{
    mt_cuda_follow(cuda_of(device), cuda_of(device)->fetch);
}

static void fetch(struct mt_device *device, void *to, const void *from, int64_t n_bytes)
{
    download_by(device, &mt_cuda_device_of(device)->fetched, to, from, n_bytes);
}

static enum mt_status fetch_wait(struct mt_device *device)
{
    return wait_for_ring(device, &mt_cuda_device_of(device)->fetched);
}

static void aside_begin(struct mt_device *device)
{
    mt_cuda_aside_begin(cuda_of(device));
}

static void aside_end(struct mt_device *device)
{
    mt_cuda_aside_end(cuda_of(device));
}

static void aside_join(struct mt_device *device)
{
    mt_cuda_aside_join(cuda_of(device));
}

static const void *lend(struct mt_device *device, const void *from, int64_t n_bytes)
{
    struct mt_cuda_device *d = mt_cuda_device_of(device);
    const int64_t span = (n_bytes + 255) / 256 * 256;
    if (span > d->lent_bytes) {
        mt_cuda_refuse(&d->cuda, "an array for an operation is larger than was reserved; expected "
                                 "mt_device_reserve of the largest rows");
        return NULL;
    }
    if (d->lent_at + span > d->lent_bytes) {
        d->lent_at = 0;
    }
    char *at = d->lent + d->lent_at;
    d->lent_at += span;
    upload(device, at, from, n_bytes);
    return at;
}

static void copy(struct mt_device *device, void *to, const void *from, int64_t n_bytes)
{
    struct mt_cuda *cuda = cuda_of(device);
    mt_cuda_check(
        cuda, cudaMemcpyAsync(to, from, (size_t)n_bytes, cudaMemcpyDeviceToDevice, cuda->stream),
        "copying on the GPU");
}

static void fill_zero(struct mt_device *device, void *memory, int64_t n_bytes)
{
    struct mt_cuda *cuda = cuda_of(device);
    mt_cuda_check(cuda, cudaMemsetAsync(memory, 0, (size_t)n_bytes, cuda->stream),
                  "filling memory");
}

/* ---- marks ---- */

static enum mt_status create_marks(struct mt_cuda_device *d)
{
    for (int i = 0; i < MT_DEVICE_MARKS; i++) {
        mt_cuda_check(&d->cuda, cudaEventCreateWithFlags(&d->mark[i], cudaEventDefault),
                      "a new event");
    }
    return d->cuda.status;
}

static void destroy_marks(struct mt_cuda_device *d)
{
    for (int i = 0; i < MT_DEVICE_MARKS && d->mark[i] != NULL; i++) {
        (void)cudaEventDestroy(d->mark[i]);
    }
}

static void mark(const struct mt_device *device, int which)
{
    struct mt_cuda_device *d = mt_cuda_device_of(device);
    mt_cuda_check(&d->cuda, cudaEventRecord(d->mark[which], d->cuda.stream), "recording a mark");
}

static void *event(const struct mt_device *device, int which)
{
    return mt_cuda_device_of(device)->mark[which];
}

static int64_t between_ns(const struct mt_device *device, int from, int to)
{
    struct mt_cuda_device *d = mt_cuda_device_of(device);
    float ms = 0.0F;
    mt_cuda_check(&d->cuda, cudaEventElapsedTime(&ms, d->mark[from], d->mark[to]),
                  "reading the time between two marks");
    return (int64_t)(1e6 * (double)ms);
}

/* ---- memory ---- */

static int64_t available_bytes(const struct mt_device *device)
{
    size_t n_free = 0;
    size_t n_all = 0;
    mt_cuda_check(cuda_of(device), cudaMemGetInfo(&n_free, &n_all), "asking for free memory");
    return (int64_t)n_free;
}

static enum mt_status allocate(struct mt_device *device, int64_t n_bytes, const char *what,
                               void **out)
{
    const cudaError_t error = cudaMalloc(out, n_bytes > 0 ? (size_t)n_bytes : 1);
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); /* it is told here, and once */
        return MT_FAIL(MT_ERR_RESOURCE,
                       "%s: %.1f MiB are wanted on GPU %d, and %.1f MiB are free; expected the run "
                       "to fit; use more ranks, a smaller train.micro_batch_size, "
                       "train.recompute = \"layer\", or a smaller model (see: moetrain plan)",
                       what, (double)n_bytes / mib, mt_cuda_device_of(device)->gpu,
                       (double)available_bytes(device) / mib);
    }
    mt_cuda_check(cuda_of(device), error, what);
    return cuda_of(device)->status;
}

static void free_memory(struct mt_device *device, void *memory)
{
    mt_cuda_check(cuda_of(device), cudaFree(memory), "freeing memory");
}

/* Memory [*has_bytes] that may grow while nothing uses it. */
static enum mt_status grow(struct mt_device *device, int64_t n_bytes, const char *what, char **at,
                           int64_t *has_bytes)
{
    void *larger = NULL;
    if (n_bytes <= *has_bytes) {
        return MT_OK;
    }
    enum mt_status status = wait(device);
    if (status == MT_OK) {
        (void)cudaFree(*at);
        *at = NULL;
        *has_bytes = 0;
        status = allocate(device, n_bytes, what, &larger);
    }
    if (status == MT_OK) {
        *at = static_cast<char *>(larger);
        *has_bytes = n_bytes;
    }
    return status;
}

static enum mt_status reserve(struct mt_device *device, int64_t n, int64_t width)
{
    static const int64_t few_bytes = INT64_C(1) << 20;
    struct mt_cuda_device *d = mt_cuda_device_of(device);
    const int64_t lent_bytes = mt_cuda_max(few_bytes, 16 * n * (int64_t)sizeof(int64_t));
    const enum mt_status status =
        grow(device, mt_cuda_scratch_bytes(n, width), "scratch of operations", &d->cuda.scratch,
             &d->cuda.scratch_bytes);
    d->lent_at = 0;
    return status != MT_OK
               ? status
               : grow(device, lent_bytes, "arguments of operations", &d->lent, &d->lent_bytes);
}

/* ---- opening ---- */

static enum mt_status choose(int local, int n_local)
{
    int n_gpu = 0;
    const cudaError_t error = cudaGetDeviceCount(&n_gpu);
    if (error != cudaSuccess || n_gpu == 0) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "device.kind = \"cuda\" needs a GPU, and CUDA shows none here: %s; expected "
                       "one a rank; set device.kind = \"cpu\", or see what nvidia-smi says and "
                       "CUDA_VISIBLE_DEVICES",
                       error != cudaSuccess ? cudaGetErrorString(error) : "no device");
    }
    if (n_local > n_gpu) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "this machine has %d ranks and %d GPU%s; expected one GPU a rank; start "
                       "fewer ranks a machine, or set device.kind = \"cpu\"",
                       n_local, n_gpu, n_gpu == 1 ? "" : "s");
    }
    if (cudaSetDevice(local) != cudaSuccess) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "GPU %d cannot be used: %s; expected it to be free; see what nvidia-smi "
                       "says of it",
                       local, cudaGetErrorString(cudaGetLastError()));
    }
    return MT_OK;
}

static void close_device(struct mt_device *device)
{
    struct mt_cuda_device *d = mt_cuda_device_of(device);
    if (d != NULL) {
        destroy_marks(d);
        close_ring(&d->ring);
        close_ring(&d->fetched);
        (void)cudaFree(d->lent);
        mt_cuda_clear(&d->cuda);
        delete d;
    }
    device->context = NULL;
}

static enum mt_status open_device(struct mt_device *device, int local, int n_local)
{
    struct cudaDeviceProp properties;
    enum mt_status status = choose(local, n_local);
    if (status != MT_OK) {
        return status;
    }
    struct mt_cuda_device *d = new (std::nothrow) mt_cuda_device();
    MT_ASSERT(d != NULL);
    device->context = d;
    d->gpu = local;
    status = mt_cuda_init(&d->cuda, device->dtype, mt_cuda_scratch_bytes(0, 0));
    if (status == MT_OK) {
        status = open_rings(d);
    }
    if (status == MT_OK) {
        status = create_marks(d);
    }
    if (status == MT_OK) {
        status = reserve(device, 0, 0);
    }
    if (status != MT_OK) {
        close_device(device);
        return status;
    }
    (void)snprintf(d->name, sizeof(d->name), "%s",
                   cudaGetDeviceProperties(&properties, local) == cudaSuccess ? properties.name
                                                                              : "GPU");
    return MT_OK;
}

static void describe(const struct mt_device *device, char *text, size_t bytes)
{
    const struct mt_cuda_device *d = mt_cuda_device_of(device);
    (void)snprintf(text, bytes, "cuda, GPU %d, %s, %s", d->gpu, d->name,
                   device->dtype == MT_BFLOAT16 ? "bfloat16" : "float32");
}

const struct mt_device_table mt_cuda_device_table = {
    open_device, close_device, allocate,    free_memory,     reserve,   upload,
    download,    lend,         copy,        fill_zero,       is_over,   wait,
    mark,        event,        between_ns,  available_bytes, describe,  fetch_begin,
    fetch,       fetch_wait,   aside_begin, aside_end,       aside_join};
