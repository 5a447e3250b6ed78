/* metrics.jsonl on resume: cut to the resumed step, so that it reads as one uninterrupted run. */
#include "base/memory.h"
#include "base/size.h"
#include "train/internal.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The step of a line: 0 for the run line, -1 for what is not a whole line of metrics (a run that
 * was killed while it wrote). */
static int64_t line_step(const char *line)
{
    int64_t step = -1;
    if (strchr(line, '\n') == NULL) {
        return -1;
    }
    json_t *object = json_loads(line, 0, NULL);
    if (json_is_object(object)) {
        const json_t *value = json_object_get(object, "step");
        if (json_is_integer(value)) {
            step = (int64_t)json_integer_value(value);
        } else if (json_object_get(object, "run") != NULL) {
            step = 0;
        }
    }
    json_decref(object);
    return step;
}

int64_t mt_metrics_last_step(const char *path)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t capacity = 0;
    int64_t last = 0;
    if (file == NULL) {
        return 0;
    }
    while (getline(&line, &capacity, file) > 0) {
        last = mt_max_i64(last, line_step(line));
    }
    free(line);
    (void)fclose(file);
    return last;
}

/* Has the line "eval_loss" and this step? */
static bool is_evaluation(const char *line, int64_t step)
{
    json_t *object = line_step(line) == step ? json_loads(line, 0, NULL) : NULL;
    const bool is_one = json_object_get(object, "eval_loss") != NULL;
    json_decref(object);
    return is_one;
}

bool mt_metrics_has_evaluation(const char *path, int64_t step)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t capacity = 0;
    bool has = false;
    if (file == NULL) {
        return false;
    }
    while (!has && getline(&line, &capacity, file) > 0) {
        has = is_evaluation(line, step);
    }
    free(line);
    (void)fclose(file);
    return has;
}

/* 0 or the errno of what failed. */
static int copy_lines(FILE *from, FILE *to, int64_t step)
{
    char *line = NULL;
    size_t capacity = 0;
    int error = 0;
    while (error == 0 && getline(&line, &capacity, from) > 0) {
        const int64_t of_line = line_step(line);
        if (of_line >= 0 && of_line <= step && fputs(line, to) < 0) {
            error = errno;
        }
    }
    free(line);
    return error;
}

/* The same of a new file at `path`. */
static int write_lines(FILE *from, const char *path, int64_t step)
{
    (void)unlink(path); /* whatever a killed attempt, or somebody else, left there */
    FILE *to = fopen(path, "w");
    if (to == NULL) {
        return errno;
    }
    int error = copy_lines(from, to, step);
    if (fclose(to) != 0 && error == 0) {
        error = errno;
    }
    return error;
}

enum mt_status mt_metrics_cut(const char *path, int64_t step)
{
    char temporary[MT_PATH_BYTES + 64];
    FILE *from = fopen(path, "r");
    if (from == NULL) {
        return MT_OK; /* nothing to cut */
    }
    (void)snprintf(temporary, sizeof(temporary), "%s.tmp", path);
    int error = write_lines(from, temporary, step);
    (void)fclose(from);
    if (error == 0 && rename(temporary, path) != 0) {
        error = errno;
    }
    if (error != 0) {
        (void)unlink(temporary);
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot rewrite %s: %s; expected space and permission; the old file is kept",
                       path, strerror(error));
    }
    return MT_OK;
}
