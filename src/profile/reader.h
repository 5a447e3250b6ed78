/* What the two files of the reader share: reader.c finds and lists files, reader_lines.c takes one
 * file's lines. Only they include it. */
#ifndef MT_PROFILE_READER_H
#define MT_PROFILE_READER_H

#include "profile/profile.h"

#include <jansson.h>

/* One file under way. */
struct mt_reader {
    struct mt_profile *profile;
    int rank;
    int n_phase;
    int phase[MT_N_PHASE + 64]; /* of the file's numbers; MT_N_PHASE: this program has none such */
    int n_kind;
    int kind[MT_PROFILE_MAX_KIND]; /* of the file's numbers: index into profile->kind; -1: full */
    int64_t session, origin_ns;
    bool has_same_ranks; /* the start under way, as the newest one: their waits are all there */
    int n_knot;
    int64_t max_knot;
    struct mt_profile_knot *knot; /* of the start under way */
    int64_t device_error_ns;      /* largest of its steps */
    int first_step;               /* indices of steps since its header, -1: none */
    int last_step;
    json_t *experts; /* the last line of rows by expert of the start under way; NULL: none */
    enum mt_status status;
};

enum mt_status mt_reader_take(struct mt_reader *reader, const json_t *line);
/* Moves times onto rank 0's clock, when all knots of a start are known. */
enum mt_status mt_reader_finish(struct mt_reader *reader);
void mt_reader_clear(struct mt_reader *reader);

int64_t mt_reader_integer(const json_t *object, const char *key, int64_t otherwise);
int64_t mt_reader_item(const json_t *array, size_t index); /* 0: none there */
/* Readings of clocks, monotonic ones and the calendar's, which has 61 bits until 2043. */
int64_t mt_reader_clock(const json_t *object, const char *key);
int64_t mt_reader_clock_item(const json_t *array, size_t index);

#endif
