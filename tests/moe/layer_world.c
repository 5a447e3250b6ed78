#include "layer_world.h"

#include "base/job.h"
#include "base/random.h"
#include "base/size.h"
#include "support/compare.h"
#include "support/fill.h"
#include "support/test.h"

#include <stdlib.h>
#include <string.h>

enum { D = 16, F = 24, TOKENS_PER_RANK = 7, RANKS_PER_NODE = 2 };

static struct mt_tensor tensor_row(const char *name, enum mt_tensor_kind kind, int64_t a, int64_t b,
                                   int64_t c)
{
    struct mt_tensor tensor = {.kind = kind,
                               .n_dim = kind == MT_TENSOR_EXPERT ? 3 : 2,
                               .dim = {a, b, c},
                               .layer = WORLD_LAYER,
                               .decay = true,
                               .is_product = kind == MT_TENSOR_DENSE,
                               .init_std = 1.0F};
    (void)snprintf(tensor.name, sizeof(tensor.name), "layers/1/moe/%s", name);
    return tensor;
}

static void make_table(struct world *world)
{
    const int64_t n_expert = world->shape.n_expert;
    const int64_t shared = world->shape.n_shared * F;
    struct mt_tensor *tensor = world->tensor;
    tensor[0] = tensor_row("router", MT_TENSOR_DENSE, n_expert, D, 0);
    tensor[0].is_product = false;
    tensor[1] = tensor_row("experts/gate_proj", MT_TENSOR_EXPERT, n_expert, F, D);
    tensor[2] = tensor_row("experts/up_proj", MT_TENSOR_EXPERT, n_expert, F, D);
    tensor[3] = tensor_row("experts/down_proj", MT_TENSOR_EXPERT, n_expert, D, F);
    world->n_tensor = 4;
    if (shared > 0) {
        tensor[4] = tensor_row("shared/gate_proj", MT_TENSOR_DENSE, shared, D, 0);
        tensor[5] = tensor_row("shared/up_proj", MT_TENSOR_DENSE, shared, D, 0);
        tensor[6] = tensor_row("shared/down_proj", MT_TENSOR_DENSE, D, shared, 0);
        world->n_tensor = 7;
    }
    if (world->shape.has_shared_gate) {
        tensor[7] = tensor_row("shared/gate", MT_TENSOR_DENSE, 1, D, 0);
        tensor[7].is_product = false;
        world->n_tensor = WORLD_N_TENSOR;
    }
    world->table = (struct mt_tensor_table){
        .n_tensor = world->n_tensor, .n_bucket = 1, .n_layer = WORLD_N_LAYER, .tensor = tensor};
}

static void make_config(struct world *world)
{
    const struct world_case *shape = &world->shape;
    MT_TEST_OK(MT_ALLOCATE(world->config, 1, "config"));
    struct mt_config *config = world->config;
    config->model.hidden_size = D;
    config->model.num_layers = WORLD_N_LAYER;
    config->model.first_k_dense = WORLD_LAYER;
    config->moe.num_experts = shape->n_expert;
    config->moe.top_k = shape->top_k;
    config->moe.expert_intermediate_size = F;
    config->moe.num_shared_experts = shape->n_shared;
    config->moe.shared_gate = shape->has_shared_gate;
    config->moe.normalize_top_k = shape->normalize;
    config->moe.routed_scaling_factor = 1.5;
    config->balance.loss = shape->loss;
    config->balance.window = shape->window;
    config->balance.loss_coef = shape->loss_coef;
    config->balance.z_loss_coef = shape->z_loss_coef;
    config->placement.load_window = 3;
    config->placement.rematerialize = !shape->is_sticky;
    config->placement.overlap_experts = -1;
    config->placement.calibrate = true;
    (void)snprintf(config->placement.policy, sizeof(config->placement.policy), "ep");
}

static void make_tokens(struct world *world)
{
    MT_TEST_OK(MT_ALLOCATE(world->first, world->n_rank + 1, "tokens"));
    for (int r = 0; r < world->n_rank; ++r) {
        int64_t n = TOKENS_PER_RANK;
        if (world->shape.tokens == TOKENS_UNEVEN) {
            n += r % 3;
        } else if (world->shape.tokens == TOKENS_EMPTY) {
            n = r % 2 == 1 ? 0 : n;
        }
        world->first[r + 1] = world->first[r] + n;
    }
    const int64_t n = world->first[world->n_rank] * D;
    const int64_t n_own = world_n_own(world) * D;
    MT_TEST_OK(MT_ALLOCATE(world->x, n, "x"));
    MT_TEST_OK(MT_ALLOCATE(world->d_out, n, "d_out"));
    MT_TEST_OK(MT_ALLOCATE(world->out, n_own, "out"));
    MT_TEST_OK(MT_ALLOCATE(world->d_x, n_own, "d_x"));
    MT_TEST_OK(MT_ALLOCATE(world->x_wide, n, "x"));
    MT_TEST_OK(MT_ALLOCATE(world->d_out_wide, n, "d_out"));
    MT_TEST_OK(MT_ALLOCATE(world->out_wide, n, "out"));
    MT_TEST_OK(MT_ALLOCATE(world->d_x_wide, n, "d_x"));
    mt_test_fill_uniform(world->x, n, 1, -1.0, 1.0);
    mt_test_fill_uniform(world->d_out, n, 2, -1.0, 1.0);
    for (int64_t t = 0; t < n; t += D) {
        world->x[t] = 1.0F; /* what a hot router looks at */
    }
    mt_test_widen(world->x_wide, world->x, n);
    mt_test_widen(world->d_out_wide, world->d_out, n);
}

static void make_values(struct world *world)
{
    for (int t = 0; t < world->n_tensor; ++t) {
        const int64_t n = mt_tensor_n_element(&world->tensor[t]);
        MT_TEST_OK(MT_ALLOCATE(world->value[t], n, "values"));
        MT_TEST_OK(MT_ALLOCATE(world->value_wide[t], n, "values"));
        MT_TEST_OK(MT_ALLOCATE(world->grad_wide[t], n, "gradients"));
        mt_test_fill_uniform(world->value[t], n, 100U + (uint64_t)t, -0.5, 0.5);
    }
    if (world->shape.is_hot) {
        world->value[0][0] = 6.0F;
    }
    for (int t = 0; t < world->n_tensor; ++t) {
        mt_test_widen(world->value_wide[t], world->value[t],
                      mt_tensor_n_element(&world->tensor[t]));
    }
}

/* Of any rank, exactly: then "one expert" fills the arena that the layer says it needs. */
static int64_t most_tokens(const struct world *world)
{
    int64_t most = 0;
    for (int r = 0; r < world->n_rank; ++r) {
        most = mt_max_i64(most, world->first[r + 1] - world->first[r]);
    }
    return most;
}

static void make_store(struct world *world)
{
    const int n_slot = world->shape.placement_seed > 0 ? (int)world->shape.n_expert : 0;
    MT_TEST_OK(mt_moe_ownership(world->config, world->n_rank, world->ownership));
    const struct mt_store_options options = {
        .training = true, .n_slot = n_slot, .ownership = world->ownership};
    MT_TEST_OK(
        mt_store_create(&world->device, &world->comm, &world->table, &options, &world->store));
    for (int i = 0; i < mt_store_n_part(world->store); ++i) {
        const struct mt_part *part = mt_store_part(world->store, i);
        memcpy(part->value, world->value[part->tensor] + part->first,
               (size_t)part->n_element * sizeof(float));
    }
    MT_TEST_OK(mt_store_publish(world->store));
    MT_TEST_OK(mt_store_use_all(world->store));
    const bool has_shared = world->shape.n_shared > 0;
    const struct mt_moe_tensors tensors[WORLD_N_LAYER] = {{-1, -1, -1, -1, -1},
                                                          {0, has_shared ? 4 : -1,
                                                           has_shared ? 5 : -1, has_shared ? 6 : -1,
                                                           world->shape.has_shared_gate ? 7 : -1}};
    const struct mt_moe_options moe = {.config = world->config,
                                       .device = &world->device,
                                       .comm = &world->comm,
                                       .store = world->store,
                                       .tensors = tensors,
                                       .n_half = world->shape.is_halved ? MT_MAX_HALF : 1,
                                       .max_token = world_n_own(world),
                                       .max_token_any = most_tokens(world),
                                       .n_slot = n_slot,
                                       .training = true};
    MT_TEST_OK(mt_moe_create(&moe, &world->moe));
    if (world->shape.slice_rows > 0) {
        world->moe->slice_rows = world->shape.slice_rows;
    }
    for (int half = 0; half < MT_MAX_HALF; ++half) {
        MT_TEST_OK(
            mt_arena_init(&world->arena[half], mt_moe_saved_bytes_max(world->moe), "activations"));
    }
}

void world_create(struct world *world, const struct world_case *shape)
{
    memset(world, 0, sizeof(*world));
    world->shape = *shape;
    world->rank = mt_job_rank();
    world->n_rank = mt_job_size();
    mt_device_init_plain(&world->device);
    MT_TEST_OK(mt_comm_init_mpi(&world->comm, mt_job_world(), RANKS_PER_NODE));
    make_config(world);
    make_table(world);
    make_tokens(world);
    make_values(world);
    make_store(world);
}

void world_destroy(struct world *world)
{
    mt_moe_destroy(world->moe);
    mt_store_destroy(world->store);
    mt_comm_clear(&world->comm);
    for (int half = 0; half < MT_MAX_HALF; ++half) {
        mt_arena_clear(&world->arena[half]);
    }
    for (int l = 0; l < WORLD_N_LAYER; ++l) {
        mt_placement_clear(&world->ownership[l]);
    }
    for (int t = 0; t < world->n_tensor; ++t) {
        mt_memory_free(world->value[t]);
        mt_memory_free(world->value_wide[t]);
        mt_memory_free(world->grad_wide[t]);
    }
    void *const array[] = {world->config,   world->first,   world->x,      world->d_out,
                           world->out,      world->d_x,     world->x_wide, world->d_out_wide,
                           world->out_wide, world->d_x_wide};
    for (size_t i = 0; i < sizeof(array) / sizeof(array[0]); ++i) {
        mt_memory_free(array[i]);
    }
}

void world_micro(const struct world *world, int rank, int micro, int n_micro, int64_t *start,
                 int64_t *end)
{
    const int64_t n = world->first[rank + 1] - world->first[rank];
    *start = world->first[rank] + mt_share_start(n, n_micro, micro);
    *end = world->first[rank] + mt_share_start(n, n_micro, micro + 1);
}

/* A policy for tests: copies of every expert on about a third of the other ranks, alike on all
 * ranks; half of them are decided after the gate, others than that for a second half. */
static uint64_t test_seed;

static void draw_copies(const struct mt_policy_input *input, struct mt_placement *placement,
                        bool is_late)
{
    const int n_rank = placement->n_rank;
    const uint64_t first = is_late ? 1000 * (uint64_t)mt_placement_n_instance(placement) : 0;
    for (int e = 0; e < placement->n_expert; ++e) {
        for (int r = 0; r < n_rank; ++r) {
            const uint64_t index = first + (uint64_t)e * (uint64_t)n_rank + (uint64_t)r;
            const uint64_t drawn = mt_random_u64(test_seed, (uint64_t)input->step, index) % 6;
            if (drawn == (is_late ? 1 : 0) && mt_placement_find(placement, e, r) < 0) {
                mt_placement_add(placement, e, r, is_late);
            }
        }
    }
    mt_placement_check(placement);
}

static void test_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                             struct mt_placement *placement)
{
    (void)scratch;
    mt_placement_owners_only(placement);
    draw_copies(input, placement, false);
}

static void test_after_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                            struct mt_placement *placement)
{
    (void)scratch;
    draw_copies(input, placement, true);
}

static const struct mt_policy test_policy = {.name = "test",
                                             .before_gate = test_before_gate,
                                             .after_gate = test_after_gate,
                                             .split = MT_SPLIT_LOCAL_FIRST};

void world_begin_step(struct world *world)
{
    mt_store_zero_grad(world->store);
    ++world->step;
    MT_TEST_OK(mt_moe_plan_step(world->moe, world->step, 1));
    if (world->shape.placement_seed > 0) {
        test_seed = world->shape.placement_seed;
        world->moe->policy = &test_policy;
    }
}

static int n_half_of(const struct world *world)
{
    return world->shape.is_halved ? MT_MAX_HALF : 1;
}

/* Tokens of this rank in a half of a micro-batch: counted from its first one. */
static int64_t half_start(const struct world *world, int micro, int n_micro, int half)
{
    int64_t start = 0;
    int64_t end = 0;
    world_micro(world, world->rank, micro, n_micro, &start, &end);
    return start - world->first[world->rank] + mt_ceil_div((end - start) * half, n_half_of(world));
}

static struct mt_moe_forward forward_of(struct world *world, int micro, int n_micro, int half)
{
    const int64_t start = half_start(world, micro, n_micro, half);
    return (struct mt_moe_forward){.out = world->out + start * D,
                                   .x = world->x + (world->first[world->rank] + start) * D,
                                   .n = half_start(world, micro, n_micro, half + 1) - start,
                                   .arena = &world->arena[half]};
}

void world_run_micro(struct world *world, int micro, int n_micro)
{
    struct mt_moe *moe = world->moe;
    struct mt_moe_saved saved[MT_MAX_HALF];
    const int n_half = n_half_of(world);
    const double token_share = 1.0 / (double)world->first[world->n_rank];
    mt_moe_begin_micro(moe, micro, micro == n_micro - 1, n_half);
    MT_TEST_OK(mt_moe_prefetch(moe, WORLD_LAYER, true));
    for (int half = 0; half < n_half; ++half) {
        struct mt_moe_forward args = forward_of(world, micro, n_micro, half);
        args.saved = &saved[half];
        MT_TEST_OK(mt_moe_forward_begin(moe, WORLD_LAYER, half, &args));
    }
    for (int half = 0; half < n_half; ++half) {
        MT_TEST_OK(mt_moe_forward_experts(moe, WORLD_LAYER, half));
    }
    for (int half = 0; half < n_half; ++half) {
        MT_TEST_OK(mt_moe_forward_end(moe, half));
    }
    MT_TEST_OK(mt_moe_prefetch_backward(moe, WORLD_LAYER));
    for (int half = 0; half < n_half; ++half) {
        const int64_t start = half_start(world, micro, n_micro, half);
        const struct mt_moe_backward args = {.d_x = world->d_x + start * D,
                                             .d_out = world->d_out +
                                                      (world->first[world->rank] + start) * D,
                                             .saved = &saved[half],
                                             .arena = &world->arena[half]};
        MT_TEST_OK(mt_moe_backward_begin(moe, WORLD_LAYER, half, &args));
    }
    for (int half = 0; half < n_half; ++half) {
        MT_TEST_OK(mt_moe_backward_experts(moe, WORLD_LAYER, half));
    }
    for (int half = 0; half < n_half; ++half) {
        MT_TEST_OK(mt_moe_backward_end(moe, WORLD_LAYER, half, token_share));
        mt_arena_release(&world->arena[half], 0);
    }
    MT_TEST_OK(mt_moe_end_reduce(moe, WORLD_LAYER));
}

void world_count_micro(struct world *world, int micro, int n_micro)
{
    const int n_half = n_half_of(world);
    mt_moe_begin_micro(world->moe, micro, micro == n_micro - 1, n_half);
    for (int half = 0; half < n_half; ++half) {
        const struct mt_moe_forward args = forward_of(world, micro, n_micro, half);
        MT_TEST_OK(mt_moe_prefetch(world->moe, WORLD_LAYER, false));
        MT_TEST_OK(mt_moe_forward_begin(world->moe, WORLD_LAYER, half, &args));
        MT_TEST_OK(mt_moe_forward_experts(world->moe, WORLD_LAYER, half));
        MT_TEST_OK(mt_moe_forward_end(world->moe, half));
    }
}

void world_end_step(struct world *world, struct mt_moe_stats *stats)
{
    MT_TEST_OK(mt_store_reduce_finish(world->store));
    MT_TEST_OK(mt_moe_finish_step(world->moe, stats));
}

static struct mt_ref_moe_weights point(const struct world *world, double *const *tensor)
{
    const bool has_shared = world->shape.n_shared > 0;
    return (struct mt_ref_moe_weights){.router = tensor[0],
                                       .gate = tensor[1],
                                       .up = tensor[2],
                                       .down = tensor[3],
                                       .shared_gate = has_shared ? tensor[4] : NULL,
                                       .shared_up = has_shared ? tensor[5] : NULL,
                                       .shared_down = has_shared ? tensor[6] : NULL,
                                       .shared_scale =
                                           world->shape.has_shared_gate ? tensor[7] : NULL};
}

static struct mt_ref_moe reference_of(const struct world *world, const double *f)
{
    const struct world_case *shape = &world->shape;
    const double n_token = (double)world->first[world->n_rank];
    return (struct mt_ref_moe){.width = D,
                               .inner = F,
                               .shared_inner = shape->n_shared * F,
                               .gate = {.n_expert = shape->n_expert,
                                        .top_k = shape->top_k,
                                        .normalize = shape->normalize,
                                        .scale = 1.5},
                               .f = f,
                               .balance_scale =
                                   shape->loss_coef * (double)shape->n_expert / n_token,
                               .z_scale = 2.0 * shape->z_loss_coef / n_token};
}

void world_reference(struct world *world, int rank, int micro, int n_micro, const double *f)
{
    int64_t start = 0;
    int64_t end = 0;
    const struct mt_ref_moe moe = reference_of(world, f);
    const struct mt_ref_moe_weights weights = point(world, world->value_wide);
    struct mt_ref_moe_weights d_weights = point(world, world->grad_wide);
    world_micro(world, rank, micro, n_micro, &start, &end);
    const struct mt_ref_moe_forward forward = {
        .out = world->out_wide + start * D, .x = world->x_wide + start * D, .weights = &weights};
    (void)mt_ref_moe_forward(&forward, end - start, &moe);
    const struct mt_ref_moe_backward backward = {.d_x = world->d_x_wide + start * D,
                                                 .d_weights = &d_weights,
                                                 .d_out = world->d_out_wide + start * D,
                                                 .x = world->x_wide + start * D,
                                                 .weights = &weights};
    mt_ref_moe_backward(&backward, end - start, &moe);
}

void world_reference_count(struct world *world, int rank, int micro, int n_micro, int64_t *count,
                           double *probability_sum, double *lse_square_sum)
{
    int64_t start = 0;
    int64_t end = 0;
    const struct mt_ref_moe moe = reference_of(world, NULL);
    const struct mt_ref_moe_weights weights = point(world, world->value_wide);
    world_micro(world, rank, micro, n_micro, &start, &end);
    const struct mt_ref_moe_forward forward = {.out = world->out_wide + start * D,
                                               .count = count,
                                               .probability_sum = probability_sum,
                                               .lse_square_sum = lse_square_sum,
                                               .x = world->x_wide + start * D,
                                               .weights = &weights};
    (void)mt_ref_moe_forward(&forward, end - start, &moe);
}

bool world_share(const struct world *world, const int64_t *count, double *f)
{
    int64_t total = 0;
    for (int64_t e = 0; e < world->shape.n_expert; ++e) {
        total += count[e];
    }
    for (int64_t e = 0; e < world->shape.n_expert && total > 0; ++e) {
        f[e] = (double)count[e] / (double)total;
    }
    return total > 0;
}

void world_check(const struct world *world, double row_bound, double grad_bound)
{
    const int64_t own = world->first[world->rank] * D;
    const int64_t n = world_n_own(world) * D;
    mt_test_assert_close(world->out, world->out_wide + own, n, row_bound, world->shape.name,
                         __FILE__, __LINE__);
    mt_test_assert_close(world->d_x, world->d_x_wide + own, n, row_bound, world->shape.name,
                         __FILE__, __LINE__);
    for (int i = 0; i < mt_store_n_part(world->store); ++i) {
        const struct mt_part *part = mt_store_part(world->store, i);
        char what[256];
        (void)snprintf(what, sizeof(what), "%s: %s from %lld", world->shape.name,
                       world->tensor[part->tensor].name, (long long)part->first);
        mt_test_assert_close(part->grad, world->grad_wide[part->tensor] + part->first,
                             part->n_element, grad_bound, what, __FILE__, __LINE__);
    }
}
