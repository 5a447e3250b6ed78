#include "profile/writer.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/size.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A buffer is written when it is this full; no entry is longer than the margin. */
enum { BUFFER_BYTES = 256 << 10, MARGIN_BYTES = 16 << 10 };
static const int64_t FLUSH_NS = 1000000000;
/* An arrival as text: 70 bytes and 90 ns on one core of a Zen 5 (2026-11); twice that is reckoned
 * with. Estimates, so that all ranks thin out alike. */
enum { ARRIVAL_NS = 180, ARRIVAL_BYTES = 70 };
static const double DETAIL_SHARE = 0.003;
/* Every so many bytes of detail it becomes half as frequent: long runs stay small. */
static const int64_t DETAIL_BYTES = (int64_t)16 << 20;
/* Steps in a row, once a window, that are written with spans: for the replay of a step. */
enum { BLOCK_FIRST = 2, BLOCK_STEPS = 8, BLOCK_PERIOD = 50 };

int64_t mt_profile_writer_bytes(void)
{
    return BUFFER_BYTES;
}

/* ---- text ---- */

static void give_up(struct mt_profile_writer *writer, const char *why)
{
    mt_log_line("profile: cannot write %s: %s; the run goes on, its profile ends here",
                writer->path, why);
    (void)close(writer->fd);
    writer->fd = -1;
}

static void flush(struct mt_profile_writer *writer)
{
    int64_t at = 0;
    while (writer->fd >= 0 && at < writer->used_bytes) {
        const ssize_t n = write(writer->fd, writer->buffer + at, (size_t)(writer->used_bytes - at));
        if (n > 0) {
            at += n;
        } else if (n == 0 || errno != EINTR) {
            give_up(writer, n == 0 ? "nothing was written" : strerror(errno));
        }
    }
    writer->used_bytes = 0;
    writer->flushed_ns = mt_clock_ns();
}

static void put_text(struct mt_profile_writer *writer, const char *text)
{
    const size_t n = strlen(text);
    memcpy(writer->buffer + writer->used_bytes, text, n);
    writer->used_bytes += (int64_t)n;
}

static void put_char(struct mt_profile_writer *writer, char c)
{
    writer->buffer[writer->used_bytes++] = c;
}

/* snprintf takes ten times as long. */
static void put_integer(struct mt_profile_writer *writer, int64_t value)
{
    char digits[24];
    int n = 0;
    uint64_t rest = value < 0 ? (uint64_t)0 - (uint64_t)value : (uint64_t)value;
    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0) {
        put_char(writer, '-');
    }
    while (n > 0) {
        put_char(writer, digits[--n]);
    }
}

static void put_field(struct mt_profile_writer *writer, const char *name, int64_t value)
{
    put_text(writer, name);
    put_integer(writer, value);
}

static void put_list(struct mt_profile_writer *writer, const int64_t *value, int n)
{
    put_char(writer, '[');
    for (int i = 0; i < n; ++i) {
        if (i > 0) {
            put_char(writer, ',');
        }
        put_integer(writer, value[i]);
        if (writer->used_bytes > BUFFER_BYTES - MARGIN_BYTES) {
            flush(writer);
        }
    }
    put_char(writer, ']');
}

static void end_line(struct mt_profile_writer *writer, const char *text)
{
    put_text(writer, text);
    put_char(writer, '\n');
}

/* ---- lines ---- */

static enum mt_status put_header(struct mt_profile_writer *writer,
                                 const struct mt_profile_header *header)
{
    char start[21];
    mt_clock_utc(start);
    json_t *phases = json_array();
    for (int p = 0; p < MT_N_PHASE; ++p) {
        (void)json_array_append_new(phases, json_string(mt_phase_name((enum mt_phase)p)));
    }
    json_t *line = json_pack(
        "{s:i,s:i,s:i,s:s,s:i,s:i,s:i,s:I,s:I,s:I,s:I,s:s,s:s,s:s,s:o}", "profile", 1, "rank",
        header->rank, "ranks", header->n_rank, "host", header->host, "node", header->node,
        "local_rank", header->local_rank, "layers", header->n_layer, "experts",
        (json_int_t)header->n_expert, "window", (json_int_t)header->window, "session",
        (json_int_t)header->session_utc_ns, "origin", (json_int_t)header->session_origin_ns,
        "start_utc", start, "version", MT_VERSION, "run", header->run, "phases", phases);
    char *text = line != NULL ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (text == NULL || strlen(text) > MARGIN_BYTES) {
        free(text);
        return MT_FAIL(MT_ERR_INTERNAL, "the first line of a profile could not be made");
    }
    end_line(writer, text);
    free(text);
    return MT_OK;
}

void mt_profile_writer_clock(struct mt_profile_writer *writer, const struct mt_profile_knot *knot)
{
    const int64_t item[] = {knot->local_ns, knot->offset_ns, knot->error_ns};
    if (writer->fd < 0) {
        return;
    }
    put_text(writer, "{\"clock\":");
    put_list(writer, item, 3);
    end_line(writer, "}");
}

static void put_new_kinds(struct mt_profile_writer *writer)
{
    while (writer->n_kind < mt_record_n_kind()) {
        put_field(writer, "{\"kind\":[", writer->n_kind);
        put_text(writer, ",\"");
        put_text(writer, mt_record_kind(writer->n_kind++));
        end_line(writer, "\"]}");
    }
}

static void put_sums(struct mt_profile_writer *writer, int64_t position)
{
    const struct mt_recorded_step *step = mt_record_step(position);
    const int n_layer = mt_record_n_layer();
    const char *separator = "[";
    put_field(writer, "{\"step\":", step->number);
    put_field(writer, ",\"begin\":", step->begin_ns);
    put_field(writer, ",\"end\":", step->end_ns - step->begin_ns);
    put_field(writer, ",\"until\":", step->until_ns - step->begin_ns);
    put_field(writer, ",\"tokens\":", step->n_token);
    put_field(writer, ",\"memory\":", step->memory_bytes);
    if (step->device_error_ns > 0) {
        put_field(writer, ",\"device_error\":", step->device_error_ns);
    }
    put_text(writer, ",\"phase\":[");
    for (int p = 0; p < MT_N_PHASE; ++p) {
        if (step->phase_ns[p] != 0) {
            put_field(writer, separator, p);
            put_field(writer, ",", step->phase_ns[p]);
            put_field(writer, ",", step->wait_ns[p]);
            separator = "],[";
        }
    }
    put_text(writer, separator[1] != '\0' ? "]],\"rows\":" : "],\"rows\":");
    put_list(writer, mt_record_rows(position), n_layer);
    put_text(writer, ",\"expert\":");
    put_list(writer, mt_record_expert_ns(position), n_layer);
    end_line(writer, "}");
}

static void put_arrival(struct mt_profile_writer *writer, const struct mt_recorded_arrival *a,
                        int64_t number, int64_t begin_ns)
{
    const int64_t need_ns = a->need_ns > 0 ? a->need_ns - a->begin_ns : -1;
    const int64_t item[] = {a->number - number,
                            a->kind,
                            a->phase,
                            a->busy_phase,
                            a->layer,
                            a->micro,
                            a->begin_ns - begin_ns,
                            need_ns,
                            a->done_ns - a->begin_ns,
                            a->n_bytes,
                            a->n_source,
                            (int64_t)a->sources,
                            a->last_peer + 1,
                            a->last_peer >= 0 ? a->last_ns - a->begin_ns : 0,
                            1 /* of a device; left out of others */};
    const int n_item = (int)(sizeof(item) / sizeof(item[0]));
    put_list(writer, item, a->is_of_device ? n_item : n_item - 1);
}

/* What has not ended by now never will: the run is failing. */
static void put_arrivals(struct mt_profile_writer *writer, struct mt_recorded_step *step)
{
    const struct mt_recorded_arrival *first = mt_record_arrival_at(step->first_arrival);
    const char *separator = "";
    if (step->has_arrivals_written || first == NULL || step->end_arrival == step->first_arrival) {
        return;
    }
    step->has_arrivals_written = true;
    put_new_kinds(writer);
    put_field(writer, "{\"waits\":", step->number);
    put_field(writer, ",\"first\":", first->number);
    put_text(writer, ",\"c\":[");
    for (int64_t i = step->first_arrival; i < step->end_arrival; ++i) {
        const struct mt_recorded_arrival *arrival = mt_record_arrival_at(i);
        if (arrival->done_ns > 0) {
            put_text(writer, separator);
            put_arrival(writer, arrival, first->number, step->begin_ns);
            separator = ",";
        }
    }
    end_line(writer, "]}");
}

static void put_span(struct mt_profile_writer *writer, const struct mt_recorded_span *span,
                     int64_t begin_ns)
{
    const int64_t item[] = {span->track,
                            span->phase,
                            span->layer,
                            span->micro,
                            span->begin_ns - begin_ns,
                            span->end_ns - span->begin_ns,
                            span->rows,
                            span->n_bytes};
    put_list(writer, item, sizeof(item) / sizeof(item[0]));
}

static void put_spans(struct mt_profile_writer *writer, struct mt_recorded_step *step)
{
    const char *separator = "";
    int64_t n_lost = 0;
    if (step->has_spans_written) {
        return;
    }
    step->has_spans_written = true;
    put_field(writer, "{\"spans\":", step->number);
    put_text(writer, ",\"s\":[");
    for (int64_t i = step->first_span; i < step->end_span; ++i) {
        const struct mt_recorded_span *span = mt_record_span_at(i);
        if (span == NULL || span->end_ns == 0) { /* forgotten; or its device has not said it */
            n_lost += span == NULL ? 1 : 0;
            continue;
        }
        put_text(writer, separator);
        put_span(writer, span, step->begin_ns);
        separator = ",";
    }
    put_field(writer, "],\"lost\":", n_lost);
    end_line(writer, "}");
}

/* Totals since the start: the last of these lines says all, and a killed run has one, too. */
static void put_experts(struct mt_profile_writer *writer)
{
    int64_t n_step = 0;
    const int64_t n_expert = mt_record_n_expert();
    const int64_t *rows = mt_record_expert_rows(&n_step);
    const char *separator = "";
    if (n_step == writer->n_expert_step || n_expert == 0) {
        return;
    }
    writer->n_expert_step = n_step;
    put_field(writer, "{\"experts\":", n_step);
    put_text(writer, ",\"e\":[");
    for (int64_t i = 0; i < mt_record_n_layer() * n_expert; ++i) {
        if (rows[i] != 0) {
            const int64_t item[] = {i / n_expert, i % n_expert, rows[i]};
            put_text(writer, separator);
            put_list(writer, item, sizeof(item) / sizeof(item[0]));
            separator = ",";
        }
    }
    end_line(writer, "]}");
}

/* After 1, 2, 4 .. steps, then once a window. */
static bool are_experts_due(const struct mt_profile_writer *writer)
{
    int64_t n_step = 0;
    (void)mt_record_expert_rows(&n_step);
    return n_step - writer->n_expert_step >=
           mt_max_i64(1, mt_min_i64(writer->n_expert_step, writer->window));
}

/* ---- which steps ---- */

static bool is_traced(const struct mt_profile_writer *writer, int64_t number)
{
    const int64_t in_window = number % mt_max_i64(writer->window, BLOCK_PERIOD);
    bool is_wanted = in_window >= BLOCK_FIRST && in_window < BLOCK_FIRST + BLOCK_STEPS;
    for (int i = 0; i < writer->trace_steps->n && !is_wanted; ++i) {
        is_wanted = writer->trace_steps->value[i] == number;
    }
    return is_wanted;
}

/* A power of two, so that a change of mind leaves most of the steps what they were. */
static int64_t detail_interval(const struct mt_profile_writer *writer, int64_t n_arrival,
                               int64_t step_ns)
{
    const double cost_ns = (double)n_arrival * ARRIVAL_NS;
    const int64_t least = 1 + writer->n_detail_bytes / DETAIL_BYTES;
    int64_t interval = 1;
    while (interval < least || cost_ns > DETAIL_SHARE * (double)step_ns * (double)interval) {
        interval *= 2;
    }
    return interval;
}

static void put_detail(struct mt_profile_writer *writer, int64_t position, int64_t step_ns)
{
    struct mt_recorded_step *step = mt_record_step(position);
    const int64_t n_arrival = step->end_arrival - step->first_arrival;
    const bool has_spans = is_traced(writer, step->number);
    if (has_spans || step->number % detail_interval(writer, n_arrival, step_ns) == 0) {
        put_arrivals(writer, step);
        writer->n_detail_bytes += n_arrival * ARRIVAL_BYTES;
    }
    if (has_spans) {
        put_spans(writer, step);
    }
}

void mt_profile_writer_step(struct mt_profile_writer *writer, int64_t step_ns)
{
    if (writer->fd < 0) {
        return;
    }
    writer->is_busy = true;
    writer->next_step = mt_max_i64(writer->next_step, mt_record_first_step());
    for (; writer->next_step < mt_record_n_step(); ++writer->next_step) {
        put_sums(writer, writer->next_step);
        if (writer->next_step > mt_record_first_step()) {
            put_detail(writer, writer->next_step - 1, mt_max_i64(step_ns, 1));
        }
    }
    if (are_experts_due(writer)) {
        put_experts(writer);
    }
    if (mt_clock_ns() - writer->flushed_ns >= FLUSH_NS) {
        flush(writer);
    }
    writer->is_busy = false;
}

void mt_profile_writer_dump(struct mt_profile_writer *writer, int64_t n)
{
    if (writer->fd < 0 || writer->is_busy) {
        return;
    }
    writer->is_busy = true;
    const int64_t end = mt_record_n_step();
    const int64_t first = mt_max_i64(mt_record_first_step(), end - n);
    for (; writer->next_step < end; ++writer->next_step) {
        put_sums(writer, writer->next_step);
    }
    for (int64_t position = first; position < end; ++position) {
        put_arrivals(writer, mt_record_step(position));
        put_spans(writer, mt_record_step(position));
    }
    put_experts(writer);
    flush(writer);
    writer->is_busy = false;
}

/* ---- the file ---- */

enum mt_status mt_profile_writer_open(struct mt_profile_writer *writer, const char *folder,
                                      bool is_resumed, const struct mt_profile_header *header,
                                      const struct mt_integer_list *trace_steps)
{
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (is_resumed ? 0 : O_TRUNC);
    *writer =
        (struct mt_profile_writer){.fd = -1, .window = header->window, .trace_steps = trace_steps};
    (void)snprintf(writer->path, sizeof(writer->path), "%s/rank-%05d.jsonl", folder, header->rank);
    MT_TRY(MT_ALLOCATE(writer->buffer, BUFFER_BYTES, "lines of a profile"));
    writer->fd = open(writer->path, flags, 0666);
    if (writer->fd < 0) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot write %s: %s; expected a writable run directory on every rank; "
                       "choose another with --run-dir, or set profile.enabled = false",
                       writer->path, strerror(errno));
    }
    if (is_resumed) {
        put_char(writer, '\n'); /* a killed run may have left half a line */
    }
    MT_TRY(put_header(writer, header));
    flush(writer);
    return MT_OK;
}

void mt_profile_writer_finish(struct mt_profile_writer *writer)
{
    mt_profile_writer_dump(writer, BLOCK_STEPS);
    if (writer->fd >= 0) {
        end_line(writer, "{\"end\":true}");
        flush(writer);
    }
    if (writer->fd >= 0) {
        (void)close(writer->fd);
        writer->fd = -1;
    }
}

void mt_profile_writer_close(struct mt_profile_writer *writer)
{
    if (writer->fd >= 0) {
        flush(writer);
    }
    if (writer->fd >= 0) {
        (void)close(writer->fd);
    }
    mt_memory_free(writer->buffer);
    *writer = (struct mt_profile_writer){.fd = -1};
}
