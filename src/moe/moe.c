/* The object behind all MoE layers of a run: made once, planned every step, kept by checkpoints. */
#include "base/size.h"
#include "device/memory.h"
#include "moe/context.h"
#include "placement/exchange.h"

#include <string.h>

enum { N_SAVED_CUT = 17, CUT_ALIGNMENT_BYTES = 64 };

static enum mt_status too_large(void)
{
    return MT_FAIL(MT_ERR_RESOURCE,
                   "the rows of a MoE layer do not fit 63 bits of bytes; expected tokens x top_k x "
                   "(hidden_size + expert_intermediate_size) within that; use a smaller batch");
}

static enum mt_status allocate_floats(const struct mt_moe *moe, float **out, int64_t rows,
                                      int64_t width, const char *what)
{
    int64_t n = 0;
    if (!mt_size_multiply(rows, width, &n)) {
        return too_large();
    }
    return MT_DEVICE_ALLOCATE(moe->device, *out, n, what);
}

/* Sizes from the options; the rest of *moe is zero. */
static enum mt_status set_sizes(struct mt_moe *moe, const struct mt_moe_options *options)
{
    const struct mt_config *config = options->config;
    *moe = (struct mt_moe){
        .device = options->device,
        .comm = options->comm,
        .store = options->store,
        .training = options->training,
        .recompute = options->training && config->train.recompute == MT_RECOMPUTE_LAYER,
        .n_layer = (int)config->model.num_layers,
        .first_layer = (int)mt_min_i64(config->model.first_k_dense, config->model.num_layers),
        .n_rank = options->comm->topology.n_rank,
        .n_expert = (int)config->moe.num_experts,
        .top_k = (int)config->moe.top_k,
        .n_slot = options->n_slot,
        .width = config->model.hidden_size,
        .inner = config->moe.expert_intermediate_size,
        .shared_inner = mt_config_shared_width(config),
        .is_shared_aside =
            !mt_device_is_host(options->device) && mt_config_shared_width(config) > 0,
        .max_token = options->max_token,
        .rematerialize = config->placement.rematerialize,
        .calibrate = config->placement.calibrate,
        .split = config->placement.split,
        .overlap = (int)config->placement.overlap_experts,
        .reshard_interval = config->placement.reshard_interval,
        .slice_rows = mt_moe_slice_rows(options->max_token_any, config->moe.top_k),
        .loss_coef = config->balance.loss_coef,
        .z_loss_coef = config->balance.z_loss_coef,
        .gate = {.n_expert = config->moe.num_experts,
                 .top_k = config->moe.top_k,
                 .normalize = config->moe.normalize_top_k,
                 .scale = (float)config->moe.routed_scaling_factor}};
    MT_ASSERT(options->n_half >= 1 && options->n_half <= MT_MAX_HALF);
    MT_ASSERT(options->max_token >= 0 && options->max_token <= options->max_token_any);
    MT_ASSERT(moe->n_slot >= 0 && moe->top_k >= 1 && moe->top_k <= moe->n_expert);
    int64_t pairs = 0;
    if (!mt_size_multiply(options->max_token_any, moe->top_k, &pairs) ||
        !mt_size_multiply(pairs, moe->n_rank, &moe->max_row)) {
        return too_large();
    }
    return MT_OK;
}

static int64_t max_instance(const struct mt_moe *moe)
{
    return moe->n_expert + (int64_t)moe->n_rank * moe->n_slot;
}

/* What one forward cuts at most, its scratch and its backward's included; and the routes of all
 * layers. */
static enum mt_status plan_saved_bytes(struct mt_moe *moe, const struct mt_config *config,
                                       const struct mt_carrier_size *carrier)
{
    const int64_t float_bytes = (int64_t)sizeof(float);
    const int64_t row_floats = moe->width + 2 * moe->inner + 1; /* rows, gate, up; weights */
    const int64_t token_floats = 3 * moe->top_k + moe->n_expert + 2 + 2 * moe->shared_inner;
    const struct mt_route_size route = {.n_rank = moe->n_rank,
                                        .n_expert = moe->n_expert,
                                        .max_instance = max_instance(moe),
                                        .n_choice = moe->max_token * moe->top_k,
                                        .n_row = moe->max_row,
                                        .slice_rows = moe->slice_rows};
    const int64_t n_route = 1 + (moe->training ? moe->n_layer - moe->first_layer : 0);
    int64_t row_bytes = 0;
    int64_t token_bytes = 0;
    int64_t route_bytes = 0;
    int64_t transfer_bytes = 0;
    int64_t sum = 0;
    /* the slice that is kept, and one that is not */
    if (!mt_size_multiply(moe->slice_rows, 2 * row_floats * float_bytes, &row_bytes) ||
        !mt_size_multiply(moe->max_token, token_floats * float_bytes, &token_bytes) ||
        !mt_route_bytes_max(&route, &route_bytes) ||
        !mt_carrier_route_bytes_max(&moe->comm->topology, moe->comm->rank, config, carrier,
                                    &transfer_bytes) ||
        !mt_size_add(route_bytes, transfer_bytes, &sum) ||
        !mt_size_multiply(sum, n_route, &moe->plans_bytes) ||
        !mt_size_add(row_bytes, token_bytes, &sum) ||
        !mt_size_add(sum, (int64_t)N_SAVED_CUT * CUT_ALIGNMENT_BYTES, &moe->saved_bytes_max)) {
        return too_large();
    }
    /* Without the slice that is not kept; smaller than saved_bytes_max, of which it is a part. */
    const int64_t inner_floats =
        moe->recompute ? 2 * (moe->slice_rows * moe->inner + moe->max_token * moe->shared_inner)
                       : 0;
    moe->kept_bytes_max = moe->saved_bytes_max - row_bytes / 2 - inner_floats * float_bytes;
    return MT_OK;
}

static enum mt_status allocate_counts(struct mt_moe *moe)
{
    const int64_t n_expert = moe->n_expert;
    const int64_t n_rank = moe->n_rank;
    MT_TRY(MT_ALLOCATE(moe->count, n_rank * n_expert, "expert counts of all ranks"));
    MT_TRY(MT_ALLOCATE(moe->global_count, n_expert, "expert counts"));
    MT_TRY(MT_ALLOCATE(moe->quota, n_rank * max_instance(moe), "row quotas"));
    MT_TRY(MT_ALLOCATE(moe->load, n_rank, "rank loads"));
    MT_TRY(MT_ALLOCATE(moe->probability_sum, n_expert, "router probabilities"));
    MT_TRY(mt_counts_init(&moe->counts, moe->device, moe->comm, n_expert));
    MT_TRY(MT_DEVICE_ALLOCATE(moe->device, moe->gate_sum, n_expert + 1, "router probabilities"));
    MT_TRY(MT_ALLOCATE(moe->seen.count, n_rank * n_expert, "expert counts of all ranks"));
    MT_TRY(MT_ALLOCATE(moe->expected_count, n_rank * n_expert, "expert counts of all ranks"));
    MT_TRY(MT_ALLOCATE(moe->seen.probability_sum, n_expert, "router probabilities"));
    MT_TRY(MT_ALLOCATE(moe->load_max_over_mean, moe->n_layer, "layer loads"));
    for (int m = 0; m < MT_EXPERT_MATRICES; ++m) {
        MT_TRY(mt_memory_allocate_items((int64_t)sizeof(void *), n_expert, "expert weights' list",
                                        (void **)&moe->weight[m]));
        MT_TRY(mt_memory_allocate_items((int64_t)sizeof(void *), n_expert, "gradients' list",
                                        (void **)&moe->weight_grad[m]));
    }
    return MT_OK;
}

static int64_t expert_scratch_bytes(const struct mt_moe *moe)
{
    const int64_t routed = mt_expert_scratch_bytes(moe->device, moe->inner, moe->slice_rows);
    return moe->shared_inner == 0
               ? routed
               : mt_max_i64(routed, mt_expert_scratch_bytes(moe->device, moe->shared_inner,
                                                            moe->max_token));
}

/* `near`, and behind it what experts compute, where products find rows at a cache line. */
static enum mt_status allocate_near(const struct mt_moe *moe, struct mt_moe_half *half,
                                    int64_t max_choice)
{
    const int64_t line = CUT_ALIGNMENT_BYTES / (int64_t)sizeof(float);
    int64_t rows = 0;
    if (!mt_size_add(max_choice, moe->slice_rows + line, &rows)) {
        return too_large();
    }
    MT_TRY(allocate_floats(moe, &half->near, rows, moe->width + 1, "rows to and from experts"));
    half->rows = half->near + mt_round_up(max_choice * (moe->width + 1), line);
    half->d_row_weight = half->rows + moe->slice_rows * moe->width;
    return MT_OK;
}

static enum mt_status create_half(const struct mt_moe *moe, const struct mt_config *config,
                                  const struct mt_carrier_size *carrier, struct mt_moe_half *half)
{
    struct mt_arrivals *arrivals = &half->arrivals;
    MT_TRY(allocate_near(moe, half, moe->max_token * moe->top_k));
    MT_TRY(allocate_floats(moe, &half->far, moe->slice_rows, moe->width + 1, "rows of a slice"));
    MT_TRY(MT_ALLOCATE(arrivals->wide, moe->slice_rows, "row offsets"));
    MT_TRY(MT_ALLOCATE(arrivals->weight, moe->slice_rows, "row offsets"));
    MT_TRY(MT_ALLOCATE(arrivals->narrow, moe->slice_rows, "row offsets"));
    MT_TRY(MT_ALLOCATE(arrivals->group_start, moe->n_expert + 1, "row offsets"));
    MT_TRY(MT_ALLOCATE(arrivals->taken, moe->n_rank, "row offsets"));
    MT_TRY(mt_arena_init(&half->plans, moe->plans_bytes, "routes of rows"));
    return mt_carrier_init(&half->carrier, moe->device, moe->comm, config, carrier);
}

static void clear_half(struct mt_device *device, struct mt_moe_half *half)
{
    mt_carrier_clear(&half->carrier);
    mt_arena_clear(&half->plans);
    mt_device_free(device, half->near);
    mt_device_free(device, half->far);
    mt_memory_free(half->arrivals.wide);
    mt_memory_free(half->arrivals.weight);
    mt_memory_free(half->arrivals.narrow);
    mt_memory_free(half->arrivals.group_start);
    mt_memory_free(half->arrivals.taken);
}

static enum mt_status allocate_rows(struct mt_moe *moe)
{
    const int64_t max_choice = moe->max_token * moe->top_k;
    MT_TRY(allocate_floats(moe, &moe->logits, moe->max_token, moe->n_expert, "router logits"));
    MT_TRY(allocate_floats(moe, &moe->again, max_choice, moe->width + 1, "rows sent again"));
    MT_TRY(mt_device_allocate(moe->device, expert_scratch_bytes(moe), "expert activations",
                              &moe->expert_scratch));
    MT_TRY(MT_ALLOCATE(moe->token_offset, max_choice, "row offsets"));
    MT_TRY(MT_ALLOCATE(moe->choice, mt_device_is_host(moe->device) ? 0 : max_choice, "choices"));
    const int64_t max_row = mt_max_i64(max_choice, moe->slice_rows);
    MT_TRY(MT_ALLOCATE(moe->row_token, max_row, "row offsets"));
    MT_TRY(MT_ALLOCATE(moe->row_choice, max_row, "row offsets"));
    for (int64_t i = 0; i < max_choice; ++i) {
        moe->token_offset[i] = i / moe->top_k * moe->width;
    }
    MT_TRY(mt_device_reserve(moe->device, max_row, mt_max_i64(moe->width, moe->inner)));
    MT_TRY(mt_device_reserve(moe->device, moe->max_token, moe->n_expert));
    return mt_moe_reserve_shared(moe);
}

static enum mt_status create_placement(struct mt_moe *moe, int layer)
{
    const int *owner = mt_store_owners(moe->store, layer);
    struct mt_placement *const both[] = {&moe->planned[layer], &moe->placement[layer]};
    for (int i = 0; i < 2; ++i) {
        MT_TRY(mt_placement_init(both[i], moe->n_rank, moe->n_expert, (int)max_instance(moe)));
        memcpy(both[i]->owner, owner, (size_t)moe->n_expert * sizeof(*owner));
        mt_placement_owners_only(both[i]);
    }
    return MT_OK;
}

static enum mt_status create_planner(struct mt_moe *moe, const struct mt_config *config)
{
    int64_t scratch_bytes = 0;
    if (!mt_policy_scratch_bytes(moe->n_rank, moe->n_expert, moe->n_layer, max_instance(moe),
                                 &scratch_bytes)) {
        return too_large();
    }
    MT_TRY(mt_arena_init(&moe->scratch, scratch_bytes, "scratch of policies"));
    MT_TRY(mt_cluster_init(&moe->cluster, moe->n_rank, moe->comm->topology.node));
    mt_exchange_describe(&moe->cluster, config);
    moe->cluster.row_bytes = (moe->width + 1) * (int64_t)sizeof(float);
    moe->cluster.expert_bytes =
        MT_EXPERT_MATRICES * moe->width * moe->inner * (int64_t)sizeof(float);
    return MT_OK;
}

static enum mt_status create_placements(struct mt_moe *moe, const struct mt_config *config)
{
    const int64_t n_owner = (int64_t)moe->n_layer * moe->n_expert;
    const int64_t n_place = moe->n_layer * (1 + max_instance(moe));
    moe->policy = mt_policy_find(config->placement.policy);
    if (moe->policy == NULL) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "placement.policy = \"%s\" is not in this version; expected a policy that "
                       "docs/fssdp.md lists; change the key",
                       config->placement.policy);
    }
    MT_TRY(create_planner(moe, config));
    MT_TRY(mt_policy_check(moe->policy, &moe->cluster, moe->n_expert, config->placement.slots));
    MT_TRY(mt_given_init(&moe->given, config, moe->n_rank));
    MT_TRY(MT_ALLOCATE(moe->planned, moe->n_layer, "placements"));
    MT_TRY(MT_ALLOCATE(moe->placement, moe->n_layer, "placements"));
    MT_TRY(MT_ALLOCATE(moe->is_held, moe->n_layer, "placements"));
    MT_TRY(MT_ALLOCATE(moe->owner, n_owner, "owners"));
    MT_TRY(MT_ALLOCATE(moe->owner_state, 1 + n_owner, "owners"));
    MT_TRY(MT_ALLOCATE(moe->place_state, 1 + n_place, "placements"));
    for (int layer = moe->first_layer; layer < moe->n_layer; ++layer) {
        MT_TRY(create_placement(moe, layer));
    }
    struct mt_placement *const other[] = {&moe->stayed, &moe->first_late};
    for (int i = 0; i < 2; ++i) {
        MT_TRY(mt_placement_init(other[i], moe->n_rank, moe->n_expert, (int)max_instance(moe)));
    }
    const int window = (int)mt_max_i64(config->placement.load_window, 1);
    MT_TRY(mt_history_init(&moe->history, moe->n_layer, moe->n_expert, window));
    MT_TRY(mt_history_init(&moe->recent, moe->n_layer, moe->n_expert, MT_MOE_RECENT_MICRO));
    MT_TRY(MT_ALLOCATE(moe->micro_count, n_owner, "expert counts"));
    MT_TRY(MT_ALLOCATE(moe->own_count, n_owner, "expert counts"));
    return MT_OK;
}

static enum mt_status prepare_kernels_and_comm(struct mt_moe *moe)
{
    MT_TRY(mt_linear_prepare(moe->device, moe->inner, moe->width));
    MT_TRY(mt_linear_prepare(moe->device, moe->width, moe->inner));
    if (moe->shared_inner > 0) {
        MT_TRY(mt_linear_prepare(moe->device, moe->shared_inner, moe->width));
        MT_TRY(mt_linear_prepare(moe->device, moe->width, moe->shared_inner));
    }
    return mt_comm_reserve_small(moe->comm, mt_max_i64(moe->n_expert, 2 * (int64_t)moe->n_layer));
}

static enum mt_status create_parts(struct mt_moe *moe, const struct mt_moe_options *options)
{
    MT_TRY(set_sizes(moe, options));
    const struct mt_carrier_size carrier = {.width = moe->width,
                                            .top_k = moe->top_k,
                                            .slice_rows = moe->slice_rows,
                                            .max_token = moe->max_token,
                                            .max_token_any = options->max_token_any,
                                            .max_instance = max_instance(moe)};
    MT_TRY(plan_saved_bytes(moe, options->config, &carrier));
    MT_TRY(MT_ALLOCATE(moe->tensors, moe->n_layer, "MoE tensors' list"));
    memcpy(moe->tensors, options->tensors, (size_t)moe->n_layer * sizeof(*moe->tensors));
    MT_TRY(allocate_counts(moe));
    MT_TRY(allocate_rows(moe));
    MT_TRY(create_placements(moe, options->config));
    moe->cluster.is_halved = options->n_half > 1;
    moe->cluster.slice_rows = options->n_half * moe->slice_rows;
    MT_TRY(mt_outlook_init(&moe->outlook, options->config, &moe->cluster));
    MT_TRY(mt_tally_init(&moe->tally, options->config, moe->n_rank));
    MT_TRY(mt_balance_init(&moe->balance, options->config->balance.loss,
                           options->config->balance.window, moe->n_layer, moe->n_expert));
    MT_TRY(prepare_kernels_and_comm(moe));
    for (int half = 0; half < options->n_half; ++half) {
        MT_TRY(create_half(moe, options->config, &carrier, &moe->half[half]));
    }
    return MT_OK;
}

enum mt_status mt_moe_create(const struct mt_moe_options *options, struct mt_moe **out)
{
    struct mt_moe *moe = NULL;
    *out = NULL;
    MT_TRY(MT_ALLOCATE(moe, 1, "MoE layers"));
    const enum mt_status status = create_parts(moe, options);
    if (status != MT_OK) {
        mt_moe_destroy(moe);
        return status;
    }
    *out = moe;
    return MT_OK;
}

static void clear_placements(struct mt_placement *placement, int n_layer)
{
    for (int layer = 0; placement != NULL && layer < n_layer; ++layer) {
        mt_placement_clear(&placement[layer]);
    }
    mt_memory_free(placement);
}

void mt_moe_destroy(struct mt_moe *moe)
{
    if (moe == NULL) {
        return;
    }
    for (int half = 0; half < MT_MAX_HALF; ++half) {
        clear_half(moe->device, &moe->half[half]);
    }
    mt_counts_clear(&moe->counts);
    mt_balance_clear(&moe->balance);
    mt_tally_clear(&moe->tally);
    mt_outlook_clear(&moe->outlook);
    mt_history_clear(&moe->history);
    mt_arena_clear(&moe->scratch);
    mt_cluster_clear(&moe->cluster);
    mt_given_clear(&moe->given);
    mt_history_clear(&moe->recent);
    clear_placements(moe->planned, moe->n_layer);
    clear_placements(moe->placement, moe->n_layer);
    mt_placement_clear(&moe->stayed);
    mt_placement_clear(&moe->first_late);
    for (int m = 0; m < MT_EXPERT_MATRICES; ++m) {
        mt_memory_free((void *)moe->weight[m]);
        mt_memory_free((void *)moe->weight_grad[m]);
    }
    void *const array[] = {moe->is_held,         moe->owner,          moe->owner_state,
                           moe->place_state,     moe->micro_count,    moe->own_count,
                           moe->seen.count,      moe->expected_count, moe->seen.probability_sum,
                           moe->choice,          moe->tensors,        moe->count,
                           moe->global_count,    moe->quota,          moe->load,
                           moe->probability_sum, moe->token_offset,   moe->load_max_over_mean,
                           moe->row_token,       moe->row_choice};
    void *const there[] = {moe->again, moe->logits, moe->gate_sum, moe->expert_scratch};
    for (size_t i = 0; i < sizeof(there) / sizeof(there[0]); ++i) {
        mt_device_free(moe->device, there[i]);
    }
    for (size_t i = 0; i < sizeof(array) / sizeof(array[0]); ++i) {
        mt_memory_free(array[i]);
    }
    mt_memory_free(moe);
}

enum mt_status mt_moe_ownership(const struct mt_config *config, int n_rank,
                                struct mt_placement *placement)
{
    const int n_layer = (int)config->model.num_layers;
    const int n_expert = (int)config->moe.num_experts;
    memset(placement, 0, (size_t)n_layer * sizeof(*placement));
    for (int layer = (int)config->model.first_k_dense; layer < n_layer; ++layer) {
        MT_TRY(mt_placement_init(&placement[layer], n_rank, n_expert, n_expert));
        mt_placement_default_owners(&placement[layer], layer);
    }
    return MT_OK;
}

void mt_moe_set_policy(struct mt_moe *moe, const struct mt_policy *policy, bool is_resident_first)
{
    moe->policy = policy;
    moe->waits_for_late = !is_resident_first;
}

void mt_moe_set_costs(struct mt_moe *moe, const struct mt_costs *costs)
{
    const struct mt_links links = {
        .alpha_ps = {costs->alpha_ps[MT_LEVEL_NODE], costs->alpha_ps[MT_LEVEL_NETWORK]},
        .kib_ps = {costs->kib_ps[MT_LEVEL_NODE], costs->kib_ps[MT_LEVEL_NETWORK]},
        .alone_kib_ps = costs->alone_kib_ps};
    moe->cluster.costs = *costs;
    mt_store_set_links(moe->store, &links);
}

int64_t mt_moe_saved_bytes_max(const struct mt_moe *moe)
{
    return moe->saved_bytes_max;
}

int64_t mt_moe_kept_bytes_max(const struct mt_moe *moe)
{
    return moe->kept_bytes_max;
}

struct mt_moe_slots mt_moe_slots(const struct mt_config *config, int n_rank)
{
    const struct mt_policy *policy = mt_policy_find(config->placement.policy);
    const int64_t n_layer = config->model.num_layers -
                            mt_min_i64(config->model.first_k_dense, config->model.num_layers);
    if (policy == NULL || n_layer == 0) {
        return (struct mt_moe_slots){0};
    }
    const int per_layer =
        mt_policy_slot_count(policy, n_rank, (int)config->moe.num_experts, config->placement.slots);
    /* A layer's copies travel while another's are given back. */
    const int64_t n_held = config->placement.rematerialize ? mt_min_i64(2, n_layer) : n_layer;
    const int64_t n_home = policy->cuts_experts ? mt_ceil_div(config->moe.num_experts, n_rank) : 0;
    return (struct mt_moe_slots){.per_layer = per_layer,
                                 .total = mt_size_to_int((per_layer + n_home) * n_held),
                                 .is_cut = policy->cuts_experts};
}

/* Routers in training load the busiest rank 1.3 to 2 times the mean (docs/fssdp.md): up to 2, no
 * policy pays for memory that is bounded. */
enum { SLICE_FACTOR = 2 };

int64_t mt_moe_slice_rows(int64_t max_token_any, int64_t top_k)
{
    return mt_max_i64(1, SLICE_FACTOR * max_token_any * top_k);
}

int64_t mt_moe_stage_bytes(const struct mt_config *config, const struct mt_topology *topology,
                           int rank, int64_t max_token_any)
{
    const struct mt_carrier_size size = {.width = config->model.hidden_size,
                                         .top_k = config->moe.top_k,
                                         .slice_rows =
                                             mt_moe_slice_rows(max_token_any, config->moe.top_k),
                                         .max_token = max_token_any,
                                         .max_token_any = max_token_any};
    int64_t n_bytes = 0;
    return mt_carrier_stage_bytes(topology, rank, config, &size, &n_bytes) ? n_bytes : INT64_MAX;
}

void mt_moe_set_counting(struct mt_moe *moe, bool counting)
{
    mt_balance_set_counting(&moe->balance, counting);
}

enum mt_status mt_moe_finish_step(struct mt_moe *moe, struct mt_moe_stats *stats)
{
    *stats = (struct mt_moe_stats){.load_max_over_mean_layer = moe->load_max_over_mean};
    MT_TRY(mt_tally_finish(&moe->tally, moe->comm, stats));
    mt_balance_end_step(&moe->balance, moe->tally.count);
    mt_history_record(&moe->history, moe->tally.count);
    moe->history_step = moe->history.n_step;
    stats->n_move = moe->n_move;
    stats->count = moe->tally.count;
    mt_outlook_finish(&moe->outlook, &stats->outlook);
    return MT_OK;
}

void mt_moe_state(struct mt_moe *moe, struct mt_state_array *array, int *n_array)
{
    const int64_t n_pair = (int64_t)moe->n_layer * moe->n_expert;
    array[0] = (struct mt_state_array){"balance_count", moe->balance.lagged_count, n_pair};
    array[1] =
        (struct mt_state_array){"load_history", moe->history.count, n_pair * moe->history.window};
    array[2] = (struct mt_state_array){"load_history_steps", &moe->history_step, 1};
    array[3] =
        (struct mt_state_array){"recent_load", moe->recent.count, n_pair * moe->recent.window};
    array[4] = (struct mt_state_array){"recent_load_steps", &moe->recent_step, 1};
    array[5] = (struct mt_state_array){"expert_owner", moe->owner_state, 1 + n_pair};
    array[6] = (struct mt_state_array){"expert_placement", moe->place_state,
                                       1 + moe->n_layer * (1 + max_instance(moe))};
    *n_array = 7;
    if (moe->outlook.n_state > 0) {
        array[(*n_array)++] =
            (struct mt_state_array){"shadow_policies", moe->outlook.state, moe->outlook.n_state};
    }
}
