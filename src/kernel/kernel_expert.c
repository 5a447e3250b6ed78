/* Public face of the expert feed-forwards: checks, accounting, dispatch. */
#include "kernel/table.h"

int64_t mt_expert_scratch_bytes(const struct mt_device *device, int64_t inner, int64_t n)
{
    MT_ASSERT(inner >= 1 && n >= 0);
    return mt_kernel_table(device)->expert_scratch_bytes(device, inner, n);
}

static bool has_shape(const struct mt_weight *weight, int64_t n_out, int64_t n_in)
{
    return weight != NULL && weight->n_out == n_out && weight->n_in == n_in;
}

/* Groups with rows. */
static int64_t check_groups(const struct mt_expert_weights *weights, struct mt_groups groups)
{
    int64_t n_used = 0;
    MT_ASSERT(groups.n_group >= 0 && groups.offset != NULL && groups.offset[0] >= 0);
    for (int group = 0; group < groups.n_group; group++) {
        const int64_t inner = weights->gate[0]->n_out;
        const int64_t width = weights->gate[0]->n_in;
        MT_ASSERT(has_shape(weights->gate[group], inner, width) &&
                  has_shape(weights->up[group], inner, width) &&
                  has_shape(weights->down[group], width, inner));
        MT_ASSERT(groups.offset[group] <= groups.offset[group + 1]);
        n_used += groups.offset[group] < groups.offset[group + 1] ? 1 : 0;
    }
    return n_used;
}

void mt_expert_forward(struct mt_device *device, const struct mt_expert_forward *args,
                       const struct mt_expert_weights *weights, struct mt_groups groups)
{
    const int64_t n_used = check_groups(weights, groups);
    if (n_used == 0) {
        return;
    }
    MT_ASSERT(args->y != NULL && args->x != NULL && args->y != args->x && args->scratch != NULL);
    MT_ASSERT(args->gate != NULL && args->up != NULL);
    const double n = (double)(groups.offset[groups.n_group] - groups.offset[0]);
    const double inner = (double)weights->gate[0]->n_out;
    const double width = (double)weights->gate[0]->n_in;
    const double flops = 6.0 * n * inner * width;
    const double floats = 2.0 * n * (inner + width) + 3.0 * (double)n_used * inner * width;
    mt_kernel_begin_as(device, MT_WORK_MIXED, flops, 4.0 * floats)
        ->expert_forward(device, args, weights, groups);
    mt_device_operation_end(device);
}

void mt_expert_backward(struct mt_device *device, const struct mt_expert_backward *args,
                        const struct mt_expert_weights *weights, struct mt_groups groups)
{
    const int64_t n_used = check_groups(weights, groups);
    if (n_used == 0) {
        return;
    }
    MT_ASSERT(args->d_x != NULL && args->d_y != NULL && args->x != NULL && args->scratch != NULL);
    MT_ASSERT(args->gate != NULL && args->up != NULL);
    MT_ASSERT((args->d_row_weight == NULL) == (args->row_weight == NULL));
    MT_ASSERT(args->d_down_weight != NULL);
    MT_ASSERT((args->d_gate_weight == NULL) == (args->d_up_weight == NULL));
    const double n = (double)(groups.offset[groups.n_group] - groups.offset[0]);
    const double inner = (double)weights->gate[0]->n_out;
    const double width = (double)weights->gate[0]->n_in;
    const double n_product = args->d_gate_weight != NULL ? 6.0 : 4.0;
    const double n_weight = 3.0 + (args->d_gate_weight != NULL ? 6.0 : 2.0); /* read, added to */
    const double flops = n_product * 2.0 * n * inner * width;
    const double floats =
        n * (4.0 * inner + 3.0 * width) + n_weight * (double)n_used * inner * width;
    mt_kernel_begin_as(device, MT_WORK_MIXED, flops, 4.0 * floats)
        ->expert_backward(device, args, weights, groups);
    mt_device_operation_end(device);
}

void mt_expert_backward_rest(struct mt_device *device, const struct mt_expert_backward *args,
                             const struct mt_expert_weights *weights, struct mt_groups groups)
{
    const int64_t n_used = check_groups(weights, groups);
    if (n_used == 0) {
        return;
    }
    MT_ASSERT(args->gate != NULL && args->up != NULL && args->x != NULL);
    MT_ASSERT(args->d_gate_weight != NULL && args->d_up_weight != NULL);
    const double n = (double)(groups.offset[groups.n_group] - groups.offset[0]);
    const double inner = (double)weights->gate[0]->n_out;
    const double width = (double)weights->gate[0]->n_in;
    const double flops = 4.0 * n * inner * width;
    const double floats = n * (2.0 * inner + width) + 4.0 * (double)n_used * inner * width;
    mt_kernel_begin_as(device, MT_WORK_PRODUCT, flops, 4.0 * floats)
        ->expert_backward_rest(device, args, weights, groups);
    mt_device_operation_end(device);
}
