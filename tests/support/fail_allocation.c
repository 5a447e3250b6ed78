/* Loaded before the program (LD_PRELOAD): on rank MT_FAIL_RANK its MT_FAIL_AT-th aligned_alloc, by
 * which mt_memory takes small blocks, finds no memory. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef void *(*allocate_fn)(size_t alignment, size_t n_bytes);

void *aligned_alloc(size_t alignment, size_t n_bytes)
{
    static long n_call;
    static allocate_fn next;
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    const char *chosen = getenv("MT_FAIL_RANK");
    const char *at = getenv("MT_FAIL_AT");
    if (next == NULL) {
        void *found = dlsym(RTLD_NEXT, "aligned_alloc");
        memcpy(&next, &found, sizeof(next)); /* ISO C converts no object pointer to a function's */
    }
    ++n_call;
    const int fails = rank != NULL && chosen != NULL && at != NULL && strcmp(rank, chosen) == 0 &&
                      n_call == strtol(at, NULL, 10);
    return fails ? NULL : next(alignment, n_bytes);
}
