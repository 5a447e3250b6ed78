#include "train/bench_checkpoint.h"

#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"
#include "checkpoint/disk.h"
#include "train/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static const double NS_PER_S = 1e9;
enum { WARM_STEPS = 5, N_SPEED = 15, SLICE_BYTES = 1 << 20 };

/* Of one save on one rank, then of the slowest: only doubles, so that ranks can exchange it. */
struct sample {
    double blocked_s;                      /* the step loop */
    double with_s, without_s;              /* n_step steps with a save among them, without one */
    double cpu_s;                          /* of the writer thread */
    double plain_s, write_s;               /* plain write + fsync of a shard's bytes; the shard's */
    double stage_s, read_back_s, commit_s; /* before and after that */
    double save_s;                         /* from beginning to end, nothing else going on */
};
enum { N_ITEM = (int)(sizeof(struct sample) / sizeof(double)) };

struct bench {
    const struct mt_bench_checkpoint *order;
    struct mt_config *config;
    struct mt_trainer *trainer;
    char folder[MT_PATH_BYTES]; /* of saves */
    char plain[MT_PATH_BYTES];  /* this rank's file */
    char *bytes;                /* [n_own] of this rank's shard */
    int64_t n_own;
    double *all;                /* [R, N_ITEM] */
    double *column;             /* [saves] scratch */
    struct sample *under_steps; /* [n_save] */
    struct sample alone[N_SPEED];
    int64_t n_byte; /* of all shards */
};

/* ---- made and taken apart ---- */

static enum mt_status prepare(struct bench *b)
{
    const int64_t n_save = b->order->n_save;
    MT_TRY(MT_ALLOCATE(b->config, 1, "configuration"));
    *b->config = *b->order->config;
    b->config->checkpoint.async = true;
    b->config->checkpoint.interval = b->order->n_step;
    b->config->checkpoint.sparse_saves = 0; /* all saves of the same bytes */
    MT_TRY(MT_ALLOCATE(b->trainer, 1, "trainer"));
    MT_TRY(MT_ALLOCATE(b->all, (int64_t)mt_job_size() * N_ITEM, "times of ranks"));
    MT_TRY(MT_ALLOCATE(b->column, mt_max_i64(n_save, N_SPEED), "times"));
    MT_TRY(MT_ALLOCATE(b->under_steps, n_save, "times"));
    const int n = snprintf(b->folder, sizeof(b->folder), "%s/bench-checkpoint", b->config->run.dir);
    const int m = snprintf(b->plain, sizeof(b->plain), "%s/bench-plain-%05d", b->config->run.dir,
                           mt_job_rank());
    MT_ASSERT(n > 0 && m > 0);
    return n < MT_PATH_BYTES && m < MT_PATH_BYTES
               ? MT_OK
               : MT_FAIL(MT_ERR_CONFIG,
                         "the run directory's path is too long; below %d bytes were "
                         "expected; choose another with --run-dir",
                         MT_PATH_BYTES - 32);
}

/* Rank 0: the run directory is made where it is missing. */
static enum mt_status make_folder(const struct bench *b, bool *was_there)
{
    *was_there = access(b->config->run.dir, F_OK) == 0;
    if (access(b->folder, F_OK) == 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s is there already; the benchmark writes there and removes it; move it "
                       "away, or choose another --run-dir",
                       b->folder);
    }
    return mt_disk_make_folder(b->folder);
}

static enum mt_status open_all(struct bench *b)
{
    struct mt_trainer *trainer = b->trainer;
    (void)snprintf(trainer->dir.checkpoints, sizeof(trainer->dir.checkpoints), "%s", b->folder);
    MT_TRY(mt_bench_open(trainer, b->config, N_ITEM));
    return mt_saving_open(trainer, NULL);
}

/* ---- steps ---- */

/* The trainer's metrics gather, as far as saves need it. */
static enum mt_status meet(struct bench *b)
{
    struct mt_saver *saver = b->trainer->saving.saver;
    enum mt_save_signal signal = MT_SIGNAL_NONE;
    MT_TRY(mt_saver_signal(saver, &signal));
    int64_t n[2] = {signal != MT_SIGNAL_NONE, signal == MT_SIGNAL_FAILED};
    MT_TRY(mt_comm_sum_i64(&b->trainer->session.comm, n, 2));
    return mt_job_agree(mt_saver_advance(saver, (int)n[0], (int)n[1]));
}

static enum mt_status make_steps(struct bench *b, int64_t n_step)
{
    struct mt_trainer *trainer = b->trainer;
    for (int64_t i = 0; i < n_step; ++i) {
        struct mt_step_result result = {0};
        MT_TRY(mt_bench_begin_step(trainer));
        mt_bench_train_step(trainer, &result);
        MT_TRY(meet(b));
    }
    return MT_OK;
}

static double seconds_since(int64_t start_ns)
{
    return (double)(mt_clock_ns() - start_ns) / NS_PER_S;
}

/* Of every item the largest over ranks. */
static enum mt_status slowest(struct bench *b, struct sample *sample)
{
    struct mt_comm *comm = &b->trainer->session.comm;
    double most[N_ITEM] = {0};
    MT_TRY(mt_comm_gather_f64(comm, (const double *)sample, N_ITEM, b->all));
    for (int r = 0; r < comm->topology.n_rank; ++r) {
        for (int i = 0; i < N_ITEM; ++i) {
            most[i] = fmax(most[i], b->all[(int64_t)r * N_ITEM + i]);
        }
    }
    memcpy(sample, most, sizeof(most));
    return MT_OK;
}

/* The steps of one interval without a save, then of one with it. */
static enum mt_status measure_under_steps(struct bench *b, struct sample *sample)
{
    struct mt_saver *saver = b->trainer->saving.saver;
    int64_t start_ns = mt_clock_ns();
    MT_TRY(make_steps(b, b->order->n_step));
    sample->without_s = seconds_since(start_ns);
    const struct mt_saver_times before = *mt_saver_times(saver);
    start_ns = mt_clock_ns();
    MT_TRY(mt_save(b->trainer, false));
    MT_TRY(make_steps(b, b->order->n_step));
    MT_TRY(mt_job_agree(mt_saver_finish(saver))); /* too few steps for the disk */
    sample->with_s = seconds_since(start_ns);
    const struct mt_saver_times *after = mt_saver_times(saver);
    sample->blocked_s = (double)(after->blocked_ns - before.blocked_ns) / NS_PER_S;
    sample->cpu_s = (double)(after->cpu_ns - before.cpu_ns) / NS_PER_S;
    return slowest(b, sample);
}

/* ---- the disk ---- */

/* The bytes of the last saved shard: plain writing gets the same. */
static enum mt_status read_shard(struct bench *b)
{
    char path[MT_PATH_BYTES + 64];
    (void)snprintf(path, sizeof(path), "%s/shard-%05d-of-%05d.h5",
                   mt_saver_path(b->trainer->saving.saver), mt_job_rank(), mt_job_size());
    return mt_disk_read_file(path, INT64_MAX - 1, &b->bytes, &b->n_own);
}

static enum mt_status write_plainly(const struct bench *b)
{
    int descriptor = -1;
    enum mt_status status = MT_OK;
    MT_TRY(mt_disk_open_to_write(b->plain, true, &descriptor));
    for (int64_t done = 0; done < b->n_own && status == MT_OK; done += SLICE_BYTES) {
        status = mt_disk_write(descriptor, b->plain, done, b->bytes + done,
                               mt_min_i64(SLICE_BYTES, b->n_own - done));
    }
    return mt_disk_finish(descriptor, b->plain, status);
}

/* Who is measured pays for nobody else's bytes, and begins with the others. */
static enum mt_status settle(struct bench *b)
{
    int64_t nothing = 0;
    sync();
    return mt_comm_sum_i64(&b->trainer->session.comm, &nothing, 1);
}

/* All ranks at once, as they save. */
static enum mt_status measure_alone(struct bench *b, struct sample *sample)
{
    struct mt_trainer *trainer = b->trainer;
    const struct mt_saver_times *times = mt_saver_times(trainer->saving.saver);
    MT_TRY(settle(b));
    int64_t start_ns = mt_clock_ns();
    const enum mt_status status = write_plainly(b);
    sample->plain_s = seconds_since(start_ns);
    (void)unlink(b->plain);
    MT_TRY(mt_job_agree(status));
    trainer->state.step++;
    MT_TRY(settle(b));
    start_ns = mt_clock_ns();
    MT_TRY(mt_save(trainer, true));
    sample->save_s = seconds_since(start_ns);
    sample->stage_s = (double)times->stage_ns / NS_PER_S;
    sample->write_s = (double)times->write_ns / NS_PER_S;
    sample->read_back_s = (double)times->read_back_ns / NS_PER_S;
    sample->commit_s = (double)times->commit_ns / NS_PER_S;
    return slowest(b, sample);
}

static enum mt_status measure(struct bench *b)
{
    struct mt_comm *comm = &b->trainer->session.comm;
    MT_TRY(make_steps(b, WARM_STEPS));
    MT_TRY(mt_save(b->trainer, true)); /* staging memory becomes real */
    for (int64_t i = 0; i < b->order->n_save; ++i) {
        MT_TRY(measure_under_steps(b, &b->under_steps[i]));
    }
    MT_TRY(mt_job_agree(read_shard(b)));
    for (int i = 0; i < N_SPEED; ++i) {
        MT_TRY(measure_alone(b, &b->alone[i]));
    }
    b->n_byte = b->n_own;
    return mt_comm_sum_i64(comm, &b->n_byte, 1);
}

/* ---- the report ---- */

/* The value of which `share` of item's values in sample [n] are at most as large. */
static double quantile(const struct bench *b, const struct sample *sample, int64_t n,
                       size_t item_offset, double share)
{
    for (int64_t i = 0; i < n; ++i) {
        b->column[i] = *(const double *)((const char *)&sample[i] + item_offset);
    }
    mt_sort_f64(b->column, n);
    return b->column[mt_min_i64(n - 1, (int64_t)(share * (double)n))];
}

#define UNDER_STEPS(item, share) \
    quantile(b, b->under_steps, b->order->n_save, offsetof(struct sample, item), (share))
#define ALONE(item) quantile(b, b->alone, N_SPEED, offsetof(struct sample, item), 0.5)

static double sum_gbytes_per_s(const struct bench *b)
{
    const int64_t start_ns = mt_clock_ns();
    const volatile uint64_t sum = XXH3_64bits(b->bytes, (size_t)b->n_own);
    MT_UNUSED(sum);
    return (double)b->n_own / (double)(mt_clock_ns() - start_ns);
}

static void report_steps(const struct bench *b, FILE *out)
{
    const double with_s = UNDER_STEPS(with_s, 0.5);
    const double without_s = UNDER_STEPS(without_s, 0.5);
    const double blocked_s = UNDER_STEPS(blocked_s, 0.5);
    const double blocked_99_s = UNDER_STEPS(blocked_s, 0.99);
    const double cpu_s = UNDER_STEPS(cpu_s, 0.5);
    (void)fprintf(out, "\n%-46s %10s %10s\n", "under steps, the slowest rank", "median", "99 %");
    (void)fprintf(out, "%-46s %10.3f %10.3f\n", "step loop blocked by a save, ms", blocked_s * 1e3,
                  blocked_99_s * 1e3);
    (void)fprintf(out, "%-46s %10.4f %10.4f\n", "share of training time, %",
                  100 * blocked_s / without_s, 100 * blocked_99_s / without_s);
    (void)fprintf(out, "%-46s %10.3f %10.3f\n", "steps without a save, s", without_s,
                  UNDER_STEPS(without_s, 0.99));
    (void)fprintf(out, "%-46s %10.3f %10.3f\n", "steps with a save, s", with_s,
                  UNDER_STEPS(with_s, 0.99));
    (void)fprintf(out, "%-46s %10.3f %10.3f\n", "writer thread's processor time, ms", cpu_s * 1e3,
                  UNDER_STEPS(cpu_s, 0.99) * 1e3);
    (void)fprintf(out, "%-46s %10.4f\n", "share of training time, %", 100 * cpu_s / without_s);
}

static void report_disk(const struct bench *b, FILE *out)
{
    const double mbytes = (double)b->n_byte * 1e-6;
    const double plain_s = ALONE(plain_s);
    const double write_s = ALONE(write_s);
    const double save_s = ALONE(save_s);
    const int n_rank = b->trainer->session.comm.topology.n_rank;
    /* of pieces and file while copying, of the file when read back */
    const double sums_s = 3 * mbytes * 1e-3 / n_rank / sum_gbytes_per_s(b);
    (void)fprintf(out, "\n%-46s %10s %10s\n", "saves alone, all ranks, median", "MB/s", "ratio");
    (void)fprintf(out, "%-46s %10.1f\n", "plain write + fsync of the same bytes", mbytes / plain_s);
    (void)fprintf(out, "%-46s %10.1f %10.3f\n", "shards: write + fsync", mbytes / write_s,
                  plain_s / write_s);
    (void)fprintf(out, "%-46s %10.1f %10.3f\n", "whole save, read back and committed",
                  mbytes / save_s, plain_s / save_s);
    (void)fprintf(out, "\n%-46s %10s %10s\n", "of a whole save", "ms", "%");
    const struct {
        const char *name;
        double s;
    } row[] = {{"copied to staging memory, with checksums", ALONE(stage_s)},
               {"shard written and synced", write_s},
               {"shard read back", ALONE(read_back_s)},
               {"index, manifest, rename, old ones removed", ALONE(commit_s)},
               {"checksums, in these", sums_s}};
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); ++i) {
        (void)fprintf(out, "%-46s %10.3f %10.2f\n", row[i].name, row[i].s * 1e3,
                      100 * row[i].s / save_s);
    }
}

static void report(const struct bench *b, FILE *out)
{
    const int n_rank = b->trainer->session.comm.topology.n_rank;
    (void)fprintf(out, "checkpoints of %s on %d rank%s: %.2f MB, one in %lld steps, %lld saves\n",
                  b->config->run.name, n_rank, n_rank == 1 ? "" : "s", (double)b->n_byte * 1e-6,
                  (long long)b->order->n_step, (long long)b->order->n_save);
    report_steps(b, out);
    report_disk(b, out);
}

static enum mt_status run(struct bench *b, FILE *out)
{
    MT_TRY(open_all(b));
    MT_TRY(measure(b));
    if (mt_job_rank() == 0) {
        report(b, out);
    }
    return MT_OK;
}

static void clear(struct bench *b)
{
    if (b->trainer != NULL) {
        mt_saving_close(b->trainer);
    }
    mt_bench_close(b->trainer);
    mt_memory_free(b->config);
    mt_memory_free(b->bytes);
    mt_memory_free(b->all);
    mt_memory_free(b->column);
    mt_memory_free(b->under_steps);
    mt_memory_free(b);
}

enum mt_status mt_bench_checkpoint(const struct mt_bench_checkpoint *bench, FILE *out)
{
    struct bench *b = NULL;
    bool was_there = true;
    enum mt_status status = MT_OK;
    MT_ASSERT(bench->n_save >= 1 && bench->n_step >= 1);
    MT_TRY(mt_job_agree(MT_ALLOCATE(b, 1, "checkpoint benchmark")));
    b->order = bench;
    MT_TRY_GOTO(mt_job_agree(prepare(b)));
    MT_TRY_GOTO(mt_job_agree(mt_job_rank() == 0 ? make_folder(b, &was_there) : MT_OK));
    status = run(b, out);
    mt_saving_close(b->trainer); /* after a failure a writer may still be at it */
    if (mt_job_rank() == 0) {
        const enum mt_status removed = mt_disk_remove(b->folder);
        status = status == MT_OK ? removed : status;
    }
    status = mt_job_agree(status);
    if (!was_there) {
        (void)rmdir(b->config->run.dir);
    }
cleanup:
    clear(b);
    return status;
}
