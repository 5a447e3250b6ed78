#include "comm/bench_internal.h"

#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"

#include <inttypes.h>
#include <string.h>

enum {
    CHUNKS_PER_RANK = 4,
    MAX_VERIFIED = 65536, /* items of a result that are looked at, spread over it */
};

/* Distributions in which every rank holds every chunk. */
enum spread {
    SPREAD_EVEN, /* R * CHUNKS_PER_RANK chunks, owners in turn */
    SPREAD_HOT,  /* CHUNKS_PER_RANK chunks, all of rank 0 */
    SPREAD_ONE,  /* one chunk of rank 0 */
    N_SPREAD
};
struct spread_chunks {
    struct mt_sparse sparse;
    int64_t *longs; /* [3C+1]: bytes, offsets, holder_start */
    int *ints;      /* [C + C(R-1)]: owner, holder */
};

struct bench_case;

/* All buffers hold [n_item] floats: vectors, or R blocks, or chunks. */
struct bench {
    struct mt_comm *comm;
    const struct mt_bench_options *options;
    const struct bench_case *under_way;
    int n_rank, rank;
    int64_t n_item;
    float *send, *recv;
    char *stage;
    struct mt_plan plan;
    struct mt_exec *exec;
    int64_t *block_bytes; /* [R] */
    double *time_s;       /* [R] of one repetition */
    struct spread_chunks spread[N_SPREAD];
    struct mt_relay *relay;
    struct mt_chain *chain;
    struct mt_sparse_auto *ways;
};

struct bench_case {
    const char *name;
    int64_t max_bytes;
    void (*plan)(struct bench *bench);
    enum spread spread; /* sparse: whose chunks, and how; MT_N_SPARSE_WAY: as is chosen */
    enum mt_sparse_way way;
    bool is_in_place; /* SEND is RECV */
    bool is_home_set; /* RECV starts with the own chunks */
    int64_t (*n_result)(const struct bench *bench);
    float (*want)(const struct bench *bench, int64_t i); /* item i of RECV */
};

/* Item i of a rank's SEND: whole numbers, so that sums are exact in any order. */
static float payload(int rank, int64_t i)
{
    return (float)(((int64_t)rank * 31 + i * 7) % 61);
}

static int64_t block_items(const struct bench *bench)
{
    return bench->n_item / bench->n_rank;
}

static int64_t all_items(const struct bench *bench)
{
    return bench->n_item;
}

static float payload_sum(const struct bench *bench, int64_t i)
{
    float sum = 0.0F;
    for (int rank = 0; rank < bench->n_rank; ++rank) {
        sum += payload(rank, i);
    }
    return sum;
}

static void plan_allgatherv(struct bench *bench)
{
    mt_plan_allgatherv(&bench->plan, &bench->comm->topology, bench->rank, bench->block_bytes);
}

static float want_allgatherv(const struct bench *bench, int64_t i)
{
    return payload((int)(i / block_items(bench)), i % block_items(bench));
}

static void plan_reduce_scatter(struct bench *bench)
{
    mt_plan_reduce_scatter(&bench->plan, &bench->comm->topology, bench->rank, bench->block_bytes,
                           MT_ELEMENT_F32);
}

static float want_reduce_scatter(const struct bench *bench, int64_t i)
{
    return payload_sum(bench, bench->rank * block_items(bench) + i);
}

static void plan_allreduce(struct bench *bench)
{
    mt_plan_allreduce(&bench->plan, &bench->comm->topology, bench->rank,
                      bench->n_item * (int64_t)sizeof(float), MT_ELEMENT_F32);
}

/* Chunks of equal size that fill the buffers; their offsets [C], alike for home and copies. */
static const int64_t *cut_chunks(struct bench *bench, enum spread spread)
{
    struct spread_chunks *chunks = &bench->spread[spread];
    const int64_t n_chunk = chunks->sparse.n_chunk;
    int64_t *offset = chunks->longs + n_chunk;
    for (int64_t chunk = 0; chunk < n_chunk; ++chunk) {
        chunks->longs[chunk] = bench->n_item / n_chunk * (int64_t)sizeof(float);
        offset[chunk] = chunk * chunks->longs[chunk];
    }
    return offset;
}

/* With the piece that would be chosen for them: all of the chunk where none fits the limits. */
static int64_t piece_of(const struct bench *bench, const struct mt_sparse *sparse, bool is_reduce)
{
    const struct mt_sparse_choice choice = is_reduce ? mt_sparse_choose_reduce(bench->ways, sparse)
                                                     : mt_sparse_choose_gather(bench->ways, sparse);
    return choice.piece_bytes > 0 ? choice.piece_bytes : sparse->chunk_bytes[0];
}

static void plan_gather(struct bench *bench)
{
    const struct bench_case *which = bench->under_way;
    const int64_t *offset = cut_chunks(bench, which->spread);
    const struct mt_sparse *sparse = &bench->spread[which->spread].sparse;
    struct mt_plan *plan = &bench->plan;
    if (which->way == MT_SPARSE_DIRECT) {
        mt_plan_sparse_allgather(plan, bench->rank, sparse, offset, offset);
    } else if (which->way == MT_SPARSE_RELAY) {
        mt_plan_sparse_allgather_relay(plan, bench->rank, sparse, bench->relay, offset, offset);
    } else if (which->way == MT_SPARSE_CHAIN) {
        mt_plan_sparse_allgather_chain(plan, bench->rank, sparse, bench->chain,
                                       piece_of(bench, sparse, false), offset, offset);
    } else {
        mt_plan_sparse_allgather_auto(plan, bench->rank, sparse, bench->ways, offset, offset);
    }
}

static void plan_reduce(struct bench *bench)
{
    const struct bench_case *which = bench->under_way;
    const int64_t *offset = cut_chunks(bench, which->spread);
    const int64_t *const offsets[2] = {offset, offset};
    const struct mt_sparse *sparse = &bench->spread[which->spread].sparse;
    struct mt_plan *plan = &bench->plan;
    if (which->way == MT_SPARSE_DIRECT) {
        mt_plan_sparse_reduce_scatter(plan, bench->rank, sparse, offset, offset, MT_ELEMENT_F32);
    } else if (which->way == MT_SPARSE_RELAY) {
        mt_plan_sparse_reduce_scatter_relay(plan, bench->rank, sparse, bench->relay, offset, offset,
                                            MT_ELEMENT_F32);
    } else if (which->way == MT_SPARSE_CHAIN) {
        mt_plan_sparse_reduce_scatter_chain(plan, bench->rank, sparse, bench->chain,
                                            piece_of(bench, sparse, true), offsets, MT_ELEMENT_F32);
    } else {
        mt_plan_sparse_reduce_scatter_auto(plan, bench->rank, sparse, bench->ways, offsets,
                                           MT_ELEMENT_F32);
    }
}

static int owner_of(const struct bench *bench, enum spread spread, int64_t i)
{
    const struct mt_sparse *sparse = &bench->spread[spread].sparse;
    return sparse->owner[i / (bench->n_item / sparse->n_chunk)];
}

static float want_owners(const struct bench *bench, int64_t i)
{
    return payload(owner_of(bench, bench->under_way->spread, i), i);
}

static int64_t items_of_rank_0(const struct bench *bench)
{
    return bench->rank == 0 ? bench->n_item : 0;
}

enum { SMALL_BYTES = 1 << 20, LARGE_BYTES = 1 << 24 };

#define GATHER_CASE(name, spread, way)                                                          \
    {                                                                                           \
        name, LARGE_BYTES, plan_gather, spread, way, .is_in_place = true, .is_home_set = true,  \
                                                     .n_result = all_items, .want = want_owners \
    }
#define REDUCE_CASE(name, spread, way)                                            \
    {                                                                             \
        name, LARGE_BYTES, plan_reduce, spread, way,                              \
            .is_home_set = true, .n_result = items_of_rank_0, .want = payload_sum \
    }

/* The all-reduce is for small vectors: its leader stages one for every member of the node. */
static const struct bench_case bench_cases[] = {
    {"allgatherv", LARGE_BYTES, plan_allgatherv, .n_result = all_items, .want = want_allgatherv},
    {"reduce_scatter", LARGE_BYTES, plan_reduce_scatter, .n_result = block_items,
     .want = want_reduce_scatter},
    {"allreduce", SMALL_BYTES, plan_allreduce, .n_result = all_items, .want = payload_sum},
    GATHER_CASE("sparse_allgather", SPREAD_EVEN, MT_SPARSE_DIRECT),
    GATHER_CASE("sparse_relay", SPREAD_EVEN, MT_SPARSE_RELAY),
    GATHER_CASE("sparse_auto", SPREAD_EVEN, MT_N_SPARSE_WAY),
    GATHER_CASE("hot_allgather", SPREAD_HOT, MT_SPARSE_DIRECT),
    GATHER_CASE("hot_relay", SPREAD_HOT, MT_SPARSE_RELAY),
    GATHER_CASE("hot_chain", SPREAD_HOT, MT_SPARSE_CHAIN),
    GATHER_CASE("hot_auto", SPREAD_HOT, MT_N_SPARSE_WAY),
    GATHER_CASE("one_relay", SPREAD_ONE, MT_SPARSE_RELAY),
    GATHER_CASE("one_chain", SPREAD_ONE, MT_SPARSE_CHAIN),
    GATHER_CASE("one_auto", SPREAD_ONE, MT_N_SPARSE_WAY),
    REDUCE_CASE("hot_reduce", SPREAD_HOT, MT_SPARSE_DIRECT),
    REDUCE_CASE("hot_reduce_relay", SPREAD_HOT, MT_SPARSE_RELAY),
    REDUCE_CASE("hot_reduce_chain", SPREAD_HOT, MT_SPARSE_CHAIN),
    REDUCE_CASE("hot_reduce_auto", SPREAD_HOT, MT_N_SPARSE_WAY),
};
enum { N_BENCH_CASE = (int)(sizeof(bench_cases) / sizeof(bench_cases[0])) };

static enum mt_status run(void *context)
{
    struct bench *bench = context;
    const struct bench_case *which = bench->under_way;
    void *const buffer[MT_N_BUFFER] = {which->is_in_place ? bench->recv : bench->send, bench->recv,
                                       bench->stage};
    MT_TRY(mt_exec_begin(bench->exec, &bench->plan, buffer));
    return mt_exec_end(bench->exec);
}

static void prepare(struct bench *bench, const struct bench_case *which)
{
    const int64_t block = block_items(bench);
    bench->under_way = which;
    for (int rank = 0; rank < bench->n_rank; ++rank) {
        bench->block_bytes[rank] = block * (int64_t)sizeof(float);
    }
    for (int64_t i = 0; i < bench->n_item; ++i) {
        const bool is_home = owner_of(bench, which->spread, i) == bench->rank;
        bench->send[i] = payload(bench->rank, i);
        bench->recv[i] = which->is_home_set && is_home ? bench->send[i] : -1.0F;
    }
    which->plan(bench);
}

static enum mt_status verify(struct bench *bench, const struct bench_case *which)
{
    const int64_t n_result = which->n_result(bench);
    const int64_t stride = 1 + n_result / MAX_VERIFIED;
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < n_result; i += stride) {
        n_wrong += bench->recv[i] != which->want(bench, i) ? 1 : 0;
    }
    MT_TRY(mt_comm_sum_i64(bench->comm, &n_wrong, 1));
    if (n_wrong > 0) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "%s of %" PRId64 " bytes gave %" PRId64
                       " wrong items; results must be exact; report this with the MPI version",
                       which->name, bench->n_item * (int64_t)sizeof(float), n_wrong);
    }
    return MT_OK;
}

static int64_t received_bytes(const struct mt_plan *plan)
{
    int64_t n_bytes = 0;
    for (int64_t i = 0; i < plan->n_op; ++i) {
        n_bytes += plan->op[i].kind == MT_OP_RECV ? plan->op[i].n_bytes : 0;
    }
    return n_bytes;
}

/* What the busiest rank sends or receives. */
static enum mt_status busiest_port_bytes(struct bench *bench, int64_t *most)
{
    const int64_t mine = mt_max_i64(mt_plan_sent_bytes(&bench->plan), received_bytes(&bench->plan));
    int64_t sum = 0;
    return mt_bench_most(bench->comm, mine, bench->time_s, most, &sum);
}

static int smallest_node(const struct mt_topology *topology)
{
    int size = topology->n_rank;
    for (int node = 0; node < topology->n_node; ++node) {
        const int candidate = mt_topology_node_size(topology, node);
        size = candidate < size ? candidate : size;
    }
    return size;
}

/* What the links allow: of n bytes the ranks of the smallest node lack those that lie in other
 * nodes, once for all of them, and each those of the others of its node; hot chunks lie all
 * elsewhere. Sums are the mirror image. */
static double bound_of(const struct bench *bench, const struct bench_case *which)
{
    const int64_t n_bytes = bench->n_item * (int64_t)sizeof(float);
    const int64_t n_rank = bench->n_rank;
    const int64_t k = smallest_node(&bench->comm->topology);
    const int64_t outside = (n_rank - k) * n_bytes / n_rank;
    const int64_t inside = (k - 1) * n_bytes / n_rank;
    const bool is_whole = which->spread != SPREAD_EVEN || which->want == payload_sum;
    const int64_t whole = n_rank > k ? n_bytes : 0;
    return mt_bench_bound_s(bench->options, is_whole ? whole : outside, (int)k,
                            is_whole && k > 1 ? n_bytes : inside);
}

static enum mt_status run_case(struct bench *bench, const struct bench_case *which, FILE *out)
{
    struct mt_trial_sample sample[MT_BENCH_REPEAT];
    prepare(bench, which);
    MT_TRY(run(bench));
    MT_TRY(verify(bench, which));
    for (int i = 0; i < MT_BENCH_REPEAT; ++i) {
        MT_TRY(mt_trial_time(bench->comm, run, bench, 1, bench->time_s, &sample[i]));
    }
    int64_t most_port = 0;
    MT_TRY(busiest_port_bytes(bench, &most_port));
    const struct mt_trial_sample typical = mt_bench_typical(sample, MT_BENCH_REPEAT);
    const double bound = bound_of(bench, which);
    const int64_t n_bytes = bench->n_item * (int64_t)sizeof(float);
    if (bench->rank == 0) {
        (void)fprintf(out, "%-17s %12" PRId64 " %12.1f %12.1f %10.3f %14" PRId64, which->name,
                      n_bytes, typical.slowest_s * 1e6, typical.busy_s * 1e6,
                      (double)n_bytes / typical.slowest_s * 1e-9, most_port);
        (void)(bound > 0.0 ? fprintf(out, " %8.2f", typical.slowest_s / bound) : 0);
        (void)fprintf(out, which->way == MT_N_SPARSE_WAY ? "  %s\n" : "\n", bench->plan.name);
        (void)fflush(out);
    }
    return MT_OK;
}

static enum mt_status allocate_spread(struct bench *bench, enum spread spread)
{
    struct spread_chunks *chunks = &bench->spread[spread];
    const bool is_hot = spread != SPREAD_EVEN;
    const int64_t n_hot = spread == SPREAD_ONE ? 1 : CHUNKS_PER_RANK;
    const int64_t n_chunk = is_hot ? n_hot : (int64_t)CHUNKS_PER_RANK * bench->n_rank;
    const int64_t n_holder = n_chunk * (bench->n_rank - 1);
    MT_TRY(MT_ALLOCATE(chunks->longs, 3 * n_chunk + 1, "bench"));
    MT_TRY(MT_ALLOCATE(chunks->ints, n_chunk + n_holder, "bench"));
    int64_t *holder_start = chunks->longs + 2 * n_chunk;
    int *owner = chunks->ints;
    int *holder = chunks->ints + n_chunk;
    int64_t at = 0;
    for (int64_t chunk = 0; chunk < n_chunk; ++chunk) {
        owner[chunk] = is_hot ? 0 : (int)(chunk % bench->n_rank);
        for (int rank = 0; rank < bench->n_rank; ++rank) {
            if (rank != owner[chunk]) {
                holder[at++] = rank;
            }
        }
        holder_start[chunk + 1] = at;
    }
    chunks->sparse = (struct mt_sparse){.n_chunk = n_chunk,
                                        .chunk_bytes = chunks->longs,
                                        .owner = owner,
                                        .holder_start = holder_start,
                                        .holder = holder};
    return MT_OK;
}

/* Chains as in training: no more ops than other plans have, or MT_CHAIN_OPS, and a reduction's
 * arrivals in what two chunks take. */
static enum mt_status allocate_sparse(struct bench *bench, int64_t max_bytes, int64_t *max_op)
{
    const struct mt_topology *topology = &bench->comm->topology;
    for (int spread = 0; spread < N_SPREAD; ++spread) {
        MT_TRY(allocate_spread(bench, (enum spread)spread));
        *max_op =
            mt_max_i64(*max_op, mt_plan_sparse_max_op(bench->rank, &bench->spread[spread].sparse));
    }
    const struct mt_sparse *most = &bench->spread[SPREAD_EVEN].sparse;
    const int64_t max_copy = most->holder_start[most->n_chunk];
    const struct mt_sparse_limits limits = {.max_op = MT_CHAIN_OPS, .stage_bytes = max_bytes};
    *max_op = mt_max_i64(*max_op, mt_plan_sparse_relay_max_op(bench->n_rank, most->n_chunk));
    *max_op = mt_max_i64(*max_op, MT_CHAIN_OPS);
    MT_TRY(mt_relay_create(topology, most->n_chunk, max_copy, 0, &bench->relay));
    MT_TRY(mt_chain_create(topology, most->n_chunk, max_copy, &bench->chain));
    MT_TRY(mt_sparse_auto_create(topology, most->n_chunk, max_copy, &limits, &bench->ways));
    mt_sparse_auto_set_links(bench->ways, &bench->options->links);
    return MT_OK;
}

/* The owner of the hot chunks stages every copy, others two chunks at most. */
static int64_t stage_bytes_of(const struct bench *bench, int64_t max_bytes)
{
    const int64_t allreduce =
        mt_plan_allreduce_stage_bytes(&bench->comm->topology, mt_min_i64(max_bytes, SMALL_BYTES));
    return mt_max_i64(bench->rank == 0 ? (bench->n_rank - 1) * max_bytes : max_bytes, allreduce);
}

static enum mt_status allocate(struct bench *bench, int64_t max_item)
{
    const int64_t max_bytes = max_item * (int64_t)sizeof(float);
    const struct mt_topology *topology = &bench->comm->topology;
    int64_t max_op = mt_max_i64(mt_plan_reduce_scatter_max_op(bench->n_rank),
                                mt_plan_allreduce_max_op(topology));
    MT_TRY(allocate_sparse(bench, max_bytes, &max_op));
    MT_TRY(MT_ALLOCATE(bench->send, max_item, "bench"));
    MT_TRY(MT_ALLOCATE(bench->recv, max_item, "bench"));
    MT_TRY(MT_ALLOCATE(bench->stage, stage_bytes_of(bench, max_bytes), "bench"));
    MT_TRY(MT_ALLOCATE(bench->block_bytes, bench->n_rank, "bench"));
    MT_TRY(MT_ALLOCATE(bench->time_s, bench->n_rank, "bench"));
    MT_TRY(mt_plan_init(&bench->plan, max_op));
    return mt_exec_create(bench->comm, max_op, &bench->exec);
}

static void clear(struct bench *bench)
{
    mt_exec_destroy(bench->exec);
    mt_plan_clear(&bench->plan);
    mt_memory_free(bench->time_s);
    mt_memory_free(bench->block_bytes);
    mt_memory_free(bench->stage);
    mt_memory_free(bench->recv);
    mt_memory_free(bench->send);
    mt_sparse_auto_destroy(bench->ways);
    mt_chain_destroy(bench->chain);
    mt_relay_destroy(bench->relay);
    for (int spread = 0; spread < N_SPREAD; ++spread) {
        mt_memory_free(bench->spread[spread].ints);
        mt_memory_free(bench->spread[spread].longs);
    }
}

/* Sizes of one case: 4 KiB, 64 KiB, 1 MiB, 16 MiB, rounded up to whole chunks on every rank. */
static enum mt_status run_sizes(struct bench *bench, const struct bench_case *which, FILE *out,
                                int64_t max_bytes)
{
    enum { FIRST_BYTES = 1 << 12, STEP = 16 };
    enum mt_status status = MT_OK;
    const int64_t chunk_items = bench->spread[SPREAD_EVEN].sparse.n_chunk;
    const int64_t limit_bytes = mt_min_i64(which->max_bytes, max_bytes);
    for (int64_t n_bytes = FIRST_BYTES; n_bytes <= limit_bytes && status == MT_OK;
         n_bytes *= STEP) {
        bench->n_item = mt_round_up(n_bytes / (int64_t)sizeof(float), chunk_items);
        status = run_case(bench, which, out);
    }
    return status;
}

enum mt_status mt_bench_collectives(struct mt_comm *comm, const struct mt_bench_options *options,
                                    FILE *out)
{
    enum mt_status status = MT_OK;
    struct bench bench = {
        .comm = comm, .options = options, .n_rank = comm->topology.n_rank, .rank = comm->rank};
    /* Ranks may share one machine: three buffers of at most 512 MiB on all ranks together. */
    const int64_t wanted = options->most_bytes > 0 ? options->most_bytes : LARGE_BYTES;
    const int64_t max_bytes = mt_min_i64(mt_min_i64(LARGE_BYTES, wanted), (1 << 29) / bench.n_rank);
    const int64_t chunk_items = (int64_t)CHUNKS_PER_RANK * bench.n_rank;
    const int64_t max_item = mt_round_up(max_bytes / (int64_t)sizeof(float), chunk_items);
    MT_TRY_GOTO(mt_job_agree(allocate(&bench, max_item)));
    if (bench.rank == 0) {
        (void)fprintf(out,
                      "%d ranks, %d nodes; lower quartile of %d (exchanges: to %d), slowest rank; "
                      "payloads verified\n",
                      bench.n_rank, comm->topology.n_node, MT_BENCH_REPEAT, MT_BENCH_MOST_REPEAT);
    }
    MT_TRY_GOTO(mt_bench_exchanges(comm, options, out));
    if (bench.rank == 0) {
        (void)fprintf(out, "%-17s %12s %12s %12s %10s %14s %8s\n", "collective", "bytes", "time_us",
                      "processor_us", "GB/s", "busiest_port", "of_bound");
    }
    for (int i = 0; i < N_BENCH_CASE; ++i) {
        if (options->only != NULL && strstr(bench_cases[i].name, options->only) == NULL) {
            continue;
        }
        MT_TRY_GOTO(run_sizes(&bench, &bench_cases[i], out, max_bytes));
    }
cleanup:
    clear(&bench);
    return status;
}
