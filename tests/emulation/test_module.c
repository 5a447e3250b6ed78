/* The module that drives a GPU, as the program loads it: its memory, its order, its refusals. */
#include "device/memory.h"
#include "device/module.h"
#include "kernel/kernel.h"
#include "support/test.h"

#include <stdlib.h>
#include <string.h>

static const struct mt_core_share one_core = {.n = 1};

static enum mt_status open_as(struct mt_device *device, enum mt_device_kind kind, int local,
                              int n_local)
{
    struct mt_config *config = NULL;
    MT_TEST_OK(MT_ALLOCATE(config, 1, "configuration"));
    config->device.kind = MT_DEVICE_CPU;
    MT_TEST_OK(mt_device_init(device, config, 0, &one_core));
    config->device.kind = kind;
    const enum mt_status status = mt_device_open(device, config, local, n_local);
    mt_memory_free(config);
    return status;
}

static void open_gpu(struct mt_device *device)
{
    MT_TEST_OK(open_as(device, MT_DEVICE_CUDA, 0, 1));
    assert_int_equal(device->kind, MT_DEVICE_CUDA);
    assert_false(mt_device_is_host(device));
}

static void values_go_there_and_come_back_in_the_order_of_the_calls(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    enum { N = 1000 };
    float out[N];
    float back[N];
    float *a = NULL;
    float *b = NULL;
    open_gpu(&device);
    MT_TEST_OK(MT_DEVICE_ALLOCATE(&device, a, N, "a"));
    MT_TEST_OK(MT_DEVICE_ALLOCATE(&device, b, N, "b"));
    for (int i = 0; i < N; ++i) {
        out[i] = (float)i;
    }
    mt_device_upload(&device, a, out, sizeof(out));
    memset(out, 0, sizeof(out)); /* may change at once */
    mt_device_copy(&device, b, a, sizeof(out));
    mt_fill_zero(&device, a, N);
    mt_device_download(&device, back, b, sizeof(back));
    mt_device_download(&device, out, a, sizeof(out));
    MT_TEST_OK(mt_device_wait(&device));
    for (int i = 0; i < N; ++i) {
        assert_true(back[i] == (float)i && out[i] == 0.0F);
    }
    assert_int_equal(mt_device_n_wait(&device), 1);
    mt_device_free(&device, a);
    mt_device_free(&device, b);
    mt_device_close(&device, "");
}

/* What is fetched, and what is done aside, beside the one order. */
struct beside {
    struct mt_device device;
    float *a, *b;
    float ones[8], back[8];
};

static void open_beside(struct beside *s)
{
    enum { N = sizeof(s->ones) / sizeof(s->ones[0]) };
    open_gpu(&s->device);
    MT_TEST_OK(MT_DEVICE_ALLOCATE(&s->device, s->a, N, "a"));
    MT_TEST_OK(MT_DEVICE_ALLOCATE(&s->device, s->b, N, "b"));
    for (int i = 0; i < N; ++i) {
        s->ones[i] = 1.0F;
    }
    mt_device_upload(&s->device, s->a, s->ones, sizeof(s->ones));
    MT_TEST_OK(mt_device_wait(&s->device));
}

static void close_beside(struct beside *s)
{
    mt_device_free(&s->device, s->a);
    mt_device_free(&s->device, s->b);
    mt_device_close(&s->device, "");
}

static void a_fetch_brings_what_was_there_and_is_one_wait(void **state)
{
    MT_UNUSED(state);
    struct beside s;
    open_beside(&s);
    mt_device_copy(&s.device, s.b, s.a, sizeof(s.ones));
    mt_device_fetch_begin(&s.device);
    mt_device_fill_zero(&s.device, s.a, sizeof(s.ones)); /* follows, and is not waited for */
    mt_device_fetch(&s.device, s.back, s.b, sizeof(s.back));
    MT_TEST_OK(mt_device_fetch_wait(&s.device));
    assert_memory_equal(s.back, s.ones, sizeof(s.back));
    assert_int_equal(mt_device_n_wait(&s.device), 2);
    MT_TEST_OK(mt_device_wait(&s.device));
    close_beside(&s);
}

static void work_aside_comes_after_what_was_before_and_before_what_joins(void **state)
{
    MT_UNUSED(state);
    struct beside s;
    open_beside(&s);
    mt_device_aside_begin(&s.device);
    mt_device_copy(&s.device, s.b, s.a, sizeof(s.ones));
    mt_device_aside_end(&s.device);
    mt_device_aside_join(&s.device);
    mt_device_fill_zero(&s.device, s.a, sizeof(s.ones));
    mt_device_download(&s.device, s.back, s.b, sizeof(s.back));
    MT_TEST_OK(mt_device_wait(&s.device));
    assert_memory_equal(s.back, s.ones, sizeof(s.back));
    close_beside(&s);
}

static void what_does_not_join_is_found_as_a_race(void **state)
{
    MT_UNUSED(state);
    struct beside s;
    open_beside(&s);
    mt_device_aside_begin(&s.device);
    mt_device_copy(&s.device, s.b, s.a, sizeof(s.ones));
    mt_device_aside_end(&s.device);
    mt_device_fill_zero(&s.device, s.a, sizeof(s.ones));
    mt_device_aside_join(&s.device);
    MT_TEST_FAILS(mt_device_wait(&s.device), MT_ERR_RESOURCE,
                  "a race with an operation of another stream");
    close_beside(&s);
}

/* Nothing waits for what would not fit the ring of pinned memory at once. */
static void copies_larger_than_the_ring_arrive_whole(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    const int64_t n = INT64_C(20) << 20;
    int32_t *host = NULL;
    int32_t *there = NULL;
    open_gpu(&device);
    MT_TEST_OK(MT_ALLOCATE(host, n, "host"));
    MT_TEST_OK(MT_DEVICE_ALLOCATE(&device, there, n, "there"));
    for (int64_t i = 0; i < n; ++i) {
        host[i] = (int32_t)i;
    }
    mt_device_upload(&device, there, host, n * (int64_t)sizeof(*host));
    memset(host, 0, (size_t)n * sizeof(*host));
    mt_device_download(&device, host, there, n * (int64_t)sizeof(*host));
    MT_TEST_OK(mt_device_wait(&device));
    for (int64_t i = 0; i < n; ++i) {
        assert_int_equal(host[i], (int32_t)i);
    }
    mt_device_free(&device, there);
    mt_memory_free(host);
    mt_device_close(&device, "");
}

static void many_small_downloads_all_arrive(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    enum { N = 1000 };
    double values[N];
    double *there = NULL;
    open_gpu(&device);
    MT_TEST_OK(MT_DEVICE_ALLOCATE(&device, there, N, "there"));
    for (int i = 0; i < N; ++i) {
        values[i] = i;
    }
    mt_device_upload(&device, there, values, sizeof(values));
    memset(values, 0, sizeof(values));
    for (int i = 0; i < N; ++i) {
        mt_device_download(&device, &values[i], &there[i], sizeof(values[i]));
    }
    MT_TEST_OK(mt_device_wait(&device));
    for (int i = 0; i < N; ++i) {
        assert_true(values[i] == (double)i);
    }
    mt_device_free(&device, there);
    mt_device_close(&device, "");
}

static void what_does_not_fit_is_refused_with_both_numbers(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    void *memory = NULL;
    open_gpu(&device);
    MT_TEST_FAILS(mt_device_allocate(&device, INT64_C(100) << 30, "experts", &memory),
                  MT_ERR_RESOURCE, "experts: 102400.0 MiB are wanted on GPU 0, and");
    MT_TEST_OK(mt_device_wait(&device)); /* and is no error of what follows */
    mt_device_close(&device, "");
}

static void more_ranks_than_gpus_are_refused(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    assert_int_equal(setenv("MT_EMU_GPUS", "2", 1), 0);
    MT_TEST_OK(open_as(&device, MT_DEVICE_CUDA, 1, 2));
    mt_device_close(&device, "");
    MT_TEST_FAILS(open_as(&device, MT_DEVICE_CUDA, 2, 3), MT_ERR_RESOURCE,
                  "this machine has 3 ranks and 2 GPUs");
    MT_TEST_FAILS(open_as(&device, MT_DEVICE_CUDA, 0, 3), MT_ERR_RESOURCE,
                  "this machine has 3 ranks and 2 GPUs");
    assert_int_equal(setenv("MT_EMU_GPUS", "0", 1), 0);
    MT_TEST_FAILS(open_as(&device, MT_DEVICE_CUDA, 0, 1), MT_ERR_RESOURCE,
                  "needs a GPU, and CUDA shows none here");
    assert_int_equal(unsetenv("MT_EMU_GPUS"), 0);
}

static void auto_takes_the_cpu_where_there_is_no_gpu_and_says_why(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    assert_int_equal(setenv("MT_EMU_GPUS", "0", 1), 0);
    MT_TEST_OK(open_as(&device, MT_DEVICE_AUTO, 0, 1));
    assert_int_equal(device.kind, MT_DEVICE_CPU);
    assert_non_null(strstr(device.why_cpu, "CUDA shows none here"));
    assert_int_equal(mt_error_last()->code, MT_OK);
    assert_int_equal(unsetenv("MT_EMU_GPUS"), 0);
    MT_TEST_OK(open_as(&device, MT_DEVICE_AUTO, 0, 1));
    assert_int_equal(device.kind, MT_DEVICE_CUDA);
    assert_string_equal(device.why_cpu, "");
    mt_device_close(&device, "another rank has none");
    assert_int_equal(device.kind, MT_DEVICE_CPU);
    assert_string_equal(device.why_cpu, "another rank has none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_go_there_and_come_back_in_the_order_of_the_calls),
        cmocka_unit_test(a_fetch_brings_what_was_there_and_is_one_wait),
        cmocka_unit_test(work_aside_comes_after_what_was_before_and_before_what_joins),
        cmocka_unit_test(copies_larger_than_the_ring_arrive_whole),
        cmocka_unit_test(many_small_downloads_all_arrive),
        cmocka_unit_test(what_does_not_fit_is_refused_with_both_numbers),
        cmocka_unit_test(more_ranks_than_gpus_are_refused),
        cmocka_unit_test(auto_takes_the_cpu_where_there_is_no_gpu_and_says_why),
        cmocka_unit_test(what_does_not_join_is_found_as_a_race), /* last: the error stays */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
