#include "base/record.h"

#include "base/memory.h"
#include "base/size.h"

#include <string.h>
#include <sys/resource.h>

/* Entry i of a ring is at i modulo its size; n counts all entries ever made. */
static struct {
    bool is_on, is_paused, is_in_step;
    int n_layer;
    int layer, micro;
    struct mt_recorded_span *span;       /* [MT_RECORD_SPANS] */
    struct mt_recorded_arrival *arrival; /* [MT_RECORD_ARRIVALS] */
    struct mt_recorded_step *step;       /* [MT_RECORD_STEPS] */
    int64_t *rows, *expert_ns;           /* [MT_RECORD_STEPS, n_layer] */
    int64_t *rows_now, *expert_ns_now;   /* [n_layer] of the step under way */
    int64_t n_expert, n_ended;           /* n_ended: steps that expert_rows has */
    int64_t *expert_rows;                /* [n_layer, n_expert] */
    int64_t *expert_rows_now;            /* the same of the step under way */
    int64_t n_span, n_arrival, n_step;
    int64_t n_token;
    struct mt_span_totals at_end; /* of the step that is over but not closed */
    int64_t since_ns[MT_N_PHASE]; /* busy since the last arrival */
    int n_kind;
    const char *kind[MT_RECORD_KINDS];
} record = {.layer = -1, .micro = -1};

int64_t mt_record_bytes(int n_layer, int64_t n_expert)
{
    const int64_t by_layer = 2 * (int64_t)sizeof(int64_t) * n_layer;
    return MT_RECORD_SPANS * (int64_t)sizeof(struct mt_recorded_span) +
           MT_RECORD_ARRIVALS * (int64_t)sizeof(struct mt_recorded_arrival) +
           MT_RECORD_STEPS * ((int64_t)sizeof(struct mt_recorded_step) + by_layer) +
           by_layer * (1 + n_expert);
}

enum mt_status mt_record_open(int n_layer, int64_t n_expert)
{
    static const char what[] = "rings of the recorder";
    enum mt_status status = MT_OK;
    MT_ASSERT(!record.is_on);
    record.n_layer = n_layer;
    record.n_expert = n_expert;
    MT_TRY_GOTO(MT_ALLOCATE(record.span, MT_RECORD_SPANS, what));
    MT_TRY_GOTO(MT_ALLOCATE(record.arrival, MT_RECORD_ARRIVALS, what));
    MT_TRY_GOTO(MT_ALLOCATE(record.step, MT_RECORD_STEPS, what));
    MT_TRY_GOTO(MT_ALLOCATE(record.rows, (int64_t)MT_RECORD_STEPS * n_layer, what));
    MT_TRY_GOTO(MT_ALLOCATE(record.expert_ns, (int64_t)MT_RECORD_STEPS * n_layer, what));
    MT_TRY_GOTO(MT_ALLOCATE(record.rows_now, n_layer, what));
    MT_TRY_GOTO(MT_ALLOCATE(record.expert_ns_now, n_layer, what));
    MT_TRY_GOTO(MT_ALLOCATE(record.expert_rows, n_layer * n_expert, what));
    MT_TRY_GOTO(MT_ALLOCATE(record.expert_rows_now, n_layer * n_expert, what));
    record.is_on = true;
    return MT_OK;
cleanup:
    mt_record_close();
    return status;
}

void mt_record_close(void)
{
    mt_memory_free(record.expert_rows_now);
    mt_memory_free(record.expert_rows);
    mt_memory_free(record.expert_ns_now);
    mt_memory_free(record.rows_now);
    mt_memory_free(record.expert_ns);
    mt_memory_free(record.rows);
    mt_memory_free(record.step);
    mt_memory_free(record.arrival);
    mt_memory_free(record.span);
    memset(&record, 0, sizeof(record));
    record.layer = -1;
    record.micro = -1;
}

bool mt_record_is_on(void)
{
    return record.is_on;
}

void mt_record_pause(bool is_paused)
{
    record.is_paused = is_paused;
}

void mt_record_set_layer(int layer)
{
    record.layer = layer;
}

void mt_record_set_micro(int micro)
{
    record.micro = micro;
}

static bool has_layer(int layer)
{
    return layer >= 0 && layer < record.n_layer;
}

void mt_record_add_rows(int expert, int64_t rows)
{
    mt_span_add_work(rows, 0);
    if (has_layer(record.layer)) {
        MT_ASSERT(expert >= 0 && expert < record.n_expert);
        record.rows_now[record.layer] += rows;
        record.expert_rows_now[record.layer * record.n_expert + expert] += rows;
    }
}

void mt_record_add_tokens(int64_t n_token)
{
    record.n_token += n_token;
}

/* ---- arrivals ---- */

/* Names are literals and few: the same pointer is the same kind. */
static int find_kind(const char *name)
{
    for (int i = 0; i < record.n_kind; ++i) {
        if (record.kind[i] == name) {
            return i;
        }
    }
    for (int i = 0; i < record.n_kind; ++i) {
        if (strcmp(record.kind[i], name) == 0) {
            return i;
        }
    }
    MT_ASSERT(record.n_kind < MT_RECORD_KINDS);
    record.kind[record.n_kind] = name;
    return record.n_kind++;
}

/* Where this rank was longest since the last arrival; starts anew. */
static enum mt_phase take_busiest(void)
{
    enum mt_phase busiest = MT_N_PHASE;
    int64_t most_ns = 0;
    for (int p = 0; p < MT_N_PHASE; ++p) {
        if (record.since_ns[p] > most_ns) {
            most_ns = record.since_ns[p];
            busiest = (enum mt_phase)p;
        }
        record.since_ns[p] = 0;
    }
    return busiest;
}

int64_t mt_record_arrive(const struct mt_collective_facts *facts)
{
    if (!record.is_on || record.is_paused) {
        return -1;
    }
    const int64_t handle = record.n_arrival++;
    mt_span_add_work(0, facts->n_bytes);
    const int64_t now_ns = mt_span_charge();
    record.arrival[handle % MT_RECORD_ARRIVALS] =
        (struct mt_recorded_arrival){.number = facts->number,
                                     .begin_ns = now_ns,
                                     .n_bytes = facts->n_bytes,
                                     .sources = facts->sources,
                                     .n_source = (int16_t)facts->n_source,
                                     .kind = (int16_t)find_kind(facts->name),
                                     .last_peer = -1,
                                     .layer = record.layer,
                                     .micro = record.micro,
                                     .phase = (uint8_t)mt_span_phase(),
                                     .busy_phase = MT_N_PHASE};
    if (!facts->is_of_device) {
        record.arrival[handle % MT_RECORD_ARRIVALS].busy_phase = (uint8_t)take_busiest();
    }
    return handle;
}

/* NULL: it is not recorded, or the ring has forgotten it. */
static struct mt_recorded_arrival *find_arrival(int64_t handle)
{
    if (handle < 0 || handle >= record.n_arrival ||
        record.n_arrival - handle > MT_RECORD_ARRIVALS) {
        return NULL;
    }
    return &record.arrival[handle % MT_RECORD_ARRIVALS];
}

void mt_record_done(int64_t handle)
{
    struct mt_recorded_arrival *arrival = find_arrival(handle);
    if (arrival != NULL) {
        arrival->done_ns = mt_clock_ns();
    }
}

/* Called by every poll in vain: reads the clock only when the peer is another one. */
void mt_record_last(int64_t handle, int peer)
{
    struct mt_recorded_arrival *arrival = find_arrival(handle);
    if (arrival != NULL && arrival->last_peer != peer) {
        arrival->last_peer = peer;
        arrival->last_ns = mt_clock_ns();
    }
}

void mt_record_need(int64_t handle, int64_t need_ns)
{
    struct mt_recorded_arrival *arrival = find_arrival(handle);
    if (arrival != NULL) {
        arrival->need_ns = need_ns;
    }
}

/* ---- spans ---- */

static enum mt_track track_of(enum mt_phase phase)
{
    switch (phase) {
    case MT_PHASE_DATA:
        return MT_TRACK_DATA;
    case MT_PHASE_CHECKPOINT:
        return MT_TRACK_CHECKPOINT;
    default:
        return MT_TRACK_COMPUTE;
    }
}

/* Neighbours of one kind become one: a layer's backward opens the same phase several times. */
static bool extends_last(enum mt_phase phase, int64_t begin_ns)
{
    enum { GAP_NS = 2000 };
    if (record.n_span == 0) {
        return false;
    }
    const struct mt_recorded_span *last = &record.span[(record.n_span - 1) % MT_RECORD_SPANS];
    return last->track != MT_TRACK_DEVICE && last->phase == phase && last->layer == record.layer &&
           last->micro == record.micro && begin_ns >= last->end_ns &&
           begin_ns - last->end_ns < GAP_NS;
}

void mt_record_span(enum mt_phase phase, int64_t begin_ns, int64_t end_ns, int64_t rows,
                    int64_t n_bytes)
{
    if (!record.is_on || record.is_paused) {
        return;
    }
    if (extends_last(phase, begin_ns)) {
        struct mt_recorded_span *last = &record.span[(record.n_span - 1) % MT_RECORD_SPANS];
        last->end_ns = end_ns;
        last->rows += rows;
        last->n_bytes += n_bytes;
        return;
    }
    record.span[record.n_span++ % MT_RECORD_SPANS] =
        (struct mt_recorded_span){.begin_ns = begin_ns,
                                  .end_ns = end_ns,
                                  .rows = rows,
                                  .n_bytes = n_bytes,
                                  .layer = record.layer,
                                  .micro = record.micro,
                                  .phase = (uint8_t)phase,
                                  .track = (uint8_t)track_of(phase)};
}

int64_t mt_record_device_begin(enum mt_phase phase, int64_t rows, int64_t n_bytes)
{
    if (!record.is_on || record.is_paused) {
        return -1;
    }
    record.span[record.n_span % MT_RECORD_SPANS] =
        (struct mt_recorded_span){.rows = rows,
                                  .n_bytes = n_bytes,
                                  .layer = record.layer,
                                  .micro = record.micro,
                                  .phase = (uint8_t)phase,
                                  .track = MT_TRACK_DEVICE};
    return record.n_span++;
}

void mt_record_device_end(int64_t handle, int64_t begin_ns, int64_t end_ns)
{
    MT_ASSERT(begin_ns <= end_ns);
    if (record.is_on && handle >= 0 && mt_record_span_at(handle) != NULL) {
        struct mt_recorded_span *span = &record.span[handle % MT_RECORD_SPANS];
        MT_ASSERT(span->track == MT_TRACK_DEVICE);
        span->begin_ns = begin_ns;
        span->end_ns = end_ns;
    }
}

void mt_record_device_arrive(int64_t handle, int64_t begin_ns)
{
    struct mt_recorded_arrival *arrival = find_arrival(handle);
    if (arrival != NULL) {
        arrival->begin_ns = begin_ns;
        arrival->busy_phase = (uint8_t)take_busiest();
        arrival->is_of_device = true;
    }
}

void mt_record_device_done(int64_t handle, int64_t need_ns, int64_t done_ns)
{
    struct mt_recorded_arrival *arrival = find_arrival(handle);
    if (arrival != NULL) {
        arrival->need_ns = need_ns;
        arrival->done_ns = done_ns;
    }
}

int mt_record_layer(void)
{
    return record.layer;
}

int mt_record_micro(void)
{
    return record.micro;
}

void mt_record_charge_at(enum mt_phase phase, int layer, int64_t ns)
{
    if (!record.is_on) {
        return;
    }
    record.since_ns[phase] += ns;
    if ((phase == MT_PHASE_EXPERT || phase == MT_PHASE_EXPERT_BACKWARD) && has_layer(layer)) {
        record.expert_ns_now[layer] += ns;
    }
}

void mt_record_charge(enum mt_phase phase, int64_t ns)
{
    mt_record_charge_at(phase, record.layer, ns);
}

/* ---- steps ---- */

static struct mt_recorded_step *newest_step(void)
{
    return &record.step[(record.n_step - 1) % MT_RECORD_STEPS];
}

void mt_record_device_error(int64_t error_ns)
{
    if (record.is_on && record.n_step > 0) {
        struct mt_recorded_step *step = newest_step();
        step->device_error_ns = mt_max_i64(step->device_error_ns, error_ns);
    }
}

static int64_t peak_bytes(void)
{
    enum { BYTES_PER_KB = 1024 };
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss * BYTES_PER_KB : 0;
}

void mt_record_step_begin(int64_t number)
{
    if (!record.is_on) {
        return;
    }
    mt_record_step_close();
    record.step[record.n_step++ % MT_RECORD_STEPS] =
        (struct mt_recorded_step){.number = number,
                                  .begin_ns = mt_clock_ns(),
                                  .first_arrival = record.n_arrival,
                                  .first_span = record.n_span};
    const size_t bytes = (size_t)record.n_layer * sizeof(int64_t);
    memset(record.rows_now, 0, bytes);
    memset(record.expert_ns_now, 0, bytes);
    memset(record.expert_rows_now, 0, bytes * (size_t)record.n_expert);
    record.n_token = 0;
    record.is_in_step = true;
}

void mt_record_step_end(void)
{
    if (!record.is_on || !record.is_in_step) {
        return;
    }
    struct mt_recorded_step *step = newest_step();
    const int64_t row = (record.n_step - 1) % MT_RECORD_STEPS * record.n_layer;
    const size_t bytes = (size_t)record.n_layer * sizeof(int64_t);
    mt_span_totals(&record.at_end);
    step->end_ns = mt_clock_ns();
    memcpy(step->phase_ns, record.at_end.phase_ns, sizeof(step->phase_ns));
    memcpy(step->wait_ns, record.at_end.wait_ns, sizeof(step->wait_ns));
    memcpy(record.rows + row, record.rows_now, bytes);
    memcpy(record.expert_ns + row, record.expert_ns_now, bytes);
    for (int64_t i = 0; i < record.n_layer * record.n_expert; ++i) {
        record.expert_rows[i] += record.expert_rows_now[i];
    }
    ++record.n_ended;
    step->n_token = record.n_token;
    step->memory_bytes = peak_bytes();
}

/* What an evaluation or a save computes in other phases is the evaluation's and the save's. */
static enum mt_phase phase_between_steps(enum mt_phase phase)
{
    return phase == MT_PHASE_CHECKPOINT || phase == MT_PHASE_METRICS ? phase : MT_PHASE_EVAL;
}

void mt_record_step_close(void)
{
    if (!record.is_on || !record.is_in_step) {
        return;
    }
    struct mt_recorded_step *step = newest_step();
    struct mt_span_totals now;
    mt_span_totals(&now);
    step->until_ns = mt_clock_ns();
    if (step->end_ns == 0) { /* the step failed */
        step->end_ns = step->until_ns;
    }
    for (int p = 0; p < MT_N_PHASE; ++p) {
        const enum mt_phase to = phase_between_steps((enum mt_phase)p);
        step->phase_ns[to] += now.phase_ns[p] - record.at_end.phase_ns[p];
        step->wait_ns[to] += now.wait_ns[p] - record.at_end.wait_ns[p];
    }
    step->end_arrival = record.n_arrival;
    step->end_span = record.n_span;
    record.at_end = (struct mt_span_totals){0};
    record.is_in_step = false;
}

/* ---- reading ---- */

int64_t mt_record_n_step(void)
{
    return record.n_step - (record.is_in_step ? 1 : 0);
}

int64_t mt_record_first_step(void)
{
    return mt_max_i64(0, record.n_step - MT_RECORD_STEPS);
}

struct mt_recorded_step *mt_record_step(int64_t position)
{
    MT_ASSERT(position >= mt_record_first_step() && position < record.n_step);
    return &record.step[position % MT_RECORD_STEPS];
}

const int64_t *mt_record_rows(int64_t position)
{
    return record.rows + position % MT_RECORD_STEPS * record.n_layer;
}

const int64_t *mt_record_expert_ns(int64_t position)
{
    return record.expert_ns + position % MT_RECORD_STEPS * record.n_layer;
}

const int64_t *mt_record_expert_rows(int64_t *n_step)
{
    *n_step = record.n_ended;
    return record.expert_rows;
}

int64_t mt_record_n_expert(void)
{
    return record.n_expert;
}

int mt_record_n_layer(void)
{
    return record.n_layer;
}

const struct mt_recorded_span *mt_record_span_at(int64_t position)
{
    const bool is_kept = position < record.n_span && record.n_span - position <= MT_RECORD_SPANS;
    return is_kept ? &record.span[position % MT_RECORD_SPANS] : NULL;
}

const struct mt_recorded_arrival *mt_record_arrival_at(int64_t position)
{
    return find_arrival(position);
}

int mt_record_n_kind(void)
{
    return record.n_kind;
}

const char *mt_record_kind(int kind)
{
    MT_ASSERT(kind >= 0 && kind < record.n_kind);
    return record.kind[kind];
}
