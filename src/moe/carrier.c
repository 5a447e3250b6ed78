#include "moe/carrier.h"

#include "base/size.h"
#include "device/memory.h"

#include <string.h>

enum { ALIGNMENT_BYTES = 64 };

/* The kinds that the configuration lets this carrier choose. */
static bool may_choose(const struct mt_topology *topology, const struct mt_config *config,
                       enum mt_exchange_kind kind)
{
    static const enum mt_comm_all_to_all named[MT_N_EXCHANGE] = {
        [MT_EXCHANGE_DIRECT] = MT_COMM_A2A_DIRECT,
        [MT_EXCHANGE_TWO_LEVEL] = MT_COMM_A2A_HIERARCHICAL,
        [MT_EXCHANGE_LEADER] = MT_COMM_A2A_LEADER,
        [MT_EXCHANGE_DEDUPLICATED] = MT_COMM_A2A_DEDUPLICATED};
    if (kind == MT_EXCHANGE_DIRECT || topology->n_node == 1) {
        return kind == MT_EXCHANGE_DIRECT;
    }
    return config->comm.all_to_all == named[kind] ||
           (config->comm.all_to_all == MT_COMM_A2A_AUTO &&
            !(kind == MT_EXCHANGE_DEDUPLICATED && config->comm.exact));
}

static bool is_ever_indirect(const struct mt_topology *topology, const struct mt_config *config)
{
    bool is_indirect = false;
    for (int kind = MT_EXCHANGE_DIRECT + 1; kind < MT_N_EXCHANGE; ++kind) {
        is_indirect = is_indirect || may_choose(topology, config, (enum mt_exchange_kind)kind);
    }
    return is_indirect;
}

static int64_t zeros_bytes(const struct mt_carrier_size *size)
{
    return mt_round_up(size->width * (int64_t)sizeof(float), ALIGNMENT_BYTES);
}

/* Rows of the largest source, and of the largest target in a slice. */
static int64_t most_sent(const struct mt_carrier_size *size)
{
    return size->max_token_any * size->top_k;
}

/* Either direction, in bytes for units of block_bytes. */
static int64_t stage_bytes_of(const struct mt_topology *topology, int rank,
                              enum mt_exchange_kind kind, const struct mt_carrier_size *size,
                              int64_t block_bytes)
{
    const int64_t near = most_sent(size) * block_bytes;
    const int64_t far = size->slice_rows * block_bytes;
    switch (kind) {
    case MT_EXCHANGE_TWO_LEVEL:
        return mt_max_i64(mt_plan_alltoallv_two_level_stage_bound(topology, rank, near, far),
                          mt_plan_alltoallv_two_level_stage_bound(topology, rank, far, near));
    case MT_EXCHANGE_LEADER:
        return mt_max_i64(mt_plan_alltoallv_leader_stage_bound(topology, rank, near, far),
                          mt_plan_alltoallv_leader_stage_bound(topology, rank, far, near));
    case MT_EXCHANGE_DEDUPLICATED:
        return block_bytes * mt_plan_alltoallv_deduplicated_stage_rows(
                                 topology, rank, most_sent(size), size->slice_rows);
    case MT_EXCHANGE_DIRECT:
    case MT_N_EXCHANGE:
    default:
        return 0;
    }
}

bool mt_carrier_stage_bytes(const struct mt_topology *topology, int rank,
                            const struct mt_config *config, const struct mt_carrier_size *size,
                            int64_t *n_bytes)
{
    const int64_t block_bytes = (size->width + 1) * (int64_t)sizeof(float);
    int64_t rows = 0;
    int64_t bound = 0;
    /* Every bound is below 4 R times what one rank sends or takes. */
    if (!mt_size_add(most_sent(size), size->slice_rows, &rows) ||
        !mt_size_multiply(rows, 4 * (int64_t)topology->n_rank, &rows) ||
        !mt_size_multiply(rows, block_bytes, &bound)) {
        return false;
    }
    *n_bytes = 0;
    for (int kind = 0; kind < MT_N_EXCHANGE; ++kind) {
        if (may_choose(topology, config, (enum mt_exchange_kind)kind)) {
            *n_bytes =
                mt_max_i64(*n_bytes, stage_bytes_of(topology, rank, (enum mt_exchange_kind)kind,
                                                    size, block_bytes));
        }
    }
    *n_bytes += is_ever_indirect(topology, config) ? zeros_bytes(size) : 0;
    return true;
}

/* Numbers of rows that this rank passes on, in all slices of a route. */
static int64_t max_relayed(const struct mt_topology *topology, int rank,
                           const struct mt_carrier_size *size)
{
    return mt_rows_n_source(topology, rank) * most_sent(size);
}

static int64_t max_slice(const struct mt_topology *topology, const struct mt_carrier_size *size)
{
    return 1 + topology->n_rank * most_sent(size) / size->slice_rows;
}

bool mt_carrier_route_bytes_max(const struct mt_topology *topology, int rank,
                                const struct mt_config *config, const struct mt_carrier_size *size,
                                int64_t *n_bytes)
{
    enum { CUTS = 8 };
    const int64_t word = (int64_t)sizeof(int64_t);
    int64_t quota = 0;
    *n_bytes = (int64_t)sizeof(struct mt_transfer) + (int64_t)CUTS * ALIGNMENT_BYTES;
    if (!is_ever_indirect(topology, config)) {
        return true;
    }
    const int64_t per_instance = (int64_t)(sizeof(int) + sizeof(bool));
    if (!mt_size_multiply(size->max_instance, topology->n_rank * word + per_instance, &quota) ||
        !mt_size_add(*n_bytes, quota, n_bytes)) {
        return false;
    }
    if (!may_choose(topology, config, MT_EXCHANGE_DEDUPLICATED)) {
        return true;
    }
    const int64_t n_number = size->max_token * size->top_k + max_relayed(topology, rank, size);
    return mt_size_add(*n_bytes, n_number * (int64_t)sizeof(int32_t), n_bytes) &&
           mt_size_add(*n_bytes, 2 * word * max_slice(topology, size), n_bytes);
}

/* ---- creation ---- */

static int64_t max_op(const struct mt_carrier *carrier, const struct mt_config *config)
{
    const struct mt_topology *topology = &carrier->comm->topology;
    const int rank = carrier->comm->rank;
    const int64_t sent = carrier->size.max_token * carrier->size.top_k;
    int64_t n = mt_plan_alltoallv_direct_max_op(topology->n_rank);
    if (may_choose(topology, config, MT_EXCHANGE_TWO_LEVEL)) {
        n = mt_max_i64(n, mt_plan_alltoallv_two_level_max_op(topology, rank));
    }
    if (may_choose(topology, config, MT_EXCHANGE_LEADER)) {
        n = mt_max_i64(n, mt_plan_alltoallv_leader_max_op(topology, rank));
    }
    if (may_choose(topology, config, MT_EXCHANGE_DEDUPLICATED)) {
        const int64_t relayed = mt_rows_relayed_bound(topology, rank, most_sent(&carrier->size),
                                                      carrier->size.slice_rows);
        n = mt_max_i64(n, mt_plan_alltoallv_deduplicated_max_op(topology, rank, sent, relayed));
    }
    return n;
}

static enum mt_status create_numbers(struct mt_carrier *carrier)
{
    const struct mt_topology *topology = &carrier->comm->topology;
    const struct mt_carrier_size *size = &carrier->size;
    const int64_t n_op =
        mt_plan_row_numbers_max_op(topology, carrier->comm->rank) * max_slice(topology, size);
    MT_TRY(MT_ALLOCATE(carrier->token, size->max_token * size->top_k, "numbers of rows"));
    MT_TRY(MT_ALLOCATE(carrier->seen, size->max_token, "numbers of rows"));
    MT_TRY(mt_plan_init(&carrier->number_plan, n_op));
    return mt_exec_create(carrier->comm, n_op, &carrier->number_exec);
}

static enum mt_status create_parts(struct mt_carrier *carrier, const struct mt_config *config)
{
    const struct mt_topology *topology = &carrier->comm->topology;
    const int64_t n_rank = topology->n_rank;
    const int64_t n_op = max_op(carrier, config);
    int64_t stage_bytes = 0;
    void *stage = NULL;
    MT_TRY(MT_ALLOCATE(carrier->send_bytes, n_rank, "exchange sizes"));
    MT_TRY(MT_ALLOCATE(carrier->recv_bytes, n_rank, "exchange sizes"));
    MT_TRY(mt_plan_init(&carrier->plan, n_op));
    MT_TRY(mt_exec_create_device(carrier->comm, MT_AWAITED, n_op, &carrier->exec));
    if (!is_ever_indirect(topology, config)) {
        return MT_OK;
    }
    if (!mt_carrier_stage_bytes(topology, carrier->comm->rank, config, &carrier->size,
                                &stage_bytes)) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "the rows that a rank passes on between nodes do not fit 63 bits of bytes; "
                       "expected tokens x top_k x hidden_size within that; use a smaller batch");
    }
    MT_TRY(MT_ALLOCATE(carrier->matrix, n_rank * n_rank, "exchange sizes"));
    MT_TRY(MT_ALLOCATE(carrier->row, n_rank, "exchange sizes"));
    MT_TRY(mt_arena_init(&carrier->scratch, mt_exchange_scratch_bytes(topology->n_rank),
                         "choice of an exchange"));
    MT_TRY(
        mt_device_allocate(carrier->device, stage_bytes, "rows passed on between nodes", &stage));
    carrier->stage = stage;
    carrier->stage_bytes = stage_bytes;
    return may_choose(topology, config, MT_EXCHANGE_DEDUPLICATED) ? create_numbers(carrier) : MT_OK;
}

enum mt_status mt_carrier_init(struct mt_carrier *carrier, struct mt_device *device,
                               struct mt_comm *comm, const struct mt_config *config,
                               const struct mt_carrier_size *size)
{
    const bool is_direct = !is_ever_indirect(&comm->topology, config);
    *carrier =
        (struct mt_carrier){.device = device,
                            .comm = comm,
                            .wanted = is_direct ? MT_COMM_A2A_DIRECT : config->comm.all_to_all,
                            .sums_may_differ = !config->comm.exact,
                            .size = *size};
    const enum mt_status status = create_parts(carrier, config);
    if (status != MT_OK) {
        mt_carrier_clear(carrier);
    }
    return status;
}

void mt_carrier_clear(struct mt_carrier *carrier)
{
    mt_exec_destroy(carrier->exec);
    mt_exec_destroy(carrier->number_exec);
    mt_plan_clear(&carrier->plan);
    mt_plan_clear(&carrier->number_plan);
    mt_arena_clear(&carrier->scratch);
    void *const array[] = {carrier->matrix,     carrier->row,   carrier->send_bytes,
                           carrier->recv_bytes, carrier->token, carrier->seen};
    for (size_t i = 0; i < sizeof(array) / sizeof(array[0]); ++i) {
        mt_memory_free(array[i]);
    }
    mt_device_free(carrier->device, carrier->stage);
    *carrier = (struct mt_carrier){0};
}

/* ---- a route ---- */

void mt_transfer_matrix(const struct mt_transfer *transfer, const struct mt_route *route, int slice,
                        int64_t *row, int64_t *matrix)
{
    const int64_t n_rank = route->n_rank;
    const int64_t low = slice < 0 ? 0 : slice * route->slice_rows;
    const int64_t high = slice < 0 ? INT64_MAX : low + route->slice_rows;
    memset(matrix, 0, (size_t)(n_rank * n_rank) * sizeof(*matrix));
    memset(row, 0, (size_t)n_rank * sizeof(*row));
    for (int late = 0; late <= 1; ++late) {
        for (int64_t i = 0; i < transfer->n_instance; ++i) {
            int64_t *at = &row[transfer->target[i]]; /* where the instance's next row stands */
            if ((int)transfer->is_late[i] != late) {
                continue;
            }
            for (int64_t source = 0; source < n_rank; ++source) {
                const int64_t n = transfer->quota[source * transfer->n_instance + i];
                const int64_t within = mt_min_i64(*at + n, high) - mt_max_i64(*at, low);
                matrix[source * n_rank + transfer->target[i]] += mt_max_i64(within, 0);
                *at += n;
            }
        }
    }
}

/* The slice's matrix with what this rank sends itself, if it does; asserts that route and quota
 * agree. */
static void fill_matrix(struct mt_carrier *carrier, const struct mt_route *route, int slice)
{
    const int64_t n_rank = route->n_rank;
    const int64_t rank = carrier->comm->rank;
    const int64_t *send = route->send_count + slice * n_rank;
    const int64_t *recv = route->recv_count + slice * n_rank;
    mt_transfer_matrix(route->transfer, route, slice, carrier->row, carrier->matrix);
    carrier->matrix[rank * n_rank + rank] = send[rank];
    for (int64_t peer = 0; peer < n_rank; ++peer) {
        MT_ASSERT(carrier->matrix[rank * n_rank + peer] == send[peer]);
        MT_ASSERT(carrier->matrix[peer * n_rank + rank] == recv[peer]);
    }
}

/* From rows to bytes; back: by who sends, as plans have it. */
static void make_bytes(struct mt_carrier *carrier, bool is_back, int64_t block_bytes)
{
    const int64_t n_rank = carrier->comm->topology.n_rank;
    int64_t *matrix = carrier->matrix;
    for (int64_t i = 0; i < n_rank * n_rank; ++i) {
        matrix[i] *= block_bytes;
    }
    for (int64_t s = 0; s < n_rank && is_back; ++s) {
        for (int64_t t = 0; t < s; ++t) {
            const int64_t there = matrix[s * n_rank + t];
            matrix[s * n_rank + t] = matrix[t * n_rank + s];
            matrix[t * n_rank + s] = there;
        }
    }
}

static enum mt_exchange_kind kind_of(struct mt_carrier *carrier, const struct mt_cluster *cluster,
                                     const struct mt_route *route)
{
    static const enum mt_exchange_kind named[] = {
        [MT_COMM_A2A_DIRECT] = MT_EXCHANGE_DIRECT,
        [MT_COMM_A2A_HIERARCHICAL] = MT_EXCHANGE_TWO_LEVEL,
        [MT_COMM_A2A_LEADER] = MT_EXCHANGE_LEADER,
        [MT_COMM_A2A_DEDUPLICATED] = MT_EXCHANGE_DEDUPLICATED};
    if (carrier->wanted != MT_COMM_A2A_AUTO) {
        return named[carrier->wanted];
    }
    mt_transfer_matrix(route->transfer, route, -1, carrier->row, carrier->matrix);
    const struct mt_exchange_rows rows = {.n_row = carrier->matrix,
                                          .row_bytes =
                                              (carrier->size.width + 1) * (int64_t)sizeof(float),
                                          .top_k = carrier->size.top_k};
    return mt_exchange_choose(cluster, &rows, carrier->sums_may_differ, &carrier->scratch);
}

/* Numbers the rows of all slices and begins to tell them. */
static enum mt_status begin_numbers(struct mt_carrier *carrier, struct mt_route *route,
                                    struct mt_arena *arena)
{
    const struct mt_topology *topology = &carrier->comm->topology;
    const int64_t word = (int64_t)sizeof(int32_t);
    const int rank = carrier->comm->rank;
    struct mt_transfer *transfer = route->transfer;
    const int64_t n_start = route->n_slice * (int64_t)sizeof(int64_t);
    int64_t n_sent = 0;
    int64_t n_relayed = 0;
    for (int64_t choice = 0; choice < route->n_choice; ++choice) {
        const int64_t row = route->send_narrow[choice] / route->width;
        if (row < route->send_start[route->n_slice]) {
            carrier->token[row] = (int32_t)(choice / carrier->size.top_k);
        }
    }
    transfer->sent_start = mt_arena_cut(arena, n_start);
    transfer->relayed_start = mt_arena_cut(arena, n_start);
    transfer->sent = mt_arena_cut(arena, route->send_start[route->n_slice] * word);
    mt_plan_reset(&carrier->number_plan, "row_numbers", MT_ELEMENT_BYTE);
    for (int slice = 0; slice < route->n_slice; ++slice) {
        fill_matrix(carrier, route, slice);
        transfer->sent_start[slice] = n_sent;
        transfer->relayed_start[slice] = n_relayed;
        mt_rows_number(topology, rank, carrier->matrix, carrier->token + route->send_start[slice],
                       route->n_choice / carrier->size.top_k, carrier->seen,
                       transfer->sent + n_sent);
        mt_plan_row_numbers(&carrier->number_plan, topology, rank, carrier->matrix, n_sent * word,
                            n_relayed * word);
        n_sent += mt_rows_n_sent(topology, rank, carrier->matrix);
        n_relayed += mt_rows_n_relayed(topology, rank, carrier->matrix);
    }
    transfer->relayed = mt_arena_cut(arena, n_relayed * word);
    void *const buffer[MT_N_BUFFER] = {
        [MT_BUFFER_SEND] = transfer->sent, [MT_BUFFER_RECV] = transfer->relayed};
    return mt_exec_begin(carrier->number_exec, &carrier->number_plan, buffer);
}

enum mt_status mt_carrier_choose(struct mt_carrier *carrier, const struct mt_cluster *cluster,
                                 struct mt_route *route, const struct mt_route_input *input,
                                 struct mt_arena *arena)
{
    const struct mt_placement *placement = input->placement;
    const int64_t n_instance = mt_placement_n_instance(placement);
    struct mt_transfer *transfer = mt_arena_cut(arena, (int64_t)sizeof(*transfer));
    *transfer = (struct mt_transfer){.kind = MT_EXCHANGE_DIRECT, .n_instance = n_instance};
    route->transfer = transfer;
    if (carrier->wanted == MT_COMM_A2A_DIRECT) {
        return MT_OK;
    }
    const int64_t quota_bytes = route->n_rank * n_instance * (int64_t)sizeof(int64_t);
    transfer->quota = mt_arena_cut(arena, quota_bytes);
    transfer->target = mt_arena_cut(arena, n_instance * (int64_t)sizeof(int));
    transfer->is_late = mt_arena_cut(arena, n_instance * (int64_t)sizeof(bool));
    memcpy(transfer->quota, input->quota, (size_t)quota_bytes);
    for (int64_t i = 0; i < n_instance; ++i) {
        transfer->target[i] = placement->rank[i];
        transfer->is_late[i] = placement->is_late[i];
    }
    transfer->kind = kind_of(carrier, cluster, route);
    return transfer->kind == MT_EXCHANGE_DEDUPLICATED ? begin_numbers(carrier, route, arena)
                                                      : MT_OK;
}

/* ---- a slice ---- */

static void plan_direct(struct mt_carrier *carrier, const struct mt_route *route, int slice,
                        bool is_back, int64_t block_bytes)
{
    const int64_t *here = route->send_count + (int64_t)slice * route->n_rank;
    const int64_t *there = route->recv_count + (int64_t)slice * route->n_rank;
    for (int r = 0; r < route->n_rank; ++r) {
        carrier->send_bytes[r] = (is_back ? there : here)[r] * block_bytes;
        carrier->recv_bytes[r] = (is_back ? here : there)[r] * block_bytes;
    }
    mt_plan_alltoallv_direct(&carrier->plan, &carrier->comm->topology, carrier->comm->rank,
                             carrier->send_bytes, carrier->recv_bytes);
}

static void plan_deduplicated(struct mt_carrier *carrier, const struct mt_route *route, int slice,
                              bool is_back, bool is_wide)
{
    const struct mt_transfer *transfer = route->transfer;
    const struct mt_rows rows = {.n_row = carrier->matrix,
                                 .row_bytes = route->width * (int64_t)sizeof(float),
                                 .tail_bytes = is_wide ? (int64_t)sizeof(float) : 0,
                                 .sent = transfer->sent + transfer->sent_start[slice],
                                 .relayed = transfer->relayed + transfer->relayed_start[slice]};
    MT_ASSERT(mt_plan_alltoallv_deduplicated_stage_bytes(&carrier->comm->topology,
                                                         carrier->comm->rank, &rows,
                                                         is_back) <= carrier->stage_bytes);
    mt_plan_alltoallv_deduplicated(&carrier->plan, &carrier->comm->topology, carrier->comm->rank,
                                   &rows, is_back);
}

/* carrier->matrix has the slice's rows. Returns where the plan's STAGE begins. */
static char *plan_by_others(struct mt_carrier *carrier, enum mt_exchange_kind kind, bool is_back,
                            int64_t block_bytes)
{
    const struct mt_topology *topology = &carrier->comm->topology;
    const int64_t zeros = zeros_bytes(&carrier->size);
    const bool is_leader = kind == MT_EXCHANGE_LEADER;
    const int rank = carrier->comm->rank;
    make_bytes(carrier, is_back, block_bytes);
    MT_ASSERT((is_leader ? mt_plan_alltoallv_leader_stage_bytes
                         : mt_plan_alltoallv_two_level_stage_bytes)(
                  topology, rank, carrier->matrix) <= carrier->stage_bytes - zeros);
    (is_leader ? mt_plan_alltoallv_leader : mt_plan_alltoallv_two_level)(&carrier->plan, topology,
                                                                         rank, carrier->matrix);
    return carrier->stage + zeros;
}

enum mt_status mt_carrier_begin(struct mt_carrier *carrier, const struct mt_route *route, int slice,
                                bool is_back, bool is_wide, float *send, float *recv)
{
    const int64_t block_bytes = (route->width + (is_wide ? 1 : 0)) * (int64_t)sizeof(float);
    const enum mt_exchange_kind kind = route->transfer->kind;
    char *stage = carrier->stage;
    if (kind == MT_EXCHANGE_DIRECT) {
        plan_direct(carrier, route, slice, is_back, block_bytes);
    } else {
        fill_matrix(carrier, route, slice);
    }
    if (kind == MT_EXCHANGE_DEDUPLICATED) {
        MT_TRY(mt_exec_end(carrier->number_exec)); /* of the route, if they are still on the way */
        plan_deduplicated(carrier, route, slice, is_back, is_wide);
    } else if (kind != MT_EXCHANGE_DIRECT) {
        stage = plan_by_others(carrier, kind, is_back, block_bytes);
    }
    void *const buffer[MT_N_BUFFER] = {
        [MT_BUFFER_SEND] = send, [MT_BUFFER_RECV] = recv, [MT_BUFFER_STAGE] = stage};
    return mt_exec_begin(carrier->exec, &carrier->plan, buffer);
}

enum mt_status mt_carrier_end(struct mt_carrier *carrier)
{
    return mt_exec_end(carrier->exec);
}
