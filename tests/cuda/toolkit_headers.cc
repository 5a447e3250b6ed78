/* The functions that kernels' launches call have these types, and constants these values: compiled
 * once with the toolkit's headers and once with the emulator's, so that the two cannot differ. */
#include <cublas_v2.h>
#include <cuda_runtime.h>
#ifdef MT_HAS_NCCL
#include <nccl.h>
#endif

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
    same<cudaError_t (*)(cudaEvent_t)>(&cudaEventQuery);
    same<cudaError_t (*)(cudaStream_t)>(&cudaStreamQuery);
    same<cudaError_t (*)(int *, int *)>(&cudaDeviceGetStreamPriorityRange);
    same<cudaError_t (*)(cudaStream_t *, unsigned, int)>(&cudaStreamCreateWithPriority);
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

static_assert(cudaErrorNotReady == 600, "of what is asked before it is over");

#ifdef MT_HAS_NCCL
void compare_nccl()
{
    same<ncclResult_t (*)(int *)>(&ncclGetVersion);
    same<ncclResult_t (*)(ncclUniqueId *)>(&ncclGetUniqueId);
    same<ncclResult_t (*)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *)>(
        &ncclCommInitRankConfig);
    same<ncclResult_t (*)(ncclComm_t)>(&ncclCommFinalize);
    same<ncclResult_t (*)(ncclComm_t)>(&ncclCommDestroy);
    same<ncclResult_t (*)(ncclComm_t)>(&ncclCommAbort);
    same<ncclResult_t (*)(ncclComm_t, ncclResult_t *)>(&ncclCommGetAsyncError);
    same<const char *(*)(ncclResult_t)>(&ncclGetErrorString);
    same<const char *(*)(ncclComm_t)>(&ncclGetLastError);
    same<ncclResult_t (*)()>(&ncclGroupStart);
    same<ncclResult_t (*)()>(&ncclGroupEnd);
    same<ncclResult_t (*)(const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t)>(
        &ncclSend);
    same<ncclResult_t (*)(void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t)>(
        &ncclRecv);
    same<ncclResult_t (*)(const void *, void *, size_t, ncclDataType_t, ncclComm_t, cudaStream_t)>(
        &ncclAllGather);
    same<ncclResult_t (*)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t,
                          cudaStream_t)>(&ncclAllReduce);
    same<ncclResult_t (*)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t,
                          cudaStream_t)>(&ncclReduceScatter);
}

static_assert(sizeof(ncclUniqueId) == 128, "the id");
static_assert(ncclInt8 == 0 && ncclInt32 == 2 && ncclInt64 == 4 && ncclFloat32 == 7, "types");
static_assert(ncclSum == 0 && ncclSuccess == 0 && ncclUnhandledCudaError == 1 &&
                  ncclSystemError == 2 && ncclInternalError == 3 && ncclInvalidArgument == 4 &&
                  ncclInvalidUsage == 5 && ncclRemoteError == 6 && ncclInProgress == 7,
              "results");
#endif
