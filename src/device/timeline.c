#include "device/timeline.h"

#include "base/clock.h"
#include "base/device_time.h"
#include "base/memory.h"
#include "base/record.h"
#include "base/size.h"
#include "device/module.h"

/* Between two waits: a backward of 48 layers has some 1,500 pieces and 400 plans. What is beyond is
 * not timed. Every plan has room for its end. */
enum { MAX_PLAN = 1024, MAX_ENTRY = 8192 + MAX_PLAN };
enum { N_LAST = 2, N_FREE = MT_DEVICE_MARKS - N_LAST };

enum kind { PIECE, PLAN_BEGIN, PLAN_END };

/* In the order of the main stream, since the last wait. */
struct entry {
    enum kind kind;
    enum mt_phase phase;
    enum mt_work work;
    int layer, micro;
    int mark[2]; /* of a piece: its begin and end */
    int plan;    /* of the others */
    int64_t record;
};

struct plan {
    bool is_taken;
    int ready, need, done; /* marks */
    int64_t record;
};

struct mt_timeline {
    int n_entry;
    bool is_open; /* more may join the last piece */
    struct entry entry[MAX_ENTRY];
    struct plan plan[MAX_PLAN];
    int next_plan; /* where to look for a free one */
    int n_free;
    int free_mark[N_FREE];
    int last;                  /* mark of the last wait, or of the one that is under way */
    bool is_anchored;          /* there was one */
    int64_t least_ns, most_ns; /* when it was over */
    int64_t end_ns;            /* of what was collected: the device does one thing at a time */
};

static const struct mt_device_table *table_of(const struct mt_device *device)
{
    return device->module->device;
}

static int64_t between_ns(const struct mt_device *device, int from, int to)
{
    return table_of(device)->between_ns(device, from, to);
}

void mt_timeline_close(struct mt_device *device)
{
    mt_device_time_close();
    mt_memory_free(device->timeline);
    device->timeline = NULL;
}

/* ---- the host's clock ---- */

static void put_mark(const struct mt_device *device, int mark)
{
    table_of(device)->mark(device, mark);
}

static void set_last(struct mt_device *device)
{
    device->timeline->last = 1 - device->timeline->last;
    put_mark(device, device->timeline->last);
}

/* What the wait before tells of this one's end, and what this one has found itself. */
static void anchor(struct mt_device *device, int64_t least_ns, int64_t most_ns)
{
    enum { PARTS = 10000, RESOLUTION_NS = 1000 }; /* 100 ppm */
    struct mt_timeline *t = device->timeline;
    if (t->is_anchored) {
        const int64_t passed_ns = between_ns(device, 1 - t->last, t->last);
        const int64_t drift_ns = RESOLUTION_NS + passed_ns / PARTS;
        const int64_t after_ns = mt_max_i64(least_ns, t->least_ns + passed_ns - drift_ns);
        const int64_t before_ns = mt_min_i64(most_ns, t->most_ns + passed_ns + drift_ns);
        if (after_ns <= before_ns) {
            least_ns = after_ns;
            most_ns = before_ns;
        }
    }
    t->least_ns = least_ns;
    t->most_ns = most_ns;
    t->is_anchored = true;
    mt_record_device_error((most_ns - least_ns + 1) / 2);
}

/* The shortest of some looks at nothing but a mark. */
static void calibrate(struct mt_device *device)
{
    enum { N_LOOK = 20 };
    for (int i = 0; i < N_LOOK; i++) {
        int64_t least_ns = mt_clock_ns();
        int64_t now_ns = least_ns;
        set_last(device);
        while (!table_of(device)->is_over(device)) {
            least_ns = now_ns;
            now_ns = mt_clock_ns();
        }
        anchor(device, least_ns, mt_clock_ns());
    }
}

/* Of a device: nothing joins its last piece any more. */
static void end_piece(void *context)
{
    const struct mt_device *device = context;
    struct mt_timeline *t = device->timeline;
    if (t->is_open) {
        put_mark(device, t->entry[t->n_entry - 1].mark[1]);
    }
    t->is_open = false;
}

void mt_timeline_break(struct mt_device *device)
{
    if (device->timeline != NULL) {
        end_piece(device);
    }
}

enum mt_status mt_timeline_open(struct mt_device *device)
{
    MT_TRY(MT_ALLOCATE(device->timeline, 1, "timeline of the GPU"));
    struct mt_timeline *t = device->timeline;
    for (int i = 0; i < N_FREE; i++) {
        t->free_mark[t->n_free++] = N_LAST + i;
    }
    calibrate(device);
    mt_device_time_open(end_piece, device);
    return MT_OK;
}

/* ---- on the way ---- */

static bool has_room(const struct mt_timeline *t)
{
    enum { MOST_MARKS = 3 };
    return t->n_entry < MAX_ENTRY - MAX_PLAN && t->n_free >= MOST_MARKS;
}

static int take_mark(struct mt_timeline *t)
{
    return t->free_mark[--t->n_free];
}

static bool joins_last(const struct mt_device *device, enum mt_phase phase, enum mt_work work)
{
    const struct mt_timeline *t = device->timeline;
    if (!t->is_open) {
        return false;
    }
    const struct entry *last = &t->entry[t->n_entry - 1];
    return last->phase == phase && last->layer == mt_record_layer() &&
           last->micro == mt_record_micro() && (device->account == NULL || last->work == work);
}

void mt_timeline_operation(struct mt_device *device, enum mt_work work)
{
    struct mt_timeline *t = device->timeline;
    const enum mt_phase phase = mt_span_phase();
    if (t == NULL || joins_last(device, phase, work)) {
        return;
    }
    mt_device_time_begin();
    end_piece(device);
    if (phase == MT_N_PHASE || !has_room(t)) {
        return;
    }
    t->entry[t->n_entry++] = (struct entry){.kind = PIECE,
                                            .phase = phase,
                                            .work = work,
                                            .layer = mt_record_layer(),
                                            .micro = mt_record_micro(),
                                            .mark = {take_mark(t), take_mark(t)},
                                            .record = mt_record_device_begin(phase, 0, 0)};
    put_mark(device, t->entry[t->n_entry - 1].mark[0]);
    t->is_open = true;
}

/* -1: none is free. */
static int take_plan(struct mt_timeline *t, int64_t record)
{
    int tried = 0;
    while (tried < MAX_PLAN && t->plan[t->next_plan].is_taken) {
        t->next_plan = (t->next_plan + 1) % MAX_PLAN;
        tried++;
    }
    if (tried == MAX_PLAN || !has_room(t)) {
        return -1;
    }
    t->plan[t->next_plan] = (struct plan){.is_taken = true,
                                          .ready = take_mark(t),
                                          .need = take_mark(t),
                                          .done = take_mark(t),
                                          .record = record};
    return t->next_plan;
}

static void add_entry(struct mt_timeline *t, enum kind kind, int plan)
{
    t->entry[t->n_entry++] = (struct entry){
        .kind = kind, .phase = mt_span_phase(), .layer = mt_record_layer(), .plan = plan};
}

int mt_timeline_plan_begin(struct mt_device *device, int64_t record, void **over)
{
    struct mt_timeline *t = device->timeline;
    const int plan = take_plan(t, record);
    *over = NULL;
    mt_device_time_begin();
    end_piece(device);
    if (plan >= 0) {
        put_mark(device, t->plan[plan].ready);
        *over = table_of(device)->event(device, t->plan[plan].done);
        add_entry(t, PLAN_BEGIN, plan);
    }
    return plan;
}

void mt_timeline_plan_end(struct mt_device *device, int plan)
{
    struct mt_timeline *t = device->timeline;
    end_piece(device);
    if (plan >= 0) {
        put_mark(device, t->plan[plan].need);
        add_entry(t, PLAN_END, plan);
    }
}

void mt_timeline_end(struct mt_device *device)
{
    end_piece(device);
    set_last(device);
}

/* ---- afterwards ---- */

static int64_t time_of(const struct mt_device *device, int mark)
{
    const struct mt_timeline *t = device->timeline;
    return t->least_ns + (t->most_ns - t->least_ns) / 2 - between_ns(device, mark, t->last);
}

static void free_mark(struct mt_timeline *t, int mark)
{
    t->free_mark[t->n_free++] = mark;
}

/* Not before what was over before: readings are rounded. */
static void add(struct mt_timeline *t, const struct entry *entry, int64_t *begin_ns,
                int64_t *end_ns, bool is_wait)
{
    *begin_ns = mt_max_i64(t->end_ns, *begin_ns);
    *end_ns = mt_max_i64(*begin_ns, *end_ns);
    t->end_ns = *end_ns;
    const struct mt_device_piece piece = {.phase = entry->phase,
                                          .layer = entry->layer,
                                          .begin_ns = *begin_ns,
                                          .end_ns = *end_ns,
                                          .is_wait = is_wait};
    mt_device_time_add(&piece);
}

static void collect_piece(struct mt_device *device, const struct entry *entry)
{
    struct mt_timeline *t = device->timeline;
    int64_t begin_ns = time_of(device, entry->mark[0]);
    int64_t end_ns = time_of(device, entry->mark[1]);
    add(t, entry, &begin_ns, &end_ns, false);
    mt_record_device_end(entry->record, begin_ns, end_ns);
    if (device->account != NULL) {
        device->account->sum[entry->phase][entry->work].time_ns += end_ns - begin_ns;
    }
    free_mark(t, entry->mark[0]);
    free_mark(t, entry->mark[1]);
}

static void collect_plan_begin(struct mt_device *device, const struct entry *entry)
{
    struct mt_timeline *t = device->timeline;
    const struct plan *plan = &t->plan[entry->plan];
    mt_record_device_arrive(plan->record, time_of(device, plan->ready));
    free_mark(t, plan->ready);
}

static void collect_plan_end(struct mt_device *device, const struct entry *entry)
{
    struct mt_timeline *t = device->timeline;
    struct plan *plan = &t->plan[entry->plan];
    int64_t need_ns = time_of(device, plan->need);
    int64_t done_ns = time_of(device, plan->done);
    if (done_ns > need_ns) {
        add(t, entry, &need_ns, &done_ns, true);
    }
    mt_record_device_done(plan->record, need_ns, done_ns);
    free_mark(t, plan->need);
    free_mark(t, plan->done);
    plan->is_taken = false;
}

void mt_timeline_collect(struct mt_device *device, int64_t least_ns, int64_t most_ns)
{
    static void (*const collect[])(struct mt_device *, const struct entry *) = {
        [PIECE] = collect_piece, [PLAN_BEGIN] = collect_plan_begin, [PLAN_END] = collect_plan_end};
    struct mt_timeline *t = device->timeline;
    (void)mt_span_charge();
    anchor(device, least_ns, most_ns);
    for (int i = 0; i < t->n_entry; i++) {
        collect[t->entry[i].kind](device, &t->entry[i]);
    }
    t->n_entry = 0;
    mt_device_time_settle();
}
