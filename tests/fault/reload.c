/* reload CONFIG CHECKPOINT FOLDER [KEY=VALUE..]: loads as a run that resumes does, on these ranks
 * and under this policy, and saves what it has loaded below FOLDER, without a step in between. Says
 * how much memory loading took at most beside the store, on the rank that took most. */
#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "config/load.h"
#include "train/internal.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>

static void connect_state(struct mt_trainer *trainer)
{
    int n = 0;
    mt_moe_state(mt_model_moe(trainer->session.model), trainer->state_array, &n);
    trainer->state_array[n++] =
        (struct mt_state_array){"costs", trainer->costs_state, MT_COSTS_STATE};
    trainer->state.n_array = n;
    trainer->state.array = trainer->state_array;
}

/* So that a load's first write to it takes no memory. */
static void make_resident(const struct mt_store *store)
{
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        const size_t n_byte = (size_t)part->n_element * sizeof(float);
        memset(part->value, 0, n_byte);
        memset(part->exp_avg, 0, n_byte);
        memset(part->exp_avg_sq, 0, n_byte);
    }
}

/* What is resident now; the peak begins again from there. */
static int64_t begin_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (file != NULL) {
        (void)fputs("5", file);
        (void)fclose(file);
    }
    return mt_memory_peak_resident_bytes();
}

static void tell_peak(int64_t before)
{
    const int64_t mine = mt_memory_peak_resident_bytes() - before;
    int64_t most = 0;
    (void)MPI_Reduce(&mine, &most, 1, MPI_INT64_T, MPI_MAX, 0, MPI_COMM_WORLD);
    if (mt_job_rank() == 0) {
        (void)printf("loading took %lld KiB\n", (long long)most / 1024);
    }
}

static enum mt_status reload(struct mt_trainer *trainer, const char *from, const char *to)
{
    bool is_finished = false;
    const struct mt_train_options options = {
        .config = trainer->config, .resume = MT_RESUME_PATH, .resume_path = from};
    const struct mt_checkpoint_options saving = {.folder = to, .config_text = "[run]\n"};
    MT_TRY(mt_trainer_open(trainer));
    connect_state(trainer);
    make_resident(trainer->session.store);
    const int64_t before = begin_peak();
    MT_TRY(mt_resume(trainer, &options, &is_finished));
    tell_peak(before);
    MT_TRY(mt_store_publish(trainer->session.store));
    mt_moe_write_state(mt_model_moe(trainer->session.model));
    return mt_job_agree(mt_checkpoint_save(trainer->session.store, &trainer->session.comm,
                                           &trainer->state, &saving, NULL));
}

int main(int argc, char **argv)
{
    static struct mt_config config;
    struct mt_trainer *trainer = NULL;
    enum mt_status status = MT_OK;
    if (mt_job_init(&argc, &argv) != MT_OK || argc < 4) {
        return mt_job_finish(MT_ERR_INTERNAL);
    }
    mt_log_init(mt_job_rank() == 0, true);
    MT_TRY_GOTO(mt_job_agree(
        mt_config_load(argv[1], argc - 4, (const char *const *)argv + 4, argv[3], &config)));
    MT_TRY_GOTO(mt_job_agree(MT_ALLOCATE(trainer, 1, "trainer")));
    trainer->config = &config;
    mt_run_dir_init(&trainer->dir, &config);
    status = reload(trainer, argv[2], argv[3]);
    mt_trainer_close(trainer);
    mt_memory_free(trainer);
cleanup:
    return mt_job_finish(status);
}
