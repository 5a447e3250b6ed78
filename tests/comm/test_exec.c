/* The executor over a transport that only records: slices, tags, what is not begun. */
#include "support/test.h"

#include "base/memory.h"
#include "comm/comm.h"

#include <string.h>

/* A transport that writes down what is posted and completes at once. */
static struct {
    struct mt_transport transport;
    int n_post, n_destroyed, tag;
    int64_t start[32], n_bytes[32];
    const char *base;
} record;

static void record_group_begin(struct mt_transport *transport)
{
    MT_UNUSED(transport);
}

static enum mt_status record_group_end(struct mt_transport *transport)
{
    MT_UNUSED(transport);
    return MT_OK;
}

static enum mt_status record_send(struct mt_transport *transport, int peer, int tag,
                                  const void *data, int64_t n_bytes, union mt_request *request)
{
    MT_UNUSED(transport);
    MT_UNUSED(peer);
    MT_UNUSED(request);
    assert_true(record.n_post < 32);
    record.tag = tag;
    record.start[record.n_post] = (const char *)data - record.base;
    record.n_bytes[record.n_post++] = n_bytes;
    return MT_OK;
}

static enum mt_status record_test(struct mt_transport *transport, union mt_request *request,
                                  int64_t n, int64_t *n_done)
{
    MT_UNUSED(transport);
    MT_UNUSED(request);
    *n_done = n;
    return MT_OK;
}

static void record_destroy(struct mt_transport *transport)
{
    MT_UNUSED(transport);
    ++record.n_destroyed;
}

static const struct mt_transport_verbs record_verbs = {.group_begin = record_group_begin,
                                                       .group_end = record_group_end,
                                                       .post_send = record_send,
                                                       .test = record_test,
                                                       .destroy = record_destroy};

static void record_begin(struct mt_comm *comm, int n_rank)
{
    struct mt_topology topology;
    MT_TEST_OK(mt_topology_init(&topology, n_rank, 0));
    memset(&record, 0, sizeof(record));
    record.transport.verbs = &record_verbs;
    MT_TEST_OK(mt_comm_init(comm, 0, &topology, &record.transport));
}

static void messages_beyond_the_limit_are_cut_in_waves(void **state)
{
    static const int64_t limit = MT_TRANSPORT_MAX_BYTES;
    MT_UNUSED(state);
    struct mt_comm comm;
    struct mt_plan plan;
    struct mt_exec *exec = NULL;
    char *data = NULL; /* address space only: nothing is touched */
    bool done = false;
    record_begin(&comm, 3);
    MT_TEST_OK(MT_ALLOCATE(data, 4 * limit, "test"));
    record.base = data;
    MT_TEST_OK(mt_plan_init(&plan, 2));
    mt_plan_reset(&plan, "large", MT_ELEMENT_BYTE);
    mt_plan_send(&plan, 0, 1, MT_BUFFER_SEND, 5, 2 * limit + 7);
    mt_plan_send(&plan, 0, 2, MT_BUFFER_SEND, 2 * limit + 12, limit);
    MT_TEST_OK(mt_exec_create(&comm, 2, &exec));
    MT_TEST_OK(mt_exec_begin(exec, &plan, (void *[]){data, NULL, NULL}));
    assert_int_equal(record.n_post, 2);
    MT_TEST_OK(mt_exec_poll(exec, &done));
    assert_true(done);
    assert_int_equal(record.n_post, 4);
    const int64_t starts[] = {5, 2 * limit + 12, limit + 5, 2 * limit + 5};
    const int64_t sizes[] = {limit, limit, limit, 7};
    for (int i = 0; i < 4; ++i) {
        assert_int_equal(record.start[i], starts[i]);
        assert_int_equal(record.n_bytes[i], sizes[i]);
    }
    MT_TEST_OK(mt_exec_end(exec));
    mt_exec_destroy(exec);
    mt_plan_clear(&plan);
    mt_memory_free(data);
    mt_comm_clear(&comm);
    assert_int_equal(record.n_destroyed, 1);
}

static void tags_stay_below_what_every_mpi_allows(void **state)
{
    MT_UNUSED(state);
    struct mt_comm comm;
    struct mt_plan plan;
    struct mt_exec *exec = NULL;
    char data[4] = {0};
    record_begin(&comm, 2);
    MT_TEST_OK(mt_plan_init(&plan, 1));
    mt_plan_reset(&plan, "tag", MT_ELEMENT_BYTE);
    mt_plan_send(&plan, 0, 1, MT_BUFFER_SEND, 0, 4);
    MT_TEST_OK(mt_exec_create(&comm, 1, &exec));
    for (int64_t i = 0; i < 70000; ++i) {
        const int before = record.tag;
        record.n_post = 0;
        comm.sequence += i == 3 ? (1ll << 40) : 0;
        MT_TEST_OK(mt_exec_begin(exec, &plan, (void *[]){data, NULL, NULL}));
        MT_TEST_OK(mt_exec_end(exec));
        assert_in_range(record.tag, 0, 32767);
        assert_true(i == 0 || record.tag != before);
    }
    assert_int_equal(comm.traffic[0].sent_bytes, 4 * 70000);
    mt_exec_destroy(exec);
    mt_plan_clear(&plan);
    mt_comm_clear(&comm);
}

static void ending_what_was_not_begun_is_a_no_op(void **state)
{
    MT_UNUSED(state);
    struct mt_comm comm;
    struct mt_exec *exec = NULL;
    bool done = false;
    record_begin(&comm, 1);
    MT_TEST_OK(mt_exec_create(&comm, 0, &exec));
    MT_TEST_OK(mt_exec_end(exec));
    MT_TEST_OK(mt_exec_poll(exec, &done));
    assert_true(done);
    assert_false(mt_exec_is_active(exec));
    mt_exec_destroy(exec);
    mt_exec_destroy(NULL);
    mt_comm_clear(&comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_beyond_the_limit_are_cut_in_waves),
        cmocka_unit_test(tags_stay_below_what_every_mpi_allows),
        cmocka_unit_test(ending_what_was_not_begun_is_a_no_op),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
