/* All mistakes of a configuration, each with its place, in the order of the text. */
#ifndef MT_CONFIG_REPORT_H
#define MT_CONFIG_REPORT_H

#include "base/status.h"

#include <stdint.h>

/* 50 lines of at most MT_MISTAKE_BYTES and their places fit the error record. */
enum { MT_MAX_MISTAKES = 50, MT_MISTAKE_BYTES = 512 };

struct mt_text_place {
    int layer;        /* 0: the file; k >= 1: override k - 1 */
    int line, column; /* of the file; line 0 = the file as a whole */
};

struct mt_mistake {
    struct mt_text_place place;
    char text[MT_MISTAKE_BYTES];
};

struct mt_report {
    const char *origin; /* names the file */
    const char *const *overrides;
    int64_t n_found; /* all of them */
    int n_kept;      /* the first MT_MAX_MISTAKES of them by place */
    struct mt_mistake mistake[MT_MAX_MISTAKES];
};

/* A mistake; longer text is cut, control characters become '?'. */
void mt_report_add(struct mt_report *report, struct mt_text_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* MT_OK when there is none, else MT_ERR_CONFIG with one line a mistake. */
enum mt_status mt_report_status(const struct mt_report *report);

#endif
