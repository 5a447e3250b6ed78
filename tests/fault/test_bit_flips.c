/* Ten thousand flipped bits and a thousand zeroed holes, at seeded places over all files of a
 * checkpoint: each is found, the file named, and in a shard the tensor. */
#include "base/memory.h"
#include "base/random.h"
#include "checkpoint/manifest.h"
#include "checkpoint/saved.h"
#include "support/mpi_main.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    N_FLIP = 10000,
    N_HOLE = 1000,
    MAX_HOLE_BYTES = 512,
    N_FILE = 3,
    SHARD = 2,
    SEED = 20261122
};

static const char *const file_name[N_FILE] = {"manifest.json", "index.h5",
                                              "shard-00000-of-00001.h5"};
static char folder[MT_PATH_BYTES];
static char checkpoint[MT_PATH_BYTES + 16];
static struct mt_manifest manifest;

static int begin(void **state)
{
    MT_UNUSED(state);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_make_folder(MPI_COMM_WORLD, folder);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 1);
    (void)snprintf(checkpoint, sizeof(checkpoint), "%s/step-00000001", folder);
    mt_memory_free(table);
    MT_TEST_OK(mt_manifest_read(checkpoint, &manifest));
    return 0;
}

static int end(void **state)
{
    MT_UNUSED(state);
    mt_manifest_clear(&manifest);
    mt_test_remove_folder(MPI_COMM_WORLD, folder);
    return 0;
}

/* Half of the places are drawn over all bytes, which are mostly data; half over the files. */
static int draw_place(uint64_t stream, int i, int64_t *offset)
{
    int64_t n_byte[N_FILE];
    int64_t total = 0;
    for (int f = 0; f < N_FILE; ++f) {
        n_byte[f] = mt_test_file_bytes(mt_test_path(checkpoint, file_name[f]));
        total += n_byte[f];
    }
    const uint64_t number = (uint64_t)i;
    if (i % 2 == 0) {
        const int f = (int)(mt_random_u64(SEED, stream, 2 * number) % N_FILE);
        *offset = (int64_t)(mt_random_u64(SEED, stream, 2 * number + 1) % (uint64_t)n_byte[f]);
        return f;
    }
    int f = 0;
    *offset = (int64_t)(mt_random_u64(SEED, stream, 2 * number) % (uint64_t)total);
    while (*offset >= n_byte[f]) {
        *offset -= n_byte[f++];
    }
    return f;
}

/* Whose bytes lie at `offset` of the shard. */
static const char *tensor_at(int64_t offset)
{
    for (int64_t t = 0; t < manifest.n_tensor; ++t) {
        const struct mt_manifest_tensor *tensor = &manifest.tensor[t];
        const struct mt_manifest_piece *piece = manifest.piece + tensor->first_piece;
        for (int64_t i = 0; i < tensor->n_piece; ++i) {
            const int64_t n_byte = piece[i].n_row * mt_manifest_row_bytes(tensor);
            if (offset >= piece[i].offset && offset < piece[i].offset + n_byte) {
                return tensor->name;
            }
        }
    }
    return "no tensor has suffered";
}

static void expect_found(const char *name, const char *what, int64_t offset, bool names_tensor)
{
    const char *where = names_tensor ? tensor_at(offset) : "";
    const enum mt_status status = mt_checkpoint_verify(checkpoint);
    if (status != MT_ERR_INPUT || strstr(mt_error_last()->text, name) == NULL ||
        strstr(mt_error_last()->text, where) == NULL) {
        fail_msg("%s at byte %lld of %s: code %d, \"%s\"", what, (long long)offset, name,
                 (int)status, mt_error_last()->text);
    }
    mt_error_clear();
}

static void each_of_10000_flipped_bits_is_found_and_named(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < N_FLIP; ++i) {
        int64_t offset = 0;
        const int f = draw_place(1, i, &offset);
        const char *path = mt_test_path(checkpoint, file_name[f]);
        const unsigned char mask = (unsigned char)(1U << (mt_random_u64(SEED, 2, (uint64_t)i) % 8));
        mt_test_flip(path, offset, mask);
        expect_found(file_name[f], "a flipped bit", offset, f == SHARD);
        mt_test_flip(path, offset, mask);
    }
    MT_TEST_OK(mt_checkpoint_verify(checkpoint));
}

/* Zeroes up to n bytes; kept [n] gets what was there. Bytes that changed. */
static int64_t zero(const char *path, int64_t offset, char *kept, int64_t n, int64_t *n_kept)
{
    static const char zeros[MAX_HOLE_BYTES];
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    *n_kept = pread(fd, kept, (size_t)n, offset);
    assert_true(*n_kept > 0);
    assert_int_equal(pwrite(fd, zeros, (size_t)*n_kept, offset), *n_kept);
    assert_int_equal(close(fd), 0);
    int64_t n_changed = 0;
    for (int64_t i = 0; i < *n_kept; ++i) {
        n_changed += kept[i] != 0;
    }
    return n_changed;
}

static void put_back(const char *path, int64_t offset, const char *kept, int64_t n)
{
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, kept, (size_t)n, offset), n);
    assert_int_equal(close(fd), 0);
}

static void each_zeroed_hole_is_found_and_its_file_named(void **state)
{
    MT_UNUSED(state);
    int n_found = 0;
    for (int i = 0; i < N_HOLE; ++i) {
        int64_t offset = 0;
        int64_t n_kept = 0;
        char kept[MAX_HOLE_BYTES];
        const int f = draw_place(3, i, &offset);
        const char *path = mt_test_path(checkpoint, file_name[f]);
        const int64_t n = 1 + (int64_t)(mt_random_u64(SEED, 4, (uint64_t)i) % MAX_HOLE_BYTES);
        if (zero(path, offset, kept, n, &n_kept) > 0) {
            expect_found(file_name[f], "a zeroed hole", offset, false);
            ++n_found;
        }
        put_back(path, offset, kept, n_kept);
    }
    assert_true(n_found > N_HOLE / 2); /* the others were zeros before */
    MT_TEST_OK(mt_checkpoint_verify(checkpoint));
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IN_FOLDER(each_of_10000_flipped_bits_is_found_and_named),
        IN_FOLDER(each_zeroed_hole_is_found_and_its_file_named),
    };
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
