/* Text that keeps to the columns of a terminal. */
#include "profile/report_internal.h"

#include <string.h>

/* How long the word is that begins here: a number is one word with its unit. */
static size_t word(const char *text)
{
    size_t n = strcspn(text, " ");
    while (n > 0 && text[n] == ' ' && text[n - 1] >= '0' && text[n - 1] <= '9') {
        n += 1 + strcspn(text + n + 1, " ");
    }
    return n;
}

/* Of the words from `text` on, those that fit `room`; one at least. */
static size_t fit(const char *text, size_t room)
{
    size_t n = word(text);
    for (size_t next = n; text[next] == ' ';) {
        next += 1 + word(text + next + 1);
        if (next > room) {
            break;
        }
        n = next;
    }
    return n;
}

void mt_report_print_wrapped(FILE *out, const char *text, int indent)
{
    for (bool is_first = true; *text != '\0'; is_first = false) {
        const size_t n = fit(text, (size_t)(MT_REPORT_WIDTH - indent));
        (void)fprintf(out, "%*s%.*s\n", is_first ? 0 : indent, "", (int)n, text);
        text += n;
        text += *text == ' ' ? 1 : 0;
    }
}

void mt_report_print_under(FILE *out, const char *name, const char *text)
{
    enum { NAME_COLUMNS = 19 };
    (void)fprintf(out, "%-*s", NAME_COLUMNS, name);
    mt_report_print_wrapped(out, text, NAME_COLUMNS);
}

/* The tail of a host's name tells hosts apart. */
const char *mt_report_tail(const char *name, size_t columns)
{
    const size_t n = strlen(name);
    const char *tail = n > columns ? name + n - columns : name;
    while (((unsigned char)*tail & 0xC0) == 0x80) { /* not inside a letter of several bytes */
        ++tail;
    }
    return tail;
}
