/* The double of NCCL finds what NCCL would not forgive: mistakes planted on two ranks or one. */
#include <mpi.h>

#include "emulation/nccl_double.h"
#include "emulation/watch.h"

extern "C" {
#include "support/mpi_main.h"
}

#include <cstring>

namespace
{
enum { N = 64 };

/* Two communicators over all ranks, a stream, and N words to send and to receive. */
struct fixture {
    ncclComm_t comm[2];
    cudaStream_t stream;
    int *from, *to;
    int rank, n_rank;

    int next() const
    {
        return (rank + 1) % n_rank;
    }
    int previous() const
    {
        return (rank + n_rank - 1) % n_rank;
    }
};

void settle(ncclComm_t comm)
{
    ncclResult_t result = ncclInProgress;
    while (result == ncclInProgress) {
        assert_int_equal(ncclCommGetAsyncError(comm, &result), ncclSuccess);
    }
}

void connect(fixture *f, ncclComm_t *comm)
{
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (f->rank == 0) {
        assert_int_equal(ncclGetUniqueId(&id), ncclSuccess);
    }
    MPI_Bcast(&id, sizeof(id), MPI_BYTE, 0, MPI_COMM_WORLD);
    assert_int_equal(ncclCommInitRankConfig(comm, f->n_rank, id, f->rank, &config), ncclInProgress);
    settle(*comm);
}

fixture open_fixture()
{
    fixture f = {};
    int zeros[N] = {0};
    MPI_Comm_rank(MPI_COMM_WORLD, &f.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &f.n_rank);
    connect(&f, &f.comm[0]);
    connect(&f, &f.comm[1]);
    cudaStreamCreateWithFlags(&f.stream, cudaStreamNonBlocking);
    cudaMalloc(reinterpret_cast<void **>(&f.from), sizeof(zeros));
    cudaMalloc(reinterpret_cast<void **>(&f.to), sizeof(zeros));
    cudaMemcpy(f.from, zeros, sizeof(zeros), cudaMemcpyHostToDevice);
    assert_null(emu_take_error());
    return f;
}

/* Ranks go on together: what one gave up the others may still wait for. */
void close_fixture(fixture *f)
{
    MPI_Barrier(MPI_COMM_WORLD);
    ncclCommAbort(f->comm[0]);
    ncclCommAbort(f->comm[1]);
    cudaStreamSynchronize(f->stream);
    (void)emu_take_error();
    cudaStreamDestroy(f->stream);
    cudaFree(f->from);
    cudaFree(f->to);
    assert_null(emu_take_error());
}

/* To the next rank and from the previous one, as one launch. */
void launch_ring(const fixture &f, ncclComm_t comm, int n_sent, int n_received)
{
    ncclGroupStart();
    ncclSend(f.from, size_t(n_sent), ncclInt32, f.next(), comm, f.stream);
    ncclRecv(f.to, size_t(n_received), ncclInt32, f.previous(), comm, f.stream);
    ncclGroupEnd();
}

void expect_error(const char *part)
{
    const char *text = emu_take_error();
    assert_non_null(text);
    if (std::strstr(text, part) == nullptr) {
        fail_msg("\"%s\" does not say \"%s\"", text, part);
    }
}

/* Every rank finds its own. */
void run_until_found(const fixture &f, const char *part)
{
    while (!emu_has_error() && cudaStreamQuery(f.stream) == cudaErrorNotReady) {
    }
    expect_error(part);
}

void sound_launches_pass(void **state)
{
    (void)state;
    fixture f = open_fixture();
    for (const ncclComm_t comm : f.comm) {
        launch_ring(f, comm, N, N);
        settle(comm);
    }
    while (cudaStreamQuery(f.stream) == cudaErrorNotReady) {
    }
    assert_null(emu_take_error());
    close_fixture(&f);
}

void a_host_pointer_is_found(void **state)
{
    (void)state;
    fixture f = open_fixture();
    int host[N] = {0};
    assert_int_equal(ncclSend(host, N, ncclInt32, f.next(), f.comm[0], f.stream), ncclInvalidUsage);
    expect_error("a pointer that is not the device's");
    close_fixture(&f);
}

void a_call_on_a_busy_communicator_is_found(void **state)
{
    (void)state;
    fixture f = open_fixture();
    launch_ring(f, f.comm[0], N, N);
    assert_int_equal(ncclSend(f.from, N, ncclInt32, f.next(), f.comm[0], f.stream),
                     ncclInvalidUsage);
    expect_error("a call while another is in progress");
    settle(f.comm[0]);
    while (cudaStreamQuery(f.stream) == cudaErrorNotReady) {
    }
    close_fixture(&f);
}

void a_group_that_receives_twice_in_one_place_is_found(void **state)
{
    (void)state;
    fixture f = open_fixture();
    ncclGroupStart();
    ncclRecv(f.to, N, ncclInt32, f.previous(), f.comm[0], f.stream);
    ncclRecv(f.to + N - 1, 1, ncclInt32, f.previous(), f.comm[0], f.stream);
    assert_int_equal(ncclGroupEnd(), ncclInvalidUsage);
    expect_error("a group receives where it also");
    close_fixture(&f);
}

void sizes_that_differ_are_found(void **state)
{
    (void)state;
    fixture f = open_fixture();
    launch_ring(f, f.comm[0], N, N - 1);
    settle(f.comm[0]);
    run_until_found(f, "sends 64 of type 2 where 63 of type 2 are received");
    close_fixture(&f);
}

void kinds_that_differ_are_found(void **state)
{
    (void)state;
    fixture f = open_fixture();
    if (f.rank == 0) {
        ncclAllGather(f.from, f.to, 1, ncclInt32, f.comm[0], f.stream);
    } else {
        ncclAllReduce(f.from, f.to, 1, ncclInt32, ncclSum, f.comm[0], f.stream);
    }
    settle(f.comm[0]);
    run_until_found(f, "launches a collective of kind");
    close_fixture(&f);
}

/* Each with a stream of its own, so that neither holds up the other here. */
void another_order_over_two_communicators_is_found(void **state)
{
    (void)state;
    fixture f = open_fixture();
    fixture other = f;
    cudaStreamCreateWithFlags(&other.stream, cudaStreamNonBlocking);
    cudaMalloc(reinterpret_cast<void **>(&other.to), N * sizeof(int));
    for (int i = 0; i < 2; i++) {
        const bool is_first = (i == 0) == (f.rank == 0);
        launch_ring(is_first ? f : other, f.comm[is_first ? 0 : 1], N, N);
        settle(f.comm[is_first ? 0 : 1]);
    }
    while (!emu_has_error() && (cudaStreamQuery(f.stream) == cudaErrorNotReady ||
                                cudaStreamQuery(other.stream) == cudaErrorNotReady)) {
    }
    expect_error("launches in another order");
    close_fixture(&f);
    cudaStreamSynchronize(other.stream);
    (void)emu_take_error();
    cudaStreamDestroy(other.stream);
    cudaFree(other.to);
}

#if MT_EMU_WATCH == MT_EMU_HISTORY
void an_event_before_the_launch_is_done_orders_nothing(void **state)
{
    (void)state;
    fixture f = open_fixture();
    cudaEvent_t event = nullptr;
    cudaStream_t reader = nullptr;
    int *pinned = nullptr;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaStreamCreateWithFlags(&reader, cudaStreamNonBlocking);
    cudaMallocHost(reinterpret_cast<void **>(&pinned), N * sizeof(int));
    std::memset(pinned, 0, N * sizeof(int));
    cudaMemcpy(f.to, pinned, N * sizeof(int), cudaMemcpyHostToDevice);
    launch_ring(f, f.comm[0], N, N);
    cudaEventRecord(event, f.stream);
    settle(f.comm[0]);
    cudaStreamWaitEvent(reader, event, 0);
    cudaMemcpyAsync(pinned, f.to, N * sizeof(int), cudaMemcpyDeviceToHost, reader);
    cudaStreamSynchronize(reader);
    while (!emu_has_error() && cudaStreamQuery(f.stream) == cudaErrorNotReady) {
    }
    expect_error("a race with an operation of another stream");
    cudaStreamDestroy(reader);
    cudaEventDestroy(event);
    cudaFreeHost(pinned);
    close_fixture(&f);
}
#endif

void a_group_that_ends_without_a_beginning_is_found(void **state)
{
    (void)state;
    assert_int_equal(ncclGroupEnd(), ncclInvalidUsage);
    expect_error("the end of a group that did not begin");
}

/* Bytes of one round of the ring with a product on another stream, that is enqueued first; ordered
 * before the round leaves; after it has arrived. */
enum order { BESIDE, BEFORE, AFTER };
int64_t exposed_bytes(enum order order)
{
    fixture f = open_fixture();
    cudaStream_t other;
    cudaEvent_t event;
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    emu_work_begin();
    if (order != AFTER) {
        emu_enqueue(other, [](const emu_actor *) {});
        emu_note_product(other);
    }
    if (order == BEFORE) {
        cudaEventRecord(event, other);
        cudaStreamWaitEvent(f.stream, event, 0);
    }
    launch_ring(f, f.comm[0], N, N);
    settle(f.comm[0]);
    if (order == AFTER) {
        cudaEventRecord(event, f.stream);
        cudaStreamWaitEvent(other, event, 0);
        emu_enqueue(other, [](const emu_actor *) {});
        emu_note_product(other);
    }
    const struct emu_work work = emu_work_end();
    assert_int_equal(work.n_product, 1);
    const struct emu_transfers sum = {work.transfer[0].n_launch + work.transfer[1].n_launch,
                                      work.transfer[0].sent_bytes + work.transfer[1].sent_bytes,
                                      work.transfer[0].exposed_bytes +
                                          work.transfer[1].exposed_bytes};
    assert_int_equal(sum.n_launch, 1);
    assert_int_equal(sum.sent_bytes, N * sizeof(int));
    cudaStreamSynchronize(f.stream);
    cudaStreamSynchronize(other);
    cudaStreamDestroy(other);
    cudaEventDestroy(event);
    close_fixture(&f);
    return sum.exposed_bytes;
}

void a_transfer_is_exposed_unless_a_product_may_run_beside_it(void **state)
{
    (void)state;
    assert_int_equal(exposed_bytes(BESIDE), 0);
    assert_int_equal(exposed_bytes(BEFORE), N * sizeof(int));
    assert_int_equal(exposed_bytes(AFTER), N * sizeof(int));
}

const struct CMUnitTest tests[] = {
    cmocka_unit_test(sound_launches_pass),
    cmocka_unit_test(a_host_pointer_is_found),
    cmocka_unit_test(a_call_on_a_busy_communicator_is_found),
    cmocka_unit_test(a_group_that_receives_twice_in_one_place_is_found),
    cmocka_unit_test(sizes_that_differ_are_found),
    cmocka_unit_test(kinds_that_differ_are_found),
    cmocka_unit_test(another_order_over_two_communicators_is_found),
#if MT_EMU_WATCH == MT_EMU_HISTORY
    cmocka_unit_test(an_event_before_the_launch_is_done_orders_nothing),
#endif
    cmocka_unit_test(a_group_that_ends_without_a_beginning_is_found),
    cmocka_unit_test(a_transfer_is_exposed_unless_a_product_may_run_beside_it),
};
}  // namespace

MT_TEST_MPI_MAIN(tests)
