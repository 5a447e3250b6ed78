/* Plans between emulated GPUs over the double of NCCL, against the same plans in host memory. */
#include "support/mpi_main.h"

#include "base/job.h"
#include "base/memory.h"
#include "comm/cases.h"
#include "comm/comm.h"
#include "comm/transport_nccl.h"
#include "emulation/gpu.h"

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
    while (!emu_gpu_is_idle(w->cuda)) {
        (void)mt_comm_progress(&w->comm);
        MT_TEST_OK(w->comm.failure);
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
    for (int ranks_per_node = 0; ranks_per_node <= 3; ++ranks_per_node) {
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_plan_gives_the_bits_that_it_gives_in_host_memory),
};
MT_TEST_MPI_MAIN(tests)
