#include "support/mpi_main.h"

#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* CMocka prints through stdout and stderr; for the time of a test both variables point to a
 * temporary file. File descriptor 2 stays, so that sanitizers and base/job.c are still heard. */
static int run_captured(const struct CMUnitTest *test, FILE *capture)
{
    FILE *const saved_stdout = stdout;
    FILE *const saved_stderr = stderr;
    const int64_t n_live = mt_memory_n_live();
    stdout = capture;
    stderr = capture;
    int n_failed = _cmocka_run_group_tests(test->name, test, 1, NULL, NULL);
    if (n_failed == 0 && mt_memory_n_live() != n_live) {
        (void)fprintf(capture, "%lld allocations of base/memory.h were not freed\n",
                      (long long)(mt_memory_n_live() - n_live));
        n_failed = 1;
    }
    stdout = saved_stdout;
    stderr = saved_stderr;
    return n_failed;
}

/* One write a rank, so that the reports of several ranks do not mix. */
static void print_captured(FILE *capture, const char *test)
{
    static char text[16384];
    rewind(capture);
    const size_t n = fread(text, 1, sizeof(text) - 1, capture);
    text[n] = '\0';
    (void)fprintf(stderr, "rank %d failed %s:\n%s", mt_job_rank(), test, text);
    (void)fflush(stderr);
}

/* True when any rank failed. A failed rank does not wait for ever: the others may hang. */
static int any_failed(MPI_Comm comm, int failed)
{
    int any = 0;
    int is_done = 0;
    MPI_Request request = MPI_REQUEST_NULL;
    const int64_t give_up_ns = mt_clock_ns() + (int64_t)10000000000;
    (void)MPI_Iallreduce(&failed, &any, 1, MPI_INT, MPI_MAX, comm, &request);
    while (!is_done) {
        (void)MPI_Test(&request, &is_done, MPI_STATUS_IGNORE);
        if (!is_done && failed && mt_clock_ns() > give_up_ns) {
            (void)MPI_Abort(MPI_COMM_WORLD, 1);
        }
        if (!is_done) {
            mt_clock_sleep_until_ns(mt_clock_ns() + 50000);
        }
    }
    (void)MPI_Wait(&request, MPI_STATUS_IGNORE);
    return any;
}

int mt_test_mpi_main(int argc, char **argv, const struct CMUnitTest *tests, int n)
{
    if (mt_job_init(&argc, &argv) != MT_OK) {
        return mt_job_finish(MT_ERR_INTERNAL);
    }
    MPI_Comm comm = MPI_COMM_NULL;
    (void)MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    const char *filter = argc > 1 ? argv[1] : "";
    int failed = 0;
    for (int i = 0; i < n && !failed; ++i) {
        if (strstr(tests[i].name, filter) == NULL) {
            continue;
        }
        FILE *capture = tmpfile();
        if (capture == NULL) {
            (void)MPI_Abort(MPI_COMM_WORLD, 1);
            abort();
        }
        const int mine = run_captured(&tests[i], capture) != 0;
        if (mine) {
            print_captured(capture, tests[i].name);
        }
        (void)fclose(capture);
        failed = any_failed(comm, mine);
        if (mt_job_rank() == 0) {
            printf("%s %s on %d ranks\n", failed ? "FAILED" : "ok", tests[i].name, mt_job_size());
            (void)fflush(stdout);
        }
        mt_error_clear();
    }
    (void)MPI_Comm_free(&comm);
    const int code = mt_job_finish(MT_OK);
    return failed ? 1 : code;
}
