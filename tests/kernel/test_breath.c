/* Long kernels let communication advance: inside attention, between tiles of products, and only on
 * the thread that called them, which is the one that may call MPI. */
#include "support/test.h"

#include "base/memory.h"
#include "kernel/kernel.h"

#include <pthread.h>

struct breath {
    struct mt_device device;
    pthread_t caller;
    int n_call;
};

static bool count_breath(void *context)
{
    struct breath *breath = context;
    assert_true(pthread_equal(pthread_self(), breath->caller));
    ++breath->n_call;
    breath->device.idle_ns = INT64_MIN / 2; /* long ago: the next breath is due */
    return true;
}

static void breath_init(struct breath *breath, int n_thread)
{
    mt_device_init_plain(&breath->device);
    breath->device.n_thread = n_thread;
    breath->caller = pthread_self();
    breath->n_call = 0;
    mt_device_set_idle(&breath->device, count_breath, breath);
    breath->device.idle_ns = INT64_MIN / 2;
}

static void *take(int64_t n_bytes)
{
    void *memory = NULL;
    MT_TEST_OK(mt_memory_allocate(n_bytes, "test", &memory));
    return memory;
}

/* Breaths of forward and backward. */
static void run_attention(struct breath *breath, int64_t length, int n_call[2])
{
    enum { N_HEAD = 2, HEAD_DIM = 16 };
    const struct mt_attention shape = {1, length, N_HEAD, N_HEAD, HEAD_DIM, 0};
    const int64_t n_bytes = length * N_HEAD * HEAD_DIM * (int64_t)sizeof(float);
    float *array[9];
    for (int i = 0; i < 9; ++i) {
        array[i] = take(n_bytes);
    }
    void *scratch = take(mt_attention_scratch_bytes(&breath->device, &shape));
    const struct mt_attention_forward forward = {array[0], array[1], array[2], array[3],
                                                 array[4], scratch,  NULL,     NULL};
    const struct mt_attention_backward backward = {array[5], array[6], array[7], array[8],
                                                   array[0], array[1], array[2], array[3],
                                                   array[4], scratch,  NULL,     NULL};
    breath->n_call = 0;
    mt_attention_forward(&breath->device, &forward, &shape);
    n_call[0] = breath->n_call;
    mt_attention_backward(&breath->device, &backward, &shape);
    n_call[1] = breath->n_call - n_call[0];
    for (int i = 0; i < 9; ++i) {
        mt_memory_free(array[i]);
    }
    mt_memory_free(scratch);
}

static void attention_breathes_more_often_the_longer_it_lasts(void **state)
{
    struct breath breath;
    int n_short[2];
    int n_long[2];
    MT_UNUSED(state);
    breath_init(&breath, 1);
    run_attention(&breath, 64, n_short);
    run_attention(&breath, 256, n_long);
    for (int i = 0; i < 2; ++i) {
        assert_true(n_short[i] > 2); /* more often than once a head */
        assert_true(n_long[i] >= 2 * n_short[i]);
    }
}

static void only_the_calling_thread_breathes(void **state)
{
    struct breath breath;
    int n_call[2];
    MT_UNUSED(state);
    breath_init(&breath, 3);
    run_attention(&breath, 256, n_call);
}

static void products_breathe_between_tiles(void **state)
{
    enum { N_ROW = 640, WIDTH = 32 };
    struct breath breath;
    struct mt_weight weight;
    MT_UNUSED(state);
    breath_init(&breath, 1);
    float *x = take(N_ROW * WIDTH * (int64_t)sizeof(float));
    float *y = take(N_ROW * WIDTH * (int64_t)sizeof(float));
    void *pack = take(mt_weight_bytes(&breath.device, WIDTH, WIDTH, false));
    MT_TEST_OK(mt_linear_prepare(&breath.device, WIDTH, WIDTH));
    mt_weight_init(&breath.device, &weight, WIDTH, WIDTH, false, pack);
    mt_weight_pack(&breath.device, &weight, x);
    breath.n_call = 0;
    mt_linear_forward(&breath.device, y, x, &weight, N_ROW);
    assert_true(breath.n_call >= 5);
    mt_memory_free(pack);
    mt_memory_free(y);
    mt_memory_free(x);
    mt_kernel_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_breathes_more_often_the_longer_it_lasts),
        cmocka_unit_test(only_the_calling_thread_breathes),
        cmocka_unit_test(products_breathe_between_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
