/* The time of a MoE layer, from counts and costs: docs/fssdp.md, "Prediction". */
#include "placement/predict.h"

#include "base/size.h"
#include "placement/exchange.h"
#include "placement/ports.h"
#include "placement/ps.h"

#include <string.h>

/* What one rank computes. */
struct work {
    int64_t n_row, n_late_row;
    int64_t n_instance, n_late_instance; /* that have rows */
};

static int64_t work_ps(const struct mt_costs *costs, int64_t n_row, int64_t n_instance)
{
    return mt_ps_add(mt_ps_times(costs->row_ps, n_row),
                     mt_ps_times(costs->instance_ps, n_instance));
}

/* Rows and messages of a rank's port in one direction. */
struct traffic {
    int64_t n_row[MT_N_LEVEL];
    int64_t n_message[MT_N_LEVEL]; /* one a pair of ranks, as far as rows travel */
};

/* n_row, n_message [R] += those to each rank; returns their sums. Apart from levels, so that it is
 * done many ranks at a time: it is what predictions of 4096 ranks take most time for. */
static void add_all(const int64_t *restrict n_to, int n_rank, int64_t *restrict n_row,
                    int64_t *restrict n_message, struct traffic *out)
{
    int64_t row = 0;
    int64_t message = 0;
    for (int target = 0; target < n_rank; ++target) {
        const int64_t is_there = n_to[target] > 0 ? 1 : 0;
        n_row[target] += n_to[target];
        n_message[target] += is_there;
        row += n_to[target];
        message += is_there;
    }
    out->n_row[MT_LEVEL_NETWORK] = row;
    out->n_message[MT_LEVEL_NETWORK] = message;
}

/* What the source sends, n_to [R] rows to each rank: to near [R] what stays in its node, and to all
 * [R] (n_row, n_message) as if all went over the network. Returns what leaves it. */
static struct traffic add_messages(const struct mt_cluster *cluster, int source,
                                   const int64_t *n_to, int64_t *all, struct traffic *near)
{
    struct traffic out = {{0}, {0}};
    const int node = cluster->node[source];
    add_all(n_to, cluster->n_rank, all, all + cluster->n_rank, &out);
    for (int at = cluster->node_start[node]; at < cluster->node_start[node + 1]; ++at) {
        const int target = cluster->member[at];
        const enum mt_level level = mt_cluster_level(cluster, source, target);
        const int64_t n_message = n_to[target] > 0 ? 1 : 0;
        near[target].n_row[level] += n_to[target];
        near[target].n_message[level] += n_message;
        out.n_row[level] += n_to[target];
        out.n_message[level] += n_message;
        out.n_row[MT_LEVEL_NETWORK] -= n_to[target];
        out.n_message[MT_LEVEL_NETWORK] -= n_message;
    }
    return out;
}

/* ps [MT_N_LEVEL] of rows, or of pieces of experts. */
static void price_traffic(const struct mt_cluster *cluster, const struct traffic *traffic,
                          int64_t row_bytes, int64_t *ps)
{
    enum { KIB = 1024 };
    ps[MT_LEVEL_RANK] = 0;
    for (int level = MT_LEVEL_NODE; level < MT_N_LEVEL; ++level) {
        const int64_t n_byte = mt_ps_times(traffic->n_row[level], row_bytes);
        const int64_t whole = mt_ps_times(n_byte / KIB, cluster->costs.kib_ps[level]);
        const int64_t rest = mt_ps_times(n_byte % KIB, cluster->costs.kib_ps[level]) / KIB;
        const int64_t wait = mt_ps_times(traffic->n_message[level], cluster->costs.alpha_ps[level]);
        ps[level] = mt_ps_add(wait, mt_ps_add(whole, rest));
    }
}

/* What rows are and where they go. */
struct rows {
    struct mt_port *port; /* [R] if they go straight */
    int64_t *of_instance; /* [n_instance] */
    int64_t *matrix;      /* [R,R] by source and target; NULL: they do go straight */
};

/* Fills rows, and the prediction's n_sent_row. */
static void count_rows(const struct mt_cluster *cluster, const struct mt_placement *placement,
                       const int64_t *quota, struct mt_arena *scratch, const struct rows *rows,
                       struct mt_prediction *prediction)
{
    struct mt_port *port = rows->port;
    int64_t *n_row = rows->of_instance;
    const int64_t n_instance = mt_placement_n_instance(placement);
    const int n_rank = placement->n_rank;
    const int64_t mark = mt_arena_mark(scratch);
    int64_t *n_to = mt_arena_cut(scratch, n_rank * (int64_t)sizeof(*n_to));
    struct traffic *in = mt_arena_cut(scratch, n_rank * (int64_t)sizeof(*in));
    int64_t *all = mt_arena_cut(scratch, 2 * (int64_t)n_rank * (int64_t)sizeof(*all));
    memset(all, 0, 2 * (size_t)n_rank * sizeof(all[0]));
    memset(n_row, 0, (size_t)n_instance * sizeof(n_row[0]));
    memset(in, 0, (size_t)n_rank * sizeof(in[0]));
    for (int source = 0; source < n_rank; ++source) {
        const int64_t *of_source = &quota[source * n_instance];
        memset(n_to, 0, (size_t)n_rank * sizeof(n_to[0]));
        for (int64_t i = 0; i < n_instance; ++i) {
            n_row[i] += of_source[i];
            n_to[placement->rank[i]] += of_source[i];
        }
        if (rows->matrix != NULL) {
            memcpy(rows->matrix + (int64_t)source * n_rank, n_to, (size_t)n_rank * sizeof(n_to[0]));
        }
        const struct traffic out = add_messages(cluster, source, n_to, all, in);
        price_traffic(cluster, &out, cluster->row_bytes, port[source].out_ps);
        for (int level = 0; level < MT_N_LEVEL; ++level) {
            prediction->n_sent_row[level] += out.n_row[level];
        }
    }
    for (int rank = 0; rank < n_rank; ++rank) {
        struct traffic *own = &in[rank];
        own->n_row[MT_LEVEL_NETWORK] =
            all[rank] - own->n_row[MT_LEVEL_RANK] - own->n_row[MT_LEVEL_NODE];
        own->n_message[MT_LEVEL_NETWORK] =
            all[n_rank + rank] - own->n_message[MT_LEVEL_RANK] - own->n_message[MT_LEVEL_NODE];
        price_traffic(cluster, own, cluster->row_bytes, port[rank].in_ps);
    }
    mt_arena_release(scratch, mark);
}

/* work [R] from the rows of each instance */
static void count_work(const struct mt_placement *placement, const int64_t *n_row,
                       struct work *work)
{
    memset(work, 0, (size_t)placement->n_rank * sizeof(work[0]));
    for (int i = 0; i < mt_placement_n_instance(placement); ++i) {
        struct work *of_rank = &work[placement->rank[i]];
        const bool is_late = placement->is_late[i];
        const bool is_active = n_row[i] > 0;
        of_rank->n_row += n_row[i];
        of_rank->n_instance += is_active ? 1 : 0;
        of_rank->n_late_row += is_late ? n_row[i] : 0;
        of_rank->n_late_instance += is_late && is_active ? 1 : 0;
    }
}

/* Gate and up of the rows that were not kept: two of a forward's three products. */
static int64_t again_ps(const struct mt_cluster *cluster, int64_t n_row)
{
    const int64_t n_lost = cluster->slice_rows > 0 ? mt_max_i64(0, n_row - cluster->slice_rows) : 0;
    return mt_ps_times(cluster->costs.row_ps, n_lost) / 3 * 2;
}

/* Rows whose expert is there first, then those that waited for a late copy; backward waits for
 * none. All wait for the slowest at the end of each pass, where rows travel back. compute_ps: if
 * nothing were late; returns the time with it. */
static int64_t experts_ps(const struct mt_cluster *cluster, const struct work *work,
                          const int64_t *arrival_ps, int64_t *compute_ps)
{
    enum { BACKWARD = 2 };
    const struct mt_costs *costs = &cluster->costs;
    int64_t forward = 0;
    int64_t backward = 0;
    int64_t resident = 0; /* forward if nothing were late */
    for (int rank = 0; rank < cluster->n_rank; ++rank) {
        const struct work *own = &work[rank];
        const int64_t all = work_ps(costs, own->n_row, own->n_instance);
        const int64_t late = work_ps(costs, own->n_late_row, own->n_late_instance);
        const int64_t wait = own->n_late_row > 0 ? arrival_ps[rank] : 0;
        forward = mt_max_i64(forward, mt_max_i64(all, mt_ps_add(wait, late)));
        resident = mt_max_i64(resident, all);
        const int64_t twice = mt_ps_times(BACKWARD, all);
        backward = mt_max_i64(backward, mt_ps_add(twice, again_ps(cluster, own->n_row)));
    }
    *compute_ps = mt_ps_add(resident, backward);
    return mt_ps_add(forward, backward);
}

/* Pieces of experts to where they are put together: every rank sends an R-th of each to each that
 * holds it, and all start at once. `there`: what need not be put together; NULL: nothing. Adds to
 * port [R]; returns how many are. */
static int64_t add_pieces(const struct mt_cluster *cluster, const struct mt_placement *placement,
                          const struct mt_placement *there, struct mt_arena *scratch,
                          struct mt_port *port)
{
    const int n_rank = cluster->n_rank;
    const int64_t mark = mt_arena_mark(scratch);
    const int64_t piece_bytes = mt_ceil_div(cluster->expert_bytes, n_rank);
    int64_t *n_held = mt_arena_cut(scratch, n_rank * (int64_t)sizeof(*n_held));
    struct traffic all = {{0}, {0}};
    memset(n_held, 0, (size_t)n_rank * sizeof(*n_held));
    for (int e = 0; e < placement->n_expert; ++e) {
        for (int i = placement->instance_start[e]; i < placement->instance_start[e + 1]; ++i) {
            const int rank = placement->rank[i];
            n_held[rank] += there == NULL || mt_placement_find(there, e, rank) < 0 ? 1 : 0;
        }
    }
    for (int rank = 0; rank < n_rank; ++rank) {
        all.n_row[MT_LEVEL_NETWORK] += n_held[rank];
        all.n_message[MT_LEVEL_NETWORK] += n_held[rank] > 0 ? 1 : 0;
    }
    for (int rank = 0; rank < n_rank; ++rank) {
        const int node = cluster->node[rank];
        const int64_t n_near = cluster->node_start[node + 1] - cluster->node_start[node];
        struct traffic out = all;
        for (int at = cluster->node_start[node]; at < cluster->node_start[node + 1]; ++at) {
            const int64_t n = n_held[cluster->member[at]];
            const int64_t n_beside = cluster->member[at] == rank ? 0 : n;
            out.n_row[MT_LEVEL_NODE] += n_beside;
            out.n_message[MT_LEVEL_NODE] += n_beside > 0 ? 1 : 0;
            out.n_row[MT_LEVEL_NETWORK] -= n;
            out.n_message[MT_LEVEL_NETWORK] -= n > 0 ? 1 : 0;
        }
        const int64_t is_in = n_held[rank] > 0 ? 1 : 0;
        const struct traffic in = {
            {0, n_held[rank] * (n_near - 1), n_held[rank] * (n_rank - n_near)},
            {0, is_in * (n_near - 1), is_in * (n_rank - n_near)}};
        price_traffic(cluster, &out, piece_bytes, port[rank].out_ps);
        price_traffic(cluster, &in, piece_bytes, port[rank].in_ps);
    }
    mt_arena_release(scratch, mark);
    return all.n_row[MT_LEVEL_NETWORK];
}

/* What copies take on the links: port [R] is written. Returns how many travel. */
static int64_t add_copies(const struct mt_cluster *cluster, const struct mt_placement *placement,
                          const struct mt_placement *there, enum mt_spread_set set,
                          bool cuts_experts, struct mt_arena *scratch, struct mt_port *port)
{
    const int64_t mark = mt_arena_mark(scratch);
    int64_t n_copy = 0;
    memset(port, 0, (size_t)cluster->n_rank * sizeof(*port));
    if (cuts_experts) {
        n_copy = add_pieces(cluster, placement, there, scratch, port);
    } else {
        struct mt_spread spread;
        mt_spread_init(&spread, cluster, scratch);
        spread.there = there;
        n_copy = mt_spread_copies(&spread, placement, set, port);
    }
    mt_arena_release(scratch, mark);
    return n_copy;
}

/* Beyond attention, which in backward is twice as long, and where rows of the other half travel
 * too: early copies before forward; in backward all copies' gradients go back the way the copies
 * came, and the copies come again if they were dropped. Nothing hides gradients of what stayed from
 * the micro-batch before and is not wanted any more. *n_sent += copies and gradients that travel.
 */
static int64_t early_ps(const struct mt_cluster *cluster, const struct mt_placement *placement,
                        const struct mt_predict_options *options, int64_t way_ps,
                        struct mt_arena *scratch, int64_t *n_sent)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_rank = cluster->n_rank;
    const int64_t rows_ps = cluster->is_halved ? way_ps : 0; /* that travel there too */
    const int64_t attention_ps = mt_max_i64(0, cluster->costs.attention_ps - rows_ps);
    const int64_t twice_ps = mt_max_i64(0, mt_ps_times(2, cluster->costs.attention_ps) - rows_ps);
    const bool cuts = options->cuts_experts;
    struct mt_port *port = mt_arena_cut(scratch, n_rank * (int64_t)sizeof(*port));
    int64_t exposed_ps = 0;
    if (options->held != NULL) {
        *n_sent +=
            add_copies(cluster, options->held, placement, MT_SPREAD_ALL, cuts, scratch, port);
        exposed_ps = mt_port_busiest(port, n_rank);
    }
    *n_sent += add_copies(cluster, placement, options->held, MT_SPREAD_EARLY, cuts, scratch, port);
    const int64_t forward = mt_port_busiest(port, n_rank) - attention_ps;
    exposed_ps = mt_ps_add(exposed_ps, mt_max_i64(forward, 0));
    if (options->rematerialize || !options->is_followed) {
        const int64_t n = add_copies(cluster, placement, NULL, MT_SPREAD_ALL, cuts, scratch, port);
        *n_sent += options->rematerialize ? 2 * n : n;
        for (int rank = 0; rank < n_rank && options->rematerialize; ++rank) {
            for (int level = 0; level < MT_N_LEVEL; ++level) {
                const int64_t both = mt_ps_add(port[rank].in_ps[level], port[rank].out_ps[level]);
                port[rank].in_ps[level] = both;
                port[rank].out_ps[level] = both;
            }
        }
        const int64_t backward = mt_port_busiest(port, n_rank) - twice_ps;
        exposed_ps = mt_ps_add(exposed_ps, mt_max_i64(backward, 0));
    }
    mt_arena_release(scratch, mark);
    return exposed_ps;
}

/* Least possible for these rows and this traffic: both spread evenly over ranks. way_ps: as rows do
 * travel, which may be faster than straight. */
static int64_t ideal_ps(const struct mt_cluster *cluster, const struct work *work,
                        const struct mt_port *rows, int64_t way_ps)
{
    enum { PASSES = 3 };
    const int n_rank = cluster->n_rank;
    int64_t n_row = 0;
    int64_t n_instance = 0;
    int64_t busiest = 0;
    for (int rank = 0; rank < n_rank; ++rank) {
        n_row += work[rank].n_row;
        n_instance += work[rank].n_instance;
    }
    for (int level = 0; level < MT_N_LEVEL; ++level) {
        int64_t sum = 0;
        for (int rank = 0; rank < n_rank; ++rank) {
            sum = mt_ps_add(sum, rows[rank].out_ps[level]);
        }
        busiest = mt_max_i64(busiest, sum / n_rank);
    }
    const int64_t pass_ps = work_ps(&cluster->costs, n_row, n_instance) / n_rank;
    return mt_ps_add(mt_ps_times(PASSES, pass_ps),
                     mt_exchange_exposed_ps(cluster, mt_min_i64(busiest, way_ps), pass_ps));
}

/* Bytes of so many copies or gradients; of a cut expert a rank has its own piece already. */
static int64_t copy_bytes(const struct mt_cluster *cluster, int64_t n_sent, bool cuts_experts)
{
    const int64_t own = cuts_experts ? cluster->expert_bytes / cluster->n_rank : 0;
    return mt_ps_times(n_sent, cluster->expert_bytes - own);
}

void mt_predict(const struct mt_cluster *cluster, const struct mt_placement *placement,
                const int64_t *quota, const struct mt_predict_options *options,
                struct mt_arena *scratch, struct mt_prediction *prediction)
{
    enum { PASSES = 3 };
    const int64_t mark = mt_arena_mark(scratch);
    const int64_t n_rank = placement->n_rank;
    const int64_t port_bytes = n_rank * (int64_t)sizeof(struct mt_port);
    const int64_t word = (int64_t)sizeof(int64_t);
    const bool is_direct = mt_exchange_is_direct(cluster);
    const struct rows rows = {
        .port = mt_arena_cut(scratch, port_bytes),
        .of_instance = mt_arena_cut(scratch, mt_placement_n_instance(placement) * word),
        .matrix = is_direct ? NULL : mt_arena_cut(scratch, n_rank * n_rank * word)};
    struct mt_port *late = mt_arena_cut(scratch, port_bytes);
    struct work *work = mt_arena_cut(scratch, n_rank * (int64_t)sizeof(struct work));
    int64_t *arrival_ps = mt_arena_cut(scratch, n_rank * word);
    struct mt_spread spread;
    mt_spread_init(&spread, cluster, scratch);
    *prediction = (struct mt_prediction){0};
    count_rows(cluster, placement, quota, scratch, &rows, prediction);
    count_work(placement, rows.of_instance, work);
    for (int64_t rank = 0; rank < n_rank; ++rank) {
        prediction->n_row += work[rank].n_row;
        prediction->largest_row = mt_max_i64(prediction->largest_row, work[rank].n_row);
    }
    const int64_t way_ps = is_direct ? mt_port_busiest(rows.port, placement->n_rank)
                                     : mt_exchange_way_ps(cluster, rows.matrix, scratch);

    memset(late, 0, (size_t)port_bytes);
    prediction->n_late = mt_spread_copies(&spread, placement, MT_SPREAD_LATE, late);
    mt_spread_arrivals(&spread, placement, late, way_ps, arrival_ps);
    const int64_t slowest = experts_ps(cluster, work, arrival_ps, &prediction->compute_ps);
    prediction->exchange_ps =
        mt_exchange_exposed_ps(cluster, way_ps, prediction->compute_ps / PASSES);
    int64_t n_sent = prediction->n_late;
    const int64_t exposed_ps = early_ps(cluster, placement, options, way_ps, scratch, &n_sent);
    prediction->n_copy = mt_placement_n_instance(placement) - placement->n_expert;
    prediction->copy_bytes = copy_bytes(cluster, n_sent, options->cuts_experts);
    prediction->copies_ps = mt_ps_add(slowest - prediction->compute_ps, exposed_ps);
    prediction->total_ps = mt_ps_add(mt_ps_add(prediction->compute_ps, prediction->exchange_ps),
                                     prediction->copies_ps);
    prediction->ideal_ps = ideal_ps(cluster, work, rows.port, way_ps);
    mt_arena_release(scratch, mark);
}
