#include "support/test.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Standard output is replaced for the time of a test: by a file, or by a terminal of 20 columns. */
static int saved_stdout = -1;
static int reader = -1;
static char log_path[] = "/tmp/mt-log-XXXXXX";

static void replace_stdout(int fd)
{
    (void)fflush(stdout);
    saved_stdout = dup(STDOUT_FILENO);
    assert_true(saved_stdout >= 0);
    assert_true(dup2(fd, STDOUT_FILENO) >= 0);
    (void)close(fd);
}

static void open_terminal(void)
{
    reader = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(reader >= 0 && grantpt(reader) == 0 && unlockpt(reader) == 0);
    const int fd = open(ptsname(reader), O_RDWR | O_NOCTTY);
    assert_true(fd >= 0);
    const struct winsize size = {.ws_row = 5, .ws_col = 20};
    assert_int_equal(ioctl(fd, TIOCSWINSZ, &size), 0);
    assert_int_equal(setenv("TERM", "xterm", 1), 0);
    assert_int_equal(unsetenv("OMPI_COMM_WORLD_SIZE"), 0);
    replace_stdout(fd);
}

static void open_pipe(void)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    reader = ends[0];
    replace_stdout(ends[1]);
}

/* What was printed since the replacement; standard output is restored. */
static const char *printed(void)
{
    static char text[4096];
    (void)fflush(stdout);
    /* A terminal passes on what was written a moment later, and its reader sees no end while the
     * other side is open: read until nothing comes any more. */
    size_t n = 0;
    struct pollfd more = {.fd = reader, .events = POLLIN};
    while (n < sizeof(text) - 1 && poll(&more, 1, 200) > 0 && (more.revents & POLLIN) != 0) {
        const ssize_t got = read(reader, text + n, sizeof(text) - 1 - n);
        assert_true(got >= 0);
        n += (size_t)got;
    }
    text[n] = '\0';
    assert_true(dup2(saved_stdout, STDOUT_FILENO) >= 0);
    (void)close(saved_stdout);
    (void)close(reader);
    return text;
}

static const char *logged(void)
{
    static char text[4096];
    FILE *file = fopen(log_path, "r");
    assert_non_null(file);
    const size_t n = fread(text, 1, sizeof(text) - 1, file);
    text[n] = '\0';
    (void)fclose(file);
    return text;
}

static int make_log(void **state)
{
    MT_UNUSED(state);
    (void)snprintf(log_path, sizeof(log_path), "/tmp/mt-log-XXXXXX");
    const int fd = mkstemp(log_path);
    return fd < 0 || close(fd) != 0;
}

static int remove_log(void **state)
{
    MT_UNUSED(state);
    mt_log_close();
    mt_log_init(false, false);
    return unlink(log_path);
}

static void say_something(void)
{
    mt_log_line("reading %d files", 3);
    mt_log_progress("step %d loss 5.50", 1);
    mt_log_progress("step %d loss 5.25", 2);
    mt_log_line("saved");
    mt_log_progress("step 3 and more than twenty columns");
}

static const char *const PLAIN = "reading 3 files\nstep 1 loss 5.50\nstep 2 loss 5.25\nsaved\n"
                                 "step 3 and more than twenty columns\n";

static void a_pipe_gets_plain_lines(void **state)
{
    MT_UNUSED(state);
    open_pipe();
    mt_log_init(true, false);
    say_something();
    mt_log_close();
    assert_string_equal(printed(), PLAIN);
}

static void a_terminal_gets_one_updating_line(void **state)
{
    MT_UNUSED(state);
    open_terminal();
    mt_log_init(true, false);
    say_something();
    mt_log_close();
    /* The terminal writes \r\n for \n. */
    assert_string_equal(printed(), "reading 3 files\r\n"
                                   "\rstep 1 loss 5.50\x1b[K\rstep 2 loss 5.25\x1b[K"
                                   "\r\x1b[Ksaved\r\n"
                                   "\rstep 3 and more tha\x1b[K\r\n");
}

static void a_dumb_terminal_gets_plain_lines(void **state)
{
    MT_UNUSED(state);
    open_terminal();
    assert_int_equal(setenv("TERM", "dumb", 1), 0);
    mt_log_init(true, false);
    mt_log_progress("step 1");
    mt_log_progress("step 2");
    mt_log_close();
    assert_string_equal(printed(), "step 1\r\nstep 2\r\n");
}

static void the_file_gets_everything_even_when_quiet(void **state)
{
    MT_UNUSED(state);
    open_pipe();
    mt_log_init(true, true);
    MT_TEST_OK(mt_log_open(log_path));
    say_something();
    assert_string_equal(logged(), PLAIN); /* flushed line by line */
    mt_log_close();
    MT_TEST_OK(mt_log_open(log_path));
    mt_log_line("appended");
    mt_log_close();
    mt_log_line("after closing");
    assert_string_equal(printed(), "");
    char all[512];
    (void)snprintf(all, sizeof(all), "%sappended\n", PLAIN);
    assert_string_equal(logged(), all);
}

static void other_ranks_are_silent(void **state)
{
    MT_UNUSED(state);
    open_pipe();
    mt_log_init(false, false);
    MT_TEST_OK(mt_log_open(log_path));
    say_something();
    mt_log_close();
    assert_string_equal(printed(), "");
    assert_string_equal(logged(), "");
}

static void a_file_that_cannot_be_opened_is_an_error(void **state)
{
    MT_UNUSED(state);
    mt_log_init(true, true);
    MT_TEST_FAILS(mt_log_open("/no/such/folder/run.log"), MT_ERR_RESOURCE,
                  "/no/such/folder/run.log cannot be written: No such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_pipe_gets_plain_lines, make_log, remove_log),
        cmocka_unit_test_setup_teardown(a_terminal_gets_one_updating_line, make_log, remove_log),
        cmocka_unit_test_setup_teardown(a_dumb_terminal_gets_plain_lines, make_log, remove_log),
        cmocka_unit_test_setup_teardown(the_file_gets_everything_even_when_quiet, make_log,
                                        remove_log),
        cmocka_unit_test_setup_teardown(other_ranks_are_silent, make_log, remove_log),
        cmocka_unit_test_setup_teardown(a_file_that_cannot_be_opened_is_an_error, make_log,
                                        remove_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
