/* One save, from beginning to end. */
#include "checkpoint/saver.h"
#include "checkpoint/together.h"

#include "config/config.h"

#include <stdio.h>

enum mt_status mt_checkpoint_save(struct mt_store *store, struct mt_comm *comm,
                                  const struct mt_run_state *state,
                                  const struct mt_checkpoint_options *options, char *path)
{
    struct mt_saver *saver = NULL;
    enum mt_status status =
        mt_together_agree(comm, mt_saver_create(store, comm, options, false, &saver));
    MT_TRY_GOTO(status);
    MT_TRY_GOTO(mt_saver_begin(saver, state));
    MT_TRY_GOTO(mt_saver_finish(saver));
    if (path != NULL) {
        (void)snprintf(path, MT_PATH_BYTES, "%s", mt_saver_path(saver));
    }
cleanup:
    mt_saver_destroy(saver);
    return status;
}
