/* From the marks of a GPU to sums, arrivals and the finding, on a device whose clock is made up: no
 * time of the machine is in what is compared. */
#include "base/device_time.h"
#include "base/memory.h"
#include "device/module.h"
#include "device/timeline.h"
#include "profile/analysis.h"
#include "profile/run_folder.h"
#include "support/test.h"

#include <stdio.h>

static const int64_t MS = 1000000;
static const int64_t AHEAD_NS = 5000000000; /* that the device's clock is of the host's */

/* One stream: what is enqueued is over at once, and takes what run says. */
static struct {
    int64_t now_ns; /* by the device's clock */
    int64_t mark[MT_DEVICE_MARKS];
    int64_t n_mark;
} gpu;

static bool is_over(const struct mt_device *device)
{
    MT_UNUSED(device);
    return true;
}

static void mark(const struct mt_device *device, int which)
{
    MT_UNUSED(device);
    gpu.mark[which] = gpu.now_ns;
    ++gpu.n_mark;
}

static void *event(const struct mt_device *device, int which)
{
    MT_UNUSED(device);
    return &gpu.mark[which];
}

static int64_t between_ns(const struct mt_device *device, int from, int to)
{
    MT_UNUSED(device);
    return gpu.mark[to] - gpu.mark[from];
}

static const struct mt_device_table table = {
    .is_over = is_over, .mark = mark, .event = event, .between_ns = between_ns};
static const struct mt_module module = {.device = &table};
static struct mt_device device;

/* Everything is over, and found so within error_ns. */
static void wait_for_it(int64_t error_ns)
{
    mt_timeline_end(&device);
    mt_timeline_collect(&device, gpu.now_ns - AHEAD_NS - error_ns,
                        gpu.now_ns - AHEAD_NS + error_ns);
}

static int open_device(void **state)
{
    MT_UNUSED(state);
    gpu.now_ns = AHEAD_NS + 100 * MS;
    device = (struct mt_device){.module = &module};
    MT_TEST_OK(mt_timeline_open(&device));
    MT_TEST_OK(mt_record_open(TEST_LAYERS, 4));
    wait_for_it(0); /* far from where opening found it: this is taken */
    mt_span_reset();
    return 0;
}

static int close_device(void **state)
{
    MT_UNUSED(state);
    mt_timeline_close(&device);
    mt_record_close();
    return mt_memory_n_live() == 0 ? 0 : -1;
}

static void run(enum mt_phase phase, int64_t ns)
{
    mt_span_begin(phase);
    mt_timeline_operation(&device, MT_WORK_OTHER);
    gpu.now_ns += ns;
    mt_span_end(phase);
}

struct plan {
    int timed;
    int64_t record;
};

/* A plan with messages to and from all: over at over_ns. */
static struct plan begin_plan(int64_t number, uint64_t sources, int64_t over_ns)
{
    const struct mt_collective_facts facts = {.name = "alltoallv",
                                              .number = number,
                                              .n_source = __builtin_popcountll(sources),
                                              .sources = sources,
                                              .is_of_device = true};
    void *over = NULL;
    struct plan plan = {.record = mt_record_arrive(&facts)};
    plan.timed = mt_timeline_plan_begin(&device, plan.record, &over);
    if (over != NULL) {
        *(int64_t *)over = over_ns;
    }
    return plan;
}

static void end_plan(const struct plan *plan, enum mt_phase phase, int64_t over_ns)
{
    mt_span_begin(phase);
    mt_timeline_plan_end(&device, plan->timed);
    gpu.now_ns = gpu.now_ns > over_ns ? gpu.now_ns : over_ns;
    mt_span_end(phase);
}

static void sums_and_arrivals_are_the_device_s(void **state)
{
    MT_UNUSED(state);
    struct mt_span_totals totals;
    const int64_t begin_ns = gpu.now_ns - AHEAD_NS;
    const int64_t n_allocated = mt_memory_n_allocated();
    mt_record_step_begin(1);
    mt_record_set_layer(1);
    mt_span_begin(MT_PHASE_ATTENTION); /* one piece */
    mt_timeline_operation(&device, MT_WORK_PRODUCT);
    gpu.now_ns += 2 * MS;
    mt_timeline_operation(&device, MT_WORK_OTHER);
    gpu.now_ns += 3 * MS;
    mt_span_end(MT_PHASE_ATTENTION);
    run(MT_PHASE_EXPERT, 7 * MS);
    gpu.now_ns += MS; /* nothing to do */
    const int64_t over_ns = gpu.now_ns + 9 * MS;
    const struct plan plan = begin_plan(4, 2, over_ns);
    run(MT_PHASE_DISPATCH, 2 * MS);
    end_plan(&plan, MT_PHASE_COMBINE, over_ns);
    run(MT_PHASE_COMBINE, 3 * MS);
    mt_span_totals(&totals);
    assert_int_equal(totals.phase_ns[MT_PHASE_ATTENTION], 0); /* not known yet */
    wait_for_it(100);
    mt_record_step_end();
    const struct mt_recorded_step *step = mt_record_step(0);
    assert_int_equal(step->phase_ns[MT_PHASE_ATTENTION], 5 * MS);
    assert_int_equal(step->phase_ns[MT_PHASE_EXPERT], 7 * MS);
    assert_int_equal(step->phase_ns[MT_PHASE_DISPATCH], 2 * MS);
    assert_int_equal(step->phase_ns[MT_PHASE_COMBINE], (7 + 3) * MS);
    assert_int_equal(step->wait_ns[MT_PHASE_COMBINE], 7 * MS);
    assert_int_equal(mt_record_expert_ns(0)[1], 7 * MS);
    assert_int_equal(step->device_error_ns, 100);
    const struct mt_recorded_span *first = mt_record_span_at(0);
    assert_int_equal(first->track, MT_TRACK_DEVICE);
    assert_int_equal(first->begin_ns, begin_ns);
    assert_int_equal(first->end_ns, begin_ns + 5 * MS);
    const struct mt_recorded_arrival *arrival = mt_record_arrival_at(plan.record);
    assert_true(arrival->is_of_device && arrival->busy_phase == MT_PHASE_EXPERT);
    assert_int_equal(arrival->begin_ns, begin_ns + 13 * MS);
    assert_int_equal(arrival->need_ns, begin_ns + 15 * MS);
    assert_int_equal(arrival->done_ns, begin_ns + 22 * MS);
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
}

/* A plan may be begun before a wait and ended behind it. */
static void a_plan_that_is_under_way_is_told_when_it_is_over(void **state)
{
    MT_UNUSED(state);
    const int64_t begin_ns = gpu.now_ns - AHEAD_NS;
    const struct plan plan = begin_plan(4, 2, gpu.now_ns + 9 * MS);
    run(MT_PHASE_ATTENTION, 2 * MS);
    wait_for_it(0);
    assert_int_equal(mt_record_arrival_at(plan.record)->begin_ns, begin_ns);
    assert_int_equal(mt_record_arrival_at(plan.record)->done_ns, 0);
    run(MT_PHASE_ATTENTION, 20 * MS);
    end_plan(&plan, MT_PHASE_COMBINE, 0);
    wait_for_it(0);
    assert_int_equal(mt_record_arrival_at(plan.record)->need_ns, begin_ns + 22 * MS);
    assert_int_equal(mt_record_arrival_at(plan.record)->done_ns, begin_ns + 9 * MS);
    struct mt_span_totals totals;
    mt_span_totals(&totals);
    assert_int_equal(totals.exposed_wait_ns, 0);
}

static void the_host_s_work_counts_while_the_device_has_nothing_to_do(void **state)
{
    MT_UNUSED(state);
    struct mt_span_totals totals;
    const int64_t begin_ns = gpu.now_ns - AHEAD_NS;
    mt_device_time_host(MT_PHASE_DATA, begin_ns - 4 * MS, begin_ns - 2 * MS, false); /* idle */
    run(MT_PHASE_HEAD, 5 * MS);
    gpu.now_ns += 4 * MS;
    run(MT_PHASE_HEAD_BACKWARD, 5 * MS);
    mt_device_time_host(MT_PHASE_DATA, begin_ns + MS, begin_ns + 7 * MS, false);
    mt_device_time_host(MT_PHASE_ATTENTION, begin_ns + 7 * MS, begin_ns + 8 * MS, false);
    mt_device_time_host(MT_PHASE_CLIP, begin_ns + 8 * MS, begin_ns + 15 * MS, true);
    wait_for_it(0);
    mt_span_totals(&totals);
    assert_int_equal(totals.phase_ns[MT_PHASE_DATA], (2 + 2) * MS);
    assert_int_equal(totals.phase_ns[MT_PHASE_ATTENTION], 0);
    assert_int_equal(totals.phase_ns[MT_PHASE_CLIP], (1 + 1) * MS);
    assert_int_equal(totals.wait_ns[MT_PHASE_CLIP], (1 + 1) * MS);
    /* pieces of one phase with idle time between are one */
    assert_int_equal(totals.phase_ns[MT_PHASE_HEAD] + totals.phase_ns[MT_PHASE_HEAD_BACKWARD],
                     10 * MS);
}

static void clocks_meet_anew_at_every_wait(void **state)
{
    MT_UNUSED(state);
    mt_record_step_begin(1);
    gpu.now_ns += 10 * MS;
    wait_for_it(3 * MS); /* a look that took long says no more than the one before it: 100 ppm */
    assert_int_equal(mt_record_step(0)->device_error_ns, (1 * MS / 100) / 10 + 1000);
    gpu.now_ns += 10 * MS;
    wait_for_it(50);
    mt_record_step_begin(2);
    const int64_t late_ns = 70 * MS;
    mt_timeline_end(&device); /* the machine was asleep */
    mt_timeline_collect(&device, gpu.now_ns - AHEAD_NS + late_ns - 10,
                        gpu.now_ns - AHEAD_NS + late_ns + 10);
    assert_int_equal(mt_record_step(1)->device_error_ns, 10);
}

static void what_finds_no_mark_is_not_timed(void **state)
{
    MT_UNUSED(state);
    struct mt_span_totals totals;
    const struct plan plan = begin_plan(1, 2, gpu.now_ns);
    for (int i = 0; i < MT_DEVICE_MARKS; ++i) {
        run(i % 2 == 0 ? MT_PHASE_GATE : MT_PHASE_EXPERT, MS);
    }
    assert_int_equal(begin_plan(2, 2, gpu.now_ns).timed, -1);
    end_plan(&plan, MT_PHASE_COMBINE, 0);
    wait_for_it(0);
    mt_span_totals(&totals);
    assert_in_range(totals.phase_ns[MT_PHASE_GATE], 1000 * MS, MT_DEVICE_MARKS / 2 * MS);
    run(MT_PHASE_UPDATE, MS); /* all marks are free again */
    wait_for_it(0);
    mt_span_totals(&totals);
    assert_int_equal(totals.phase_ns[MT_PHASE_UPDATE], MS);
}

static void plans_give_their_marks_back(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < MT_DEVICE_MARKS; ++i) {
        const struct plan plan = begin_plan(i, 2, gpu.now_ns);
        assert_true(plan.timed >= 0);
        end_plan(&plan, MT_PHASE_COMBINE, 0);
        wait_for_it(0);
    }
}

/* ---- the report's finding ---- */

enum { N_RANK = 3, SLOW_RANK = 2, N_STEP = 12, SLOW = 3 };

/* Tokens are exchanged, computed three times as slowly by one rank, exchanged back. */
static void live_a_layer(int rank, int64_t *number, int layer)
{
    const uint64_t others = 7U & ~(1U << rank);
    mt_record_set_layer(layer);
    run(MT_PHASE_ATTENTION, 4 * MS);
    const int64_t there_ns = gpu.now_ns + MS;
    const struct plan there = begin_plan((*number)++, others, there_ns);
    end_plan(&there, MT_PHASE_DISPATCH, there_ns);
    mt_record_add_rows(rank, 32);
    run(MT_PHASE_EXPERT, (rank == SLOW_RANK ? SLOW : 1) * 10 * MS);
    const int64_t back_ns = there_ns + (SLOW * 10 + 1) * MS;
    const struct plan back = begin_plan((*number)++, others, back_ns);
    end_plan(&back, MT_PHASE_COMBINE, back_ns);
}

static void live_a_step(int rank, int64_t step_number, int64_t *number)
{
    const int64_t begin_ns = gpu.now_ns - AHEAD_NS;
    mt_record_step_begin(step_number);
    mt_span_reset();
    mt_record_add_tokens(16);
    for (int layer = 0; layer < TEST_LAYERS; ++layer) {
        live_a_layer(rank, number, layer);
    }
    wait_for_it(10);
    mt_record_step_end();
    mt_record_step_close();
    struct mt_recorded_step *step = mt_record_step(mt_record_n_step() - 1);
    step->begin_ns = begin_ns;
    step->end_ns = step->until_ns = gpu.now_ns - AHEAD_NS;
}

static void live_a_rank(const char *path, int rank)
{
    const struct mt_integer_list every = {.n = 3, .value = {1, 2, 12}};
    const struct mt_profile_header header = {.rank = rank,
                                             .n_rank = N_RANK,
                                             .local_rank = rank,
                                             .host = "host",
                                             .run = "made",
                                             .n_layer = TEST_LAYERS,
                                             .n_expert = 4,
                                             .window = 50,
                                             .session_utc_ns = 1,
                                             .session_origin_ns = 0};
    struct mt_profile_writer writer = {.fd = -1};
    char folder[128];
    int64_t number = 0;
    (void)snprintf(folder, sizeof(folder), "%s/profile", path);
    (void)open_device(NULL);
    MT_TEST_OK(mt_profile_writer_open(&writer, folder, false, &header, &every));
    for (int64_t step = 1; step <= N_STEP; ++step) {
        live_a_step(rank, step, &number);
        mt_profile_writer_step(&writer, 1000 * MS);
    }
    mt_profile_writer_finish(&writer);
    mt_profile_writer_close(&writer);
    mt_timeline_close(&device);
    mt_record_close();
}

/* Sums of phases are the sums of the device's spans. */
static void check_sums(const struct mt_profile_step *step)
{
    int64_t sum_ns[MT_N_PHASE] = {0};
    for (int i = 0; i < step->n_span; ++i) {
        const struct mt_profile_span *span = &step->span[i];
        sum_ns[span->phase] += span->track == MT_TRACK_DEVICE ? span->end_ns - span->begin_ns : 0;
    }
    for (int p = 0; p < MT_N_PHASE; ++p) {
        assert_int_equal(step->phase_ns[p] - step->wait_ns[p], sum_ns[p]);
    }
    assert_int_equal(step->n_collective, 2 * TEST_LAYERS);
    for (int i = 0; i < step->n_collective; ++i) {
        assert_true(step->collective[i].is_of_device);
    }
}

static void a_rank_with_slow_kernels_is_found_and_where(void **state)
{
    MT_UNUSED(state);
    char path[64];
    struct mt_profile profile;
    struct mt_analysis analysis;
    test_folder_make(path, sizeof(path));
    for (int rank = 0; rank < N_RANK; ++rank) {
        live_a_rank(path, rank);
    }
    MT_TEST_OK(mt_profile_read(path, &profile));
    assert_int_equal(profile.n_step, N_STEP);
    for (int rank = 0; rank < N_RANK; ++rank) {
        assert_int_equal(profile.rank[rank].error_ns, 10);
        check_sums(mt_profile_step(&profile, 1, rank));
    }
    MT_TEST_OK(mt_analysis_make(&profile, 0, profile.n_step, &analysis));
    assert_int_equal(analysis.n_detailed, N_STEP);
    assert_int_equal(analysis.n_finding, 1);
    assert_int_equal(analysis.finding[0].rank, SLOW_RANK);
    assert_int_equal(analysis.finding[0].cause, MT_CAUSE_SLOW_DEVICE);
    assert_int_equal(analysis.finding[0].phase, MT_PHASE_EXPERT);
    assert_int_equal(analysis.finding[0].persistence, MT_PERMANENT);
    /* 20 of 36 ms of a layer */
    assert_true(analysis.finding[0].share > 0.5 && analysis.finding[0].share < 0.6);
    mt_analysis_clear(&analysis);
    mt_profile_clear(&profile);
    test_folder_remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sums_and_arrivals_are_the_device_s, open_device,
                                        close_device),
        cmocka_unit_test_setup_teardown(a_plan_that_is_under_way_is_told_when_it_is_over,
                                        open_device, close_device),
        cmocka_unit_test_setup_teardown(the_host_s_work_counts_while_the_device_has_nothing_to_do,
                                        open_device, close_device),
        cmocka_unit_test_setup_teardown(clocks_meet_anew_at_every_wait, open_device, close_device),
        cmocka_unit_test_setup_teardown(what_finds_no_mark_is_not_timed, open_device, close_device),
        cmocka_unit_test_setup_teardown(plans_give_their_marks_back, open_device, close_device),
        cmocka_unit_test(a_rank_with_slow_kernels_is_found_and_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
