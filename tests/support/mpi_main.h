/* CMocka under MPI: the same list of tests on every rank, and one verdict.
 *
 * After each test the ranks agree. When it passed everywhere, rank 0 says so; otherwise every rank
 * that failed prints what CMocka said and all ranks end with code 1. A rank that waits for others
 * who hang inside the failed test gives up after 10 s and aborts the job. Allocations that are
 * still live after a test (base/memory.h) fail it. */
#ifndef MT_TEST_SUPPORT_MPI_MAIN_H
#define MT_TEST_SUPPORT_MPI_MAIN_H

#include "support/test.h"

/* The program's main: starts the job (base/job.h), runs, finishes. tests [n]. argv[1], when given,
 * selects the tests whose name contains it. */
int mt_test_mpi_main(int argc, char **argv, const struct CMUnitTest *tests, int n);

#define MT_TEST_MPI_MAIN(tests)                                                                  \
    int main(int argc, char **argv)                                                              \
    {                                                                                            \
        return mt_test_mpi_main(argc, argv, (tests), (int)(sizeof(tests) / sizeof((tests)[0]))); \
    }

#endif
