/* samples.jsonl: which sequences every step was trained on, as the ranks read them - where a sudden
 * loss comes from, and whether each sequence came once. One line a step:
 *
 *   {"step":7,"rank":[..],"source":[..],"window":[..],"first_token":[..]}
 *
 * with one number a sequence of the global batch: who read it, which source of data.train it came
 * from, its number there, and the first token that the model was given. */
#include "base/job.h"
#include "base/memory.h"
#include "train/internal.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

/* Rows of the table [N_ROW, global batch] that the ranks fill together; ranks add theirs up. */
enum { ROW_READS, ROW_RANK, ROW_SOURCE, ROW_WINDOW, ROW_TOKEN, N_ROW };
static const char *const names[N_ROW] = {NULL, "rank", "source", "window", "first_token"};

static int64_t n_sequence(const struct mt_trainer *trainer)
{
    return trainer->config->train.global_batch_size;
}

static int64_t *row(const struct mt_trainer *trainer, int index)
{
    return trainer->samples.table + index * n_sequence(trainer);
}

enum mt_status mt_samples_open(struct mt_trainer *trainer)
{
    struct mt_samples *samples = &trainer->samples;
    const char *path = trainer->dir.samples;
    if (!trainer->config->data.log_samples) {
        return MT_OK;
    }
    MT_TRY(MT_ALLOCATE(samples->table, N_ROW * n_sequence(trainer), "log of samples"));
    MT_TRY(mt_comm_reserve_small(&trainer->session.comm, N_ROW * n_sequence(trainer)));
    if (trainer->session.comm.rank != 0) {
        return MT_OK;
    }
    MT_TRY(mt_metrics_cut(path, trainer->state.step));
    samples->file = fopen(path, "a");
    return samples->file != NULL
               ? MT_OK
               : MT_FAIL(MT_ERR_RESOURCE,
                         "cannot write %s: %s; expected a writable run directory; choose another "
                         "with --run-dir, or leave data.log_samples out",
                         path, strerror(errno));
}

void mt_samples_close(struct mt_trainer *trainer)
{
    struct mt_samples *samples = &trainer->samples;
    if (samples->file != NULL) {
        (void)fclose(samples->file);
    }
    mt_memory_free(samples->table);
    memset(samples, 0, sizeof(*samples));
}

void mt_samples_note(struct mt_trainer *trainer, int64_t n)
{
    const struct mt_config *config = trainer->config;
    if (trainer->samples.table == NULL) {
        return;
    }
    for (int64_t i = 0; i < n; ++i) {
        int source = 0;
        int64_t window = 0;
        const int64_t at = trainer->sequence[i];
        mt_mixture_place(trainer->data, (uint64_t)config->run.seed,
                         trainer->state.next_sequence + at, &source, &window);
        row(trainer, ROW_READS)[at] = 1;
        row(trainer, ROW_RANK)[at] = trainer->session.comm.rank;
        row(trainer, ROW_SOURCE)[at] = source;
        row(trainer, ROW_WINDOW)[at] = window;
        row(trainer, ROW_TOKEN)[at] = trainer->token[i * config->model.max_seq_len];
    }
}

static json_t *line_of(const struct mt_trainer *trainer)
{
    json_t *line = json_object();
    (void)json_object_set_new(line, "step", json_integer((json_int_t)trainer->state.step));
    for (int r = ROW_RANK; r < N_ROW; ++r) {
        json_t *list = json_array();
        for (int64_t i = 0; i < n_sequence(trainer); ++i) {
            (void)json_array_append_new(list, json_integer((json_int_t)row(trainer, r)[i]));
        }
        (void)json_object_set_new(line, names[r], list);
    }
    return line;
}

enum mt_status mt_samples_end_step(struct mt_trainer *trainer)
{
    struct mt_samples *samples = &trainer->samples;
    const int64_t n_item = N_ROW * n_sequence(trainer);
    if (samples->table == NULL) {
        return MT_OK;
    }
    MT_TRY(mt_comm_sum_i64(&trainer->session.comm, samples->table, n_item));
    for (int64_t i = 0; i < n_sequence(trainer); ++i) {
        MT_ASSERT(row(trainer, ROW_READS)[i] == 1);
    }
    bool is_written = true;
    if (samples->file != NULL) {
        json_t *line = line_of(trainer);
        is_written = json_dumpf(line, samples->file, JSON_COMPACT) == 0 &&
                     fputc('\n', samples->file) != EOF && fflush(samples->file) == 0;
        json_decref(line);
    }
    memset(samples->table, 0, (size_t)n_item * sizeof(*samples->table));
    return is_written ? MT_OK
                      : MT_FAIL(MT_ERR_RESOURCE,
                                "cannot write %s: the disk may be full; expected space for one "
                                "line a step; free some and start again: the last checkpoint is "
                                "kept",
                                trainer->dir.samples);
}
