/* Norm and update on real ranks: against a naive twin in double; against one rank to the bit. */
#include "base/memory.h"
#include "optim/optim.h"
#include "store/world.h"
#include "support/compare.h"
#include "support/mpi_main.h"

#include <math.h>
#include <string.h>

static struct mt_test_table small;

/* A store with its optimizer: on all ranks, or the same model on this rank alone. */
struct trainer {
    struct mt_test_world world;
    struct mt_optim *optim;
};

static struct mt_config test_config(void)
{
    static struct mt_config config;
    config.optimizer.lr = 0.003;
    config.optimizer.betas[0] = 0.9;
    config.optimizer.betas[1] = 0.95;
    config.optimizer.eps = 1e-8;
    config.optimizer.weight_decay = 0.1;
    config.optimizer.grad_clip = 1.0;
    return config;
}

static void open_trainer(struct trainer *trainer, MPI_Comm ranks, int turn)
{
    const struct mt_test_world_options options = {
        .world = ranks, .training = true, .n_slot = 0, .turn = turn};
    const struct mt_config config = test_config();
    mt_test_world_open(&trainer->world, &small, &options);
    MT_TEST_OK(
        mt_optim_create(trainer->world.store, &trainer->world.comm, &config, &trainer->optim));
    mt_store_init_values(trainer->world.store, 3);
}

static void close_trainer(struct trainer *trainer)
{
    mt_optim_destroy(trainer->optim);
    mt_test_world_close(&trainer->world);
}

/* A reduced gradient that no rank count changes, with awkward mantissas and magnitudes. */
static float gradient(int step, int tensor, int64_t index)
{
    const float payload = mt_test_payload((uint64_t)step, tensor, index);
    return payload * 0.0123F / (float)(1 + index % 1000);
}

static void set_grads(struct mt_store *store, int step)
{
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        for (int64_t i = 0; i < part->n_element; ++i) {
            part->grad[i] = gradient(step, part->tensor, part->first + i);
        }
    }
}

static double norm_of(struct trainer *trainer)
{
    double norm = -1.0;
    MT_TEST_OK(mt_optim_grad_norm(trainer->optim, &norm));
    return norm;
}

static double naive_norm(int step)
{
    double sum = 0.0;
    for (int t = 0; t < small.table.n_tensor; ++t) {
        for (int64_t i = 0; i < mt_tensor_n_element(&small.row[t]); ++i) {
            const double g = (double)gradient(step, t, i);
            sum += g * g;
        }
    }
    return sqrt(sum);
}

static void norm_counts_each_parameter_once(void **state)
{
    MT_UNUSED(state);
    struct trainer all;
    open_trainer(&all, MPI_COMM_WORLD, -1);
    set_grads(all.world.store, 1);
    const double want = naive_norm(1);
    assert_true(want > 1.0);
    assert_true(fabs(norm_of(&all) - want) < 1e-12 * want);
    close_trainer(&all);
}

static void norm_has_the_same_bits_under_any_ownership(void **state)
{
    MT_UNUSED(state);
    struct trainer alone;
    open_trainer(&alone, MPI_COMM_SELF, -1);
    set_grads(alone.world.store, 2);
    const double want = norm_of(&alone);
    for (int turn = -1; turn < 4; ++turn) {
        struct trainer all;
        open_trainer(&all, MPI_COMM_WORLD, turn);
        set_grads(all.world.store, 2);
        const double got = norm_of(&all);
        assert_memory_equal(&got, &want, sizeof(want));
        close_trainer(&all);
    }
    close_trainer(&alone);
}

static void chunk_sums_stand_at_the_same_numbers_on_any_ranks(void **state)
{
    MT_UNUSED(state);
    enum { N_CHUNK = 35 };
    double want[N_CHUNK];
    struct trainer alone;
    open_trainer(&alone, MPI_COMM_SELF, -1);
    assert_int_equal(mt_store_n_chunk(alone.world.store), N_CHUNK);
    set_grads(alone.world.store, 2);
    MT_TEST_OK(mt_store_grad_squares(alone.world.store, want));
    close_trainer(&alone);
    for (int turn = -1; turn < 3; ++turn) {
        double got[N_CHUNK];
        struct trainer all;
        open_trainer(&all, MPI_COMM_WORLD, turn);
        set_grads(all.world.store, 2);
        MT_TEST_OK(mt_store_grad_squares(all.world.store, got));
        MT_TEST_OK(mt_comm_sum_f64(&all.world.comm, got, N_CHUNK));
        assert_memory_equal(got, want, sizeof(want));
        close_trainer(&all);
    }
}

/* One element of each tensor in turn, on whichever rank owns it. */
static void a_non_finite_gradient_shows_in_every_ranks_norm(void **state)
{
    MT_UNUSED(state);
    struct trainer all;
    open_trainer(&all, MPI_COMM_WORLD, -1);
    struct mt_store *store = all.world.store;
    for (int t = 0; t < small.table.n_tensor; ++t) {
        const int64_t index = mt_tensor_n_element(&small.row[t]) - 1;
        set_grads(store, 1);
        for (int p = 0; p < mt_store_n_part(store); ++p) {
            const struct mt_part *part = mt_store_part(store, p);
            if (part->tensor == t && part->first <= index &&
                index < part->first + part->n_element) {
                part->grad[index - part->first] = t % 2 == 0 ? NAN : -INFINITY;
            }
        }
        assert_true(!isfinite(norm_of(&all)));
    }
    set_grads(store, 1);
    assert_true(isfinite(norm_of(&all)) != 0);
    close_trainer(&all);
}

/* One step of every element in plain double loops; arrays [n] of one part. */
static void naive_update(const struct mt_part *part, int step, double clip, double *value,
                         double *m, double *v)
{
    const struct mt_config config = test_config();
    const double b1 = config.optimizer.betas[0];
    const double b2 = config.optimizer.betas[1];
    const double decay = small.row[part->tensor].decay ? config.optimizer.weight_decay : 0.0;
    for (int64_t i = 0; i < part->n_element; ++i) {
        const double g = clip * (double)gradient(step, part->tensor, part->first + i);
        m[i] = b1 * m[i] + (1.0 - b1) * g;
        v[i] = b2 * v[i] + (1.0 - b2) * g * g;
        const double m_hat = m[i] / (1.0 - pow(b1, step));
        const double v_hat = v[i] / (1.0 - pow(b2, step));
        value[i] -=
            config.optimizer.lr * (m_hat / (sqrt(v_hat) + config.optimizer.eps) + decay * value[i]);
    }
}

enum { N_STEP = 5 };

static void clip_and_update(struct trainer *trainer, int step)
{
    const struct mt_config config = test_config();
    set_grads(trainer->world.store, step);
    const double clip = mt_optim_clip_factor(&config, norm_of(trainer));
    assert_true(clip > 0.0 && clip < 1.0);
    mt_optim_update(trainer->optim, config.optimizer.lr, clip, step);
}

static void check_part(const struct mt_part *part, const float *start, const double *clip)
{
    double *twin = NULL;
    MT_TEST_OK(MT_ALLOCATE(twin, 3 * part->n_element, "naive twin"));
    double *m = twin + part->n_element;
    double *v = m + part->n_element;
    for (int64_t i = 0; i < part->n_element; ++i) {
        twin[i] = (double)start[i];
    }
    for (int step = 1; step <= N_STEP; ++step) {
        naive_update(part, step, clip[step], twin, m, v);
    }
    MT_TEST_CLOSE(part->value, twin, part->n_element, 1e-6);
    MT_TEST_CLOSE(part->exp_avg, m, part->n_element, 1e-6);
    MT_TEST_CLOSE(part->exp_avg_sq, v, part->n_element, 1e-6);
    mt_memory_free(twin);
}

static void updates_follow_the_naive_loop(void **state)
{
    MT_UNUSED(state);
    struct trainer all;
    double clip[N_STEP + 1] = {0.0};
    const struct mt_config config = test_config();
    open_trainer(&all, MPI_COMM_WORLD, -1);
    const int n_part = mt_store_n_part(all.world.store);
    float **start = NULL;
    MT_TEST_OK(MT_ALLOCATE(start, n_part, "values before"));
    for (int p = 0; p < n_part; ++p) {
        const struct mt_part *part = mt_store_part(all.world.store, p);
        MT_TEST_OK(MT_ALLOCATE(start[p], part->n_element, "values before"));
        memcpy(start[p], part->value, (size_t)part->n_element * sizeof(float));
    }
    for (int step = 1; step <= N_STEP; ++step) {
        clip[step] = mt_optim_clip_factor(&config, naive_norm(step));
        clip_and_update(&all, step);
    }
    for (int p = 0; p < n_part; ++p) {
        check_part(mt_store_part(all.world.store, p), start[p], clip);
        mt_memory_free(start[p]);
    }
    mt_memory_free((void *)start);
    close_trainer(&all);
}

/* Other programs read it: exp_avg after the first step is 1 - beta1 times the clipped gradient. */
static void first_moment_starts_as_a_tenth_of_the_clipped_gradient(void **state)
{
    MT_UNUSED(state);
    struct trainer all;
    open_trainer(&all, MPI_COMM_WORLD, -1);
    const double clip = 1.0 / naive_norm(1);
    clip_and_update(&all, 1);
    for (int p = 0; p < mt_store_n_part(all.world.store); ++p) {
        const struct mt_part *part = mt_store_part(all.world.store, p);
        for (int64_t i = 0; i < part->n_element; ++i) {
            const double want =
                (1.0 - 0.9) * clip * (double)gradient(1, part->tensor, part->first + i);
            assert_true(fabs((double)part->exp_avg[i] - want) <= 1e-6 * fabs(want));
        }
    }
    close_trainer(&all);
}

/* The part of `store`, on one rank, that holds an element. */
static const struct mt_part *find_part(struct mt_store *store, int tensor, int64_t index)
{
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        if (part->tensor == tensor && part->first <= index &&
            index < part->first + part->n_element) {
            return part;
        }
    }
    fail();
    return NULL;
}

/* The parts of a store on all ranks have the bits of one rank's that holds everything. */
static void check_same_bits(struct trainer *all, struct trainer *alone)
{
    for (int p = 0; p < mt_store_n_part(all->world.store); ++p) {
        const struct mt_part *got = mt_store_part(all->world.store, p);
        const struct mt_part *want = find_part(alone->world.store, got->tensor, got->first);
        const int64_t at = got->first - want->first;
        MT_TEST_SAME_BITS(got->value, want->value + at, got->n_element);
        MT_TEST_SAME_BITS(got->exp_avg, want->exp_avg + at, got->n_element);
        MT_TEST_SAME_BITS(got->exp_avg_sq, want->exp_avg_sq + at, got->n_element);
    }
}

static void updates_have_the_same_bits_on_any_number_of_ranks(void **state)
{
    MT_UNUSED(state);
    struct trainer alone;
    open_trainer(&alone, MPI_COMM_SELF, -1);
    for (int step = 1; step <= N_STEP; ++step) {
        clip_and_update(&alone, step);
    }
    for (int turn = -1; turn < 2; ++turn) {
        struct trainer all;
        open_trainer(&all, MPI_COMM_WORLD, turn);
        for (int step = 1; step <= N_STEP; ++step) {
            clip_and_update(&all, step);
        }
        check_same_bits(&all, &alone);
        close_trainer(&all);
    }
    close_trainer(&alone);
}

static void training_while_experts_move_has_the_bits_of_training_in_place(void **state)
{
    MT_UNUSED(state);
    enum { MAX_PAIR = 64 };
    struct trainer alone;
    struct trainer all;
    int owner[MAX_PAIR];
    open_trainer(&alone, MPI_COMM_SELF, -1);
    open_trainer(&all, MPI_COMM_WORLD, -1);
    for (int step = 1; step <= 2 * N_STEP; ++step) {
        double norm[2];
        clip_and_update(&alone, step);
        clip_and_update(&all, step);
        mt_test_random_owners(&all.world, (uint64_t)step, owner);
        MT_TEST_OK(mt_store_move_experts(all.world.store, owner));
        MT_TEST_OK(mt_store_publish(all.world.store));
        set_grads(all.world.store, step);
        set_grads(alone.world.store, step);
        norm[0] = norm_of(&all);
        norm[1] = norm_of(&alone);
        assert_memory_equal(&norm[0], &norm[1], sizeof(norm[0]));
        check_same_bits(&all, &alone);
    }
    close_trainer(&all);
    close_trainer(&alone);
}

/* Writes NaN over every gradient on this rank, owned or not. */
static void spoil_grads(struct mt_store *store)
{
    for (int t = 0; t < small.table.n_tensor; ++t) {
        const int64_t n =
            small.row[t].kind == MT_TENSOR_DENSE ? mt_tensor_n_element(&small.row[t]) : 0;
        for (int64_t i = 0; i < n; ++i) {
            mt_store_grad(store, t)[i] = NAN;
        }
    }
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        for (int64_t i = 0; i < part->n_element; ++i) {
            part->grad[i] = NAN;
        }
    }
}

static void check_grads_are_zero(struct mt_store *store)
{
    for (int t = 0; t < small.table.n_tensor; ++t) {
        const int64_t n =
            small.row[t].kind == MT_TENSOR_DENSE ? mt_tensor_n_element(&small.row[t]) : 0;
        for (int64_t i = 0; i < n; ++i) {
            assert_true(mt_store_grad(store, t)[i] == 0.0F);
        }
    }
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        for (int64_t i = 0; i < part->n_element; ++i) {
            assert_true(part->grad[i] == 0.0F);
        }
    }
}

/* After an update, after a skipped one, and after an update whose experts then moved. */
static void a_step_begins_with_zero_gradients(void **state)
{
    MT_UNUSED(state);
    enum { MAX_PAIR = 64 };
    int owner[MAX_PAIR];
    struct trainer all;
    open_trainer(&all, MPI_COMM_WORLD, -1);
    struct mt_store *store = all.world.store;
    for (int step = 1; step <= 6; ++step) {
        spoil_grads(store);
        if (step % 3 != 0) {
            clip_and_update(&all, step);
        }
        if (step % 2 == 0) {
            mt_test_random_owners(&all.world, (uint64_t)step, owner);
            MT_TEST_OK(mt_store_move_experts(store, owner));
        }
        mt_store_zero_grad(store);
        check_grads_are_zero(store);
    }
    close_trainer(&all);
}

static void check_pack(struct trainer *trainer, const struct mt_weight *got, const float *value)
{
    const int64_t bytes = mt_weight_bytes(&trainer->world.device, got->n_out, got->n_in, true);
    struct mt_weight want;
    void *memory = NULL;
    MT_TEST_OK(mt_memory_allocate(bytes, "packs", &memory));
    mt_weight_init(&trainer->world.device, &want, got->n_out, got->n_in, true, memory);
    mt_weight_pack(&trainer->world.device, &want, value);
    assert_memory_equal(got->forward_pack, memory, (size_t)bytes);
    mt_memory_free(memory);
}

static void check_packs(struct trainer *trainer)
{
    struct mt_store *store = trainer->world.store;
    for (int t = 0; t < small.table.n_tensor; ++t) {
        const struct mt_tensor *tensor = &small.row[t];
        if (tensor->kind == MT_TENSOR_DENSE && tensor->is_product) {
            check_pack(trainer, mt_store_weight(store, t), mt_store_value(store, t));
        }
    }
    for (int layer = 0; layer < small.table.n_layer; ++layer) {
        const struct mt_placement *ownership = &trainer->world.ownership[layer];
        for (int e = 0; e < ownership->n_expert; ++e) {
            const struct mt_expert_copy *copy = mt_store_expert(store, layer, e);
            if (copy != NULL) {
                const int64_t matrix = copy->gate.n_out * copy->gate.n_in;
                check_pack(trainer, &copy->gate, copy->value);
                check_pack(trainer, &copy->up, copy->value + matrix);
                check_pack(trainer, &copy->down, copy->value + 2 * matrix);
            }
        }
    }
}

/* Packed by an update, and by publishing values that were written otherwise. */
static void packs_are_those_of_the_published_values(void **state)
{
    MT_UNUSED(state);
    enum { MAX_PAIR = 64 };
    int owner[MAX_PAIR];
    struct trainer all;
    open_trainer(&all, MPI_COMM_WORLD, -1);
    struct mt_store *store = all.world.store;
    for (int step = 1; step <= 6; ++step) {
        clip_and_update(&all, step);
        if (step == 3) {
            mt_store_init_values(store, 4);
        } else if (step == 5) {
            mt_test_random_owners(&all.world, (uint64_t)step, owner);
            MT_TEST_OK(mt_store_move_experts(store, owner));
        }
        MT_TEST_OK(mt_store_publish(store));
        MT_TEST_OK(mt_store_use_all(store));
        check_packs(&all);
    }
    close_trainer(&all);
}

static void a_step_allocates_nothing(void **state)
{
    MT_UNUSED(state);
    struct trainer all;
    open_trainer(&all, MPI_COMM_WORLD, -1);
    const int64_t n_allocated = mt_memory_n_allocated();
    clip_and_update(&all, 1);
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
    close_trainer(&all);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_counts_each_parameter_once),
        cmocka_unit_test(norm_has_the_same_bits_under_any_ownership),
        cmocka_unit_test(chunk_sums_stand_at_the_same_numbers_on_any_ranks),
        cmocka_unit_test(a_non_finite_gradient_shows_in_every_ranks_norm),
        cmocka_unit_test(updates_follow_the_naive_loop),
        cmocka_unit_test(first_moment_starts_as_a_tenth_of_the_clipped_gradient),
        cmocka_unit_test(updates_have_the_same_bits_on_any_number_of_ranks),
        cmocka_unit_test(training_while_experts_move_has_the_bits_of_training_in_place),
        cmocka_unit_test(a_step_begins_with_zero_gradients),
        cmocka_unit_test(packs_are_those_of_the_published_values),
        cmocka_unit_test(a_step_allocates_nothing),
    };
    mt_test_table_small(&small);
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
