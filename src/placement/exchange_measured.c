/* Prices of exchanges at the level at which they were timed. */
#include "base/ps.h"
#include "base/size.h"
#include "placement/exchange.h"

enum { WHOLE = 100 };
/* Close where a link's first bytes pass sooner than it can go on: half a millisecond of a gigabit
 * is 62 KB. */
static const int64_t timed_bytes[MT_N_EXCHANGE_SIZE] = {64, 1 << 10, 1 << 12, 1 << 14};
/* Fractions of a size, and of a load. */
enum { LOG_ONE = 8, ONE = 1 << LOG_ONE };

bool mt_exchange_is_measured(const struct mt_costs *costs)
{
    return costs->exchange_percent[0][0][0] > 0;
}

int64_t mt_exchange_timed_bytes(int size)
{
    return timed_bytes[size];
}

/* What the rows are like, by what crosses between nodes. */
struct likeness {
    int low;      /* the timed size below, or the first one */
    int64_t part; /* of the way to the next, of ONE */
    int64_t hot;  /* 0: even; ONE: as a hot rank has it */
};

/* n >= 1, in units of 1 / ONE; straight between powers of two. */
static int64_t logarithm(int64_t n)
{
    int power = 0;
    while (n >> (power + 1) > 0) {
        ++power;
    }
    const int64_t beyond = n - ((int64_t)1 << power);
    return (int64_t)power * ONE +
           (power >= LOG_ONE ? beyond >> (power - LOG_ONE) : beyond << (LOG_ONE - power));
}

static void place_size(int64_t n_bytes, struct likeness *like)
{
    like->low = 0;
    like->part = 0;
    while (like->low < MT_N_EXCHANGE_SIZE - 1 && timed_bytes[like->low + 1] <= n_bytes) {
        ++like->low;
    }
    if (n_bytes > timed_bytes[0] && like->low < MT_N_EXCHANGE_SIZE - 1) {
        const int64_t low = logarithm(timed_bytes[like->low]);
        const int64_t step = logarithm(timed_bytes[like->low + 1]) - low;
        like->part = (logarithm(n_bytes) - low) * ONE / step;
    }
}

static struct likeness likeness_of(const struct mt_cluster *cluster,
                                   const struct mt_exchange_rows *rows)
{
    const int n_rank = cluster->n_rank;
    int64_t n_all = 0;
    int64_t n_pair = 0;
    int64_t busiest = 0;
    struct likeness like = {0};
    for (int rank = 0; rank < n_rank; ++rank) {
        int64_t n_out = 0;
        int64_t n_in = 0;
        for (int peer = 0; peer < n_rank; ++peer) {
            if (cluster->node[rank] != cluster->node[peer]) {
                const int64_t n = rows->n_row[(int64_t)rank * n_rank + peer];
                n_out += n;
                n_in += rows->n_row[(int64_t)peer * n_rank + rank];
                n_pair += n > 0 ? 1 : 0;
            }
        }
        n_all += n_out;
        busiest = mt_max_i64(busiest, mt_max_i64(n_out, n_in));
    }
    if (n_all == 0) {
        return like;
    }
    const int64_t hottest = (int64_t)ONE * (mt_min_i64(MT_EXCHANGE_HOT_FACTOR, n_rank) - 1);
    const int64_t beyond = mt_ps_times(busiest, (int64_t)ONE * n_rank) / n_all - ONE;
    place_size(mt_ps_times(n_all, rows->row_bytes) / n_pair, &like);
    like.hot = mt_max_i64(0, mt_min_i64(beyond * ONE / hottest, ONE));
    return like;
}

static int64_t between(int64_t from, int64_t to, int64_t part)
{
    return (from * (ONE - part) + to * part + ONE / 2) / ONE;
}

int64_t mt_exchange_percent(const struct mt_cluster *cluster, enum mt_exchange_kind kind,
                            const struct mt_exchange_rows *rows)
{
    const int as = kind == MT_EXCHANGE_DEDUPLICATED ? MT_EXCHANGE_TWO_LEVEL : (int)kind;
    int64_t percent[MT_N_EXCHANGE_LOAD];
    if (!mt_exchange_is_measured(&cluster->costs)) {
        return WHOLE;
    }
    const struct likeness like = likeness_of(cluster, rows);
    const int high = like.low + (like.part > 0 ? 1 : 0);
    for (int load = 0; load < MT_N_EXCHANGE_LOAD; ++load) {
        const int64_t *of_size = cluster->costs.exchange_percent[load][as];
        percent[load] = between(of_size[like.low], of_size[high], like.part);
    }
    return between(percent[MT_EXCHANGE_EVEN], percent[MT_EXCHANGE_HOT], like.hot);
}

int64_t mt_exchange_both_ps(const struct mt_cluster *cluster, enum mt_exchange_kind kind,
                            const struct mt_exchange_rows *rows, struct mt_arena *scratch)
{
    const int64_t ps = mt_ps_add(mt_exchange_ps(cluster, kind, rows, false, scratch),
                                 mt_exchange_ps(cluster, kind, rows, true, scratch));
    const int64_t percent = mt_exchange_percent(cluster, kind, rows);
    return mt_ps_add(mt_ps_times(ps / WHOLE, percent), ps % WHOLE * percent / WHOLE);
}
