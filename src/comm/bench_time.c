/* Times of the benchmark, and the bound that they are held against. */
#include "base/size.h"
#include "comm/bench_internal.h"

struct mt_trial_sample mt_bench_typical(const struct mt_trial_sample *sample, int n)
{
    double slowest_s[MT_BENCH_MOST_REPEAT];
    double busy_s[MT_BENCH_MOST_REPEAT];
    for (int i = 0; i < n; ++i) {
        slowest_s[i] = sample[i].slowest_s;
        busy_s[i] = sample[i].busy_s;
    }
    return (struct mt_trial_sample){mt_trial_typical(slowest_s, n), mt_trial_typical(busy_s, n)};
}

enum mt_status mt_bench_most(struct mt_comm *comm, int64_t mine, double *scratch, int64_t *most,
                             int64_t *sum)
{
    const double value = (double)mine;
    MT_TRY(mt_comm_gather_f64(comm, &value, 1, scratch));
    *most = 0;
    *sum = 0;
    for (int rank = 0; rank < comm->topology.n_rank; ++rank) {
        *most = mt_max_i64(*most, (int64_t)scratch[rank]);
        *sum += (int64_t)scratch[rank];
    }
    return MT_OK;
}

double mt_bench_bound_s(const struct mt_bench_options *options, int64_t node_bytes, int k,
                        int64_t inside_bytes)
{
    static const double SECONDS_PER_PS = 1e-12;
    static const double KIB = 1024.0;
    const double between = node_bytes == 0 ? 0.0
                                           : (double)options->links.alpha_ps[MT_LINK_BETWEEN] +
                                                 (double)node_bytes / KIB / (double)k *
                                                     (double)options->links.kib_ps[MT_LINK_BETWEEN];
    const double inside = inside_bytes == 0 ? 0.0
                                            : (double)options->links.alpha_ps[MT_LINK_INSIDE] +
                                                  (double)inside_bytes / KIB *
                                                      (double)options->links.kib_ps[MT_LINK_INSIDE];
    return SECONDS_PER_PS * (between > inside ? between : inside);
}
