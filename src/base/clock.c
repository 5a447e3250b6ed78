/* Spans keep one stack and one time stamp: whenever the stack changes, what passed since the stamp
 * is added to the phase that was on top. So a nanosecond is counted once. */
#include "base/clock.h"

#include "base/device_time.h"
#include "base/ranges.h"
#include "base/record.h"
#include "base/size.h"
#include "base/status.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum { SPAN_DEPTH_MAX = 16 };

static const char *const phase_names[MT_N_PHASE] = {
#define MT_PHASE_NAME(id, name) [id] = (name),
    MT_PHASES(MT_PHASE_NAME)
#undef MT_PHASE_NAME
};

struct open_span {
    enum mt_phase phase;
    int64_t begin_ns;
    int64_t rows, n_bytes;
};

static struct {
    struct open_span stack[SPAN_DEPTH_MAX];
    int depth;
    int64_t stamp_ns; /* until when time has been charged */
    struct mt_span_totals totals;
} span;

/* Written by the main thread, read by the watchdog. */
static _Atomic(const char *) span_current;

int64_t mt_clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t mt_clock_cpu_ns(void)
{
    struct timespec used;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

void mt_clock_sleep_until_ns(int64_t deadline_ns)
{
    if (deadline_ns <= mt_clock_ns()) {
        return;
    }
    const struct timespec deadline = {.tv_sec = deadline_ns / 1000000000,
                                      .tv_nsec = deadline_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, NULL) == EINTR) {
        /* a signal woke us: the deadline is absolute, so sleep on */
    }
}

double mt_clock_epoch_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void mt_clock_utc(char out[21])
{
    const time_t now = time(NULL);
    struct tm utc;
    out[0] = '\0';
    if (gmtime_r(&now, &utc) != NULL) {
        (void)strftime(out, 21, "%Y-%m-%dT%H:%M:%SZ", &utc);
    }
}

const char *mt_phase_name(enum mt_phase phase)
{
    MT_ASSERT((int)phase >= 0 && phase < MT_N_PHASE);
    return phase_names[phase];
}

bool mt_phase_is_of_host(enum mt_phase phase)
{
    switch (phase) {
    case MT_PHASE_DATA:
    case MT_PHASE_PLAN:
    case MT_PHASE_CHECKPOINT:
    case MT_PHASE_EVAL:
    case MT_PHASE_METRICS:
        return true;
    default:
        return false;
    }
}

enum mt_phase mt_span_phase(void)
{
    return span.depth > 0 ? span.stack[span.depth - 1].phase : MT_N_PHASE;
}

static void charge_until(int64_t now_ns)
{
    const enum mt_phase phase = mt_span_phase();
    if (mt_device_time_is_on()) {
        mt_device_time_host(phase, span.stamp_ns, now_ns, false);
    } else if (phase != MT_N_PHASE) {
        span.totals.phase_ns[phase] += now_ns - span.stamp_ns;
        mt_record_charge(phase, now_ns - span.stamp_ns);
    }
    span.stamp_ns = now_ns;
}

int64_t mt_span_charge(void)
{
    const int64_t now_ns = mt_clock_ns();
    charge_until(now_ns);
    return now_ns;
}

static void publish_innermost(void)
{
    const char *name = span.depth > 0 ? phase_names[span.stack[span.depth - 1].phase] : NULL;
    atomic_store_explicit(&span_current, name, memory_order_relaxed);
}

void mt_span_begin(enum mt_phase phase)
{
    MT_ASSERT((int)phase >= 0 && phase < MT_N_PHASE);
    MT_ASSERT(span.depth < SPAN_DEPTH_MAX);
    mt_device_time_change_phase();
    span.stack[span.depth] = (struct open_span){.phase = phase, .begin_ns = mt_span_charge()};
    ++span.depth;
    mt_range_push(phase_names[phase]);
    publish_innermost();
}

void mt_span_end(enum mt_phase phase)
{
    MT_ASSERT(span.depth > 0 && span.stack[span.depth - 1].phase == phase);
    mt_device_time_change_phase();
    const int64_t now_ns = mt_span_charge();
    const struct open_span *top = &span.stack[--span.depth];
    mt_range_pop();
    mt_record_span(phase, top->begin_ns, now_ns, top->rows, top->n_bytes);
    publish_innermost();
}

void mt_span_add_work(int64_t rows, int64_t n_bytes)
{
    if (span.depth > 0) {
        span.stack[span.depth - 1].rows += rows;
        span.stack[span.depth - 1].n_bytes += n_bytes;
    }
}

void mt_span_add_wait_ns(int64_t wait_ns)
{
    MT_ASSERT(wait_ns >= 0);
    if (mt_device_time_is_on()) {
        const int64_t now_ns = mt_clock_ns();
        charge_until(mt_max_i64(span.stamp_ns, now_ns - wait_ns));
        mt_device_time_host(mt_span_phase(), span.stamp_ns, now_ns, true);
        span.stamp_ns = now_ns;
        return;
    }
    span.totals.exposed_wait_ns += wait_ns;
    if (span.depth > 0) {
        const enum mt_phase phase = span.stack[span.depth - 1].phase;
        span.totals.wait_ns[phase] += wait_ns;
        mt_record_charge(phase, -wait_ns);
    }
}

void mt_span_count(enum mt_phase phase, int layer, int64_t ns, int64_t wait_ns)
{
    span.totals.exposed_wait_ns += wait_ns;
    if (phase != MT_N_PHASE) {
        span.totals.phase_ns[phase] += ns;
        span.totals.wait_ns[phase] += wait_ns;
        mt_record_charge_at(phase, layer, ns - wait_ns);
    }
}

void mt_span_totals(struct mt_span_totals *totals)
{
    (void)mt_span_charge();
    *totals = span.totals;
}

void mt_span_reset(void)
{
    (void)mt_span_charge();
    memset(&span.totals, 0, sizeof(span.totals));
}

const char *mt_span_current(void)
{
    return atomic_load_explicit(&span_current, memory_order_relaxed);
}
