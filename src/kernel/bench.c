#include "kernel/bench.h"

#include "base/clock.h"
#include "device/isa.h"
#include "kernel/bench_internal.h"

#include <string.h>

/* The largest case holds five tensors of 8192 x 1024. */
static const int64_t arena_bytes = (int64_t)192 << 20;

/* The best of five runs of about 20 ms each: other programs share the machine. */
enum { N_RUN = 5, RUN_NS = 20 * 1000 * 1000, MAX_REPEAT = 100000 };

static double time_ns(struct mt_device *device, mt_bench_fn run, void *context)
{
    run(device, context);
    int64_t start_ns = mt_clock_ns();
    run(device, context);
    const int64_t once_ns = mt_clock_ns() - start_ns;
    int64_t n_repeat = RUN_NS / (once_ns > 0 ? once_ns : 1);
    n_repeat = n_repeat < 1 ? 1 : n_repeat;
    n_repeat = n_repeat > MAX_REPEAT ? MAX_REPEAT : n_repeat;
    double best_ns = (double)once_ns;
    for (int i = 0; i < N_RUN; i++) {
        start_ns = mt_clock_ns();
        for (int64_t repeat = 0; repeat < n_repeat; repeat++) {
            run(device, context);
        }
        const double each_ns = (double)(mt_clock_ns() - start_ns) / (double)n_repeat;
        best_ns = each_ns < best_ns ? each_ns : best_ns;
    }
    return best_ns;
}

static void print_head(const struct mt_bench *bench)
{
    const double n_thread = (double)bench->device->n_thread;
    (void)fprintf(bench->out, "one core: %.1f GFLOP/s (%s, %s), copies %.1f GB/s; threads: %d\n",
                  bench->peak_gflops / n_thread, mt_isa_name(mt_isa_detect()),
                  bench->device->dtype == MT_BFLOAT16 ? "bfloat16" : "float32",
                  bench->copy_gbytes_per_s / n_thread, bench->device->n_thread);
    (void)fprintf(bench->out, "%-24s %-26s %10s %17s %5s\n", "operation", "shape", "time_us",
                  "rate", "share");
}

void mt_bench_line(struct mt_bench *bench, const char *name, const char *shape,
                   enum mt_bench_bound bound, double work, mt_bench_fn run, void *context)
{
    if (bench->only != NULL && strstr(name, bench->only) == NULL) {
        return;
    }
    if (bench->n_line++ == 0) {
        print_head(bench);
    }
    const double ns = time_ns(bench->device, run, context);
    const bool flops = bound == MT_BENCH_FLOPS;
    const double most = flops ? bench->peak_gflops : bench->copy_gbytes_per_s;
    (void)fprintf(bench->out, "%-24s %-26s %10.1f %9.1f %-7s %5.2f\n", name, shape, 1e-3 * ns,
                  work / ns, flops ? "GFLOP/s" : "GB/s", work / ns / most);
    (void)fflush(bench->out);
}

float *mt_bench_floats(struct mt_bench *bench, int64_t n)
{
    float *x = mt_arena_cut(&bench->arena, n * (int64_t)sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)i * 2654435761U >> 16;
        x[i] = (float)bits / 32768.0F - 1.0F;
    }
    return x;
}

enum mt_status mt_bench_kernels(struct mt_device *device, const char *only, FILE *out)
{
    struct mt_bench bench = {.device = device, .out = out, .only = only};
    bench.peak_gflops = mt_measure_peak_gflops(device->dtype) * device->n_thread;
    bench.copy_gbytes_per_s = mt_measure_copy_gbytes_per_s() * device->n_thread;
    MT_TRY(mt_arena_init(&bench.arena, arena_bytes, "kernel benchmark"));
    enum mt_status status = mt_bench_products(&bench);
    if (status == MT_OK) {
        status = mt_bench_experts(&bench);
    }
    if (status == MT_OK) {
        mt_bench_attention(&bench);
        mt_bench_rows(&bench);
        mt_bench_tokens(&bench);
    }
    mt_arena_clear(&bench.arena);
    if (status == MT_OK && bench.n_line == 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "--only %s: no operation has that in its name; expected one that the whole "
                       "table lists, e.g. --only attention",
                       only);
    }
    if (status == MT_OK) {
        (void)fprintf(out,
                      "share: of FLOPs at that rate, or of bytes at that bandwidth as if no cache "
                      "held any;\nwhere one holds them - weights that are packed again and again "
                      "- it may exceed 1\n");
    }
    return status;
}
