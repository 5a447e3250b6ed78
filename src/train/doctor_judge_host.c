/* What is odd about machines: cores, memory, disk, devices. */
#include "base/size.h"
#include "train/doctor.h"

#include <stddef.h>
#include <string.h>

static const double GIB = 1024.0 * 1024.0 * 1024.0;

/* The ranks of one machine, in exam->odd. */
struct host {
    const struct mt_doctor_exam *exam;
    int n_local;
    const int *rank;
    const struct mt_doctor_facts *first; /* of the lowest rank */
};

static bool has_same_cores(const struct mt_doctor_facts *a, const struct mt_doctor_facts *b)
{
    return a->n_core == b->n_core && a->core_first == b->core_first && a->core_last == b->core_last;
}

/* CPUs that its ranks have together: of their distinct sets, within the quota. */
static int64_t count_cores(const struct host *host)
{
    int64_t n = 0;
    for (int i = 0; i < host->n_local; i++) {
        const struct mt_doctor_facts *mine = &host->exam->facts[host->rank[i]];
        bool is_new = true;
        for (int j = 0; j < i && is_new; j++) {
            is_new = !has_same_cores(mine, &host->exam->facts[host->rank[j]]);
        }
        n += is_new ? mine->n_core : 0;
    }
    return host->first->quota > 0 ? mt_min_i64(n, host->first->quota) : n;
}

static void judge_cores(const struct host *host, struct mt_doctor_findings *findings)
{
    const int64_t n_core = count_cores(host);
    int64_t n_thread = 0;
    bool is_shared = false;
    for (int i = 0; i < host->n_local; i++) {
        const struct mt_doctor_facts *facts = &host->exam->facts[host->rank[i]];
        n_thread += facts->n_thread;
        is_shared = is_shared || (facts->is_alone == 0 && host->n_local > 1);
    }
    if (host->first->n_core == 0 || (n_thread <= n_core && !is_shared)) {
        return; /* the system shows no cores, or enough */
    }
    struct mt_doctor_finding *finding = mt_doctor_add(findings, "cores", host->rank, host->n_local);
    char name[192];
    mt_doctor_name(host->exam, finding, name, sizeof(name));
    (void)snprintf(finding->text, sizeof(finding->text),
                   "%s on %.32s: %lld threads on %lld cores%s, so that ranks share them; expected "
                   "a core for every thread; start fewer ranks there, set device.threads, or bind "
                   "ranks apart (mpirun --map-by slot:PE=N)",
                   name, host->first->host, (long long)n_thread, (long long)n_core,
                   host->first->quota > 0 ? " of the control group's quota" : "");
}

static void judge_memory(const struct host *host, struct mt_doctor_findings *findings)
{
    const struct mt_doctor_needs *needs = host->exam->needs;
    const double wanted = (double)needs->rank_bytes * host->n_local;
    if (!needs->is_known || wanted <= (double)host->first->memory_bytes) {
        return;
    }
    struct mt_doctor_finding *finding =
        mt_doctor_add(findings, "memory", host->rank, host->n_local);
    (void)snprintf(finding->text, sizeof(finding->text),
                   "%.32s has %.2f GiB of memory available; expected %.2f for its %d rank%s (%.2f "
                   "each); end what else runs there, start fewer ranks there, or make model or "
                   "micro-batch smaller (see: moetrain plan)",
                   host->first->host, (double)host->first->memory_bytes / GIB, wanted / GIB,
                   host->n_local, host->n_local == 1 ? "" : "s", (double)needs->rank_bytes / GIB);
}

static void judge_disk(const struct host *host, struct mt_doctor_findings *findings)
{
    const struct mt_doctor_needs *needs = host->exam->needs;
    const struct mt_doctor_facts *facts = host->first;
    if (!needs->is_known) {
        return;
    }
    if (facts->is_writable == 0) {
        struct mt_doctor_finding *finding =
            mt_doctor_add(findings, "disk", host->rank, host->n_local);
        (void)snprintf(finding->text, sizeof(finding->text),
                       "%.200s cannot be written on %.32s; expected a run directory that all "
                       "machines can write; mount it there, or choose another --run-dir",
                       needs->run_dir, facts->host);
        return;
    }
    const double wanted = (double)needs->checkpoint_bytes * (double)needs->n_checkpoint;
    if (facts->disk_bytes < 0 || wanted <= (double)facts->disk_bytes) {
        return;
    }
    struct mt_doctor_finding *finding = mt_doctor_add(findings, "disk", host->rank, host->n_local);
    (void)snprintf(finding->text, sizeof(finding->text),
                   "%.200s on %.32s has %.2f GiB free; expected %.2f for %lld checkpoints; free "
                   "space, lower checkpoint.keep, or choose another --run-dir",
                   needs->run_dir, facts->host, (double)facts->disk_bytes / GIB, wanted / GIB,
                   (long long)needs->n_checkpoint);
}

static void judge_affinity(const struct host *host, struct mt_doctor_findings *findings)
{
    for (int i = 0; i < host->n_local; i++) {
        const int rank = host->rank[i];
        const struct mt_doctor_facts *facts = &host->exam->facts[rank];
        if (facts->gpu_numa < 0 || facts->gpu_numa > 63 || facts->numa_mask == 0 ||
            (facts->numa_mask >> facts->gpu_numa & 1) != 0) {
            continue;
        }
        struct mt_doctor_finding *finding = mt_doctor_add(findings, "affinity", &rank, 1);
        char name[64];
        mt_doctor_name(host->exam, finding, name, sizeof(name));
        (void)snprintf(finding->text, sizeof(finding->text),
                       "%s: its GPU hangs on memory node %lld, and none of its cores does; "
                       "expected cores beside the GPU; bind it there (mpirun --map-by numa)",
                       name, (long long)facts->gpu_numa);
    }
}

/* Single-copy messages need the kernel's leave (CMA); where it gives it, switching them off makes
 * every large message between ranks of a machine be copied twice. */
static void judge_single_copy(const struct host *host, struct mt_doctor_findings *findings)
{
    const char *mechanism = host->first->word[MT_WORD_SINGLE_COPY];
    if (host->n_local < 2 || host->first->can_single_copy == 0 || strcmp(mechanism, "none") != 0) {
        return;
    }
    struct mt_doctor_finding *finding =
        mt_doctor_add(findings, "environment", host->rank, host->n_local);
    (void)snprintf(finding->text, sizeof(finding->text),
                   "%s is none on %.32s, whose kernel allows single copies; expected it not set: "
                   "large messages within the machine are copied twice; leave it out",
                   mt_doctor_word_name(MT_WORD_SINGLE_COPY), host->first->host);
}

/* ---- machines against each other ---- */

struct part {
    const char *name;
    size_t offset; /* in struct mt_doctor_facts */
};
static const struct part PARTS[] = {
    {"GPUs", offsetof(struct mt_doctor_facts, n_gpu)},
    {"network cards", offsetof(struct mt_doctor_facts, n_nic)},
    {"packages", offsetof(struct mt_doctor_facts, n_package)},
    {"memory nodes", offsetof(struct mt_doctor_facts, n_numa)},
    {"cores", offsetof(struct mt_doctor_facts, n_machine_core)},
};

static int64_t part_of(const struct mt_doctor_facts *facts, const struct part *part)
{
    int64_t value = 0;
    memcpy(&value, (const char *)facts + part->offset, sizeof(value));
    return value;
}

/* Machines that have less of something than the median machine; by their lowest rank. */
static void judge_parts(const struct mt_doctor_exam *exam, const struct part *part,
                        struct mt_doctor_findings *findings)
{
    int n = 0;
    for (int rank = 0; rank < exam->topology->n_rank; rank++) {
        if (exam->facts[rank].machine == rank) {
            exam->scratch[n++] = (double)part_of(&exam->facts[rank], part);
        }
    }
    const double median = n > 0 ? mt_doctor_median(exam->scratch, n, true) : 0.0;
    for (int rank = 0; rank < exam->topology->n_rank; rank++) {
        const double value = (double)part_of(&exam->facts[rank], part);
        if (exam->facts[rank].machine != rank || value >= median) {
            continue;
        }
        struct mt_doctor_finding *finding = mt_doctor_add(findings, "parts", &rank, 1);
        char name[64];
        mt_doctor_name(exam, finding, name, sizeof(name));
        (void)snprintf(finding->text, sizeof(finding->text),
                       "%s: its machine shows %.0f %s; expected %.0f, as on the others; look for a "
                       "failed part or a container that hides it (lspci, lscpu)",
                       name, value, part->name, median);
    }
}

void mt_doctor_judge_host(const struct mt_doctor_exam *exam, struct mt_doctor_findings *findings)
{
    const int n_rank = exam->topology->n_rank;
    for (int lowest = 0; lowest < n_rank; lowest++) {
        if (exam->facts[lowest].machine != lowest) {
            continue;
        }
        int n_local = 0;
        for (int rank = lowest; rank < n_rank; rank++) {
            if (exam->facts[rank].machine == lowest) {
                exam->odd[n_local++] = rank;
            }
        }
        const struct host host = {exam, n_local, exam->odd, &exam->facts[lowest]};
        judge_cores(&host, findings);
        judge_memory(&host, findings);
        judge_disk(&host, findings);
        judge_affinity(&host, findings);
        judge_single_copy(&host, findings);
    }
    for (int i = 0; i < (int)(sizeof(PARTS) / sizeof(PARTS[0])); i++) {
        judge_parts(exam, &PARTS[i], findings);
    }
}
