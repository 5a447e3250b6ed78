/* The page: its skeleton (report/page.html) with style, script, sentences and data put in. */
#include "profile/report_internal.h"

#include "base/memory.h"
#include "base/output_file.h"
#include "profile/report_assets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A place in the skeleton, written {{name}}, and what is put there. */
struct filling {
    const char *name;
    const char *text;
    bool is_markup; /* goes in as it is; otherwise it is text and is escaped */
};

static void write_escaped(const char *text, FILE *out)
{
    for (const char *c = text; *c != '\0'; ++c) {
        switch (*c) {
        case '<':
            (void)fputs("&lt;", out);
            break;
        case '>':
            (void)fputs("&gt;", out);
            break;
        case '&':
            (void)fputs("&amp;", out);
            break;
        case '"':
            (void)fputs("&quot;", out);
            break;
        default:
            (void)fputc(*c, out);
        }
    }
}

static void write_page(const struct filling *filling, int n, FILE *out)
{
    const char *at = mt_asset_page_html;
    const char *open = strstr(at, "{{");
    for (; open != NULL; open = strstr(at, "{{")) {
        const char *close = strstr(open, "}}");
        MT_ASSERT(close != NULL);
        (void)fwrite(at, 1, (size_t)(open - at), out);
        const size_t length = (size_t)(close - open) - 2;
        int i = 0;
        while (i < n && (strlen(filling[i].name) != length ||
                         strncmp(filling[i].name, open + 2, length) != 0)) {
            ++i;
        }
        MT_ASSERT(i < n); /* the skeleton names nothing else */
        if (filling[i].is_markup) {
            (void)fputs(filling[i].text, out);
        } else {
            write_escaped(filling[i].text, out);
        }
        at = close + 2;
    }
    (void)fputs(at, out);
}

/* The plain text in memory; free() it. */
static enum mt_status make_text(const struct mt_report *report, char **text)
{
    size_t bytes = 0;
    FILE *stream = open_memstream(text, &bytes);
    if (stream == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE, "no memory for a report's text; expected some KiB");
    }
    const enum mt_status status = mt_report_write_text(report, stream);
    (void)fclose(stream);
    return status;
}

static enum mt_status write_file(const struct filling *filling, int n, const char *path)
{
    struct mt_output output;
    MT_TRY(mt_output_open(path, "free some, or choose another place with -o", &output));
    errno = 0;
    write_page(filling, n, output.file);
    return mt_output_close(&output, ferror(output.file) != 0 ? errno : 0);
}

enum mt_status mt_report_write_html(const struct mt_report *report, const char *path)
{
    char title[MT_REPORT_LINE_BYTES];
    char *data = NULL;
    char *text = NULL;
    enum mt_status status = MT_OK;
    (void)snprintf(title, sizeof(title), "%.60s: %.120s", report->profile.run, report->headline);
    MT_TRY_GOTO(mt_report_data(report, &data));
    MT_TRY_GOTO(make_text(report, &text));
    const struct filling filling[] = {
        {"title", title, false},
        {"style", mt_asset_style_css, true},
        {"run", report->run_line, false},
        {"tone", mt_report_worst(report) != NULL ? "bad" : "good", false},
        {"headline", report->headline, false},
        {"detail", report->detail, false},
        {"text", text, false},
        {"data", data, true},
        {"script", mt_asset_script_js, true},
    };
    status = write_file(filling, (int)(sizeof(filling) / sizeof(filling[0])), path);
cleanup:
    free(text);
    mt_memory_free(data);
    return status;
}
