/* The functions that kernels' launches call have these types, and constants these values: compiled
 * once with the toolkit's headers and once with the emulator's, so that the two cannot differ. */
#include <cublas_v2.h>
#include <cuda_runtime.h>

template <typename Function> void same(Function)
{
}

void compare()
{
    same<cudaError_t (*)(void **, size_t)>(&cudaMallocHost);
    same<cudaError_t (*)(void *)>(&cudaFreeHost);
    same<cudaError_t (*)(void *)>(&cudaFree);
    same<cudaError_t (*)(void *, const void *, size_t, enum cudaMemcpyKind)>(&cudaMemcpy);
    same<cudaError_t (*)(void *, const void *, size_t, enum cudaMemcpyKind, cudaStream_t)>(
        &cudaMemcpyAsync);
    same<cudaError_t (*)(void *, int, size_t, cudaStream_t)>(&cudaMemsetAsync);
    same<cudaError_t (*)(cudaStream_t *, unsigned)>(&cudaStreamCreateWithFlags);
    same<cudaError_t (*)(cudaStream_t)>(&cudaStreamSynchronize);
    same<cudaError_t (*)(cudaEvent_t *, unsigned)>(&cudaEventCreateWithFlags);
    same<cudaError_t (*)(cudaEvent_t, cudaStream_t)>(&cudaEventRecord);
    same<cublasStatus_t (*)(cublasHandle_t, void *, size_t)>(&cublasSetWorkspace);
    same<cublasStatus_t (*)(cublasHandle_t, const cublasOperation_t *, const cublasOperation_t *,
                            const int *, const int *, const int *, const void *,
                            const void *const *, cudaDataType_t, const int *, const void *const *,
                            cudaDataType_t, const int *, const void *, void *const *,
                            cudaDataType_t, const int *, int, const int *, cublasComputeType_t)>(
        &cublasGemmGroupedBatchedEx);
}

static_assert(CUBLAS_OP_N == 0 && CUBLAS_OP_T == 1 && CUBLAS_COMPUTE_32F == 68, "cuBLAS's values");
static_assert(CUDA_R_32F == 0 && CUDA_R_16BF == 14 && CUBLAS_GEMM_DEFAULT == -1, "types");
static_assert(cudaStreamNonBlocking == 1 && cudaEventDisableTiming == 2, "flags");
static_assert(cudaMemcpyHostToDevice == 1 && cudaMemcpyDeviceToHost == 2, "kinds of copies");
