#include "base/clock.h"
#include "base/memory.h"
#include "device/device.h"
#include "support/test.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

static const struct mt_core_share two_cores = {.n = 2};

/* A configuration with only [device] filled in. */
static struct mt_config *make_config(void)
{
    struct mt_config *config = NULL;
    assert_int_equal(MT_ALLOCATE(config, 1, "test"), MT_OK);
    config->device.threads = 1;
    return config;
}

/* The time that n operations and the settling take. */
static int64_t run_ns(struct mt_device *device, int n, double flops, double bytes)
{
    const int64_t start_ns = mt_clock_ns();
    for (int i = 0; i < n; i++) {
        mt_device_operation_begin(device, MT_WORK_OTHER, flops, bytes);
        mt_device_operation_end(device);
    }
    mt_device_settle(device);
    return mt_clock_ns() - start_ns;
}

static void work_for_ns(int64_t duration_ns)
{
    const int64_t start_ns = mt_clock_ns();
    while (mt_clock_ns() - start_ns < duration_ns) {
    }
}

static void an_unpaced_device_owes_nothing(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    mt_device_init_plain(&device);
    (void)run_ns(&device, 1000, 1e15, 1e15); /* days, if it were paced */
    assert_int_equal(device.pace_debt_ns, 0);
    assert_int_equal(device.n_thread, 1);
    assert_int_equal(device.kind, MT_DEVICE_CPU);
}

static void a_paced_device_takes_at_least_the_modelled_time(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = make_config();
    struct mt_device device;
    config->device.pace_gflops = 2.0;
    MT_TEST_OK(mt_device_init(&device, config, 0, &two_cores));
    /* 300 operations of 40 us: each below the grain of sleeping, so the debt must add up. */
    assert_true(run_ns(&device, 300, 80000.0, 0.0) >= INT64_C(12000000));
    assert_true(device.pace_debt_ns <= 0);
    mt_memory_free(config);
}

static void the_longer_of_flops_and_bytes_counts(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = make_config();
    struct mt_device device;
    config->device.pace_gflops = 1.0;
    config->device.pace_gbytes_per_s = 0.5;
    MT_TEST_OK(mt_device_init(&device, config, 0, &two_cores));
    assert_true(run_ns(&device, 1, 1e6, 4e6) >= INT64_C(8000000));
    assert_true(run_ns(&device, 1, 9e6, 1e6) >= INT64_C(8000000)); /* less credit of the first */
    mt_memory_free(config);
}

static void a_slowdown_multiplies_the_modelled_time_of_its_rank(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = make_config();
    struct mt_device device;
    config->device.pace_gflops = 1.0;
    config->device.n_slowdown = 2;
    config->device.slowdown_rank[0] = 3;
    config->device.slowdown_factor[0] = 2.0;
    config->device.slowdown_rank[1] = 5;
    config->device.slowdown_factor[1] = 4.0;
    MT_TEST_OK(mt_device_init(&device, config, 3, &two_cores));
    assert_true(device.slowdown == 2.0);
    assert_true(run_ns(&device, 2, 2e6, 0.0) >= INT64_C(8000000));
    MT_TEST_OK(mt_device_init(&device, config, 4, &two_cores));
    assert_true(device.slowdown == 1.0);
    mt_memory_free(config);
}

static void a_slowdown_alone_stretches_the_measured_time(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = make_config();
    struct mt_device device;
    config->device.n_slowdown = 1;
    config->device.slowdown_factor[0] = 3.0;
    MT_TEST_OK(mt_device_init(&device, config, 0, &two_cores));
    const int64_t start_ns = mt_clock_ns();
    for (int i = 0; i < 4; i++) {
        mt_device_operation_begin(&device, MT_WORK_OTHER, 1.0, 1.0);
        work_for_ns(1000000);
        mt_device_operation_end(&device);
    }
    mt_device_settle(&device);
    assert_true(mt_clock_ns() - start_ns >= INT64_C(12000000));
    mt_memory_free(config);
}

static void an_operation_slower_than_modelled_earns_no_credit(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = make_config();
    struct mt_device device;
    config->device.pace_gflops = 1.0;
    MT_TEST_OK(mt_device_init(&device, config, 0, &two_cores));
    mt_device_operation_begin(&device, MT_WORK_OTHER, 1000.0, 0.0);
    work_for_ns(3000000);
    mt_device_operation_end(&device);
    assert_int_equal(device.pace_debt_ns, 0);
    assert_true(run_ns(&device, 1, 4e6, 0.0) >= INT64_C(4000000));
    mt_memory_free(config);
}

static void small_debts_wait_for_settling(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    mt_device_init_plain(&device);
    device.pace_gflops = 1.0;
    device.pace_debt_ns = 50000;
    const int64_t start_ns = mt_clock_ns();
    mt_device_settle(&device);
    assert_true(mt_clock_ns() - start_ns >= 50000);
    assert_true(device.pace_debt_ns <= 0 && device.pace_debt_ns >= -1000000);
    const int64_t credit_ns = device.pace_debt_ns;
    mt_device_settle(&device); /* nothing is owed: nothing changes */
    assert_int_equal(device.pace_debt_ns, credit_ns);
}

static void absurd_work_does_not_overflow(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    mt_device_init_plain(&device);
    device.pace_gflops = 1e-300;
    device.pace_debt_ns = -(INT64_C(1) << 62); /* so that nothing is slept */
    mt_device_operation_begin(&device, MT_WORK_OTHER, 1e300, 1e300);
    mt_device_operation_end(&device);
    assert_true(device.pace_debt_ns < 0);
}

static void a_gpu_is_refused_as_a_missing_resource(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = make_config();
    struct mt_device device;
    config->device.kind = MT_DEVICE_CUDA;
    MT_TEST_OK(mt_device_init(&device, config, 0, &two_cores));
    MT_TEST_FAILS(mt_device_open(&device, config, 0, 1), MT_ERR_RESOURCE,
                  "set device.kind = \"cpu\"");
    config->device.kind = MT_DEVICE_AUTO;
    MT_TEST_OK(mt_device_open(&device, config, 0, 1));
    assert_int_equal(device.kind, MT_DEVICE_CPU);
    assert_string_not_equal(device.why_cpu, "");
    mt_memory_free(config);
}

static void threads_are_set_as_configured_or_shared(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = make_config();
    struct mt_device device;
    config->device.threads = 3;
    MT_TEST_OK(mt_device_init(&device, config, 0, &two_cores));
    assert_int_equal(device.n_thread, 3);
    assert_int_equal(omp_get_max_threads(), 3);
    config->device.threads = 0;
    MT_TEST_OK(mt_device_init(&device, config, 0, &two_cores));
    assert_int_equal(device.n_thread, 2);
    assert_int_equal(omp_get_max_threads(), 2);
    assert_string_equal(device.bound, ""); /* not alone */
    mt_memory_free(config);
}

static void the_description_names_threads_and_pace(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    char text[256];
    mt_device_init_plain(&device);
    mt_device_describe(&device, text, sizeof(text));
    assert_int_equal(strncmp(text, "cpu, 1 thread, ", 15), 0);
    assert_null(strstr(text, "paced"));
    assert_non_null(strstr(text, ", float32"));
    device.dtype = MT_BFLOAT16;
    device.n_thread = 4;
    device.pace_gflops = 12.5;
    mt_device_describe(&device, text, sizeof(text));
    assert_int_equal(strncmp(text, "cpu, 4 threads, ", 16), 0);
    (void)snprintf(device.bound, sizeof(device.bound), "4-7");
    mt_device_describe(&device, text, sizeof(text));
    assert_int_equal(strncmp(text, "cpu, 4 threads (CPU 4-7), ", 26), 0);
    assert_non_null(strstr(text, ", bfloat16, paced: 12.5 GFLOP/s"));
    char small[8];
    mt_device_describe(&device, small, sizeof(small));
    assert_string_equal(small, "cpu, 4 ");
}

/* Something that is under way until it has been called so often. */
struct task {
    struct mt_device *device;
    int n_call, n_wanted;
};

static bool advance_and_end_the_debt(void *context)
{
    struct task *task = context;
    const bool is_under_way = ++task->n_call < task->n_wanted;
    if (!is_under_way) {
        task->device->pace_debt_ns = 0; /* so that no test waits for an hour */
    }
    return is_under_way;
}

static const int64_t HOUR_NS = INT64_C(3600) * 1000000000;

static void a_sleeping_device_serves_its_idle_function_until_nothing_is_under_way(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    mt_device_init_plain(&device);
    struct task task = {.device = &device, .n_wanted = 50};
    mt_device_set_idle(&device, advance_and_end_the_debt, &task);
    mt_device_settle(&device); /* owes nothing: not called */
    assert_int_equal(task.n_call, 0);
    device.pace_debt_ns = HOUR_NS;
    mt_device_settle(&device);
    assert_int_equal(task.n_call, 50);
    assert_true(device.pace_debt_ns <= 0);
    task.n_call = 0;
    device.pace_gflops = 1.0; /* an operation's own sleep does the same as settling */
    mt_device_operation_begin(&device, MT_WORK_OTHER, 3600e9, 0.0);
    mt_device_operation_end(&device);
    assert_int_equal(task.n_call, 50);
}

static bool count_calls(void *context)
{
    ++*(int *)context;
    return false;
}

static void a_sleeping_device_with_nothing_under_way_sleeps_once(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    int n_call = 0;
    mt_device_init_plain(&device);
    mt_device_set_idle(&device, count_calls, &n_call);
    device.pace_debt_ns = 5000000;
    mt_device_settle(&device);
    assert_int_equal(n_call, 1);
}

static void a_computing_device_breathes_once_in_a_while(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    int n_call = 0;
    mt_device_init_plain(&device);
    mt_device_breathe(&device); /* no idle function: nothing happens */
    mt_device_set_idle(&device, count_calls, &n_call);
    mt_device_breathe(&device);
    assert_int_equal(n_call, 1);
    device.idle_ns = mt_clock_ns() + HOUR_NS; /* as if the last breath were a moment ago */
    mt_device_breathe(&device);
    assert_int_equal(n_call, 1);
    device.idle_ns = mt_clock_ns() - HOUR_NS;
    mt_device_breathe(&device);
    assert_int_equal(n_call, 2);
}

static void a_meter_sums_modelled_times_without_slowdown_and_without_sleeping(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    struct mt_device meter;
    mt_device_init_plain(&device);
    device.pace_gflops = 2.0;
    device.pace_gbytes_per_s = 1.0;
    device.slowdown = 5.0;
    mt_device_init_meter(&meter, &device);
    mt_device_operation_begin(&meter, MT_WORK_OTHER, 3600e9, 1.0);
    mt_device_operation_end(&meter);
    mt_device_operation_begin(&meter, MT_WORK_OTHER, 1.0, 3.5);
    mt_device_operation_end(&meter);
    mt_device_settle(&meter);
    assert_true(meter.metered_ns == 1800e9 + 3.5);
    assert_int_equal(device.pace_debt_ns, 0);
    mt_device_init_plain(&device);
    mt_device_init_meter(&meter, &device);
    mt_device_operation_begin(&meter, MT_WORK_OTHER, 1.0, 1.0);
    work_for_ns(1000000);
    mt_device_operation_end(&meter);
    assert_true(meter.metered_ns >= 1e6); /* unpaced: what it took */
}

static void an_account_sums_work_by_phase_and_kind(void **state)
{
    MT_UNUSED(state);
    static struct mt_account account;
    struct mt_device device;
    struct mt_device meter;
    mt_device_init_plain(&device);
    device.account = &account;
    mt_span_begin(MT_PHASE_HEAD);
    for (int i = 0; i < 2; i++) {
        mt_device_operation_begin(&device, MT_WORK_PRODUCT, 100.0, 8.0);
        work_for_ns(1000000);
        mt_device_operation_end(&device);
    }
    mt_span_end(MT_PHASE_HEAD);
    mt_device_operation_begin(&device, MT_WORK_OTHER, 3.0, 5.0);
    mt_device_operation_end(&device);
    mt_device_init_meter(&meter, &device);
    mt_device_operation_begin(&meter, MT_WORK_OTHER, 3.0, 5.0);
    mt_device_operation_end(&meter);
    const struct mt_work_sum *head = &account.sum[MT_PHASE_HEAD][MT_WORK_PRODUCT];
    const struct mt_work_sum *outside = &account.sum[MT_N_PHASE][MT_WORK_OTHER];
    assert_true(head->flops == 200.0 && head->bytes == 16.0 && head->time_ns >= 2000000);
    assert_true(outside->flops == 3.0 && outside->bytes == 5.0);
    assert_true(account.sum[MT_PHASE_HEAD][MT_WORK_OTHER].flops == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unpaced_device_owes_nothing),
        cmocka_unit_test(a_paced_device_takes_at_least_the_modelled_time),
        cmocka_unit_test(the_longer_of_flops_and_bytes_counts),
        cmocka_unit_test(a_slowdown_multiplies_the_modelled_time_of_its_rank),
        cmocka_unit_test(a_slowdown_alone_stretches_the_measured_time),
        cmocka_unit_test(an_operation_slower_than_modelled_earns_no_credit),
        cmocka_unit_test(small_debts_wait_for_settling),
        cmocka_unit_test(absurd_work_does_not_overflow),
        cmocka_unit_test(a_gpu_is_refused_as_a_missing_resource),
        cmocka_unit_test(threads_are_set_as_configured_or_shared),
        cmocka_unit_test(the_description_names_threads_and_pace),
        cmocka_unit_test(a_sleeping_device_serves_its_idle_function_until_nothing_is_under_way),
        cmocka_unit_test(a_sleeping_device_with_nothing_under_way_sleeps_once),
        cmocka_unit_test(a_computing_device_breathes_once_in_a_while),
        cmocka_unit_test(a_meter_sums_modelled_times_without_slowdown_and_without_sleeping),
        cmocka_unit_test(an_account_sums_work_by_phase_and_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
