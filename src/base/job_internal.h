/* What the files of the job share: who this process is, and who may speak. Only job*.c include
 * it. */
#ifndef MT_BASE_JOB_INTERNAL_H
#define MT_BASE_JOB_INTERNAL_H

#include <mpi.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct mt_job {
    bool is_started; /* between a successful mt_job_init and mt_job_finish */
    bool is_spoken;  /* the failure of this job has been spoken, maybe by another rank */
    int rank;
    int size;       /* 1 before the start */
    char host[65];  /* short name; "" before the start */
    MPI_Comm world; /* MPI_COMM_NULL before the start */
    pthread_t main_thread;
};
extern struct mt_job mt_job;

/* Collective over `world`: from now on the ranks of a host share one claim. */
void mt_job_claim_share(MPI_Comm world, int rank, int size);

/* The right to speak for this job's failure with exit code `code`. 0: granted, now and to nobody
 * else on this host. Otherwise the code with which another one is ending the job. Safe in a signal
 * handler and without MPI. */
int mt_job_claim(int code);

/* What a rank shows to the others of its host, so that a watchdog can name the one that is missing:
 * the collective that it began last, and a sign of life ten times a second. Safe from any thread;
 * without a shared page nothing is shown and nobody is named. */
void mt_job_show_collective(int64_t number);
void mt_job_show_life(void);

/* Writes which rank of this host is missing and why, e.g. "rank 3 has not run for 5 s"; "" when
 * none stands out: then it is on another host. */
void mt_job_find_missing(int64_t number, char *text, size_t bytes);

/* Writes "moetrain: rank 5 (node17) step 1200 moe.dispatch: text" to standard error. The rank is
 * left out in a job of one rank and when `names_rank` is false. Safe from any thread. */
void mt_job_speak(bool names_rank, const char *text);

/* As mt_job_speak with the calling thread's error record; says nothing about MT_STOPPED (75)
 * without a record. */
void mt_job_speak_error(bool names_rank, int code);

/* Calls what mt_job_set_last_words was given, once. */
void mt_job_speak_last_words(void);

/* From here on stop signals change nothing: the process is ending, and mpirun sends SIGTERM to
 * ranks that end a moment later than the first. */
void mt_job_signals_finish(void);

#endif
