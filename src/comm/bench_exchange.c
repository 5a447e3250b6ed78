/* The all-to-alls side by side: the same blocks by every way, there and back as rows travel, in
 * turn, so that what disturbs one disturbs all. */
#include "comm/bench_exchange.h"
#include "base/job.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"

#include <inttypes.h>
#include <string.h>

_Static_assert((int)MT_BENCH_DIRECT == (int)MT_TRIAL_DIRECT &&
                   (int)MT_BENCH_TWO_LEVEL == (int)MT_TRIAL_TWO_LEVEL &&
                   (int)MT_BENCH_LEADER == (int)MT_TRIAL_LEADER,
               "ways that bring the same bytes come first");

enum { N_EXPERT = 64, MAX_VERIFIED = 65536 };
/* Blocks grow by STEP; those of all ranks of a machine, in and out, stay below 1 GiB. */
enum { FIRST_BYTES = 64, STEP = 4, LAST_BYTES = 1 << 16, LIMIT_BYTES = 1 << 29 };

/* ---- workloads ---- */

/* MT_BENCH_TOP_K different experts. */
static void draw_experts(int64_t stream, int *expert)
{
    uint64_t draw = 0;
    for (int n = 0; n < MT_BENCH_TOP_K;) {
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
static int64_t append_rows(const struct mt_bench_exchange *bench, int source, int target, int64_t i,
                           int32_t *token)
{
    int expert[MT_BENCH_TOP_K];
    int64_t n = 0;
    draw_experts(source * bench->n_token + i, expert);
    for (int k = 0; k < MT_BENCH_TOP_K; ++k) {
        if (expert[k] * bench->n_rank / N_EXPERT == target) {
            token[n++] = (int32_t)i;
        }
    }
    return n;
}

/* Rows of one source in the order of their targets. */
static void draw_rows(struct mt_bench_exchange *bench, int source)
{
    int32_t *token = bench->token + source * bench->n_token * MT_BENCH_TOP_K;
    for (int target = 0; target < bench->n_rank; ++target) {
        int64_t n = 0;
        for (int64_t i = 0; i < bench->n_token; ++i) {
            n += append_rows(bench, source, target, i, token + n);
        }
        bench->n_row[(int64_t)source * bench->n_rank + target] = n;
        token += n;
    }
}

static void fill_matrix(struct mt_bench_exchange *bench)
{
    const int n_rank = bench->n_rank;
    if (bench->workload == MT_BENCH_EVEN) {
        mt_trial_fill_even(n_rank, bench->pair_bytes, bench->bytes);
    } else if (bench->workload == MT_BENCH_HOT) {
        mt_trial_fill_hot(n_rank, bench->pair_bytes, bench->bytes);
    }
    for (int source = 0; source < n_rank && bench->workload == MT_BENCH_ROWS; ++source) {
        draw_rows(bench, source);
        for (int64_t at = (int64_t)source * n_rank; at < (source + 1) * (int64_t)n_rank; ++at) {
            bench->bytes[at] = bench->n_row[at] * (MT_BENCH_ROW_BYTES + 4);
        }
    }
}

/* Float i of the block; of MT_BENCH_ROWS: rows of their token, then a float of each row's own. */
static float payload(const struct mt_bench_exchange *bench, int source, int target,
                     const int32_t *token, int64_t n_row, int64_t i)
{
    enum { ROW_FLOATS = MT_BENCH_ROW_BYTES / 4 };
    if (bench->workload != MT_BENCH_ROWS || i >= n_row * ROW_FLOATS) {
        return (float)((source * 31 + target * 17 + i * 7) % 61);
    }
    return (float)((source * 31 + token[i / ROW_FLOATS] * 13 + i % ROW_FLOATS * 7) % 61);
}

/* Writes this rank's blocks, or compares those that came: how many floats are wrong. */
static int64_t visit_blocks(struct mt_bench_exchange *bench, bool is_sent)
{
    float *at = (float *)(void *)(is_sent ? bench->trial.send : bench->trial.recv);
    const int64_t stride = is_sent ? 1 : 1 + bench->trial.recv_bytes / 4 / MAX_VERIFIED;
    int64_t n_wrong = 0;
    for (int peer = 0; peer < bench->n_rank; ++peer) {
        const int source = is_sent ? bench->rank : peer;
        const int target = is_sent ? peer : bench->rank;
        const int64_t block = (int64_t)source * bench->n_rank + target;
        const int32_t *token = bench->token + source * bench->n_token * MT_BENCH_TOP_K;
        for (int t = 0; t < target && bench->workload == MT_BENCH_ROWS; ++t) {
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

static enum mt_status run_mpi(struct mt_bench_exchange *bench, bool is_back)
{
    const ptrdiff_t n = bench->n_rank;
    const struct mt_trial *trial = &bench->trial;
    const int *sent = bench->mpi + (is_back ? 2 * n : 0);
    const int *received = bench->mpi + (is_back ? 0 : 2 * n);
    mt_job_watch_begin("MPI_Alltoallv", bench->comm->sequence);
    const int code = MPI_Alltoallv(is_back ? trial->recv : trial->send, sent, sent + n, MPI_BYTE,
                                   is_back ? trial->home : trial->recv, received, received + n,
                                   MPI_BYTE, mt_job_world());
    mt_job_watch_end();
    return mt_job_mpi_status(code, "MPI_Alltoallv", __FILE__, __LINE__);
}

static enum mt_status run_deduplicated(struct mt_bench_exchange *bench, bool is_back)
{
    const struct mt_trial *trial = &bench->trial;
    void *const buffer[MT_N_BUFFER] = {is_back ? trial->recv : trial->send,
                                       is_back ? trial->home : trial->recv, bench->stage};
    MT_TRY(mt_exec_begin(bench->exec, &bench->deduplicated[is_back ? 1 : 0], buffer));
    return mt_exec_end(bench->exec);
}

/* There and back. */
static enum mt_status run(void *context)
{
    struct mt_bench_exchange *bench = context;
    if (bench->way < MT_BENCH_DEDUPLICATED) {
        return mt_trial_run(&bench->trial, (enum mt_trial_way)bench->way);
    }
    enum mt_status (*const run_way)(struct mt_bench_exchange * bench, bool is_back) =
        bench->way == MT_BENCH_MPI ? run_mpi : run_deduplicated;
    MT_TRY(run_way(bench, false));
    return run_way(bench, true);
}

/* MPI_Alltoallv takes seconds where ranks outnumber cores. */
static int n_in_a_row(const struct mt_bench_exchange *bench)
{
    return bench->way != MT_BENCH_MPI ? mt_trial_n_in_a_row(bench->pair_bytes) : 1;
}

static void plan_mpi(struct mt_bench_exchange *bench)
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

/* Numbers of rows, told once. */
static enum mt_status tell_numbers(struct mt_bench_exchange *bench)
{
    const struct mt_topology *topology = &bench->comm->topology;
    const int64_t max_op = mt_plan_row_numbers_max_op(topology, bench->rank);
    mt_rows_number(topology, bench->rank, bench->n_row,
                   bench->token + bench->rank * bench->n_token * MT_BENCH_TOP_K, bench->n_token,
                   bench->seen, bench->sent);
    MT_TRY(mt_plan_init(&bench->numbers, max_op));
    mt_plan_reset(&bench->numbers, "row_numbers", MT_ELEMENT_BYTE);
    mt_plan_row_numbers(&bench->numbers, topology, bench->rank, bench->n_row, 0, 0);
    MT_TRY(mt_exec_create(bench->comm, max_op, &bench->exec));
    void *const buffer[MT_N_BUFFER] = {bench->sent, bench->relayed, NULL};
    MT_TRY(mt_exec_begin(bench->exec, &bench->numbers, buffer));
    MT_TRY(mt_exec_end(bench->exec));
    mt_exec_destroy(bench->exec);
    bench->exec = NULL;
    return MT_OK;
}

static enum mt_status plan_deduplicated(struct mt_bench_exchange *bench)
{
    const struct mt_topology *topology = &bench->comm->topology;
    const int64_t n_sent = mt_rows_n_sent(topology, bench->rank, bench->n_row);
    const int64_t n_relayed = mt_rows_n_relayed(topology, bench->rank, bench->n_row);
    const int64_t max_op =
        mt_plan_alltoallv_deduplicated_max_op(topology, bench->rank, n_sent, n_relayed);
    int64_t stage_bytes = 0;
    MT_TRY(MT_ALLOCATE(bench->sent, n_sent, "bench"));
    MT_TRY(MT_ALLOCATE(bench->relayed, n_relayed, "bench"));
    MT_TRY(tell_numbers(bench));
    const struct mt_rows rows = {.n_row = bench->n_row,
                                 .row_bytes = MT_BENCH_ROW_BYTES,
                                 .tail_bytes = 4,
                                 .sent = bench->sent,
                                 .relayed = bench->relayed};
    for (int back = 0; back <= 1; ++back) {
        struct mt_plan *plan = &bench->deduplicated[back];
        MT_TRY(mt_plan_init(plan, max_op));
        mt_plan_alltoallv_deduplicated(plan, topology, bench->rank, &rows, back == 1);
        stage_bytes = mt_max_i64(stage_bytes, mt_plan_alltoallv_deduplicated_stage_bytes(
                                                  topology, bench->rank, &rows, back == 1));
    }
    MT_TRY(MT_ALLOCATE(bench->stage, stage_bytes, "bench"));
    return mt_exec_create(bench->comm, max_op, &bench->exec);
}

static enum mt_status open_case(struct mt_bench_exchange *bench)
{
    const int64_t n_rank = bench->n_rank;
    bench->n_token = mt_max_i64(1, n_rank * bench->pair_bytes /
                                       ((int64_t)MT_BENCH_TOP_K * (MT_BENCH_ROW_BYTES + 4)));
    MT_TRY(MT_ALLOCATE(bench->bytes, n_rank * n_rank, "bench"));
    MT_TRY(MT_ALLOCATE(bench->n_row, n_rank * n_rank, "bench"));
    MT_TRY(MT_ALLOCATE(bench->token, n_rank * bench->n_token * MT_BENCH_TOP_K, "bench"));
    MT_TRY(MT_ALLOCATE(bench->seen, mt_max_i64(bench->n_token, n_rank), "bench"));
    MT_TRY(MT_ALLOCATE(bench->mpi, 4 * n_rank, "bench"));
    MT_TRY(MT_ALLOCATE(bench->time_s, n_rank, "bench"));
    fill_matrix(bench);
    plan_mpi(bench);
    return mt_trial_init(&bench->trial, bench->comm, bench->bytes);
}

static void close_case(struct mt_bench_exchange *bench)
{
    mt_exec_destroy(bench->exec);
    mt_plan_clear(&bench->deduplicated[0]);
    mt_plan_clear(&bench->deduplicated[1]);
    mt_plan_clear(&bench->numbers);
    mt_trial_clear(&bench->trial);
    void *const array[] = {bench->bytes, bench->n_row, bench->token,  bench->sent, bench->relayed,
                           bench->seen,  bench->mpi,   bench->time_s, bench->stage};
    for (size_t i = 0; i < sizeof(array) / sizeof(array[0]); ++i) {
        mt_memory_free(array[i]);
    }
}

/* ---- one case ---- */

static double sum_of(const char *buffer, int64_t n_bytes)
{
    const float *at = (const float *)(const void *)buffer;
    double sum = 0.0;
    for (int64_t i = 0; i < n_bytes / (int64_t)sizeof(*at); ++i) {
        sum += (double)at[i];
    }
    return sum;
}

/* What has come back: what was sent, or sums of its whole numbers. */
static int64_t n_wrong_at_home(const struct mt_bench_exchange *bench)
{
    const struct mt_trial *trial = &bench->trial;
    const bool is_right =
        bench->way == MT_BENCH_DEDUPLICATED
            ? sum_of(trial->home, trial->send_bytes) == sum_of(trial->send, trial->send_bytes)
            : memcmp(trial->home, trial->send, (size_t)trial->send_bytes) == 0;
    return is_right ? 0 : 1;
}

static enum mt_status verify(struct mt_bench_exchange *bench)
{
    memset(bench->trial.recv, 0xff, (size_t)bench->trial.recv_bytes);
    memset(bench->trial.home, 0xff, (size_t)bench->trial.send_bytes);
    MT_TRY(run(bench));
    int64_t n_wrong = visit_blocks(bench, false) + n_wrong_at_home(bench);
    MT_TRY(mt_comm_sum_i64(bench->comm, &n_wrong, 1));
    if (n_wrong > 0) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "the %s all-to-all of %" PRId64 " bytes a pair gave %" PRId64
                       " wrong items; results must be exact; report this with the MPI version",
                       mt_bench_way_name((int)bench->way), bench->pair_bytes, n_wrong);
    }
    return MT_OK;
}

static enum mt_status verify_ways(struct mt_bench_exchange *bench)
{
    enum mt_status status = MT_OK;
    for (int way = 0; way < MT_N_BENCH_WAY && status == MT_OK; ++way) {
        bench->way = (enum mt_bench_way)way;
        status = mt_bench_is_way(bench, way) ? verify(bench) : MT_OK;
    }
    return status;
}

/* All ways in turn. A sample is of one exchange, the mean of there and back. */
static enum mt_status time_round(struct mt_bench_exchange *bench, int round,
                                 struct mt_trial_sample (*sample)[MT_BENCH_MOST_REPEAT],
                                 double *spent_s)
{
    for (int way = 0; way < MT_N_BENCH_WAY; ++way) {
        struct mt_trial_sample *turn = &sample[way][round];
        bench->way = (enum mt_bench_way)way;
        if (!mt_bench_is_way(bench, way)) {
            continue;
        }
        MT_TRY(mt_trial_time(bench->comm, run, bench, n_in_a_row(bench), bench->time_s, turn));
        *spent_s += turn->slowest_s * n_in_a_row(bench);
        turn->slowest_s /= 2;
        turn->busy_s /= 2;
    }
    return MT_OK;
}

static enum mt_status run_case(struct mt_bench_exchange *bench, FILE *out)
{
    static const double LITTLE_S = 0.2;
    struct mt_trial_sample sample[MT_N_BENCH_WAY][MT_BENCH_MOST_REPEAT];
    double spent_s = 0.0;
    int n_round = 0;
    MT_TRY(mt_job_agree(open_case(bench)));
    (void)visit_blocks(bench, true);
    MT_TRY(mt_job_agree(bench->workload == MT_BENCH_ROWS ? plan_deduplicated(bench) : MT_OK));
    MT_TRY(verify_ways(bench));
    while (n_round < MT_BENCH_REPEAT || (n_round < MT_BENCH_MOST_REPEAT && spent_s < LITTLE_S)) {
        MT_TRY(time_round(bench, n_round++, sample, &spent_s));
    }
    return mt_bench_exchange_report(bench, sample, n_round, out);
}

/* Blocks of growing size. */
static enum mt_status run_workload(struct mt_comm *comm, const struct mt_bench_options *options,
                                   enum mt_bench_load workload, FILE *out)
{
    const int64_t n_rank = comm->topology.n_rank;
    const int64_t last =
        options->most_bytes > 0 ? mt_min_i64(options->most_bytes, LAST_BYTES) : LAST_BYTES;
    enum mt_status status = MT_OK;
    for (int64_t pair_bytes = FIRST_BYTES;
         pair_bytes <= mt_min_i64(last, LIMIT_BYTES / n_rank / n_rank) && status == MT_OK;
         pair_bytes *= STEP) {
        struct mt_bench_exchange bench = {.comm = comm,
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
        is_wanted = is_wanted || strstr(mt_bench_way_name(way), options->only) != NULL;
    }
    if (!is_wanted) {
        return MT_OK;
    }
    if (comm->rank == 0) {
        (void)fprintf(out, "%-14s %-5s %10s %12s %12s %10s %14s %8s\n", "all-to-all", "load",
                      "pair_bytes", "time_us", "processor_us", "GB/s", "between_nodes", "of_bound");
    }
    for (int workload = 0; workload < MT_N_BENCH_LOAD; ++workload) {
        MT_TRY(run_workload(comm, options, (enum mt_bench_load)workload, out));
    }
    return MT_OK;
}
