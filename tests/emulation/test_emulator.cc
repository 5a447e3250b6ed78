/* The emulator itself: every planted bug is found, in every order of threads, and the right twin of
 * each kernel passes. A build that does not look for a kind of bug runs the right twins only. */
#include "emulation/world.h"

#include <atomic>
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <thread>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

#if defined(__SANITIZE_ADDRESS__)
extern "C" const char *__asan_default_options()
{
    return "halt_on_error=0:suppress_equal_pcs=0";
}
#elif defined(__SANITIZE_THREAD__)
/* Planted races are reported, and are no failure of the process. */
extern "C" const char *__tsan_default_options()
{
    return "suppress_equal_stacks=0:suppress_equal_addresses=0:exitcode=0";
}
#endif

namespace
{
enum { ALL = MT_EMU_HISTORY | MT_EMU_ADDRESS | MT_EMU_THREAD };

/* Both twins of a kernel that writes b; what the wrong one is found as, by whom. */
void check_twins(void (*launch)(float *, bool, cudaStream_t), const char *part, int watches)
{
    for (int i = is_watched_by(watches) ? 0 : 6; i < 12; i++) {
        order_by(i);
        world w = make_world();
        launch(w.b, i >= 6, w.stream);
        expect_and_clear(&w, i >= 6 ? nullptr : part);
    }
}

void a_missing_barrier_is_found(void **)
{
    check_twins(bug_shared_rotation, "with no barrier between", MT_EMU_HISTORY | MT_EMU_THREAD);
}

void a_missing_warp_barrier_is_found(void **)
{
    check_twins(bug_warp_rotation, "with no barrier between", MT_EMU_HISTORY | MT_EMU_THREAD);
}

void two_blocks_that_write_one_word_are_found(void **)
{
    check_twins(bug_blocks, "another block of the launch", MT_EMU_HISTORY);
}

void an_index_beyond_a_shared_array_is_found(void **)
{
    check_twins(bug_shared_bounds, "of shared memory", MT_EMU_HISTORY | MT_EMU_ADDRESS);
}

void shared_memory_that_nobody_wrote_is_found(void **)
{
    check_twins(bug_shared_unknown, "not initialised", MT_EMU_HISTORY);
}

void lanes_that_go_another_way_are_found(void **)
{
    check_twins(bug_mask, "divergent mask", ALL);
}

void a_barrier_that_some_threads_never_reach_is_found(void **)
{
    check_twins(bug_barrier, "never reach", ALL);
}

void a_misaligned_vector_is_found(void **)
{
    for (int i = 0; i < 6; i++) {
        order_by(i);
        world w = make_world();
        bug_vector(w.b, w.a, i >= 3, w.stream);
        expect_and_clear(&w, i >= 3 ? nullptr : "misaligned");
    }
}

void accesses_outside_of_allocations_are_found(void **)
{
    static const int64_t places[] = {63, 64, -1, 100};
    const bool is_found = is_watched_by(MT_EMU_HISTORY | MT_EMU_ADDRESS);
    for (int i = 0; i < (is_found ? 12 : 3); i++) {
        order_by(i);
        world w = make_world();
        bug_copy(w.b, w.a, places[i / 3], w.stream);
        expect_and_clear(&w, i < 3 ? nullptr : "of global memory");
    }
    if (!is_found) {
        return;
    }
    world w = make_world();
    float *freed = w.a;
    cudaMalloc(reinterpret_cast<void **>(&w.a), 256);
    cudaFree(freed);
    bug_copy(w.b, freed, 0, w.stream);
    expect_and_clear(&w, "out of bounds");
}

#if MT_EMU_WATCH == MT_EMU_HISTORY
void memory_that_nobody_wrote_is_found(void **)
{
    world w = make_world();
    bug_copy(w.a, w.b, 5, w.stream);
    expect_and_clear(&w, "not initialised");
    w = make_world();
    float host[4];
    cudaMemcpy(host, w.b, sizeof(host), cudaMemcpyDeviceToHost);
    expect_and_clear(&w, "not initialised");
}

/* What a vector or a copy reads is found by all watchers. */
void a_host_pointer_in_a_kernel_is_found(void **)
{
    static const float somewhere[4] = {0.0F};
    const float on_stack[4] = {0.0F};
    for (const float *host : {static_cast<const float *>(somewhere), on_stack}) {
        world w = make_world();
        bug_copy(w.b, host, 1, w.stream);
        expect_and_clear(&w, "host memory");
    }
}
#endif

/* The process that does this, a child, ends by an error of its own. */
void expect_end(void (*what)(world *), world *w)
{
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        (void)freopen("/dev/null", "w", stderr);
        what(w);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}

void a_device_pointer_on_the_host_ends_the_process(void **)
{
    world w = make_world();
    expect_end([](world *in) { (void)*const_cast<const float volatile *>(in->a); }, &w);
    expect_end([](world *in) { memset(in->a, 0, 4); }, &w);
    expect_and_clear(&w, nullptr);
}

/* What no compiler has put calls into: found at guard pages, and by the sanitizer, which has its
 * own version of the function. */
void a_library_that_goes_beyond_an_allocation_is_found(void **)
{
    const bool is_found = emu_has_guards() || is_watched_by(MT_EMU_ADDRESS);
    for (int i = is_found ? 0 : 3; i < 6; i++) {
        order_by(i);
        world w = make_world();
        bug_library(w.b, w.a, i >= 3 ? 256 : 260, w.stream);
        expect_and_clear(&w, i >= 3 ? nullptr : "out of bounds");
    }
}

void an_array_of_a_thread_has_bounds(void **)
{
    world w = make_world();
    bug_own_array(w.b, 8, w.stream);
    expect_and_clear(&w, nullptr);
    if (is_watched_by(MT_EMU_ADDRESS)) {
        w = make_world();
        expect_end(
            [](world *in) {
                bug_own_array(in->b, 9, in->stream);
                cudaDeviceSynchronize();
                if (emu_take_error() != nullptr) {
                    _exit(1);
                }
            },
            &w);
        expect_and_clear(&w, nullptr);
    }
}

/* The history has one entry a word, and takes these for a race. */
#if MT_EMU_WATCH != MT_EMU_HISTORY
void halves_of_a_word_are_apart(void **)
{
    for (int i = 0; i < 3; i++) {
        order_by(i);
        world w = make_world();
        bug_half_words(reinterpret_cast<uint16_t *>(w.b), reinterpret_cast<uint16_t *>(w.a),
                       w.stream);
        expect_and_clear(&w, nullptr);
    }
}
#endif

/* ---- threads of the host ---- */

void threads_of_the_host_work_beside_each_other(void **)
{
    world w = make_world();
    float *const both[2] = {w.a, w.b};
    const cudaStream_t streams[2] = {w.stream, w.other};
    cudaMemcpy(w.b, w.a, 256, cudaMemcpyDeviceToDevice);
    std::thread threads[2];
    for (int i = 0; i < 2; i++) {
        threads[i] = std::thread([&, i] {
            for (int round = 0; round < 50; round++) {
                bug_shared_rotation(both[i], true, streams[i]);
                cudaStreamSynchronize(streams[i]);
            }
        });
    }
    threads[0].join();
    threads[1].join();
    for (float *const device : both) {
        float host[64];
        cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost);
        for (int i = 0; i < 64; i++) {
            assert_true(host[i] == float((i + 1) % 64));
        }
    }
    expect_and_clear(&w, nullptr);
}

/* A copy to pinned memory is another thread's, which has waited for it; this one must wait for that
 * thread. */
void a_thread_that_reads_what_another_waits_for_is_found(void **)
{
    for (int i = is_watched_by(MT_EMU_THREAD) ? 0 : 1; i < 2; i++) {
        world w = make_world();
        std::atomic<bool> is_there(false);
        void *pinned = nullptr;
        cudaMallocHost(&pinned, 256);
        std::thread other([&] {
            cudaMemcpyAsync(pinned, w.a, 256, cudaMemcpyDeviceToHost, w.stream);
            cudaStreamSynchronize(w.stream);
            is_there.store(true, i == 0 ? std::memory_order_relaxed : std::memory_order_release);
        });
        while (!is_there.load(i == 0 ? std::memory_order_relaxed : std::memory_order_acquire)) {
        }
        assert_true(static_cast<float volatile *>(pinned)[0] == 1.0F);
        other.join();
        cudaFreeHost(pinned);
        expect_and_clear(&w, i == 1 ? nullptr : "a race");
    }
}

void atomic_additions_of_all_blocks_are_no_race(void **)
{
    for (int i = 0; i < 3; i++) {
        order_by(i);
        world w = make_world();
        int count = 2;
        cudaMemcpy(w.b, &count, sizeof(count), cudaMemcpyHostToDevice);
        bug_atomic(reinterpret_cast<int *>(w.b), w.stream);
        cudaStreamSynchronize(w.stream);
        cudaMemcpy(&count, w.b, sizeof(count), cudaMemcpyDeviceToHost);
        assert_int_equal(count, 122);
        expect_and_clear(&w, nullptr);
    }
}

/* b = a on one stream, then a[0] = b[0] on the other, after an event or not. */
void a_missing_wait_between_streams_is_found(void **)
{
    for (int i = is_watched_by(MT_EMU_HISTORY) ? 0 : 12; i < 24; i++) {
        order_by(i);
        world w = make_world();
        cudaEvent_t event = nullptr;
        cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
        cudaMemcpy(w.b, w.a, 256, cudaMemcpyDeviceToDevice);
        bug_copy(w.b, w.a, 3, w.stream);
        cudaEventRecord(event, w.stream);
        if (i >= 12) {
            cudaStreamWaitEvent(w.other, event, 0);
        }
        bug_copy(w.a, w.b, 0, w.other);
        expect_and_clear(&w, i >= 12 ? nullptr : "of another stream, not waited for");
        cudaEventDestroy(event);
    }
}

/* The last thing that a stream does is to wait for another. */
void waiting_for_a_stream_waits_for_its_events(void **)
{
    for (int i = 0; i < 3; i++) {
        order_by(i);
        world w = make_world();
        float host = 0.0F;
        cudaEvent_t event = nullptr;
        cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
        bug_copy(w.b, w.a, 3, w.other);
        cudaEventRecord(event, w.other);
        cudaStreamWaitEvent(w.stream, event, 0);
        cudaStreamSynchronize(w.stream);
        cudaMemcpy(&host, w.b, sizeof(host), cudaMemcpyDeviceToHost);
        assert_true(host == 1.0F);
        expect_and_clear(&w, nullptr);
        cudaEventDestroy(event);
    }
}

/* Nothing has run before somebody waits; the copy does not wait by itself. */
void a_copy_that_does_not_wait_for_the_stream_is_found(void **)
{
    for (int i = is_watched_by(MT_EMU_HISTORY) ? 0 : 1; i < 2; i++) {
        world w = make_world();
        float host = 0.0F;
        const int64_t n_launch = emu_count().n_launch;
        bug_copy(w.b, w.a, 3, w.stream);
        assert_int_equal(emu_count().n_launch, n_launch);
        if (i == 1) {
            cudaStreamSynchronize(w.stream);
            assert_int_equal(emu_count().n_launch, n_launch + 1);
        }
        cudaMemcpy(&host, w.b, sizeof(host), cudaMemcpyDeviceToHost);
        expect_and_clear(&w, i == 1 ? nullptr : "not initialised");
    }
}

void copies_say_what_they_are(void **)
{
    static float pageable[4] = {0.0F};
    world w = make_world();
    cudaMemcpyAsync(w.b, pageable, sizeof(pageable), cudaMemcpyHostToDevice, w.stream);
    expect_and_clear(&w, "not pinned");
    w = make_world();
    cudaMemcpy(w.b, pageable, sizeof(pageable), cudaMemcpyDeviceToHost);
    expect_and_clear(&w, "a copy of kind");
    w = make_world();
    void *pinned = nullptr;
    cudaMallocHost(&pinned, 256);
    std::memset(pinned, 0, 256);
    cudaMemcpyAsync(pinned, w.a, 256, cudaMemcpyDeviceToHost, w.stream);
    assert_true(static_cast<float *>(pinned)[63] == 0.0F);
    cudaStreamSynchronize(w.stream);
    assert_true(static_cast<float *>(pinned)[63] == 1.0F);
    cudaFreeHost(pinned);
    expect_and_clear(&w, nullptr);
}
}  // namespace

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_barrier_is_found),
        cmocka_unit_test(a_missing_warp_barrier_is_found),
        cmocka_unit_test(two_blocks_that_write_one_word_are_found),
        cmocka_unit_test(an_index_beyond_a_shared_array_is_found),
        cmocka_unit_test(shared_memory_that_nobody_wrote_is_found),
        cmocka_unit_test(lanes_that_go_another_way_are_found),
        cmocka_unit_test(a_barrier_that_some_threads_never_reach_is_found),
        cmocka_unit_test(a_misaligned_vector_is_found),
        cmocka_unit_test(accesses_outside_of_allocations_are_found),
#if MT_EMU_WATCH == MT_EMU_HISTORY
        cmocka_unit_test(memory_that_nobody_wrote_is_found),
        cmocka_unit_test(a_host_pointer_in_a_kernel_is_found),
#else
        cmocka_unit_test(halves_of_a_word_are_apart),
#endif
        cmocka_unit_test(a_device_pointer_on_the_host_ends_the_process),
        cmocka_unit_test(a_library_that_goes_beyond_an_allocation_is_found),
        cmocka_unit_test(an_array_of_a_thread_has_bounds),
        cmocka_unit_test(threads_of_the_host_work_beside_each_other),
        cmocka_unit_test(a_thread_that_reads_what_another_waits_for_is_found),
        cmocka_unit_test(atomic_additions_of_all_blocks_are_no_race),
        cmocka_unit_test(a_missing_wait_between_streams_is_found),
        cmocka_unit_test(waiting_for_a_stream_waits_for_its_events),
        cmocka_unit_test(a_copy_that_does_not_wait_for_the_stream_is_found),
        cmocka_unit_test(copies_say_what_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
