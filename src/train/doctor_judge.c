/* Which rank is odd: rates, clocks, libraries, environment. Machines are in doctor_judge_host.c,
 * links in doctor_judge_links.c. */
#include "train/doctor.h"

#include "base/sort.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* A rank below this share of the median is odd. Starts of one healthy machine differ by 5 to 10 %
 * (docs/costs.md), its cores by as much again with their clocks; what is slower than that delays
 * every step, by a quarter and more. */
static const double LEAST_RATE = 0.8;
/* Of the processor's rate of multiply-adds: oneDNN reaches 0.9 and more (docs/performance.md).
 */
static const double LEAST_OF_PEAK = 0.5;
/* Wall clocks only date logs and locks: what time servers leave is milliseconds. */
static const double MOST_WALL_S = 1.0;
static const double NS_PER_S = 1e9;

static const char *const WORD_NAME[MT_N_DOCTOR_WORD] = {
    [MT_WORD_REVISION] = "moetrain",
    [MT_WORD_MPI] = "MPI",
    [MT_WORD_ONEDNN] = "oneDNN",
    [MT_WORD_HDF5] = "HDF5",
    [MT_WORD_HWLOC] = "hwloc",
    [MT_WORD_ISA] = "vector instructions",
    [MT_WORD_OMP_NUM_THREADS] = "OMP_NUM_THREADS",
    [MT_WORD_OPENBLAS_CORETYPE] = "OPENBLAS_CORETYPE",
    [MT_WORD_ONEDNN_MAX_CPU_ISA] = "ONEDNN_MAX_CPU_ISA",
    [MT_WORD_MT_ISA] = "MT_ISA",
    [MT_WORD_SINGLE_COPY] = "OMPI_MCA_btl_vader_single_copy_mechanism",
    [MT_WORD_HUGE_PAGES] = "transparent huge pages",
};

const char *mt_doctor_word_name(enum mt_doctor_word word)
{
    return WORD_NAME[word];
}

struct mt_doctor_finding *mt_doctor_add(struct mt_doctor_findings *findings, const char *what,
                                        const int *rank, int n_rank)
{
    /* The last place is written again and again once all are taken: what is beyond is counted. */
    const int place =
        findings->n < MT_DOCTOR_MAX_FINDINGS ? findings->n : MT_DOCTOR_MAX_FINDINGS - 1;
    struct mt_doctor_finding *finding = &findings->finding[place];
    findings->n++;
    *finding = (struct mt_doctor_finding){.what = what, .n_rank = n_rank};
    for (int i = 0; i < n_rank && i < MT_DOCTOR_MAX_NAMED; i++) {
        finding->rank[i] = rank[i];
    }
    return finding;
}

void mt_doctor_name(const struct mt_doctor_exam *exam, const struct mt_doctor_finding *finding,
                    char *text, size_t bytes)
{
    const int n_named =
        finding->n_rank < MT_DOCTOR_MAX_NAMED ? finding->n_rank : MT_DOCTOR_MAX_NAMED;
    if (n_named == 1) {
        (void)snprintf(text, bytes, "rank %d (%.32s)", finding->rank[0],
                       exam->facts[finding->rank[0]].host);
        return;
    }
    size_t used = (size_t)snprintf(text, bytes, "ranks");
    for (int i = 0; i < n_named && used < bytes; i++) {
        const bool is_last = i == n_named - 1 && finding->n_rank == n_named;
        used += (size_t)snprintf(text + used, bytes - used, "%s %d",
                                 i == 0    ? ""
                                 : is_last ? " and"
                                           : ",",
                                 finding->rank[i]);
    }
    if (finding->n_rank > n_named && used < bytes) {
        (void)snprintf(text + used, bytes - used, " and %d more", finding->n_rank - n_named);
    }
}

double mt_doctor_median(double *value, int n, bool is_rate)
{
    MT_ASSERT(n >= 1);
    mt_sort_f64(value, n);
    return value[is_rate ? n / 2 : (n - 1) / 2];
}

/* ---- rates ---- */

struct rate {
    const char *what;
    const char *about; /* in the text */
    const char *unit;
    size_t offset; /* in struct mt_doctor_facts; 0: the number of threads */
    bool is_paced; /* with the device, so that it says something of ranks that share cores, too */
    const char *advice;
};

static const struct rate RATES[] = {
    {"products", "matrix products", "GFLOP/s", offsetof(struct mt_doctor_facts, gflops), true,
     "look there for other programs, a lower clock (turbostat) and device.slowdown; leave the "
     "machine out if it stays"},
    {"products-float32", "float32 matrix products", "GFLOP/s",
     offsetof(struct mt_doctor_facts, gflops_float32), true,
     "look there for other programs and a lower clock (turbostat)"},
    {"copies", "memory copies", "GB/s", offsetof(struct mt_doctor_facts, copy_gbytes_per_s), false,
     "look there for missing memory modules (dmidecode), a wrong NUMA binding (numactl -H) and "
     "other programs"},
    {"threads", "compute threads", "threads", 0, false,
     "give every rank as many cores "
     "(mpirun --map-by, device.threads)"},
};

/* 0: not measured, or not to be compared: a rank that shares its cores measures the sharing. */
static double value_of(const struct mt_doctor_exam *exam, int rank, const struct rate *rate)
{
    const struct mt_doctor_facts *facts = &exam->facts[rank];
    if (rate->offset == 0) {
        return (double)facts->n_thread;
    }
    if (facts->is_alone == 0 && !(rate->is_paced && exam->needs->is_paced)) {
        return 0.0;
    }
    double value = 0.0;
    memcpy(&value, (const char *)facts + rate->offset, sizeof(value));
    return value;
}

/* Median of a rate over the ranks that measured it; 0: none did. */
static double rate_median(const struct mt_doctor_exam *exam, const struct rate *rate,
                          double *scratch)
{
    int n = 0;
    for (int rank = 0; rank < exam->topology->n_rank; rank++) {
        const double value = value_of(exam, rank, rate);
        if (value > 0.0) {
            scratch[n++] = value;
        }
    }
    return n > 0 ? mt_doctor_median(scratch, n, true) : 0.0;
}

static void judge_rate(const struct mt_doctor_exam *exam, const struct rate *rate, double *scratch,
                       struct mt_doctor_findings *findings)
{
    const double median = rate_median(exam, rate, scratch);
    for (int rank = 0; rank < exam->topology->n_rank; rank++) {
        const double value = value_of(exam, rank, rate);
        if (value <= 0.0 || value >= LEAST_RATE * median) {
            continue;
        }
        struct mt_doctor_finding *finding = mt_doctor_add(findings, rate->what, &rank, 1);
        char name[64];
        mt_doctor_name(exam, finding, name, sizeof(name));
        (void)snprintf(finding->text, sizeof(finding->text),
                       "%s: %s: %.3g %s; expected at least %.1f of the median, %.3g; %s", name,
                       rate->about, value, rate->unit, LEAST_RATE, median, rate->advice);
    }
}

/* One rank against itself: were its cores its own, its second look, its processor's peak. Who
 * shares cores with other ranks is told so apart, and paced rates are a clock's. */
static void judge_own_rate(const struct mt_doctor_exam *exam, int rank,
                           struct mt_doctor_findings *findings)
{
    const struct mt_doctor_facts *facts = &exam->facts[rank];
    const bool is_busy = facts->cpu_share > 0.0 && facts->cpu_share < LEAST_RATE;
    const bool is_throttled =
        facts->gflops_again > 0.0 && facts->gflops_again < LEAST_RATE * facts->gflops;
    const bool is_below_peak = facts->gflops < LEAST_OF_PEAK * facts->peak_gflops;
    char name[64];
    if (exam->needs->is_paced || facts->is_alone == 0 ||
        !(is_busy || is_throttled || is_below_peak)) {
        return;
    }
    struct mt_doctor_finding *finding = mt_doctor_add(findings,
                                                      is_busy        ? "busy"
                                                      : is_throttled ? "throttling"
                                                                     : "peak",
                                                      &rank, 1);
    mt_doctor_name(exam, finding, name, sizeof(name));
    if (is_busy) {
        (void)snprintf(finding->text, sizeof(finding->text),
                       "%s: its threads had their cores %.0f %% of the time; expected at least "
                       "%.0f %%; look there for other programs (top)",
                       name, facts->cpu_share * 100.0, LEAST_RATE * 100.0);
    } else if (is_throttled) {
        (void)snprintf(finding->text, sizeof(finding->text),
                       "%s: matrix products fell from %.3g to %.3g GFLOP/s while the doctor "
                       "worked; expected at least %.1f of the first; look there for throttling "
                       "(turbostat, sensors)",
                       name, facts->gflops, facts->gflops_again, LEAST_RATE);
    } else {
        (void)snprintf(finding->text, sizeof(finding->text),
                       "%s: matrix products reach %.3g of the %.3g GFLOP/s of its multiply-adds; "
                       "expected at least %.1f; look for ONEDNN_MAX_CPU_ISA, another oneDNN, "
                       "device.slowdown, and memory of another socket",
                       name, facts->gflops, facts->peak_gflops, LEAST_OF_PEAK);
    }
}

/* ---- clocks ---- */

static void judge_clocks(const struct mt_doctor_exam *exam, double *scratch,
                         struct mt_doctor_findings *findings)
{
    const int n_rank = exam->topology->n_rank;
    for (int rank = 0; rank < n_rank; rank++) {
        scratch[rank] = (double)exam->facts[rank].wall_ns / NS_PER_S;
    }
    const double median = mt_doctor_median(scratch, n_rank, false);
    for (int rank = 0; rank < n_rank; rank++) {
        const double off_s = (double)exam->facts[rank].wall_ns / NS_PER_S - median;
        if (fabs(off_s) <= MOST_WALL_S) {
            continue;
        }
        struct mt_doctor_finding *finding = mt_doctor_add(findings, "clock", &rank, 1);
        char name[64];
        mt_doctor_name(exam, finding, name, sizeof(name));
        (void)snprintf(finding->text, sizeof(finding->text),
                       "%s: its wall clock is %.3g s %s the others'; expected at most %.0f s, or "
                       "logs and locks cannot be compared; start a time service there (chrony)",
                       name, fabs(off_s), off_s > 0.0 ? "ahead of" : "behind", MOST_WALL_S);
    }
}

/* ---- words ---- */

/* Rank whose word most ranks have; of words as frequent, the lowest rank's. */
static int usual_rank(const struct mt_doctor_exam *exam, int word)
{
    const int n_rank = exam->topology->n_rank;
    int best = 0;
    int most = 0;
    for (int rank = 0; rank < n_rank && most <= n_rank / 2; rank++) {
        int n = 0;
        for (int other = 0; other < n_rank; other++) {
            n += strcmp(exam->facts[rank].word[word], exam->facts[other].word[word]) == 0 ? 1 : 0;
        }
        best = n > most ? rank : best;
        most = n > most ? n : most;
    }
    return best;
}

static const char *shown(const char *word)
{
    return word[0] != '\0' ? word : "not set";
}

/* odd [R]: scratch */
static void judge_word(const struct mt_doctor_exam *exam, int word, int *odd,
                       struct mt_doctor_findings *findings)
{
    const bool is_variable = word >= MT_WORD_OMP_NUM_THREADS;
    const char *usual = exam->facts[usual_rank(exam, word)].word[word];
    int n = 0;
    for (int rank = 0; rank < exam->topology->n_rank; rank++) {
        if (strcmp(exam->facts[rank].word[word], usual) != 0) {
            odd[n++] = rank;
        }
    }
    if (n == 0) {
        return;
    }
    struct mt_doctor_finding *finding =
        mt_doctor_add(findings, is_variable ? "environment" : "library", odd, n);
    char name[192];
    mt_doctor_name(exam, finding, name, sizeof(name));
    (void)snprintf(finding->text, sizeof(finding->text),
                   "%s: %s: %s; expected %s, as on the others; %s", name,
                   mt_doctor_word_name((enum mt_doctor_word)word),
                   shown(exam->facts[odd[0]].word[word]), shown(usual),
                   is_variable ? "set it alike (mpirun -x) or nowhere"
                               : "install the same on all machines, and look at LD_LIBRARY_PATH");
}

/* What slows all ranks alike. Judged on rank 0: ranks that differ are named above. */
static void judge_environment(const struct mt_doctor_exam *exam,
                              struct mt_doctor_findings *findings)
{
    static const int zero = 0;
    const struct mt_doctor_facts *facts = &exam->facts[0];
    const char *advice[MT_N_DOCTOR_WORD] = {
        [MT_WORD_OPENBLAS_CORETYPE] =
            "expected it not set: it forces other kernels on what uses OpenBLAS; unset it",
        [MT_WORD_ONEDNN_MAX_CPU_ISA] =
            "expected it not set: it forbids oneDNN the newer instructions; unset it",
        [MT_WORD_MT_ISA] = "expected it not set: it is for tests; unset it",
    };
    for (int word = 0; word < MT_N_DOCTOR_WORD; word++) {
        if (advice[word] != NULL && facts->word[word][0] != '\0') {
            (void)snprintf(mt_doctor_add(findings, "environment", &zero, 1)->text,
                           MT_DOCTOR_TEXT_BYTES, "%s is %s; %s",
                           mt_doctor_word_name((enum mt_doctor_word)word), facts->word[word],
                           advice[word]);
        }
    }
    if (strcmp(facts->word[MT_WORD_HUGE_PAGES], "never") == 0) {
        (void)snprintf(mt_doctor_add(findings, "environment", &zero, 1)->text, MT_DOCTOR_TEXT_BYTES,
                       "transparent huge pages: never; expected madvise or always, which spare "
                       "page faults and TLB misses of large blocks; echo madvise > "
                       "/sys/kernel/mm/transparent_hugepage/enabled");
    }
}

void mt_doctor_judge(const struct mt_doctor_exam *exam, struct mt_doctor_findings *findings)
{
    const int n_rank = exam->topology->n_rank;
    double *scratch = exam->scratch;
    findings->n = 0;
    for (int i = 0; i < (int)(sizeof(RATES) / sizeof(RATES[0])); i++) {
        judge_rate(exam, &RATES[i], scratch, findings);
    }
    for (int rank = 0; rank < n_rank; rank++) {
        judge_own_rate(exam, rank, findings);
    }
    mt_doctor_judge_links(exam, findings);
    mt_doctor_judge_host(exam, findings);
    judge_clocks(exam, scratch, findings);
    for (int word = 0; word < MT_N_DOCTOR_WORD; word++) {
        judge_word(exam, word, exam->odd, findings);
    }
    judge_environment(exam, findings);
}
