/* Reading what a run left: files of all ranks, possibly damaged, into one model.
 *
 * A file is read twice: once for its shape (ranks, layers, the steps it has), once for its content.
 * A killed run leaves half a line: above the first line of its next start, or at the end, which is
 * named. Elsewhere a line that is no JSON breaks the file, and what stands before is kept. */
#include "profile/profile.h"

#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"
#include "profile/lines.h"
#include "profile/reader.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 512, PATH_BYTES = 4096 + 64 };

static enum mt_status add_problem(struct mt_profile *profile, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static enum mt_status add_problem(struct mt_profile *profile, const char *format, ...)
{
    char **longer = NULL;
    char *text = NULL;
    const int n = profile->n_problem;
    va_list arguments;
    MT_TRY(MT_ALLOCATE(longer, n + 1, "problems of a profile"));
    for (int i = 0; i < n; ++i) {
        longer[i] = profile->problem[i];
    }
    mt_memory_free(profile->problem);
    profile->problem = longer;
    MT_TRY(MT_ALLOCATE(text, LINE_BYTES, "problems of a profile"));
    va_start(arguments, format);
    (void)vsnprintf(text, LINE_BYTES, format, arguments);
    va_end(arguments);
    profile->problem[profile->n_problem++] = text;
    return MT_OK;
}

/* ---- lines ---- */

/* Calls `take` for each line that is a JSON object; false from it ends the file. */
typedef bool (*take_fn)(void *context, const json_t *line);

enum ending { IS_WHOLE, ENDS_IN_A_LINE, IS_BROKEN };

static enum mt_status read_lines(const char *path, take_fn take, void *context, enum ending *ending)
{
    struct mt_lines lines;
    json_t *line = NULL;
    bool is_blank = false;
    bool was_bad = false;
    bool goes_on = true;
    *ending = IS_WHOLE;
    MT_TRY(mt_lines_open(path, "a rank's profile was expected", &lines));
    while (goes_on && mt_lines_next(&lines, &line, &is_blank)) {
        const bool is_bad = !json_is_object(line);
        *ending =
            was_bad && (is_bad || json_object_get(line, "profile") == NULL) ? IS_BROKEN : IS_WHOLE;
        goes_on = *ending == IS_WHOLE && (is_bad || take(context, line));
        was_bad = is_bad && !is_blank;
        json_decref(line);
    }
    if (lines.is_too_long || lines.has_failed) {
        *ending = IS_BROKEN;
    } else if (*ending == IS_WHOLE && was_bad) {
        *ending = ENDS_IN_A_LINE;
    }
    mt_lines_close(&lines);
    return MT_OK;
}

static int64_t bounded(const json_t *value, int n_bit, int64_t otherwise)
{
    const int64_t most = (int64_t)1 << n_bit;
    return json_is_integer(value)
               ? mt_max_i64(-most, mt_min_i64((int64_t)json_integer_value(value), most))
               : otherwise;
}

/* Foreign numbers stay so small that sums of thousands of them fit: 2^50 ns are 13 days. */
enum { NUMBER_BITS = 50, CLOCK_BITS = 61 };

int64_t mt_reader_integer(const json_t *object, const char *key, int64_t otherwise)
{
    return bounded(json_object_get(object, key), NUMBER_BITS, otherwise);
}

int64_t mt_reader_clock(const json_t *object, const char *key)
{
    return bounded(json_object_get(object, key), CLOCK_BITS, 0);
}

int64_t mt_reader_item(const json_t *array, size_t index)
{
    return bounded(json_array_get(array, index), NUMBER_BITS, 0);
}

int64_t mt_reader_clock_item(const json_t *array, size_t index)
{
    return bounded(json_array_get(array, index), CLOCK_BITS, 0);
}

/* ---- first pass: shape ---- */

struct shape {
    bool has_header, is_foreign;
    int64_t rank, n_rank, n_layer, n_expert, session;
    int64_t n_step, max_step;
    int64_t *step; /* numbers as they come */
    enum mt_status status;
};

static bool is_sound(const struct shape *shape)
{
    enum { MAX_RANKS = 1 << 20, MAX_LAYERS = 1 << 12 };
    return shape->n_rank >= 1 && shape->n_rank <= MAX_RANKS && shape->rank >= 0 &&
           shape->rank < shape->n_rank && shape->n_layer >= 0 && shape->n_layer <= MAX_LAYERS;
}

static enum mt_status append_step(struct shape *shape, int64_t number)
{
    MT_TRY(MT_MAKE_ROOM(shape->step, shape->n_step, &shape->max_step, 1, "steps of a profile"));
    shape->step[shape->n_step++] = number;
    return MT_OK;
}

static bool take_shape(void *context, const json_t *line)
{
    struct shape *shape = context;
    if (json_object_get(line, "profile") != NULL) {
        shape->has_header = true;
        shape->rank = mt_reader_integer(line, "rank", -1);
        shape->n_rank = mt_reader_integer(line, "ranks", 0);
        shape->n_layer = mt_reader_integer(line, "layers", -1);
        shape->n_expert = mt_reader_integer(line, "experts", 0);
        shape->session = mt_reader_clock(line, "session");
        shape->is_foreign = mt_reader_integer(line, "profile", 0) != 1 || !is_sound(shape);
    }
    if (!shape->has_header || shape->is_foreign) {
        shape->is_foreign = true;
        return false;
    }
    if (json_object_get(line, "step") != NULL) {
        shape->status = append_step(shape, mt_reader_integer(line, "step", 0));
    }
    return shape->status == MT_OK;
}

struct found_file {
    char name[32];
    struct shape shape;
    bool is_good;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct found_file *)a)->name, ((const struct found_file *)b)->name);
}

struct listing {
    int n;
    struct found_file *file;
    char folder[PATH_BYTES];
};

static void clear_listing(struct listing *listing)
{
    for (int i = 0; i < listing->n; ++i) {
        mt_memory_free(listing->file[i].shape.step);
    }
    mt_memory_free(listing->file);
}

bool mt_profile_is_rank_file(const char *name)
{
    static const char ending[] = ".jsonl";
    const size_t n = strlen(name);
    return strncmp(name, "rank-", strlen("rank-")) == 0 && n > strlen(ending) &&
           n < sizeof(((struct found_file *)0)->name) &&
           strcmp(name + n - strlen(ending), ending) == 0;
}

static enum mt_status list_files(struct listing *listing)
{
    DIR *stream = opendir(listing->folder);
    enum mt_status status = MT_OK;
    int n = 0;
    if (stream == NULL) {
        return MT_FAIL(MT_ERR_INPUT,
                       "cannot read %s: %s; expected the folder that a run with profile.enabled "
                       "leaves; check the run directory",
                       listing->folder, strerror(errno));
    }
    while (readdir(stream) != NULL) {
        ++n;
    }
    rewinddir(stream);
    MT_TRY_GOTO(MT_ALLOCATE(listing->file, n, "files of a profile"));
    for (const struct dirent *entry = readdir(stream); entry != NULL && listing->n < n;
         entry = readdir(stream)) {
        if (mt_profile_is_rank_file(entry->d_name)) {
            char *name = listing->file[listing->n++].name;
            (void)snprintf(name, sizeof(listing->file->name), "%.31s", entry->d_name);
        }
    }
    qsort(listing->file, (size_t)listing->n, sizeof(*listing->file), compare_names);
cleanup:
    (void)closedir(stream);
    return status;
}

static void path_of(const struct listing *listing, int index, char *path, size_t bytes)
{
    (void)snprintf(path, bytes, "%s/%s", listing->folder, listing->file[index].name);
}

static enum mt_status read_shape(const struct listing *listing, int index,
                                 struct mt_profile *profile)
{
    struct found_file *file = &listing->file[index];
    const struct shape *shape = &file->shape;
    char path[PATH_BYTES + 64];
    enum ending ending = IS_WHOLE;
    path_of(listing, index, path, sizeof(path));
    const enum mt_status status = read_lines(path, take_shape, &file->shape, &ending);
    if (status == MT_ERR_INPUT) {
        MT_TRY(add_problem(profile, "%.*s", LINE_BYTES - 1, mt_error_last()->text));
        mt_error_clear();
        return MT_OK;
    }
    MT_TRY(status);
    if (shape->is_foreign) {
        return add_problem(profile, "%s is not a rank's profile: its first line does not say so",
                           file->name);
    }
    if (!shape->has_header) {
        return add_problem(profile, "%s has not one whole line", file->name);
    }
    file->is_good = true;
    if (ending != IS_WHOLE) {
        const int64_t last = shape->n_step > 0 ? shape->step[shape->n_step - 1] : 0;
        MT_TRY(add_problem(profile, "%s %s after step %lld: the rest is left out", file->name,
                           ending == IS_BROKEN ? "is broken" : "ends within a line",
                           (long long)last));
    }
    return shape->status;
}

static enum mt_status read_shapes(const struct listing *listing, struct mt_profile *profile)
{
    for (int i = 0; i < listing->n; ++i) {
        MT_TRY(read_shape(listing, i, profile));
    }
    return MT_OK;
}

static const struct shape *find_newest(const struct listing *listing)
{
    const struct shape *newest = NULL;
    for (int i = 0; i < listing->n; ++i) {
        const struct found_file *file = &listing->file[i];
        if (file->is_good && (newest == NULL || file->shape.session > newest->session)) {
            newest = &file->shape;
        }
    }
    return newest;
}

/* Is it of this start, and the rank that its name says? Otherwise it is named and good no more. */
static enum mt_status check_file(struct found_file *file, const struct shape *newest,
                                 struct mt_profile *profile)
{
    const struct shape *shape = &file->shape;
    char wanted[32];
    (void)snprintf(wanted, sizeof(wanted), "rank-%05lld.jsonl", (long long)shape->rank);
    if (shape->session != newest->session || shape->n_rank != newest->n_rank ||
        shape->n_layer != newest->n_layer) {
        file->is_good = false;
        return add_problem(profile, "%s is of another start, with %lld ranks", file->name,
                           (long long)shape->n_rank);
    }
    if (strcmp(wanted, file->name) != 0) {
        file->is_good = false;
        return add_problem(profile, "%s says that it is rank %lld's", file->name,
                           (long long)shape->rank);
    }
    return MT_OK;
}

/* Files of the newest start, one a rank. */
static enum mt_status choose_files(const struct listing *listing, struct mt_profile *profile,
                                   const struct shape **newest)
{
    *newest = find_newest(listing);
    for (int i = 0; i < listing->n; ++i) {
        if (!listing->file[i].is_good) {
            continue;
        }
        MT_TRY(check_file(&listing->file[i], *newest, profile));
    }
    return MT_OK;
}

/* ---- the union of steps ---- */

static int64_t keep_unique(int64_t *number, int64_t n)
{
    int64_t kept = 0;
    mt_sort_i64(number, n);
    for (int64_t i = 0; i < n; ++i) {
        if (kept == 0 || number[i] != number[kept - 1]) {
            number[kept++] = number[i];
        }
    }
    return kept;
}

/* Of a long run every k-th step and the last ones: memory stays bounded. */
static int64_t thin_out(int64_t *number, int64_t n, int64_t most)
{
    enum { KEPT_AT_END = 200 };
    const int64_t stride = mt_ceil_div(n, mt_max_i64(1, most - KEPT_AT_END));
    int64_t kept = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (n <= most || i % stride == 0 || i >= n - KEPT_AT_END) {
            number[kept++] = number[i];
        }
    }
    return kept;
}

static enum mt_status unite_steps(const struct listing *listing, int n_rank, int64_t **number,
                                  int64_t *n)
{
    /* A step of one rank takes some 500 bytes without detail: 400 MB for 64 ranks. */
    enum { MAX_RANK_STEPS = 800000, LEAST_STEPS = 400 };
    int64_t n_all = 0;
    for (int i = 0; i < listing->n; ++i) {
        n_all += listing->file[i].is_good ? listing->file[i].shape.n_step : 0;
    }
    MT_TRY(MT_ALLOCATE(*number, n_all, "steps of a profile"));
    *n = 0;
    for (int i = 0; i < listing->n; ++i) {
        const struct shape *shape = &listing->file[i].shape;
        for (int64_t s = 0; listing->file[i].is_good && s < shape->n_step; ++s) {
            (*number)[(*n)++] = shape->step[s];
        }
    }
    *n = keep_unique(*number, *n);
    *n = thin_out(*number, *n, mt_max_i64(LEAST_STEPS, MAX_RANK_STEPS / n_rank));
    return MT_OK;
}

/* ---- all together ---- */

static bool take_content(void *context, const json_t *line)
{
    struct mt_reader *reader = context;
    reader->status = mt_reader_take(reader, line);
    return reader->status == MT_OK;
}

static enum mt_status read_contents(struct listing *listing, struct mt_profile *profile)
{
    for (int i = 0; i < listing->n; ++i) {
        const struct shape *shape = &listing->file[i].shape;
        char path[PATH_BYTES + 64];
        enum ending ending = IS_WHOLE;
        if (!listing->file[i].is_good) {
            continue;
        }
        struct mt_reader reader = {.profile = profile, .rank = (int)shape->rank};
        path_of(listing, i, path, sizeof(path));
        enum mt_status status = read_lines(path, take_content, &reader, &ending);
        status = status == MT_OK ? reader.status : status;
        status = status == MT_OK ? mt_reader_finish(&reader) : status;
        mt_reader_clear(&reader);
        MT_TRY(status);
    }
    return MT_OK;
}

static enum mt_status name_missing(struct mt_profile *profile)
{
    int n_missing = 0;
    int first = -1;
    for (int r = 0; r < profile->n_rank; ++r) {
        if (!profile->rank[r].is_there) {
            first = first < 0 ? r : first;
            ++n_missing;
        }
    }
    if (n_missing == 1) {
        return add_problem(profile, "rank %d left nothing that can be read", first);
    }
    if (n_missing > 1) {
        return add_problem(profile,
                           "%d of %d ranks left nothing that can be read, the first of them rank "
                           "%d",
                           n_missing, profile->n_rank, first);
    }
    return MT_OK;
}

/* The shape is known: problems found so far move into the profile that is filled. */
static enum mt_status fill(struct listing *listing, const struct shape *newest,
                           struct mt_profile *profile)
{
    int64_t *number = NULL;
    int64_t n_step = 0;
    enum mt_status status = MT_OK;
    struct mt_profile early = *profile;
    *profile = (struct mt_profile){0};
    MT_TRY_GOTO(unite_steps(listing, (int)newest->n_rank, &number, &n_step));
    MT_TRY_GOTO(mt_profile_init(profile, (int)newest->n_rank, (int)n_step, (int)newest->n_layer));
    memcpy(profile->step_number, number, (size_t)n_step * sizeof(*number));
    MT_TRY_GOTO(mt_profile_reserve_experts(profile, (int)newest->n_expert));
    profile->n_problem = early.n_problem;
    profile->problem = early.problem;
    early = (struct mt_profile){0};
    for (int r = 0; r < profile->n_rank; ++r) {
        profile->rank[r].is_there = false;
    }
    MT_TRY_GOTO(read_contents(listing, profile));
    MT_TRY_GOTO(name_missing(profile));
cleanup:
    mt_profile_clear(&early);
    mt_memory_free(number);
    return status;
}

enum mt_status mt_profile_read(const char *run_dir, struct mt_profile *profile)
{
    enum mt_status status = MT_OK;
    struct listing listing = {0};
    const struct shape *newest = NULL;
    *profile = (struct mt_profile){0};
    (void)snprintf(listing.folder, sizeof(listing.folder), "%s/profile", run_dir);
    MT_TRY_GOTO(list_files(&listing));
    MT_TRY_GOTO(read_shapes(&listing, profile));
    MT_TRY_GOTO(choose_files(&listing, profile, &newest));
    if (newest == NULL) {
        status = MT_FAIL(MT_ERR_INPUT,
                         "%s has no profile that can be read%s%s; expected rank-00000.jsonl and so "
                         "on from a run with profile.enabled; check the run directory",
                         listing.folder, profile->n_problem > 0 ? ": " : "",
                         profile->n_problem > 0 ? profile->problem[0] : "");
        goto cleanup;
    }
    MT_TRY_GOTO(fill(&listing, newest, profile));
cleanup:
    if (status != MT_OK) {
        mt_profile_clear(profile);
    }
    clear_listing(&listing);
    return status;
}
