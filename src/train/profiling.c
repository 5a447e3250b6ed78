/* The recorder in a training run: its file, its clocks, and who asks for its last window. */
#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/size.h"
#include "train/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const int64_t NS_PER_S = 1000000000;

int64_t mt_profiling_bytes(const struct mt_config *config)
{
    return config->profile.enabled
               ? mt_record_bytes((int)config->model.num_layers, config->moe.num_experts) +
                     mt_profile_writer_bytes()
               : 0;
}

/* A fresh run in a used directory: profiles of another run, maybe of more ranks, go. */
static void remove_old(const char *folder)
{
    DIR *stream = opendir(folder);
    if (stream == NULL) {
        return;
    }
    for (const struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        if (mt_profile_is_rank_file(entry->d_name)) {
            (void)unlinkat(dirfd(stream), entry->d_name, 0);
        }
    }
    (void)closedir(stream);
}

static enum mt_status make_folder(const struct mt_trainer *trainer)
{
    const char *folder = trainer->dir.profile;
    if (mt_job_rank() != 0) {
        return MT_OK;
    }
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot make the folder %s: %s; expected a writable run directory; choose "
                       "another with --run-dir",
                       folder, strerror(errno));
    }
    if (trainer->state.step == 0) {
        remove_old(folder);
    }
    return MT_OK;
}

static int64_t read_clock(void *unused)
{
    MT_UNUSED(unused);
    return mt_clock_ns();
}

static enum mt_status init_clocks(struct mt_trainer *trainer)
{
    const struct mt_ping_clock clock = {.read = read_clock};
    struct mt_profiling *profiling = &trainer->profiling;
    struct mt_topology machine;
    MT_TRY(mt_topology_discover(&machine, mt_job_world(), 0));
    const enum mt_status status =
        mt_clocks_init(&profiling->clocks, &trainer->session.comm, machine.node, &clock);
    profiling->n_machine = machine.n_node;
    mt_topology_clear(&machine);
    return status;
}

/* Links are measured, nothing is trained: not recorded. */
static enum mt_status meet_clocks(struct mt_trainer *trainer)
{
    struct mt_profiling *profiling = &trainer->profiling;
    struct mt_profile_knot knot;
    mt_record_pause(true);
    mt_span_begin(MT_PHASE_METRICS);
    MT_TRY(mt_clocks_meet(&profiling->clocks, &knot, &profiling->error_ns));
    mt_span_end(MT_PHASE_METRICS);
    mt_record_pause(false);
    mt_profile_writer_clock(&profiling->writer, &knot);
    profiling->since_meeting_ns = 0;
    return MT_OK;
}

static enum mt_status open_file(struct mt_trainer *trainer, const int64_t *session)
{
    const struct mt_config *config = trainer->config;
    const struct mt_topology *topology = &trainer->session.comm.topology;
    const int rank = trainer->session.comm.rank;
    const struct mt_profile_header header = {
        .rank = rank,
        .n_rank = topology->n_rank,
        .node = topology->node[rank],
        .local_rank = topology->local[rank],
        .host = mt_job_host(),
        .run = config->run.name,
        .n_layer = (int)config->model.num_layers,
        .n_expert = config->moe.num_experts,
        .window = config->profile.window,
        .session_utc_ns = session[0],
        .session_origin_ns = session[1],
    };
    MT_TRY(mt_profile_writer_open(&trainer->profiling.writer, trainer->dir.profile,
                                  trainer->state.step > 0, &header, &config->profile.trace_steps));
    return mt_record_open(header.n_layer, header.n_expert);
}

/* The start by rank 0's two clocks. */
static enum mt_status agree_on_start(struct mt_trainer *trainer, int64_t *session)
{
    enum { N_ITEM = 2 };
    struct timespec now;
    int64_t *all = NULL;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    const int64_t mine[N_ITEM] = {(int64_t)now.tv_sec * NS_PER_S + now.tv_nsec, mt_clock_ns()};
    MT_TRY(mt_job_agree(
        MT_ALLOCATE(all, (int64_t)N_ITEM * trainer->session.comm.topology.n_rank, "start")));
    const enum mt_status status = mt_comm_gather_i64(&trainer->session.comm, mine, N_ITEM, all);
    memcpy(session, all, sizeof(mine));
    mt_memory_free(all);
    return status;
}

/* From the watchdog's thread or a failing end: what the rings still have. */
static void write_last_words(void *profiling)
{
    struct mt_profiling *p = profiling;
    mt_profile_writer_dump(&p->writer, p->writer.window);
}

enum mt_status mt_profiling_open(struct mt_trainer *trainer)
{
    struct mt_profiling *profiling = &trainer->profiling;
    int64_t session[2] = {0};
    profiling->writer.fd = -1;
    if (!trainer->config->profile.enabled) {
        return MT_OK;
    }
    MT_TRY(mt_job_agree(make_folder(trainer)));
    MT_TRY(agree_on_start(trainer, session));
    MT_TRY(mt_job_agree(open_file(trainer, session)));
    MT_TRY(mt_job_agree(init_clocks(trainer)));
    MT_TRY(mt_job_agree(mt_job_rank() == 0 ? mt_live_open(&profiling->live, mt_job_size(),
                                                          trainer->config->profile.window)
                                           : MT_OK));
    MT_TRY(meet_clocks(trainer));
    profiling->is_on = true;
    mt_job_set_last_words(write_last_words, profiling);
    if (profiling->n_machine > 1) {
        mt_log_line("clocks of %d machines agree to within %.1f us: waits below that are blamed on "
                    "nobody",
                    profiling->n_machine, (double)profiling->error_ns * 1e-3);
    }
    return MT_OK;
}

/* 20 round trips a machine, some 20 us each on a network: below 0.1 % of the time. */
static bool is_meeting_due(const struct mt_profiling *profiling)
{
    enum { LEAST_S = 30 };
    return profiling->n_machine > 1 &&
           profiling->since_meeting_ns > (LEAST_S + profiling->n_machine) * NS_PER_S;
}

enum mt_status mt_profiling_begin_step(struct mt_trainer *trainer)
{
    struct mt_profiling *profiling = &trainer->profiling;
    if (!profiling->is_on) {
        return MT_OK;
    }
    mt_record_step_close();
    if (trainer->state.step - 1 > trainer->first_step) {
        const int64_t step_ns = mt_metrics_step_ns(trainer); /* the same on all ranks */
        profiling->since_meeting_ns += step_ns;
        mt_profile_writer_step(&profiling->writer, step_ns);
    }
    if (is_meeting_due(profiling)) {
        MT_TRY(meet_clocks(trainer));
    }
    if (mt_job_dump_requested()) {
        mt_profile_writer_dump(&profiling->writer, trainer->config->profile.window);
        mt_log_line("profile: wrote the last %lld steps (SIGUSR2)",
                    (long long)mt_min_i64(trainer->config->profile.window, MT_RECORD_STEPS));
    }
    mt_record_step_begin(trainer->state.step);
    return MT_OK;
}

enum mt_status mt_profiling_finish(struct mt_trainer *trainer)
{
    if (!trainer->profiling.is_on) {
        return MT_OK;
    }
    mt_record_step_close();
    if (trainer->profiling.n_machine > 1) {
        MT_TRY(meet_clocks(trainer));
    }
    mt_profile_writer_finish(&trainer->profiling.writer);
    return MT_OK;
}

void mt_profiling_close(struct mt_trainer *trainer)
{
    struct mt_profiling *profiling = &trainer->profiling;
    if (profiling->is_on) {
        mt_job_set_last_words(NULL, NULL);
        mt_record_step_close();
        mt_profile_writer_dump(&profiling->writer, profiling->writer.window);
    }
    mt_profile_writer_close(&profiling->writer);
    mt_live_clear(&profiling->live);
    mt_clocks_clear(&profiling->clocks);
    mt_record_close();
    profiling->is_on = false;
}
