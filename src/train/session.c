/* Opening and closing a session, after checking that it fits. */
#include "train/session.h"

#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "device/memory.h"
#include "device/module.h"

#include <math.h>
#include <string.h>

/* Above this many elements sums of bytes could overflow int64_t; no machine holds them anyway. */
static const double MAX_ELEMENTS = 1e16;
/* Every rank keeps 12 bytes an expert to know its owner, so this many take 192 MiB. The largest
 * models of 2025 have 23 thousand. */
static const double MAX_EXPERTS = 0x1p24;
/* Wider products end oneDNN 2.6 in a division by zero (2^36, where it counts blocks in 32 bits). */
static const double MAX_PRODUCT_WIDTH = 0x1p30;
/* A parameter with its gradient and two moments, in float32. */
static const double PARAMETER_BYTES = 16.0;
static const double MIB = 1024.0 * 1024.0;
static const double GIB = 1024.0 * 1024.0 * 1024.0;
/* What a rank has resident beside what is counted here: 26 MiB when MPI has started, 34 to 44 in
 * all on 1 to 4 ranks of three models (Open MPI 4.1, oneDNN 2.6, 2026-11). Much of it is shared by
 * the ranks of a machine. */
static const int64_t PROGRAM_BYTES = (int64_t)40 << 20;

static double projection_width(const struct mt_config *config)
{
    return (double)config->model.num_attention_heads * (double)config->model.head_dim;
}

static double shared_width(const struct mt_config *config)
{
    return (double)mt_config_shared_width(config);
}

static double bound_parameters(const struct mt_config *config)
{
    const double width = (double)config->model.hidden_size;
    const double expert_widths =
        (double)config->moe.num_experts * (double)config->moe.expert_intermediate_size;
    const double per_layer =
        width * (4.0 * projection_width(config) + (double)config->moe.num_experts +
                 3.0 * ((double)config->model.dense_intermediate_size + expert_widths +
                        shared_width(config)));
    return (double)config->model.num_layers * per_layer +
           2.0 * (double)config->model.vocab_size * width;
}

static double bound_activations(const struct mt_config *config)
{
    const double width = (double)config->model.hidden_size;
    const double per_choice =
        3.0 * (double)config->moe.expert_intermediate_size + 4.0 * width + 8.0;
    const double per_token = 16.0 * width + 7.0 * projection_width(config) +
                             (double)config->moe.num_experts +
                             (double)config->moe.top_k * per_choice + 2.0 * shared_width(config) +
                             3.0 * (double)config->model.dense_intermediate_size;
    const int64_t n_sequence =
        mt_min_i64(config->train.micro_batch_size, config->train.global_batch_size);
    return (double)n_sequence * (double)config->model.max_seq_len *
           (double)config->model.num_layers * per_token;
}

/* In floating point, before anything is counted in integers or allocated. */
static enum mt_status check_countable(const struct mt_config *config)
{
    const double n_parameter = bound_parameters(config);
    const double n_activation = bound_activations(config);
    const double n_expert = (double)config->moe.num_experts * (double)config->model.num_layers;
    const double widest = fmax(projection_width(config), shared_width(config));
    if (n_parameter <= MAX_ELEMENTS && n_activation <= MAX_ELEMENTS && n_expert <= MAX_EXPERTS &&
        widest <= MAX_PRODUCT_WIDTH) {
        return MT_OK;
    }
    return MT_FAIL(MT_ERR_RESOURCE,
                   "the model has %.3g parameters (%.3g GiB with gradients and optimizer state), "
                   "%.3g activations per micro-batch, %.3g experts in all layers and matrices up "
                   "to %.3g wide; expected at most %.0e numbers, %.3g experts and a width of %.3g, "
                   "and this machine has %.1f GiB available; lower the sizes in [model], [moe] and "
                   "train.micro_batch_size",
                   n_parameter, n_parameter * PARAMETER_BYTES / GIB, n_activation, n_expert, widest,
                   MAX_ELEMENTS, MAX_EXPERTS, MAX_PRODUCT_WIDTH,
                   (double)mt_memory_available_bytes() / GIB);
}

static void clear_ownership(struct mt_placement *ownership, int64_t n_layer)
{
    for (int64_t l = 0; ownership != NULL && l < n_layer; l++) {
        mt_placement_clear(&ownership[l]);
    }
    mt_memory_free(ownership);
}

bool mt_session_stages_saves(const struct mt_config *config)
{
    return config->checkpoint.async &&
           (config->checkpoint.interval > 0 || config->checkpoint.max_overhead_percent > 0);
}

/* Rows of every expert of every layer, per step, and of the last micro-batches. */
static int64_t history_bytes(const struct mt_config *config)
{
    const int64_t n_step = mt_max_i64(config->placement.load_window, 1) + MT_MOE_RECENT_MICRO;
    const bool has_experts = config->model.first_k_dense < config->model.num_layers;
    return has_experts ? n_step * config->model.num_layers * config->moe.num_experts *
                             (int64_t)sizeof(int64_t)
                       : 0;
}

enum mt_status mt_session_estimate(const struct mt_config *config, int n_rank, bool training,
                                   int64_t max_sequence, struct mt_memory_estimate *estimate)
{
    struct mt_device device;
    struct mt_model_tensors tensors = {0};
    struct mt_placement *ownership = NULL;
    enum mt_status status = check_countable(config);
    mt_device_init_planned(&device, config);
    memset(estimate, 0, sizeof(*estimate));
    if (status != MT_OK) {
        return status;
    }
    MT_TRY_GOTO(mt_model_tensors_init(&tensors, config));
    MT_TRY_GOTO(MT_ALLOCATE(ownership, config->model.num_layers, "owner maps"));
    MT_TRY_GOTO(mt_moe_ownership(config, n_rank, ownership));
    const struct mt_moe_slots slots = mt_moe_slots(config, n_rank);
    const struct mt_store_options options = {.training = training,
                                             .is_cut = slots.is_cut,
                                             .n_slot = slots.total,
                                             .ownership = ownership};
    MT_TRY_GOTO(mt_store_plan_bytes(&device, &tensors.table, &options, n_rank, &estimate->store));
    estimate->activations = mt_model_activation_bytes(config, n_rank, max_sequence);
    estimate->skew = mt_model_skew_bytes(config, max_sequence);
    if (training && mt_session_stages_saves(config)) {
        estimate->checkpoint = estimate->store.optimizer / 2 * 3; /* both moments, and values */
    }
    estimate->profile = training ? mt_profiling_bytes(config) : 0;
    estimate->history = history_bytes(config);
    estimate->total = mt_store_total_bytes(&estimate->store) + estimate->activations +
                      estimate->checkpoint + estimate->profile + estimate->history;
    estimate->program = PROGRAM_BYTES;
cleanup:
    clear_ownership(ownership, config->model.num_layers);
    mt_model_tensors_clear(&tensors);
    return status;
}

/* What the ranks of this machine are granted decides which cores are this rank's. */
static enum mt_status share_cores(struct mt_comm *comm, const struct mt_topology *machine,
                                  struct mt_core_share *share)
{
    const struct mt_core_set mine = mt_cores_granted();
    const int64_t item[] = {mine.first, mine.last, mine.n};
    enum { N_ITEM = sizeof(item) / sizeof(item[0]) };
    const int node = machine->node[comm->rank];
    const int n_local = mt_topology_node_size(machine, node);
    struct mt_core_set *set = NULL;
    int64_t *all = NULL;
    enum mt_status status = MT_ALLOCATE(all, (int64_t)N_ITEM * machine->n_rank, "cores of ranks");
    if (status == MT_OK) {
        status = MT_ALLOCATE(set, n_local, "cores of ranks");
    }
    MT_TRY_GOTO(mt_job_agree(status));
    MT_ASSERT(set != NULL && all != NULL);
    MT_TRY_GOTO(mt_comm_gather_i64(comm, item, N_ITEM, all));
    for (int i = 0; i < n_local; ++i) {
        const int64_t *its = all + (int64_t)N_ITEM * machine->member[machine->node_start[node] + i];
        set[i] = (struct mt_core_set){its[0], its[1], its[2]};
    }
    *share = mt_cores_share(set, n_local, machine->local[comm->rank], mt_cores_quota());
cleanup:
    mt_memory_free(set);
    mt_memory_free(all);
    return status;
}

/* Ranks of this machine share its cores and its memory; comm.ranks_per_node may make nodes of
 * another size. */
enum mt_status mt_session_place(struct mt_comm *comm, struct mt_session_place *place)
{
    struct mt_topology machine;
    MT_TRY(mt_job_agree(mt_topology_discover(&machine, mt_job_world(), 0)));
    place->local = machine.local[comm->rank];
    place->n_local = mt_topology_node_size(&machine, machine.node[comm->rank]);
    const enum mt_status status = share_cores(comm, &machine, &place->share);
    mt_topology_clear(&machine);
    return status;
}

enum mt_status mt_session_open_gpu(struct mt_session *session, const struct mt_session_place *place)
{
    struct mt_device *device = &session->device;
    const struct mt_config *config = session->config;
    MT_TRY(mt_job_agree(mt_device_open(device, config, place->local, place->n_local)));
    int64_t n_gpu = device->kind == MT_DEVICE_CUDA ? 1 : 0;
    MT_TRY(mt_comm_sum_i64(&session->comm, &n_gpu, 1));
    if (device->kind == MT_DEVICE_CUDA && n_gpu < session->comm.topology.n_rank) {
        mt_device_close(device, "other ranks have no GPU");
    }
    return MT_OK;
}

/* What is in the memory of GPUs travels between them. */
static enum mt_status connect_gpus(struct mt_session *session)
{
    struct mt_device *device = &session->device;
    struct mt_transport *transport = NULL;
    if (device->kind != MT_DEVICE_CUDA || session->comm.topology.n_rank == 1) {
        return MT_OK;
    }
    if (device->module->nccl == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "several GPUs need NCCL, and the module was built without it; expected "
                       "nccl.h beside the toolkit; install it and build the target cuda again, or "
                       "start one rank");
    }
    MT_TRY(mt_transport_create_nccl(mt_job_world(), device->module->nccl, device->context,
                                    &transport));
    mt_comm_set_device(&session->comm, transport);
    mt_comm_time_by(&session->comm, device);
    return MT_OK;
}

/* A GPU is one rank's alone. */
static enum mt_status check_gpu_memory(const struct mt_device *device, double wanted)
{
    const double available = (double)mt_device_available_bytes(device);
    if (wanted > available) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "this run needs about %.1f MiB on each GPU, and %.1f MiB are free; expected "
                       "it to fit; use more ranks, or a smaller model or micro-batch (see: "
                       "moetrain plan)",
                       wanted / MIB, available / MIB);
    }
    return MT_OK;
}

static enum mt_status check_memory(const struct mt_session *session, bool training, int n_local,
                                   int64_t max_sequence, int64_t beside_bytes)
{
    const int64_t available = mt_memory_available_bytes();
    struct mt_memory_estimate estimate;
    MT_TRY(mt_session_estimate(session->config, session->comm.topology.n_rank, training,
                               max_sequence, &estimate));
    const bool has_experts =
        session->config->model.first_k_dense < session->config->model.num_layers;
    const struct mt_topology *topology = &session->comm.topology;
    const int64_t n_half = mt_model_n_half(session->config, topology->n_node, max_sequence);
    const int64_t n_token = mt_ceil_div(max_sequence, n_half) * session->config->model.max_seq_len;
    const int64_t stage = has_experts ? n_half * mt_moe_stage_bytes(session->config, topology,
                                                                    session->comm.rank, n_token)
                                      : 0;
    const double total = (double)estimate.total + (double)stage + (double)beside_bytes;
    if (session->device.kind == MT_DEVICE_CUDA) {
        const int64_t on_host = estimate.checkpoint + estimate.profile;
        return check_gpu_memory(&session->device, total - (double)on_host);
    }
    const double wanted = total * (double)n_local;
    if (wanted > (double)available) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "this run needs about %.2f GiB on each machine (%d ranks of %.2f GiB), and "
                       "%.2f GiB are available; expected it to fit; use more machines, fewer ranks "
                       "a machine, or a smaller model or micro-batch (see: moetrain plan)",
                       wanted / GIB, n_local, total / GIB, (double)available / GIB);
    }
    return MT_OK;
}

static enum mt_status open_parts(struct mt_session *session, bool training, int64_t max_sequence)
{
    const struct mt_config *config = session->config;
    const int n_rank = session->comm.topology.n_rank;
    MT_TRY(mt_model_tensors_init(&session->tensors, config));
    MT_TRY(MT_ALLOCATE(session->ownership, config->model.num_layers, "owner maps"));
    MT_TRY(mt_moe_ownership(config, n_rank, session->ownership));
    const struct mt_moe_slots slots = mt_moe_slots(config, n_rank);
    const struct mt_store_options store = {.training = training,
                                           .is_cut = slots.is_cut,
                                           .n_slot = slots.total,
                                           .ownership = session->ownership};
    MT_TRY(mt_store_create(&session->device, &session->comm, &session->tensors.table, &store,
                           &session->store));
    const struct mt_model_options model = {
        .config = config,
        .device = &session->device,
        .comm = &session->comm,
        .store = session->store,
        .tensors = &session->tensors,
        .max_sequence = max_sequence,
        .max_sequence_any = max_sequence,
        .n_slot = slots.per_layer,
        .training = training,
    };
    return mt_model_create(&model, &session->model);
}

enum mt_status mt_session_open(struct mt_session *session, const struct mt_config *config,
                               bool training, int64_t max_sequence)
{
    return mt_session_open_beside(session, config, training, max_sequence, 0);
}

enum mt_status mt_session_open_beside(struct mt_session *session, const struct mt_config *config,
                                      bool training, int64_t max_sequence, int64_t beside_bytes)
{
    memset(session, 0, sizeof(*session));
    session->config = config;
    MT_TRY(mt_job_agree(
        mt_comm_init_mpi(&session->comm, mt_job_world(), (int)config->comm.ranks_per_node)));
    MT_TRY(mt_job_agree(mt_comm_rehearse(&session->comm, config->comm.rehearse_alpha_us)));
    struct mt_session_place place;
    MT_TRY(mt_job_agree(mt_session_place(&session->comm, &place)));
    MT_TRY(
        mt_job_agree(mt_device_init(&session->device, config, session->comm.rank, &place.share)));
    session->comm.has_own_cores = place.share.is_alone && session->device.n_thread <= place.share.n;
    MT_TRY(mt_session_open_gpu(session, &place));
    MT_TRY(mt_job_agree(connect_gpus(session)));
    mt_device_set_idle(&session->device, mt_comm_progress, &session->comm);
    MT_TRY(
        mt_job_agree(check_memory(session, training, place.n_local, max_sequence, beside_bytes)));
    return mt_job_agree(open_parts(session, training, max_sequence));
}

void mt_session_close(struct mt_session *session)
{
    mt_model_destroy(session->model);
    mt_store_destroy(session->store);
    if (session->ownership != NULL) {
        clear_ownership(session->ownership, session->config->model.num_layers);
    }
    mt_model_tensors_clear(&session->tensors);
    mt_comm_clear(&session->comm);
    mt_device_close(&session->device, "");
    memset(session, 0, sizeof(*session));
}
