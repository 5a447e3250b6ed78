/* CMocka with the headers it needs, in the order it needs them: included instead of cmocka.h. */
#ifndef MT_TEST_SUPPORT_TEST_H
#define MT_TEST_SUPPORT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/status.h"

/* The call returns MT_OK; otherwise the test fails with the recorded text. */
#define MT_TEST_OK(call) mt_test_expect_ok((call), #call, __FILE__, __LINE__)
void mt_test_expect_ok(enum mt_status status, const char *call, const char *file, int line);

/* The call fails with `code` and a text that contains `part`; clears the record. */
#define MT_TEST_FAILS(call, code, part) \
    mt_test_expect_failure((call), (code), (part), #call, __FILE__, __LINE__)
void mt_test_expect_failure(enum mt_status status, enum mt_status code, const char *part,
                            const char *call, const char *file, int line);

/* `body(context)` ends its process through MT_ASSERT. It runs in a child, so not under MPI. */
#define MT_TEST_ASSERTS(body, context) \
    mt_test_expect_assert((body), (context), #body, __FILE__, __LINE__)
void mt_test_expect_assert(void (*body)(void *), void *context, const char *name, const char *file,
                           int line);

#endif
