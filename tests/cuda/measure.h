/* Every kernel of kernel/cuda/ against what the card can do, each measured in the same run: its
 * bytes at the bandwidth of copies, its multiply-adds at the rate of one large product of cuBLAS.
 * The larger of both times is the operation's bound. Bytes are those of its arguments, each once:
 * what a cache keeps may show as more than 1 of the bound, what a kernel reads again as less. */
#ifndef MT_TESTS_CUDA_MEASURE_H
#define MT_TESTS_CUDA_MEASURE_H

#include "kernel/cuda/cuda.h"

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <string>
#include <vector>

/* A layer's sizes in the letters of docs/notation.md. */
struct sizes {
    int64_t length, n_sequence;
    int64_t width, n_head, n_kv_head, head_dim;
    int64_t n_expert, top_k, inner, vocab;
    bool is_small; /* everything runs once: for emulated devices and sanitizers */
};

inline int64_t n_token(const struct sizes &s)
{
    return s.length * s.n_sequence;
}

class bench
{
  public:
    explicit bench(const struct sizes &of);
    ~bench();
    const struct sizes s;

    /* Of this type, for operations that multiply matrices; others take float32's. */
    struct mt_cuda *cuda(enum mt_dtype dtype)
    {
        return &contexts[dtype == MT_BFLOAT16 ? 1 : 0];
    }
    /* Device memory that lives until the next clear(): normal values; integers in [0, bound); what
     * the host has; zeros. */
    float *values(int64_t n);
    int32_t *integers(int64_t n, int32_t bound);
    void *copy_of(const void *host, size_t bytes);
    void *zeros(int64_t bytes);
    /* A weight with its pack filled. */
    struct mt_weight weight(enum mt_dtype dtype, int64_t n_out, int64_t n_in);
    void clear();

    void measure(const char *name, enum mt_dtype dtype, double bytes, double flops,
                 const std::function<void()> &work);
    /* Seconds of one call. */
    double time(enum mt_dtype dtype, const std::function<void()> &work);
    /* The least that so many bytes and multiplications and additions take. */
    double bound(enum mt_dtype dtype, double bytes, double flops) const;
    /* A table in Markdown. */
    void print() const;

  private:
    struct line {
        std::string name;
        enum mt_dtype dtype;
        bool is_by_flops;
        double share;
    };
    struct mt_cuda contexts[2];
    double bytes_per_s, flops_per_s[2];
    std::vector<void *> memory;
    std::vector<line> lines;

    void *allocate(size_t bytes);
    double seconds(struct mt_cuda *cuda, const std::function<void()> &work);
    void measure_copies();
    void measure_products(enum mt_dtype dtype);
};

void measure_products(bench *b);  /* linear, packs, experts, router */
void measure_attention(bench *b); /* attention, norms, biases */
void measure_ways(bench *b);      /* products by both of their ways; prints a table of its own */
void measure_rows(bench *b);      /* gate, rows, embedding, loss, optimizer, sums */

#endif
