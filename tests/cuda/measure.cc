/* measure [small]: prints the table of tests/gpu.sh. */
/* Headers of C first: those of kernels include them too. */
extern "C" {
#include "base/clock.h"
#include "base/random.h"
}

#include "cuda/measure.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

/* A layer of OLMoE's shape with 4096 tokens: arrays of 32 MiB and more, beyond any GPU's cache. */
static const struct sizes large = {1024, 4, 2048, 16, 16, 128, 64, 8, 1024, 50304, false};
static const struct sizes small = {40, 2, 64, 4, 2, 16, 4, 2, 24, 132, true};

static const int64_t least_ns = 50000000; /* that one round of calls lasts */
enum { ROUNDS = 3, HOST_VALUES = 1 << 20 };

static void require(bool is_right, const char *what)
{
    if (!is_right) {
        std::fprintf(stderr, "measure: %s\n", what);
        std::exit(1);
    }
}

static void require_cuda(cudaError_t error)
{
    require(error == cudaSuccess, cudaGetErrorString(error));
}

bench::bench(const struct sizes &of) : s(of)
{
    const int64_t n = n_token(s) * s.top_k;
    const int64_t widest = std::max(s.vocab, std::max(s.width, s.inner));
    const int64_t scratch = mt_cuda_scratch_bytes(n, std::max(s.width, s.inner)) + 8 * widest;
    for (const enum mt_dtype dtype : {MT_FLOAT32, MT_BFLOAT16}) {
        require(mt_cuda_init(cuda(dtype), dtype, scratch) == MT_OK, mt_error_last()->text);
    }
    measure_copies();
    measure_products(MT_FLOAT32);
    measure_products(MT_BFLOAT16);
}

bench::~bench()
{
    clear();
    mt_cuda_clear(&contexts[0]);
    mt_cuda_clear(&contexts[1]);
}

void *bench::allocate(size_t bytes)
{
    void *at = nullptr;
    require_cuda(cudaMalloc(&at, bytes));
    memory.push_back(at);
    return at;
}

void bench::clear()
{
    for (void *at : memory) {
        require_cuda(cudaFree(at));
    }
    memory.clear();
}

void *bench::copy_of(const void *host, size_t bytes)
{
    void *at = allocate(bytes);
    require_cuda(cudaMemcpy(at, host, bytes, cudaMemcpyHostToDevice));
    return at;
}

void *bench::zeros(int64_t bytes)
{
    void *at = allocate((size_t)bytes);
    require_cuda(cudaMemsetAsync(at, 0, (size_t)bytes, contexts[0].stream));
    require_cuda(cudaStreamSynchronize(contexts[0].stream));
    return at;
}

/* The first million is the host's; it is repeated on the device. */
float *bench::values(int64_t n)
{
    static std::vector<float> host;
    if (host.empty()) {
        host.resize(HOST_VALUES);
        mt_random_fill_normal(1, 1, 0, HOST_VALUES, 0.02F, host.data());
    }
    float *at = static_cast<float *>(allocate((size_t)n * sizeof(float)));
    int64_t done = std::min<int64_t>(n, HOST_VALUES);
    require_cuda(cudaMemcpy(at, host.data(), (size_t)done * sizeof(float), cudaMemcpyHostToDevice));
    while (done < n) {
        const int64_t more = std::min(done, n - done);
        require_cuda(
            cudaMemcpy(at + done, at, (size_t)more * sizeof(float), cudaMemcpyDeviceToDevice));
        done += more;
    }
    return at;
}

int32_t *bench::integers(int64_t n, int32_t bound)
{
    std::vector<int32_t> host(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; i++) {
        host[(size_t)i] = (int32_t)(mt_random_u64(2, 1, (uint64_t)i) % (uint64_t)bound);
    }
    return static_cast<int32_t *>(copy_of(host.data(), host.size() * sizeof(int32_t)));
}

struct mt_weight bench::weight(enum mt_dtype dtype, int64_t n_out, int64_t n_in)
{
    struct mt_weight made = {n_out, n_in, nullptr, nullptr};
    made.forward_pack = zeros(mt_cuda_weight_bytes(cuda(dtype), n_out, n_in));
    made.backward_pack = made.forward_pack;
    mt_cuda_weight_pack(cuda(dtype), &made, values(n_out * n_in));
    require(mt_cuda_wait(cuda(dtype)) == MT_OK, mt_error_last()->text);
    return made;
}

/* ---- time ---- */

/* Of one call, the fastest of a few rounds of many. */
double bench::seconds(struct mt_cuda *cuda, const std::function<void()> &work)
{
    int64_t best_ns = 0;
    int64_t n = 1;
    for (int round = 0; round < (s.is_small ? 1 : ROUNDS);) {
        const int64_t begin = mt_clock_ns();
        for (int64_t i = 0; i < n; i++) {
            work();
        }
        require(mt_cuda_wait(cuda) == MT_OK, mt_error_last()->text);
        const int64_t ns = std::max<int64_t>(1, mt_clock_ns() - begin);
        if (ns < least_ns && !s.is_small) {
            n *= 2;
            continue;
        }
        best_ns = round == 0 ? ns : std::min(best_ns, ns);
        round++;
    }
    return (double)best_ns * 1e-9 / (double)n;
}

void bench::measure_copies()
{
    const size_t bytes = s.is_small ? 4096 : (size_t)1 << 29;
    void *from = zeros((int64_t)bytes);
    void *to = zeros((int64_t)bytes);
    struct mt_cuda *c = cuda(MT_FLOAT32);
    const double time = seconds(c, [=] {
        require_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, c->stream));
    });
    bytes_per_s = 2.0 * (double)bytes / time;
    clear();
}

void bench::measure_products(enum mt_dtype dtype)
{
    const int64_t n = s.is_small ? 16 : 8192;
    const size_t bytes = (size_t)(n * n) * (dtype == MT_BFLOAT16 ? 2 : 4);
    const cudaDataType type = dtype == MT_BFLOAT16 ? CUDA_R_16BF : CUDA_R_32F;
    void *a = values(n * n);
    void *b = zeros((int64_t)bytes);
    void *c = values(n * n);
    struct mt_cuda *context = cuda(dtype);
    const double time = seconds(context, [=] {
        const float one = 1.0F;
        const float zero = 0.0F;
        require(cublasGemmEx(context->blas, CUBLAS_OP_T, CUBLAS_OP_N, (int)n, (int)n, (int)n, &one,
                             a, type, (int)n, b, type, (int)n, &zero, c, CUDA_R_32F, (int)n,
                             CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS,
                "cuBLAS refused a product");
    });
    flops_per_s[dtype == MT_BFLOAT16 ? 1 : 0] = 2.0 * (double)(n * n * n) / time;
    clear();
}

double bench::time(enum mt_dtype dtype, const std::function<void()> &work)
{
    work(); /* the first call of a kernel loads it */
    require(mt_cuda_wait(cuda(dtype)) == MT_OK, mt_error_last()->text);
    return seconds(cuda(dtype), work);
}

double bench::bound(enum mt_dtype dtype, double bytes, double flops) const
{
    return std::max(bytes / bytes_per_s, flops / flops_per_s[dtype == MT_BFLOAT16 ? 1 : 0]);
}

void bench::measure(const char *name, enum mt_dtype dtype, double bytes, double flops,
                    const std::function<void()> &work)
{
    const bool is_by_flops = bound(dtype, 0.0, flops) > bound(dtype, bytes, 0.0);
    lines.push_back({name, dtype, is_by_flops, bound(dtype, bytes, flops) / time(dtype, work)});
    clear();
}

void bench::print() const
{
    std::printf("Bounds of this run: copies at %.0f GB/s, products at %.1f TFLOP/s in float32 and "
                "%.1f in bfloat16.\n\n",
                bytes_per_s * 1e-9, flops_per_s[0] * 1e-12, flops_per_s[1] * 1e-12);
    std::printf("| operation | products in | bound by | of the bound |\n|---|---|---|---|\n");
    for (const line &l : lines) {
        std::printf("| %s | %s | %s | %.2f |\n", l.name.c_str(),
                    l.dtype == MT_BFLOAT16 ? "bfloat16" : "float32",
                    l.is_by_flops ? "products" : "copies", l.share);
    }
}

int main(int n_argument, char **argument)
{
    bench b(n_argument > 1 && std::strcmp(argument[1], "small") == 0 ? small : large);
    measure_products(&b);
    measure_attention(&b);
    measure_rows(&b);
    b.print();
    measure_ways(&b);
    return 0;
}
