/* Expert feed-forwards: products of all groups, SwiGLU between them in one pass over memory, which
 * also rounds what the next product reads. An operand that two products read is rounded once. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"
#include "kernel/cuda/product.h"

enum { WARPS = 8 };

struct swiglu {
    float *act;              /* forward: written; backward: gradient of it, then it again */
    uint16_t *rounded;       /* NULL: float32 */
    float *gate, *up;        /* backward: their gradients take their place */
    const float *row_weight; /* NULL: 1 */
    float *d_row_weight;     /* backward; NULL when row_weight is */
    int64_t n, width;
    bool has_quads;
};

__device__ __forceinline__ float activate(float gate, float up, float weight)
{
    return gate / (1.0F + expf(-gate)) * up * weight;
}

/* A warp a row. */
__global__ void __launch_bounds__(WARPS *MT_WARP) swiglu_forward(const struct swiglu a)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / MT_WARP;
    if (row >= a.n) {
        return;
    }
    const float weight = a.row_weight != nullptr ? a.row_weight[row] : 1.0F;
    const int64_t at = row * a.width;
    for (int64_t i = 4 * (int64_t)(threadIdx.x % MT_WARP); i < a.width; i += 4 * MT_WARP) {
        const float4 g = mt_load_quad(a.gate + at, i, a.width, a.has_quads);
        const float4 u = mt_load_quad(a.up + at, i, a.width, a.has_quads);
        const float4 act = make_float4(activate(g.x, u.x, weight), activate(g.y, u.y, weight),
                                       activate(g.z, u.z, weight), activate(g.w, u.w, weight));
        if (a.rounded != nullptr) {
            mt_store_quad_bf16(a.rounded + at, i, a.width, a.has_quads, act);
        } else {
            mt_store_quad(a.act + at, i, a.width, a.has_quads, act);
        }
    }
}

/* One element: gate, up and d_act become d_gate, d_up and act; returns its part of the gradient of
 * the row's weight. */
__device__ __forceinline__ float differ(float *gate, float *up, float *d_act, float weight)
{
    const float g = *gate;
    const float u = *up;
    const float d = *d_act;
    const float s = mt_sigmoid(g);
    const float silu = g * s;
    *gate = d * weight * u * (s * (1.0F + g * (1.0F - s)));
    *up = d * weight * silu;
    *d_act = silu * u * weight;
    return d * (silu * u);
}

__global__ void __launch_bounds__(WARPS *MT_WARP) swiglu_backward(const struct swiglu a)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / MT_WARP;
    if (row >= a.n) {
        return;
    }
    const float weight = a.row_weight != nullptr ? a.row_weight[row] : 1.0F;
    const int64_t at = row * a.width;
    float sum = 0.0F;
    for (int64_t i = 4 * (int64_t)(threadIdx.x % MT_WARP); i < a.width; i += 4 * MT_WARP) {
        float4 g = mt_load_quad(a.gate + at, i, a.width, a.has_quads);
        float4 u = mt_load_quad(a.up + at, i, a.width, a.has_quads);
        float4 d = mt_load_quad(a.act + at, i, a.width, a.has_quads);
        sum += differ(&g.x, &u.x, &d.x, weight);
        sum += differ(&g.y, &u.y, &d.y, weight);
        sum += differ(&g.z, &u.z, &d.z, weight);
        sum += differ(&g.w, &u.w, &d.w, weight);
        mt_store_quad(a.gate + at, i, a.width, a.has_quads, g);
        mt_store_quad(a.up + at, i, a.width, a.has_quads, u);
        mt_store_quad(a.act + at, i, a.width, a.has_quads, d);
    }
    sum = mt_warp_sum(sum);
    if (a.d_row_weight != nullptr && threadIdx.x % MT_WARP == 0) {
        a.d_row_weight[row] = sum;
    }
}

int64_t mt_cuda_expert_scratch_bytes(int64_t inner, int64_t n)
{
    return mt_cuda_max(1, n * inner) * (int64_t)sizeof(float);
}

/* Rows of the groups, and shapes. */
struct extent {
    int64_t first, n, inner, width;
};

static struct extent extent_of(const struct mt_expert_weights *weights, struct mt_groups groups)
{
    return {groups.offset[0], groups.offset[groups.n_group] - groups.offset[0],
            weights->gate[0]->n_out, weights->gate[0]->n_in};
}

static void launch_swiglu(struct mt_cuda *cuda, void (*kernel)(const struct swiglu),
                          struct swiglu *a)
{
    a->has_quads = mt_has_quads(a->gate, a->width) && mt_has_quads(a->up, a->width) &&
                   mt_has_quads(a->act, a->width);
    mt_launch(kernel, mt_cuda_blocks(a->n, WARPS), WARPS * MT_WARP, 0, cuda->stream, *a);
}

void mt_cuda_expert_forward(struct mt_cuda *cuda, const struct mt_expert_forward *args,
                            const struct mt_expert_weights *weights, struct mt_groups groups)
{
    const struct extent e = extent_of(weights, groups);
    mt_cuda_begin(cuda);
    const void *x = mt_cuda_operand(cuda, args->x + e.first * e.width, e.n * e.width);
    if (x == NULL) {
        return;
    }
    struct swiglu a = {};
    a.act = static_cast<float *>(args->scratch);
    a.rounded = cuda->dtype == MT_BFLOAT16 ? static_cast<uint16_t *>(args->scratch) : NULL;
    a.gate = args->gate + e.first * e.inner;
    a.up = args->up + e.first * e.inner;
    a.row_weight = args->row_weight != NULL ? args->row_weight + e.first : NULL;
    a.n = e.n;
    a.width = e.inner;
    mt_cuda_products_forward(cuda, a.gate, x, weights->gate, groups);
    mt_cuda_products_forward(cuda, a.up, x, weights->up, groups);
    launch_swiglu(cuda, swiglu_forward, &a);
    mt_cuda_products_forward(cuda, args->y + e.first * e.width, args->scratch, weights->down,
                             groups);
}

/* The gradient of W_down reads d_y before d_x may take its place. */
void mt_cuda_expert_backward(struct mt_cuda *cuda, const struct mt_expert_backward *args,
                             const struct mt_expert_weights *weights, struct mt_groups groups)
{
    const struct extent e = extent_of(weights, groups);
    struct swiglu a = {};
    a.act = static_cast<float *>(args->scratch);
    a.gate = args->gate + e.first * e.inner;
    a.up = args->up + e.first * e.inner;
    a.row_weight = args->row_weight != NULL ? args->row_weight + e.first : NULL;
    a.d_row_weight = args->d_row_weight != NULL ? args->d_row_weight + e.first : NULL;
    a.n = e.n;
    a.width = e.inner;
    mt_cuda_begin(cuda);
    const void *x = mt_cuda_operand(cuda, args->x + e.first * e.width, e.n * e.width);
    const void *d_y = mt_cuda_operand(cuda, args->d_y + e.first * e.width, e.n * e.width);
    if (x == NULL || d_y == NULL) {
        return;
    }
    mt_cuda_products_input(cuda, a.act, d_y, weights->down, groups, false);
    launch_swiglu(cuda, swiglu_backward, &a);
    const void *act = mt_cuda_operand(cuda, a.act, e.n * e.inner);
    const void *d_gate = mt_cuda_operand(cuda, a.gate, e.n * e.inner);
    const void *d_up = mt_cuda_operand(cuda, a.up, e.n * e.inner);
    if (act == NULL || d_gate == NULL || d_up == NULL) {
        return;
    }
    float *d_x = args->d_x + e.first * e.width;
    const struct mt_cuda_weight_shape open = {e.inner, e.width};
    const struct mt_cuda_weight_shape close = {e.width, e.inner};
    mt_cuda_products_weight(cuda, args->d_down_weight, d_y, act, close, groups);
    mt_cuda_products_input(cuda, d_x, d_gate, weights->gate, groups, false);
    mt_cuda_products_input(cuda, d_x, d_up, weights->up, groups, true);
    if (args->d_gate_weight != NULL) {
        mt_cuda_products_weight(cuda, args->d_gate_weight, d_gate, x, open, groups);
        mt_cuda_products_weight(cuda, args->d_up_weight, d_up, x, open, groups);
    }
}

void mt_cuda_expert_backward_rest(struct mt_cuda *cuda, const struct mt_expert_backward *args,
                                  const struct mt_expert_weights *weights, struct mt_groups groups)
{
    const struct extent e = extent_of(weights, groups);
    const struct mt_cuda_weight_shape open = {e.inner, e.width};
    mt_cuda_begin(cuda);
    const void *x = mt_cuda_operand(cuda, args->x + e.first * e.width, e.n * e.width);
    const void *d_gate = mt_cuda_operand(cuda, args->gate + e.first * e.inner, e.n * e.inner);
    const void *d_up = mt_cuda_operand(cuda, args->up + e.first * e.inner, e.n * e.inner);
    if (x == NULL || d_gate == NULL || d_up == NULL) {
        return;
    }
    mt_cuda_products_weight(cuda, args->d_gate_weight, d_gate, x, open, groups);
    mt_cuda_products_weight(cuda, args->d_up_weight, d_up, x, open, groups);
}
