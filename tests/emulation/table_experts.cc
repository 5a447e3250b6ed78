/* Experts, router and gate of the emulated GPU, staged. */
#include "emulation/staging.h"

static int64_t expert_scratch_bytes(const struct mt_device *, int64_t inner, int64_t n)
{
    return mt_cuda_expert_scratch_bytes(inner, n);
}

static void expert_forward(struct mt_device *device, const struct mt_expert_forward *args,
                           const struct mt_expert_weights *weights, struct mt_groups groups)
{
    call c(device);
    const weight_list gate(&c, weights->gate, groups.n_group);
    const weight_list up(&c, weights->up, groups.n_group);
    const weight_list down(&c, weights->down, groups.n_group);
    const struct mt_expert_weights w = {gate.pointers.data(), up.pointers.data(),
                                        down.pointers.data()};
    const int64_t first = first_row(groups);
    const int64_t n = n_row(groups);
    const int64_t inner = weights->gate[0]->n_out;
    const int64_t width = weights->gate[0]->n_in;
    const float *row_weight = args->row_weight;
    const struct mt_expert_forward copy = {
        c.out(args->y + first * width, n * width) - first * width,
        c.out(args->gate + first * inner, n * inner) - first * inner,
        c.out(args->up + first * inner, n * inner) - first * inner,
        c.in(args->x + first * width, n * width) - first * width,
        row_weight != nullptr ? c.in(row_weight + first, n) - first : nullptr,
        c.scratch(mt_cuda_expert_scratch_bytes(inner, n))};
    mt_cuda_expert_forward(c.cuda, &copy, &w, groups);
    c.finish();
}

static void expert_backward(struct mt_device *device, const struct mt_expert_backward *args,
                            const struct mt_expert_weights *weights, struct mt_groups groups)
{
    call c(device);
    const weight_list gate(&c, weights->gate, groups.n_group);
    const weight_list up(&c, weights->up, groups.n_group);
    const weight_list down(&c, weights->down, groups.n_group);
    const struct mt_expert_weights w = {gate.pointers.data(), up.pointers.data(),
                                        down.pointers.data()};
    const int64_t first = first_row(groups);
    const int64_t n = n_row(groups);
    const int64_t inner = weights->gate[0]->n_out;
    const int64_t width = weights->gate[0]->n_in;
    const bool has_rest = args->d_gate_weight != nullptr;
    const int n_rest = has_rest ? groups.n_group : 0;
    const gradient_list d_gate(&c, args->d_gate_weight, n_rest, inner * width);
    const gradient_list d_up(&c, args->d_up_weight, n_rest, inner * width);
    const gradient_list d_down(&c, args->d_down_weight, groups.n_group, inner * width);
    float *d_x = args->d_x + first * width;
    const bool is_in_place = args->d_x == args->d_y;
    struct mt_expert_backward copy = {};
    copy.d_x = (is_in_place ? c.inout(d_x, n * width) : c.out(d_x, n * width)) - first * width;
    copy.gate = c.inout(args->gate + first * inner, n * inner) - first * inner;
    copy.up = c.inout(args->up + first * inner, n * inner) - first * inner;
    copy.d_y = c.in(args->d_y + first * width, n * width) - first * width;
    copy.x = c.in(args->x + first * width, n * width) - first * width;
    if (args->row_weight != nullptr) {
        copy.row_weight = c.in(args->row_weight + first, n) - first;
        copy.d_row_weight = c.out(args->d_row_weight + first, n) - first;
    }
    copy.d_gate_weight = has_rest ? d_gate.pointers.data() : nullptr;
    copy.d_up_weight = has_rest ? d_up.pointers.data() : nullptr;
    copy.d_down_weight = d_down.pointers.data();
    copy.scratch = c.scratch(mt_cuda_expert_scratch_bytes(inner, n));
    mt_cuda_expert_backward(c.cuda, &copy, &w, groups);
    c.finish();
}

static void expert_backward_rest(struct mt_device *device, const struct mt_expert_backward *args,
                                 const struct mt_expert_weights *weights, struct mt_groups groups)
{
    call c(device);
    const weight_list gate(&c, weights->gate, groups.n_group);
    const struct mt_expert_weights w = {gate.pointers.data(), nullptr, nullptr};
    const int64_t first = first_row(groups);
    const int64_t n = n_row(groups);
    const int64_t inner = weights->gate[0]->n_out;
    const int64_t width = weights->gate[0]->n_in;
    const gradient_list d_gate(&c, args->d_gate_weight, groups.n_group, inner * width);
    const gradient_list d_up(&c, args->d_up_weight, groups.n_group, inner * width);
    struct mt_expert_backward copy = {};
    copy.gate = const_cast<float *>(c.in(args->gate + first * inner, n * inner)) - first * inner;
    copy.up = const_cast<float *>(c.in(args->up + first * inner, n * inner)) - first * inner;
    copy.x = c.in(args->x + first * width, n * width) - first * width;
    copy.d_gate_weight = d_gate.pointers.data();
    copy.d_up_weight = d_up.pointers.data();
    mt_cuda_expert_backward_rest(c.cuda, &copy, &w, groups);
    c.finish();
}

static void router_forward(struct mt_device *device, float *logits, const float *x, const float *w,
                           int64_t n, int64_t n_expert, int64_t width)
{
    call c(device);
    mt_cuda_router_forward(c.cuda, c.out(logits, n * n_expert), c.in(x, n * width),
                           c.in(w, n_expert * width), n, n_expert, width);
    c.finish();
}

static void router_backward(struct mt_device *device, const struct mt_router_backward *args,
                            int64_t n, int64_t n_expert, int64_t width)
{
    call c(device);
    const struct mt_router_backward copy = {
        c.inout(args->d_x, n * width), c.inout(args->d_w, n_expert * width),
        c.in(args->d_logits, n * n_expert), c.in(args->x, n * width),
        c.in(args->w, n_expert * width)};
    mt_cuda_router_backward(c.cuda, &copy, n, n_expert, width);
    c.finish();
}

static void gate_forward(struct mt_device *device, const struct mt_gate_forward *args, int64_t n,
                         const struct mt_gate *gate)
{
    call c(device);
    struct mt_gate_forward copy = *args;
    const int64_t n_pair = n * gate->top_k;
    copy.expert = args->is_given ? const_cast<int32_t *>(c.in(args->expert, n_pair))
                                 : c.out(args->expert, n_pair);
    copy.weight = c.out(args->weight, n_pair);
    copy.probability = c.out(args->probability, n * gate->n_expert);
    copy.lse = c.out(args->lse, n);
    copy.count = c.out(args->count, gate->n_expert);
    copy.probability_sum = c.out(args->probability_sum, gate->n_expert);
    copy.lse_square_sum = c.out(args->lse_square_sum, 1);
    copy.logits = c.in(args->logits, n * gate->n_expert);
    mt_cuda_gate_forward(c.cuda, &copy, n, gate);
    c.finish();
}

static void gate_backward(struct mt_device *device, const struct mt_gate_backward *args, int64_t n,
                          const struct mt_gate *gate)
{
    call c(device);
    struct mt_gate_backward copy = *args;
    copy.d_logits = c.out(args->d_logits, n * gate->n_expert);
    copy.d_weight = c.in(args->d_weight, n * gate->top_k);
    copy.expert = c.in(args->expert, n * gate->top_k);
    copy.weight = c.in(args->weight, n * gate->top_k);
    copy.probability = c.in(args->probability, n * gate->n_expert);
    copy.lse = c.in(args->lse, n);
    copy.f = c.in(args->f, gate->n_expert);
    mt_cuda_gate_backward(c.cuda, &copy, n, gate);
    c.finish();
}

void emu_fill_experts(struct mt_kernel_table *table)
{
    table->expert_scratch_bytes = expert_scratch_bytes;
    table->expert_forward = expert_forward;
    table->expert_backward = expert_backward;
    table->expert_backward_rest = expert_backward_rest;
    table->router_forward = router_forward;
    table->router_backward = router_backward;
    table->gate_forward = gate_forward;
    table->gate_backward = gate_backward;
}
