/* The recorder's entries as lines of profile/rank-00000.jsonl (format: docs/profiling.md).
 *
 *   every step      {"step":..}   sums by phase; rows and expert time by layer
 *   in detail       {"waits":..}  every collective: when posted, needed, complete
 *   traced          {"spans":..}  every span
 *   now and then    {"experts":..}  rows by layer and expert since the start
 *
 * Which steps are written in detail is the same on all ranks, since only together they say who
 * waited for whom. Lines are gathered in a buffer and written between steps, so a run that is
 * killed loses a second at most. A file that cannot be written is given up; training goes on. */
#ifndef MT_PROFILE_WRITER_H
#define MT_PROFILE_WRITER_H

#include "base/record.h"
#include "config/config.h"
#include "profile/profile.h"

/* What the first line says, beside names that the program knows. */
struct mt_profile_header {
    int rank, n_rank, node, local_rank;
    const char *host;
    const char *run;
    int n_layer;
    int64_t n_expert, window;
    int64_t session_utc_ns;    /* the start, by rank 0's wall clock: the same on all ranks */
    int64_t session_origin_ns; /* rank 0's mt_clock_ns at that moment */
};

struct mt_profile_writer {
    int fd;       /* -1: not open, or given up */
    bool is_busy; /* a line is being made */
    char *buffer;
    int64_t used_bytes;
    int64_t flushed_ns;
    int64_t next_step;      /* position in the recorder: sums not yet written */
    int64_t n_detail_bytes; /* of arrivals written, estimated alike on all ranks */
    int n_kind;             /* kinds that the file names */
    int64_t n_expert_step;  /* steps of the last line of experts' rows; 0: none yet */
    int64_t window;
    const struct mt_integer_list *trace_steps;
    char path[MT_PATH_BYTES + 64];
};

/* Bytes that open allocates. */
int64_t mt_profile_writer_bytes(void);
/* Opens folder/rank-00000.jsonl: anew, or to go on below what a resumed run has there. */
enum mt_status mt_profile_writer_open(struct mt_profile_writer *writer, const char *folder,
                                      bool is_resumed, const struct mt_profile_header *header,
                                      const struct mt_integer_list *trace_steps);
/* The run ends regularly: its last steps with their spans, and a line that says so. */
void mt_profile_writer_finish(struct mt_profile_writer *writer);
void mt_profile_writer_close(struct mt_profile_writer *writer); /* also after a failed open */

void mt_profile_writer_clock(struct mt_profile_writer *writer, const struct mt_profile_knot *knot);
/* Writes what is closed in the recorder: sums of the newest step, and detail of the one before,
 * whose collectives have ended by now. step_ns: of the slowest rank, the same on all: by it detail
 * is thinned out until it costs less than 0.3 % of the time. */
void mt_profile_writer_step(struct mt_profile_writer *writer, int64_t step_ns);
/* Arrivals and spans of the last n closed steps, as far as the rings have them and the file has
 * not; and flushes. Not while is_busy: then, on another thread, nothing is written. */
void mt_profile_writer_dump(struct mt_profile_writer *writer, int64_t n);

#endif
