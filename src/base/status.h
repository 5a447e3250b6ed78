/* Status and the error record: how a failure climbs from where it is known to who may speak.
 *
 * A function that can fail returns `enum mt_status`. The place that knows what went wrong calls
 * MT_FAIL, which keeps one thread-local record (code, text, source place); everybody above passes
 * the code on with MT_TRY. The first error wins. Only cli/ and base/job.c turn a record into words.
 */
#ifndef MT_BASE_STATUS_H
#define MT_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The values are the program's exit codes (`moetrain --help`), so no table translates them. */
enum mt_status {
    MT_OK = 0,
    MT_ERR_INTERNAL = 1, /* a bug: assertion, unexpected library error */
    MT_ERR_CONFIG = 2,   /* command line or configuration; run directory in use */
    MT_ERR_INPUT = 3,    /* data or checkpoint missing, unreadable or corrupt */
    MT_ERR_RESOURCE = 4, /* memory, disk, device */
    MT_ERR_DIVERGED = 5, /* non-finite beyond the configured patience */
    MT_STOPPED = 75,     /* stopped on request after saving: start it again to go on */
    MT_ERR_TIMEOUT = 124 /* a collective did not complete within the deadline */
};

/* One thread's error. `text` says what happened; what was expected; what to do. It may hold
 * several lines (a configuration with several mistakes). */
enum { MT_ERROR_TEXT_BYTES = 32768 };
struct mt_error {
    enum mt_status code; /* MT_OK: no error recorded */
    const char *file;    /* source place, for internal errors */
    int line;
    char text[MT_ERROR_TEXT_BYTES];
};

/* The calling thread's record; never NULL. */
const struct mt_error *mt_error_last(void);
void mt_error_clear(void);

/* Records the error unless one is recorded already; returns `code` (in [1,255]). */
enum mt_status mt_error_set(enum mt_status code, const char *file, int line, const char *format,
                            ...) __attribute__((format(printf, 4, 5)));

/* Ends the process at once: a programmer's error has no way up. Speaks through base/job.c. */
void mt_assert_failed(const char *condition, const char *file, int line, const char *function)
    __attribute__((noreturn));

#define MT_FAIL(code, ...) mt_error_set((code), __FILE__, __LINE__, __VA_ARGS__)

#define MT_TRY(call)                                  \
    do {                                              \
        const enum mt_status mt_try_status_ = (call); \
        if (mt_try_status_ != MT_OK) {                \
            return mt_try_status_;                    \
        }                                             \
    } while (0)

/* As MT_TRY, for functions that hold something: sets `status` and jumps to `cleanup`. */
#define MT_TRY_GOTO(call)      \
    do {                       \
        status = (call);       \
        if (status != MT_OK) { \
            goto cleanup;      \
        }                      \
    } while (0)

#define MT_ASSERT(condition) \
    ((condition) ? (void)0 : mt_assert_failed(#condition, __FILE__, __LINE__, __func__))

#define MT_UNUSED(name) ((void)(name))

#ifdef __cplusplus
}
#endif

#endif
