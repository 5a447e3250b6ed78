/* Traces of expert load around a run (data/trace.h): replayed as routing, or recorded from it. */
#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/internal.h"

#include <string.h>

static enum mt_status open_replay(struct mt_trainer *trainer)
{
    const struct mt_config *config = trainer->config;
    struct mt_traces *traces = &trainer->traces;
    MT_TRY(mt_trace_open(config->moe.trace, &traces->replay));
    MT_TRY(mt_trace_check_shape(traces->replay, traces->n_layer, config->moe.num_experts));
    const struct mt_trace_shape *shape = mt_trace_get_shape(traces->replay);
    return MT_ALLOCATE(traces->count, mt_trace_shape_n_value(shape), "counts of a trace");
}

/* Rank 0 writes; the steps that the run will make again are cut off. */
static enum mt_status open_record(struct mt_trainer *trainer)
{
    const struct mt_config *config = trainer->config;
    struct mt_traces *traces = &trainer->traces;
    const struct mt_trace_shape shape = {
        .n_micro = 1, .n_layer = traces->n_layer, .n_expert = (int)config->moe.num_experts};
    int *layer = NULL;
    if (trainer->session.comm.rank != 0) {
        return MT_OK;
    }
    MT_TRY(MT_ALLOCATE(layer, traces->n_layer, "layers of a trace"));
    for (int l = 0; l < traces->n_layer; l++) {
        layer[l] = traces->first_layer + l;
    }
    const enum mt_status status = mt_trace_writer_open(config->moe.trace, &shape, layer,
                                                       trainer->state.step, &traces->record);
    mt_memory_free(layer);
    return status;
}

enum mt_status mt_traces_open(struct mt_trainer *trainer)
{
    const struct mt_config *config = trainer->config;
    struct mt_traces *traces = &trainer->traces;
    traces->first_layer = (int)config->model.first_k_dense;
    traces->n_layer = (int)config->model.num_layers - traces->first_layer;
    if (config->moe.trace[0] == '\0' || traces->n_layer == 0) {
        return MT_OK;
    }
    return mt_job_agree(config->moe.routing == MT_ROUTING_REPLAY ? open_replay(trainer)
                                                                 : open_record(trainer));
}

void mt_traces_close(struct mt_trainer *trainer)
{
    struct mt_traces *traces = &trainer->traces;
    const enum mt_status status = mt_trace_writer_close(traces->record);
    if (status != MT_OK) {
        mt_log_line("the trace %s is not complete on disk", trainer->config->moe.trace);
    }
    mt_trace_close(traces->replay);
    mt_memory_free(traces->count);
    memset(traces, 0, sizeof(*traces));
}

/* The trace's steps in turn, from the first again after the last; micro-batches and sources of a
 * step are added up. */
enum mt_status mt_traces_begin_step(struct mt_trainer *trainer)
{
    struct mt_traces *traces = &trainer->traces;
    const int64_t n_expert = trainer->config->moe.num_experts;
    if (traces->replay == NULL) {
        return MT_OK;
    }
    const struct mt_trace_shape *shape = mt_trace_get_shape(traces->replay);
    const int64_t n_source = shape->n_source > 0 ? shape->n_source : 1;
    const int64_t index = (trainer->state.step - 1) % mt_trace_n_step(traces->replay);
    int64_t *sum = mt_moe_replay_counts(mt_model_moe(trainer->session.model));
    MT_TRY(mt_trace_read(traces->replay, index, traces->count));
    memset(sum, 0, (size_t)((traces->first_layer + traces->n_layer) * n_expert) * sizeof(*sum));
    for (int64_t row = 0; row < n_source * shape->n_micro * traces->n_layer; row++) {
        const int64_t layer = traces->first_layer + row / n_source % traces->n_layer;
        for (int64_t e = 0; e < n_expert; e++) {
            sum[layer * n_expert + e] += traces->count[row * n_expert + e];
        }
    }
    return MT_OK;
}

enum mt_status mt_traces_end_step(struct mt_trainer *trainer, const struct mt_step_result *result)
{
    struct mt_traces *traces = &trainer->traces;
    if (traces->record == NULL) {
        return MT_OK;
    }
    return mt_trace_writer_append(traces->record, trainer->state.step,
                                  result->moe.count +
                                      traces->first_layer * trainer->config->moe.num_experts);
}
