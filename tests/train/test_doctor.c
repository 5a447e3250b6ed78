/* Judging ranks and machines with planted oddities; links are in test_doctor_links.c. */
#include "train/doctor_world.h"

#include <stdio.h>
#include <string.h>

static void healthy_ranks_are_not_odd(void **state)
{
    static const int n_ranks[] = {1, 2, 3, 4, 8, 33, 64};
    static const int uneven[] = {0, 0, 0, 1, 2, 2, 2};
    MT_UNUSED(state);
    for (size_t i = 0; i < sizeof(n_ranks) / sizeof(n_ranks[0]); i++) {
        for (int size = 1; size <= 8; size *= 2) {
            test_doctor_even(n_ranks[i], size);
            test_doctor_nothing();
        }
    }
    test_doctor_healthy((int)(sizeof(uneven) / sizeof(int)), uneven);
    test_doctor_nothing();
}

static void a_slow_rank_is_named_on_any_number_of_ranks(void **state)
{
    static const int n_ranks[] = {2, 3, 4, 8, 64};
    MT_UNUSED(state);
    for (size_t i = 0; i < sizeof(n_ranks) / sizeof(n_ranks[0]); i++) {
        for (int odd = 0; odd<n_ranks[i]; odd += n_ranks[i]> 8 ? 21 : 1) {
            char name[64];
            test_doctor_even(n_ranks[i], 4);
            test_doctor.needs.is_paced = true; /* so that it is not below its peak, too */
            test_doctor.facts[odd].gflops = 79.0;
            (void)snprintf(name, sizeof(name), "rank %d (host%d): matrix products: 79 GFLOP/s", odd,
                           odd / 4);
            test_doctor_only("products", 1, odd, name);
        }
    }
}

static void eight_tenths_of_the_median_are_enough_and_a_fast_rank_is_not_odd(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(4, 4);
    test_doctor.facts[2].gflops = 80.0;
    test_doctor.facts[2].copy_gbytes_per_s = 8.0;
    test_doctor.facts[3].gflops = 500.0;
    test_doctor.facts[3].peak_gflops = 500.0;
    test_doctor.facts[3].gflops_again = 500.0;
    test_doctor_nothing();
}

static void of_two_halves_the_slow_one_is_odd(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(4, 4);
    test_doctor.facts[1].copy_gbytes_per_s = test_doctor.facts[2].copy_gbytes_per_s = 5.0;
    test_doctor_judge();
    assert_int_equal(test_doctor.findings.n, 2);
    test_doctor_expect(0, "copies", 1, 1, "5 GB/s; expected at least 0.8 of the median, 10");
    test_doctor_expect(1, "copies", 1, 2, "rank 2 (host0)");
    test_doctor_clear();
}

static void what_was_not_measured_is_not_odd(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(4, 2);
    test_doctor.facts[0].copy_gbytes_per_s = 0.0;
    test_doctor.facts[1].gflops_again = 0.0;
    test_doctor.facts[2].cpu_share = 0.0;
    test_doctor.facts[3].disk_bytes = -1;
    memset(test_doctor.time_ps, 0, sizeof(test_doctor.time_ps));
    test_doctor_nothing();
}

static void a_rank_is_compared_with_itself(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(1, 1);
    test_doctor.facts[0].gflops_again = 70.0;
    test_doctor_only("throttling", 1, 0, "fell from 100 to 70");
    test_doctor_even(2, 2);
    test_doctor.facts[1].cpu_share = 0.5;
    test_doctor.facts[1].gflops_again = 50.0; /* for which there is a reason */
    test_doctor_only("busy", 1, 1, "had their cores 50 %");
    test_doctor_even(2, 1);
    test_doctor.facts[0].peak_gflops = 250.0;
    test_doctor_only("peak", 1, 0, "reach 100 of the 250");
    test_doctor_even(2, 1);
    test_doctor.facts[0].peak_gflops = 250.0;
    test_doctor.facts[0].gflops_again = 1.0;
    test_doctor.needs.is_paced = true;
    test_doctor_nothing();
}

static void fewer_threads_are_odd(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(4, 2);
    for (int rank = 0; rank < 3; rank++) {
        test_doctor.facts[rank].n_thread = 16;
    }
    test_doctor.facts[3].n_thread = 8;
    test_doctor_only("threads", 1, 3, "compute threads: 8 threads");
}

static void a_differing_library_is_named_with_both_versions(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(8, 4);
    (void)snprintf(test_doctor.facts[5].word[MT_WORD_MPI], MT_DOCTOR_WORD_BYTES, "Open MPI v4.1.6");
    test_doctor_only("library", 1, 5,
                     "rank 5 (host1): MPI: Open MPI v4.1.6; expected Open MPI v4.1.4, as");
    test_doctor_even(2, 1); /* a tie goes to the lower rank */
    (void)snprintf(test_doctor.facts[0].word[MT_WORD_HDF5], MT_DOCTOR_WORD_BYTES, "1.14.0");
    test_doctor_only("library", 1, 1, "HDF5: not set; expected 1.14.0");
    test_doctor_even(12, 4);
    for (int rank = 3; rank < 12; rank++) {
        (void)snprintf(test_doctor.facts[rank].word[MT_WORD_REVISION], MT_DOCTOR_WORD_BYTES, "new");
    }
    test_doctor_only("library", 3, 0, "ranks 0, 1 and 2: moetrain: not set; expected new");
}

static void a_differing_or_harmful_environment_is_named(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(4, 2);
    (void)snprintf(test_doctor.facts[2].word[MT_WORD_OMP_NUM_THREADS], MT_DOCTOR_WORD_BYTES, "1");
    test_doctor_only("environment", 1, 2, "OMP_NUM_THREADS: 1; expected not set");
    test_doctor_even(1, 1);
    (void)snprintf(test_doctor.facts[0].word[MT_WORD_OPENBLAS_CORETYPE], MT_DOCTOR_WORD_BYTES,
                   "Nehalem");
    test_doctor_only("environment", 1, 0, "OPENBLAS_CORETYPE is Nehalem");
    test_doctor_even(1, 1);
    (void)snprintf(test_doctor.facts[0].word[MT_WORD_HUGE_PAGES], MT_DOCTOR_WORD_BYTES, "never");
    test_doctor_only("environment", 1, 0, "transparent huge pages: never");
    for (int can = 0; can < 2; can++) {
        test_doctor_even(2, 2);
        for (int rank = 0; rank < 2; rank++) {
            (void)snprintf(test_doctor.facts[rank].word[MT_WORD_SINGLE_COPY], MT_DOCTOR_WORD_BYTES,
                           "none");
            test_doctor.facts[rank].can_single_copy = can;
        }
        if (can == 0) {
            test_doctor_nothing(); /* where the kernel forbids it, none is right */
        } else {
            test_doctor_only("environment", 2, 0, "single_copy_mechanism is none");
        }
    }
}

static void a_wall_clock_beyond_a_second_is_named(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(4, 1);
    test_doctor.facts[1].wall_ns = 900000000;
    test_doctor.facts[3].wall_ns = -5000000000;
    test_doctor_only("clock", 1, 3, "5 s behind");
    test_doctor_even(3, 1); /* rank 0, from which all are counted, is the odd one */
    test_doctor.facts[1].wall_ns = test_doctor.facts[2].wall_ns = 7000000000;
    test_doctor_only("clock", 1, 0, "7 s behind");
}

static void ranks_that_share_cores_are_named(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(4, 2);
    for (int rank = 2; rank < 4; rank++) {
        test_doctor.facts[rank].n_core = 1;
        test_doctor.facts[rank].core_last = 0;
        test_doctor.facts[rank].is_alone = 0;
        test_doctor.facts[rank].copy_gbytes_per_s = rank; /* the sharing's fault */
    }
    test_doctor_only("cores", 2, 2, "ranks 2 and 3 on host1: 2 threads on 1 cores");
    test_doctor_even(2, 2);
    test_doctor.facts[0].quota = test_doctor.facts[1].quota = 1;
    test_doctor_only("cores", 2, 0, "quota");
    test_doctor_even(1, 1); /* device.threads beyond the cores */
    test_doctor.facts[0].n_thread = 65;
    test_doctor_only("cores", 1, 0, "65 threads on 64 cores");
}

static void memory_and_disk_are_compared_with_needs(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(6, 3);
    test_doctor.needs = (struct mt_doctor_needs){.is_known = true,
                                                 .rank_bytes = INT64_C(20) << 30,
                                                 .checkpoint_bytes = INT64_C(20) << 30,
                                                 .n_checkpoint = 3,
                                                 .run_dir = "runs/x"};
    test_doctor_nothing();
    test_doctor_even(6, 3);
    test_doctor.needs.is_known = true;
    test_doctor.needs.rank_bytes = INT64_C(22) << 30;
    test_doctor.facts[0].memory_bytes = INT64_C(90) << 30;
    test_doctor_only("memory", 3, 3, "host1 has 64.00 GiB of memory available; expected 66.00");
    test_doctor_even(4, 2);
    test_doctor.needs = (struct mt_doctor_needs){.is_known = true,
                                                 .checkpoint_bytes = INT64_C(20) << 30,
                                                 .n_checkpoint = 3,
                                                 .run_dir = "runs/x"};
    test_doctor.facts[2].disk_bytes = INT64_C(50) << 30;
    test_doctor_only("disk", 2, 2, "runs/x on host1 has 50.00 GiB free; expected 60.00 for 3");
    test_doctor_even(2, 1);
    test_doctor.needs = (struct mt_doctor_needs){.is_known = true, .run_dir = "runs/x"};
    test_doctor.facts[1].is_writable = 0;
    test_doctor_only("disk", 1, 1, "runs/x cannot be written on host1");
}

static void machines_with_fewer_parts_and_far_gpus_are_named(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(6, 2);
    test_doctor.facts[4].n_nic = test_doctor.facts[5].n_nic = 1;
    test_doctor_only("parts", 1, 4, "its machine shows 1 network cards; expected 2");
    test_doctor_even(2, 2);
    test_doctor.facts[1].gpu_numa = 1;
    test_doctor_only("affinity", 1, 1, "its GPU hangs on memory node 1");
    test_doctor_even(2, 2);
    test_doctor.facts[1].gpu_numa = 0;
    test_doctor_nothing();
}

static void findings_beyond_the_room_for_them_are_counted(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(64, 64);
    for (int rank = 0; rank < 64; rank++) {
        test_doctor.facts[rank].gflops_again = 1.0;
        test_doctor.facts[rank].gflops_float32 = rank < 31 ? 1.0 : 2.0;
    }
    test_doctor_judge();
    assert_int_equal(test_doctor.findings.n, 64 + 31);
    test_doctor_clear();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(healthy_ranks_are_not_odd),
    cmocka_unit_test(a_slow_rank_is_named_on_any_number_of_ranks),
    cmocka_unit_test(eight_tenths_of_the_median_are_enough_and_a_fast_rank_is_not_odd),
    cmocka_unit_test(of_two_halves_the_slow_one_is_odd),
    cmocka_unit_test(what_was_not_measured_is_not_odd),
    cmocka_unit_test(a_rank_is_compared_with_itself),
    cmocka_unit_test(fewer_threads_are_odd),
    cmocka_unit_test(a_differing_library_is_named_with_both_versions),
    cmocka_unit_test(a_differing_or_harmful_environment_is_named),
    cmocka_unit_test(a_wall_clock_beyond_a_second_is_named),
    cmocka_unit_test(ranks_that_share_cores_are_named),
    cmocka_unit_test(memory_and_disk_are_compared_with_needs),
    cmocka_unit_test(machines_with_fewer_parts_and_far_gpus_are_named),
    cmocka_unit_test(findings_beyond_the_room_for_them_are_counted),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
