/* What the operations share: errors that are kept, scratch, launches. */
#ifndef MT_KERNEL_CUDA_CONTEXT_H
#define MT_KERNEL_CUDA_CONTEXT_H

#include "kernel/cuda/cuda.h"

/* Both keep the first error with the library's own text. */
void mt_cuda_check(struct mt_cuda *cuda, cudaError_t error, const char *what);
void mt_cuda_check_blas(struct mt_cuda *cuda, cublasStatus_t status, const char *what);
/* Refuses an operation: MT_ERR_RESOURCE. */
void mt_cuda_refuse(struct mt_cuda *cuda, const char *what);

/* Scratch belongs to one operation at a time: all work is on one stream, or joined to it. */
void mt_cuda_begin(struct mt_cuda *cuda);
/* 256-byte aligned; NULL, and the error kept, when there is not as much. */
void *mt_cuda_cut(struct mt_cuda *cuda, int64_t bytes);

/* Blocks of a launch over n items; more than this many walk in strides. */
unsigned mt_cuda_blocks(int64_t n, int64_t per_block);

#endif
