/* The rounds in which links are measured, and judging them. */
#include "train/doctor_world.h"

/* ---- rounds ---- */

/* Partners are mutual, of the round's level, and disjoint by being mutual. */
static int count_meetings(int a, int b)
{
    int n = 0;
    for (int round = 0; round < test_doctor.links.n_round; round++) {
        const struct mt_doctor_round *which = &test_doctor.round[round];
        const int partner = mt_doctor_partner(&test_doctor.topology, which, a);
        const bool is_near = test_doctor.topology.node[a] == test_doctor.topology.node[b];
        if (partner == b) {
            assert_int_equal(mt_doctor_partner(&test_doctor.topology, which, b), a);
            assert_int_equal(which->level, is_near ? MT_LEVEL_NODE : MT_LEVEL_NETWORK);
            n++;
        }
    }
    return n;
}

static void check_rounds(void)
{
    const struct mt_topology *topology = &test_doctor.topology;
    for (int a = 0; a < topology->n_rank; a++) {
        for (int node = 0; node < topology->n_node; node++) {
            int n_met = 0;
            for (int i = topology->node_start[node]; i < topology->node_start[node + 1]; i++) {
                const int b = topology->member[i];
                const int n = a == b ? 0 : count_meetings(a, b);
                assert_int_equal(n, topology->node[a] == node && a != b ? 1 : n > 0 ? 1 : 0);
                n_met += n;
            }
            if (node != topology->node[a]) {
                assert_true(n_met >= 1); /* every rank, thus every card, with every node */
            }
        }
    }
    test_doctor_clear();
}

static void every_pair_of_a_node_and_every_rank_with_every_node_meet_once(void **state)
{
    static const int uneven[] = {0, 1, 1, 2, 1, 1, 2, 0, 1};
    static const int one_to_many[] = {0, 1, 1, 1, 1, 1};
    MT_UNUSED(state);
    for (int n_rank = 1; n_rank <= 17; n_rank++) {
        for (int size = 1; size <= n_rank; size++) {
            test_doctor_even(n_rank, size);
            check_rounds();
        }
    }
    test_doctor_even(64, 8);
    assert_int_equal(test_doctor.links.n_round, 14);
    check_rounds();
    test_doctor_healthy((int)(sizeof(uneven) / sizeof(int)), uneven);
    check_rounds();
    test_doctor_healthy((int)(sizeof(one_to_many) / sizeof(int)), one_to_many);
    check_rounds();
}

static void rounds_are_limited_and_stay_mutual(void **state)
{
    struct mt_doctor_round round[10];
    MT_UNUSED(state);
    test_doctor_even(64, 4);
    const int n = mt_doctor_rounds(&test_doctor.topology, round, 10);
    assert_int_equal(n, 3 + 5); /* of 15 rounds between nodes */
    for (int i = 0; i < n; i++) {
        for (int rank = 0; rank < 64; rank++) {
            const int partner = mt_doctor_partner(&test_doctor.topology, &round[i], rank);
            assert_true(partner >= 0 && partner != rank);
            assert_int_equal(mt_doctor_partner(&test_doctor.topology, &round[i], partner), rank);
        }
    }
    test_doctor_clear();
}

static void a_slow_link_is_named_by_its_ends(void **state)
{
    MT_UNUSED(state);
    for (int n_rank = 3; n_rank <= 8; n_rank++) {
        test_doctor_even(n_rank, n_rank);
        test_doctor_slow_link(1, 2, 3);
        test_doctor_only("link", 2, 1, "ranks 1 (host0) and 2 (host0): their link takes 3.33 GB/s");
        test_doctor_even(n_rank, 1);
        test_doctor_slow_link(0, n_rank - 1, 2);
        test_doctor_only("link", 2, 0, "network card");
    }
}

static void a_rank_behind_all_its_links_is_named_once(void **state)
{
    MT_UNUSED(state);
    for (int n_rank = 3; n_rank <= 12; n_rank++) {
        for (int odd = 0; odd < n_rank; odd++) {
            test_doctor_even(n_rank, 1);
            test_doctor_slow_rank(odd, 4);
            test_doctor_only("link", 1, odd, "links to other nodes are slow, down to 1.25 GB/s");
            test_doctor_even(n_rank, n_rank);
            test_doctor_slow_rank(odd, 4);
            test_doctor_only("link", 1, odd, "links within its node are slow");
        }
    }
}

static void a_slow_rank_and_a_slow_link_elsewhere_are_two_findings(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(16, 2);
    test_doctor_slow_link(0, 2, 5);
    for (int other = 0; other < 16; other++) {
        if (other / 2 != 9 / 2) {
            test_doctor_slow_link(9, other, 2); /* its card, so not the link within its node */
        }
    }
    test_doctor_judge();
    assert_int_equal(test_doctor.findings.n, 2);
    test_doctor_expect(0, "link", 1, 9, "rank 9 (host4): 7 of its 7 links to other nodes");
    test_doctor_expect(1, "link", 2, 0, "ranks 0 (host0) and 2 (host1)");
    test_doctor_clear();
}

static void links_across_sockets_and_a_single_link_are_not_odd(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(8, 8);
    for (int a = 0; a < 4; a++) {
        for (int b = 4; b < 8; b++) {
            test_doctor_slow_link(a, b, 2);
        }
    }
    test_doctor_nothing();
    test_doctor_even(2, 1);
    test_doctor_slow_link(0, 1, 50); /* nothing to compare with */
    test_doctor_nothing();
}

static void links_between_ranks_that_share_cores_are_not_compared(void **state)
{
    MT_UNUSED(state);
    for (int shared = 0; shared < 2; shared++) {
        test_doctor_even(4, 4);
        test_doctor.facts[2].is_alone = shared == 0;
        test_doctor.facts[2].n_thread = 1;
        test_doctor_slow_link(2, 3, 5);
        test_doctor_judge();
        assert_string_equal(test_doctor.findings.finding[0].what, shared ? "cores" : "link");
        assert_int_equal(test_doctor.findings.n, 1);
        test_doctor_clear();
    }
}

static void many_odd_links_are_one_finding(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(16, 1);
    for (int a = 0; a < 16; a += 2) {
        test_doctor_slow_link(a, a + 1, 2);
    }
    test_doctor_judge();
    assert_int_equal(test_doctor.findings.n, 8);
    test_doctor_clear();
    test_doctor_even(20, 1);
    for (int a = 0; a < 20; a += 2) {
        test_doctor_slow_link(a, a + 1, a == 6 ? 3 : 2);
    }
    test_doctor_only("link", 2, 6, "10 of 190 links to other nodes are odd");
}

static void long_latencies_are_odd_and_short_ones_never(void **state)
{
    MT_UNUSED(state);
    test_doctor_even(4, 1);
    for (int round = 0; round < test_doctor.links.n_round; round++) {
        if (mt_doctor_partner(&test_doctor.topology, &test_doctor.round[round], 0) == 3) {
            test_doctor_time(0, round)[0] = test_doctor_time(3, round)[0] =
                30 * TEST_DOCTOR_SMALL_PS;
        }
    }
    test_doctor_only("link", 2, 0, "and 30 us");
    test_doctor_even(4, 4);
    for (int rank = 1; rank < 4; rank++) {
        for (int round = 0; round < test_doctor.links.n_round; round++) {
            test_doctor_time(rank, round)[0] =
                4 * TEST_DOCTOR_SMALL_PS; /* 4 us where others take 1 */
        }
    }
    test_doctor_nothing();
}

static void a_round_with_an_odd_link_is_worth_another_look(void **state)
{
    struct mt_doctor_level level[MT_LEVEL_NETWORK + 1];
    MT_UNUSED(state);
    test_doctor_even(6, 3);
    test_doctor_slow_link(1, 2, 4);
    for (int which = MT_LEVEL_NODE; which <= MT_LEVEL_NETWORK; which++) {
        mt_doctor_level(&test_doctor.exam, (enum mt_level)which, &level[which]);
    }
    assert_int_equal(level[MT_LEVEL_NODE].n_link, 6);
    assert_int_equal(level[MT_LEVEL_NODE].n_pair, 6);
    assert_int_equal(level[MT_LEVEL_NODE].slowest[0], 1);
    assert_int_equal(level[MT_LEVEL_NODE].slowest[1], 2);
    assert_int_equal(level[MT_LEVEL_NETWORK].n_link, 3);
    for (int round = 0; round < test_doctor.links.n_round; round++) {
        const bool is_it =
            mt_doctor_partner(&test_doctor.topology, &test_doctor.round[round], 1) == 2;
        assert_int_equal(mt_doctor_round_is_odd(&test_doctor.exam, level, round), is_it);
    }
    test_doctor_clear();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_pair_of_a_node_and_every_rank_with_every_node_meet_once),
    cmocka_unit_test(rounds_are_limited_and_stay_mutual),
    cmocka_unit_test(a_slow_link_is_named_by_its_ends),
    cmocka_unit_test(a_rank_behind_all_its_links_is_named_once),
    cmocka_unit_test(a_slow_rank_and_a_slow_link_elsewhere_are_two_findings),
    cmocka_unit_test(links_across_sockets_and_a_single_link_are_not_odd),
    cmocka_unit_test(links_between_ranks_that_share_cores_are_not_compared),
    cmocka_unit_test(many_odd_links_are_one_finding),
    cmocka_unit_test(long_latencies_are_odd_and_short_ones_never),
    cmocka_unit_test(a_round_with_an_odd_link_is_worth_another_look),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
