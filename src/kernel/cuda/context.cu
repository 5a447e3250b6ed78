#include "kernel/cuda/context.h"

#include "kernel/cuda/dev.cuh"

#include <string.h>

/* What cuBLAS asks for on Hopper, per handle. */
static const int64_t workspace_bytes = INT64_C(32) << 20;

void mt_cuda_check(struct mt_cuda *cuda, cudaError_t error, const char *what)
{
    if (error != cudaSuccess && cuda->status == MT_OK) {
        cuda->status = MT_FAIL(MT_ERR_RESOURCE,
                               "the GPU failed in %s: %s; expected success; see whether other jobs "
                               "use it and whether its memory suffices (moetrain plan)",
                               what, cudaGetErrorString(error));
    }
}

void mt_cuda_check_blas(struct mt_cuda *cuda, cublasStatus_t status, const char *what)
{
    if (status != CUBLAS_STATUS_SUCCESS && cuda->status == MT_OK) {
        cuda->status =
            MT_FAIL(MT_ERR_RESOURCE, "cuBLAS failed in %s: %s; expected success; check its version",
                    what, cublasGetStatusString(status));
    }
}

void mt_cuda_refuse(struct mt_cuda *cuda, const char *what)
{
    if (cuda->status == MT_OK) {
        cuda->status = MT_FAIL(MT_ERR_RESOURCE, "%s", what);
    }
}

static void open_handle(struct mt_cuda *cuda, cudaStream_t *stream, cublasHandle_t *blas, int index)
{
    mt_cuda_check(cuda, cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "a new stream");
    mt_cuda_check_blas(cuda, cublasCreate(blas), "a new handle");
    if (cuda->status == MT_OK) {
        mt_cuda_check_blas(cuda, cublasSetStream(*blas, *stream), "setting the stream");
        mt_cuda_check_blas(cuda,
                           cublasSetWorkspace(*blas, cuda->workspace + index * workspace_bytes,
                                              (size_t)workspace_bytes),
                           "setting the workspace");
        mt_cuda_check_blas(cuda, cublasSetMathMode(*blas, CUBLAS_DEFAULT_MATH), "setting the mode");
    }
}

enum mt_status mt_cuda_init(struct mt_cuda *cuda, enum mt_dtype dtype, int64_t scratch_bytes)
{
    memset(cuda, 0, sizeof(*cuda));
    cuda->ways = mt_cuda_planned_ways();
    cuda->dtype = dtype;
    cuda->scratch_bytes = scratch_bytes;
    const size_t all_workspaces = (size_t)((2 + MT_CUDA_SIDES) * workspace_bytes);
    mt_cuda_check(cuda, cudaMalloc(reinterpret_cast<void **>(&cuda->workspace), all_workspaces),
                  "allocating cuBLAS's workspaces");
    mt_cuda_check(cuda,
                  cudaMalloc(reinterpret_cast<void **>(&cuda->scratch), (size_t)scratch_bytes),
                  "allocating scratch");
    open_handle(cuda, &cuda->stream, &cuda->blas, 0);
    open_handle(cuda, &cuda->other.stream, &cuda->other.blas, 1 + MT_CUDA_SIDES);
    mt_cuda_check(cuda, cudaStreamCreateWithFlags(&cuda->fetch, cudaStreamNonBlocking),
                  "a new stream");
    mt_cuda_check(cuda, cudaEventCreateWithFlags(&cuda->forked, cudaEventDisableTiming),
                  "a new event");
    mt_cuda_check(cuda, cudaEventCreateWithFlags(&cuda->aside_done, cudaEventDisableTiming),
                  "a new event");
    for (int i = 0; i < MT_CUDA_SIDES; i++) {
        open_handle(cuda, &cuda->side[i], &cuda->side_blas[i], 1 + i);
        mt_cuda_check(cuda, cudaEventCreateWithFlags(&cuda->joined[i], cudaEventDisableTiming),
                      "a new event");
    }
    if (cuda->status != MT_OK) {
        const enum mt_status status = cuda->status;
        mt_cuda_clear(cuda);
        return status;
    }
    return MT_OK;
}

static void close_handle(cudaStream_t stream, cublasHandle_t blas, cudaEvent_t event)
{
    if (blas != NULL) {
        (void)cublasDestroy(blas);
    }
    if (stream != NULL) {
        (void)cudaStreamSynchronize(stream);
        (void)cudaStreamDestroy(stream);
    }
    if (event != NULL) {
        (void)cudaEventDestroy(event);
    }
}

void mt_cuda_clear(struct mt_cuda *cuda)
{
    close_handle(cuda->stream, cuda->blas, cuda->forked);
    close_handle(cuda->other.stream, cuda->other.blas, cuda->aside_done);
    close_handle(cuda->fetch, NULL, NULL);
    for (int i = 0; i < MT_CUDA_SIDES; i++) {
        close_handle(cuda->side[i], cuda->side_blas[i], cuda->joined[i]);
    }
    (void)cudaFree(cuda->workspace);
    (void)cudaFree(cuda->scratch);
    (void)cudaFree(cuda->other.scratch);
    memset(cuda, 0, sizeof(*cuda));
}

enum mt_status mt_cuda_wait_for(struct mt_cuda *cuda, cudaStream_t stream)
{
    mt_cuda_check(cuda, cudaGetLastError(), "a launch");
    mt_cuda_check(cuda, cudaStreamSynchronize(stream), "a kernel");
    return cuda->status;
}

enum mt_status mt_cuda_wait(struct mt_cuda *cuda)
{
    return mt_cuda_wait_for(cuda, cuda->stream);
}

/* ---- work aside ---- */

void mt_cuda_follow(struct mt_cuda *cuda, cudaStream_t stream)
{
    mt_cuda_check(cuda, cudaEventRecord(cuda->forked, cuda->stream), "an event");
    mt_cuda_check(cuda, cudaStreamWaitEvent(stream, cuda->forked, 0), "a wait");
}

static void change_lane(struct mt_cuda *cuda)
{
    const struct mt_cuda_lane next = cuda->other;
    cuda->other = {cuda->stream, cuda->blas, cuda->scratch, cuda->scratch_bytes};
    cuda->stream = next.stream;
    cuda->blas = next.blas;
    cuda->scratch = next.scratch;
    cuda->scratch_bytes = next.scratch_bytes;
    cuda->is_aside = !cuda->is_aside;
}

void mt_cuda_aside_begin(struct mt_cuda *cuda)
{
    MT_ASSERT(!cuda->is_aside);
    mt_cuda_follow(cuda, cuda->other.stream);
    change_lane(cuda);
}

void mt_cuda_aside_end(struct mt_cuda *cuda)
{
    MT_ASSERT(cuda->is_aside);
    change_lane(cuda);
}

void mt_cuda_aside_join(struct mt_cuda *cuda)
{
    MT_ASSERT(!cuda->is_aside);
    mt_cuda_check(cuda, cudaEventRecord(cuda->aside_done, cuda->other.stream), "an event");
    mt_cuda_check(cuda, cudaStreamWaitEvent(cuda->stream, cuda->aside_done, 0), "a wait");
}

/* Up to five rounded operands (an expert backward) beside its partial sums and tables. */
int64_t mt_cuda_scratch_bytes(int64_t n, int64_t width)
{
    const int64_t operands = 5 * n * width * (int64_t)sizeof(uint16_t);
    const int64_t partial_sums = INT64_C(512) * (width + 1) * (int64_t)sizeof(double);
    return operands + partial_sums + n * (int64_t)sizeof(double) + (INT64_C(1) << 20);
}

void mt_cuda_begin(struct mt_cuda *cuda)
{
    cuda->scratch_used = 0;
}

void *mt_cuda_cut(struct mt_cuda *cuda, int64_t bytes)
{
    const int64_t at = mt_cuda_ceil(cuda->scratch_used, 256) * 256;
    if (cuda->status != MT_OK || bytes > cuda->scratch_bytes - at) {
        mt_cuda_refuse(cuda, "an operation wants more scratch than the GPU's context has; expected "
                             "mt_cuda_scratch_bytes of its largest rows");
        return NULL;
    }
    cuda->scratch_used = at + bytes;
    return cuda->scratch + at;
}

unsigned mt_cuda_blocks(int64_t n, int64_t per_block)
{
    return (unsigned)mt_cuda_max(1, mt_cuda_min(mt_cuda_ceil(n, per_block), INT64_C(1) << 30));
}
