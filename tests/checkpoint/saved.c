#include "checkpoint/saved.h"

#include "base/memory.h"
#include "base/random.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void mt_test_table_tiny(struct mt_test_table *table)
{
    mt_test_table_init(table);
    mt_test_table_dense(table, 0, 11, 3, true);
    mt_test_table_dense(table, 0, 1, 0, false);
    mt_test_table_layer(table, 3, 2, 4);
}

static float content(uint64_t salt, int tensor, int kind, int64_t index)
{
    return (float)mt_random_normal(salt, (uint64_t)tensor * 3 + (uint64_t)kind, (uint64_t)index);
}

static float *data_of(const struct mt_part *part, int kind)
{
    float *const data[3] = {part->value, part->exp_avg, part->exp_avg_sq};
    return data[kind];
}

void mt_test_fill_store(struct mt_store *store, uint64_t salt)
{
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        for (int kind = 0; kind < (part->exp_avg != NULL ? 3 : 1); ++kind) {
            for (int64_t i = 0; i < part->n_element; ++i) {
                data_of(part, kind)[i] = content(salt, part->tensor, kind, part->first + i);
            }
        }
    }
}

static void expect_part(const struct mt_part *part, int kind, uint64_t salt)
{
    const float *data = data_of(part, kind);
    for (int64_t i = 0; i < part->n_element; ++i) {
        const float want = content(salt, part->tensor, kind, part->first + i);
        if (!(data[i] == want)) { /* no zeros and no NaN are written: equal is the same bits */
            fail_msg("tensor %d kind %d element %lld: %a, not %a", part->tensor, kind,
                     (long long)(part->first + i), (double)data[i], (double)want);
        }
    }
}

void mt_test_expect_store(const struct mt_store *store, uint64_t salt, bool moments)
{
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        for (int kind = 0; kind < (moments ? 3 : 1); ++kind) {
            expect_part(mt_store_part(store, p), kind, salt);
        }
    }
}

void mt_test_expect_parts(const struct mt_store *store, uint64_t salt, const int64_t *part_salt)
{
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        const struct mt_tensor *tensor = &mt_store_table(store)->tensor[part->tensor];
        const int64_t expert = part->first / mt_tensor_row_elements(tensor);
        const bool is_expert = tensor->kind == MT_TENSOR_EXPERT;
        for (int kind = 0; kind < 3; ++kind) {
            expect_part(part, kind,
                        is_expert ? (uint64_t)part_salt[(tensor->layer + expert) % MT_EXPERT_PARTS]
                                  : salt);
        }
    }
}

void mt_test_poison_store(struct mt_store *store)
{
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        for (int kind = 0; kind < (part->exp_avg != NULL ? 3 : 1); ++kind) {
            for (int64_t i = 0; i < part->n_element; ++i) {
                data_of(part, kind)[i] = nanf("");
            }
        }
    }
}

void mt_test_make_folder(MPI_Comm comm, char *path)
{
    int rank = 0;
    (void)MPI_Comm_rank(comm, &rank);
    const char *place = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(path, MT_PATH_BYTES, "%s/mt-checkpoint-XXXXXX", place);
    if (rank == 0) {
        assert_non_null(mkdtemp(path));
    }
    (void)MPI_Bcast(path, MT_PATH_BYTES, MPI_CHAR, 0, comm);
}

void mt_test_shell(const char *format, ...)
{
    char command[2 * MT_PATH_BYTES];
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): va_start is the line above */
    (void)vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    if (system(command) != 0) { /* NOLINT(cert-env33-c): the test's own words and folders */
        fail_msg("failed: %s", command);
    }
}

void mt_test_remove_folder(MPI_Comm comm, const char *path)
{
    int rank = 0;
    (void)MPI_Comm_rank(comm, &rank);
    (void)MPI_Barrier(comm);
    if (rank == 0) {
        mt_test_shell("rm -rf '%s'", path);
    }
    (void)MPI_Barrier(comm);
}

const char *mt_test_path(const char *folder, const char *name)
{
    static char path[8][MT_PATH_BYTES];
    static int next;
    char *here = path[next++ % 8];
    (void)snprintf(here, MT_PATH_BYTES, "%s/%s", folder, name);
    return here;
}

bool mt_test_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

int64_t mt_test_file_bytes(const char *path)
{
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    return about.st_size;
}

void mt_test_flip(const char *path, int64_t offset, unsigned char mask)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_not_equal(byte, EOF);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ mask, file), EOF);
    assert_int_equal(fclose(file), 0);
}

bool mt_test_same_file(const char *a, const char *b)
{
    FILE *x = fopen(a, "rb");
    FILE *y = fopen(b, "rb");
    assert_non_null(x);
    assert_non_null(y);
    int p = 0;
    int q = 0;
    while (p == q && p != EOF) {
        p = fgetc(x);
        q = fgetc(y);
    }
    (void)fclose(x);
    (void)fclose(y);
    return p == q;
}

enum mt_status mt_test_save(struct mt_test_world *world, const char *folder, int64_t step)
{
    const struct mt_run_state state = {.step = step,
                                       .tokens_seen = 1000 * step,
                                       .next_sequence = 8 * step,
                                       .n_update = step - 1,
                                       .n_skipped = 1};
    const struct mt_checkpoint_options options = {.folder = folder,
                                                  .config_text = "[run]\nname = \"t\u00e9st\"\n",
                                                  .config_hash = 0xFEDCBA9876543210U};
    return mt_checkpoint_save(world->store, &world->comm, &state, &options, NULL);
}

struct mt_test_table *mt_test_new_table(void (*init)(struct mt_test_table *))
{
    struct mt_test_table *table = NULL;
    MT_TEST_OK(MT_ALLOCATE(table, 1, "test table"));
    init(table);
    return table;
}

void mt_test_open(struct mt_test_world *world, const struct mt_test_table *table, MPI_Comm comm,
                  bool training, int turn)
{
    const struct mt_test_world_options options = {
        .world = comm, .training = training, .is_cut = turn == MT_TEST_CUT, .turn = turn};
    mt_test_world_open(world, table, &options);
}

void mt_test_save_on(MPI_Comm comm, const char *folder, const struct mt_test_table *table, int turn,
                     int64_t step)
{
    struct mt_test_world world;
    if (comm != MPI_COMM_NULL) {
        mt_test_open(&world, table, comm, true, turn);
        mt_test_fill_store(world.store, (uint64_t)step);
        MT_TEST_OK(mt_test_save(&world, folder, step));
        mt_test_world_close(&world);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
}

void mt_test_load_on(MPI_Comm comm, const char *folder, const struct mt_test_table *table, int turn,
                     int64_t step, bool weights_only)
{
    struct mt_test_world world;
    struct mt_run_state state = {0};
    char name[32];
    if (comm != MPI_COMM_NULL) {
        (void)snprintf(name, sizeof(name), "step-%08lld", (long long)step);
        mt_test_open(&world, table, comm, !weights_only, turn);
        mt_test_poison_store(world.store);
        MT_TEST_OK(mt_checkpoint_load(world.store, &world.comm, mt_test_path(folder, name),
                                      weights_only, &state));
        mt_test_expect_store(world.store, (uint64_t)step, !weights_only);
        assert_int_equal(state.step, step);
        assert_int_equal(state.tokens_seen, 1000 * step);
        assert_int_equal(state.next_sequence, 8 * step);
        assert_int_equal(state.n_update, step - 1);
        assert_int_equal(state.n_skipped, 1);
        mt_test_world_close(&world);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
}
