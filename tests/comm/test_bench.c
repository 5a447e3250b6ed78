/* The benchmark runs, verifies what it times, and prints a line for every collective. */
#include "support/mpi_main.h"

#include "base/job.h"
#include "comm/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void the_table_has_every_collective(void **state)
{
    static const char *const names[] = {
        "\nalltoallv ", "\nMPI_Alltoallv ",    "\nallgatherv ",      "\nreduce_scatter ",
        "\nallreduce ", "\nsparse_allgather ", "\nsparse_relay ",    "\nhot_allgather ",
        "\nhot_relay ", "\nhot_reduce ",       "\nhot_reduce_relay "};
    MT_UNUSED(state);
    struct mt_comm comm;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    MT_TEST_OK(mt_comm_init_mpi(&comm, mt_job_world(), 2));
    MT_TEST_OK(mt_bench_collectives(&comm, out));
    (void)fclose(out);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
        assert_true((strstr(text, names[i]) != NULL) == (comm.rank == 0));
    }
    free(text);
    mt_comm_clear(&comm);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(the_table_has_every_collective)};
MT_TEST_MPI_MAIN(tests)
