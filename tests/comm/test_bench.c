/* The benchmark runs, verifies what it times, and prints a line for every collective. */
#include "support/mpi_main.h"

#include "base/job.h"
#include "comm/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum mt_bench_way choose_leader(void *context, const int64_t *n_row, int64_t row_bytes,
                                       int64_t top_k, bool sums_may_differ)
{
    MT_UNUSED(context);
    MT_UNUSED(sums_may_differ);
    assert_true(n_row[0] >= 0 && row_bytes >= 1 && (top_k == 1 || top_k == 8));
    return MT_BENCH_LEADER;
}

static void the_table_has_every_collective(void **state)
{
    static const char *const names[] = {"\ndirect ",
                                        "\nhierarchical   even",
                                        "\nleader         hot",
                                        "\ndeduplicated   rows",
                                        "\nMPI_Alltoallv  hot",
                                        "  leader, ",
                                        "(sums may differ)",
                                        "\nallgatherv ",
                                        "\nreduce_scatter ",
                                        "\nallreduce ",
                                        "\nsparse_allgather ",
                                        "\nsparse_relay ",
                                        "\nhot_allgather ",
                                        "\nhot_relay ",
                                        "\nhot_chain ",
                                        "\nhot_reduce ",
                                        "\nhot_reduce_relay ",
                                        "\nhot_reduce_chain ",
                                        "\none_chain ",
                                        "  sparse_reduce_relay\n",
                                        "  sparse_allgather"};
    MT_UNUSED(state);
    struct mt_comm comm;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    MT_TEST_OK(mt_comm_init_mpi(&comm, mt_job_world(), 2));
    const struct mt_bench_options options = {.links = {.alpha_ps = {1, 1}, .kib_ps = {1, 1}},
                                             .choose = choose_leader};
    MT_TEST_OK(mt_bench_collectives(&comm, &options, out));
    (void)fclose(out);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
        assert_true((strstr(text, names[i]) != NULL) == (comm.rank == 0));
    }
    free(text);
    mt_comm_clear(&comm);
}

static void only_those_are_run_that_are_asked_for(void **state)
{
    MT_UNUSED(state);
    struct mt_comm comm;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    MT_TEST_OK(mt_comm_init_mpi(&comm, mt_job_world(), 2));
    const struct mt_bench_options options = {
        .links = {.alpha_ps = {1, 1}, .kib_ps = {1, 1}}, .most_bytes = 4096, .only = "one_"};
    MT_TEST_OK(mt_bench_collectives(&comm, &options, out));
    (void)fclose(out);
    assert_true((strstr(text, "\none_auto ") != NULL) == (comm.rank == 0));
    assert_null(strstr(text, "hot_auto"));
    assert_null(strstr(text, "direct"));
    free(text);
    mt_comm_clear(&comm);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(the_table_has_every_collective),
                                          cmocka_unit_test(only_those_are_run_that_are_asked_for)};
MT_TEST_MPI_MAIN(tests)
