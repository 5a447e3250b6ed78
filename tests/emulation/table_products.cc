/* Matrix products of the emulated GPU, staged. */
#include "emulation/staging.h"

static enum mt_status linear_prepare(struct mt_device *, int64_t, int64_t)
{
    return MT_OK;
}

static int64_t weight_bytes(const struct mt_device *device, int64_t n_out, int64_t n_in, bool)
{
    return mt_cuda_weight_bytes(emu_context(device), n_out, n_in);
}

static void weight_pack(struct mt_device *device, struct mt_weight *weight, const float *values)
{
    call c(device);
    struct mt_weight copy = c.weight(weight, true);
    mt_cuda_weight_pack(c.cuda, &copy, c.in(values, weight->n_out * weight->n_in));
    c.finish();
}

static void linear_forward(struct mt_device *device, float *y, const float *x,
                           const struct mt_weight *weight, int64_t n)
{
    call c(device);
    const struct mt_weight w = c.weight(weight, false);
    mt_cuda_linear_forward(c.cuda, c.out(y, n * w.n_out), c.in(x, n * w.n_in), &w, n);
    c.finish();
}

static void linear_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                                  const struct mt_weight *weight, int64_t n, bool accumulate)
{
    call c(device);
    const struct mt_weight w = c.weight(weight, false);
    float *result = accumulate ? c.inout(d_x, n * w.n_in) : c.out(d_x, n * w.n_in);
    mt_cuda_linear_backward_input(c.cuda, result, c.in(d_y, n * w.n_out), &w, n, accumulate);
    c.finish();
}

static void linear_backward_weight(struct mt_device *device, float *d_w, const float *d_y,
                                   const float *x, int64_t n_out, int64_t n_in, int64_t n)
{
    call c(device);
    mt_cuda_linear_backward_weight(c.cuda, c.inout(d_w, n_out * n_in), c.in(d_y, n * n_out),
                                   c.in(x, n * n_in), n_out, n_in, n);
    c.finish();
}

/* Arrays begin at the groups' first row; addresses of row 0 are given, as kernel.h has it. */
static void grouped_forward(struct mt_device *device, float *y, const float *x,
                            const struct mt_weight *const *weight, struct mt_groups groups)
{
    call c(device);
    const weight_list w(&c, weight, groups.n_group);
    const int64_t first = first_row(groups);
    const int64_t n_out = weight[0]->n_out;
    const int64_t n_in = weight[0]->n_in;
    float *out = c.out(y + first * n_out, n_row(groups) * n_out);
    const float *in = c.in(x + first * n_in, n_row(groups) * n_in);
    mt_cuda_grouped_forward(c.cuda, out - first * n_out, in - first * n_in, w.pointers.data(),
                            groups);
    c.finish();
}

static void grouped_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                                   const struct mt_weight *const *weight, struct mt_groups groups,
                                   bool accumulate)
{
    call c(device);
    const weight_list w(&c, weight, groups.n_group);
    const int64_t first = first_row(groups);
    const int64_t n_out = weight[0]->n_out;
    const int64_t n_in = weight[0]->n_in;
    float *place = d_x + first * n_in;
    float *out =
        accumulate ? c.inout(place, n_row(groups) * n_in) : c.out(place, n_row(groups) * n_in);
    const float *in = c.in(d_y + first * n_out, n_row(groups) * n_out);
    mt_cuda_grouped_backward_input(c.cuda, out - first * n_in, in - first * n_out,
                                   w.pointers.data(), groups, accumulate);
    c.finish();
}

static void grouped_backward_weight(struct mt_device *device, float *const *d_w, const float *d_y,
                                    const float *x, int64_t n_out, int64_t n_in,
                                    struct mt_groups groups)
{
    call c(device);
    const gradient_list d(&c, d_w, groups.n_group, n_out * n_in);
    const int64_t first = first_row(groups);
    const float *left = c.in(d_y + first * n_out, n_row(groups) * n_out);
    const float *right = c.in(x + first * n_in, n_row(groups) * n_in);
    mt_cuda_grouped_backward_weight(c.cuda, d.pointers.data(), left - first * n_out,
                                    right - first * n_in, n_out, n_in, groups);
    c.finish();
}

void emu_fill_products(struct mt_kernel_table *table)
{
    table->linear_prepare = linear_prepare;
    table->weight_bytes = weight_bytes;
    table->weight_pack = weight_pack;
    table->linear_forward = linear_forward;
    table->linear_backward_input = linear_backward_input;
    table->linear_backward_weight = linear_backward_weight;
    table->grouped_forward = grouped_forward;
    table->grouped_backward_input = grouped_backward_input;
    table->grouped_backward_weight = grouped_backward_weight;
}
