/* The traced steps of a profile in the Trace Event Format of Chrome, which Perfetto and
 * chrome://tracing open: one process a rank, its tracks below it.
 *
 *   steps and work   a step, the phases inside it, and inside these the waits
 *   checkpoint, data what runs beside them
 *   device           what a device timed itself, if any
 *   messages 1, 2 .. a collective from its post until it was found complete; those that are under
 *                    way together lie on tracks of their own
 *
 * On every track events nest: each lies whole inside the one before it or begins after its end. */
#ifndef MT_PROFILE_TRACE_EXPORT_H
#define MT_PROFILE_TRACE_EXPORT_H

#include "profile/profile.h"

/* Of the file before compression (gzip makes about a fifteenth of it). Browsers open this much; of
 * 64 ranks it is about 40 steps. */
extern const int64_t MT_TRACE_MAX_BYTES;

struct mt_trace_export {
    int n_step;         /* written */
    int64_t first_step; /* number of the first of them; 0: none */
    int n_left_out;     /* earlier traced steps, for which there was no room */
    int64_t n_event;
};

/* Writes path, compressed when it ends with ".gz": the last traced steps that fit max_bytes, one at
 * least. MT_ERR_INPUT when no step was traced, MT_ERR_RESOURCE when the file cannot be written. */
enum mt_status mt_trace_export(const struct mt_profile *profile, const char *path,
                               int64_t max_bytes, struct mt_trace_export *result);

#endif
