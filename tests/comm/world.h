/* R virtual ranks of transport sim, driven in random order from one thread. */
#ifndef MT_TEST_COMM_WORLD_H
#define MT_TEST_COMM_WORLD_H

#include "comm/cases.h"
#include "comm/comm.h"

enum { TEST_MAX_JOB = 20, TEST_MAX_RANK = 64 };

/* One collective a job: case [R] and executors of each. */
struct test_world {
    int n_rank, n_job;
    uint64_t seed, n_draw;
    struct mt_comm *comm; /* [R] */
    struct test_case *test[TEST_MAX_JOB];
    struct mt_exec *exec[TEST_MAX_JOB][TEST_MAX_RANK];
};

/* node: NULL, or a node id per rank. */
void test_world_create(struct test_world *world, int n_rank, int ranks_per_node, const int *node,
                       uint64_t seed);
/* Makes the cases of the next collective on all ranks. */
void test_world_add(struct test_world *world, struct test_spec spec);
/* The plans of a job pass mt_plan_check with the sizes of their buffers. */
enum mt_status test_world_check(const struct test_world *world, int job);
/* Random ranks begin their next collective or poll one; true when all have completed before
 * n_step steps. A transport's error is printed and counts as not completed. */
bool test_world_drive(struct test_world *world, int64_t n_step);
/* Ends, verifies and clears all jobs. */
void test_world_finish(struct test_world *world);
void test_world_clear(struct test_world *world);

#endif
