#include "interchange/upcycle.h"

#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "checkpoint/disk.h"
#include "checkpoint/one_shard.h"
#include "config/load.h"
#include "config/table.h"
#include "config/write.h"
#include "interchange/weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BUFFER_ELEMENTS = 1 << 18 };

static const char *const METHOD[MT_N_UPCYCLE] = {"copy", "noise", "drop", "split"};

struct upcycle {
    const struct mt_upcycle_options *options;
    struct mt_weights *dense; /* [n_dense] */
    struct mt_config *config; /* of the model with experts, like tensors */
    struct mt_model_tensors tensors;
    struct mt_new_folder made;
    struct mt_manifest manifest;
    float *value, *drawn; /* [BUFFER_ELEMENTS] */
    double *sum;          /* [BUFFER_ELEMENTS] */
    bool *is_dropped;     /* [F] of the expert that is being made */
};

enum mt_upcycle_method mt_upcycle_method_of(const char *word)
{
    int method = 0;
    while (method < MT_N_UPCYCLE && strcmp(METHOD[method], word) != 0) {
        ++method;
    }
    return (enum mt_upcycle_method)method;
}

const char *mt_upcycle_method_name(enum mt_upcycle_method method)
{
    return METHOD[method];
}

/* ---- what is asked for, and of what ---- */

static enum mt_status check_dense(const struct mt_weights *dense)
{
    const struct mt_config *config = dense->config;
    if (config->model.first_k_dense == config->model.num_layers) {
        return MT_OK;
    }
    return MT_FAIL(MT_ERR_CONFIG,
                   "%s has experts in %lld of its %lld layers; a dense model was expected, with "
                   "first_k_dense = num_layers",
                   dense->path, (long long)(config->model.num_layers - config->model.first_k_dense),
                   (long long)config->model.num_layers);
}

/* All of [model] but what only training looks at. */
static enum mt_status check_alike(const struct mt_weights *first, const struct mt_weights *other)
{
    for (int i = 0; i < mt_table_n_key(); ++i) {
        const struct mt_key *key = mt_table_key(i);
        if (strcmp(key->section, "model") != 0 || strcmp(key->name, "init_std") == 0 ||
            mt_write_hash(first->config, key) == mt_write_hash(other->config, key)) {
            continue;
        }
        char one[64];
        char two[64];
        mt_write_value(first->config, key, one, sizeof(one));
        mt_write_value(other->config, key, two, sizeof(two));
        return MT_FAIL(MT_ERR_CONFIG,
                       "model.%s is %s in %s and %s in %s; dense models of one shape were expected",
                       key->name, one, first->path, two, other->path);
    }
    return MT_OK;
}

static enum mt_status check_numbers(const struct upcycle *upcycle)
{
    const struct mt_upcycle_options *options = upcycle->options;
    const int64_t inner = upcycle->dense[0].config->model.dense_intermediate_size;
    if (options->n_expert % options->n_dense != 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "--experts %lld does not divide by %d dense models; as many experts of each "
                       "were expected",
                       (long long)options->n_expert, options->n_dense);
    }
    if (options->top_k > options->n_expert) {
        return MT_FAIL(MT_ERR_CONFIG, "--top-k %lld exceeds --experts %lld; 1 to %lld was expected",
                       (long long)options->top_k, (long long)options->n_expert,
                       (long long)options->n_expert);
    }
    if (inner % options->granularity != 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "--granularity %lld does not divide the dense width %lld; a divisor was "
                       "expected",
                       (long long)options->granularity, (long long)inner);
    }
    return MT_OK;
}

static enum mt_status open_dense(struct upcycle *upcycle)
{
    const struct mt_upcycle_options *options = upcycle->options;
    MT_TRY(MT_ALLOCATE(upcycle->dense, options->n_dense, "dense models"));
    for (int i = 0; i < options->n_dense; ++i) {
        MT_TRY(mt_weights_open(&upcycle->dense[i], options->dense[i]));
        MT_TRY(check_dense(&upcycle->dense[i]));
        MT_TRY(check_alike(&upcycle->dense[0], &upcycle->dense[i]));
    }
    return check_numbers(upcycle);
}

/* The run is named as the checkpoint: the last part of its path. */
static void name_run(struct mt_config *config, const char *name)
{
    (void)snprintf(config->run.name, sizeof(config->run.name), "%.*s", MT_NAME_BYTES - 1, name);
    (void)snprintf(config->run.dir, sizeof(config->run.dir), "runs/%s", config->run.name);
}

/* The first dense model's, with experts; read back, so that it obeys every rule of configurations.
 */
static enum mt_status make_config(struct upcycle *upcycle)
{
    const struct mt_upcycle_options *options = upcycle->options;
    struct mt_config *config = NULL;
    char *text = NULL;
    MT_TRY(MT_ALLOCATE(upcycle->config, 1, "configuration"));
    config = upcycle->config;
    *config = *upcycle->dense[0].config;
    config->moe.num_experts = options->n_expert * options->granularity;
    config->moe.top_k = options->top_k * options->granularity;
    config->moe.expert_intermediate_size =
        config->model.dense_intermediate_size / options->granularity;
    config->moe.normalize_top_k = true;
    config->moe.routed_scaling_factor = 1.0;
    config->moe.num_shared_experts = 0;
    config->moe.shared_intermediate_size = 0;
    config->moe.shared_gate = false;
    config->model.first_k_dense = 0;
    config->model.dense_intermediate_size = 0;
    name_run(config, upcycle->made.name);
    MT_TRY(mt_config_to_text(config, &text));
    const enum mt_status status =
        mt_config_parse(text, "the configuration with experts", ".", 0, NULL, NULL, config);
    mt_memory_free(text);
    MT_TRY(status);
    return mt_model_tensors_init(&upcycle->tensors, config);
}

/* ---- one tensor after another ---- */

/* The tensor of a dense model that a tensor beside the experts comes from: tables are built in one
 * order, and a layer's tensors begin with those of attention. */
static int origin_of(const struct upcycle *upcycle, int tensor)
{
    const struct mt_model_tensors *made = &upcycle->tensors;
    const struct mt_model_tensors *dense = &upcycle->dense[0].tensors;
    const int layer = made->table.tensor[tensor].layer;
    int origin = dense->head;
    if (layer >= 0) {
        origin = dense->layer[layer].input_norm + tensor - made->layer[layer].input_norm;
    } else if (tensor == made->embed) {
        origin = dense->embed;
    } else if (tensor == made->norm) {
        origin = dense->norm;
    }
    MT_ASSERT(strcmp(dense->table.tensor[origin].name, made->table.tensor[tensor].name) == 0);
    return origin;
}

/* value [n]: the mean of elements [first, first + n) of the dense models' tensor. */
static enum mt_status take_mean(struct upcycle *upcycle, int origin, int64_t first, int64_t n)
{
    const int n_dense = upcycle->options->n_dense;
    memset(upcycle->sum, 0, (size_t)n * sizeof(*upcycle->sum));
    for (int m = 0; m < n_dense; ++m) {
        MT_TRY(mt_weights_read(&upcycle->dense[m], origin, first, n, upcycle->value));
        for (int64_t i = 0; i < n; ++i) {
            upcycle->sum[i] += (double)upcycle->value[i];
        }
    }
    for (int64_t i = 0; i < n; ++i) {
        upcycle->value[i] = (float)(upcycle->sum[i] / n_dense);
    }
    return MT_OK;
}

static enum mt_status put_mean(struct upcycle *upcycle, int origin, int64_t n_element,
                               struct mt_one_shard *shard)
{
    for (int64_t done = 0; done < n_element; done += BUFFER_ELEMENTS) {
        const int64_t n = mt_min_i64(BUFFER_ELEMENTS, n_element - done);
        MT_TRY(take_mean(upcycle, origin, done, n));
        MT_TRY(mt_one_shard_put(shard, upcycle->value, n));
    }
    return MT_OK;
}

/* n_element normal numbers of the stream, from number `first` on. */
static enum mt_status put_normal(struct upcycle *upcycle, uint64_t stream, int64_t first,
                                 int64_t n_element, struct mt_one_shard *shard)
{
    for (int64_t done = 0; done < n_element; done += BUFFER_ELEMENTS) {
        const int64_t n = mt_min_i64(BUFFER_ELEMENTS, n_element - done);
        mt_random_fill_normal(upcycle->options->seed, stream, (uint64_t)(first + done), n,
                              (float)upcycle->config->model.init_std, upcycle->value);
        MT_TRY(mt_one_shard_put(shard, upcycle->value, n));
    }
    return MT_OK;
}

/* Random, one row for all slices of a copy. */
static enum mt_status put_router(struct upcycle *upcycle, const struct mt_tensor *router,
                                 struct mt_one_shard *shard)
{
    const uint64_t stream = mt_random_stream(router->name);
    const int64_t width = router->dim[1];
    for (int64_t expert = 0; expert < router->dim[0]; ++expert) {
        const int64_t copy = expert / upcycle->options->granularity;
        MT_TRY(put_normal(upcycle, stream, copy * width, width, shard));
    }
    return MT_OK;
}

/* One matrix of one expert, [F,D] or down's [D,F], and the dense one it is of. */
struct matrix {
    struct mt_weights *dense;
    int origin; /* its tensor there */
    bool is_down, is_gate;
    int64_t n_row, n_column, n_dense_column;
    int64_t first;          /* of the slice in the dense matrix */
    uint64_t stream, index; /* of random numbers: element 0's */
    double mean, deviation; /* of what is replaced, or of the whole for noise */
};

static struct matrix matrix_of(struct upcycle *upcycle, const struct mt_tensor *tensor,
                               int64_t expert)
{
    const struct mt_upcycle_options *options = upcycle->options;
    const int64_t slice = expert % options->granularity;
    struct mt_weights *dense = &upcycle->dense[expert / options->granularity % options->n_dense];
    const struct mt_layer_tensors *layer = &dense->tensors.layer[tensor->layer];
    const bool is_down = strstr(tensor->name, "down_proj") != NULL;
    const bool is_gate = strstr(tensor->name, "gate_proj") != NULL;
    const int64_t n_element = tensor->dim[1] * tensor->dim[2];
    return (struct matrix){.dense = dense,
                           .origin = is_down   ? layer->mlp_down
                                     : is_gate ? layer->mlp_gate
                                               : layer->mlp_up,
                           .is_down = is_down,
                           .is_gate = is_gate,
                           .n_row = tensor->dim[1],
                           .n_column = tensor->dim[2],
                           .n_dense_column =
                               is_down ? tensor->dim[2] * options->granularity : tensor->dim[2],
                           .first = is_down ? slice * tensor->dim[2] : slice * n_element,
                           .stream = mt_random_stream(tensor->name),
                           .index = (uint64_t)(expert * n_element)};
}

/* Elements [at, at + *n) of the expert's matrix as the dense one has them; *n: as many as lie side
 * by side there and fit the buffer. */
static enum mt_status read_some(struct upcycle *upcycle, const struct matrix *matrix, int64_t at,
                                int64_t *n)
{
    const bool is_whole = matrix->n_column == matrix->n_dense_column;
    const int64_t n_element = matrix->n_row * matrix->n_column;
    const int64_t column = at % matrix->n_column;
    const int64_t start = is_whole ? at : at / matrix->n_column * matrix->n_dense_column + column;
    const int64_t n_beside = is_whole ? n_element - at : matrix->n_column - column;
    *n = mt_min_i64(BUFFER_ELEMENTS, n_beside);
    return mt_weights_read(matrix->dense, matrix->origin, matrix->first + start, *n,
                           upcycle->value);
}

/* Of the inner width, which is down's columns and the others' rows. */
static int64_t inner_of(const struct matrix *matrix, int64_t at)
{
    return matrix->is_down ? at % matrix->n_column : at / matrix->n_column;
}

/* Mean and deviation, for drop of what is dropped alone. */
static enum mt_status measure(struct upcycle *upcycle, struct matrix *matrix)
{
    const bool is_drop = upcycle->options->method == MT_UPCYCLE_DROP;
    const int64_t n_element = matrix->n_row * matrix->n_column;
    double sum = 0.0;
    double squares = 0.0;
    double n_counted = 0.0;
    int64_t n = 0;
    for (int64_t at = 0; at < n_element; at += n) {
        MT_TRY(read_some(upcycle, matrix, at, &n));
        for (int64_t i = 0; i < n; ++i) {
            const double value = (double)upcycle->value[i];
            const bool is_counted = !is_drop || upcycle->is_dropped[inner_of(matrix, at + i)];
            sum += is_counted ? value : 0.0;
            squares += is_counted ? value * value : 0.0;
            n_counted += is_counted ? 1.0 : 0.0;
        }
    }
    matrix->mean = n_counted > 0.0 ? sum / n_counted : 0.0;
    matrix->deviation =
        n_counted > 0.0 ? sqrt(fmax(0.0, squares / n_counted - matrix->mean * matrix->mean)) : 0.0;
    return MT_OK;
}

/* Which of the inner width an expert draws anew, the same in its three matrices: the first ones of
 * a permutation, so exactly as many as the share says. */
static void choose_dropped(struct upcycle *upcycle, int layer, int64_t expert, int64_t inner)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "layers/%d/dropped/%lld", layer, (long long)expert);
    const uint64_t stream = mt_random_stream(name);
    const uint64_t n_dropped = (uint64_t)(upcycle->options->drop_ratio * (double)inner);
    for (int64_t i = 0; i < inner; ++i) {
        upcycle->is_dropped[i] = mt_random_permute(upcycle->options->seed, stream, (uint64_t)i,
                                                   (uint64_t)inner) < n_dropped;
    }
}

/* value [n], elements `at` on of the matrix, from the dense model's to the expert's. */
static void change(struct upcycle *upcycle, const struct matrix *matrix, int64_t at, int64_t n)
{
    const struct mt_upcycle_options *options = upcycle->options;
    float *value = upcycle->value;
    const float scale = matrix->is_gate ? 1.0F : (float)sqrt((double)options->granularity);
    if (options->method == MT_UPCYCLE_NOISE || options->method == MT_UPCYCLE_DROP) {
        const double part = options->method == MT_UPCYCLE_NOISE ? options->noise : 1.0;
        mt_random_fill_normal(options->seed, matrix->stream, matrix->index + (uint64_t)at, n,
                              (float)(part * matrix->deviation), upcycle->drawn);
    }
    for (int64_t i = 0; i < n; ++i) {
        if (options->method == MT_UPCYCLE_NOISE) {
            value[i] += upcycle->drawn[i];
        } else if (options->method == MT_UPCYCLE_SPLIT) {
            value[i] *= scale;
        } else if (options->method == MT_UPCYCLE_DROP &&
                   upcycle->is_dropped[inner_of(matrix, at + i)]) {
            value[i] = (float)matrix->mean + upcycle->drawn[i];
        }
    }
}

static enum mt_status put_expert(struct upcycle *upcycle, const struct mt_tensor *tensor,
                                 int64_t expert, struct mt_one_shard *shard)
{
    struct matrix matrix = matrix_of(upcycle, tensor, expert);
    const enum mt_upcycle_method method = upcycle->options->method;
    const int64_t n_element = matrix.n_row * matrix.n_column;
    int64_t n = 0;
    if (method == MT_UPCYCLE_DROP) {
        choose_dropped(upcycle, tensor->layer, expert,
                       upcycle->config->moe.expert_intermediate_size);
    }
    if (method == MT_UPCYCLE_DROP || method == MT_UPCYCLE_NOISE) {
        MT_TRY(measure(upcycle, &matrix));
    }
    for (int64_t at = 0; at < n_element; at += n) {
        MT_TRY(read_some(upcycle, &matrix, at, &n));
        change(upcycle, &matrix, at, n);
        MT_TRY(mt_one_shard_put(shard, upcycle->value, n));
    }
    return MT_OK;
}

static enum mt_status put_tensor(void *context, int64_t index, struct mt_one_shard *shard)
{
    struct upcycle *upcycle = context;
    const struct mt_tensor *tensor = &upcycle->tensors.table.tensor[index];
    if (tensor->layer >= 0 && upcycle->tensors.layer[tensor->layer].moe.router == index) {
        return put_router(upcycle, tensor, shard);
    }
    if (tensor->kind == MT_TENSOR_DENSE) {
        return put_mean(upcycle, origin_of(upcycle, (int)index), mt_tensor_n_element(tensor),
                        shard);
    }
    for (int64_t expert = 0; expert < tensor->dim[0]; ++expert) {
        MT_TRY(put_expert(upcycle, tensor, expert, shard));
    }
    return MT_OK;
}

/* ---- all of it ---- */

static enum mt_status write_config(const struct upcycle *upcycle)
{
    const struct mt_upcycle_options *options = upcycle->options;
    char *text = NULL;
    char *whole = NULL;
    char first[MT_PATH_BYTES];
    char to[MT_PATH_BYTES];
    MT_TRY(mt_config_to_text(upcycle->config, &text));
    const int64_t room = (int64_t)strlen(text) + (int64_t)2 * MT_PATH_BYTES + 512;
    enum mt_status status = MT_ALLOCATE(whole, room, "configuration");
    if (status == MT_OK) {
        const int n =
            snprintf(whole, (size_t)room,
                     "# Experts by %s from %d dense model%s, the first of which is %s.\n"
                     "# What is not of the model is that model's: look at [optimizer], "
                     "[data] and [train], then start with\n"
                     "#   moetrain train THIS_FILE --init-from %s\n\n%s",
                     METHOD[options->method], options->n_dense, options->n_dense == 1 ? "" : "s",
                     mt_weights_show_path(options->dense[0], first),
                     mt_weights_show_path(options->to, to), text);
        MT_ASSERT(n > 0 && n < room);
        status = mt_weights_keep_file(options->config_path,
                                      mt_disk_write_file(options->config_path, whole, n));
    }
    mt_memory_free(whole);
    mt_memory_free(text);
    return status;
}

static enum mt_status upcycle_all(struct upcycle *upcycle)
{
    const struct mt_run_state state = {0};
    const struct mt_upcycle_options *options = upcycle->options;
    MT_TRY(mt_new_folder_init(&upcycle->made, options->to, "the new checkpoint"));
    MT_TRY(mt_weights_check_new_file(options->config_path, options->to));
    MT_TRY(open_dense(upcycle));
    MT_TRY(make_config(upcycle));
    MT_TRY(MT_ALLOCATE(upcycle->value, BUFFER_ELEMENTS, "upcycling"));
    MT_TRY(MT_ALLOCATE(upcycle->drawn, BUFFER_ELEMENTS, "upcycling"));
    MT_TRY(MT_ALLOCATE(upcycle->sum, BUFFER_ELEMENTS, "upcycling"));
    MT_TRY(MT_ALLOCATE(upcycle->is_dropped, upcycle->config->moe.expert_intermediate_size,
                       "upcycling"));
    MT_TRY(
        mt_weights_plan(upcycle->config, &upcycle->tensors.table, MT_FLOAT32, &upcycle->manifest));
    MT_TRY(write_config(upcycle));
    return mt_weights_keep_file(
        options->config_path,
        mt_one_shard_write(&upcycle->made, &upcycle->manifest, &state, put_tensor, upcycle));
}

static void clear(struct upcycle *upcycle)
{
    for (int i = 0; upcycle->dense != NULL && i < upcycle->options->n_dense; ++i) {
        mt_weights_close(&upcycle->dense[i]);
    }
    mt_memory_free(upcycle->dense);
    mt_model_tensors_clear(&upcycle->tensors);
    mt_manifest_clear(&upcycle->manifest);
    mt_memory_free(upcycle->config);
    mt_memory_free(upcycle->value);
    mt_memory_free(upcycle->drawn);
    mt_memory_free(upcycle->sum);
    mt_memory_free(upcycle->is_dropped);
    mt_memory_free(upcycle);
}

enum mt_status mt_interchange_upcycle(const struct mt_upcycle_options *options,
                                      struct mt_upcycle_report *report)
{
    struct upcycle *upcycle = NULL;
    MT_ASSERT(options->n_dense >= 1 && options->n_expert >= 1 && options->top_k >= 1);
    MT_ASSERT(options->granularity >= 1 && options->noise >= 0.0);
    MT_ASSERT(options->drop_ratio >= 0.0 && options->drop_ratio <= 1.0);
    MT_ASSERT(options->granularity == 1 || options->method == MT_UPCYCLE_SPLIT);
    MT_TRY(MT_ALLOCATE(upcycle, 1, "upcycling"));
    upcycle->options = options;
    const enum mt_status status = upcycle_all(upcycle);
    if (status == MT_OK) {
        struct mt_model_size size;
        mt_model_size(upcycle->config, &size);
        *report = (struct mt_upcycle_report){.n_expert = upcycle->config->moe.num_experts,
                                             .top_k = upcycle->config->moe.top_k,
                                             .inner = upcycle->config->moe.expert_intermediate_size,
                                             .n_element = size.n_parameter};
    }
    clear(upcycle);
    return status;
}
