/* The all-to-alls side by side: the same blocks by every way, in turn, so that what disturbs one
 * disturbs all. */
#include "base/job.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "comm/bench_internal.h"

#include <inttypes.h>
#include <string.h>

enum workload { EVEN, HOT, ROWS, N_WORKLOAD };
static const char *const workload_names[N_WORKLOAD] = {"even", "hot", "rows"};

enum { HOT_FACTOR = 4, N_EXPERT = 64, TOP_K = 8, ROW_BYTES = 1 << 10, MAX_VERIFIED = 65536 };
/* Blocks grow by STEP; those of all ranks of a machine, in and out, stay below 1 GiB. */
enum { FIRST_BYTES = 64, STEP = 4, LAST_BYTES = 1 << 16, LIMIT_BYTES = 1 << 29 };

struct bench {
    struct mt_comm *comm;
    const struct mt_bench_options *options;
    int n_rank, rank;
    enum workload workload;
    int64_t pair_bytes; /* of a block, on average */
    int64_t *bytes;     /* [R,R] by source and target */
    int64_t *n_row;     /* [R,R] of ROWS */
    int64_t n_token;    /* of each rank, in ROWS */
    int32_t *token;     /* [R, n_token * TOP_K] of the rows of every rank, by target */
    int32_t *sent, *relayed;
    int64_t *seen;  /* [n_token] */
    int *mpi;       /* [4,R] sizes and offsets for MPI_Alltoallv */
    double *time_s; /* [R] */
    char *send, *recv, *stage;
    struct mt_plan plan[MT_N_BENCH_WAY];
    struct mt_plan numbers;
    struct mt_exec *exec;
    enum mt_bench_way way; /* under way */
};

static int64_t sum_of(const struct bench *bench, const int64_t *matrix, int rank, bool is_sent)
{
    const int64_t n_rank = bench->n_rank;
    int64_t sum = 0;
    for (int64_t peer = 0; peer < n_rank; ++peer) {
        sum += matrix[is_sent ? rank * n_rank + peer : peer * n_rank + rank];
    }
    return sum;
}

/* ---- workloads ---- */

/* TOP_K different experts. */
static void draw_experts(int64_t stream, int *expert)
{
    uint64_t draw = 0;
    for (int n = 0; n < TOP_K;) {
        const int e = (int)(mt_random_u64(1, (uint64_t)stream, draw++) % N_EXPERT);
        bool is_new = true;
        for (int i = 0; i < n; ++i) {
            is_new = is_new && expert[i] != e;
        }
        expert[n] = e;
        n += is_new ? 1 : 0;
    }
}

/* Those of a token's rows that go to `target` are appended to token; returns how many. Experts lie
 * on ranks in turn, blockwise. */
static int64_t append_rows(const struct bench *bench, int source, int target, int64_t i,
                           int32_t *token)
{
    int expert[TOP_K];
    int64_t n = 0;
    draw_experts(source * bench->n_token + i, expert);
    for (int k = 0; k < TOP_K; ++k) {
        if (expert[k] * bench->n_rank / N_EXPERT == target) {
            token[n++] = (int32_t)i;
        }
    }
    return n;
}

/* Rows of one source in the order of their targets. */
static void draw_rows(struct bench *bench, int source)
{
    int32_t *token = bench->token + source * bench->n_token * TOP_K;
    for (int target = 0; target < bench->n_rank; ++target) {
        int64_t n = 0;
        for (int64_t i = 0; i < bench->n_token; ++i) {
            n += append_rows(bench, source, target, i, token + n);
        }
        bench->n_row[(int64_t)source * bench->n_rank + target] = n;
        token += n;
    }
}

static void fill_matrix(struct bench *bench)
{
    const int64_t n_rank = bench->n_rank;
    const int64_t hot = mt_min_i64(HOT_FACTOR, n_rank) * bench->pair_bytes;
    const int64_t cold = n_rank > 1 ? (n_rank * bench->pair_bytes - hot) / (n_rank - 1) / 4 * 4 : 0;
    for (int source = 0; source < n_rank; ++source) {
        if (bench->workload == ROWS) {
            draw_rows(bench, source);
        }
        for (int target = 0; target < n_rank; ++target) {
            const int64_t at = source * n_rank + target;
            bench->bytes[at] = bench->workload == ROWS   ? bench->n_row[at] * (ROW_BYTES + 4)
                               : bench->workload == EVEN ? bench->pair_bytes
                               : target == 0             ? hot
                                                         : cold;
        }
    }
}

/* Float i of the block; of ROWS: rows of their token, then a float of each row's own. */
static float payload(const struct bench *bench, int source, int target, const int32_t *token,
                     int64_t n_row, int64_t i)
{
    enum { ROW_FLOATS = ROW_BYTES / 4 };
    if (bench->workload != ROWS || i >= n_row * ROW_FLOATS) {
        return (float)((source * 31 + target * 17 + i * 7) % 61);
    }
    return (float)((source * 31 + token[i / ROW_FLOATS] * 13 + i % ROW_FLOATS * 7) % 61);
}

/* Writes this rank's blocks, or compares those that came: how many floats are wrong. */
static int64_t visit_blocks(struct bench *bench, bool is_sent)
{
    float *at = (float *)(void *)(is_sent ? bench->send : bench->recv);
    const int64_t stride =
        is_sent ? 1 : 1 + sum_of(bench, bench->bytes, bench->rank, false) / 4 / MAX_VERIFIED;
    int64_t n_wrong = 0;
    for (int peer = 0; peer < bench->n_rank; ++peer) {
        const int source = is_sent ? bench->rank : peer;
        const int target = is_sent ? peer : bench->rank;
        const int64_t block = (int64_t)source * bench->n_rank + target;
        const int32_t *token = bench->token + source * bench->n_token * TOP_K;
        for (int t = 0; t < target && bench->workload == ROWS; ++t) {
            token += bench->n_row[(int64_t)source * bench->n_rank + t];
        }
        for (int64_t i = 0; i < bench->bytes[block] / 4; i += stride) {
            const float want = payload(bench, source, target, token, bench->n_row[block], i);
            n_wrong += !is_sent && at[i] != want ? 1 : 0;
            at[i] = is_sent ? want : at[i];
        }
        at += bench->bytes[block] / 4;
    }
    return n_wrong;
}

/* ---- ways ---- */

static bool is_way(const struct bench *bench, int way)
{
    return way != MT_BENCH_DEDUPLICATED || bench->workload == ROWS;
}

static enum mt_status run(void *context)
{
    struct bench *bench = context;
    if (bench->way == MT_BENCH_MPI) {
        const int n = bench->n_rank;
        mt_job_watch_begin("MPI_Alltoallv", bench->comm->sequence);
        const int code = MPI_Alltoallv(bench->send, bench->mpi, bench->mpi + n, MPI_BYTE,
                                       bench->recv, bench->mpi + 2 * (ptrdiff_t)n,
                                       bench->mpi + 3 * (ptrdiff_t)n, MPI_BYTE, mt_job_world());
        mt_job_watch_end();
        return mt_job_mpi_status(code, "MPI_Alltoallv", __FILE__, __LINE__);
    }
    void *const buffer[MT_N_BUFFER] = {bench->send, bench->recv, bench->stage};
    MT_TRY(mt_exec_begin(bench->exec, &bench->plan[bench->way], buffer));
    return mt_exec_end(bench->exec);
}

/* Where ranks outnumber cores they leave the common start milliseconds after each other, which is
 * not the exchange's time. MPI_Alltoallv takes seconds there. */
static int n_in_a_row(const struct bench *bench)
{
    enum { IN_A_ROW = 4, SMALL_BYTES = 4096 };
    return bench->way != MT_BENCH_MPI && bench->pair_bytes <= SMALL_BYTES ? IN_A_ROW : 1;
}

static void plan_mpi(struct bench *bench)
{
    const int n = bench->n_rank;
    int send_offset = 0;
    int recv_offset = 0;
    for (int peer = 0; peer < n; ++peer) {
        bench->mpi[peer] = mt_size_to_int(bench->bytes[(int64_t)bench->rank * n + peer]);
        bench->mpi[n + peer] = send_offset;
        bench->mpi[2 * n + peer] = mt_size_to_int(bench->bytes[(int64_t)peer * n + bench->rank]);
        bench->mpi[3 * n + peer] = recv_offset;
        send_offset += bench->mpi[peer];
        recv_offset += bench->mpi[2 * n + peer];
    }
}

/* Numbers of rows, told once; then the plan. Adds what STAGE it needs. */
static enum mt_status plan_rows(struct bench *bench, int64_t *stage_bytes)
{
    const struct mt_topology *topology = &bench->comm->topology;
    const int64_t n_sent = mt_rows_n_sent(topology, bench->rank, bench->n_row);
    const int64_t n_relayed = mt_rows_n_relayed(topology, bench->rank, bench->n_row);
    const int64_t max_op = mt_plan_row_numbers_max_op(topology, bench->rank);
    MT_TRY(MT_ALLOCATE(bench->sent, n_sent, "bench"));
    MT_TRY(MT_ALLOCATE(bench->relayed, n_relayed, "bench"));
    mt_rows_number(topology, bench->rank, bench->n_row,
                   bench->token + bench->rank * bench->n_token * TOP_K, bench->n_token, bench->seen,
                   bench->sent);
    MT_TRY(mt_plan_init(&bench->numbers, max_op));
    mt_plan_reset(&bench->numbers, "row_numbers", MT_ELEMENT_BYTE);
    mt_plan_row_numbers(&bench->numbers, topology, bench->rank, bench->n_row, 0, 0);
    MT_TRY(mt_exec_create(bench->comm, max_op, &bench->exec));
    void *const buffer[MT_N_BUFFER] = {bench->sent, bench->relayed, NULL};
    MT_TRY(mt_exec_begin(bench->exec, &bench->numbers, buffer));
    MT_TRY(mt_exec_end(bench->exec));
    mt_exec_destroy(bench->exec);
    bench->exec = NULL;
    const struct mt_rows rows = {.n_row = bench->n_row,
                                 .row_bytes = ROW_BYTES,
                                 .tail_bytes = 4,
                                 .sent = bench->sent,
                                 .relayed = bench->relayed};
    struct mt_plan *plan = &bench->plan[MT_BENCH_DEDUPLICATED];
    MT_TRY(mt_plan_init(
        plan, mt_plan_alltoallv_deduplicated_max_op(topology, bench->rank, n_sent, n_relayed)));
    mt_plan_alltoallv_deduplicated(plan, topology, bench->rank, &rows, false);
    *stage_bytes =
        mt_max_i64(*stage_bytes,
                   mt_plan_alltoallv_deduplicated_stage_bytes(topology, bench->rank, &rows, false));
    return MT_OK;
}

static enum mt_status plan_ways(struct bench *bench)
{
    const struct mt_topology *topology = &bench->comm->topology;
    const int rank = bench->rank;
    int64_t stage_bytes =
        mt_max_i64(mt_plan_alltoallv_two_level_stage_bytes(topology, rank, bench->bytes),
                   mt_plan_alltoallv_leader_stage_bytes(topology, rank, bench->bytes));
    MT_TRY(mt_plan_init(&bench->plan[MT_BENCH_DIRECT],
                        mt_plan_alltoallv_direct_max_op(bench->n_rank)));
    MT_TRY(mt_plan_init(&bench->plan[MT_BENCH_TWO_LEVEL],
                        mt_plan_alltoallv_two_level_max_op(topology, rank)));
    MT_TRY(mt_plan_init(&bench->plan[MT_BENCH_LEADER],
                        mt_plan_alltoallv_leader_max_op(topology, rank)));
    mt_plan_alltoallv_two_level(&bench->plan[MT_BENCH_TWO_LEVEL], topology, rank, bench->bytes);
    mt_plan_alltoallv_leader(&bench->plan[MT_BENCH_LEADER], topology, rank, bench->bytes);
    plan_mpi(bench);
    int64_t *received = bench->seen; /* [R] at least */
    for (int peer = 0; peer < bench->n_rank; ++peer) {
        received[peer] = bench->bytes[(int64_t)peer * bench->n_rank + rank];
    }
    mt_plan_alltoallv_direct(&bench->plan[MT_BENCH_DIRECT], topology, rank,
                             bench->bytes + (int64_t)rank * bench->n_rank, received);
    if (bench->workload == ROWS) {
        MT_TRY(plan_rows(bench, &stage_bytes));
    }
    int64_t max_op = 0;
    for (int way = 0; way < MT_BENCH_MPI; ++way) {
        max_op = mt_max_i64(max_op, bench->plan[way].n_op);
    }
    MT_TRY(MT_ALLOCATE(bench->stage, stage_bytes, "bench"));
    return mt_exec_create(bench->comm, max_op, &bench->exec);
}

static enum mt_status open_case(struct bench *bench)
{
    const int64_t n_rank = bench->n_rank;
    bench->n_token = mt_max_i64(1, n_rank * bench->pair_bytes / ((int64_t)TOP_K * (ROW_BYTES + 4)));
    MT_TRY(MT_ALLOCATE(bench->bytes, n_rank * n_rank, "bench"));
    MT_TRY(MT_ALLOCATE(bench->n_row, n_rank * n_rank, "bench"));
    MT_TRY(MT_ALLOCATE(bench->token, n_rank * bench->n_token * TOP_K, "bench"));
    MT_TRY(MT_ALLOCATE(bench->seen, mt_max_i64(bench->n_token, n_rank), "bench"));
    MT_TRY(MT_ALLOCATE(bench->mpi, 4 * n_rank, "bench"));
    MT_TRY(MT_ALLOCATE(bench->time_s, n_rank, "bench"));
    fill_matrix(bench);
    MT_TRY(MT_ALLOCATE(bench->send, sum_of(bench, bench->bytes, bench->rank, true), "bench"));
    return MT_ALLOCATE(bench->recv, sum_of(bench, bench->bytes, bench->rank, false), "bench");
}

static void close_case(struct bench *bench)
{
    mt_exec_destroy(bench->exec);
    for (int way = 0; way < MT_N_BENCH_WAY; ++way) {
        mt_plan_clear(&bench->plan[way]);
    }
    mt_plan_clear(&bench->numbers);
    void *const array[] = {bench->bytes,   bench->n_row, bench->token, bench->sent,
                           bench->relayed, bench->seen,  bench->mpi,   bench->time_s,
                           bench->send,    bench->recv,  bench->stage};
    for (size_t i = 0; i < sizeof(array) / sizeof(array[0]); ++i) {
        mt_memory_free(array[i]);
    }
}

/* ---- one case ---- */

static const char *way_name(int way)
{
    static const char *const names[MT_N_BENCH_WAY] = {"direct", "hierarchical", "leader",
                                                      "deduplicated", "MPI_Alltoallv"};
    return names[way];
}

static enum mt_status verify(struct bench *bench)
{
    memset(bench->recv, 0xff, (size_t)sum_of(bench, bench->bytes, bench->rank, false));
    MT_TRY(run(bench));
    int64_t n_wrong = visit_blocks(bench, false);
    MT_TRY(mt_comm_sum_i64(bench->comm, &n_wrong, 1));
    if (n_wrong > 0) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "the %s all-to-all of %" PRId64 " bytes a pair gave %" PRId64
                       " wrong items; results must be exact; report this with the MPI version",
                       way_name((int)bench->way), bench->pair_bytes, n_wrong);
    }
    return MT_OK;
}

/* Bytes of a way that leave this rank's node. */
static int64_t crossing_bytes(const struct bench *bench, enum mt_bench_way way)
{
    const struct mt_plan *plan = &bench->plan[way == MT_BENCH_MPI ? MT_BENCH_DIRECT : way];
    const int *node = bench->comm->topology.node;
    int64_t n_bytes = 0;
    for (int64_t i = 0; i < plan->n_op; ++i) {
        const struct mt_op *op = &plan->op[i];
        n_bytes += op->kind == MT_OP_SEND && node[op->peer] != node[bench->rank] ? op->n_bytes : 0;
    }
    return n_bytes;
}

/* Bytes that a rank sends to ranks of its node, or to those of others; or gets from them. */
static int64_t bytes_at(const struct bench *bench, int rank, bool is_inside, bool is_sent)
{
    const int *node = bench->comm->topology.node;
    const int64_t n_rank = bench->n_rank;
    int64_t n_bytes = 0;
    for (int64_t peer = 0; peer < n_rank; ++peer) {
        const int64_t block = bench->bytes[is_sent ? rank * n_rank + peer : peer * n_rank + rank];
        n_bytes += peer != rank && (node[peer] == node[rank]) == is_inside ? block : 0;
    }
    return n_bytes;
}

/* What the links allow for blocks that go straight, the busiest node and rank. */
static double bound_s(const struct bench *bench)
{
    const struct mt_topology *topology = &bench->comm->topology;
    double most = 0.0;
    for (int i = 0; i < 2 * topology->n_node; ++i) {
        const int node = i / 2;
        const bool is_sent = i % 2 == 0;
        int64_t crossing = 0;
        int64_t inside = 0;
        for (int m = topology->node_start[node]; m < topology->node_start[node + 1]; ++m) {
            const int rank = topology->member[m];
            crossing += bytes_at(bench, rank, false, is_sent);
            inside = mt_max_i64(inside, bytes_at(bench, rank, true, is_sent));
        }
        const double bound = mt_bench_bound_s(bench->options, crossing,
                                              mt_topology_node_size(topology, node), inside);
        most = bound > most ? bound : most;
    }
    return most;
}

static void print_auto(const struct bench *bench, const struct mt_bench_sample *typical, FILE *out)
{
    const bool is_rows = bench->workload == ROWS;
    for (int sums_may_differ = 0; sums_may_differ <= (is_rows ? 1 : 0); ++sums_may_differ) {
        const enum mt_bench_way way = bench->options->choose(
            bench->options->context, is_rows ? bench->n_row : bench->bytes,
            is_rows ? ROW_BYTES + 4 : 1, is_rows ? TOP_K : 1, sums_may_differ != 0);
        double best = typical[MT_BENCH_DIRECT].slowest_s;
        for (int other = 0; other < MT_BENCH_DEDUPLICATED + sums_may_differ; ++other) {
            best = typical[other].slowest_s < best ? typical[other].slowest_s : best;
        }
        (void)fprintf(out, "%-14s %-5s %10" PRId64 " %12.1f  %s, %.2f of the best%s\n", "auto",
                      workload_names[bench->workload], bench->pair_bytes,
                      typical[way].slowest_s * 1e6, way_name((int)way),
                      typical[way].slowest_s / best, sums_may_differ ? " (sums may differ)" : "");
    }
}

static enum mt_status report(struct bench *bench, struct mt_bench_sample (*sample)[MT_BENCH_REPEAT],
                             FILE *out)
{
    struct mt_bench_sample typical[MT_N_BENCH_WAY] = {{0.0, 0.0}};
    const double bound = bound_s(bench);
    const double mean_bytes = (double)bench->pair_bytes * (double)bench->n_rank;
    for (int way = 0; way < MT_N_BENCH_WAY; ++way) {
        int64_t most = 0;
        int64_t crossing = 0;
        if (!is_way(bench, way)) {
            continue;
        }
        typical[way] = mt_bench_typical(sample[way]);
        MT_TRY(mt_bench_most(bench->comm, crossing_bytes(bench, (enum mt_bench_way)way),
                             bench->time_s, &most, &crossing));
        if (bench->rank != 0) {
            continue;
        }
        (void)fprintf(out, "%-14s %-5s %10" PRId64 " %12.1f %12.1f %10.3f %14" PRId64,
                      way_name(way), workload_names[bench->workload], bench->pair_bytes,
                      typical[way].slowest_s * 1e6, typical[way].busy_s * 1e6,
                      mean_bytes / typical[way].slowest_s * 1e-9, crossing);
        (void)(bound > 0.0 ? fprintf(out, " %8.2f\n", typical[way].slowest_s / bound)
                           : fputc('\n', out));
    }
    if (bench->rank == 0 && bench->options->choose != NULL) {
        print_auto(bench, typical, out);
        (void)fflush(out);
    }
    return MT_OK;
}

static enum mt_status verify_ways(struct bench *bench)
{
    enum mt_status status = MT_OK;
    for (int way = 0; way < MT_N_BENCH_WAY && status == MT_OK; ++way) {
        bench->way = (enum mt_bench_way)way;
        status = is_way(bench, way) ? verify(bench) : MT_OK;
    }
    return status;
}

/* All ways in turn, again and again. */
static enum mt_status time_ways(struct bench *bench,
                                struct mt_bench_sample (*sample)[MT_BENCH_REPEAT])
{
    enum mt_status status = MT_OK;
    for (int i = 0; i < MT_BENCH_REPEAT * MT_N_BENCH_WAY && status == MT_OK; ++i) {
        const int way = i % MT_N_BENCH_WAY;
        struct mt_bench_sample *turn = &sample[way][i / MT_N_BENCH_WAY];
        bench->way = (enum mt_bench_way)way;
        status = is_way(bench, way) ? mt_bench_time(bench->comm, run, bench, n_in_a_row(bench),
                                                    bench->time_s, turn)
                                    : MT_OK;
    }
    return status;
}

static enum mt_status run_case(struct bench *bench, FILE *out)
{
    struct mt_bench_sample sample[MT_N_BENCH_WAY][MT_BENCH_REPEAT];
    MT_TRY(mt_job_agree(open_case(bench)));
    (void)visit_blocks(bench, true);
    MT_TRY(mt_job_agree(plan_ways(bench)));
    MT_TRY(verify_ways(bench));
    MT_TRY(time_ways(bench, sample));
    return report(bench, sample, out);
}

/* Blocks of growing size. */
static enum mt_status run_workload(struct mt_comm *comm, const struct mt_bench_options *options,
                                   enum workload workload, FILE *out)
{
    const int64_t n_rank = comm->topology.n_rank;
    const int64_t last =
        options->most_bytes > 0 ? mt_min_i64(options->most_bytes, LAST_BYTES) : LAST_BYTES;
    enum mt_status status = MT_OK;
    for (int64_t pair_bytes = FIRST_BYTES;
         pair_bytes <= mt_min_i64(last, LIMIT_BYTES / n_rank / n_rank) && status == MT_OK;
         pair_bytes *= STEP) {
        struct bench bench = {.comm = comm,
                              .options = options,
                              .n_rank = comm->topology.n_rank,
                              .rank = comm->rank,
                              .workload = workload,
                              .pair_bytes = pair_bytes};
        status = run_case(&bench, out);
        close_case(&bench);
    }
    return status;
}

enum mt_status mt_bench_exchanges(struct mt_comm *comm, const struct mt_bench_options *options,
                                  FILE *out)
{
    bool is_wanted = options->only == NULL;
    for (int way = 0; way < MT_N_BENCH_WAY; ++way) {
        is_wanted = is_wanted || strstr(way_name(way), options->only) != NULL;
    }
    if (!is_wanted) {
        return MT_OK;
    }
    if (comm->rank == 0) {
        (void)fprintf(out, "%-14s %-5s %10s %12s %12s %10s %14s %8s\n", "all-to-all", "load",
                      "pair_bytes", "time_us", "processor_us", "GB/s", "between_nodes", "of_bound");
    }
    for (int workload = 0; workload < N_WORKLOAD; ++workload) {
        MT_TRY(run_workload(comm, options, (enum workload)workload, out));
    }
    return MT_OK;
}
