#include "kernel/table.h"

#include "kernel/cpu/cpu.h"

const struct mt_kernel_table mt_kernel_cpu = {
    .linear_prepare = mt_cpu_linear_prepare,
    .weight_pack = mt_cpu_weight_pack,
    .linear_forward = mt_cpu_linear_forward,
    .linear_backward_input = mt_cpu_linear_backward_input,
    .linear_backward_weight = mt_cpu_linear_backward_weight,
    .grouped_forward = mt_cpu_grouped_forward,
    .grouped_backward_input = mt_cpu_grouped_backward_input,
    .grouped_backward_weight = mt_cpu_grouped_backward_weight,
    .rms_norm_forward = mt_cpu_rms_norm_forward,
    .add_rms_norm_forward = mt_cpu_add_rms_norm_forward,
    .rms_norm_backward = mt_cpu_rms_norm_backward,
    .attention_scratch_bytes = mt_cpu_attention_scratch_bytes,
    .attention_forward = mt_cpu_attention_forward,
    .attention_backward = mt_cpu_attention_backward,
    .swiglu_forward = mt_cpu_swiglu_forward,
    .swiglu_backward = mt_cpu_swiglu_backward,
    .router_forward = mt_cpu_router_forward,
    .router_backward = mt_cpu_router_backward,
    .gate_forward = mt_cpu_gate_forward,
    .gate_backward = mt_cpu_gate_backward,
    .rows_copy = mt_cpu_rows_copy,
    .rows_combine = mt_cpu_rows_combine,
    .embedding_forward = mt_cpu_embedding_forward,
    .embedding_backward = mt_cpu_embedding_backward,
    .cross_entropy = mt_cpu_cross_entropy,
    .adamw_update = mt_cpu_adamw_update,
    .sum_squares = mt_cpu_sum_squares,
    .fill_zero = mt_cpu_fill_zero,
};
