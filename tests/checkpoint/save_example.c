/* save_example FOLDER [cut|sparse]: saves step 1 of a small model into FOLDER, for tests that look
 * at the files with other programs; with experts cut, or owned whole; or saved in turn, and then
 * steps 1 to 3. Under mpirun on any number of ranks. */
#include "base/job.h"
#include "base/memory.h"
#include "checkpoint/saved.h"
#include "checkpoint/saver.h"
#include "support/test.h"

#include <string.h>

/* Step 1 has all experts, the others a fourth of their own. */
static enum mt_status save_in_turn(struct mt_test_world *world, const char *folder)
{
    struct mt_saver *saver = NULL;
    enum mt_status status = MT_OK;
    const struct mt_checkpoint_options options = {
        .folder = folder, .n_sparse = 4, .config_text = "[run]\nname = \"in turn\"\n"};
    MT_TRY(mt_saver_create(world->store, &world->comm, &options, true, &saver));
    for (int64_t step = 1; step <= 3 && status == MT_OK; ++step) {
        const struct mt_run_state state = {.step = step, .n_update = step};
        mt_test_fill_store(world->store, (uint64_t)step);
        status = mt_saver_begin(saver, &state);
        status = status == MT_OK ? mt_saver_finish(saver) : status;
    }
    mt_saver_destroy(saver);
    return status;
}

static enum mt_status save(const char *folder, const char *how)
{
    struct mt_test_table *table = NULL;
    struct mt_test_world world;
    MT_TRY(MT_ALLOCATE(table, 1, "test table"));
    mt_test_table_small(table);
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .is_cut = strcmp(how, "cut") == 0, .turn = 1};
    mt_test_world_open(&world, table, &options);
    mt_test_fill_store(world.store, 1);
    const enum mt_status status =
        strcmp(how, "sparse") == 0 ? save_in_turn(&world, folder) : mt_test_save(&world, folder, 1);
    mt_test_world_close(&world);
    mt_memory_free(table);
    return status;
}

int main(int argc, char **argv)
{
    if (mt_job_init(&argc, &argv) != MT_OK || argc < 2 || argc > 3) {
        return mt_job_finish(MT_ERR_INTERNAL);
    }
    return mt_job_finish(mt_job_agree(save(argv[1], argc == 3 ? argv[2] : "")));
}
