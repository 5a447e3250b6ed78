/* Monotonic time, and the spans that the step is made of.
 *
 * Spans are always on: begin and end cost two clock readings. A span belongs to a named phase;
 * per step and phase the time is summed, and handed to metrics (`phase_s`) and to the recorder
 * (base/record.h). */
#ifndef MT_BASE_CLOCK_H
#define MT_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t mt_clock_ns(void);

/* Processor time of this process, all its threads. */
int64_t mt_clock_cpu_ns(void);

/* Sleeps until mt_clock_ns() >= deadline_ns; returns at once when that has passed. */
void mt_clock_sleep_until_ns(int64_t deadline_ns);

/* Seconds since the epoch. */
double mt_clock_epoch_s(void);

/* Seconds since the epoch as ISO 8601 UTC, e.g. 2026-11-22T02:12:01Z. out [21] */
void mt_clock_utc(char out[21]);

/* The phases of a step: one list, in the order in which reports print them. Names are what
 * metrics.jsonl carries below `phase_s`. */
#define MT_PHASES(X)                                       \
    X(MT_PHASE_DATA, "data")                               \
    X(MT_PHASE_PLAN, "plan")                               \
    X(MT_PHASE_EMBED, "embed")                             \
    X(MT_PHASE_ATTENTION, "attention")                     \
    X(MT_PHASE_GATE, "moe.gate")                           \
    X(MT_PHASE_DISPATCH, "moe.dispatch")                   \
    X(MT_PHASE_EXPERT, "moe.expert")                       \
    X(MT_PHASE_COMBINE, "moe.combine")                     \
    X(MT_PHASE_DENSE_FFN, "dense_ffn")                     \
    X(MT_PHASE_HEAD, "head")                               \
    X(MT_PHASE_EMBED_BACKWARD, "embed.backward")           \
    X(MT_PHASE_ATTENTION_BACKWARD, "attention.backward")   \
    X(MT_PHASE_GATE_BACKWARD, "moe.gate.backward")         \
    X(MT_PHASE_DISPATCH_BACKWARD, "moe.dispatch.backward") \
    X(MT_PHASE_EXPERT_BACKWARD, "moe.expert.backward")     \
    X(MT_PHASE_COMBINE_BACKWARD, "moe.combine.backward")   \
    X(MT_PHASE_DENSE_FFN_BACKWARD, "dense_ffn.backward")   \
    X(MT_PHASE_HEAD_BACKWARD, "head.backward")             \
    X(MT_PHASE_MATERIALIZE, "materialize")                 \
    X(MT_PHASE_REDUCE, "reduce")                           \
    X(MT_PHASE_CLIP, "clip")                               \
    X(MT_PHASE_UPDATE, "update")                           \
    X(MT_PHASE_CHECKPOINT, "checkpoint")                   \
    X(MT_PHASE_EVAL, "eval")                               \
    X(MT_PHASE_METRICS, "metrics")

enum mt_phase {
#define MT_PHASE_ENUM(id, name) id,
    MT_PHASES(MT_PHASE_ENUM)
#undef MT_PHASE_ENUM
        MT_N_PHASE
};

const char *mt_phase_name(enum mt_phase phase);
/* The host works in it even where a GPU computes: reading, planning, saving, metrics. */
bool mt_phase_is_of_host(enum mt_phase phase);

/* Spans may nest; time counts for the innermost one only, so that the phases of a step add up to
 * at most the step. Where a GPU computes, sums are of its time (base/device_time.h). Owned by the
 * main thread. Nesting at most 16 deep. */
void mt_span_begin(enum mt_phase phase);
void mt_span_end(enum mt_phase phase);

/* Time waited inside a span for others to communicate: the step's exposed communication. */
void mt_span_add_wait_ns(int64_t wait_ns);
/* Work done inside the innermost open span, if any: rows of experts, (token, choice) pairs or
 * tokens; bytes sent, read or saved (base/record.h). */
void mt_span_add_work(int64_t rows, int64_t n_bytes);
/* For device_time.c: time of a phase, of which wait_ns standing still. MT_N_PHASE: of none. */
void mt_span_count(enum mt_phase phase, int layer, int64_t ns, int64_t wait_ns);
/* Brings the sums up to now, and returns now. */
int64_t mt_span_charge(void);

/* What was summed since the last reset. */
struct mt_span_totals {
    int64_t phase_ns[MT_N_PHASE];
    int64_t wait_ns[MT_N_PHASE]; /* of which waited for others */
    int64_t exposed_wait_ns;     /* waited for others, in all */
};
void mt_span_totals(struct mt_span_totals *totals);
void mt_span_reset(void);

/* The innermost open phase, for the main thread; MT_N_PHASE: none. */
enum mt_phase mt_span_phase(void);

/* The innermost open phase, or NULL: for error messages ("moe.dispatch") and the watchdog. May be
 * called from any thread. */
const char *mt_span_current(void);

#endif
