/* Ranks and links that a doctor finds healthy, to plant oddities in. */
#ifndef MT_TEST_TRAIN_DOCTOR_WORLD_H
#define MT_TEST_TRAIN_DOCTOR_WORLD_H

#include "support/test.h"
#include "train/doctor.h"

enum { TEST_DOCTOR_RANKS = 64, TEST_DOCTOR_ROUNDS = 200 };

/* Times of a healthy link, in picoseconds: 1 us and 10 GB/s within nodes, half that between. */
enum { TEST_DOCTOR_SMALL_PS = 1000000, TEST_DOCTOR_LARGE_PS = 26214400 };

struct test_doctor {
    struct mt_topology topology;
    struct mt_doctor_facts facts[TEST_DOCTOR_RANKS];
    struct mt_doctor_round round[TEST_DOCTOR_ROUNDS];
    int64_t time_ps[TEST_DOCTOR_RANKS * TEST_DOCTOR_ROUNDS * 2];
    double scratch[TEST_DOCTOR_RANKS + TEST_DOCTOR_ROUNDS];
    int odd[3 * TEST_DOCTOR_RANKS];
    struct mt_doctor_links links;
    struct mt_doctor_needs needs;
    struct mt_doctor_exam exam;
    struct mt_doctor_findings findings;
};

extern struct test_doctor test_doctor; /* too large for the stack */

/* node: a node id per rank. Cleared by test_doctor_clear. */
void test_doctor_healthy(int n_rank, const int *node);
void test_doctor_even(int n_rank, int ranks_per_node);
void test_doctor_clear(void);

/* [2] of a rank in a round: 8 bytes, 256 KiB. */
int64_t *test_doctor_time(int rank, int round);
/* Both directions of the link between two ranks, or of all links of one, take so many times as
 * long for large messages. */
void test_doctor_slow_link(int a, int b, int factor);
void test_doctor_slow_rank(int rank, int factor);

void test_doctor_judge(void);
/* Finding `index` names these and says that. */
void test_doctor_expect(int index, const char *what, int n_rank, int first, const char *part);
/* Judges, finds this alone or nothing, and clears. */
void test_doctor_only(const char *what, int n_rank, int first, const char *part);
void test_doctor_nothing(void);

#endif
