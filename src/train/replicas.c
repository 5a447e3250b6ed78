/* Silent corruption: every rank has a working copy of all dense tensors, equal bit for bit. Hashes
 * of them are compared every train.replica_check_interval steps, of each owner's part by itself, so
 * that a difference says whose copy it is: the odd one, of two that of the rank that does not own
 * it.
 *
 * Copies are renewed at every update, so a bit that changed once harms one step; the check sees it
 * when that step is one of the compared, and a cell that is broken for good at the next. XXH3 does
 * 10 GB/s and more: 1 GB of dense parameters cost 0.1 s a check. */
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "train/internal.h"

#include <string.h>

static int64_t row_items(const struct mt_trainer *trainer)
{
    return mt_max_i64(trainer->session.comm.topology.n_rank,
                      trainer->session.tensors.table.n_tensor);
}

enum mt_status mt_replicas_open(struct mt_trainer *trainer)
{
    const int64_t n_rank = trainer->session.comm.topology.n_rank;
    const int64_t n_item = row_items(trainer);
    if (trainer->config->train.replica_check_interval == 0 || n_rank == 1) {
        return MT_OK;
    }
    MT_TRY(MT_ALLOCATE(trainer->replica, (n_rank + 1) * n_item, "comparison of replicas"));
    return mt_comm_reserve_small(&trainer->session.comm, n_item);
}

void mt_replicas_close(struct mt_trainer *trainer)
{
    mt_memory_free(trainer->replica);
    trainer->replica = NULL;
}

/* value [R], of rank r at value[r stride]: what more than half of the ranks have, else the
 * owner's. */
static int64_t true_value(const int64_t *value, int64_t stride, int n_rank, int owner)
{
    for (int r = 0; r < n_rank; ++r) {
        int n_equal = 0;
        for (int other = 0; other < n_rank; ++other) {
            n_equal += value[other * stride] == value[r * stride];
        }
        if (2 * n_equal > n_rank) {
            return value[r * stride];
        }
    }
    return value[owner * stride];
}

/* The lowest rank whose copy of some owner's part is another than it should be; -1: none. */
static int find_odd(const int64_t *all, int n_rank, int *owner)
{
    for (int rank = 0; rank < n_rank; ++rank) {
        for (*owner = 0; *owner < n_rank; ++*owner) {
            const int64_t *column = all + *owner;
            if (column[(int64_t)rank * n_rank] != true_value(column, n_rank, n_rank, *owner)) {
                return rank;
            }
        }
    }
    return -1;
}

/* Which tensor it is: the first that the odd rank has otherwise than a rank that is not odd. */
static enum mt_status fail_odd(struct mt_trainer *trainer, int odd, int owner, int64_t *mine)
{
    struct mt_comm *comm = &trainer->session.comm;
    const struct mt_tensor_table *table = &trainer->session.tensors.table;
    const int other = owner != odd ? owner : (odd + 1) % comm->topology.n_rank;
    const char *name = "a tensor";
    MT_TRY(mt_store_hash_tensors(trainer->session.store, (uint64_t *)mine));
    MT_TRY(mt_comm_gather_i64(comm, mine, table->n_tensor, trainer->replica));
    for (int t = table->n_tensor - 1; t >= 0; --t) {
        if (trainer->replica[(int64_t)odd * table->n_tensor + t] !=
            trainer->replica[(int64_t)other * table->n_tensor + t]) {
            name = table->tensor[t].name;
        }
    }
    return MT_FAIL(MT_ERR_RESOURCE,
                   "rank %d computes with another copy of %s than the other ranks (rank %d owns "
                   "the part that differs); copies equal bit for bit were expected: a bit has "
                   "changed in that rank's memory or on its way there; take its machine out and "
                   "start again from the last checkpoint",
                   odd, name, owner);
}

enum mt_status mt_replicas_check(struct mt_trainer *trainer)
{
    struct mt_comm *comm = &trainer->session.comm;
    const int n_rank = comm->topology.n_rank;
    if (trainer->replica == NULL ||
        trainer->state.step % trainer->config->train.replica_check_interval != 0) {
        return MT_OK;
    }
    int owner = 0;
    int64_t *mine = trainer->replica + n_rank * row_items(trainer);
    mt_span_begin(MT_PHASE_METRICS);
    MT_TRY(mt_store_use_all(trainer->session.store));
    MT_TRY(mt_store_hash_owners(trainer->session.store, (uint64_t *)mine));
    MT_TRY(mt_comm_gather_i64(comm, mine, n_rank, trainer->replica));
    const int odd = find_odd(trainer->replica, n_rank, &owner);
    mt_span_end(MT_PHASE_METRICS);
    return odd < 0 ? MT_OK : fail_odd(trainer, odd, owner, mine);
}
