/* What the doctor found, as a table and as JSON. */
#include "train/doctor.h"

#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

static const double GIB = 1024.0 * 1024.0 * 1024.0;

static const char *plural(int n)
{
    return n == 1 ? "" : "s";
}

/* ---- table ---- */

/* Three digits at least: a paced or slowed rank may do less than one. */
static void print_number(double value, FILE *out)
{
    if (value > 0.0) {
        (void)fprintf(out, value < 10.0 ? " %9.3f" : " %9.1f", value);
    } else {
        (void)fprintf(out, " %9s", "-");
    }
}

static void print_ranks(const struct mt_doctor_exam *exam, FILE *out)
{
    const bool is_bfloat16 = exam->needs->is_bfloat16;
    (void)fprintf(out, "%5s %-20s %7s %9s %9s %9s %9s %9s %9s\n", "rank", "host", "threads",
                  is_bfloat16 ? "bfloat16" : "float32", "again", is_bfloat16 ? "float32" : "",
                  "copy GB/s", "own core", "free GiB");
    for (int rank = 0; rank < exam->topology->n_rank; rank++) {
        const struct mt_doctor_facts *facts = &exam->facts[rank];
        (void)fprintf(out, "%5d %-20.20s %7lld", rank, facts->host, (long long)facts->n_thread);
        print_number(facts->gflops, out);
        print_number(facts->gflops_again, out);
        if (is_bfloat16) {
            print_number(facts->gflops_float32, out);
        } else {
            (void)fprintf(out, " %9s", "");
        }
        print_number(facts->copy_gbytes_per_s, out);
        if (facts->cpu_share > 0.0) {
            (void)fprintf(out, " %8.0f%%", facts->cpu_share * 100.0);
        } else {
            (void)fprintf(out, " %9s", "-");
        }
        print_number((double)facts->memory_bytes / GIB, out);
        (void)fputc('\n', out);
    }
    (void)fprintf(out,
                  "matrix products in GFLOP/s of all threads%s; copies: of one core, all ranks "
                  "at once\n\n",
                  exam->needs->is_paced ? ", paced" : "");
}

static void print_links(const struct mt_doctor_exam *exam, FILE *out)
{
    static const char *const name[] = {
        [MT_LEVEL_NODE] = "within nodes", [MT_LEVEL_NETWORK] = "between nodes"};
    (void)fprintf(out, "%-14s %14s %9s %20s %9s %20s\n", "links", "pairs", "GB/s", "slowest", "us",
                  "longest");
    for (int which = MT_LEVEL_NODE; which <= MT_LEVEL_NETWORK; which++) {
        struct mt_doctor_level level;
        char pairs[32];
        char slowest[64] = "-";
        char latest[64] = "-";
        mt_doctor_level(exam, (enum mt_level)which, &level);
        if (level.n_link > 0) {
            (void)snprintf(slowest, sizeof(slowest), "%.2f (%d-%d)", level.worst_gbytes_per_s,
                           level.slowest[0], level.slowest[1]);
            (void)snprintf(latest, sizeof(latest), "%.1f (%d-%d)", level.worst_latency_us,
                           level.latest[0], level.latest[1]);
        }
        (void)snprintf(pairs, sizeof(pairs), "%d of %d", level.n_link, level.n_pair);
        (void)fprintf(out, "%-14s %14s", name[which], pairs);
        print_number(level.gbytes_per_s, out);
        (void)fprintf(out, " %20s", slowest);
        print_number(level.latency_us, out);
        (void)fprintf(out, " %20s\n", latest);
    }
    (void)fputc('\n', out);
}

static void print_devices(const struct mt_machine *machine, FILE *out)
{
    if (machine->n_gpu == 0) {
        (void)fprintf(out, "no GPU");
    }
    for (int i = 0; i < machine->n_gpu; i++) {
        const struct mt_machine_device *gpu = &machine->gpu[i];
        (void)fprintf(out, "%sGPU %s (memory node %d, nearest card %s)", i > 0 ? ", " : "",
                      gpu->name, gpu->numa,
                      gpu->nearest >= 0 ? machine->nic[gpu->nearest].name : "none");
    }
    for (int i = 0; i < machine->n_nic; i++) {
        (void)fprintf(out, "%s%s (memory node %d)",
                      i > 0 ? ", " : "; network cards: ", machine->nic[i].name,
                      machine->nic[i].numa);
    }
    (void)fputc('\n', out);
}

static void print_words(const struct mt_doctor_exam *exam, FILE *out)
{
    for (int word = 0; word < MT_N_DOCTOR_WORD; word++) {
        const char *text = exam->facts[0].word[word];
        if (text[0] != '\0') {
            (void)fprintf(out, "%s%s %s", word > 0 ? ", " : "",
                          mt_doctor_word_name((enum mt_doctor_word)word), text);
        }
    }
    (void)fputc('\n', out);
}

static void print_needs(const struct mt_doctor_exam *exam, FILE *out)
{
    const struct mt_doctor_needs *needs = exam->needs;
    if (!needs->is_known) {
        (void)fprintf(out, "no CONFIG: memory and disk are not compared with what a run needs\n");
        return;
    }
    (void)fprintf(out,
                  "the run needs %.2f GiB a rank and %.2f GiB of disk for %lld checkpoints; %s has "
                  "%.2f GiB free\n",
                  (double)needs->rank_bytes / GIB,
                  (double)needs->checkpoint_bytes * (double)needs->n_checkpoint / GIB,
                  (long long)needs->n_checkpoint, needs->run_dir,
                  (double)exam->facts[0].disk_bytes / GIB);
}

void mt_doctor_table(const struct mt_doctor_report *report, FILE *out)
{
    const struct mt_doctor_exam *exam = report->exam;
    const struct mt_doctor_findings *findings = report->findings;
    const int n_rank = exam->topology->n_rank;
    (void)fprintf(out, "%d rank%s on %d node%s, looked at in %.1f s\n\n", n_rank, plural(n_rank),
                  exam->topology->n_node, plural(exam->topology->n_node), report->time_s);
    print_ranks(exam, out);
    print_links(exam, out);
    (void)fprintf(out, "the machine of rank 0: %d package%s, %d memory node%s, %d cores; ",
                  report->machine->n_package, plural(report->machine->n_package),
                  report->machine->n_numa, plural(report->machine->n_numa),
                  report->machine->n_core);
    print_devices(report->machine, out);
    print_words(exam, out);
    print_needs(exam, out);
    if (report->options->costs_folder != NULL) {
        (void)fprintf(out, "for plans: --set 'placement.costs=\"%s/costs.json\"'\n",
                      report->options->costs_folder);
    }
    (void)fputc('\n', out);
    for (int i = 0; i < findings->n && i < MT_DOCTOR_MAX_FINDINGS; i++) {
        (void)fprintf(out, "odd: %s\n", findings->finding[i].text);
    }
    if (findings->n > MT_DOCTOR_MAX_FINDINGS) {
        (void)fprintf(out, "odd: and %d more\n", findings->n - MT_DOCTOR_MAX_FINDINGS);
    }
    if (findings->n == 0) {
        (void)fprintf(out, "doctor: nothing odd on %d rank%s\n", n_rank, plural(n_rank));
    } else {
        (void)fprintf(out, "doctor: %d finding%s on %d rank%s\n", findings->n, plural(findings->n),
                      n_rank, plural(n_rank));
    }
    (void)fflush(out);
}

/* ---- JSON ---- */

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

static void set_integer(json_t *object, const char *key, int64_t value)
{
    set(object, key, json_integer((json_int_t)value));
}

/* What was not measured is null; JSON has no infinity. */
static void set_real(json_t *object, const char *key, double value)
{
    set(object, key, value > 0.0 && isfinite(value) ? json_real(value) : json_null());
}

/* Text of the environment need not be UTF-8. */
static void set_text(json_t *object, const char *key, const char *text)
{
    json_t *value = json_string(text);
    set(object, key, value != NULL ? value : json_string("(not UTF-8)"));
}

static json_t *rank_json(const struct mt_doctor_exam *exam, int rank)
{
    const struct mt_doctor_facts *facts = &exam->facts[rank];
    json_t *object = json_object();
    json_t *words = json_object();
    set_integer(object, "rank", rank);
    set_text(object, "host", facts->host);
    set_integer(object, "node", exam->topology->node[rank]);
    set_integer(object, "threads", facts->n_thread);
    set_integer(object, "cores_granted", facts->n_core);
    set(object, "alone_on_cores", json_boolean(facts->is_alone != 0));
    set_real(object, "gflops", facts->gflops);
    set_real(object, "gflops_float32",
             exam->needs->is_bfloat16 ? facts->gflops_float32 : facts->gflops);
    set_real(object, "gflops_again", facts->gflops_again);
    set_real(object, "peak_gflops", facts->peak_gflops);
    set_real(object, "cpu_share", facts->cpu_share);
    set_real(object, "copy_gbytes_per_s", facts->copy_gbytes_per_s);
    set(object, "wall_clock_offset_s", json_real((double)facts->wall_ns * 1e-9));
    set_integer(object, "memory_bytes", facts->memory_bytes);
    set_integer(object, "disk_bytes", facts->disk_bytes);
    set(object, "single_copy", json_boolean(facts->can_single_copy != 0));
    set_integer(object, "gpus", facts->n_gpu);
    set_integer(object, "network_cards", facts->n_nic);
    for (int word = 0; word < MT_N_DOCTOR_WORD; word++) {
        set_text(words, mt_doctor_word_name((enum mt_doctor_word)word), facts->word[word]);
    }
    set(object, "versions", words);
    return object;
}

static json_t *level_json(const struct mt_doctor_exam *exam, enum mt_level which)
{
    struct mt_doctor_level level;
    json_t *object = json_object();
    mt_doctor_level(exam, which, &level);
    set_integer(object, "pairs", level.n_link);
    set_integer(object, "pairs_planned", level.n_pair);
    set_real(object, "gbytes_per_s", level.gbytes_per_s);
    set_real(object, "latency_us", level.latency_us);
    set_real(object, "worst_gbytes_per_s", level.worst_gbytes_per_s);
    set_real(object, "worst_latency_us", level.worst_latency_us);
    set(object, "slowest", json_pack("[i, i]", level.slowest[0], level.slowest[1]));
    set(object, "longest", json_pack("[i, i]", level.latest[0], level.latest[1]));
    return object;
}

static json_t *finding_json(const struct mt_doctor_finding *finding)
{
    json_t *object = json_object();
    json_t *ranks = json_array();
    for (int i = 0; i < finding->n_rank && i < MT_DOCTOR_MAX_NAMED; i++) {
        (void)json_array_append_new(ranks, json_integer(finding->rank[i]));
    }
    set(object, "what", json_string(finding->what));
    set(object, "ranks", ranks);
    set_integer(object, "n_ranks", finding->n_rank);
    set_text(object, "text", finding->text);
    return object;
}

static json_t *devices_json(const struct mt_machine *machine)
{
    json_t *list = json_array();
    for (int i = 0; i < machine->n_gpu; i++) {
        const struct mt_machine_device *gpu = &machine->gpu[i];
        json_t *object = json_object();
        set_text(object, "gpu", gpu->name);
        set_integer(object, "memory_node", gpu->numa);
        set(object, "nearest_card",
            gpu->nearest >= 0 ? json_string(machine->nic[gpu->nearest].name) : json_null());
        (void)json_array_append_new(list, object);
    }
    for (int i = 0; i < machine->n_nic; i++) {
        json_t *object = json_object();
        set_text(object, "network_card", machine->nic[i].name);
        set_integer(object, "memory_node", machine->nic[i].numa);
        (void)json_array_append_new(list, object);
    }
    return list;
}

void mt_doctor_json(const struct mt_doctor_report *report, FILE *out)
{
    const struct mt_doctor_exam *exam = report->exam;
    json_t *object = json_object();
    json_t *ranks = json_array();
    json_t *findings = json_array();
    json_t *links = json_object();
    set_integer(object, "ranks", exam->topology->n_rank);
    set_integer(object, "nodes", exam->topology->n_node);
    set_real(object, "time_s", report->time_s);
    set(object, "dtype", json_string(exam->needs->is_bfloat16 ? "bfloat16" : "float32"));
    set(object, "paced", json_boolean(exam->needs->is_paced));
    set_integer(object, "needed_bytes_per_rank", exam->needs->rank_bytes);
    set_integer(object, "checkpoint_bytes", exam->needs->checkpoint_bytes);
    for (int rank = 0; rank < exam->topology->n_rank; rank++) {
        (void)json_array_append_new(ranks, rank_json(exam, rank));
    }
    set(object, "by_rank", ranks);
    set(links, "node", level_json(exam, MT_LEVEL_NODE));
    set(links, "network", level_json(exam, MT_LEVEL_NETWORK));
    set(object, "links", links);
    set(object, "devices", devices_json(report->machine));
    set_integer(object, "n_findings", report->findings->n);
    for (int i = 0; i < report->findings->n && i < MT_DOCTOR_MAX_FINDINGS; i++) {
        (void)json_array_append_new(findings, finding_json(&report->findings->finding[i]));
    }
    set(object, "findings", findings);
    (void)json_dumpf(object, out, JSON_COMPACT | JSON_REAL_PRECISION(9));
    (void)fputc('\n', out);
    (void)fflush(out);
    json_decref(object);
}
