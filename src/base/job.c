/* The job's start, agreements and endings. The watchdog and the stop signals have their own files;
 * job_claim.c decides who speaks, job_speak.c how. */
#include "base/job.h"

#include "base/clock.h"
#include "base/job_internal.h"
#include "base/memory.h"
#include "base/random.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct mt_job mt_job = {.size = 1, .world = MPI_COMM_NULL};

enum mt_status mt_job_mpi_status(int mpi_code, const char *call, const char *file, int line)
{
    if (mpi_code == MPI_SUCCESS) {
        return MT_OK;
    }
    char reason[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    (void)MPI_Error_string(mpi_code, reason, &length);
    return mt_error_set(MT_ERR_INTERNAL, file, line,
                        "%.*s failed: %s; MPI was expected to succeed; look at the network and at "
                        "mpirun's output without -q",
                        (int)strcspn(call, "("), call, reason);
}

enum mt_status mt_job_init(int *argc, char ***argv)
{
    int provided = MPI_THREAD_SINGLE;
    mt_job.main_thread = pthread_self();
    /* Without mpirun Open MPI starts a daemon in its place, for processes that would start others:
     * 0.20 instead of 0.07 s until a command begins. */
    (void)setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    MT_TRY_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided));
    MT_TRY_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &mt_job.world));
    MT_TRY_MPI(MPI_Comm_set_errhandler(mt_job.world, MPI_ERRORS_RETURN));
    MT_TRY_MPI(MPI_Comm_rank(mt_job.world, &mt_job.rank));
    MT_TRY_MPI(MPI_Comm_size(mt_job.world, &mt_job.size));
    if (provided < MPI_THREAD_FUNNELED) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "this MPI library gives thread level %d; MPI_THREAD_FUNNELED (%d) is "
                       "needed; use a build of it with thread support",
                       provided, MPI_THREAD_FUNNELED);
    }
    if (gethostname(mt_job.host, sizeof(mt_job.host) - 1) != 0) {
        (void)snprintf(mt_job.host, sizeof(mt_job.host), "unknown host");
    }
    mt_job.host[strcspn(mt_job.host, ".")] = '\0';
    mt_job_claim_share(mt_job.world, mt_job.rank, mt_job.size);
    mt_job.is_started = true;
    return MT_OK;
}

bool mt_job_is_started(void)
{
    return mt_job.is_started;
}

int mt_job_rank(void)
{
    return mt_job.rank;
}

int mt_job_size(void)
{
    return mt_job.size;
}

const char *mt_job_host(void)
{
    return mt_job.host;
}

MPI_Comm mt_job_world(void)
{
    return mt_job.world;
}

static void speak_once(bool names_rank, enum mt_status status)
{
    if (!mt_job.is_spoken && mt_job_claim(status) == 0) {
        mt_job_speak_error(names_rank, status);
    }
    mt_job.is_spoken = true;
}

/* The failing rank's code and text become the record of every rank. */
static enum mt_status share_error(enum mt_status status, int root, enum mt_status *agreed)
{
    int code = status;
    char text[MT_ERROR_TEXT_BYTES];
    memcpy(text, mt_error_last()->text, sizeof(text));
    MT_TRY_MPI(MPI_Bcast(&code, 1, MPI_INT, root, mt_job.world));
    MT_TRY_MPI(MPI_Bcast(text, MT_ERROR_TEXT_BYTES, MPI_CHAR, root, mt_job.world));
    if (mt_job.rank != root) {
        mt_error_clear();
    }
    if (text[0] != '\0') {
        (void)MT_FAIL((enum mt_status)code, "%s", text);
    }
    *agreed = (enum mt_status)code;
    return MT_OK;
}

static enum mt_status agree_over_ranks(enum mt_status status, enum mt_status *agreed)
{
    /* Minima of: the failing rank; a hash of what failed; its complement. All ranks failed alike
     * when the smallest hash is the largest too. A rank without failure has hash 0. */
    uint64_t least[3] = {(uint64_t)mt_job.size, 0, UINT64_MAX};
    if (status != MT_OK) {
        least[0] = (uint64_t)mt_job.rank;
        least[1] = (mt_random_stream(mt_error_last()->text) + (uint64_t)status) | 1;
        least[2] = ~least[1];
    }
    MT_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, least, 3, MPI_UINT64_T, MPI_MIN, mt_job.world));
    *agreed = MT_OK;
    if (least[0] == (uint64_t)mt_job.size) {
        return MT_OK;
    }
    const bool is_alike = least[1] == ~least[2];
    if (least[0] == (uint64_t)mt_job.rank) {
        speak_once(!is_alike, status);
    }
    mt_job.is_spoken = true;
    return share_error(status, (int)least[0], agreed);
}

enum mt_status mt_job_agree(enum mt_status status)
{
    if (!mt_job.is_started) {
        if (status != MT_OK) {
            speak_once(false, status);
        }
        return status;
    }
    enum mt_status agreed = MT_OK;
    mt_job_watch_begin("the agreement of the ranks", 0);
    const enum mt_status exchanged = agree_over_ranks(status, &agreed);
    mt_job_watch_end();
    if (exchanged != MT_OK) {
        mt_job_abort(exchanged); /* ranks that cannot agree can only be ended */
    }
    return agreed;
}

/* hash [size]: the lowest rank that is not with the majority, or -1 when all are equal. */
static int odd_rank(const uint64_t *hash, int size)
{
    int64_t best = 0;
    uint64_t majority = hash[0];
    for (int i = 0; i < size && 2 * best <= size; ++i) {
        int64_t n_equal = 0;
        for (int j = 0; j < size; ++j) {
            n_equal += hash[j] == hash[i];
        }
        if (n_equal > best) {
            best = n_equal;
            majority = hash[i];
        }
    }
    for (int i = 0; i < size; ++i) {
        if (hash[i] != majority) {
            return i;
        }
    }
    return -1;
}

enum mt_status mt_job_check_same(uint64_t hash, const char *what)
{
    if (mt_job.size == 1) {
        return MT_OK;
    }
    uint64_t *all = NULL;
    enum mt_status status = MT_ALLOCATE(all, mt_job.size, "hashes of all ranks");
    if (status != MT_OK) {
        mt_job_abort(status); /* the others wait in the exchange below */
    }
    mt_job_watch_begin("the comparison of the ranks", 0);
    status =
        mt_job_mpi_status(MPI_Allgather(&hash, 1, MPI_UINT64_T, all, 1, MPI_UINT64_T, mt_job.world),
                          "MPI_Allgather", __FILE__, __LINE__);
    mt_job_watch_end();
    if (status == MT_OK) {
        const int odd = odd_rank(all, mt_job.size);
        if (odd >= 0) {
            status = MT_FAIL(MT_ERR_CONFIG,
                             "%s of rank %d differs from that of the others (hash %016llx, rank %d "
                             "has %016llx); all ranks must be given the same; start them with the "
                             "same files and arguments",
                             what, odd, (unsigned long long)all[odd], odd == 0 ? 1 : 0,
                             (unsigned long long)all[odd == 0 ? 1 : 0]);
        }
    }
    mt_memory_free(all);
    return status;
}

/* Ends this process and thereby the job. MPI is asked only from the thread it was started in; when
 * another thread ends the job, mpirun sees the exit code of this process and kills the rest. */
static void end_job(int code) __attribute__((noreturn));
static void end_job(int code)
{
    if (mt_job.is_started && pthread_equal(pthread_self(), mt_job.main_thread)) {
        (void)fflush(NULL);
        if (mt_job.size == 1) {
            (void)MPI_Finalize(); /* nobody to abort: end without the library's own lecture */
        } else {
            (void)MPI_Abort(MPI_COMM_WORLD, code);
        }
    }
    _exit(code);
}

/* Another rank is ending the job with `code`, and mpirun will kill this one. Should that rank be
 * lost on the way, this one does its work after 2 s. */
static void end_after_other(int code) __attribute__((noreturn));
static void end_after_other(int code)
{
    mt_clock_sleep_until_ns(mt_clock_ns() + (int64_t)2000000000);
    end_job(code);
}

static struct {
    mt_last_words_fn speak;
    void *context;
    atomic_flag is_spoken;
} last_words = {.is_spoken = ATOMIC_FLAG_INIT};

void mt_job_set_last_words(mt_last_words_fn speak, void *context)
{
    last_words.speak = speak;
    last_words.context = context;
}

void mt_job_speak_last_words(void)
{
    if (last_words.speak != NULL && !atomic_flag_test_and_set(&last_words.is_spoken)) {
        last_words.speak(last_words.context);
    }
}

void mt_job_abort(enum mt_status status)
{
    const enum mt_status code = status == MT_OK ? MT_ERR_INTERNAL : status;
    const int winner = mt_job.is_spoken ? 0 : mt_job_claim(code);
    if (winner == 0 && !mt_job.is_spoken) {
        mt_job_speak_error(true, code);
    }
    mt_job.is_spoken = true;
    (void)signal(SIGTERM, SIG_DFL); /* mpirun's way of killing: go at once, do not save */
    mt_job_speak_last_words();
    if (winner != 0) {
        end_after_other(winner);
    }
    end_job(code);
}

void mt_assert_failed(const char *condition, const char *file, int line, const char *function)
{
    const char *source = strstr(file, "src/");
    char text[1024];
    const int winner = mt_job_claim(MT_ERR_INTERNAL);
    if (winner == 0) {
        (void)snprintf(text, sizeof(text),
                       "internal error in %s: '%s' does not hold (%s:%d); this is a bug; please "
                       "report it with the configuration and this line",
                       function, condition, source != NULL ? source : file, line);
        mt_job_speak(true, text);
    }
    (void)signal(SIGTERM, SIG_DFL);
    if (mt_job.is_started && winner != 0) {
        end_after_other(winner);
    }
    if (!mt_job.is_started && winner == 0 && getenv("PMIX_NAMESPACE") != NULL) {
        /* Ranks that fail alike before MPI_Init find the claim as long as this process lives. */
        mt_clock_sleep_until_ns(mt_clock_ns() + (int64_t)300000000);
    }
    end_job(MT_ERR_INTERNAL);
}

int mt_job_finish(enum mt_status status)
{
    if (status != MT_OK && status != MT_STOPPED && mt_job.size > 1 && !mt_job.is_spoken) {
        mt_job_abort(status); /* not agreed: the others would wait for ever */
    }
    if (status != MT_OK) {
        speak_once(true, status);
    }
    mt_job_signals_finish();
    (void)fflush(NULL); /* when one rank has gone with a code, the launcher kills the others */
    int is_initialized = 0;
    int is_finalized = 0;
    (void)MPI_Initialized(&is_initialized);
    (void)MPI_Finalized(&is_finalized);
    if (is_initialized && !is_finalized) {
        mt_job_watch_begin("MPI_Finalize", 0);
        if (mt_job.world != MPI_COMM_NULL) {
            (void)MPI_Comm_free(&mt_job.world);
        }
        (void)MPI_Finalize();
        mt_job_watch_end();
    }
    mt_job.is_started = false;
    mt_job_watchdog_stop();
    (void)fflush(NULL);
    return (int)status;
}
