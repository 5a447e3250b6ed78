/* Hecate's fully sharded sparse data parallelism (arXiv 2502.02581): experts are fully sharded, and
 * materialised where the load is predicted to be.
 *
 *   before_gate   sparse materialization: the t hottest experts of the window's mean load share the
 *                 free slots. t, the overlap degree, is how many copies travel under attention:
 *                 t = T_nonMoE * bandwidth / expert_bytes.
 *   after_gate    calibration: the same with the exact counts and the slots that are left, taken
 *                 only if the layer is predicted to be faster with the exposed copies.
 *   reshard       policy_fssdp_reshard.c */
#include "placement/fssdp.h"

#include "base/size.h"
#include "placement/ports.h"
#include "placement/ps.h"
#include "placement/settle.h"

#include <string.h>

/* A largest load within this of the mean is even: copies would travel, and their gradients back,
 * for little. Drawing tokens alone gives 1.06 where a rank has a few hundred rows, and on 8 paced
 * ranks at skew 1.0 full slots cost a tenth of a step. */
enum { EVEN_PERCENT = 110 };

int mt_fssdp_overlap(const struct mt_cluster *cluster, int overlap, int n_expert)
{
    enum { KIB = 1024 };
    if (overlap >= 0) {
        return (int)mt_min_i64(overlap, n_expert);
    }
    const int64_t kib_ps = cluster->costs.kib_ps[mt_draft_level(cluster)];
    const int64_t expert_ps = mt_ps_times(cluster->expert_bytes, kib_ps) / KIB;
    return (int)(expert_ps == 0 ? n_expert
                                : mt_min_i64(cluster->costs.attention_ps / expert_ps, n_expert));
}

/* What the next copies are placed by. */
struct vacancy {
    const struct mt_cluster *cluster;
    struct mt_draft *draft;
    int *node_free;      /* [M] slots */
    int *n_on_node;      /* [M] instances of the expert being placed */
    int64_t *owned_load; /* [R] of experts that no copy relieves */
};

/* Whether copies go to node a before node b: the one that has not the expert, then the one with
 * more free slots, then the lower. */
static bool is_node_before(const struct vacancy *vacancy, int a, int b)
{
    const bool has_a = vacancy->n_on_node[a] > 0;
    const bool has_b = vacancy->n_on_node[b] > 0;
    const int freer = vacancy->node_free[a] - vacancy->node_free[b];
    return has_a != has_b ? has_b : freer != 0 ? freer > 0 : a < b;
}

/* In a node the rank with more free slots, then the one whose own experts are colder, then the
 * lower. The paper leaves the rank open: free slots keep the next expert's choice wide, and the
 * colder rank has more time. -1: none can take the expert. */
static int find_in_node(const struct vacancy *vacancy, int expert, int node)
{
    const struct mt_cluster *cluster = vacancy->cluster;
    int best = -1;
    for (int at = cluster->node_start[node]; at < cluster->node_start[node + 1]; ++at) {
        const int rank = cluster->member[at];
        if (!mt_draft_can(vacancy->draft, expert, rank)) {
            continue;
        }
        if (best >= 0) {
            const int freer = vacancy->draft->n_free[rank] - vacancy->draft->n_free[best];
            const int64_t hotter = vacancy->owned_load[rank] - vacancy->owned_load[best];
            if (freer != 0 ? freer < 0 : hotter >= 0) {
                continue;
            }
        }
        best = rank;
    }
    return best;
}

/* -1: no rank can take the expert. */
static int find_rank(const struct vacancy *vacancy, int expert)
{
    int best = -1;
    for (int node = 0; node < vacancy->cluster->n_node; ++node) {
        const int best_node = best < 0 ? -1 : vacancy->cluster->node[best];
        if (vacancy->node_free[node] > 0 &&
            (best < 0 || is_node_before(vacancy, node, best_node))) {
            const int rank = find_in_node(vacancy, expert, node);
            best = rank >= 0 ? rank : best;
        }
    }
    return best;
}

static void place(struct vacancy *vacancy, int expert, int64_t n_copy, enum mt_draft_mark mark)
{
    const struct mt_cluster *cluster = vacancy->cluster;
    memset(vacancy->n_on_node, 0, (size_t)cluster->n_node * sizeof(*vacancy->n_on_node));
    for (int rank = 0; rank < cluster->n_rank; ++rank) {
        vacancy->n_on_node[cluster->node[rank]] +=
            mt_draft_has(vacancy->draft, expert, rank) ? 1 : 0;
    }
    for (int64_t copy = 0; copy < n_copy; ++copy) {
        const int rank = find_rank(vacancy, expert);
        if (rank < 0) {
            break;
        }
        mt_draft_add(vacancy->draft, expert, rank, mark);
        --vacancy->node_free[cluster->node[rank]];
        ++vacancy->n_on_node[cluster->node[rank]];
    }
}

/* Memory allows all: each of the t hottest everywhere. */
static bool fits_everywhere(const struct mt_draft *draft, const int *order, int t)
{
    for (int rank = 0; rank < draft->cluster->n_rank; ++rank) {
        int n_missing = 0;
        for (int i = 0; i < t; ++i) {
            n_missing += mt_draft_has(draft, order[i], rank) ? 0 : 1;
        }
        if (n_missing > draft->n_free[rank]) {
            return false;
        }
    }
    return true;
}

/* Copies of the t hottest experts of load [E] (order [E]) into the free slots. Where they do not
 * all fit everywhere, an expert gets copies in proportion to its load, at least one, at most one
 * a rank; what rounding and that bound leave goes to the next. */
static void materialize(struct mt_draft *draft, const int64_t *load, const int *order, int t,
                        enum mt_draft_mark mark, struct mt_arena *scratch)
{
    const int64_t arena_mark = mt_arena_mark(scratch);
    const struct mt_cluster *cluster = draft->cluster;
    const bool is_everywhere = fits_everywhere(draft, order, t);
    struct vacancy vacancy = {.cluster = cluster, .draft = draft};
    int64_t pool = 0;
    int64_t left = 0;
    vacancy.node_free = mt_draft_cut(scratch, cluster->n_node, sizeof(*vacancy.node_free));
    vacancy.n_on_node = mt_draft_cut(scratch, cluster->n_node, sizeof(*vacancy.n_on_node));
    vacancy.owned_load = mt_draft_cut(scratch, cluster->n_rank, sizeof(*vacancy.owned_load));
    memset(vacancy.node_free, 0, (size_t)cluster->n_node * sizeof(*vacancy.node_free));
    memset(vacancy.owned_load, 0, (size_t)cluster->n_rank * sizeof(*vacancy.owned_load));
    for (int rank = 0; rank < cluster->n_rank; ++rank) {
        vacancy.node_free[cluster->node[rank]] += draft->n_free[rank];
        pool += mt_min_i64(draft->n_free[rank], t);
    }
    for (int i = 0; i < draft->n_expert; ++i) {
        if (i < t) {
            left += load[order[i]];
            pool += draft->n_instance[order[i]] - 1;
        } else {
            vacancy.owned_load[draft->owner[order[i]]] += load[order[i]];
        }
    }
    for (int i = 0; i < t && left > 0 && load[order[i]] > 0 && cluster->n_rank > 1; ++i) {
        const int expert = order[i];
        const int64_t most = cluster->n_rank - 1;
        const int64_t has = draft->n_instance[expert] - 1;
        const int64_t part = (load[expert] * mt_max_i64(pool, 0) + left / 2) / left;
        const int64_t wanted = is_everywhere ? most : mt_min_i64(mt_max_i64(part, 1), most);
        place(&vacancy, expert, wanted - has, mark);
        pool -= mt_max_i64(wanted, has);
        left -= load[expert];
    }
    mt_arena_release(scratch, arena_mark);
}

/* The owners alone are predicted to be even enough. */
static bool is_even_with_owners(const struct mt_placement *placement, const int64_t *load,
                                int64_t total, struct mt_arena *scratch)
{
    const int64_t mark = mt_arena_mark(scratch);
    int64_t largest = 0;
    int64_t *owned = mt_draft_cut(scratch, placement->n_rank, sizeof(*owned));
    memset(owned, 0, (size_t)placement->n_rank * sizeof(*owned));
    for (int e = 0; e < placement->n_expert; ++e) {
        owned[placement->owner[e]] += load[e];
        largest = mt_max_i64(largest, owned[placement->owner[e]]);
    }
    mt_arena_release(scratch, mark);
    return largest <= mt_ceil_div(total, placement->n_rank) * EVEN_PERCENT / 100;
}

void mt_policy_fssdp_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                 struct mt_placement *placement)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int t = mt_fssdp_overlap(input->cluster, input->overlap, input->n_expert);
    int64_t *load = mt_draft_cut(scratch, input->n_expert, sizeof(*load));
    int *order = mt_draft_cut(scratch, input->n_expert, sizeof(*order));
    struct mt_draft draft;
    const int64_t total = mt_load_of_history(input, load);
    mt_placement_owners_only(placement);
    if (!is_even_with_owners(placement, load, total, scratch)) {
        mt_load_order(load, input->n_expert, scratch, order);
        mt_draft_init(&draft, input, placement, scratch);
        materialize(&draft, load, order, t, MT_DRAFT_HERE, scratch);
        mt_draft_write(&draft, placement);
    }
    mt_arena_release(scratch, mark);
}

/* A rank's work in one pass. */
struct work {
    int64_t n_row, n_late_row;
};

/* The time of a layer as far as late copies change it: experts forward, where late rows wait for
 * their copies, and backward; rows there and back by the most loaded rank. largest: its load. */
static int64_t layer_ps(const struct mt_cluster *cluster, const struct mt_placement *placement,
                        const int64_t *total, struct mt_arena *scratch, int64_t *largest)
{
    enum { EXCHANGES = 4, BACKWARD = 2, KIB = 1024 };
    const int64_t mark = mt_arena_mark(scratch);
    const int n_rank = cluster->n_rank;
    const int n_instance = mt_placement_n_instance(placement);
    const int64_t kib_ps = cluster->costs.kib_ps[mt_draft_level(cluster)];
    int64_t *quota = mt_draft_cut(scratch, n_instance, sizeof(*quota));
    int64_t *arrival_ps = mt_draft_cut(scratch, n_rank, sizeof(*arrival_ps));
    struct mt_port *port = mt_draft_cut(scratch, n_rank, sizeof(*port));
    struct work *work = mt_draft_cut(scratch, n_rank, sizeof(*work));
    struct mt_spread spread;
    *largest = mt_settle(placement, total, scratch, quota);
    memset(port, 0, (size_t)n_rank * sizeof(*port));
    memset(work, 0, (size_t)n_rank * sizeof(*work));
    for (int i = 0; i < n_instance; ++i) {
        work[placement->rank[i]].n_row += quota[i];
        work[placement->rank[i]].n_late_row += placement->is_late[i] ? quota[i] : 0;
    }
    const int64_t bytes = mt_ps_times(*largest, cluster->row_bytes);
    const int64_t dispatch = mt_ps_times(bytes, kib_ps) / KIB;
    mt_spread_init(&spread, cluster, scratch);
    (void)mt_spread_copies(&spread, placement, MT_SPREAD_LATE, port);
    mt_spread_arrivals(&spread, placement, port, dispatch, arrival_ps);
    int64_t forward = 0;
    for (int rank = 0; rank < n_rank; ++rank) {
        const int64_t all = mt_ps_times(work[rank].n_row, cluster->costs.row_ps);
        const int64_t late = mt_ps_times(work[rank].n_late_row, cluster->costs.row_ps);
        const int64_t wait = late > 0 ? mt_ps_add(arrival_ps[rank], late) : 0;
        forward = mt_max_i64(forward, mt_max_i64(all, wait));
    }
    const int64_t backward = mt_ps_times(BACKWARD, mt_ps_times(*largest, cluster->costs.row_ps));
    mt_arena_release(scratch, mark);
    return mt_ps_add(mt_ps_add(forward, backward), mt_ps_times(EXCHANGES, dispatch));
}

/* The paper leaves open how many experts calibration looks at, since nothing hides their copies:
 * 1, 2, 4 ... hottest are tried, and the fastest prediction is taken. */
void mt_policy_fssdp_after_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                struct mt_placement *placement)
{
    const int n_expert = input->n_expert;
    const int n_rank = placement->n_rank;
    const int64_t mark = mt_arena_mark(scratch);
    int64_t *load = mt_draft_cut(scratch, n_expert, sizeof(*load));
    int *order = mt_draft_cut(scratch, n_expert, sizeof(*order));
    int64_t largest = 0;
    struct mt_draft planned;
    struct mt_draft trial;
    struct mt_draft best;
    const int64_t total = mt_load_of_counts(input, load);
    if (input->calibrate && input->slots > 0 && total > 0) {
        int64_t best_ps = layer_ps(input->cluster, placement, load, scratch, &largest);
        const bool is_even = largest <= mt_ceil_div(total, n_rank) * EVEN_PERCENT / 100;
        mt_load_order(load, n_expert, scratch, order);
        mt_draft_init(&planned, input, placement, scratch);
        mt_draft_init(&trial, input, placement, scratch);
        mt_draft_init(&best, input, placement, scratch);
        for (int64_t t = 1; t < 2 * (int64_t)n_expert && !is_even; t *= 2) {
            mt_draft_copy(&trial, &planned);
            materialize(&trial, load, order, (int)mt_min_i64(t, n_expert), MT_DRAFT_LATE, scratch);
            mt_draft_write(&trial, placement);
            const int64_t ps = layer_ps(input->cluster, placement, load, scratch, &largest);
            if (ps < best_ps) {
                best_ps = ps;
                mt_draft_copy(&best, &trial);
            }
        }
        mt_draft_write(&best, placement);
    }
    mt_arena_release(scratch, mark);
}
