/* One file's lines into the profile, in the order in which they were written. */
#include "base/memory.h"
#include "base/size.h"
#include "profile/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NO_STEP = -1 };

static void copy_text(char *to, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    (void)snprintf(to, MT_PROFILE_NAME_BYTES, "%s", text != NULL ? text : "");
}

static int find_phase(const char *name)
{
    int phase = 0;
    while (phase < MT_N_PHASE &&
           (name == NULL || strcmp(mt_phase_name((enum mt_phase)phase), name) != 0)) {
        ++phase;
    }
    return phase;
}

/* Numbers of the file's phases and kinds are its program's own. */
static void take_phases(struct mt_reader *reader, const json_t *phases)
{
    const size_t room = sizeof(reader->phase) / sizeof(reader->phase[0]);
    reader->n_phase = (int)mt_min_i64((int64_t)json_array_size(phases), (int64_t)room);
    for (int p = 0; p < reader->n_phase; ++p) {
        reader->phase[p] = find_phase(json_string_value(json_array_get(phases, (size_t)p)));
    }
}

static int phase_of(const struct mt_reader *reader, int64_t number)
{
    return number >= 0 && number < reader->n_phase ? reader->phase[number] : MT_N_PHASE;
}

static void take_kind(struct mt_reader *reader, const json_t *pair)
{
    struct mt_profile *profile = reader->profile;
    const int64_t number = mt_reader_item(pair, 0);
    const char *name = json_string_value(json_array_get(pair, 1));
    int kind = 0;
    if (number < 0 || number >= MT_PROFILE_MAX_KIND || name == NULL) {
        return;
    }
    while (kind < profile->n_kind && strcmp(profile->kind[kind], name) != 0) {
        ++kind;
    }
    if (kind == profile->n_kind && kind < MT_PROFILE_MAX_KIND) {
        (void)snprintf(profile->kind[profile->n_kind++], MT_PROFILE_NAME_BYTES, "%s", name);
    }
    reader->kind[number] = kind < MT_PROFILE_MAX_KIND ? kind : -1;
    reader->n_kind = (int)mt_max_i64(reader->n_kind, number + 1);
}

static int kind_of(const struct mt_reader *reader, int64_t number)
{
    return number >= 0 && number < reader->n_kind ? reader->kind[number] : -1;
}

static enum mt_status take_header(struct mt_reader *reader, const json_t *line)
{
    struct mt_profile *profile = reader->profile;
    struct mt_profile_rank *rank = &profile->rank[reader->rank];
    MT_TRY(mt_reader_finish(reader)); /* of an earlier start */
    reader->session = mt_reader_clock(line, "session");
    reader->origin_ns = mt_reader_clock(line, "origin");
    reader->has_same_ranks = mt_reader_integer(line, "ranks", 0) == profile->n_rank;
    reader->n_kind = 0;
    reader->n_knot = 0;
    reader->device_error_ns = 0;
    reader->first_step = NO_STEP;
    reader->last_step = NO_STEP;
    take_phases(reader, json_object_get(line, "phases"));
    rank->is_there = true;
    rank->has_ended = false;
    rank->node =
        (int)mt_max_i64(0, mt_min_i64(mt_reader_integer(line, "node", 0), profile->n_rank - 1));
    rank->local_rank = (int)mt_reader_integer(line, "local_rank", 0);
    copy_text(rank->host, line, "host");
    if (profile->start_utc[0] == '\0') {
        copy_text(profile->start_utc, line, "start_utc");
        profile->start_session = reader->session;
    }
    copy_text(profile->run, line, "run");
    copy_text(profile->version, line, "version");
    profile->window = (int)mt_reader_integer(line, "window", 0);
    return MT_OK;
}

static enum mt_status take_clock(struct mt_reader *reader, const json_t *item)
{
    MT_TRY(MT_MAKE_ROOM(reader->knot, reader->n_knot, &reader->max_knot, 1, "clocks of a profile"));
    reader->knot[reader->n_knot++] = (struct mt_profile_knot){
        mt_reader_clock_item(item, 0), mt_reader_clock_item(item, 1), mt_reader_item(item, 2)};
    return MT_OK;
}

/* Index of a step's number; NO_STEP: it was thinned out. */
static int find_step(const struct mt_profile *profile, int64_t number)
{
    int low = 0;
    int high = profile->n_step - 1;
    while (low <= high) {
        const int middle = low + (high - low) / 2;
        if (profile->step_number[middle] == number) {
            return middle;
        }
        if (profile->step_number[middle] < number) {
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    return NO_STEP;
}

/* A step that a resumed run made again replaces what the earlier start left of it. */
static struct mt_profile_step *renew_step(struct mt_reader *reader, int index)
{
    struct mt_profile_step *step = mt_profile_step(reader->profile, index, reader->rank);
    mt_memory_free(step->collective);
    mt_memory_free(step->span);
    *step = (struct mt_profile_step){.is_there = true};
    reader->first_step = reader->first_step == NO_STEP ? index : reader->first_step;
    reader->last_step = index;
    return step;
}

static void take_layers(const struct mt_profile *profile, int64_t *to, const json_t *values)
{
    for (int l = 0; l < profile->n_layer; ++l) {
        to[l] = mt_reader_item(values, (size_t)l);
    }
}

static void take_step(struct mt_reader *reader, const json_t *line)
{
    struct mt_profile *profile = reader->profile;
    const int64_t number = mt_reader_integer(line, "step", 0);
    const int index = find_step(profile, number);
    profile->rank[reader->rank].last_step = number;
    if (index == NO_STEP) {
        return;
    }
    struct mt_profile_step *step = renew_step(reader, index);
    const json_t *phases = json_object_get(line, "phase");
    reader->device_error_ns =
        mt_max_i64(reader->device_error_ns, mt_reader_integer(line, "device_error", 0));
    step->session = reader->session;
    step->begin_ns = mt_reader_clock(line, "begin");
    step->end_ns = step->begin_ns + mt_reader_integer(line, "end", 0);
    step->until_ns = step->begin_ns + mt_reader_integer(line, "until", 0);
    step->n_token = mt_reader_integer(line, "tokens", 0);
    step->memory_bytes = mt_reader_integer(line, "memory", 0);
    for (size_t i = 0; i < json_array_size(phases); ++i) {
        const json_t *item = json_array_get(phases, i);
        const int phase = phase_of(reader, mt_reader_item(item, 0));
        if (phase < MT_N_PHASE) {
            step->phase_ns[phase] = mt_reader_item(item, 1);
            step->wait_ns[phase] = mt_reader_item(item, 2);
        }
    }
    take_layers(profile, mt_profile_by_layer(profile, profile->rows, index, reader->rank),
                json_object_get(line, "rows"));
    take_layers(profile, mt_profile_by_layer(profile, profile->expert_ns, index, reader->rank),
                json_object_get(line, "expert"));
}

/* The step that a line of detail belongs to; NULL: none that is known. */
static struct mt_profile_step *detailed_step(struct mt_reader *reader, const json_t *line,
                                             const char *key)
{
    const int index = find_step(reader->profile, mt_reader_integer(line, key, 0));
    if (index == NO_STEP) {
        return NULL;
    }
    struct mt_profile_step *step = mt_profile_step(reader->profile, index, reader->rank);
    return step->is_there ? step : NULL;
}

static bool is_ascending(const struct mt_profile_step *step)
{
    for (int i = 1; i < step->n_collective; ++i) {
        if (step->collective[i].number <= step->collective[i - 1].number) {
            return false;
        }
    }
    return true;
}

static enum mt_status take_waits(struct mt_reader *reader, const json_t *line)
{
    enum {
        NUMBER,
        KIND,
        PHASE,
        BUSY,
        LAYER,
        MICRO,
        BEGIN,
        NEED,
        DONE,
        BYTES,
        N_SOURCE,
        SOURCES,
        PEER,
        LAST,
        DEVICE
    };
    const json_t *list = json_object_get(line, "c");
    const int64_t first = mt_reader_integer(line, "first", 0);
    struct mt_profile_step *step = detailed_step(reader, line, "waits");
    if (step == NULL || !reader->has_same_ranks) {
        return MT_OK;
    }
    MT_TRY(mt_profile_reserve_collectives(step, (int)json_array_size(list)));
    for (int i = 0; i < step->n_collective; ++i) {
        const json_t *item = json_array_get(list, (size_t)i);
        const int64_t begin_ns = step->begin_ns + mt_reader_item(item, BEGIN);
        const int64_t done_ns = begin_ns + mt_reader_item(item, DONE);
        const int64_t need = mt_reader_item(item, NEED);
        const int64_t peer = mt_reader_item(item, PEER) - 1;
        step->collective[i] = (struct mt_profile_collective){
            .number = first + mt_reader_item(item, NUMBER),
            .kind = kind_of(reader, mt_reader_item(item, KIND)),
            .phase = phase_of(reader, mt_reader_item(item, PHASE)),
            .busy_phase = phase_of(reader, mt_reader_item(item, BUSY)),
            .layer = (int)mt_reader_item(item, LAYER),
            .micro = (int)mt_reader_item(item, MICRO),
            .begin_ns = begin_ns,
            .need_ns = need < 0 ? done_ns : begin_ns + need,
            .done_ns = done_ns,
            .n_bytes = mt_reader_item(item, BYTES),
            .n_source = (int)mt_reader_item(item, N_SOURCE),
            .last_peer = peer >= 0 && peer < reader->profile->n_rank ? (int)peer : -1,
            .last_ns = begin_ns + mt_reader_item(item, LAST),
            .sources = (uint64_t)json_integer_value(json_array_get(item, SOURCES)),
            .is_of_device = mt_reader_item(item, DEVICE) == 1};
    }
    return is_ascending(step) ? MT_OK : mt_profile_reserve_collectives(step, 0);
}

/* Outer spans before inner ones. */
static int compare_spans(const void *a, const void *b)
{
    const struct mt_profile_span *x = a;
    const struct mt_profile_span *y = b;
    if (x->begin_ns != y->begin_ns) {
        return x->begin_ns < y->begin_ns ? -1 : 1;
    }
    return (x->end_ns < y->end_ns) - (x->end_ns > y->end_ns);
}

static enum mt_status take_spans(struct mt_reader *reader, const json_t *line)
{
    enum { TRACK, PHASE, LAYER, MICRO, BEGIN, DURATION, ROWS, BYTES };
    const json_t *list = json_object_get(line, "s");
    struct mt_profile_step *step = detailed_step(reader, line, "spans");
    if (step == NULL) {
        return MT_OK;
    }
    MT_TRY(mt_profile_reserve_spans(step, (int)json_array_size(list)));
    step->n_lost = mt_reader_integer(line, "lost", 0);
    for (int i = 0; i < step->n_span; ++i) {
        const json_t *item = json_array_get(list, (size_t)i);
        const int64_t begin_ns = step->begin_ns + mt_reader_item(item, BEGIN);
        const int64_t track = mt_reader_item(item, TRACK);
        step->span[i] = (struct mt_profile_span){
            .track = track >= 0 && track < MT_N_TRACK ? (int)track : MT_TRACK_COMPUTE,
            .phase = phase_of(reader, mt_reader_item(item, PHASE)),
            .layer = (int)mt_reader_item(item, LAYER),
            .micro = (int)mt_reader_item(item, MICRO),
            .begin_ns = begin_ns,
            .end_ns = begin_ns + mt_reader_item(item, DURATION),
            .rows = mt_reader_item(item, ROWS),
            .n_bytes = mt_reader_item(item, BYTES)};
    }
    qsort(step->span, (size_t)step->n_span, sizeof(*step->span), compare_spans);
    return MT_OK;
}

/* Totals of a start: its last line counts. */
static void take_experts(struct mt_reader *reader, const json_t *line)
{
    json_decref(reader->experts);
    reader->experts = json_deep_copy(line);
}

static void add_experts(const struct mt_reader *reader)
{
    enum { LAYER, EXPERT, ROWS };
    const struct mt_profile *profile = reader->profile;
    const json_t *list = json_object_get(reader->experts, "e");
    if (reader->experts == NULL || profile->expert_rows == NULL) {
        return;
    }
    profile->expert_steps[reader->rank] +=
        mt_max_i64(0, mt_reader_integer(reader->experts, "experts", 0));
    for (size_t i = 0; i < json_array_size(list); ++i) {
        const json_t *item = json_array_get(list, i);
        const int64_t layer = mt_reader_item(item, LAYER);
        const int64_t expert = mt_reader_item(item, EXPERT);
        if (layer >= 0 && layer < profile->n_layer && expert >= 0 && expert < profile->n_expert) {
            mt_profile_expert_rows(profile, reader->rank, (int)layer)[expert] +=
                mt_max_i64(0, mt_reader_item(item, ROWS));
        }
    }
}

enum mt_status mt_reader_take(struct mt_reader *reader, const json_t *line)
{
    const json_t *value = NULL;
    if (json_object_get(line, "profile") != NULL) {
        return take_header(reader, line);
    }
    if ((value = json_object_get(line, "clock")) != NULL) {
        return take_clock(reader, value);
    }
    if ((value = json_object_get(line, "kind")) != NULL) {
        take_kind(reader, value);
    } else if (json_object_get(line, "step") != NULL) {
        take_step(reader, line);
    } else if (json_object_get(line, "waits") != NULL) {
        return take_waits(reader, line);
    } else if (json_object_get(line, "spans") != NULL) {
        return take_spans(reader, line);
    } else if (json_object_get(line, "experts") != NULL) {
        take_experts(reader, line);
    } else if (json_object_get(line, "end") != NULL) {
        reader->profile->rank[reader->rank].has_ended = true;
    }
    return MT_OK;
}

/* ---- clocks ---- */

struct shift {
    const struct mt_reader *reader;
    int64_t start_ns; /* of this start, after the run's first */
};

static void move(const struct shift *shift, int64_t *time_ns)
{
    *time_ns = mt_profile_align(shift->reader->knot, shift->reader->n_knot, *time_ns) -
               shift->reader->origin_ns + shift->start_ns;
}

static void move_step(const struct shift *shift, struct mt_profile_step *step)
{
    for (int i = 0; i < step->n_collective; ++i) {
        move(shift, &step->collective[i].begin_ns);
        move(shift, &step->collective[i].need_ns);
        move(shift, &step->collective[i].done_ns);
        move(shift, &step->collective[i].last_ns);
    }
    for (int i = 0; i < step->n_span; ++i) {
        move(shift, &step->span[i].begin_ns);
        move(shift, &step->span[i].end_ns);
    }
    move(shift, &step->begin_ns);
    move(shift, &step->end_ns);
    move(shift, &step->until_ns);
}

enum mt_status mt_reader_finish(struct mt_reader *reader)
{
    struct mt_profile *profile = reader->profile;
    struct mt_profile_rank *rank = &profile->rank[reader->rank];
    const struct shift shift = {reader, reader->session - profile->start_session};
    if (reader->session == 0) {
        return MT_OK; /* nothing was begun */
    }
    for (int s = reader->first_step; s != NO_STEP && s <= reader->last_step; ++s) {
        struct mt_profile_step *step = mt_profile_step(profile, s, reader->rank);
        if (step->is_there) {
            move_step(&shift, step);
        }
    }
    add_experts(reader);
    json_decref(reader->experts);
    reader->experts = NULL;
    mt_memory_free(rank->knot);
    rank->knot = NULL;
    rank->n_knot = 0;
    rank->error_ns = 0;
    MT_TRY(MT_ALLOCATE(rank->knot, reader->n_knot, "clocks of a profile"));
    rank->n_knot = reader->n_knot;
    for (int i = 0; i < reader->n_knot; ++i) {
        rank->knot[i] = reader->knot[i];
        rank->error_ns = mt_max_i64(rank->error_ns, reader->knot[i].error_ns);
    }
    rank->error_ns += reader->device_error_ns;
    return MT_OK;
}

void mt_reader_clear(struct mt_reader *reader)
{
    mt_memory_free(reader->knot);
    reader->knot = NULL;
    json_decref(reader->experts);
    reader->experts = NULL;
}
