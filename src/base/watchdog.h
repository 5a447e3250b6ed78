/* The fourth ending of a job (base/job.h): a wait that does not end. Knows no MPI, so that rooms
 * below communication can have their waits watched. */
#ifndef MT_BASE_WATCHDOG_H
#define MT_BASE_WATCHDOG_H

#include "base/status.h"

#include <stdint.h>

/* `deadline_s` = 0: off. Every collective wait lies between begin and end, which are two
 * atomic stores. When one lasts longer, the watchdog thread writes which rank waits in which phase
 * for which collective, and ends the process with 124 without touching MPI. Only one rank's message
 * is wanted, yet every rank may be stuck: rank r is r * 20 ms later, and mpirun kills the rest. */
enum mt_status mt_job_watchdog_start(int64_t deadline_s);
void mt_job_watchdog_stop(void);
void mt_job_watch_begin(const char *collective, int64_t number);
void mt_job_watch_end(void);

#endif
