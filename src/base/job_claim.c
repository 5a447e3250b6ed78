/* One failure, one message: the ranks of a host share one integer, and whoever turns it from 0 into
 * its exit code speaks. The integer lives in a page of POSIX shared memory that is unlinked as soon
 * as all have mapped it, so that nothing is left behind however the job ends. It needs no MPI,
 * since the watchdog and the signal handler must not call any. */
#include "base/job_internal.h"

#include "base/clock.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "the claim is used in a signal handler");

static atomic_int own_claim;
static _Atomic(atomic_int *) claim = &own_claim;
static atomic_bool is_shared;

/* One rank's sign of life. */
struct slot {
    atomic_int rank_plus_one; /* 0: empty */
    _Atomic int64_t number;
    _Atomic int64_t alive_ns;
};
enum { N_SLOT = 1024 };

struct page {
    atomic_int claim;
    struct slot slot[N_SLOT]; /* by rank modulo N_SLOT */
};

static _Atomic(struct page *) host_page;
static int own_slot;

static struct page *map_page(const char *name)
{
    const size_t page_bytes = sizeof(struct page);
    const int fd = shm_open(name, O_CREAT | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0) {
        return NULL;
    }
    void *page = MAP_FAILED;
    if (ftruncate(fd, (off_t)page_bytes) == 0) {
        page = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    (void)close(fd);
    return page == MAP_FAILED ? NULL : page;
}

void mt_job_claim_share(MPI_Comm world, int rank, int size)
{
    if (size == 1) {
        atomic_store(&is_shared, true);
        return;
    }
    /* Two jobs of one machine differ in rank 0's clock or process. */
    int64_t key[2] = {mt_clock_ns(), rank == 0 ? getpid() : 0};
    char name[64];
    (void)MPI_Bcast(key, 2, MPI_INT64_T, 0, world);
    (void)snprintf(name, sizeof(name), "/moetrain.%llx.%llx", (unsigned long long)key[0],
                   (unsigned long long)key[1]);
    struct page *shared = map_page(name);
    if (shared != NULL) {
        own_slot = rank % N_SLOT;
        atomic_store(&shared->slot[own_slot].alive_ns, mt_clock_ns());
        atomic_store(&shared->slot[own_slot].rank_plus_one, rank + 1);
    }
    (void)MPI_Barrier(world);
    (void)shm_unlink(name);
    if (shared != NULL) {
        atomic_store(&claim, &shared->claim);
        atomic_store(&host_page, shared);
        atomic_store(&is_shared, true);
    }
}

void mt_job_show_collective(int64_t number)
{
    struct page *page = atomic_load_explicit(&host_page, memory_order_relaxed);
    /* Collectives may end in another order than they began: what counts is how far it got. */
    if (page != NULL &&
        number > atomic_load_explicit(&page->slot[own_slot].number, memory_order_relaxed)) {
        atomic_store_explicit(&page->slot[own_slot].number, number, memory_order_relaxed);
    }
}

void mt_job_show_life(void)
{
    struct page *page = atomic_load_explicit(&host_page, memory_order_relaxed);
    if (page != NULL) {
        atomic_store_explicit(&page->slot[own_slot].alive_ns, mt_clock_ns(), memory_order_relaxed);
    }
}

void mt_job_find_missing(int64_t number, char *text, size_t bytes)
{
    static const int64_t SILENT_NS = 1500000000; /* life is shown every 0.1 s */
    const struct page *page = atomic_load(&host_page);
    int64_t least = number;
    text[0] = '\0';
    for (int i = 0; page != NULL && i < N_SLOT; i++) {
        const int rank = atomic_load(&page->slot[i].rank_plus_one) - 1;
        const int64_t silent_ns = mt_clock_ns() - atomic_load(&page->slot[i].alive_ns);
        const int64_t reached = atomic_load(&page->slot[i].number);
        if (rank >= 0 && silent_ns > SILENT_NS) {
            (void)snprintf(text, bytes,
                           "rank %d has not run for %.0f s (stopped, swapping or dead)", rank,
                           (double)silent_ns * 1e-9);
            return;
        }
        if (rank >= 0 && reached < least) {
            least = reached;
            (void)snprintf(text, bytes, "rank %d has only reached collective %lld", rank,
                           (long long)reached);
        }
    }
}

/* Before MPI_Init the ranks share nothing yet. The launcher's job number names an abstract socket
 * that only one process of a host can bind; the kernel removes it with that process. */
static bool claim_without_mpi(void)
{
    const char *job = getenv("PMIX_NAMESPACE");
    if (job == NULL) {
        return true;
    }
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int length = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1,
                                "moetrain.%ld.%s", (long)getppid(), job);
    if (fd < 0 || length < 0 || length >= (int)sizeof(address.sun_path) - 1) {
        return true;
    }
    const size_t bytes = offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length;
    /* Held open until the process ends. */
    return bind(fd, (const struct sockaddr *)&address, (socklen_t)bytes) == 0;
}

int mt_job_claim(int code)
{
    int winner = 0;
    if (!atomic_compare_exchange_strong(atomic_load(&claim), &winner, code)) {
        return winner;
    }
    return atomic_load(&is_shared) || claim_without_mpi() ? 0 : code;
}
