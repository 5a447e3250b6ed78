/* The job: all ranks of one run, and its five endings.
 *
 * 1. One rank knows: it speaks and MPI_Aborts the others           mt_job_abort
 * 2. Every rank computes the same error: rank 0 speaks             mt_job_agree
 * 3. Some ranks fail on the way to a meeting point: they agree,    mt_job_agree
 *    the lowest failing rank speaks
 * 4. A peer is stuck: a watchdog thread writes and _exits(124)     mt_job_watch_*
 * 5. One rank crashes: its handler writes and _exits(1)            mt_job_crashes_install
 *
 * Any failure prints exactly one message on standard error:
 *   moetrain: rank 5 (node17) step 1200 moe.dispatch: what happened; what was expected; what to do
 * "rank .. step .. phase" are left out where they say nothing (rank 0 of an agreed error, no step).
 */
#ifndef MT_BASE_JOB_H
#define MT_BASE_JOB_H

#include "base/status.h"
#include "base/watchdog.h"

#include <mpi.h>
#include <stdint.h>

/* Initialises MPI (MPI_THREAD_FUNNELED) and this module. */
enum mt_status mt_job_init(int *argc, char ***argv);
bool mt_job_is_started(void);
int mt_job_rank(void);
int mt_job_size(void);
const char *mt_job_host(void);
MPI_Comm mt_job_world(void); /* a duplicate of MPI_COMM_WORLD with MPI_ERRORS_RETURN */

/* The step that messages name; 0 = none. */
void mt_job_set_step(int64_t step);

/* Collective. MT_OK when every rank passes MT_OK; else the failure of the lowest failing rank on
 * every rank, spoken once by that rank ("rank 0" left out when all failed alike). */
enum mt_status mt_job_agree(enum mt_status status);

/* Collective. The sum over all ranks is compared: MT_ERR_CONFIG naming the odd rank when `hash`
 * is not the same everywhere. `what` e.g. "the resolved configuration". */
enum mt_status mt_job_check_same(uint64_t hash, const char *what);

/* This rank alone failed while the others compute: speaks the recorded error, ends the job with
 * `status`. When several ranks of a host get here at once, one of them speaks. */
void mt_job_abort(enum mt_status status) __attribute__((noreturn));

/* Normal ending, after an agreed status: finalises MPI and returns the exit code. A failure that
 * was not agreed on ends as mt_job_abort does. Everything spoken
 * has been flushed. Safe to call when mt_job_init failed or was never called. */
int mt_job_finish(enum mt_status status);

/* Stop requests: the first SIGUSR1, SIGTERM or SIGINT (unless that was ignored) sets a flag, a
 * second one leaves at once (code 75 without saving). The flag is local; the step loop shares it in
 * its metrics sum. */
enum mt_status mt_job_signals_install(void);
bool mt_job_stop_requested(void);

/* SIGUSR2 asks for the last window of the profile: true once for each request. */
bool mt_job_dump_requested(void);

/* What is done last when this process ends by mt_job_abort or the watchdog: writing a file, no MPI.
 * The watchdog calls it on its own thread while the main thread waits in a collective. NULL: none.
 */
typedef void (*mt_last_words_fn)(void *context);
void mt_job_set_last_words(mt_last_words_fn speak, void *context);

/* Before mt_job_init: from now on SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT end the process with
 * one message and code 1. */
void mt_job_crashes_install(void);

/* A foreign call and its own words: MT_TRY_MPI(MPI_Bcast(...)) */
enum mt_status mt_job_mpi_status(int mpi_code, const char *call, const char *file, int line);
#define MT_TRY_MPI(call) MT_TRY(mt_job_mpi_status((call), #call, __FILE__, __LINE__))

#endif
