#include "checkpoint/together.h"

#include "base/job.h"
#include "base/memory.h"
#include "checkpoint/damage.h"

#include <string.h>

enum { TEXT_ITEMS = 256, TEXT_BYTES = TEXT_ITEMS * 8 };

/* *failed: the lowest rank with a failure, or -1. */
static enum mt_status find_failed(struct mt_comm *comm, enum mt_status status, int *failed,
                                  int64_t *failed_code)
{
    const int n_rank = comm->topology.n_rank;
    const int64_t mine = status;
    int64_t *code = NULL;
    *failed = -1;
    const enum mt_status allocated = MT_ALLOCATE(code, n_rank, "codes of all ranks");
    if (allocated != MT_OK) {
        mt_job_abort(allocated); /* the others wait in the exchange below */
    }
    const enum mt_status gathered = mt_comm_gather_i64(comm, &mine, 1, code);
    for (int r = n_rank - 1; r >= 0 && gathered == MT_OK; --r) {
        if (code[r] != MT_OK) {
            *failed = r;
            *failed_code = code[r];
        }
    }
    mt_memory_free(code);
    return gathered;
}

enum mt_status mt_together_agree(struct mt_comm *comm, enum mt_status status)
{
    int failed = -1;
    int64_t code = MT_OK;
    union {
        int64_t item[TEXT_ITEMS];
        char text[TEXT_BYTES];
    } message;
    MT_TRY(find_failed(comm, status, &failed, &code));
    if (failed < 0) {
        return MT_OK;
    }
    memset(&message, 0, sizeof(message));
    if (comm->rank == failed) {
        const char *text = mt_error_last()->text;
        memcpy(message.text, text, strnlen(text, TEXT_BYTES - 1));
    }
    MT_TRY(mt_comm_sum_i64(comm, message.item, TEXT_ITEMS));
    mt_error_clear();
    return MT_FAIL((enum mt_status)code, "%s", message.text);
}

enum mt_status mt_together_share(struct mt_comm *comm, int64_t *values, int64_t n)
{
    if (comm->rank != 0) {
        memset(values, 0, (size_t)n * sizeof(*values));
    }
    return mt_comm_sum_i64(comm, values, n);
}

enum mt_status mt_together_verify(struct mt_comm *comm, const char *path,
                                  struct mt_manifest *manifest)
{
    enum mt_status status = mt_manifest_read(path, manifest);
    for (int64_t i = comm->rank; i < manifest->n_file && status == MT_OK;
         i += comm->topology.n_rank) {
        status = mt_damage_check_file(path, manifest, i);
    }
    status = mt_together_agree(comm, status);
    if (status != MT_OK) {
        mt_manifest_clear(manifest);
    }
    return status;
}

enum mt_status mt_together_verify_step(struct mt_comm *comm, const char *path, int64_t step,
                                       struct mt_manifest *manifest)
{
    MT_TRY(mt_together_verify(comm, path, manifest));
    const int64_t held = manifest->state.step;
    if (held != step) {
        mt_manifest_clear(manifest);
        return MT_FAIL(MT_ERR_INPUT,
                       "it holds step %lld; the step of its name was expected; it was renamed or "
                       "copied: give it its own name back",
                       (long long)held);
    }
    return MT_OK;
}
