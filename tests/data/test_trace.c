/* Traces: what is written reads back, in all three formats; what is no trace is refused with file,
 * line and what was expected, wherever it is cut. */
#include "base/memory.h"
#include "data/trace.h"
#include "support/folder.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 256, MAX_VALUE = 4096 };

static const char *const ending[] = {".csv", ".jsonl", ".h5"};
enum { N_ENDING = 3 };
static const int layer_number[] = {2, 3, 7};

static const char *write_text(const char *name, const char *text, size_t n)
{
    const char *path = mt_test_path(name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    return path;
}

static size_t file_size(const char *path)
{
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    return (size_t)about.st_size;
}

/* A count that is a function of where it stands. */
static int64_t value_at(int64_t step, int64_t i)
{
    return i % 5 == 0 ? 0 : step * 1000003 + i * i;
}

static void record(const char *path, const struct mt_trace_shape *shape, int64_t first,
                   int64_t last)
{
    struct mt_trace_writer *writer = NULL;
    int64_t counts[MAX_VALUE];
    const int64_t n = mt_trace_shape_n_value(shape);
    MT_TEST_OK(mt_trace_writer_open(path, shape, layer_number, first - 1, &writer));
    for (int64_t step = first; step <= last; ++step) {
        for (int64_t i = 0; i < n; ++i) {
            counts[i] = value_at(step, i);
        }
        MT_TEST_OK(mt_trace_writer_append(writer, step, counts));
    }
    MT_TEST_OK(mt_trace_writer_close(writer));
}

static void expect_trace(const char *path, const struct mt_trace_shape *shape, int64_t n_step)
{
    struct mt_trace *trace = NULL;
    int64_t counts[MAX_VALUE];
    MT_TEST_OK(mt_trace_open(path, &trace));
    const struct mt_trace_shape *got = mt_trace_get_shape(trace);
    assert_int_equal(got->n_micro, shape->n_micro);
    assert_int_equal(got->n_layer, shape->n_layer);
    assert_int_equal(got->n_expert, shape->n_expert);
    assert_int_equal(mt_trace_n_step(trace), n_step);
    for (int64_t turn = 0; turn < 2 * n_step; ++turn) {
        const int64_t index = turn < n_step ? turn : 2 * n_step - 1 - turn; /* and backwards */
        assert_int_equal(mt_trace_step(trace, index), index + 1);
        MT_TEST_OK(mt_trace_read(trace, index, counts));
        for (int64_t i = 0; i < mt_trace_shape_n_value(shape); ++i) {
            assert_int_equal(counts[i], value_at(index + 1, i));
        }
    }
    mt_trace_close(trace);
}

static void what_is_recorded_reads_back_in_every_format(void **state)
{
    (void)state;
    static const struct mt_trace_shape shape[] = {{1, 1, 0, 1}, {1, 3, 0, 8}, {1, 2, 3, 5},
                                                  {4, 3, 0, 8}, {2, 3, 7, 6}, {3, 1, 1, 2}};
    for (size_t s = 0; s < sizeof(shape) / sizeof(shape[0]); ++s) {
        for (int f = 0; f < N_ENDING; ++f) {
            char name[64];
            (void)snprintf(name, sizeof(name), "round%zu%s", s, ending[f]);
            record(mt_test_path(name), &shape[s], 1, 5);
            expect_trace(mt_test_path(name), &shape[s], 5);
        }
    }
    assert_int_equal(mt_memory_n_live(), 0);
}

static void recording_cuts_to_the_resumed_step_and_goes_on(void **state)
{
    (void)state;
    static const struct mt_trace_shape shape = {2, 3, 3, 4};
    for (int f = 0; f < N_ENDING; ++f) {
        char name[64];
        (void)snprintf(name, sizeof(name), "resume%s", ending[f]);
        record(mt_test_path(name), &shape, 1, 9);
        record(mt_test_path(name), &shape, 5, 6);
        expect_trace(mt_test_path(name), &shape, 6);
        record(mt_test_path(name), &shape, 7, 7);
        expect_trace(mt_test_path(name), &shape, 7);
        record(mt_test_path(name), &shape, 1, 3);
        expect_trace(mt_test_path(name), &shape, 3);
    }
}

static void a_recording_cut_at_any_byte_resumes(void **state)
{
    (void)state;
    static const struct mt_trace_shape shape = {2, 2, 2, 2};
    for (int f = 0; f < 2; ++f) {
        char name[64];
        static char text[1 << 16];
        (void)snprintf(name, sizeof(name), "cut%s", ending[f]);
        record(mt_test_path(name), &shape, 1, 3);
        const size_t n = file_size(mt_test_path(name));
        FILE *file = fopen(mt_test_path(name), "r");
        assert_int_equal(fread(text, 1, n, file), n);
        (void)fclose(file);
        for (size_t cut = 0; cut <= n; ++cut) {
            struct mt_trace_writer *writer = NULL;
            (void)write_text(name, text, cut);
            MT_TEST_OK(mt_trace_writer_open(mt_test_path(name), &shape, layer_number, 3, &writer));
            MT_TEST_OK(mt_trace_writer_close(writer));
            const size_t left = file_size(mt_test_path(name));
            assert_true(left <= cut || left < 64); /* a header at most is new */
            if (left > 64) {
                struct mt_trace *trace = NULL;
                MT_TEST_OK(mt_trace_open(mt_test_path(name), &trace));
                assert_int_equal(mt_trace_get_shape(trace)->n_micro, 2);
                assert_true(mt_trace_n_step(trace) >= 1);
                mt_trace_close(trace);
            }
        }
    }
}

static void recording_leaves_what_is_no_such_trace_alone(void **state)
{
    (void)state;
    static const struct mt_trace_shape shape = {1, 2, 0, 4};
    static const struct mt_trace_shape other = {1, 2, 0, 6};
    struct mt_trace_writer *writer = NULL;
    static const char letter[] = "Dear all,\nthis is no trace";
    for (int f = 0; f < N_ENDING; ++f) {
        char name[64];
        (void)snprintf(name, sizeof(name), "letter%s", ending[f]);
        (void)write_text(name, letter, strlen(letter));
        MT_TEST_FAILS(mt_trace_writer_open(mt_test_path(name), &shape, layer_number, 0, &writer),
                      MT_ERR_INPUT, "expected");
        assert_int_equal(file_size(mt_test_path(name)), strlen(letter));
        (void)write_text(name, "Dear", 4);
        MT_TEST_FAILS(mt_trace_writer_open(mt_test_path(name), &shape, layer_number, 0, &writer),
                      MT_ERR_INPUT, "expected");
        (void)snprintf(name, sizeof(name), "other%s", ending[f]);
        record(mt_test_path(name), &other, 1, 2);
        const size_t n = file_size(mt_test_path(name));
        MT_TEST_FAILS(mt_trace_writer_open(mt_test_path(name), &shape, layer_number, 0, &writer),
                      MT_ERR_CONFIG, "expected");
        assert_int_equal(file_size(mt_test_path(name)), n);
    }
    MT_TEST_FAILS(mt_trace_writer_open("/proc/no/trace.csv", &shape, layer_number, 0, &writer),
                  MT_ERR_RESOURCE, "cannot open");
    assert_int_equal(mt_memory_n_live(), 0);
}

struct hostile {
    const char *name, *text, *expected;
};

/* H stands for the header. */
static const char head[] = "step,layer,expert_0,expert_1\n";
static const struct hostile bad[] = {
    {"a.csv", "", "holds no step"},
    {"a.csv", "H", "holds no step"},
    {"a.csv", "H1,0,5\n", ":2: 3 fields"},
    {"a.csv", "H1,0,5,6,7\n", ":2: more than 4 fields"},
    {"a.csv", "H1,0,5,-6\n", ":2: field 4 is \"-6\""},
    {"a.csv", "H1,0,5,NaN\n", "field 4 is \"NaN\""},
    {"a.csv", "H1,0,5,inf\n", "field 4 is \"inf\""},
    {"a.csv", "H1,0,5,1e400\n", "field 4 is \"1e400\""},
    {"a.csv", "H1,0,5,1.0\n", "field 4 is \"1.0\""},
    {"a.csv", "H1,0,5, 6\n", "field 4 is \" 6\""},
    {"a.csv", "H1,0,5,\n", "field 4 is \"\""},
    {"a.csv", "H1,0,5,9223372036854775808\n", "field 4 is"},
    {"a.csv", "H1,0,1,9223372036854775807\n", "do not sum to less than"},
    {"a.csv", "H1,0,5,6\n\n", ":3: field 1 is \"\""},
    {"a.csv", "H1,0,5,6", ":2: the last line has no newline"},
    {"a.csv", "H1,0,5,6\n1,0,5,6\n", ":3: step 1 micro 0 layer 0 rank 0 after step 1"},
    {"a.csv", "H2,0,5,6\n1,0,5,6\n", ":3: step 1"},
    {"a.csv", "H1,0,5,6\n1,1,5,6\n2,0,5,6\n", ":5: the file ends within step 2"},
    {"a.csv", "H1,0,5,6\n1,1,5,6\n2,0,5,6\n3,0,5,6\n", ":5: step 3"},
    {"a.csv", "H1,0,5,6\n2,0,5,6\n2,1,5,6\n", ":4: step 2 micro 0 layer 1"},
    {"a.csv", "H1,0,5,6\n2,1,5,6\n", ":3: step 2 micro 0 layer 1"},
    {"a.csv", "H1,1,5,6\n1,0,5,6\n", ":3: step 1 micro 0 layer 0"},
    {"a.csv", "H1,0,5,6\n1,99999999999,5,6\n", ":3: field 2"},
    {"a.csv", "step,layer,expert_0,expert_2\n", ":1: column 4 of the header"},
    {"a.csv", "layer,step,expert_0\n", ":1: column 1 of the header"},
    {"a.csv", "step,expert_0\n", ":1: column 2"},
    {"a.csv", "step,layer\n", ":1: column 3"},
    {"a.csv", "step,layer,rank,micro,expert_0\n", ":1: column 4"},
    {"a.csv", "step,layer,expert_0,rank\n", ":1: column 4"},
    {"a.csv", "step,layer,expert_0", "cut short"},
    {"a.csv", "step,\xEF\xBB\xBFlayer,expert_0\n", ":1: column 2 of the header is"},
    {"a.csv",
     "H1,0,5,6\n\xEF\xBB\xBF"
     "1,1,5,6\n",
     ":3: field 1"},
    {"a.csv", "\xEF\xBB", ":1: column 1"},
    {"a.csv", "\x89HDF\r\n", ":1: column 1"},
    {"a.csv", "step,layer,rank,expert_0\n1,0,1,5\n",
     ":2: the first row is of micro 0 layer 0 "
     "rank 1"},
    {"a.csv", "step,layer,rank,expert_0\n1,0,0,5\n1,0,2,5\n", ":3: step 1"},
    {"a.csv", "step,layer,rank,expert_0\n1,0,0,5\n1,0,1,5\n1,1,0,5\n2,0,0,5\n", ":5: step 2"},
    {"a.csv", "step,micro,layer,expert_0\n1,0,0,5\n1,2,0,5\n", ":3: step 1 micro 2"},
    {"a.csv", "step,micro,layer,expert_0\n1,0,0,5\n1,1,0,5\n2,0,0,5\n", "within step 2"},
    {"a.csv", "step,micro,layer,expert_0\n1,0,0,9223372036854775807\n1,1,0,1\n",
     ":3: the counts of step 1 layer 0 do not sum to less than"},
    {"a.jsonl", "", "holds no step"},
    {"a.jsonl", "\n", ":1: "},
    {"a.jsonl", "[]\n", ":1: no JSON object"},
    {"a.jsonl", "{\"step\":1,\"layer\":0,\"counts\":[1,2]}", ":1: the last line has no newline"},
    {"a.jsonl", "{\"step\":1,\"layer\":0,\"counts\":[1,-2]}\n", "count of expert 1"},
    {"a.jsonl", "{\"step\":1,\"layer\":0,\"counts\":[1,NaN]}\n", ":1: "},
    {"a.jsonl", "{\"step\":1,\"layer\":0,\"counts\":[1,1e400]}\n", ":1: "},
    {"a.jsonl", "{\"step\":1,\"layer\":0,\"counts\":[1,2.0]}\n", "count of expert 1"},
    {"a.jsonl", "{\"step\":1,\"layer\":0,\"counts\":[1,99999999999999999999]}\n", ":1: "},
    {"a.jsonl", "{\"step\":1,\"layer\":0,\"counts\":[]}\n", "has 0 experts"},
    {"a.jsonl", "{\"step\":1,\"layer\":0,\"counts\":7}\n", "has 0 experts"},
    {"a.jsonl", "{\"step\":1,\"layer\":0}\n", "has 0 experts"},
    {"a.jsonl", "{\"layer\":0,\"counts\":[1]}\n", "\"step\" is missing"},
    {"a.jsonl", "{\"step\":-1,\"layer\":0,\"counts\":[1]}\n", "\"step\" is something else"},
    {"a.jsonl", "{\"step\":1,\"step\":1,\"layer\":0,\"counts\":[1]}\n", ":1: "},
    {"a.jsonl", "{\"step\":1,\"layer\":0,\"mirco\":0,\"counts\":[1]}\n", "unknown key \"mirco\""},
    {"a.jsonl",
     "{\"step\":1,\"layer\":0,\"counts\":[1,2]}\n{\"step\":2,\"layer\":0,\"counts\":"
     "[1]}\n",
     ":2: 1 counts; expected a list of 2"},
    {"a.jsonl", "{\"step\":1,\"layer\":0,\"counts\":[[1,2],[3]]}\n", ":1: 1 counts"},
    {"a.jsonl",
     "{\"step\":1,\"layer\":0,\"counts\":[[1],[3]]}\n{\"step\":2,\"layer\":0,"
     "\"counts\":[[1]]}\n",
     ":3: the file ends within step 2"},
    {"a.jsonl",
     "{\"step\":1,\"layer\":0,\"counts\":[1]}\n{\"step\":1,\"layer\":0,\"counts\":[1]"
     "}\n",
     ":2: step 1"},
};

static void hostile_texts_are_refused_with_their_line(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); ++i) {
        char text[1024];
        struct mt_trace *trace = NULL;
        const bool has_head = bad[i].text[0] == 'H';
        (void)snprintf(text, sizeof(text), "%s%s", has_head ? head : "", bad[i].text + has_head);
        MT_TEST_FAILS(mt_trace_open(write_text(bad[i].name, text, strlen(text)), &trace),
                      MT_ERR_INPUT, bad[i].expected);
        assert_null(trace);
    }
    assert_int_equal(mt_memory_n_live(), 0);
}

static void places_that_hold_no_trace_are_refused(void **state)
{
    (void)state;
    struct mt_trace *trace = NULL;
    for (int f = 0; f < N_ENDING; ++f) {
        char name[64];
        (void)snprintf(name, sizeof(name), "folder%s", ending[f]);
        assert_int_equal(mkdir(mt_test_path(name), 0777), 0);
        MT_TEST_FAILS(mt_trace_open(mt_test_path(name), &trace), MT_ERR_INPUT,
                      "not a regular file");
        (void)snprintf(name, sizeof(name), "pipe%s", ending[f]);
        assert_int_equal(mkfifo(mt_test_path(name), 0666), 0);
        MT_TEST_FAILS(mt_trace_open(mt_test_path(name), &trace), MT_ERR_INPUT,
                      "not a regular file");
        (void)snprintf(name, sizeof(name), "missing%s", ending[f]);
        MT_TEST_FAILS(mt_trace_open(mt_test_path(name), &trace), MT_ERR_INPUT, name);
    }
    MT_TEST_FAILS(mt_trace_open(mt_test_path("trace.txt"), &trace), MT_ERR_CONFIG, "ends in .csv");
    MT_TEST_FAILS(mt_trace_open(".csv", &trace), MT_ERR_CONFIG, "ends in .csv");
}

static void a_text_with_carriage_returns_and_gaps_between_steps_is_read(void **state)
{
    (void)state;
    static const char text[] = "step,layer,expert_0\r\n0,4,9223372036854775807\r\n7,4,0\r\n";
    struct mt_trace *trace = NULL;
    int64_t count = 0;
    MT_TEST_OK(mt_trace_open(write_text("gaps.csv", text, strlen(text)), &trace));
    assert_int_equal(mt_trace_step(trace, 0), 0);
    assert_int_equal(mt_trace_step(trace, 1), 7);
    MT_TEST_OK(mt_trace_read(trace, 0, &count));
    assert_true(count == INT64_MAX);
    MT_TEST_OK(mt_trace_check_shape(trace, 1, 1));
    MT_TEST_FAILS(mt_trace_check_shape(trace, 3, 8), MT_ERR_CONFIG,
                  "the trace has 1 experts and 1 layers; the model has 8 and 3");
    (void)write_text("gaps.csv", text, strlen(text) - 6);
    MT_TEST_FAILS(mt_trace_read(trace, 1, &count), MT_ERR_INPUT, "gaps.csv:3");
    mt_trace_close(trace);
}

static void a_byte_order_mark_before_the_first_line_is_no_part_of_it(void **state)
{
    (void)state;
    static const char *const name[] = {"mark.csv", "mark.jsonl"};
    static const char *const text[] = {"\xEF\xBB\xBFstep,layer,expert_0\r\n1,0,5\r\n2,0,6\r\n",
                                       "\xEF\xBB\xBF{\"step\":1,\"layer\":0,\"counts\":[5]}\n"
                                       "{\"step\":2,\"layer\":0,\"counts\":[6]}\n"};
    for (int i = 0; i < 2; ++i) {
        struct mt_trace *trace = NULL;
        int64_t count = 0;
        MT_TEST_OK(mt_trace_open(write_text(name[i], text[i], strlen(text[i])), &trace));
        MT_TEST_OK(mt_trace_read(trace, 1, &count));
        assert_int_equal(count, 6);
        MT_TEST_OK(mt_trace_read(trace, 0, &count));
        assert_int_equal(count, 5);
        mt_trace_close(trace);
    }
}

/* A trace whose every prefix is tried: none is taken for the whole, none crashes. */
static void a_trace_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    static const struct mt_trace_shape shape = {2, 2, 2, 2};
    static char text[1 << 16];
    for (int f = 0; f < N_ENDING; ++f) {
        char name[64];
        (void)snprintf(name, sizeof(name), "prefix%s", ending[f]);
        record(mt_test_path(name), &shape, 1, 2);
        const size_t n = file_size(mt_test_path(name));
        FILE *file = fopen(mt_test_path(name), "r");
        assert_true(n < sizeof(text));
        assert_int_equal(fread(text, 1, n, file), n);
        (void)fclose(file);
        for (size_t cut = 0; cut < n; cut += f == 2 ? 13 : 1) {
            struct mt_trace *trace = NULL;
            const enum mt_status got = mt_trace_open(write_text(name, text, cut), &trace);
            if (got == MT_OK) {
                /* Lines of a first step alone may look whole: fewer rows, never other ones. */
                assert_true(f < 2 && text[cut - 1] == '\n' && mt_trace_n_step(trace) == 1);
            } else {
                assert_int_equal(got, MT_ERR_INPUT);
            }
            mt_error_clear();
            mt_trace_close(trace);
        }
    }
    assert_int_equal(mt_memory_n_live(), 0);
}

static void appending_allocates_nothing_in_text_formats(void **state)
{
    (void)state;
    static const struct mt_trace_shape shape = {1, 3, 2, 4};
    static const int64_t counts[24] = {1};
    for (int f = 0; f < 2; ++f) {
        char name[64];
        struct mt_trace_writer *writer = NULL;
        (void)snprintf(name, sizeof(name), "steady%s", ending[f]);
        MT_TEST_OK(mt_trace_writer_open(mt_test_path(name), &shape, layer_number, 0, &writer));
        MT_TEST_OK(mt_trace_writer_append(writer, 1, counts));
        const int64_t n = mt_memory_n_allocated();
        MT_TEST_OK(mt_trace_writer_append(writer, 2, counts));
        assert_int_equal(mt_memory_n_allocated(), n);
        MT_TEST_OK(mt_trace_writer_close(writer));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_recorded_reads_back_in_every_format),
        cmocka_unit_test(recording_cuts_to_the_resumed_step_and_goes_on),
        cmocka_unit_test(a_recording_cut_at_any_byte_resumes),
        cmocka_unit_test(recording_leaves_what_is_no_such_trace_alone),
        cmocka_unit_test(hostile_texts_are_refused_with_their_line),
        cmocka_unit_test(places_that_hold_no_trace_are_refused),
        cmocka_unit_test(a_text_with_carriage_returns_and_gaps_between_steps_is_read),
        cmocka_unit_test(a_byte_order_mark_before_the_first_line_is_no_part_of_it),
        cmocka_unit_test(a_trace_cut_at_any_byte_is_refused),
        cmocka_unit_test(appending_allocates_nothing_in_text_formats),
    };
    return cmocka_run_group_tests(tests, mt_test_folder_make, mt_test_folder_remove);
}
