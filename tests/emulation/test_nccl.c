/* Plans between emulated GPUs over the double of NCCL, against the same plans in host memory. */
#include "support/mpi_main.h"

#include "base/job.h"
#include "base/memory.h"
#include "comm/case_sparse.h"
#include "comm/comm.h"
#include "comm/transport_nccl.h"
#include "emulation/gpu.h"
#include "emulation/watch.h"

#include <string.h>

/* Both transports of one rank. */
struct world {
    struct mt_cuda *cuda;
    struct mt_comm comm;
};

static void open_world(struct world *w, int ranks_per_node)
{
    struct mt_transport *device = NULL;
    emu_set_order(EMU_RANDOM, 17 + (uint64_t)mt_job_rank());
    w->cuda = emu_gpu_open();
    MT_TEST_OK(mt_comm_init_mpi(&w->comm, mt_job_world(), ranks_per_node));
    MT_TEST_OK(mt_transport_create_nccl(mt_job_world(), &mt_nccl_functions, w->cuda, &device));
    mt_comm_set_device(&w->comm, device);
}

static void close_world(struct world *w)
{
    mt_comm_clear(&w->comm);
    emu_gpu_close(w->cuda);
    assert_null(emu_take_error());
}

/* As the program waits for a GPU: a failure of NCCL would end it. */
static void wait_for_device(struct world *w)
{
    for (bool is_idle = false; !is_idle;) {
        is_idle = emu_gpu_is_idle(w->cuda);
        (void)mt_comm_progress(&w->comm);
        MT_TEST_OK(w->comm.failure);
        const char *found = emu_take_error();
        if (found != NULL) {
            fail_msg("emulated device: %s", found);
        }
    }
}

/* ---- one case in both memories ---- */

struct pair {
    struct test_case host, device; /* the second's buffers hold what came back */
    void *memory[MT_N_BUFFER];
    struct mt_exec *exec;
};

/* STAGE starts unknown, but where the caller has to write it. */
static bool is_put(const struct test_case *test, int buffer)
{
    return buffer != MT_BUFFER_STAGE || test->spec.kind == TEST_DEDUPLICATED ||
           test->spec.kind == TEST_DEDUPLICATED_BACK;
}

static void begin_pair(struct world *w, struct pair *p, struct test_spec spec,
                       enum mt_urgency urgency)
{
    struct mt_comm *comm = &w->comm;
    if (spec.element == MT_ELEMENT_BYTE && spec.kind != TEST_SPARSE_REDUCE_RELAY) {
        spec.element = MT_ELEMENT_F32; /* whole words */
    }
    test_case_create(&p->host, spec, &comm->topology, comm->rank);
    test_case_create(&p->device, spec, &comm->topology, comm->rank);
    for (int i = 0; i < MT_N_BUFFER; ++i) {
        p->memory[i] = emu_gpu_allocate(p->device.buffer_bytes[i]);
        if (is_put(&p->device, i)) {
            emu_gpu_put(p->memory[i], p->device.buffer[i], p->device.buffer_bytes[i]);
        }
    }
    MT_TEST_OK(mt_exec_create_device(comm, urgency, p->device.plan.n_op, &p->exec));
    MT_TEST_OK(mt_exec_begin(p->exec, &p->device.plan, p->memory));
}

static void run_on_host(struct mt_comm *comm, struct test_case *test)
{
    struct mt_exec *exec = NULL;
    MT_TEST_OK(mt_exec_create(comm, test->plan.n_op, &exec));
    MT_TEST_OK(mt_exec_begin(exec, &test->plan, test->buffer));
    MT_TEST_OK(mt_exec_end(exec));
    mt_exec_destroy(exec);
}

static void end_pair(struct pair *p)
{
    MT_TEST_OK(mt_exec_end(p->exec));
    MT_TEST_OK(mt_exec_end(p->exec)); /* of nothing */
}

static void verify_pair(struct world *w, struct pair *p)
{
    run_on_host(&w->comm, &p->host);
    wait_for_device(w);
    for (int i = MT_BUFFER_SEND; i <= MT_BUFFER_RECV; ++i) {
        emu_gpu_get(p->device.buffer[i], p->memory[i], p->device.buffer_bytes[i]);
        assert_memory_equal(p->device.buffer[i], p->host.buffer[i],
                            (size_t)p->device.buffer_bytes[i]);
    }
    test_case_verify(&p->device);
    for (int i = 0; i < MT_N_BUFFER; ++i) {
        emu_gpu_free(p->memory[i]);
    }
    mt_exec_destroy(p->exec);
    test_case_clear(&p->host);
    test_case_clear(&p->device);
}

static void every_plan_gives_the_bits_that_it_gives_in_host_memory(void **state)
{
    MT_UNUSED(state);
    /* one node; then two ranks a node, the last of which may be smaller */
    for (int ranks_per_node = 0; ranks_per_node <= 2; ranks_per_node += 2) {
        struct world w;
        open_world(&w, ranks_per_node);
        for (int i = 0; i < TEST_N_KIND * TEST_N_SHAPE; ++i) {
            struct pair pair = {0};
            begin_pair(&w, &pair,
                       (struct test_spec){.kind = (enum test_kind)(i % TEST_N_KIND),
                                          .shape = (enum test_shape)(i / TEST_N_KIND),
                                          .seed = (uint64_t)(i + 100 * ranks_per_node),
                                          .scale = 60},
                       i % 3 == 0 ? MT_BACKGROUND : MT_AWAITED);
            end_pair(&pair);
            verify_pair(&w, &pair);
        }
        close_world(&w);
    }
}

/* All ranks begin alike; each ends in an order of its own, and some poll. */
static void plans_of_both_urgencies_do_not_mix(void **state)
{
    enum { N_PAIR = 2 * TEST_N_KIND };
    static struct pair pair[N_PAIR];
    MT_UNUSED(state);
    struct world w;
    open_world(&w, 2);
    for (uint64_t seed = 1; seed <= 2; ++seed) {
        memset(pair, 0, sizeof(pair));
        for (int i = 0; i < N_PAIR; ++i) {
            const uint64_t bits = test_mix(seed, 5, (uint64_t)i);
            begin_pair(&w, &pair[i],
                       (struct test_spec){.kind = (enum test_kind)(i % TEST_N_KIND),
                                          .shape = (enum test_shape)(bits % TEST_N_SHAPE),
                                          .seed = bits >> 20,
                                          .scale = 40},
                       (enum mt_urgency)((bits >> 10) % MT_N_URGENCY));
            const uint64_t mine = test_mix(seed, (uint64_t)w.comm.rank, (uint64_t)i);
            if (mine % 3 == 0) {
                MT_TEST_OK(mt_comm_poll(&w.comm));
            }
        }
        assert_int_equal(w.comm.n_active, N_PAIR);
        for (int i = 0; i < N_PAIR; ++i) {
            end_pair(&pair[(i + 5 * w.comm.rank) % N_PAIR]);
        }
        assert_int_equal(w.comm.n_active, 0);
        for (int i = 0; i < N_PAIR; ++i) {
            verify_pair(&w, &pair[i]);
        }
    }
    close_world(&w);
}

/* ---- order, launches and bytes: a ring of which each rank sends to the next ---- */

struct ring {
    struct mt_plan plan;
    void *memory[MT_N_BUFFER];
    struct mt_exec *exec;
};

static void open_ring(struct world *w, struct ring *r, enum mt_urgency urgency, int64_t n_bytes)
{
    const int n_rank = w->comm.topology.n_rank;
    MT_TEST_OK(mt_plan_init(&r->plan, 8));
    mt_plan_reset(&r->plan, "ring", MT_ELEMENT_F32);
    if (n_rank > 1) {
        mt_plan_recv(&r->plan, 0, (w->comm.rank + n_rank - 1) % n_rank, MT_BUFFER_RECV, 0, n_bytes);
        mt_plan_send(&r->plan, 0, (w->comm.rank + 1) % n_rank, MT_BUFFER_SEND, 0, n_bytes);
    } else {
        mt_plan_copy(&r->plan, 0, (struct mt_place){MT_BUFFER_RECV, 0},
                     (struct mt_place){MT_BUFFER_SEND, 0}, n_bytes);
    }
    r->memory[MT_BUFFER_SEND] = emu_gpu_allocate(n_bytes);
    r->memory[MT_BUFFER_RECV] = emu_gpu_allocate(n_bytes);
    r->memory[MT_BUFFER_STAGE] = NULL;
    MT_TEST_OK(mt_exec_create_device(&w->comm, urgency, r->plan.n_op, &r->exec));
}

static void close_ring(struct ring *r)
{
    mt_exec_destroy(r->exec);
    mt_plan_clear(&r->plan);
    emu_gpu_free(r->memory[MT_BUFFER_SEND]);
    emu_gpu_free(r->memory[MT_BUFFER_RECV]);
}

/* Work before begin, the plan, work behind end: one order, and the host waits for none of it. */
static void the_devices_work_is_ordered_without_a_host_wait(void **state)
{
    enum { N = 1000 };
    MT_UNUSED(state);
    struct world w;
    struct ring ring = {0};
    open_world(&w, 0);
    open_ring(&w, &ring, MT_AWAITED, N * sizeof(int32_t));
    const int n_rank = w.comm.topology.n_rank;
    int32_t *up = emu_gpu_allocate_pinned(N * sizeof(*up));
    int32_t *down = emu_gpu_allocate_pinned(N * sizeof(*down));
    for (int32_t i = 0; i < N; ++i) {
        up[i] = 1000 * w.comm.rank + i;
    }
    const int64_t n_wait = emu_count().n_wait;
    for (int turn = 0; turn < 3; ++turn) {
        memset(down, 0xff, N * sizeof(*down));
        emu_gpu_enqueue_upload(w.cuda, ring.memory[MT_BUFFER_SEND], up, N * sizeof(*up));
        MT_TEST_OK(mt_exec_begin(ring.exec, &ring.plan, ring.memory));
        MT_TEST_OK(mt_exec_end(ring.exec));
        emu_gpu_enqueue_download(w.cuda, down, ring.memory[MT_BUFFER_RECV], N * sizeof(*down));
    }
    assert_int_equal(emu_count().n_wait, n_wait);
    wait_for_device(&w);
    for (int32_t i = 0; i < N; ++i) {
        assert_int_equal(down[i], 1000 * ((w.comm.rank + n_rank - 1) % n_rank) + i);
    }
    emu_gpu_free_pinned(up);
    emu_gpu_free_pinned(down);
    close_ring(&ring);
    close_world(&w);
}

#if MT_EMU_WATCH == MT_EMU_HISTORY
/* A copy that does not wait for the end is found, whatever the order in which streams ran. */
static void reading_before_the_end_is_found(void **state)
{
    enum { N = 100 };
    MT_UNUSED(state);
    struct world w;
    struct ring ring = {0};
    open_world(&w, 0);
    open_ring(&w, &ring, MT_AWAITED, N * sizeof(int32_t));
    int32_t *pinned = emu_gpu_allocate_pinned(N * sizeof(*pinned));
    memset(pinned, 0, N * sizeof(*pinned));
    emu_gpu_enqueue_upload(w.cuda, ring.memory[MT_BUFFER_SEND], pinned, N * sizeof(*pinned));
    emu_gpu_enqueue_upload(w.cuda, ring.memory[MT_BUFFER_RECV], pinned, N * sizeof(*pinned));
    MT_TEST_OK(mt_exec_begin(ring.exec, &ring.plan, ring.memory));
    emu_gpu_enqueue_download(w.cuda, pinned, ring.memory[MT_BUFFER_RECV], N * sizeof(*pinned));
    MT_TEST_OK(mt_exec_end(ring.exec));
    const char *found = NULL;
    for (bool is_idle = false; !is_idle && found == NULL; found = emu_take_error()) {
        is_idle = emu_gpu_is_idle(w.cuda);
    }
    assert_non_null(found);
    assert_non_null(strstr(found, "a race with an operation of another stream"));
    wait_for_device(&w);
    emu_gpu_free_pinned(pinned);
    close_ring(&ring);
    close_world(&w);
}
#endif

/* ---- launches and bytes ---- */

static struct mt_nccl_counts run_counted(struct world *w, struct test_spec spec,
                                         enum mt_urgency urgency)
{
    struct pair pair = {0};
    const struct mt_nccl_counts before = mt_transport_nccl_counts(w->comm.device);
    begin_pair(w, &pair, spec, urgency);
    end_pair(&pair);
    verify_pair(w, &pair);
    struct mt_nccl_counts counts = mt_transport_nccl_counts(w->comm.device);
    counts.n_plan -= before.n_plan;
    counts.n_group -= before.n_group;
    counts.n_whole -= before.n_whole;
    counts.n_message -= before.n_message;
    counts.sent_bytes -= before.sent_bytes;
    counts.n_kernel -= before.n_kernel;
    return counts;
}

/* What the plan says of one round: launches of NCCL that its longest message wants, and messages in
 * them. */
static void count_round(const struct mt_plan *plan, int round, int64_t slice_bytes,
                        struct mt_nccl_counts *want)
{
    int64_t longest = 0;
    int64_t n_copy = 0;
    for (int64_t i = 0; i < plan->n_op; ++i) {
        const struct mt_op *op = &plan->op[i];
        if (op->round == round && (op->kind == MT_OP_SEND || op->kind == MT_OP_RECV)) {
            longest = op->n_bytes > longest ? op->n_bytes : longest;
            want->n_message += (op->n_bytes + slice_bytes - 1) / slice_bytes;
            want->sent_bytes += op->kind == MT_OP_SEND ? op->n_bytes : 0;
        }
        n_copy += op->round == round && op->kind == MT_OP_COPY;
    }
    want->n_group += (longest + slice_bytes - 1) / slice_bytes;
    want->n_kernel += (n_copy + 95) / 96;
}

static void check_counts(struct world *w, struct test_spec spec, enum mt_urgency urgency)
{
    struct mt_nccl_counts want = {0};
    struct test_case test;
    spec.element = spec.kind == TEST_SPARSE_REDUCE_RELAY ? MT_ELEMENT_BYTE : MT_ELEMENT_F32;
    const struct mt_nccl_counts counts = run_counted(w, spec, urgency);
    test_case_create(&test, spec, &w->comm.topology, w->comm.rank);
    int64_t n_add = 0;
    for (int round = 0; round < test.plan.n_round; ++round) {
        count_round(&test.plan, round,
                    urgency == MT_BACKGROUND ? MT_NCCL_SLICE_BYTES : INT64_MAX / 2, &want);
    }
    for (int64_t i = 0; i < test.plan.n_op; ++i) {
        n_add += test.plan.op[i].kind == MT_OP_ADD;
    }
    assert_int_equal(counts.n_plan, 1);
    assert_int_equal(counts.sent_bytes, want.sent_bytes);
    if (counts.n_whole == 0) {
        assert_int_equal(counts.n_group, want.n_group);
        assert_int_equal(counts.n_message, want.n_message);
        assert_in_range(counts.n_kernel, want.n_kernel + (n_add > 0), want.n_kernel + n_add);
    } else {
        assert_int_equal(counts.n_group + counts.n_message + counts.n_kernel, 0);
    }
    test_case_clear(&test);
}

static void launches_and_bytes_are_those_of_the_plan(void **state)
{
    MT_UNUSED(state);
    struct world w;
    open_world(&w, 2);
    for (int kind = 0; kind < TEST_N_KIND; ++kind) {
        for (int shape = 0; shape < TEST_N_SHAPE; ++shape) {
            const struct test_spec spec = {.kind = (enum test_kind)kind,
                                           .shape = (enum test_shape)shape,
                                           .seed = 3 * (uint64_t)(kind + 40 * shape),
                                           .scale = 30};
            if (kind != TEST_ALLREDUCE) {
                check_counts(&w, spec, shape % 2 == 0 ? MT_AWAITED : MT_BACKGROUND);
            }
        }
    }
    close_world(&w);
}

static void fill(char *to, int64_t n_bytes, uint64_t stream)
{
    test_fill(MT_ELEMENT_F32, to, n_bytes, stream, 0);
}

/* 2.5 MiB: cut in the background alone, and the bytes are the same. */
static void long_messages_of_the_background_are_cut(void **state)
{
    enum { N_BYTES = 5 << 19 };
    static const int64_t n_launch[MT_N_URGENCY] = {[MT_AWAITED] = 1, [MT_BACKGROUND] = 3};
    MT_UNUSED(state);
    struct world w;
    open_world(&w, 0);
    const bool is_alone = w.comm.topology.n_rank == 1;
    for (int urgency = 0; urgency < MT_N_URGENCY; ++urgency) {
        struct ring ring = {0};
        open_ring(&w, &ring, (enum mt_urgency)urgency, N_BYTES);
        char *host = NULL;
        MT_TEST_OK(MT_ALLOCATE(host, N_BYTES, "test"));
        fill(host, N_BYTES, (uint64_t)w.comm.rank);
        emu_gpu_put(ring.memory[MT_BUFFER_SEND], host, N_BYTES);
        const struct mt_nccl_counts before = mt_transport_nccl_counts(w.comm.device);
        MT_TEST_OK(mt_exec_begin(ring.exec, &ring.plan, ring.memory));
        MT_TEST_OK(mt_exec_end(ring.exec));
        wait_for_device(&w);
        const struct mt_nccl_counts counts = mt_transport_nccl_counts(w.comm.device);
        assert_int_equal(counts.n_group - before.n_group, is_alone ? 0 : n_launch[urgency]);
        assert_int_equal(counts.n_message - before.n_message, is_alone ? 0 : 2 * n_launch[urgency]);
        assert_int_equal(counts.sent_bytes - before.sent_bytes, is_alone ? 0 : N_BYTES);
        assert_int_equal(counts.n_kernel - before.n_kernel, is_alone ? 1 : 0);
        const int n_rank = w.comm.topology.n_rank;
        char *got = NULL;
        MT_TEST_OK(MT_ALLOCATE(got, N_BYTES, "test"));
        emu_gpu_get(got, ring.memory[MT_BUFFER_RECV], N_BYTES);
        fill(host, N_BYTES, (uint64_t)((w.comm.rank + n_rank - 1) % n_rank));
        assert_memory_equal(got, host, N_BYTES);
        mt_memory_free(got);
        mt_memory_free(host);
        close_ring(&ring);
    }
    close_world(&w);
}

/* One launch of NCCL where no arithmetic of floats is in it; else plans. */
static void what_is_a_collective_of_nccl_is_launched_as_one(void **state)
{
    static const struct {
        enum test_kind kind;
        enum test_shape shape;
        enum mt_element element;
        uint64_t seed;
        bool is_whole;
    } row[] = {{TEST_ALLGATHERV, TEST_EVEN, MT_ELEMENT_F32, 1, true},
               {TEST_ALLGATHERV, TEST_RAGGED, MT_ELEMENT_F32, 2, false},
               {TEST_ALLGATHERV, TEST_EMPTY_RANK, MT_ELEMENT_F32, 3, false},
               {TEST_ALLGATHERV, TEST_TO_ONE, MT_ELEMENT_F32, 4, false},
               {TEST_REDUCE_SCATTER, TEST_EVEN, MT_ELEMENT_I64, 1, true},
               {TEST_REDUCE_SCATTER, TEST_RAGGED, MT_ELEMENT_I64, 2, false},
               {TEST_REDUCE_SCATTER, TEST_EVEN, MT_ELEMENT_F32, 1, false},
               {TEST_REDUCE_SCATTER, TEST_EVEN, MT_ELEMENT_F64, 1, false},
               {TEST_ALLREDUCE, TEST_EVEN, MT_ELEMENT_BYTE, 2, true},   /* integers */
               {TEST_ALLREDUCE, TEST_EVEN, MT_ELEMENT_BYTE, 1, false},  /* double */
               {TEST_ALLREDUCE, TEST_EVEN, MT_ELEMENT_BYTE, 0, false}}; /* float */
    MT_UNUSED(state);
    struct world w;
    open_world(&w, 2);
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); ++i) {
        const struct test_spec spec = {.kind = row[i].kind,
                                       .shape = row[i].shape,
                                       .element = row[i].element,
                                       .seed = row[i].seed,
                                       .scale = 50};
        const bool is_whole = row[i].is_whole && w.comm.topology.n_rank > 1;
        const struct mt_nccl_counts counts = run_counted(&w, spec, MT_AWAITED);
        assert_int_equal(counts.n_whole, is_whole ? 1 : 0);
        assert_true(!is_whole || counts.n_group + counts.n_kernel == 0);
    }
    close_world(&w);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_plan_gives_the_bits_that_it_gives_in_host_memory),
    cmocka_unit_test(plans_of_both_urgencies_do_not_mix),
    cmocka_unit_test(the_devices_work_is_ordered_without_a_host_wait),
#if MT_EMU_WATCH == MT_EMU_HISTORY
    cmocka_unit_test(reading_before_the_end_is_found),
#endif
    cmocka_unit_test(launches_and_bytes_are_those_of_the_plan),
    cmocka_unit_test(long_messages_of_the_background_are_cut),
    cmocka_unit_test(what_is_a_collective_of_nccl_is_launched_as_one),
};
MT_TEST_MPI_MAIN(tests)
