/* The one table of a model's tensors: names, shapes, groups, initial values, buckets. */
#include "base/memory.h"
#include "model/model.h"

#include <stdio.h>
#include <string.h>

/* What every add needs: the table being filled and the row that describes the kind. */
struct builder {
    struct mt_tensor_table *table;
    int64_t max_tensor;
    double init_std;
    int layer; /* -1: none */
    int bucket;
};

static int add(struct builder *builder, const char *name, int n_dim, const int64_t dim[3])
{
    struct mt_tensor_table *table = builder->table;
    MT_ASSERT(table->n_tensor < builder->max_tensor);
    struct mt_tensor *tensor = &table->tensor[table->n_tensor];
    if (builder->layer < 0) {
        (void)snprintf(tensor->name, sizeof(tensor->name), "%s", name);
    } else {
        (void)snprintf(tensor->name, sizeof(tensor->name), "layers/%d/%s", builder->layer, name);
    }
    tensor->kind = MT_TENSOR_DENSE;
    tensor->n_dim = n_dim;
    for (int d = 0; d < 3; d++) {
        tensor->dim[d] = d < n_dim ? dim[d] : 1;
    }
    tensor->layer = builder->layer;
    tensor->bucket = builder->bucket;
    return table->n_tensor++;
}

/* A norm's weight [n]: ones, no decay. */
static int add_norm(struct builder *builder, const char *name, int64_t n)
{
    const int64_t dim[3] = {n, 1, 1};
    return add(builder, name, 1, dim);
}

/* A bias [n]: zeros, no decay. */
static int add_bias(struct builder *builder, const char *name, int64_t n)
{
    const int index = add_norm(builder, name, n);
    builder->table->tensor[index].starts_at_zero = true;
    return index;
}

/* A matrix [n_out, n_in]: normal, decayed, packed for products unless said otherwise later. */
static int add_matrix(struct builder *builder, const char *name, int64_t n_out, int64_t n_in)
{
    const int64_t dim[3] = {n_out, n_in, 1};
    const int index = add(builder, name, 2, dim);
    struct mt_tensor *tensor = &builder->table->tensor[index];
    tensor->decay = true;
    tensor->is_product = true;
    tensor->init_std = (float)builder->init_std;
    return index;
}

/* A router has its own product (kernel.h), which reads plain rows. */
static int add_router(struct builder *builder, const char *name, int64_t n_out, int64_t n_in)
{
    const int index = add_matrix(builder, name, n_out, n_in);
    builder->table->tensor[index].is_product = false;
    return index;
}

/* One of an expert's matrices for all experts [E, n_out, n_in]. */
static void add_expert(struct builder *builder, const char *name, int64_t n_expert, int64_t n_out,
                       int64_t n_in)
{
    const int64_t dim[3] = {n_expert, n_out, n_in};
    const int index = add(builder, name, 3, dim);
    struct mt_tensor *tensor = &builder->table->tensor[index];
    tensor->kind = MT_TENSOR_EXPERT;
    tensor->bucket = -1;
    tensor->decay = true;
    tensor->init_std = (float)builder->init_std;
}

static void add_attention(struct builder *builder, struct mt_layer_tensors *layer,
                          const struct mt_config *config)
{
    const int64_t width = config->model.hidden_size;
    const int64_t head_dim = config->model.head_dim;
    const int64_t q_width = config->model.num_attention_heads * head_dim;
    const int64_t kv_width = config->model.num_key_value_heads * head_dim;
    layer->input_norm = add_norm(builder, "input_norm", width);
    layer->q = add_matrix(builder, "attention/q_proj", q_width, width);
    layer->k = add_matrix(builder, "attention/k_proj", kv_width, width);
    layer->v = add_matrix(builder, "attention/v_proj", kv_width, width);
    layer->o = add_matrix(builder, "attention/o_proj", width, q_width);
    layer->q_bias = layer->k_bias = layer->v_bias = -1;
    if (config->model.attention_bias) {
        layer->q_bias = add_bias(builder, "attention/q_bias", q_width);
        layer->k_bias = add_bias(builder, "attention/k_bias", kv_width);
        layer->v_bias = add_bias(builder, "attention/v_bias", kv_width);
    }
    layer->q_norm = -1;
    layer->k_norm = -1;
    if (config->model.qk_norm != MT_QK_NORM_NONE) {
        const bool per_head = config->model.qk_norm == MT_QK_NORM_HEAD;
        layer->q_norm = add_norm(builder, "attention/q_norm", per_head ? head_dim : q_width);
        layer->k_norm = add_norm(builder, "attention/k_norm", per_head ? head_dim : kv_width);
    }
    layer->post_attention_norm = add_norm(builder, "post_attention_norm", width);
}

static void add_dense_ffn(struct builder *builder, struct mt_layer_tensors *layer,
                          const struct mt_config *config)
{
    const int64_t width = config->model.hidden_size;
    const int64_t inner = config->model.dense_intermediate_size;
    layer->mlp_gate = add_matrix(builder, "mlp/gate_proj", inner, width);
    layer->mlp_up = add_matrix(builder, "mlp/up_proj", inner, width);
    layer->mlp_down = add_matrix(builder, "mlp/down_proj", width, inner);
}

static void add_moe(struct builder *builder, struct mt_layer_tensors *layer,
                    const struct mt_config *config)
{
    const int64_t width = config->model.hidden_size;
    const int64_t inner = config->moe.expert_intermediate_size;
    const int64_t n_expert = config->moe.num_experts;
    const int64_t shared = mt_config_shared_width(config);
    layer->moe.router = add_router(builder, "moe/router", n_expert, width);
    if (shared > 0) {
        layer->moe.shared_gate = add_matrix(builder, "moe/shared/gate_proj", shared, width);
        layer->moe.shared_up = add_matrix(builder, "moe/shared/up_proj", shared, width);
        layer->moe.shared_down = add_matrix(builder, "moe/shared/down_proj", width, shared);
    }
    if (config->moe.shared_gate) {
        layer->moe.shared_scale = add_router(builder, "moe/shared/gate", 1, width);
    }
    add_expert(builder, "moe/experts/gate_proj", n_expert, inner, width);
    add_expert(builder, "moe/experts/up_proj", n_expert, inner, width);
    add_expert(builder, "moe/experts/down_proj", n_expert, width, inner);
}

static void add_layer(struct builder *builder, struct mt_layer_tensors *layer,
                      const struct mt_config *config)
{
    layer->bucket = builder->bucket;
    layer->mlp_gate = layer->mlp_up = layer->mlp_down = -1;
    layer->moe = (struct mt_moe_tensors){-1, -1, -1, -1, -1};
    add_attention(builder, layer, config);
    if (mt_config_is_dense_layer(config, builder->layer)) {
        add_dense_ffn(builder, layer, config);
    } else {
        add_moe(builder, layer, config);
    }
}

enum mt_status mt_model_tensors_init(struct mt_model_tensors *tensors,
                                     const struct mt_config *config)
{
    enum { MAX_OUTSIDE = 3, MAX_PER_LAYER = 20 };
    memset(tensors, 0, sizeof(*tensors));
    const int n_layer = (int)config->model.num_layers;
    const int64_t max_tensor = MAX_OUTSIDE + (int64_t)MAX_PER_LAYER * n_layer;
    MT_TRY(MT_ALLOCATE(tensors->table.tensor, max_tensor, "tensor table"));
    MT_TRY(MT_ALLOCATE(tensors->layer, n_layer, "tensor table"));
    struct builder builder = {&tensors->table, max_tensor, config->model.init_std, -1, 0};
    const int64_t vocab = config->model.vocab_size;
    const int64_t width = config->model.hidden_size;
    tensors->bucket_embed = 0;
    tensors->bucket_head = n_layer + 1;
    tensors->embed = add_matrix(&builder, "embed_tokens", vocab, width);
    tensors->table.tensor[tensors->embed].is_product = config->model.tie_word_embeddings;
    for (int layer = 0; layer < n_layer; layer++) {
        builder.layer = layer;
        builder.bucket = 1 + layer;
        add_layer(&builder, &tensors->layer[layer], config);
    }
    builder.layer = -1;
    builder.bucket = tensors->bucket_head;
    tensors->norm = add_norm(&builder, "norm", width);
    tensors->head = config->model.tie_word_embeddings
                        ? tensors->embed
                        : add_matrix(&builder, "lm_head", vocab, width);
    tensors->table.n_bucket = n_layer + 2;
    tensors->table.n_layer = n_layer;
    return MT_OK;
}

void mt_model_tensors_clear(struct mt_model_tensors *tensors)
{
    mt_memory_free(tensors->table.tensor);
    mt_memory_free(tensors->layer);
    memset(tensors, 0, sizeof(*tensors));
}
