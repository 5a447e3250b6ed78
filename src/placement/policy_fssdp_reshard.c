/* Hecate's heterogeneous sharding: owners by history, every rank as many experts over the whole
 * model, any number of one layer.
 *
 * Layers by their largest expert load, largest first. In each the experts outside the t hottest, by
 * load, go to the least loaded node, then its least loaded rank (ties: fewer free slots); when all
 * layers have been through, the t hottest, which are materialised in any case, fill what is left,
 * the rank with most free slots first.
 *
 * Open in the paper: whether a rank's load accumulates over layers. Here it does not. Ranks meet in
 * every layer's exchange, so a layer lasts as long as its own hottest rank; a cold rank in the next
 * layer gives nothing back.
 *
 * "Only if it changes anything": taken if the largest loads of these colder experts, summed over
 * layers, fall by more than two percent; owners move with their optimizer state. */
#include "placement/fssdp.h"

#include "base/size.h"

#include <string.h>

enum { GAIN_PERCENT = 2 };

struct sharding {
    const struct mt_reshard_input *input;
    int t;
    int n_moe;          /* layers that count */
    int64_t *load;      /* [n_moe, E] */
    int *order;         /* [n_moe, E] experts by load */
    int *layer_order;   /* [n_moe] by largest load */
    int *n_free;        /* [R] experts that it may still own, over all layers */
    int64_t *rank_load; /* [R] of the layer */
    int64_t *node_load; /* [M] of the layer */
};

static void read_history(struct sharding *sharding, struct mt_arena *scratch)
{
    const int n_expert = sharding->input->n_expert;
    const int64_t mark = mt_arena_mark(scratch);
    int64_t *largest = mt_draft_cut(scratch, sharding->n_moe, sizeof(*largest));
    for (int i = 0; i < sharding->n_moe; ++i) {
        int64_t *load = &sharding->load[(int64_t)i * n_expert];
        int *order = &sharding->order[(int64_t)i * n_expert];
        (void)mt_load_of_layer(sharding->input->history, sharding->input->first_layer + i, load);
        mt_load_order(load, n_expert, scratch, order);
        largest[i] = load[order[0]];
    }
    mt_load_order(largest, sharding->n_moe, scratch, sharding->layer_order);
    mt_arena_release(scratch, mark);
}

static void clear_loads(struct sharding *sharding)
{
    const struct mt_cluster *cluster = sharding->input->cluster;
    memset(sharding->rank_load, 0, (size_t)cluster->n_rank * sizeof(*sharding->rank_load));
    memset(sharding->node_load, 0, (size_t)cluster->n_node * sizeof(*sharding->node_load));
}

/* Least loaded node that has room, its least loaded rank that has; ties: fewer free slots. Nodes
 * differ in size: a node's load is that of a rank of it on average. */
static int find_rank(const struct sharding *sharding)
{
    const struct mt_cluster *cluster = sharding->input->cluster;
    int best = -1;
    int best_node = -1;
    for (int i = 0; i < cluster->n_rank; ++i) {
        const int rank = cluster->member[i];
        const int node = cluster->node[rank];
        if (sharding->n_free[rank] == 0) {
            continue;
        }
        if (node != best_node) {
            const int64_t size = cluster->node_start[node + 1] - cluster->node_start[node];
            const int64_t best_size =
                best < 0 ? 1 : cluster->node_start[best_node + 1] - cluster->node_start[best_node];
            if (best < 0 ||
                sharding->node_load[node] * best_size < sharding->node_load[best_node] * size) {
                best = rank;
                best_node = node;
            }
            continue;
        }
        const int64_t hotter = sharding->rank_load[rank] - sharding->rank_load[best];
        if (hotter < 0 || (hotter == 0 && sharding->n_free[rank] < sharding->n_free[best])) {
            best = rank;
        }
    }
    MT_ASSERT(best >= 0); /* there are as many places as experts */
    return best;
}

static void shard_layer(struct sharding *sharding, int moe_layer, int *owner)
{
    const int n_expert = sharding->input->n_expert;
    const int64_t first = (int64_t)moe_layer * n_expert;
    clear_loads(sharding);
    for (int i = sharding->t; i < n_expert; ++i) {
        const int expert = sharding->order[first + i];
        const int rank = find_rank(sharding);
        owner[first + expert] = rank;
        --sharding->n_free[rank];
        sharding->rank_load[rank] += sharding->load[first + expert];
        sharding->node_load[sharding->input->cluster->node[rank]] += sharding->load[first + expert];
    }
}

static void fill_hottest(struct sharding *sharding, int *owner)
{
    const int n_expert = sharding->input->n_expert;
    for (int l = 0; l < sharding->n_moe; ++l) {
        const int64_t first = (int64_t)sharding->layer_order[l] * n_expert;
        for (int i = 0; i < sharding->t; ++i) {
            int best = 0;
            for (int rank = 1; rank < sharding->input->cluster->n_rank; ++rank) {
                best = sharding->n_free[rank] > sharding->n_free[best] ? rank : best;
            }
            owner[first + sharding->order[first + i]] = best;
            --sharding->n_free[best];
        }
    }
}

/* Sum over layers of the largest load of a rank, the t hottest experts left out. */
static int64_t price(struct sharding *sharding, const int *owner)
{
    const int n_expert = sharding->input->n_expert;
    int64_t sum = 0;
    for (int l = 0; l < sharding->n_moe; ++l) {
        const int64_t first = (int64_t)l * n_expert;
        int64_t largest = 0;
        clear_loads(sharding);
        for (int i = sharding->t; i < n_expert; ++i) {
            const int expert = sharding->order[first + i];
            int64_t *load = &sharding->rank_load[owner[first + expert]];
            *load += sharding->load[first + expert];
            largest = mt_max_i64(largest, *load);
        }
        sum += largest;
    }
    return sum;
}

void mt_policy_fssdp_reshard(const struct mt_reshard_input *input, struct mt_arena *scratch,
                             int *owner)
{
    const int64_t mark = mt_arena_mark(scratch);
    const struct mt_cluster *cluster = input->cluster;
    const int64_t n_moe = input->n_layer - input->first_layer;
    const int64_t n_pair = n_moe * input->n_expert;
    struct sharding sharding = {.input = input, .n_moe = (int)n_moe};
    int *now = &owner[(int64_t)input->first_layer * input->n_expert];
    int *wanted = mt_draft_cut(scratch, n_pair, sizeof(*wanted));
    sharding.t = mt_fssdp_overlap(cluster, input->overlap, input->n_expert);
    sharding.load = mt_draft_cut(scratch, n_pair, sizeof(*sharding.load));
    sharding.order = mt_draft_cut(scratch, n_pair, sizeof(*sharding.order));
    sharding.layer_order = mt_draft_cut(scratch, n_moe, sizeof(*sharding.layer_order));
    sharding.n_free = mt_draft_cut(scratch, cluster->n_rank, sizeof(*sharding.n_free));
    sharding.rank_load = mt_draft_cut(scratch, cluster->n_rank, sizeof(*sharding.rank_load));
    sharding.node_load = mt_draft_cut(scratch, cluster->n_node, sizeof(*sharding.node_load));
    const int64_t fair = mt_ceil_div(n_pair, cluster->n_rank);
    for (int rank = 0; rank < cluster->n_rank; ++rank) {
        sharding.n_free[rank] = (int)mt_min_i64(fair, input->capacity);
    }
    read_history(&sharding, scratch);
    for (int l = 0; l < sharding.n_moe; ++l) {
        shard_layer(&sharding, sharding.layer_order[l], wanted);
    }
    fill_hottest(&sharding, wanted);
    const int64_t before = price(&sharding, now);
    if (before - price(&sharding, wanted) > before / 100 * GAIN_PERCENT) {
        memcpy(now, wanted, (size_t)n_pair * sizeof(*now));
    }
    mt_arena_release(scratch, mark);
}
