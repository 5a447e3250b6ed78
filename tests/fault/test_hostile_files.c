/* Files of a checkpoint that somebody made to do harm: bytes of index.h5 or of a shard are others
 * and every checksum is right again, so HDF5 opens them. Whatever they say, reading ends in time,
 * within memory that does not depend on them, with success or with code 3.
 *
 * test_hostile_files [CASES SEED]: more of them, or others. Each is tried in a child. */
#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "checkpoint/disk.h"
#include "checkpoint/index.h"
#include "checkpoint/saved.h"
#include "support/mpi_main.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    N_CASE = 100, /* in CTest */
    INDEX = 0,
    SHARD, /* files of the manifest */
    N_FILE,
    N_ARRAY = 2,
    MAX_PIECES = 64,
    MAX_CHANGES = 4,
    WORD_BYTES = 8,
    LIMIT_S = 20,
    REFUSED = 40, /* the child's exit codes; any other is a crash */
    TAKEN,
    WRONG_CODE,
    MAX_GROWN_KIB = 640 << 10 /* a child's child may use 512 MiB */
};

static int64_t n_case = N_CASE;
static uint64_t seed = 20261122;

static char folder[MT_PATH_BYTES], checkpoint[MT_PATH_BYTES + 16], converted[MT_PATH_BYTES + 16];
static struct mt_manifest manifest;
static char *original[N_FILE];
static int64_t n_byte[N_FILE];
static int64_t place[MAX_PIECES]; /* of the pieces in the shard */

static const char *file_path(int file)
{
    return mt_test_path(checkpoint, manifest.file[file].name);
}

static void save_with_arrays(struct mt_test_world *world)
{
    int64_t few[3] = {1, 2, 3};
    int64_t many[300] = {7};
    const struct mt_state_array array[N_ARRAY] = {{"load_history_steps", few, 3},
                                                  {"load_history", many, 300}};
    const struct mt_run_state state = {
        .step = 1, .n_update = 1, .n_array = N_ARRAY, .array = array};
    const struct mt_checkpoint_options options = {.folder = folder, .config_text = "[run]\n"};
    mt_test_fill_store(world->store, 1);
    MT_TEST_OK(mt_checkpoint_save(world->store, &world->comm, &state, &options, NULL));
}

static int begin(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_world world;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_make_folder(MPI_COMM_WORLD, folder);
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    save_with_arrays(&world);
    mt_test_world_close(&world);
    mt_memory_free(table);
    (void)snprintf(checkpoint, sizeof(checkpoint), "%s/step-00000001", folder);
    (void)snprintf(converted, sizeof(converted), "%s/converted", folder);
    MT_TEST_OK(mt_manifest_read(checkpoint, &manifest));
    assert_int_equal(manifest.n_array, N_ARRAY);
    assert_true(manifest.n_piece <= MAX_PIECES);
    for (int64_t i = 0; i < manifest.n_piece; ++i) {
        place[i] = manifest.piece[i].offset;
    }
    for (int f = 0; f < N_FILE; ++f) {
        MT_TEST_OK(mt_disk_read_file(file_path(f), INT64_MAX, &original[f], &n_byte[f]));
    }
    return 0;
}

static int end(void **unused)
{
    MT_UNUSED(unused);
    mt_manifest_clear(&manifest);
    for (int f = 0; f < N_FILE; ++f) {
        mt_memory_free(original[f]);
    }
    mt_test_remove_folder(MPI_COMM_WORLD, folder);
    return 0;
}

/* ---- changing a file, and every checksum to match ---- */

static uint64_t draw(int64_t number, uint64_t *index, uint64_t below)
{
    return mt_random_u64(seed, (uint64_t)number, (*index)++) % below;
}

/* A word that a reader may trip over: nothing, the largest, powers, another address of the file. */
static uint64_t draw_word(int64_t number, uint64_t *index, const char *data, int64_t n)
{
    uint64_t word = 0;
    switch (draw(number, index, 5)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return UINT64_C(1) << draw(number, index, 64);
    case 3:
        return draw(number, index, (uint64_t)n);
    default:
        memcpy(&word, data + draw(number, index, (uint64_t)(n / WORD_BYTES)) * WORD_BYTES,
               WORD_BYTES);
        return word;
    }
}

static void change(int64_t number, uint64_t *index, char *data, int64_t n)
{
    const uint64_t at = draw(number, index, (uint64_t)(n - WORD_BYTES));
    const int64_t aligned = (int64_t)(at - at % WORD_BYTES);
    uint64_t word = 0;
    switch (draw(number, index, 4)) {
    case 0:
        data[at] = (char)(data[at] ^ (1 << draw(number, index, 8)));
        break;
    case 1:
        data[at] = (char)draw(number, index, 256);
        break;
    case 2:
        word = draw_word(number, index, data, n);
        memcpy(data + aligned, &word, (size_t)1 << draw(number, index, 4));
        break;
    default: /* a block of the file once more */
        memmove(data + aligned, data + draw(number, index, (uint64_t)(n / 64)) * 64 % (uint64_t)n,
                (size_t)mt_min_i64(64, n - aligned) / 2);
        break;
    }
}

/* Of what the shard now has where the pieces lie. */
static void sum_pieces(const char *data, int64_t n)
{
    for (int64_t t = 0; t < manifest.n_tensor; ++t) {
        const struct mt_manifest_tensor *tensor = &manifest.tensor[t];
        for (int64_t i = tensor->first_piece; i < tensor->first_piece + tensor->n_piece; ++i) {
            struct mt_manifest_piece *piece = &manifest.piece[i];
            const int64_t bytes = piece->n_row * mt_manifest_row_bytes(tensor);
            if (place[i] + bytes <= n) {
                piece->checksum = XXH3_64bits(data + place[i], (size_t)bytes);
            }
        }
    }
}

static void put_file(const char *path, const char *data, int64_t n)
{
    (void)unlink(path);
    MT_TEST_OK(mt_disk_write_file(path, data, n));
}

/* is_silent: the manifest does not say where in the files anything is; older ones do not. */
static void put(int file, const char *data, int64_t n, bool is_silent)
{
    char *text = NULL;
    int64_t n_text = 0;
    put_file(file_path(file), data, n);
    manifest.file[file].n_byte = n;
    manifest.file[file].checksum = XXH3_64bits(data, (size_t)n);
    if (file == SHARD) {
        sum_pieces(data, n);
    }
    manifest.n_array = is_silent ? -1 : N_ARRAY;
    for (int64_t i = 0; i < manifest.n_piece; ++i) {
        manifest.piece[i].offset = is_silent ? -1 : place[i];
    }
    MT_TEST_OK(mt_manifest_to_text(&manifest, &text, &n_text));
    put_file(mt_test_path(checkpoint, "manifest.json"), text, n_text);
    mt_memory_free(text);
}

/* ---- reading it, in a child ---- */

static bool is_fine(enum mt_status status)
{
    mt_error_clear();
    return status == MT_OK || status == MT_ERR_INPUT;
}

static int read_all(void)
{
    static int64_t few[3], many[300];
    const struct mt_state_array array[N_ARRAY] = {{"load_history_steps", few, 3},
                                                  {"load_history", many, 300}};
    const struct mt_run_state state = {.n_array = N_ARRAY, .array = array};
    const struct mt_convert_options options = {.dtype = MT_FLOAT32};
    const struct mt_manifest silent = {.n_array = -1}; /* HDF5 is asked, whatever was verified */
    const enum mt_status verified = mt_checkpoint_verify(checkpoint);
    const bool is_taken = verified == MT_OK;
    if (!is_fine(verified) || !is_fine(mt_index_read_arrays(file_path(INDEX), &silent, &state)) ||
        !is_fine(mt_checkpoint_convert(checkpoint, converted, &options))) {
        return WRONG_CODE;
    }
    return is_taken ? TAKEN : REFUSED;
}

/* The child's exit code, or -1: a signal, -2: too much memory. */
static int try_in_child(void)
{
    int how = 0;
    struct rusage used;
    struct rusage own;
    assert_int_equal(getrusage(RUSAGE_SELF, &own), 0);
    (void)fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
        for (int i = 0; i < (int)(sizeof(deadly) / sizeof(deadly[0])); ++i) {
            (void)signal(deadly[i], SIG_DFL); /* CMocka would go on with the next test, here */
        }
        (void)alarm(LIMIT_S);
        _exit(read_all());
    }
    assert_int_equal(wait4(child, &how, 0, &used), child);
    if (!WIFEXITED(how)) {
        return -WTERMSIG(how);
    }
    return used.ru_maxrss > own.ru_maxrss + MAX_GROWN_KIB ? -1000 : WEXITSTATUS(how);
}

/* One changed file; the child's code. */
static int try_case(int64_t number)
{
    uint64_t index = 0;
    const int file = draw(number, &index, 4) == 0 ? SHARD : INDEX;
    const bool is_silent = draw(number, &index, 2) == 0;
    const uint64_t n_change = 1 + draw(number, &index, MAX_CHANGES);
    int64_t n = n_byte[file];
    char *data = NULL;
    MT_TEST_OK(MT_ALLOCATE(data, n, "a changed file"));
    memcpy(data, original[file], (size_t)n);
    for (uint64_t i = 0; i < n_change; ++i) {
        change(number, &index, data, n);
    }
    if (draw(number, &index, 16) == 0) {
        n = (int64_t)draw(number, &index, (uint64_t)n);
    }
    put(file, data, n, is_silent);
    mt_memory_free(data);
    const int code = try_in_child();
    if (code != REFUSED && code != TAKEN) {
        print_error("case %lld of seed %llu, %s: %d\n", (long long)number, (unsigned long long)seed,
                    manifest.file[file].name, code);
    }
    put(file, original[file], n_byte[file], false);
    mt_test_shell("rm -rf '%s'", converted);
    return code;
}

static void whatever_the_files_say_reading_ends(void **unused)
{
    MT_UNUSED(unused);
    int64_t n_taken = 0;
    int64_t n_refused = 0;
    for (int64_t c = 0; c < n_case; ++c) {
        const int code = try_case(c);
        n_taken += code == TAKEN;
        n_refused += code == REFUSED;
    }
    if (n_case > N_CASE) {
        print_message("seed %llu: %lld refused, %lld taken of %lld\n", (unsigned long long)seed,
                      (long long)n_refused, (long long)n_taken, (long long)n_case);
    }
    MT_TEST_OK(mt_checkpoint_verify(checkpoint));
    assert_int_equal(n_taken + n_refused, n_case);
}

/* Free space of no bytes in the heap that has the mappings of a dataset: HDF5 1.10.8 goes on to
 * what is behind it, which is the same. */
static void what_the_library_never_ends_is_ended(void **unused)
{
    MT_UNUSED(unused);
    enum { FIRST_OBJECT = 16, HEADER_BYTES = 16 };
    char *data = NULL;
    MT_TEST_OK(MT_ALLOCATE(data, n_byte[INDEX], "a changed file"));
    memcpy(data, original[INDEX], (size_t)n_byte[INDEX]);
    char *heap = memmem(data, (size_t)n_byte[INDEX], "GCOL", 4);
    assert_non_null(heap);
    memset(heap + FIRST_OBJECT, 0, HEADER_BYTES);
    put(INDEX, data, n_byte[INDEX], false);
    MT_TEST_FAILS(mt_checkpoint_verify(checkpoint), MT_ERR_INPUT,
                  "index.h5: the HDF5 library comes to no end in it (signal 27)");
    put(INDEX, original[INDEX], n_byte[INDEX], false);
    mt_memory_free(data);
}

/* Manifests once said of nothing where it lies. */
static void what_older_programs_wrote_is_read(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_world world;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    int64_t few[3] = {0};
    const struct mt_state_array array = {"load_history_steps", few, 3};
    struct mt_run_state state = {.n_array = 1, .array = &array};
    put(INDEX, original[INDEX], n_byte[INDEX], true);
    assert_int_equal(read_all(), TAKEN);
    mt_test_open(&world, table, MPI_COMM_WORLD, true, 0);
    mt_test_poison_store(world.store);
    MT_TEST_OK(mt_checkpoint_load(world.store, &world.comm, checkpoint, false, &state));
    mt_test_expect_store(world.store, 1, true);
    assert_true(few[0] == 1 && few[1] == 2 && few[2] == 3);
    mt_test_world_close(&world);
    mt_memory_free(table);
    put(INDEX, original[INDEX], n_byte[INDEX], false);
    mt_test_shell("rm -rf '%s'", converted);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IN_FOLDER(what_older_programs_wrote_is_read),
        IN_FOLDER(what_the_library_never_ends_is_ended),
        IN_FOLDER(whatever_the_files_say_reading_ends),
    };
    if (argc == 3) {
        n_case = strtoll(argv[1], NULL, 10);
        seed = strtoull(argv[2], NULL, 10);
        argc = 1;
    }
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
