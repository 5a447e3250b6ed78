/* The kernel table of a GPU: every operation on the context that the device carries. */
#include "kernel/table.h"

#include "kernel/cuda/device.h"

static struct mt_cuda *cuda_of(const struct mt_device *device)
{
    return &mt_cuda_device_of(device)->cuda;
}

/* on<mt_cuda_gate_forward>::call is mt_cuda_gate_forward with the device for its context. */
template <auto operation> struct on;
template <typename... Argument, void (*operation)(struct mt_cuda *, Argument...)>
struct on<operation> {
    static void call(struct mt_device *device, Argument... argument)
    {
        operation(cuda_of(device), argument...);
    }
};

/* cuBLAS needs no preparation. */
static enum mt_status linear_prepare(struct mt_device *, int64_t, int64_t)
{
    return MT_OK;
}

/* One pack serves both directions; where the second would begin nobody reads or writes. */
static int64_t weight_bytes(const struct mt_device *device, int64_t n_out, int64_t n_in, bool)
{
    return mt_cuda_weight_bytes(cuda_of(device), n_out, n_in);
}

static int64_t attention_scratch_bytes(const struct mt_device *device,
                                       const struct mt_attention *shape)
{
    return mt_cuda_attention_scratch_bytes(cuda_of(device)->dtype, shape);
}

static int64_t expert_scratch_bytes(const struct mt_device *, int64_t inner, int64_t n)
{
    return mt_cuda_expert_scratch_bytes(inner, n);
}

static void adamw_update(struct mt_device *device, struct mt_adamw_item *item, int64_t n_item,
                         const struct mt_adamw *args)
{
    mt_cuda_adamw_update(cuda_of(device), item, n_item, args);
}

const struct mt_kernel_table mt_cuda_kernel_table = {
    linear_prepare,
    weight_bytes,
    on<mt_cuda_weight_pack>::call,
    on<mt_cuda_linear_forward>::call,
    on<mt_cuda_linear_backward_input>::call,
    on<mt_cuda_linear_backward_weight>::call,
    on<mt_cuda_grouped_forward>::call,
    on<mt_cuda_grouped_backward_input>::call,
    on<mt_cuda_grouped_backward_weight>::call,
    on<mt_cuda_bias_forward>::call,
    on<mt_cuda_bias_backward>::call,
    on<mt_cuda_rms_norm_forward>::call,
    on<mt_cuda_add_rms_norm_forward>::call,
    on<mt_cuda_rms_norm_backward>::call,
    attention_scratch_bytes,
    on<mt_cuda_attention_forward>::call,
    on<mt_cuda_attention_backward>::call,
    expert_scratch_bytes,
    on<mt_cuda_expert_forward>::call,
    on<mt_cuda_expert_backward>::call,
    on<mt_cuda_expert_backward_rest>::call,
    on<mt_cuda_router_forward>::call,
    on<mt_cuda_router_backward>::call,
    on<mt_cuda_gate_forward>::call,
    on<mt_cuda_gate_backward>::call,
    on<mt_cuda_sigmoid_forward>::call,
    on<mt_cuda_sigmoid_backward>::call,
    on<mt_cuda_rows_copy>::call,
    on<mt_cuda_rows_combine>::call,
    on<mt_cuda_embedding_forward>::call,
    on<mt_cuda_embedding_backward>::call,
    on<mt_cuda_cross_entropy>::call,
    adamw_update,
    on<mt_cuda_sum_squares>::call,
    on<mt_cuda_fill_zero>::call,
};
