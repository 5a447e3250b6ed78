/* Sigmoid, rows, embedding, loss, optimizer and sums of the emulated GPU, staged. */
#include "emulation/staging.h"

#include <algorithm>

/* Floats of an array whose rows are at these offsets. */
static int64_t extent_of(const int64_t *offset, int64_t n, int64_t width)
{
    int64_t last = offset == nullptr ? (n - 1) * width : -width;
    for (int64_t i = 0; offset != nullptr && i < n; i++) {
        last = std::max(last, offset[i]);
    }
    return last + width;
}

static void sigmoid_forward(struct mt_device *device, float *y, const float *x, int64_t n)
{
    call c(device);
    float *out = y == x ? c.inout(y, n) : c.out(y, n);
    mt_cuda_sigmoid_forward(c.cuda, out, c.in(x, n), n);
    c.finish();
}

static void sigmoid_backward(struct mt_device *device, float *d_x, const float *d_y, const float *y,
                             int64_t n)
{
    call c(device);
    float *out = d_x == d_y ? c.inout(d_x, n) : c.out(d_x, n);
    mt_cuda_sigmoid_backward(c.cuda, out, c.in(d_y, n), c.in(y, n), n);
    c.finish();
}

static void rows_copy(struct mt_device *device, float *out, const int64_t *out_offset,
                      const float *in, const int64_t *in_offset, int64_t n, int64_t width)
{
    call c(device);
    float *to = c.inout(out, extent_of(out_offset, n, width));
    const float *from = c.in(in, extent_of(in_offset, n, width));
    mt_cuda_rows_copy(c.cuda, to, c.in(out_offset, n), from, c.in(in_offset, n), n, width);
    c.finish();
}

static void rows_combine(struct mt_device *device, const struct mt_rows_combine *args, int64_t n)
{
    call c(device);
    struct mt_rows_combine copy = *args;
    const int64_t n_pair = n * args->n_choice;
    copy.out =
        args->accumulate ? c.inout(args->out, n * args->width) : c.out(args->out, n * args->width);
    copy.in = c.in(args->in, n_pair > 0 ? extent_of(args->in_offset, n_pair, args->width) : 0);
    copy.in_offset = c.in(args->in_offset, n_pair);
    mt_cuda_rows_combine(c.cuda, &copy, n);
    c.finish();
}

/* Rows of a table that these tokens have. */
static int64_t n_row_of(const int32_t *token, int64_t n)
{
    return 1 + *std::max_element(token, token + n);
}

static void embedding_forward(struct mt_device *device, float *x, const int32_t *token,
                              const float *table, int64_t n, int64_t width)
{
    call c(device);
    mt_cuda_embedding_forward(c.cuda, c.out(x, n * width), c.in(token, n),
                              c.in(table, n_row_of(token, n) * width), n, width);
    c.finish();
}

static void embedding_backward(struct mt_device *device, float *d_table, const int32_t *token,
                               const float *d_x, int64_t n, int64_t width)
{
    call c(device);
    mt_cuda_embedding_backward(c.cuda, c.inout(d_table, n_row_of(token, n) * width), c.in(token, n),
                               c.in(d_x, n * width), n, width);
    c.finish();
}

static void cross_entropy(struct mt_device *device, double *loss, float *logits,
                          const int32_t *target, int64_t n, int64_t vocab, float scale)
{
    call c(device);
    mt_cuda_cross_entropy(c.cuda, c.out(loss, 1), c.inout(logits, n * vocab), c.in(target, n), n,
                          vocab, scale);
    c.finish();
}

static void adamw_update(struct mt_device *device, struct mt_adamw_item *item, int64_t n_item,
                         const struct mt_adamw *args)
{
    call c(device);
    std::vector<struct mt_adamw_item> copies(item, item + n_item);
    std::vector<struct mt_weight> weights(static_cast<size_t>(n_item));
    for (int64_t i = 0; i < n_item; i++) {
        struct mt_adamw_item *copy = &copies[size_t(i)];
        copy->value = c.inout(item[i].value, item[i].n);
        copy->grad = c.inout(item[i].grad, item[i].n);
        copy->m = c.inout(item[i].m, item[i].n);
        copy->v = c.inout(item[i].v, item[i].n);
        if (item[i].weight != nullptr) {
            weights[size_t(i)] = c.weight(item[i].weight, true);
            copy->weight = &weights[size_t(i)];
        }
    }
    mt_cuda_adamw_update(c.cuda, copies.data(), n_item, args);
    c.finish();
}

static void sum_squares(struct mt_device *device, double *sum, const float *x, int64_t n)
{
    call c(device);
    mt_cuda_sum_squares(c.cuda, c.out(sum, 1), c.in(x, n), n);
    c.finish();
}

static void fill_zero(struct mt_device *device, float *x, int64_t n)
{
    call c(device);
    mt_cuda_fill_zero(c.cuda, c.out(x, n), n);
    c.finish();
}

void emu_fill_rows(struct mt_kernel_table *table)
{
    table->sigmoid_forward = sigmoid_forward;
    table->sigmoid_backward = sigmoid_backward;
    table->rows_copy = rows_copy;
    table->rows_combine = rows_combine;
    table->embedding_forward = embedding_forward;
    table->embedding_backward = embedding_backward;
    table->cross_entropy = cross_entropy;
    table->adamw_update = adamw_update;
    table->sum_squares = sum_squares;
    table->fill_zero = fill_zero;
}
