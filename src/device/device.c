#include "device/device.h"

#include "base/clock.h"
#include "base/size.h"
#include "device/isa.h"
#include "device/module.h"
#include "device/timeline.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

/* Linux sleeps last 50-60 us longer than asked for; debts below this are left to grow, so that the
 * overshoot stays a fraction of the sleep. */
static const int64_t sleep_grain_ns = 200000;

/* What one oversleep may count towards later operations. A rank that was descheduled for longer
 * was late for a reason of its own, which pacing must not hide. */
static const int64_t credit_limit_ns = 1000000;

/* A sleeping device calls its idle function this often, then sleeps so long (and what the system
 * adds); a computing one calls it once a breath at most: docs/decisions/0006-progress.md. */
enum { IDLE_CALLS = 4 };
static const int64_t idle_slice_ns = 50000;
static const int64_t breath_ns = 100000;

/* No operation is modelled to last longer than this (11 days): keeps sums inside int64_t. */
static const double longest_ns = 1e15;

static double find_slowdown(const struct mt_config *config, int rank)
{
    for (int i = 0; i < config->device.n_slowdown; i++) {
        if (config->device.slowdown_rank[i] == rank) {
            return config->device.slowdown_factor[i];
        }
    }
    return 1.0;
}

static void init_defaults(struct mt_device *device)
{
    memset(device, 0, sizeof(*device));
    device->kind = MT_DEVICE_CPU;
    device->dtype = MT_FLOAT32;
    device->n_thread = 1;
    device->slowdown = 1.0;
}

void mt_device_init_plain(struct mt_device *device)
{
    init_defaults(device);
    omp_set_num_threads(1);
}

void mt_device_init_planned(struct mt_device *device, const struct mt_config *config)
{
    init_defaults(device);
    device->dtype = config->device.dtype;
}

enum mt_status mt_device_init(struct mt_device *device, const struct mt_config *config, int rank,
                              const struct mt_core_share *share)
{
    MT_ASSERT(rank >= 0 && share->n >= 1);
    MT_TRY(mt_isa_check());
    mt_device_init_plain(device);
    device->dtype = config->device.dtype;
    const bool is_given = config->device.threads > 0;
    device->n_thread = is_given ? mt_size_to_int(config->device.threads) : share->n;
    device->pace_gflops = config->device.pace_gflops;
    device->pace_gbytes_per_s = config->device.pace_gbytes_per_s;
    device->slowdown = find_slowdown(config, rank);
    omp_set_num_threads(device->n_thread);
    if (!is_given && share->is_alone) {
        (void)mt_cores_bind(share, device->n_thread, device->bound, sizeof(device->bound));
    }
    return MT_OK;
}

static enum mt_status open_gpu(struct mt_device *device, int local, int n_local)
{
    const struct mt_module *module = NULL;
    MT_TRY(mt_module_load(&module));
    MT_TRY(module->device->open(device, local, n_local));
    device->module = module;
    device->kind = MT_DEVICE_CUDA;
    return mt_timeline_open(device);
}

enum mt_status mt_device_open(struct mt_device *device, const struct mt_config *config, int local,
                              int n_local)
{
    MT_ASSERT(device->module == NULL && local >= 0 && local < n_local);
    if (config->device.kind == MT_DEVICE_CPU) {
        return MT_OK;
    }
    const enum mt_status status = open_gpu(device, local, n_local);
    if (status == MT_OK || config->device.kind == MT_DEVICE_CUDA) {
        return status;
    }
    /* what happened; what was expected; what to do */
    const char *text = mt_error_last()->text;
    const char *reason = strstr(text, ", and ");
    text = reason == NULL ? text : reason + strlen(", and ");
    (void)snprintf(device->why_cpu, sizeof(device->why_cpu), "%.*s", (int)strcspn(text, ";"), text);
    mt_error_clear();
    return MT_OK;
}

void mt_device_close(struct mt_device *device, const char *why)
{
    if (device->module != NULL) {
        mt_timeline_close(device);
        device->module->device->close(device);
        device->module = NULL;
        device->context = NULL;
        device->kind = MT_DEVICE_CPU;
    }
    (void)snprintf(device->why_cpu, sizeof(device->why_cpu), "%s", why);
}

static bool is_modelled(const struct mt_device *device)
{
    return device->pace_gflops > 0.0 || device->pace_gbytes_per_s > 0.0;
}

static bool is_paced(const struct mt_device *device)
{
    return is_modelled(device) || device->slowdown > 1.0 || device->is_meter;
}

void mt_device_operation_begin(struct mt_device *device, enum mt_work work, double flops,
                               double bytes)
{
    mt_timeline_operation(device, work);
    if (!is_paced(device) && device->account == NULL) {
        return;
    }
    device->operation_work = work;
    device->operation_flops = flops;
    device->operation_bytes = bytes;
    device->operation_start_ns = mt_clock_ns();
}

/* How long the operation lasts on the device that is imitated. 1 GFLOP/s is 1 FLOP a nanosecond. */
static double modelled_ns(const struct mt_device *device, int64_t measured_ns)
{
    double ns = 0.0;
    if (!is_modelled(device)) {
        ns = (double)measured_ns;
    }
    if (device->pace_gflops > 0.0) {
        ns = device->operation_flops / device->pace_gflops;
    }
    if (device->pace_gbytes_per_s > 0.0) {
        const double transfer_ns = device->operation_bytes / device->pace_gbytes_per_s;
        ns = transfer_ns > ns ? transfer_ns : ns;
    }
    ns *= device->slowdown;
    return ns < longest_ns ? ns : longest_ns;
}

/* False: nothing is under way. */
static bool call_idle(const struct mt_device *device)
{
    bool is_under_way = device->idle != NULL;
    for (int i = 0; i < IDLE_CALLS && is_under_way; i++) {
        if (i > 0) {
            (void)sched_yield(); /* to the peer, where ranks share cores */
        }
        is_under_way = device->idle(device->idle_context);
    }
    return is_under_way;
}

/* Sleeps for the whole debt; what the system sleeps beyond it is credit, up to a limit. While
 * something is under way, sleeps in slices. */
static void sleep_debt(struct mt_device *device)
{
    const int64_t start_ns = mt_clock_ns();
    while (mt_clock_ns() - start_ns < device->pace_debt_ns && call_idle(device)) {
        mt_clock_sleep_until_ns(
            mt_min_i64(mt_clock_ns() + idle_slice_ns, start_ns + device->pace_debt_ns));
    }
    mt_clock_sleep_until_ns(start_ns + device->pace_debt_ns);
    const int64_t rest_ns = device->pace_debt_ns - (mt_clock_ns() - start_ns);
    device->pace_debt_ns = mt_max_i64(rest_ns, -credit_limit_ns);
}

static void add_to_account(const struct mt_device *device, int64_t measured_ns)
{
    struct mt_work_sum *sum = &device->account->sum[mt_span_phase()][device->operation_work];
    sum->flops += device->operation_flops;
    sum->bytes += device->operation_bytes;
    sum->time_ns += device->timeline == NULL ? measured_ns : 0; /* which tells it later */
}

void mt_device_operation_end(struct mt_device *device)
{
    if (!is_paced(device) && device->account == NULL) {
        return;
    }
    const int64_t measured_ns = mt_clock_ns() - device->operation_start_ns;
    if (device->account != NULL) {
        add_to_account(device, measured_ns);
    }
    if (!is_paced(device)) {
        return;
    }
    if (device->is_meter) {
        device->metered_ns += modelled_ns(device, measured_ns);
        return;
    }
    /* An operation that took longer than modelled has been paced by nature and earns no credit:
     * the sum over operations is that of max(modelled, measured). */
    const int64_t owed_ns = mt_max_i64(0, (int64_t)modelled_ns(device, measured_ns) - measured_ns);
    device->pace_debt_ns += owed_ns;
    if (device->pace_debt_ns > sleep_grain_ns) {
        sleep_debt(device);
    }
}

void mt_device_settle(struct mt_device *device)
{
    if (device->pace_debt_ns > 0) {
        sleep_debt(device);
    }
}

void mt_device_set_idle(struct mt_device *device, mt_device_idle_fn idle, void *context)
{
    device->idle = idle;
    device->idle_context = context;
}

void mt_device_breathe(struct mt_device *device)
{
    if (device->idle == NULL) {
        return;
    }
    const int64_t now_ns = mt_clock_ns();
    if (now_ns - device->idle_ns >= breath_ns) {
        device->idle_ns = now_ns;
        (void)device->idle(device->idle_context);
    }
}

void mt_device_init_meter(struct mt_device *meter, const struct mt_device *device)
{
    *meter = *device;
    meter->slowdown = 1.0;
    meter->is_meter = true;
    meter->metered_ns = 0.0;
    meter->idle = NULL;
    meter->account = NULL;
}

/* The processor's name as the kernel knows it. name [bytes] */
static void read_processor(char *name, size_t bytes)
{
    (void)snprintf(name, bytes, "unknown processor");
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", strlen("model name")) == 0 && colon != NULL) {
            line[strcspn(line, "\n")] = '\0';
            (void)snprintf(name, bytes, "%s", colon + 1 + (colon[1] == ' '));
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
}

void mt_device_describe(const struct mt_device *device, char *text, size_t bytes)
{
    char name[128];
    char pace[128] = "";
    if (device->module != NULL) {
        device->module->device->describe(device, text, bytes);
        return;
    }
    char place[sizeof(device->bound) + sizeof(" (CPU )")] = "";
    if (device->bound[0] != '\0') {
        (void)snprintf(place, sizeof(place), " (CPU %s)", device->bound);
    }
    read_processor(name, sizeof(name));
    if (is_paced(device)) {
        (void)snprintf(pace, sizeof(pace), ", paced: %g GFLOP/s, %g GB/s, slowdown %g",
                       device->pace_gflops, device->pace_gbytes_per_s, device->slowdown);
    }
    (void)snprintf(text, bytes, "cpu, %d thread%s%s, %s, %s, %s%s", device->n_thread,
                   device->n_thread == 1 ? "" : "s", place, name, mt_isa_name(mt_isa_detect()),
                   device->dtype == MT_BFLOAT16 ? "bfloat16" : "float32", pace);
}
