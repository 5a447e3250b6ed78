/* Times of the benchmark, and the bound that they are held against. */
#include "base/clock.h"
#include "base/size.h"
#include "base/sort.h"
#include "comm/bench_internal.h"

enum mt_status mt_bench_time(struct mt_comm *comm, enum mt_status (*run)(void *context),
                             void *context, int n_run, double *time_s,
                             struct mt_bench_sample *sample)
{
    int64_t nothing = 0;
    MT_TRY(mt_comm_sum_i64(comm, &nothing, 1));
    const int64_t start_ns = mt_clock_ns();
    const int64_t start_cpu_ns = mt_clock_cpu_ns();
    for (int i = 0; i < n_run; ++i) {
        MT_TRY(run(context));
    }
    const double per_run = 1e-9 / (double)n_run;
    const double mine = (double)(mt_clock_ns() - start_ns) * per_run;
    sample->busy_s = (double)(mt_clock_cpu_ns() - start_cpu_ns) * per_run;
    MT_TRY(mt_comm_gather_f64(comm, &mine, 1, time_s));
    MT_TRY(mt_comm_sum_f64(comm, &sample->busy_s, 1));
    sample->slowest_s = 0.0;
    for (int rank = 0; rank < comm->topology.n_rank; ++rank) {
        sample->slowest_s = time_s[rank] > sample->slowest_s ? time_s[rank] : sample->slowest_s;
    }
    return MT_OK;
}

struct mt_bench_sample mt_bench_typical(const struct mt_bench_sample *sample)
{
    double slowest_s[MT_BENCH_REPEAT];
    double busy_s[MT_BENCH_REPEAT];
    for (int i = 0; i < MT_BENCH_REPEAT; ++i) {
        slowest_s[i] = sample[i].slowest_s;
        busy_s[i] = sample[i].busy_s;
    }
    mt_sort_f64(slowest_s, MT_BENCH_REPEAT);
    mt_sort_f64(busy_s, MT_BENCH_REPEAT);
    return (struct mt_bench_sample){slowest_s[MT_BENCH_REPEAT / 4], busy_s[MT_BENCH_REPEAT / 4]};
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
