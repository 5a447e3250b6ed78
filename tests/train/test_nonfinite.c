/* NaN in the gradient of one expert on one rank, put there behind the store's back: all ranks skip
 * the step and count it; beyond the patience all of them stop, or go back to the last checkpoint
 * and on with other data, with the bits of a run that is started so. */
#include "base/job.h"
#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "config/load.h"
#include "support/mpi_main.h"
#include "train/internal.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 6, MAX_STEPS = 32 };

static const char *const text = "[model]\n"
                                "vocab_size = 64\n"
                                "hidden_size = 32\n"
                                "num_layers = 2\n"
                                "num_attention_heads = 4\n"
                                "max_seq_len = 16\n"
                                "[moe]\n"
                                "num_experts = 8\n"
                                "top_k = 2\n"
                                "expert_intermediate_size = 16\n"
                                "[optimizer]\n"
                                "lr = 1e-3\n"
                                "[schedule]\n"
                                "decay_steps = 8\n"
                                "[data]\n"
                                "format = \"random\"\n"
                                "[train]\n"
                                "steps = 8\n"
                                "global_batch_size = 6\n"
                                "micro_batch_size = 2\n"
                                "nonfinite_patience = 1\n"
                                "[checkpoint]\n"
                                "interval = 2\n";
static char folder[MT_PATH_BYTES];

/* ---- what the linker puts between trainer and store, or checkpoint (--wrap) ---- */

static struct {
    int n_step;           /* made so far */
    int first_bad, n_bad; /* steps whose gradient gets a NaN, as they are made */
    int64_t shift;        /* added to the position in the data after a load */
} meddle;

enum mt_status __real_mt_store_reduce_finish(struct mt_store *store);
enum mt_status __wrap_mt_store_reduce_finish(struct mt_store *store);
enum mt_status __wrap_mt_store_reduce_finish(struct mt_store *store)
{
    const enum mt_status status = __real_mt_store_reduce_finish(store);
    const int step = ++meddle.n_step;
    bool is_done = mt_job_rank() != mt_job_size() - 1 || step < meddle.first_bad ||
                   step >= meddle.first_bad + meddle.n_bad;
    for (int p = 0; p < mt_store_n_part(store) && !is_done; ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        is_done = mt_store_table(store)->tensor[part->tensor].kind == MT_TENSOR_EXPERT;
        if (is_done) {
            part->grad[part->n_element / 2] = -nanf(""); /* as x86 makes them */
        }
    }
    return status;
}

enum mt_status __real_mt_checkpoint_load_found(struct mt_store *store, struct mt_comm *comm,
                                               const char *path, struct mt_run_state *state);
enum mt_status __wrap_mt_checkpoint_load_found(struct mt_store *store, struct mt_comm *comm,
                                               const char *path, struct mt_run_state *state);
enum mt_status __wrap_mt_checkpoint_load_found(struct mt_store *store, struct mt_comm *comm,
                                               const char *path, struct mt_run_state *state)
{
    const enum mt_status status = __real_mt_checkpoint_load_found(store, comm, path, state);
    state->next_sequence += meddle.shift;
    return status;
}

/* ---- runs ---- */

static int begin(void **state)
{
    MT_UNUSED(state);
    memset(&meddle, 0, sizeof(meddle));
    (void)snprintf(folder, sizeof(folder), "/tmp/mt-nonfinite-XXXXXX");
    if (mt_job_rank() == 0) {
        assert_non_null(mkdtemp(folder));
    }
    (void)MPI_Bcast(folder, sizeof(folder), MPI_CHAR, 0, MPI_COMM_WORLD);
    return 0;
}

static void shell(const char *command)
{
    char line[3 * MT_PATH_BYTES];
    (void)MPI_Barrier(MPI_COMM_WORLD);
    if (mt_job_rank() == 0) {
        (void)snprintf(line, sizeof(line), "cd '%s' && %s", folder, command);
        assert_int_equal(system(line), 0); /* NOLINT(cert-env33-c): the test's own words */
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
}

static int end(void **state)
{
    MT_UNUSED(state);
    shell("rm -r \"$PWD\"");
    return 0;
}

/* Overrides may be NULL. */
static enum mt_status train_with(const char *name, const char *first, const char *second)
{
    const char *const override[] = {first, second};
    const int n_override = (first != NULL) + (second != NULL);
    struct mt_config *config = NULL;
    char dir[MT_PATH_BYTES + 16];
    (void)snprintf(dir, sizeof(dir), "%s/%s", folder, name);
    meddle.n_step = 0;
    MT_TEST_OK(MT_ALLOCATE(config, 1, "test configuration"));
    MT_TEST_OK(mt_config_parse(text, "x.toml", NULL, n_override, override, dir, config));
    const struct mt_train_options options = {.config = config};
    const enum mt_status status = mt_train(&options);
    mt_memory_free(config);
    (void)MPI_Barrier(MPI_COMM_WORLD);
    return status;
}

static enum mt_status train(const char *name, const char *override)
{
    return train_with(name, override, NULL);
}

/* What one step's line says. */
struct line {
    int64_t step, skipped;
    double loss; /* NaN: null */
};

static int read_metrics(const char *name, struct line *line)
{
    char path[MT_PATH_BYTES + 64];
    char *json = NULL;
    size_t capacity = 0;
    int n = 0;
    (void)snprintf(path, sizeof(path), "%s/%s/metrics.jsonl", folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (getline(&json, &capacity, file) > 0) {
        json_t *object = json_loads(json, 0, NULL);
        if (json_object_get(object, "loss") != NULL) {
            assert_true(n < MAX_STEPS);
            const json_t *loss = json_object_get(object, "loss");
            line[n].step = json_integer_value(json_object_get(object, "step"));
            line[n].skipped = json_integer_value(json_object_get(object, "skipped"));
            line[n++].loss = json_is_null(loss) ? (double)NAN : json_real_value(loss);
        }
        json_decref(object);
    }
    free(json);
    (void)fclose(file);
    return n;
}

static void expect_steps(const char *name, int n_step, int64_t n_skipped)
{
    struct line line[MAX_STEPS];
    assert_int_equal(read_metrics(name, line), n_step);
    for (int i = 0; i < n_step; ++i) {
        assert_int_equal(line[i].step, i + 1);
        assert_true(isfinite(line[i].loss));
    }
    assert_int_equal(line[n_step - 1].skipped, n_skipped);
}

/* ---- tests ---- */

static void one_bad_step_is_skipped_and_counted(void **state)
{
    MT_UNUSED(state);
    meddle.first_bad = 4;
    meddle.n_bad = 1;
    MT_TEST_OK(train("run", NULL));
    expect_steps("run", 8, 1);
}

static void beyond_the_patience_all_ranks_stop_at_the_same_step(void **state)
{
    MT_UNUSED(state);
    meddle.first_bad = 4;
    meddle.n_bad = 2;
    MT_TEST_FAILS(train("run", NULL), MT_ERR_DIVERGED,
                  "gradient norm nan are not finite for the 2. step in a row; expected");
    expect_steps("run", 5, 2);
    assert_int_equal(meddle.n_step, 5);
}

static void a_rollback_goes_on_with_the_bits_of_a_run_started_so(void **state)
{
    MT_UNUSED(state);
    static const char rollback[] = "train.nonfinite_action='rollback'";
    struct line back[MAX_STEPS];
    struct line begun[MAX_STEPS];
    meddle.first_bad = 5;
    meddle.n_bad = 2;
    MT_TEST_OK(train("back", rollback)); /* saves at 4, undoes 5 and 6 */
    assert_int_equal(meddle.n_step, 10);
    expect_steps("back", 8, 2);
    /* The checkpoint of step 4, and the data that step 7 would have had. */
    meddle.n_bad = 0;
    char costs[2 * MT_PATH_BYTES]; /* the same plans from the same costs */
    (void)snprintf(costs, sizeof(costs), "placement.costs='%s/back/costs.json'", folder);
    MT_TEST_OK(train_with("begun", costs, "train.steps=4"));
    meddle.shift = 2 * (int64_t)BATCH;
    MT_TEST_OK(train_with("begun", costs, NULL));
    meddle.shift = 0;
    assert_int_equal(read_metrics("back", back), 8);
    assert_int_equal(read_metrics("begun", begun), 8);
    for (int i = 4; i < 8; ++i) {
        assert_true(back[i].loss == begun[i].loss);
    }
}

static void a_second_rollback_to_the_same_checkpoint_ends_the_run(void **state)
{
    MT_UNUSED(state);
    meddle.first_bad = 5;
    meddle.n_bad = MAX_STEPS;
    MT_TEST_FAILS(train("run", "train.nonfinite_action='rollback'"), MT_ERR_DIVERGED,
                  "after going back to the last checkpoint once");
    assert_int_equal(meddle.n_step, 8); /* 5, 6, and once more */
}

static void without_a_checkpoint_a_rollback_ends_the_run(void **state)
{
    MT_UNUSED(state);
    meddle.first_bad = 1;
    meddle.n_bad = 2;
    MT_TEST_FAILS(train("run", "train.nonfinite_action='rollback'"), MT_ERR_DIVERGED,
                  "there is no checkpoint to go back to");
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IN_FOLDER(one_bad_step_is_skipped_and_counted),
        IN_FOLDER(beyond_the_patience_all_ranks_stop_at_the_same_step),
        IN_FOLDER(a_rollback_goes_on_with_the_bits_of_a_run_started_so),
        IN_FOLDER(a_second_rollback_to_the_same_checkpoint_ends_the_run),
        IN_FOLDER(without_a_checkpoint_a_rollback_ends_the_run),
    };
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
