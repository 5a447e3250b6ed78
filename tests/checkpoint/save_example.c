/* save_example FOLDER [cut]: saves step 1 of a small model into FOLDER, for tests that look at the
 * files with other programs; with experts cut, or owned whole. Under mpirun on any number of
 * ranks. */
#include "base/job.h"
#include "base/memory.h"
#include "checkpoint/saved.h"
#include "support/test.h"

#include <stdio.h>

static enum mt_status save(const char *folder, bool is_cut)
{
    struct mt_test_table *table = NULL;
    struct mt_test_world world;
    MT_TRY(MT_ALLOCATE(table, 1, "test table"));
    mt_test_table_small(table);
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .is_cut = is_cut, .turn = 1};
    mt_test_world_open(&world, table, &options);
    mt_test_fill_store(world.store, 1);
    const enum mt_status status = mt_test_save(&world, folder, 1);
    mt_test_world_close(&world);
    mt_memory_free(table);
    return status;
}

int main(int argc, char **argv)
{
    if (mt_job_init(&argc, &argv) != MT_OK || argc < 2 || argc > 3) {
        return mt_job_finish(MT_ERR_INTERNAL);
    }
    return mt_job_finish(mt_job_agree(save(argv[1], argc == 3)));
}
