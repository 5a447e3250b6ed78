/* What the staging of tests asks of a real device (tests/emulation/staging.h). */
#include "emulation/staging.h"

#include <cstring>

/* A GPU orders its threads itself; calls that differ in nothing else must give the same bits. */
void staging_set_order(int)
{
}

const char *staging_error(void)
{
    return nullptr;
}

/* NaN in every type, so that an element which the operation leaves out is none of its results. */
void staging_forget(void *memory, size_t bytes)
{
    (void)cudaMemset(memory, 0xff, bytes);
}

/* cuBLAS promises the same bits for the same sizes in the same call, not for other batches. */
bool staging_is_left_out(const char *test)
{
    return std::strcmp(test, "a_group_gets_what_linear_gives_for_its_rows") == 0 ||
           std::strcmp(test, "a_range_of_groups_gives_what_all_give") == 0;
}
