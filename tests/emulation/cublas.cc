/* The double of cuBLAS: plain loops over checked memory, when the stream runs. It accepts what this
 * project asks for and refuses the rest; sums are taken in float32, 32 terms at a time, as tensor
 * cores and blocked kernels do, and an element's order does not depend on the sizes beside it. */
#include "emulation/machine.h"

#include <emulated_language.cuh>

#include <cublas_v2.h>

#include <vector>

struct cublasContext {
    cudaStream_t stream;
};

namespace
{
struct product {
    bool a_is_transposed, b_is_transposed;
    int m, n, k;
    float alpha, beta;
    const void *a, *b;
    float *c;
    int lda, ldb, ldc;
    cudaDataType type; /* of a and b */
};

const char *fault(const product &p)
{
    if (p.m < 0 || p.n < 0 || p.k < 0 || p.type != CUDA_R_32F) {
        return p.type == CUDA_R_16BF && p.m >= 0 && p.n >= 0 && p.k >= 0 ? nullptr
                                                                         : "a size or a type";
    }
    return nullptr;
}

bool has_right_strides(const product &p)
{
    return p.lda >= (p.a_is_transposed ? p.k : p.m) && p.ldb >= (p.b_is_transposed ? p.n : p.k) &&
           p.ldc >= p.m;
}

/* A column-major matrix of `rows` by `columns`, as floats in [row * row_step + column * step]. */
bool read_matrix(const emu_actor *actor, std::vector<float> *out, const void *matrix, int rows,
                 int columns, int stride, cudaDataType type)
{
    const size_t bytes = type == CUDA_R_16BF ? 2 : 4;
    out->resize(size_t(rows) * size_t(columns));
    for (int j = 0; j < columns; j++) {
        const char *column = static_cast<const char *>(matrix) + size_t(j) * size_t(stride) * bytes;
        if (!emu_memory_touch(actor, column, size_t(rows) * bytes, false)) {
            return false;
        }
        const void *values = emu_memory_inside(static_cast<const void *>(column));
        float *to = out->data() + size_t(j) * size_t(rows);
        for (int i = 0; i < rows; i++) {
            to[i] = bytes == 2 ? mt_bf16_float(static_cast<const uint16_t *>(values)[i])
                               : static_cast<const float *>(values)[i];
        }
    }
    return true;
}

/* [n, k] from [k, n]. */
void transpose(std::vector<float> *matrix, int rows, int columns)
{
    const std::vector<float> from = *matrix;
    for (int j = 0; j < columns; j++) {
        for (int i = 0; i < rows; i++) {
            (*matrix)[size_t(i) * size_t(columns) + size_t(j)] =
                from[size_t(j) * size_t(rows) + size_t(i)];
        }
    }
}

/* sum [m] of one column of the result: a [k][m], b [k]. */
void sum_column(float *sum, const float *a, const float *b, int m, int k)
{
    enum { TERMS = 32 };
    std::vector<float> part(static_cast<size_t>(m));
    for (int i = 0; i < m; i++) {
        sum[i] = 0.0F;
    }
    for (int first = 0; first < k; first += TERMS) {
        std::fill(part.begin(), part.end(), 0.0F);
        for (int l = first; l < k && l < first + TERMS; l++) {
            const float *row = a + size_t(l) * size_t(m);
            for (int i = 0; i < m; i++) {
                part[size_t(i)] += row[i] * b[l];
            }
        }
        for (int i = 0; i < m; i++) {
            sum[i] += part[size_t(i)];
        }
    }
}

void compute(const emu_actor *actor, const product &p)
{
    std::vector<float> a;
    std::vector<float> b;
    std::vector<float> sum(static_cast<size_t>(p.m));
    const bool is_read = read_matrix(actor, &a, p.a, p.a_is_transposed ? p.k : p.m,
                                     p.a_is_transposed ? p.m : p.k, p.lda, p.type) &&
                         read_matrix(actor, &b, p.b, p.b_is_transposed ? p.n : p.k,
                                     p.b_is_transposed ? p.k : p.n, p.ldb, p.type);
    if (!is_read) {
        return;
    }
    if (p.a_is_transposed) {
        transpose(&a, p.k, p.m);
    }
    if (p.b_is_transposed) {
        transpose(&b, p.n, p.k);
    }
    for (int j = 0; j < p.n; j++) {
        float *c = p.c + size_t(j) * size_t(p.ldc);
        const size_t bytes = size_t(p.m) * 4;
        if ((p.beta != 0.0F && !emu_memory_touch(actor, c, bytes, false)) ||
            !emu_memory_touch(actor, c, bytes, true)) {
            return;
        }
        float *values = static_cast<float *>(emu_memory_inside(static_cast<void *>(c)));
        sum_column(sum.data(), a.data(), b.data() + size_t(j) * size_t(p.k), p.m, p.k);
        for (int i = 0; i < p.m; i++) {
            values[i] = p.alpha * sum[size_t(i)] + (p.beta != 0.0F ? p.beta * values[i] : 0.0F);
        }
    }
}

/* Of a table on the device. */
void *pointer_at(const void *table, size_t index)
{
    return static_cast<void *const *>(emu_memory_inside(table))[index];
}

float scalar(const void *values, int index)
{
    return static_cast<const float *>(values)[index];
}
}  // namespace

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle)
{
    *handle = new cublasContext{nullptr};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes)
{
    (void)handle;
    const bool is_right = emu_memory_is_device(workspace) && bytes > 0 &&
                          reinterpret_cast<uintptr_t>(workspace) % 256 == 0;
    return is_right ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode)
{
    (void)handle;
    (void)mode;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS ? "success" : "an error of the emulated cuBLAS";
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa,
                            cublasOperation_t transb, int m, int n, int k, const void *alpha,
                            const void *A, cudaDataType Atype, int lda, const void *B,
                            cudaDataType Btype, int ldb, const void *beta, void *C,
                            cudaDataType Ctype, int ldc, cublasComputeType_t computeType,
                            cublasGemmAlgo_t algo)
{
    const product p = {transa == CUBLAS_OP_T,
                       transb == CUBLAS_OP_T,
                       m,
                       n,
                       k,
                       scalar(alpha, 0),
                       scalar(beta, 0),
                       A,
                       B,
                       static_cast<float *>(C),
                       lda,
                       ldb,
                       ldc,
                       Atype};
    if (fault(p) != nullptr || !has_right_strides(p) || Btype != Atype || Ctype != CUDA_R_32F ||
        computeType != CUBLAS_COMPUTE_32F || algo != CUBLAS_GEMM_DEFAULT) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    emu_enqueue(handle->stream, [p](const emu_actor *actor) { compute(actor, p); });
    emu_note_product(handle->stream);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmGroupedBatchedEx(
    cublasHandle_t handle, const cublasOperation_t transa_array[],
    const cublasOperation_t transb_array[], const int m_array[], const int n_array[],
    const int k_array[], const void *alpha_array, const void *const Aarray[], cudaDataType Atype,
    const int lda_array[], const void *const Barray[], cudaDataType Btype, const int ldb_array[],
    const void *beta_array, void *const Carray[], cudaDataType Ctype, const int ldc_array[],
    int group_count, const int group_size[], cublasComputeType_t computeType)
{
    std::vector<product> products;
    for (int g = 0; g < group_count; g++) {
        const product p = {transa_array[g] == CUBLAS_OP_T,
                           transb_array[g] == CUBLAS_OP_T,
                           m_array[g],
                           n_array[g],
                           k_array[g],
                           scalar(alpha_array, g),
                           scalar(beta_array, g),
                           nullptr,
                           nullptr,
                           nullptr,
                           lda_array[g],
                           ldb_array[g],
                           ldc_array[g],
                           Atype};
        if (fault(p) != nullptr || !has_right_strides(p) || group_size[g] != 1) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
        products.push_back(p);
    }
    if (Atype != CUDA_R_32F || Btype != Atype || Ctype != CUDA_R_32F ||
        computeType != CUBLAS_COMPUTE_32F) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    emu_enqueue(handle->stream, [=](const emu_actor *actor) mutable {
        const size_t bytes = products.size() * sizeof(void *);
        if (!emu_memory_touch(actor, Aarray, bytes, false) ||
            !emu_memory_touch(actor, Barray, bytes, false) ||
            !emu_memory_touch(actor, Carray, bytes, false)) {
            return;
        }
        for (size_t g = 0; g < products.size(); g++) {
            products[g].a = pointer_at(Aarray, g);
            products[g].b = pointer_at(Barray, g);
            products[g].c = static_cast<float *>(pointer_at(Carray, g));
            compute(actor, products[g]);
        }
    });
    emu_note_product(handle->stream);
    return CUBLAS_STATUS_SUCCESS;
}
