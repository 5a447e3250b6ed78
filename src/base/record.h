/* The recorder: what this rank did and when, in rings that are allocated once.
 *
 *   mt_span_begin/end (clock.h)   -> spans: phase, layer, micro-batch, rows, bytes
 *   comm/exec.c                   -> arrivals: when a collective was posted, needed, complete
 *   train/ at each step           -> steps: sums by phase, rows and times of experts by layer
 *   device/timeline.c             -> where a GPU computes: spans, and when collectives arrived
 *   moe/experts.c                 -> rows by layer and expert, summed since open
 *
 * A ring forgets its oldest entries, so it always has the last steps for whoever asks (SIGUSR2, the
 * watchdog, a failing end). profile/writer.h turns entries into lines. Everything is owned by the
 * main thread. Off until opened: then every call here costs one test.
 *
 * Time is that of mt_clock_ns. What it costs, on one core of an AMD EPYC (Zen 5, 2026-11): a span
 * nothing beside its two clock readings (52 ns either way), an arrival 60 ns. */
#ifndef MT_BASE_RECORD_H
#define MT_BASE_RECORD_H

#include "base/clock.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum mt_track {
    MT_TRACK_COMPUTE,
    MT_TRACK_CHECKPOINT,
    MT_TRACK_DATA,
    MT_TRACK_DEVICE, /* timed by the device itself: mt_record_device_begin */
    MT_N_TRACK
};

/* Entries of the rings, powers of two. A step of 16 layers and 8 micro-batches leaves some 3,000
 * spans and 1,500 arrivals: the rings have its last 8 steps at least. */
enum {
    MT_RECORD_SPANS = 1 << 15,
    MT_RECORD_ARRIVALS = 1 << 15,
    MT_RECORD_STEPS = 1 << 8,
    MT_RECORD_KINDS = 64
};

struct mt_recorded_span {
    int64_t begin_ns, end_ns; /* end 0: of a device, which has not said it yet */
    int64_t rows, n_bytes;
    int32_t layer, micro; /* -1: none */
    uint8_t phase, track;
};

/* This rank's part in one collective. need_ns and done_ns: 0 as long as they have not happened. */
struct mt_recorded_arrival {
    int64_t number;
    int64_t begin_ns, need_ns, done_ns;
    int64_t n_bytes;
    uint64_t sources;  /* bit r: receives from rank r; 0 when there are more than 64 */
    int64_t last_ns;   /* since when messages of last_peer alone were known to be missing */
    int32_t last_peer; /* -1: all were there at once */
    int32_t layer, micro;
    int16_t n_source, kind;
    uint8_t phase, busy_phase;
    bool is_of_device; /* times are the device's */
};

struct mt_recorded_step {
    int64_t number;
    int64_t begin_ns, end_ns, until_ns;
    int64_t phase_ns[MT_N_PHASE], wait_ns[MT_N_PHASE];
    int64_t n_token;
    int64_t memory_bytes;
    int64_t device_error_ns;            /* 0: there is no device's time in it */
    int64_t first_arrival, end_arrival; /* positions, ever growing: entry i is ring[i % size] */
    int64_t first_span, end_span;
    bool has_arrivals_written, has_spans_written;
};

/* Bytes that open takes: for the memory estimate. */
int64_t mt_record_bytes(int n_layer, int64_t n_expert);
enum mt_status mt_record_open(int n_layer, int64_t n_expert);
void mt_record_close(void);
bool mt_record_is_on(void);
/* While paused nothing is recorded but sums: for what is not training, as measuring links is. */
void mt_record_pause(bool is_paused);

/* Where spans and arrivals from now on belong; -1: nowhere. */
void mt_record_set_layer(int layer);
void mt_record_set_micro(int micro);
/* Rows that an expert computes forward: added to the innermost open span, to the step's layer and
 * to the expert. */
void mt_record_add_rows(int expert, int64_t rows);
/* Of the step's tokens on this rank. */
void mt_record_add_tokens(int64_t n_token);

/* A collective was posted: its bytes are added to the innermost open span. The handle is for the
 * calls below. */
struct mt_collective_facts {
    const char *name; /* a literal: the kind */
    int64_t number;
    int64_t n_bytes;
    int n_source;
    uint64_t sources;
    bool is_of_device; /* which tells later when it came to it: mt_record_device_arrive */
};
int64_t mt_record_arrive(const struct mt_collective_facts *facts);
void mt_record_done(int64_t handle);                  /* found complete */
void mt_record_last(int64_t handle, int peer);        /* found that peer's messages are missing */
void mt_record_need(int64_t handle, int64_t need_ns); /* its wait was entered */

/* Work that a device does later and times itself, by events. begin: when it is enqueued; the span
 * has this place (layer, micro-batch). end: when its events have been read, with times on
 * mt_clock_ns's clock. Spans of a step are written when the next one has ended: what has no end by
 * then is left out. They have a track of their own. */
int64_t mt_record_device_begin(enum mt_phase phase, int64_t rows, int64_t n_bytes);
void mt_record_device_end(int64_t handle, int64_t begin_ns, int64_t end_ns);
/* The same of a collective: when the device came to its begin, told in the order of its work, and
 * later when it came to its end and when everything had travelled. */
void mt_record_device_arrive(int64_t handle, int64_t begin_ns);
void mt_record_device_done(int64_t handle, int64_t need_ns, int64_t done_ns);
/* Times that the device told in this step may be off by so much. */
void mt_record_device_error(int64_t error_ns);
/* Where what is enqueued now belongs; -1: nowhere. */
int mt_record_layer(void);
int mt_record_micro(void);

/* One step. Sums go from begin to end; what follows until the next begin counts as the phases
 * checkpoint, metrics and eval. */
void mt_record_step_begin(int64_t number);
void mt_record_step_end(void);
/* Closes the step after which the next one begins, or nothing; called by step_begin. */
void mt_record_step_close(void);

/* Reading. Steps [first, n) are there, the last one closed; rows and times of its experts by layer,
 * [n_layer]. */
int64_t mt_record_n_step(void);
int64_t mt_record_first_step(void);
struct mt_recorded_step *mt_record_step(int64_t position);
const int64_t *mt_record_rows(int64_t position);
const int64_t *mt_record_expert_ns(int64_t position);
/* Rows that experts computed here in all steps that have ended since open, [n_layer, n_expert]. */
const int64_t *mt_record_expert_rows(int64_t *n_step);
int64_t mt_record_n_expert(void);
int mt_record_n_layer(void);
/* NULL: forgotten. */
const struct mt_recorded_span *mt_record_span_at(int64_t position);
const struct mt_recorded_arrival *mt_record_arrival_at(int64_t position);
int mt_record_n_kind(void);
const char *mt_record_kind(int kind);

/* For clock.c: a span of `phase` is over. */
void mt_record_span(enum mt_phase phase, int64_t begin_ns, int64_t end_ns, int64_t rows,
                    int64_t n_bytes);
/* For clock.c: time that the innermost phase was charged; that a phase was, in this layer. */
void mt_record_charge(enum mt_phase phase, int64_t ns);
void mt_record_charge_at(enum mt_phase phase, int layer, int64_t ns);

#endif
