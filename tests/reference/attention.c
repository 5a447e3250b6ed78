#include "reference/attention.h"

#include <math.h>
#include <stddef.h>

enum { MAX_LENGTH = 4096 };

/* Start of head h of position t of sequence b in an array of n_head heads a position. */
static int64_t at(const struct mt_ref_attention *shape, int64_t n_head, int64_t b, int64_t t,
                  int64_t h)
{
    return ((b * shape->length + t) * n_head + h) * shape->head_dim;
}

static double dot(const double *x, const double *y, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

/* y [n] += factor x [n] */
static void add(double *y, double factor, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] += factor * x[i];
    }
}

/* The first position that t sees. */
static int64_t first_of(const struct mt_ref_attention *shape, int64_t b, int64_t t)
{
    return shape->first != NULL ? shape->first[b * shape->length + t] : 0;
}

/* p [t+1] = the softmax of query t's scores; returns the log of the sum of exponentials. */
static double probabilities(double *p, const double *q, const double *k,
                            const struct mt_ref_attention *shape, int64_t b, int64_t t, int64_t h)
{
    const int64_t kv = h / (shape->n_head / shape->n_kv_head);
    double largest = -INFINITY;
    for (int64_t u = first_of(shape, b, t); u <= t; u++) {
        p[u] = dot(q + at(shape, shape->n_head, b, t, h), k + at(shape, shape->n_kv_head, b, u, kv),
                   shape->head_dim) /
               sqrt((double)shape->head_dim);
        largest = fmax(largest, p[u]);
    }
    double sum = 0.0;
    for (int64_t u = first_of(shape, b, t); u <= t; u++) {
        sum += exp(p[u] - largest);
    }
    for (int64_t u = first_of(shape, b, t); u <= t; u++) {
        p[u] = exp(p[u] - largest) / sum;
    }
    return largest + log(sum);
}

void mt_ref_attention_forward(double *o, double *lse, const double *q, const double *k,
                              const double *v, const struct mt_ref_attention *shape)
{
    double p[MAX_LENGTH];
    for (int64_t i = 0; i < shape->n_sequence * shape->n_head * shape->length; i++) {
        const int64_t t = i % shape->length;
        const int64_t h = i / shape->length % shape->n_head;
        const int64_t b = i / shape->length / shape->n_head;
        const int64_t kv = h / (shape->n_head / shape->n_kv_head);
        lse[i] = probabilities(p, q, k, shape, b, t, h);
        double *o_t = o + at(shape, shape->n_head, b, t, h);
        for (int64_t d = 0; d < shape->head_dim; d++) {
            o_t[d] = 0.0;
        }
        for (int64_t u = first_of(shape, b, t); u <= t; u++) {
            add(o_t, p[u], v + at(shape, shape->n_kv_head, b, u, kv), shape->head_dim);
        }
    }
}

/* One query: dP_u = d_o . v_u,  ds_u = P_u (dP_u - sum_w P_w dP_w) / sqrt(Dh) */
static void backward_query(const struct mt_ref_attention_backward *args,
                           const struct mt_ref_attention *shape, int64_t b, int64_t t, int64_t h)
{
    double p[MAX_LENGTH];
    double d_p[MAX_LENGTH];
    const int64_t n = shape->head_dim;
    const int64_t kv = h / (shape->n_head / shape->n_kv_head);
    const int64_t query = at(shape, shape->n_head, b, t, h);
    probabilities(p, args->q, args->k, shape, b, t, h);
    double mean = 0.0;
    for (int64_t u = first_of(shape, b, t); u <= t; u++) {
        d_p[u] = dot(args->d_o + query, args->v + at(shape, shape->n_kv_head, b, u, kv), n);
        mean += p[u] * d_p[u];
    }
    for (int64_t u = first_of(shape, b, t); u <= t; u++) {
        const int64_t key = at(shape, shape->n_kv_head, b, u, kv);
        const double d_s = p[u] * (d_p[u] - mean) / sqrt((double)n);
        add(args->d_v + key, p[u], args->d_o + query, n);
        add(args->d_q + query, d_s, args->k + key, n);
        add(args->d_k + key, d_s, args->q + query, n);
    }
}

void mt_ref_attention_backward(const struct mt_ref_attention_backward *args,
                               const struct mt_ref_attention *shape)
{
    const int64_t n_token = shape->n_sequence * shape->length;
    for (int64_t i = 0; i < n_token * shape->n_head * shape->head_dim; i++) {
        args->d_q[i] = 0.0;
    }
    for (int64_t i = 0; i < n_token * shape->n_kv_head * shape->head_dim; i++) {
        args->d_k[i] = 0.0;
        args->d_v[i] = 0.0;
    }
    for (int64_t i = 0; i < n_token * shape->n_head; i++) {
        const int64_t t = i / shape->n_head % shape->length;
        backward_query(args, shape, i / shape->n_head / shape->length, t, i % shape->n_head);
    }
}
