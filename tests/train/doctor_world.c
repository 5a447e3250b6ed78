#include "train/doctor_world.h"

#include <stdio.h>
#include <string.h>

struct test_doctor test_doctor;

static void make_healthy_rank(int rank)
{
    struct mt_doctor_facts *facts = &test_doctor.facts[rank];
    *facts = (struct mt_doctor_facts){
        .machine = mt_topology_leader(&test_doctor.topology, test_doctor.topology.node[rank]),
        .gflops = 100.0,
        .gflops_again = 99.0,
        .peak_gflops = 110.0,
        .cpu_share = 0.99,
        .copy_gbytes_per_s = 10.0,
        .core_last = 63,
        .n_core = 64,
        .n_thread = 1,
        .is_alone = 1,
        .memory_bytes = INT64_C(64) << 30,
        .disk_bytes = INT64_C(64) << 30,
        .is_writable = 1,
        .can_single_copy = 1,
        .n_package = 2,
        .n_numa = 2,
        .n_machine_core = 64,
        .n_nic = 2,
        .gpu_numa = -1,
        .numa_mask = 1,
    };
    (void)snprintf(facts->host, sizeof(facts->host), "host%d", test_doctor.topology.node[rank]);
    (void)snprintf(facts->word[MT_WORD_MPI], MT_DOCTOR_WORD_BYTES, "Open MPI v4.1.4");
}

int64_t *test_doctor_time(int rank, int round)
{
    return &test_doctor.time_ps[2 * ((int64_t)rank * test_doctor.links.n_round + round)];
}

void test_doctor_healthy(int n_rank, const int *node)
{
    memset(&test_doctor, 0, sizeof(test_doctor));
    MT_TEST_OK(mt_topology_init_nodes(&test_doctor.topology, n_rank, node));
    test_doctor.links.round = test_doctor.round;
    test_doctor.links.time_ps = test_doctor.time_ps;
    test_doctor.links.n_round =
        mt_doctor_rounds(&test_doctor.topology, test_doctor.round, TEST_DOCTOR_ROUNDS);
    for (int rank = 0; rank < n_rank; rank++) {
        make_healthy_rank(rank);
        for (int round = 0; round < test_doctor.links.n_round; round++) {
            const bool is_far = test_doctor.round[round].level == MT_LEVEL_NETWORK;
            if (mt_doctor_partner(&test_doctor.topology, &test_doctor.round[round], rank) >= 0) {
                test_doctor_time(rank, round)[0] =
                    is_far ? 2 * TEST_DOCTOR_SMALL_PS : TEST_DOCTOR_SMALL_PS;
                test_doctor_time(rank, round)[1] =
                    is_far ? 2 * TEST_DOCTOR_LARGE_PS : TEST_DOCTOR_LARGE_PS;
            }
        }
    }
    test_doctor.exam =
        (struct mt_doctor_exam){&test_doctor.topology, test_doctor.facts,   &test_doctor.links,
                                &test_doctor.needs,    test_doctor.scratch, test_doctor.odd};
}

void test_doctor_even(int n_rank, int ranks_per_node)
{
    int node[TEST_DOCTOR_RANKS];
    for (int rank = 0; rank < n_rank; rank++) {
        node[rank] = rank / ranks_per_node;
    }
    test_doctor_healthy(n_rank, node);
}

void test_doctor_clear(void)
{
    mt_topology_clear(&test_doctor.topology);
}

void test_doctor_slow_link(int a, int b, int factor)
{
    for (int round = 0; round < test_doctor.links.n_round; round++) {
        if (mt_doctor_partner(&test_doctor.topology, &test_doctor.round[round], a) == b) {
            test_doctor_time(a, round)[1] *= factor;
            test_doctor_time(b, round)[1] *= factor;
        }
    }
}

void test_doctor_slow_rank(int rank, int factor)
{
    for (int other = 0; other < test_doctor.topology.n_rank; other++) {
        if (other != rank) {
            test_doctor_slow_link(rank, other, factor);
        }
    }
}

void test_doctor_judge(void)
{
    mt_doctor_judge(&test_doctor.exam, &test_doctor.findings);
}

void test_doctor_expect(int index, const char *what, int n_rank, int first, const char *part)
{
    const struct mt_doctor_finding *finding = &test_doctor.findings.finding[index];
    assert_true(index < test_doctor.findings.n);
    assert_string_equal(finding->what, what);
    assert_int_equal(finding->n_rank, n_rank);
    assert_int_equal(finding->rank[0], first);
    if (strstr(finding->text, part) == NULL) {
        fail_msg("expected \"%s\" in: %s", part, finding->text);
    }
    assert_non_null(strstr(finding->text, "expected")); /* and what to do, behind it */
    assert_non_null(strstr(strstr(finding->text, "expected"), "; "));
}

void test_doctor_only(const char *what, int n_rank, int first, const char *part)
{
    test_doctor_judge();
    for (int i = 1; i < test_doctor.findings.n; i++) {
        print_error("also: %s\n", test_doctor.findings.finding[i].text);
    }
    assert_int_equal(test_doctor.findings.n, 1);
    test_doctor_expect(0, what, n_rank, first, part);
    test_doctor_clear();
}

void test_doctor_nothing(void)
{
    test_doctor_judge();
    if (test_doctor.findings.n > 0) {
        fail_msg("not odd: %s", test_doctor.findings.finding[0].text);
    }
    test_doctor_clear();
}
