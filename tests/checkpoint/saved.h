/* What the checkpoint tests share: stores with known contents, a folder for all ranks, files that
 * are copied, changed and compared. Stores come from tests/store/world.h. */
#ifndef MT_TEST_CHECKPOINT_SAVED_H
#define MT_TEST_CHECKPOINT_SAVED_H

#include "checkpoint/checkpoint.h"
#include "store/world.h"

/* Few and small tensors, for tests that read every byte often. */
void mt_test_table_tiny(struct mt_test_table *table);

/* Every owned value and moment becomes a function of (salt, tensor, kind, index). */
void mt_test_fill_store(struct mt_store *store, uint64_t salt);
/* The test fails unless every owned value (and moment, when `moments`) is what fill wrote. */
void mt_test_expect_store(const struct mt_store *store, uint64_t salt, bool moments);
/* The same of a sparse checkpoint: dense tensors are what fill wrote of `salt`, experts of
 * part_salt [MT_EXPERT_PARTS] at their part. */
void mt_test_expect_parts(const struct mt_store *store, uint64_t salt, const int64_t *part_salt);
/* Owned values and moments become NaN. */
void mt_test_poison_store(struct mt_store *store);

/* A new folder in shared memory, or below /tmp where there is none, the same for all ranks of
 * `comm`; path [MT_PATH_BYTES]. Collective, as is the removal. */
void mt_test_make_folder(MPI_Comm comm, char *path);
void mt_test_remove_folder(MPI_Comm comm, const char *path);
void mt_test_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* folder/name as text that lasts until the eighth call after it. */
const char *mt_test_path(const char *folder, const char *name);
bool mt_test_exists(const char *path);
int64_t mt_test_file_bytes(const char *path);
/* XORs one byte. */
void mt_test_flip(const char *path, int64_t offset, unsigned char mask);
bool mt_test_same_file(const char *a, const char *b);

/* Saves with usual options; step is also what makes the state differ. */
enum mt_status mt_test_save(struct mt_test_world *world, const char *folder, int64_t step);

/* A table on the heap (mt_memory_free), made by one of the init functions. */
struct mt_test_table *mt_test_new_table(void (*init)(struct mt_test_table *));
/* mt_test_world_open without slots; turn MT_TEST_CUT: experts are cut. */
enum { MT_TEST_CUT = 1000 };
void mt_test_open(struct mt_test_world *world, const struct mt_test_table *table, MPI_Comm comm,
                  bool training, int turn);
/* Collective over MPI_COMM_WORLD; ranks with MPI_COMM_NULL only wait. Saves `step` with contents
 * that are a function of it; loads it into poisoned stores with owners by `turn` and compares. */
void mt_test_save_on(MPI_Comm comm, const char *folder, const struct mt_test_table *table, int turn,
                     int64_t step);
void mt_test_load_on(MPI_Comm comm, const char *folder, const struct mt_test_table *table, int turn,
                     int64_t step, bool weights_only);

#endif
