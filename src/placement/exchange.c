#include "placement/exchange.h"

#include "base/ps.h"
#include "base/size.h"

const char *mt_exchange_name(enum mt_exchange_kind kind)
{
    static const char *const names[MT_N_EXCHANGE] = {"direct", "hierarchical", "leader",
                                                     "deduplicated"};
    MT_ASSERT(kind >= MT_EXCHANGE_DIRECT && kind < MT_N_EXCHANGE);
    return names[kind];
}

const char *mt_exchange_load_name(enum mt_exchange_load load)
{
    static const char *const names[MT_N_EXCHANGE_LOAD] = {"even", "hot"};
    MT_ASSERT(load >= MT_EXCHANGE_EVEN && load < MT_N_EXCHANGE_LOAD);
    return names[load];
}

enum mt_exchange_kind mt_exchange_choose(const struct mt_cluster *cluster,
                                         const struct mt_exchange_rows *rows, bool sums_may_differ,
                                         struct mt_arena *scratch)
{
    enum { SHARE = 16, MEASURED_SHARE = 64 };
    const int64_t share = mt_exchange_is_measured(&cluster->costs) ? MEASURED_SHARE : SHARE;
    enum mt_exchange_kind best = MT_EXCHANGE_DIRECT;
    int64_t least = 0;
    if (cluster->n_node == 1) {
        return MT_EXCHANGE_DIRECT; /* the others are the same then */
    }
    for (int i = 0; i < MT_N_EXCHANGE; ++i) {
        const enum mt_exchange_kind kind = (enum mt_exchange_kind)i;
        if (kind == MT_EXCHANGE_DEDUPLICATED && !sums_may_differ) {
            continue;
        }
        const int64_t ps = mt_exchange_both_ps(cluster, kind, rows, scratch);
        if (kind == MT_EXCHANGE_DIRECT || ps < least / share * (share - 1)) {
            best = kind;
            least = ps;
        }
    }
    return best;
}

void mt_exchange_describe(struct mt_cluster *cluster, const struct mt_config *config)
{
    static const enum mt_exchange_kind named[] = {
        [MT_COMM_A2A_AUTO] = MT_EXCHANGE_DIRECT,
        [MT_COMM_A2A_DIRECT] = MT_EXCHANGE_DIRECT,
        [MT_COMM_A2A_HIERARCHICAL] = MT_EXCHANGE_TWO_LEVEL,
        [MT_COMM_A2A_LEADER] = MT_EXCHANGE_LEADER,
        [MT_COMM_A2A_DEDUPLICATED] = MT_EXCHANGE_DEDUPLICATED};
    const bool has_choice = cluster->n_node > 1;
    cluster->exchange = has_choice ? named[config->comm.all_to_all] : MT_EXCHANGE_DIRECT;
    cluster->chooses_exchange = has_choice && config->comm.all_to_all == MT_COMM_A2A_AUTO;
    cluster->sums_may_differ = !config->comm.exact;
    cluster->top_k = config->moe.top_k;
}

bool mt_exchange_is_direct(const struct mt_cluster *cluster)
{
    return cluster->n_rank > MT_EXCHANGE_RANKS ||
           (cluster->exchange == MT_EXCHANGE_DIRECT && !cluster->chooses_exchange);
}

int64_t mt_exchange_way_ps(const struct mt_cluster *cluster, const int64_t *n_row,
                           struct mt_arena *scratch)
{
    const struct mt_exchange_rows rows = {
        .n_row = n_row, .row_bytes = cluster->row_bytes, .top_k = cluster->top_k};
    const enum mt_exchange_kind kind =
        cluster->chooses_exchange
            ? mt_exchange_choose(cluster, &rows, cluster->sums_may_differ, scratch)
            : cluster->exchange;
    return mt_exchange_both_ps(cluster, kind, &rows, scratch) / 2;
}

int64_t mt_exchange_exposed_ps(const struct mt_cluster *cluster, int64_t way_ps, int64_t experts_ps)
{
    enum { WAYS = 4, FORWARD = 1, BACKWARD = 2 };
    const int64_t above[] = {cluster->costs.attention_ps, experts_ps};
    int64_t exposed_ps = 0;
    if (!cluster->is_halved) {
        return mt_ps_times(WAYS, way_ps);
    }
    for (int i = 0; i < 2; ++i) {
        for (int pass = FORWARD; pass <= BACKWARD; ++pass) {
            const int64_t left_ps = way_ps - mt_ps_times(pass, above[i]);
            exposed_ps = mt_ps_add(exposed_ps, mt_max_i64(left_ps, 0));
        }
    }
    return exposed_ps;
}
