/* Profiles that were damaged at random are read, analysed, replayed and reported, or refused; never
 * anything else. Meant for the sanitizers, which see what is read or added beyond bounds; without
 * them it still finds what ends a process.
 *
 *   test_hostile [FIRST_SEED SEEDS [FOLDER]]      more than the suite's: docs/profiling-results.md
 *
 * FOLDER: keeps the pages there, for a browser to open. */
#include "support/test.h"

#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "profile/report.h"
#include "profile/run_folder.h"
#include "profile/trace_export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_RANK = 3, N_STEP = 12, FILE_BYTES = 1 << 16 };

static uint64_t first_seed = 1, n_seed = 150;
static char folder[300];
enum { N_FILE = N_RANK + 1 }; /* the last: metrics.jsonl */
static char whole[N_FILE][FILE_BYTES];
static size_t whole_bytes[N_FILE];
static const char *kept; /* where pages are kept, or NULL */

struct damage {
    uint64_t seed, n_draw;
    char text[2 * FILE_BYTES];
    size_t n;
};

static uint64_t draw(struct damage *damage, uint64_t n)
{
    return n > 0 ? mt_random_u64(damage->seed, 1, damage->n_draw++) % n : 0;
}

static void replace(struct damage *damage, size_t at, size_t n, const char *by, size_t n_by)
{
    if (damage->n - n + n_by > sizeof(damage->text)) {
        return;
    }
    memmove(damage->text + at + n_by, damage->text + at + n, damage->n - at - n);
    memcpy(damage->text + at, by, n_by);
    damage->n += n_by - n;
}

/* A number of the text becomes one that a program would rather not meet. */
static void replace_number(struct damage *damage)
{
    static const char *const bad[] = {"-1",
                                      "0",
                                      "9223372036854775807",
                                      "-9223372036854775808",
                                      "99999999999999999999999",
                                      "1e308",
                                      "65",
                                      "4096",
                                      "1099511627776",
                                      "null",
                                      "\"x\"",
                                      "[]",
                                      "{}"};
    size_t at = draw(damage, damage->n);
    while (at < damage->n && (damage->text[at] < '0' || damage->text[at] > '9')) {
        ++at;
    }
    size_t end = at;
    while (end < damage->n && damage->text[end] >= '0' && damage->text[end] <= '9') {
        ++end;
    }
    const char *by = bad[draw(damage, sizeof(bad) / sizeof(bad[0]))];
    replace(damage, at, end - at, by, strlen(by));
}

/* A line goes elsewhere, maybe twice. */
static void move_line(struct damage *damage)
{
    char line[FILE_BYTES];
    size_t at = draw(damage, damage->n);
    while (at > 0 && damage->text[at - 1] != '\n') {
        --at;
    }
    const char *end = memchr(damage->text + at, '\n', damage->n - at);
    const size_t n = end == NULL ? damage->n - at : (size_t)(end - damage->text) + 1 - at;
    memcpy(line, damage->text + at, n);
    if (draw(damage, 2) == 0) {
        replace(damage, at, n, "", 0);
    }
    size_t to = draw(damage, damage->n + 1);
    while (to > 0 && damage->text[to - 1] != '\n') {
        --to;
    }
    replace(damage, to, 0, line, n);
}

static void hurt(struct damage *damage)
{
    const size_t at = draw(damage, damage->n);
    const size_t n = (size_t)mt_min_i64((int64_t)draw(damage, 40), (int64_t)(damage->n - at));
    const char byte = (char)draw(damage, 256);
    switch (draw(damage, 8)) {
    case 0:
        replace(damage, at, 1, &byte, 1);
        break;
    case 1:
        replace(damage, at, n, "", 0);
        break;
    case 2:
        damage->n = at;
        break;
    case 3:
        move_line(damage);
        break;
    default:
        replace_number(damage);
    }
}

static void path_of(int file, char *path, size_t bytes)
{
    if (file < N_RANK) {
        test_folder_file(folder, file, path, bytes);
    } else {
        (void)snprintf(path, bytes, "%s/metrics.jsonl", folder);
    }
}

static void write_file(int which, const char *text, size_t n)
{
    char path[400];
    path_of(which, path, sizeof(path));
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void read_whole(int rank)
{
    char path[400];
    path_of(rank, path, sizeof(path));
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    whole_bytes[rank] = fread(whole[rank], 1, FILE_BYTES, file);
    assert_true(whole_bytes[rank] < FILE_BYTES);
    (void)fclose(file);
}

/* metrics.jsonl with everything that a report takes from it. */
static void make_metrics(void)
{
    char *text = whole[N_RANK];
    size_t n = 0;
    for (int s = 1; s <= N_STEP; ++s) {
        n += (size_t)snprintf(
            text + n, FILE_BYTES - n,
            "{\"step\":%d,\"step_time_s\":0.5,\"tokens_per_s\":100,"
            "\"expert_load_max_over_mean\":2.5,\"rank_load_max_over_mean\":1.1,"
            "\"expert_load_max_over_mean_by_layer\":[1,2],\"placement\":{\"copies\":2,"
            "\"late_copies\":1,\"moves\":1,\"predicted_s\":0.3,\"ideal_s\":0.2,"
            "\"decisions\":[{\"layer\":1,\"expert\":5,\"copies\":2,\"ranks\":[0,2],\"late\":true,"
            "\"rows\":7,\"saves_s\":0.001,\"costs_s\":0.0005}],"
            "\"shadow\":{\"ep\":{\"predicted_s\":0.4,\"rank_load_max_over_mean\":1.5}}}}\n",
            s);
        assert_true(n < FILE_BYTES);
    }
    whole_bytes[N_RANK] = n;
}

/* Everything that is made of a profile. */
static void report_on(uint64_t seed)
{
    struct mt_report *report = NULL;
    struct mt_trace_export trace;
    char path[400];
    if (mt_report_create(folder, &report) == MT_OK) {
        FILE *out = fopen("/dev/null", "we");
        assert_non_null(out);
        MT_TEST_OK(mt_report_write_text(report, out));
        (void)fclose(out);
        (void)snprintf(path, sizeof(path), "%s/%llu.html", kept != NULL ? kept : folder,
                       (unsigned long long)seed);
        MT_TEST_OK(mt_report_write_html(report, path));
        if (kept == NULL) {
            (void)unlink(path);
        }
        (void)snprintf(path, sizeof(path), "%s/trace", folder);
        if (mt_trace_export(mt_report_profile(report), path, 1 << 20, &trace) != MT_OK) {
            mt_error_clear();
        }
        (void)unlink(path);
    } else {
        assert_int_equal(mt_error_last()->code, MT_ERR_INPUT);
        mt_error_clear();
    }
    mt_report_destroy(report);
    assert_int_equal(mt_memory_n_live(), 0);
}

static void damaged_profiles_are_reported_or_refused(void **state)
{
    MT_UNUSED(state);
    static struct damage damage;
    for (int r = 0; r < N_RANK; ++r) {
        test_folder_start(folder, &(struct test_start){.rank = r,
                                                       .n_rank = N_RANK,
                                                       .session = INT64_C(1795000000000000000),
                                                       .first = 1,
                                                       .end = N_STEP + 1});
        read_whole(r);
    }
    make_metrics();
    for (uint64_t seed = first_seed; seed < first_seed + n_seed; ++seed) {
        damage.seed = seed;
        damage.n_draw = 0;
        for (int f = 0; f < N_FILE; ++f) {
            damage.n = whole_bytes[f];
            memcpy(damage.text, whole[f], damage.n);
            for (uint64_t i = draw(&damage, 7); i > 0; --i) {
                hurt(&damage);
            }
            write_file(f, damage.text, damage.n);
        }
        report_on(seed);
    }
}

static int make_folder(void **state)
{
    MT_UNUSED(state);
    test_folder_make(folder, sizeof(folder));
    return 0;
}

static int remove_folder(void **state)
{
    char path[400];
    MT_UNUSED(state);
    path_of(N_RANK, path, sizeof(path));
    (void)unlink(path);
    test_folder_remove(folder);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_profiles_are_reported_or_refused),
    };
    kept = argc == 4 ? argv[3] : NULL;
    if (argc >= 3) {
        first_seed = strtoull(argv[1], NULL, 10);
        n_seed = strtoull(argv[2], NULL, 10);
    }
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
