/* metrics.jsonl on resume: cut to the resumed step, so that it reads as one uninterrupted run. */
#include "base/memory.h"
#include "base/size.h"
#include "profile/lines.h"
#include "train/internal.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char EXPECTED[] =
    "lines of a run were expected; move it away, or choose another --run-dir";

/* The step of a line: 0 for the run line, -1 for what is not a whole line of metrics (a run that
 * was killed while it wrote). */
static int64_t line_step(const struct mt_lines *lines, const json_t *line)
{
    const json_t *value = json_object_get(line, "step");
    if (!lines->has_newline) {
        return -1;
    }
    if (json_is_integer(value)) {
        return (int64_t)json_integer_value(value);
    }
    return value == NULL && json_object_get(line, "run") != NULL ? 0 : -1;
}

/* Why the lines have ended: MT_OK at the end of the file. */
static enum mt_status how_it_ended(const struct mt_lines *lines, const char *path)
{
    if (lines->is_too_long) {
        return MT_FAIL(MT_ERR_INPUT, "%s has a line of more than %d MiB; %s", path,
                       MT_LINE_BYTES >> 20, EXPECTED);
    }
    return lines->has_failed
               ? MT_FAIL(MT_ERR_INPUT, "cannot read %s to its end; look at the disk", path)
               : MT_OK;
}

/* What a line makes of `context`; false: no more is wanted. */
typedef bool (*line_fn)(void *context, const struct mt_lines *lines, const json_t *line);

static enum mt_status visit(const char *path, line_fn look, void *context)
{
    struct mt_lines lines;
    json_t *line = NULL;
    bool is_blank = false;
    bool goes_on = true;
    struct stat about;
    if (stat(path, &about) != 0 || !S_ISREG(about.st_mode)) {
        return MT_OK; /* no run has been here; what is there else, whoever writes to it will say */
    }
    MT_TRY(mt_lines_open(path, EXPECTED, &lines));
    while (goes_on && mt_lines_next(&lines, &line, &is_blank)) {
        goes_on = look(context, &lines, line);
        json_decref(line);
    }
    const enum mt_status status = goes_on ? how_it_ended(&lines, path) : MT_OK;
    mt_lines_close(&lines);
    return status;
}

static bool note_step(void *context, const struct mt_lines *lines, const json_t *line)
{
    int64_t *last = context;
    *last = mt_max_i64(*last, line_step(lines, line));
    return true;
}

enum mt_status mt_metrics_last_step(const char *path, int64_t *last)
{
    *last = 0;
    return visit(path, note_step, last);
}

struct evaluation {
    int64_t step;
    bool is_there;
};

static bool note_evaluation(void *context, const struct mt_lines *lines, const json_t *line)
{
    struct evaluation *evaluation = context;
    evaluation->is_there =
        line_step(lines, line) == evaluation->step && json_object_get(line, "eval_loss") != NULL;
    return !evaluation->is_there;
}

enum mt_status mt_metrics_has_evaluation(const char *path, int64_t step, bool *has)
{
    struct evaluation evaluation = {.step = step};
    const enum mt_status status = visit(path, note_evaluation, &evaluation);
    *has = evaluation.is_there;
    return status;
}

struct cut {
    int64_t step;
    FILE *to;
    int error; /* 0, or the errno of a write that failed */
};

static bool copy_line(void *context, const struct mt_lines *lines, const json_t *line)
{
    struct cut *cut = context;
    const int64_t step = line_step(lines, line);
    const size_t n = (size_t)(lines->next - lines->first);
    if (step >= 0 && step <= cut->step && fwrite(lines->text + lines->first, 1, n, cut->to) != n) {
        cut->error = errno;
    }
    return cut->error == 0;
}

static enum mt_status fail_cut(const char *path, int error)
{
    return MT_FAIL(MT_ERR_RESOURCE,
                   "cannot rewrite %s: %s; expected space and permission; the old file is kept",
                   path, strerror(error));
}

/* To a new file. */
static enum mt_status write_lines(const char *path, const char *temporary, int64_t step)
{
    struct cut cut = {.step = step};
    (void)unlink(temporary); /* whatever a killed attempt, or somebody else, left there */
    cut.to = fopen(temporary, "w");
    if (cut.to == NULL) {
        return fail_cut(path, errno);
    }
    const enum mt_status status = visit(path, copy_line, &cut);
    if (fclose(cut.to) != 0 && cut.error == 0) {
        cut.error = errno;
    }
    MT_TRY(status);
    return cut.error == 0 ? MT_OK : fail_cut(path, cut.error);
}

enum mt_status mt_metrics_cut(const char *path, int64_t step)
{
    char temporary[MT_PATH_BYTES + 64];
    if (access(path, F_OK) != 0) {
        return MT_OK; /* nothing to cut */
    }
    (void)snprintf(temporary, sizeof(temporary), "%s.tmp", path);
    enum mt_status status = write_lines(path, temporary, step);
    if (status == MT_OK && rename(temporary, path) != 0) {
        status = fail_cut(path, errno);
    }
    if (status != MT_OK) {
        (void)unlink(temporary);
    }
    return status;
}
