/* The emulator itself: every planted bug is found, in every order of threads, and the right twin of
 * each kernel passes. */
#include "emulation/bugs.h"
#include "emulation/emulator.h"

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

namespace
{
struct world {
    cudaStream_t stream, other;
    float *a, *b; /* device [64], of which a is initialised */
};

void order_by(int i)
{
    emu_set_order(static_cast<enum emu_order>(i % 3), 17 + uint64_t(i));
}

world make_world()
{
    world w = {};
    float ones[64];
    for (float &one : ones) {
        one = 1.0F;
    }
    cudaStreamCreateWithFlags(&w.stream, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&w.other, cudaStreamNonBlocking);
    cudaMalloc(reinterpret_cast<void **>(&w.a), sizeof(ones));
    cudaMalloc(reinterpret_cast<void **>(&w.b), sizeof(ones));
    cudaMemcpy(w.a, ones, sizeof(ones), cudaMemcpyHostToDevice);
    return w;
}

/* Waits for everything, then the first error is about `part`; NULL: there is none. */
void expect_and_clear(world *w, const char *part)
{
    cudaDeviceSynchronize();
    const char *error = emu_take_error();
    if (part == nullptr) {
        if (error != nullptr) {
            fail_msg("unexpected: %s", error);
        }
    } else if (error == nullptr || std::strstr(error, part) == nullptr) {
        fail_msg("expected \"%s\", got: %s", part, error != nullptr ? error : "nothing");
    }
    cudaFree(w->a);
    cudaFree(w->b);
    cudaStreamDestroy(w->stream);
    cudaStreamDestroy(w->other);
    assert_null(emu_take_error());
}

/* Both twins of a kernel that writes b. */
void check_twins(void (*launch)(float *, bool, cudaStream_t), const char *part)
{
    for (int i = 0; i < 12; i++) {
        order_by(i);
        world w = make_world();
        launch(w.b, i >= 6, w.stream);
        expect_and_clear(&w, i >= 6 ? nullptr : part);
    }
}

void a_missing_barrier_is_found(void **)
{
    check_twins(bug_shared_rotation, "with no barrier between");
}

void a_missing_warp_barrier_is_found(void **)
{
    check_twins(bug_warp_rotation, "with no barrier between");
}

void two_blocks_that_write_one_word_are_found(void **)
{
    check_twins(bug_blocks, "another block of the launch");
}

void an_index_beyond_a_shared_array_is_found(void **)
{
    check_twins(bug_shared_bounds, "of shared memory");
}

void shared_memory_that_nobody_wrote_is_found(void **)
{
    check_twins(bug_shared_unknown, "not initialised");
}

void lanes_that_go_another_way_are_found(void **)
{
    check_twins(bug_mask, "divergent mask");
}

void a_barrier_that_some_threads_never_reach_is_found(void **)
{
    check_twins(bug_barrier, "never reach");
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
    for (int i = 0; i < 12; i++) {
        order_by(i);
        world w = make_world();
        bug_copy(w.b, w.a, places[i / 3], w.stream);
        expect_and_clear(&w, i < 3 ? nullptr : "of global memory");
    }
    world w = make_world();
    float *freed = w.a;
    cudaMalloc(reinterpret_cast<void **>(&w.a), 256);
    cudaFree(freed);
    bug_copy(w.b, freed, 0, w.stream);
    expect_and_clear(&w, "out of bounds");
}

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

void a_device_pointer_on_the_host_ends_the_process(void **)
{
    world w = make_world();
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        const float volatile *device = w.a;
        _exit(device[0] > 0.0F ? 1 : 0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    expect_and_clear(&w, nullptr);
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
    for (int i = 0; i < 24; i++) {
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
    for (int i = 0; i < 2; i++) {
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
        cmocka_unit_test(memory_that_nobody_wrote_is_found),
        cmocka_unit_test(a_host_pointer_in_a_kernel_is_found),
        cmocka_unit_test(a_device_pointer_on_the_host_ends_the_process),
        cmocka_unit_test(atomic_additions_of_all_blocks_are_no_race),
        cmocka_unit_test(a_missing_wait_between_streams_is_found),
        cmocka_unit_test(waiting_for_a_stream_waits_for_its_events),
        cmocka_unit_test(a_copy_that_does_not_wait_for_the_stream_is_found),
        cmocka_unit_test(copies_say_what_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
