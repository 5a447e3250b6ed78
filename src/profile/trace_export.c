/* Trace events, one a line: begin, length, names. */
#include "profile/trace_export.h"

#include "base/memory.h"
#include "base/output_file.h"
#include "base/size.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

const int64_t MT_TRACE_MAX_BYTES = (int64_t)256 << 20;

/* An event takes 110 to 190 bytes. */
enum { EVENT_BYTES = 150, MAX_DEPTH = 32, MAX_LANE = 64 };

/* Tracks of a rank; messages have as many as are under way together. */
enum { TRACK_WORK = 0, TRACK_CHECKPOINT = 1, TRACK_DATA = 2, TRACK_DEVICE = 3, TRACK_MESSAGES = 4 };

struct event {
    int track;
    int64_t begin_ns, end_ns;
    int step;                                       /* into profile->step */
    const struct mt_profile_span *span;             /* a phase; NULL: none */
    const struct mt_profile_collective *collective; /* messages, or a wait for them; NULL: none */
    bool is_wait;
};

struct writer {
    const struct mt_profile *profile;
    gzFile file;
    int64_t base_ns; /* 0 of the trace */
    int64_t n_event;
    int error; /* of errno; 0: all is written */
};

/* ---- what to write ---- */

static int64_t count_events(const struct mt_profile *profile, int s)
{
    int64_t n = 0;
    for (int r = 0; r < profile->n_rank; ++r) {
        const struct mt_profile_step *step = mt_profile_step(profile, s, r);
        n += step->is_there ? 1 + step->n_span + 2 * (int64_t)step->n_collective : 0;
    }
    return n;
}

static bool is_traced(const struct mt_profile *profile, int s)
{
    bool has_spans = false;
    for (int r = 0; r < profile->n_rank; ++r) {
        has_spans = has_spans || mt_profile_step(profile, s, r)->n_span > 0;
    }
    return has_spans;
}

/* The first step of the last ones that fit; n_step: there is none. */
static int choose_first(const struct mt_profile *profile, int64_t max_bytes,
                        struct mt_trace_export *result)
{
    int64_t bytes = 0;
    int first = profile->n_step;
    for (int s = profile->n_step - 1; s >= 0; --s) {
        if (!is_traced(profile, s)) {
            continue;
        }
        bytes += count_events(profile, s) * EVENT_BYTES;
        if (result->n_left_out > 0 || (bytes > max_bytes && result->n_step > 0)) {
            ++result->n_left_out;
            continue;
        }
        ++result->n_step;
        result->first_step = profile->step_number[s];
        first = s;
    }
    return first;
}

static int by_place(const void *left, const void *right)
{
    const struct event *a = left;
    const struct event *b = right;
    if (a->track != b->track) {
        return a->track < b->track ? -1 : 1;
    }
    if (a->begin_ns != b->begin_ns) {
        return a->begin_ns < b->begin_ns ? -1 : 1;
    }
    if (a->end_ns != b->end_ns) {
        return a->end_ns > b->end_ns ? -1 : 1; /* outer ones first */
    }
    return (a->collective != NULL) - (b->collective != NULL); /* a wait lies inside its phase */
}

static int64_t list_step(const struct mt_profile *profile, int s, int rank, struct event *event)
{
    static const int track_of[MT_N_TRACK] = {[MT_TRACK_COMPUTE] = TRACK_WORK,
                                             [MT_TRACK_CHECKPOINT] = TRACK_CHECKPOINT,
                                             [MT_TRACK_DATA] = TRACK_DATA,
                                             [MT_TRACK_DEVICE] = TRACK_DEVICE};
    const struct mt_profile_step *step = mt_profile_step(profile, s, rank);
    int64_t n = 0;
    if (!step->is_there) {
        return 0;
    }
    event[n++] = (struct event){.begin_ns = step->begin_ns, .end_ns = step->until_ns, .step = s};
    for (int i = 0; i < step->n_span; ++i) {
        const struct mt_profile_span *span = &step->span[i];
        event[n++] = (struct event){.track = track_of[span->track],
                                    .begin_ns = span->begin_ns,
                                    .end_ns = span->end_ns,
                                    .step = s,
                                    .span = span};
    }
    for (int i = 0; i < step->n_collective; ++i) {
        const struct mt_profile_collective *c = &step->collective[i];
        event[n++] = (struct event){.track = TRACK_MESSAGES,
                                    .begin_ns = c->begin_ns,
                                    .end_ns = mt_max_i64(c->begin_ns, c->done_ns),
                                    .step = s,
                                    .collective = c};
        if (c->done_ns > c->need_ns) {
            event[n++] = (struct event){.track = c->is_of_device ? TRACK_DEVICE : TRACK_WORK,
                                        .begin_ns = c->need_ns,
                                        .end_ns = c->done_ns,
                                        .step = s,
                                        .collective = c,
                                        .is_wait = true};
        }
    }
    return n;
}

/* Messages move to the first track that is free; event [n] is sorted. Returns the tracks used. */
static int part_messages(struct event *event, int64_t n)
{
    int64_t busy_until_ns[MAX_LANE];
    int n_lane = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (event[i].track != TRACK_MESSAGES) {
            continue;
        }
        int lane = 0;
        while (lane < n_lane && busy_until_ns[lane] > event[i].begin_ns) {
            ++lane;
        }
        lane = lane < MAX_LANE ? lane : MAX_LANE - 1; /* MT_MAX_ACTIVE is 64: never more */
        n_lane = lane == n_lane ? n_lane + 1 : n_lane;
        busy_until_ns[lane] = event[i].end_ns;
        event[i].track = TRACK_MESSAGES + lane;
    }
    return n_lane;
}

/* Ends of events are cut where the one around them ends: readings of clocks are moved and rounded,
 * and a wait for the next step's parameters may reach beyond the last step. event [n], sorted. */
static void nest(struct event *event, int64_t n)
{
    int64_t around_ns[MAX_DEPTH];
    int depth = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (i > 0 && event[i].track != event[i - 1].track) {
            depth = 0;
        }
        while (depth > 0 && around_ns[depth - 1] <= event[i].begin_ns) {
            --depth;
        }
        if (depth > 0) {
            event[i].end_ns = mt_min_i64(event[i].end_ns, around_ns[depth - 1]);
        }
        depth = depth < MAX_DEPTH ? depth + 1 : depth;
        around_ns[depth - 1] = event[i].end_ns;
    }
}

/* ---- writing ---- */

static void put(struct writer *writer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void put(struct writer *writer, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    const int n = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    MT_ASSERT(n >= 0 && n < (int)sizeof(text));
    errno = EIO; /* where zlib does not say */
    if (writer->error == 0 && n > 0 && gzwrite(writer->file, text, (unsigned)n) != n) {
        writer->error = errno;
    }
}

/* Names come from files: what JSON would take for more than text becomes "_". */
static void clean(const char *name, char *text, size_t bytes)
{
    size_t n = 0;
    for (; name[n] != '\0' && n + 1 < bytes; ++n) {
        const unsigned char c = (unsigned char)name[n];
        text[n] = name[n];
        if (c < 32 || c > 126 || c == '"' || c == '\\') {
            text[n] = '_';
        }
    }
    text[n] = '\0';
}

static void put_name(struct writer *writer, int rank, int track, const char *what, const char *name)
{
    put(writer, "%s{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"%s\",\"args\":{\"name\":\"%s\"}}",
        writer->n_event++ > 0 ? ",\n" : "", rank, track, what, name);
}

static void put_names(struct writer *writer, int rank, bool has_device, int n_lane)
{
    char host[MT_PROFILE_NAME_BYTES];
    char name[MT_PROFILE_NAME_BYTES + 32];
    clean(writer->profile->rank[rank].host, host, sizeof(host));
    (void)snprintf(name, sizeof(name), "rank %d%s%s", rank, host[0] != '\0' ? ", " : "", host);
    put_name(writer, rank, 0, "process_name", name);
    put(writer,
        ",\n{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_sort_index\",\"args\":{\"sort_index\":%d}}",
        rank, rank);
    put_name(writer, rank, TRACK_WORK, "thread_name", "steps and work");
    put_name(writer, rank, TRACK_CHECKPOINT, "thread_name", "checkpoint");
    put_name(writer, rank, TRACK_DATA, "thread_name", "data");
    if (has_device) {
        put_name(writer, rank, TRACK_DEVICE, "thread_name", "device");
    }
    for (int lane = 0; lane < n_lane; ++lane) {
        (void)snprintf(name, sizeof(name), "messages %d", lane + 1);
        put_name(writer, rank, TRACK_MESSAGES + lane, "thread_name", name);
    }
}

static const char *phase_of(int phase)
{
    return phase >= 0 && phase < MT_N_PHASE ? mt_phase_name((enum mt_phase)phase) : "other";
}

static void put_event(struct writer *writer, int rank, const struct event *event)
{
    char kind[MT_PROFILE_NAME_BYTES];
    const struct mt_profile *profile = writer->profile;
    const struct mt_profile_collective *c = event->collective;
    const struct mt_profile_span *span = event->span;
    /* A GPU's clock is known to a few us: what it began at once may seem to be before its step. */
    const int64_t begin_ns = mt_max_i64(event->begin_ns, writer->base_ns);
    const double begin_us = (double)(begin_ns - writer->base_ns) * 1e-3;
    const double length_us = (double)mt_max_i64(0, event->end_ns - begin_ns) * 1e-3;
    put(writer, ",\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,", rank,
        event->track, begin_us, length_us);
    ++writer->n_event;
    if (span != NULL) {
        put(writer,
            "\"name\":\"%s\",\"args\":{\"layer\":%d,\"micro\":%d,\"rows\":%lld,\"bytes\":%lld}}",
            phase_of(span->phase), span->layer, span->micro, (long long)span->rows,
            (long long)span->n_bytes);
    } else if (c == NULL) {
        put(writer, "\"name\":\"step %lld\"}", (long long)profile->step_number[event->step]);
    } else {
        clean(c->kind >= 0 ? profile->kind[c->kind] : "unknown", kind, sizeof(kind));
        put(writer,
            "\"name\":\"%s%s\",\"args\":{\"number\":%lld,\"phase\":\"%s\",\"layer\":%d,"
            "\"micro\":%d,\"bytes\":%lld}}",
            event->is_wait ? "wait: " : "", kind, (long long)c->number, phase_of(c->phase),
            c->layer, c->micro, (long long)c->n_bytes);
    }
}

static void write_rank(struct writer *writer, int rank, int first, struct event *event)
{
    const struct mt_profile *profile = writer->profile;
    int64_t n = 0;
    bool has_device = false;
    for (int s = first; s < profile->n_step; ++s) {
        n += is_traced(profile, s) ? list_step(profile, s, rank, event + n) : 0;
    }
    for (int64_t i = 0; i < n; ++i) {
        has_device = has_device || event[i].track == TRACK_DEVICE;
    }
    if (n == 0) {
        return;
    }
    qsort(event, (size_t)n, sizeof(*event), by_place);
    const int n_lane = part_messages(event, n);
    qsort(event, (size_t)n, sizeof(*event), by_place);
    nest(event, n);
    put_names(writer, rank, has_device, n_lane);
    for (int64_t i = 0; i < n; ++i) {
        put_event(writer, rank, &event[i]);
    }
}

static void write_all(struct writer *writer, int first, struct event *event,
                      const struct mt_trace_export *result)
{
    const struct mt_profile *profile = writer->profile;
    char run[MT_PROFILE_NAME_BYTES];
    writer->base_ns = INT64_MAX;
    for (int r = 0; r < profile->n_rank; ++r) {
        const struct mt_profile_step *step = mt_profile_step(profile, first, r);
        writer->base_ns =
            step->is_there ? mt_min_i64(writer->base_ns, step->begin_ns) : writer->base_ns;
    }
    clean(profile->run, run, sizeof(run));
    put(writer,
        "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"run\":\"%s\",\"steps\":%d,"
        "\"earlier_steps_left_out\":%d},\"traceEvents\":[\n",
        run, result->n_step, result->n_left_out);
    for (int r = 0; r < profile->n_rank; ++r) {
        write_rank(writer, r, first, event);
    }
    put(writer, "\n]}\n");
}

static bool ends_with_gz(const char *path)
{
    const size_t n = strlen(path);
    return n > 3 && strcmp(path + n - 3, ".gz") == 0;
}

static enum mt_status write_file(struct writer *writer, const char *path, int first,
                                 struct event *event, const struct mt_trace_export *result)
{
    struct mt_output output;
    MT_TRY(mt_output_open(path, "free some, or choose another place with --trace", &output));
    const int descriptor = dup(fileno(output.file)); /* zlib closes its own */
    writer->file = descriptor < 0 ? NULL : gzdopen(descriptor, ends_with_gz(path) ? "wb6" : "wbT");
    writer->error = writer->file == NULL ? ENOMEM : 0;
    if (writer->file != NULL) {
        write_all(writer, first, event, result);
        errno = EIO;
        if (gzclose(writer->file) != Z_OK && writer->error == 0) {
            writer->error = errno;
        }
    } else if (descriptor >= 0) {
        (void)close(descriptor);
    }
    return mt_output_close(&output, writer->error);
}

enum mt_status mt_trace_export(const struct mt_profile *profile, const char *path,
                               int64_t max_bytes, struct mt_trace_export *result)
{
    struct writer writer = {.profile = profile};
    struct event *event = NULL;
    int64_t n_event = 0;
    *result = (struct mt_trace_export){0};
    const int first = choose_first(profile, max_bytes, result);
    if (first == profile->n_step) {
        return MT_FAIL(MT_ERR_INPUT,
                       "no step of this run was traced; expected spans in its profile; name steps "
                       "in profile.trace_steps");
    }
    for (int s = first; s < profile->n_step; ++s) {
        n_event += count_events(profile, s); /* of all ranks: enough for one */
    }
    MT_TRY(MT_ALLOCATE(event, n_event, "events of a trace"));
    const enum mt_status status = write_file(&writer, path, first, event, result);
    mt_memory_free(event);
    result->n_event = writer.n_event;
    return status;
}
