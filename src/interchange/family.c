/* The table of families. Names and defaults are those of transformers 5.23; of DeepSeek-MoE those
 * of the code beside its weights (deepseek-ai/deepseek-moe-16b-base). */
#include "interchange/family.h"

#include <stdio.h>
#include <string.h>

const struct mt_tensor_name mt_common_names[] = {
    {"embed_tokens", "model.embed_tokens.weight"},
    {"norm", "model.norm.weight"},
    {"lm_head", "lm_head.weight"},
    {"layers/*/input_norm", "model.layers.*.input_layernorm.weight"},
    {"layers/*/post_attention_norm", "model.layers.*.post_attention_layernorm.weight"},
    {"layers/*/attention/q_proj", "model.layers.*.self_attn.q_proj.weight"},
    {"layers/*/attention/k_proj", "model.layers.*.self_attn.k_proj.weight"},
    {"layers/*/attention/v_proj", "model.layers.*.self_attn.v_proj.weight"},
    {"layers/*/attention/o_proj", "model.layers.*.self_attn.o_proj.weight"},
    {"layers/*/attention/q_bias", "model.layers.*.self_attn.q_proj.bias"},
    {"layers/*/attention/k_bias", "model.layers.*.self_attn.k_proj.bias"},
    {"layers/*/attention/v_bias", "model.layers.*.self_attn.v_proj.bias"},
    {"layers/*/attention/q_norm", "model.layers.*.self_attn.q_norm.weight"},
    {"layers/*/attention/k_norm", "model.layers.*.self_attn.k_norm.weight"},
    {"layers/*/mlp/gate_proj", "model.layers.*.mlp.gate_proj.weight"},
    {"layers/*/mlp/up_proj", "model.layers.*.mlp.up_proj.weight"},
    {"layers/*/mlp/down_proj", "model.layers.*.mlp.down_proj.weight"},
    {"layers/*/moe/router", "model.layers.*.mlp.gate.weight"},
    {NULL, NULL}};

static const struct mt_tensor_name per_expert[] = {
    {"layers/*/moe/experts/gate_proj", "model.layers.*.mlp.experts.*.gate_proj.weight"},
    {"layers/*/moe/experts/up_proj", "model.layers.*.mlp.experts.*.up_proj.weight"},
    {"layers/*/moe/experts/down_proj", "model.layers.*.mlp.experts.*.down_proj.weight"},
    {NULL, NULL}};

/* gate_up_proj is named for both of its halves. */
static const struct mt_tensor_name grouped[] = {
    {"layers/*/moe/experts/gate_proj", "model.layers.*.mlp.experts.gate_up_proj"},
    {"layers/*/moe/experts/up_proj", "model.layers.*.mlp.experts.gate_up_proj"},
    {"layers/*/moe/experts/down_proj", "model.layers.*.mlp.experts.down_proj"},
    {NULL, NULL}};

static const struct mt_tensor_name mixtral_per_expert[] = {
    {"layers/*/moe/router", "model.layers.*.block_sparse_moe.gate.weight"},
    {"layers/*/moe/experts/gate_proj", "model.layers.*.block_sparse_moe.experts.*.w1.weight"},
    {"layers/*/moe/experts/up_proj", "model.layers.*.block_sparse_moe.experts.*.w3.weight"},
    {"layers/*/moe/experts/down_proj", "model.layers.*.block_sparse_moe.experts.*.w2.weight"},
    {NULL, NULL}};

static const struct mt_tensor_name no_names[] = {{NULL, NULL}};
static const struct mt_tensor_name qwen2_names[] = {
    {"layers/*/moe/shared/gate_proj", "model.layers.*.mlp.shared_expert.gate_proj.weight"},
    {"layers/*/moe/shared/up_proj", "model.layers.*.mlp.shared_expert.up_proj.weight"},
    {"layers/*/moe/shared/down_proj", "model.layers.*.mlp.shared_expert.down_proj.weight"},
    {"layers/*/moe/shared/gate", "model.layers.*.mlp.shared_expert_gate.weight"},
    {NULL, NULL}};
static const struct mt_tensor_name deepseek_names[] = {
    {"layers/*/moe/shared/gate_proj", "model.layers.*.mlp.shared_experts.gate_proj.weight"},
    {"layers/*/moe/shared/up_proj", "model.layers.*.mlp.shared_experts.up_proj.weight"},
    {"layers/*/moe/shared/down_proj", "model.layers.*.mlp.shared_experts.down_proj.weight"},
    {NULL, NULL}};

const struct mt_interchange_key mt_common_keys[] = {
    {"vocab_size", NULL, "model.vocab_size", MT_JSON_INTEGER, NULL},
    {"hidden_size", NULL, "model.hidden_size", MT_JSON_INTEGER, NULL},
    {"num_hidden_layers", NULL, "model.num_layers", MT_JSON_INTEGER, NULL},
    {"num_attention_heads", NULL, "model.num_attention_heads", MT_JSON_INTEGER, NULL},
    {"num_key_value_heads", NULL, "model.num_key_value_heads", MT_JSON_MAY_BE_NULL, NULL},
    {"max_position_embeddings", NULL, "model.max_seq_len", MT_JSON_INTEGER, NULL},
    {"tie_word_embeddings", NULL, "model.tie_word_embeddings", MT_JSON_BOOL, "false"},
    {"initializer_range", NULL, "model.init_std", MT_JSON_REAL, "0.02"},
    {"num_experts_per_tok", NULL, "moe.top_k", MT_JSON_INTEGER, NULL},
    {NULL, NULL, NULL, MT_JSON_INTEGER, NULL}};

const struct mt_interchange_demand mt_common_demands[] = {
    {"hidden_act", "\"silu\"", "\"silu\"", true},
    {"attention_dropout", "0.0 0", "0.0", true},
    {"quantization_config", "null", "null", false},
    {"partial_rotary_factor", "1.0 1", "1.0", false},
    {NULL, NULL, NULL, false}};

static const struct mt_interchange_key mixtral_keys[] = {
    {"rms_norm_eps", NULL, "model.rms_norm_eps", MT_JSON_REAL, "1e-05"},
    {"rope_theta", NULL, "model.rope_theta", MT_JSON_THETA, "1000000.0"},
    {"head_dim", NULL, "model.head_dim", MT_JSON_MAY_BE_NULL, NULL},
    {"num_local_experts", "num_experts", "moe.num_experts", MT_JSON_INTEGER, NULL},
    {"intermediate_size", NULL, "moe.expert_intermediate_size", MT_JSON_INTEGER, NULL},
    {NULL, NULL, NULL, MT_JSON_INTEGER, NULL}};
static const struct mt_interchange_key olmoe_keys[] = {
    {"rms_norm_eps", NULL, "model.rms_norm_eps", MT_JSON_REAL, "1e-05"},
    {"rope_theta", NULL, "model.rope_theta", MT_JSON_THETA, "10000.0"},
    {"num_experts", "num_local_experts", "moe.num_experts", MT_JSON_INTEGER, NULL},
    {"intermediate_size", NULL, "moe.expert_intermediate_size", MT_JSON_INTEGER, NULL},
    {"norm_topk_prob", NULL, "moe.normalize_top_k", MT_JSON_BOOL, "false"},
    {NULL, NULL, NULL, MT_JSON_INTEGER, NULL}};
static const struct mt_interchange_key qwen2_keys[] = {
    {"rms_norm_eps", NULL, "model.rms_norm_eps", MT_JSON_REAL, "1e-06"},
    {"rope_theta", NULL, "model.rope_theta", MT_JSON_THETA, "10000.0"},
    {"head_dim", NULL, "model.head_dim", MT_JSON_MAY_BE_NULL, NULL},
    {"num_experts", "num_local_experts", "moe.num_experts", MT_JSON_INTEGER, NULL},
    {"moe_intermediate_size", NULL, "moe.expert_intermediate_size", MT_JSON_INTEGER, NULL},
    {"norm_topk_prob", NULL, "moe.normalize_top_k", MT_JSON_BOOL, "false"},
    {"qkv_bias", NULL, "model.attention_bias", MT_JSON_BOOL, "true"},
    {"shared_expert_intermediate_size", NULL, "moe.shared_intermediate_size", MT_JSON_SHARED_WIDTH,
     NULL},
    {"mlp_only_layers", NULL, "model.first_k_dense", MT_JSON_DENSE_LIST, "[]"},
    {"intermediate_size", NULL, "model.dense_intermediate_size", MT_JSON_DENSE_WIDTH, NULL},
    {NULL, NULL, NULL, MT_JSON_INTEGER, NULL}};
static const struct mt_interchange_key qwen3_keys[] = {
    {"rms_norm_eps", NULL, "model.rms_norm_eps", MT_JSON_REAL, "1e-06"},
    {"rope_theta", NULL, "model.rope_theta", MT_JSON_THETA, "10000.0"},
    {"head_dim", NULL, "model.head_dim", MT_JSON_MAY_BE_NULL, NULL},
    {"num_experts", "num_local_experts", "moe.num_experts", MT_JSON_INTEGER, NULL},
    {"moe_intermediate_size", NULL, "moe.expert_intermediate_size", MT_JSON_INTEGER, NULL},
    {"norm_topk_prob", NULL, "moe.normalize_top_k", MT_JSON_BOOL, "false"},
    {"mlp_only_layers", NULL, "model.first_k_dense", MT_JSON_DENSE_LIST, "[]"},
    {"intermediate_size", NULL, "model.dense_intermediate_size", MT_JSON_DENSE_WIDTH, NULL},
    {NULL, NULL, NULL, MT_JSON_INTEGER, NULL}};
static const struct mt_interchange_key llama_keys[] = {
    {"rms_norm_eps", NULL, "model.rms_norm_eps", MT_JSON_REAL, "1e-06"},
    {"rope_theta", NULL, "model.rope_theta", MT_JSON_THETA, "10000.0"},
    {"head_dim", NULL, "model.head_dim", MT_JSON_MAY_BE_NULL, NULL},
    {"intermediate_size", NULL, "model.dense_intermediate_size", MT_JSON_DENSE_WIDTH, NULL},
    {NULL, NULL, NULL, MT_JSON_INTEGER, NULL}};
static const struct mt_interchange_key deepseek_keys[] = {
    {"rms_norm_eps", NULL, "model.rms_norm_eps", MT_JSON_REAL, "1e-06"},
    {"rope_theta", NULL, "model.rope_theta", MT_JSON_THETA, "10000.0"},
    {"n_routed_experts", NULL, "moe.num_experts", MT_JSON_INTEGER, NULL},
    {"moe_intermediate_size", NULL, "moe.expert_intermediate_size", MT_JSON_INTEGER, NULL},
    {"norm_topk_prob", NULL, "moe.normalize_top_k", MT_JSON_BOOL, "false"},
    {"n_shared_experts", NULL, "moe.num_shared_experts", MT_JSON_SHARED_COUNT, "null"},
    {"first_k_dense_replace", NULL, "model.first_k_dense", MT_JSON_DENSE_COUNT, "0"},
    {"intermediate_size", NULL, "model.dense_intermediate_size", MT_JSON_DENSE_WIDTH, NULL},
    {NULL, NULL, NULL, MT_JSON_INTEGER, NULL}};

static const struct mt_interchange_trait mixtral_traits[] = {{"model.qk_norm", "\"none\""},
                                                             {"model.attention_bias", "false"},
                                                             {"model.first_k_dense", "0"},
                                                             {"moe.normalize_top_k", "true"},
                                                             {"moe.num_shared_experts", "0"},
                                                             {"moe.shared_intermediate_size", "0"},
                                                             {"moe.shared_gate", "false"},
                                                             {"moe.routed_scaling_factor", "1.0"},
                                                             {NULL, NULL}};
static const struct mt_interchange_trait olmoe_traits[] = {
    {"model.qk_norm", "\"projection\""},   {"model.attention_bias", "false"},
    {"model.first_k_dense", "0"},          {"moe.num_shared_experts", "0"},
    {"moe.shared_intermediate_size", "0"}, {"moe.shared_gate", "false"},
    {"moe.routed_scaling_factor", "1.0"},  {NULL, NULL}};
static const struct mt_interchange_trait qwen2_traits[] = {{"model.qk_norm", "\"none\""},
                                                           {"moe.shared_gate", "true"},
                                                           {"moe.routed_scaling_factor", "1.0"},
                                                           {NULL, NULL}};
static const struct mt_interchange_trait qwen3_traits[] = {{"model.qk_norm", "\"head\""},
                                                           {"model.attention_bias", "false"},
                                                           {"moe.num_shared_experts", "0"},
                                                           {"moe.shared_intermediate_size", "0"},
                                                           {"moe.shared_gate", "false"},
                                                           {"moe.routed_scaling_factor", "1.0"},
                                                           {NULL, NULL}};
static const struct mt_interchange_trait llama_traits[] = {
    {"model.qk_norm", "\"none\""}, {"model.attention_bias", "false"}, {NULL, NULL}};
static const struct mt_interchange_trait deepseek_traits[] = {
    {"model.qk_norm", "\"none\""},         {"model.attention_bias", "false"},
    {"moe.shared_intermediate_size", "0"}, {"moe.shared_gate", "false"},
    {"moe.routed_scaling_factor", "1.0"},  {NULL, NULL}};

static const struct mt_interchange_demand mixtral_demands[] = {
    {"router_jitter_noise", "0.0 0", "0.0", false}, {NULL, NULL, NULL, false}};
static const struct mt_interchange_demand olmoe_demands[] = {
    {"attention_bias", "false", "false", true},
    {"clip_qkv", "null", "null", true},
    {NULL, NULL, NULL, false}};
static const struct mt_interchange_demand qwen2_demands[] = {
    {"decoder_sparse_step", "1", "1", true}, {NULL, NULL, NULL, false}};
static const struct mt_interchange_demand qwen3_demands[] = {
    {"decoder_sparse_step", "1", "1", true},
    {"attention_bias", "false", "false", true},
    {NULL, NULL, NULL, false}};
static const struct mt_interchange_demand llama_demands[] = {
    {"attention_bias", "false", "false", true},
    {"mlp_bias", "false", "false", true},
    {NULL, NULL, NULL, false}};
static const struct mt_interchange_demand deepseek_demands[] = {
    {"moe_layer_freq", "1", "1", true},
    {"attention_bias", "false", "false", true},
    {"mlp_bias", "false", "false", false},
    {"scoring_func", "\"softmax\"", "\"softmax\"", true},
    {"topk_method", "\"greedy\" null", "null", false},
    {"n_group", "null 1", "null", false},
    {"routed_scaling_factor", "1.0 1 null", "1.0", false},
    {NULL, NULL, NULL, false}};

const struct mt_family mt_families[] = {
    {.word = "mixtral",
     .title = "Mixtral",
     .model_type = "mixtral",
     .architecture = "MixtralForCausalLM",
     .name = no_names,
     .expert = {mixtral_per_expert, grouped},
     .key = mixtral_keys,
     .trait = mixtral_traits,
     .demand = mixtral_demands},
    {.word = "olmoe",
     .title = "OLMoE",
     .model_type = "olmoe",
     .architecture = "OlmoeForCausalLM",
     .name = no_names,
     .expert = {per_expert, grouped},
     .key = olmoe_keys,
     .trait = olmoe_traits,
     .demand = olmoe_demands},
    {.word = "qwen2-moe",
     .title = "Qwen2-MoE",
     .model_type = "qwen2_moe",
     .architecture = "Qwen2MoeForCausalLM",
     .name = qwen2_names,
     .expert = {per_expert, grouped},
     .key = qwen2_keys,
     .trait = qwen2_traits,
     .demand = qwen2_demands},
    {.word = "qwen3-moe",
     .title = "Qwen3-MoE",
     .model_type = "qwen3_moe",
     .architecture = "Qwen3MoeForCausalLM",
     .name = no_names,
     .expert = {per_expert, grouped},
     .key = qwen3_keys,
     .trait = qwen3_traits,
     .demand = qwen3_demands},
    {.word = "deepseek",
     .title = "DeepSeek-MoE",
     .model_type = "deepseek",
     .architecture = "DeepseekForCausalLM",
     .has_plain_rope = true,
     .name = deepseek_names,
     .expert = {per_expert, grouped},
     .key = deepseek_keys,
     .trait = deepseek_traits,
     .demand = deepseek_demands},
    {.word = "llama",
     .title = "Llama",
     .model_type = "llama",
     .architecture = "LlamaForCausalLM",
     .is_dense = true,
     .name = no_names,
     .expert = {no_names, no_names},
     .key = llama_keys,
     .trait = llama_traits,
     .demand = llama_demands},
};
const int mt_n_family = (int)(sizeof(mt_families) / sizeof(mt_families[0]));

const struct mt_family *mt_family_of_word(const char *word)
{
    for (int i = 0; i < mt_n_family; ++i) {
        if (strcmp(mt_families[i].word, word) == 0) {
            return &mt_families[i];
        }
    }
    return NULL;
}

const struct mt_family *mt_family_of_type(const char *model_type)
{
    for (int i = 0; i < mt_n_family; ++i) {
        if (strcmp(mt_families[i].model_type, model_type) == 0) {
            return &mt_families[i];
        }
    }
    return NULL;
}

void mt_family_list(char *text, int bytes)
{
    int used = 0;
    text[0] = '\0';
    for (int i = 0; i < mt_n_family && used < bytes; ++i) {
        used += snprintf(text + used, (size_t)(bytes - used), "%s%s", i > 0 ? ", " : "",
                         mt_families[i].word);
    }
}
