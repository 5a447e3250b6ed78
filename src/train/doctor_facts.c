/* What one rank measures and knows of itself. */
#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "device/isa.h"
#include "kernel/kernel.h"
#include "train/doctor.h"
#include "train/session.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* A product of 512 rows a thread with a square matrix of 512: 2.7 ms at 100 GFLOP/s, far above what
 * starting threads takes. */
enum { WIDTH = 512, ROWS = 512, MOST_ROWS = 16384, LEAST_ROWS = 16 };
enum { LEAST_REPEAT = 3, MOST_REPEAT = 51 };
static const int64_t ENOUGH_NS = 200000000;
/* A paced product lasts about so long. */
static const double PACED_NS = 2e7;
/* What measuring copies takes of a rank (kernel.h), and the share of the free memory that the ranks
 * of a machine may take for it together. */
static const double COPY_BYTES = 256.0 * 1024.0 * 1024.0;
static const double MOST_OF_MEMORY = 0.5;

/* ---- products ---- */

static bool is_paced(const struct mt_device *device)
{
    return device->pace_gflops > 0.0 || device->pace_gbytes_per_s > 0.0 || device->slowdown > 1.0;
}

static int64_t count_rows(const struct mt_device *device)
{
    const double flops_of_row = 2.0 * WIDTH * WIDTH;
    const int64_t n = mt_min_i64((int64_t)ROWS * device->n_thread, MOST_ROWS);
    if (device->pace_gflops <= 0.0) {
        return n;
    }
    const double n_paced = device->pace_gflops * PACED_NS / flops_of_row;
    return n_paced >= (double)n ? n : mt_max_i64(LEAST_ROWS, (int64_t)n_paced);
}

/* The best of some repetitions: what else the machine does only makes them longer. *cpu_share: the
 * processor time of a thread over the time, in all of them. */
static void time_products(struct mt_device *device, const struct mt_weight *weight, float *y,
                          const float *x, double *gflops, double *cpu_share)
{
    const int64_t n_row = count_rows(device);
    const double flops = 2.0 * (double)n_row * WIDTH * WIDTH;
    double best_ns = INFINITY;
    mt_linear_forward(device, y, x, weight, n_row); /* makes the threads, touches the memory */
    mt_device_settle(device);
    const int64_t first_ns = mt_clock_ns();
    const int64_t first_cpu_ns = mt_clock_cpu_ns();
    for (int i = 0; i < LEAST_REPEAT || (i < MOST_REPEAT && mt_clock_ns() < first_ns + ENOUGH_NS);
         i++) {
        const int64_t start_ns = mt_clock_ns();
        mt_linear_forward(device, y, x, weight, n_row);
        mt_device_settle(device);
        best_ns = fmin(best_ns, (double)(mt_clock_ns() - start_ns));
    }
    const double all_ns = (double)(mt_clock_ns() - first_ns);
    *gflops = flops / fmax(1.0, best_ns);
    *cpu_share = is_paced(device) ? 0.0
                                  : (double)(mt_clock_cpu_ns() - first_cpu_ns) / all_ns /
                                        (double)device->n_thread;
}

/* In the type of `device`, whose state of pacing stays with the copy. */
static enum mt_status measure_products(const struct mt_device *device, double *gflops,
                                       double *cpu_share)
{
    struct mt_device own = *device;
    struct mt_weight weight;
    struct mt_arena arena = {0};
    enum mt_status status = MT_OK;
    const int64_t n_row = count_rows(device);
    const int64_t matrix_bytes = (int64_t)WIDTH * WIDTH * (int64_t)sizeof(float);
    const int64_t row_bytes = n_row * WIDTH * (int64_t)sizeof(float);
    const int64_t pack_bytes = mt_weight_bytes(&own, WIDTH, WIDTH, false);
    MT_TRY_GOTO(mt_linear_prepare(&own, WIDTH, WIDTH));
    MT_TRY_GOTO(
        mt_arena_init(&arena, matrix_bytes + 2 * row_bytes + pack_bytes, "measuring products"));
    float *values = mt_arena_cut(&arena, matrix_bytes);
    float *x = mt_arena_cut(&arena, row_bytes);
    float *y = mt_arena_cut(&arena, row_bytes);
    for (int64_t i = 0; i < (int64_t)WIDTH * WIDTH; i++) {
        values[i] = (float)(i % 13 - 6) * 0.01F; /* no denormals, which are slow */
    }
    for (int64_t i = 0; i < n_row * WIDTH; i++) {
        x[i] = (float)(i % 11 - 5) * 0.1F;
    }
    mt_weight_init(&own, &weight, WIDTH, WIDTH, false, mt_arena_cut(&arena, pack_bytes));
    mt_weight_pack(&own, &weight, values);
    time_products(&own, &weight, y, x, gflops, cpu_share);
cleanup:
    mt_arena_clear(&arena);
    return status;
}

/* All ranks at once, as they compute in a step: a sum is where they meet. */
static enum mt_status meet(struct mt_session *session)
{
    int64_t nothing = 0;
    return mt_comm_sum_i64(&session->comm, &nothing, 1);
}

static enum mt_status measure_rates(struct mt_session *session, int n_local,
                                    struct mt_doctor_facts *facts)
{
    const struct mt_device *device = &session->device;
    double unused = 0.0;
    MT_TRY(meet(session));
    MT_TRY(mt_job_agree(measure_products(device, &facts->gflops, &facts->cpu_share)));
    if (device->dtype != MT_FLOAT32) {
        struct mt_device plain = *device;
        plain.dtype = MT_FLOAT32;
        MT_TRY(meet(session));
        MT_TRY(mt_job_agree(measure_products(&plain, &facts->gflops_float32, &unused)));
    }
    MT_TRY(meet(session));
    facts->peak_gflops = mt_measure_peak_gflops(device->dtype) * device->n_thread;
    MT_TRY(meet(session));
    if (COPY_BYTES * n_local < MOST_OF_MEMORY * (double)facts->memory_bytes) {
        facts->copy_gbytes_per_s = mt_measure_copy_gbytes_per_s();
    }
    return MT_OK;
}

enum mt_status mt_doctor_examine_again(struct mt_session *session, struct mt_doctor_facts *facts)
{
    double cpu_share = 0.0;
    MT_TRY(meet(session));
    MT_TRY(mt_job_agree(measure_products(&session->device, &facts->gflops_again, &cpu_share)));
    facts->cpu_share = fmin(facts->cpu_share, cpu_share);
    return MT_OK;
}

/* ---- clocks and messages ---- */

static int64_t wall_ns(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Read when the ranks have just met: good to a few milliseconds, and a second is looked for. The
 * least of some differences, as a rank may be late. all [R] */
static enum mt_status compare_clocks(struct mt_session *session, int64_t *all,
                                     struct mt_doctor_facts *facts)
{
    enum { N_READING = 5 };
    facts->wall_ns = INT64_MAX;
    for (int i = 0; i < N_READING; i++) {
        MT_TRY(meet(session));
        const int64_t mine = wall_ns();
        MT_TRY(mt_comm_gather_i64(&session->comm, &mine, 1, all));
        const int64_t off_ns = mine - all[0];
        facts->wall_ns = llabs(off_ns) < llabs(facts->wall_ns) ? off_ns : facts->wall_ns;
    }
    return MT_OK;
}

/* Whether this rank can read the memory of the lowest rank of its machine, or that one of its own.
 * all [2 R] */
static enum mt_status try_single_copy(struct mt_session *session, const struct mt_topology *machine,
                                      int64_t *all, struct mt_doctor_facts *facts)
{
    static const int64_t WORD = 0x6d6f6574; /* where others look for it */
    const int64_t mine[2] = {getpid(), (int64_t)(intptr_t)&WORD};
    MT_TRY(mt_comm_gather_i64(&session->comm, mine, 2, all));
    const int n_local = mt_topology_node_size(machine, machine->node[session->comm.rank]);
    const int *member = machine->member + machine->node_start[machine->node[session->comm.rank]];
    const int peer = member[0] == session->comm.rank && n_local > 1 ? member[1] : member[0];
    int64_t read = 0;
    struct iovec to = {&read, sizeof(read)};
    struct iovec from = {(void *)(intptr_t)all[2 * (int64_t)peer + 1], sizeof(read)};
    const ssize_t n = process_vm_readv((pid_t)all[2 * (int64_t)peer], &to, 1, &from, 1, 0);
    facts->can_single_copy = n == (ssize_t)sizeof(read) && read == WORD ? 1 : 0;
    MT_TRY(meet(session)); /* nobody leaves before it was read */
    return MT_OK;
}

/* ---- what the system says ---- */

/* Takes what fits of a text. */
static void put_word(struct mt_doctor_facts *facts, enum mt_doctor_word word, const char *text)
{
    (void)snprintf(facts->word[word], MT_DOCTOR_WORD_BYTES, "%.*s", MT_DOCTOR_WORD_BYTES - 1,
                   text != NULL ? text : "");
}

/* "always [madvise] never": what stands in brackets. */
static void read_huge_pages(struct mt_doctor_facts *facts)
{
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    char line[128] = "";
    if (file == NULL) {
        return;
    }
    const char *start = fgets(line, sizeof(line), file) != NULL ? strchr(line, '[') : NULL;
    (void)fclose(file);
    if (start != NULL && strchr(start, ']') != NULL) {
        *strchr(start, ']') = '\0';
        put_word(facts, MT_WORD_HUGE_PAGES, start + 1);
    }
}

static void read_words(const struct mt_doctor_options *options, struct mt_doctor_facts *facts)
{
    for (int word = 0; word < MT_N_DOCTOR_VERSION; word++) {
        put_word(facts, (enum mt_doctor_word)word, options->version[word]);
    }
    put_word(facts, MT_WORD_ISA, mt_isa_name(mt_isa_detect()));
    if (mt_isa_has_bf16()) {
        put_word(facts, MT_WORD_ISA, "avx512 with bf16");
    }
    for (int word = MT_WORD_OMP_NUM_THREADS; word < MT_WORD_HUGE_PAGES; word++) {
        put_word(facts, (enum mt_doctor_word)word,
                 getenv(mt_doctor_word_name((enum mt_doctor_word)word)));
    }
    read_huge_pages(facts);
}

/* Of the run directory, or of the nearest folder above it that is there. */
static void read_disk(const char *run_dir, struct mt_doctor_facts *facts)
{
    char path[MT_PATH_BYTES];
    struct statvfs about;
    (void)snprintf(path, sizeof(path), "%s", run_dir);
    while (access(path, F_OK) != 0 && errno == ENOENT && strcmp(path, "/") != 0 &&
           strcmp(path, ".") != 0) {
        char *slash = strrchr(path, '/');
        if (slash == NULL) {
            (void)snprintf(path, sizeof(path), ".");
        } else {
            slash[slash == path ? 1 : 0] = '\0';
        }
    }
    facts->is_writable = access(path, W_OK | X_OK) == 0 ? 1 : 0;
    facts->disk_bytes = -1;
    if (statvfs(path, &about) == 0) {
        facts->disk_bytes = (int64_t)about.f_bavail * (int64_t)about.f_frsize;
    }
}

static void read_machine(const struct mt_machine *machine, int local, struct mt_doctor_facts *facts)
{
    facts->n_package = machine->n_package;
    facts->n_numa = machine->n_numa;
    facts->n_machine_core = machine->n_core;
    facts->n_gpu = machine->n_gpu;
    facts->n_nic = machine->n_nic;
    facts->numa_mask = mt_machine_numa_mask();
    facts->gpu_numa = local < machine->n_gpu ? machine->gpu[local].numa : -1;
}

/* all [2 R] */
static enum mt_status examine(struct mt_session *session, const struct mt_topology *place,
                              int64_t *all, struct mt_doctor_facts *facts)
{
    const int rank = session->comm.rank;
    const int node = place->node[rank];
    facts->machine = mt_topology_leader(place, node);
    MT_TRY(compare_clocks(session, all, facts));
    MT_TRY(try_single_copy(session, place, all, facts));
    return measure_rates(session, mt_topology_node_size(place, node), facts);
}

enum mt_status mt_doctor_examine(struct mt_session *session,
                                 const struct mt_doctor_options *options,
                                 const struct mt_core_share *share, struct mt_machine *machine,
                                 struct mt_doctor_facts *facts)
{
    struct mt_topology place;
    int64_t *all = NULL;
    const struct mt_core_set cores = mt_cores_granted();
    memset(facts, 0, sizeof(*facts));
    (void)snprintf(facts->host, sizeof(facts->host), "%.*s", MT_DOCTOR_HOST_BYTES - 1,
                   mt_job_host());
    read_words(options, facts);
    read_disk(session->config->run.dir, facts);
    mt_machine_read(machine);
    facts->core_first = cores.first;
    facts->core_last = cores.last;
    facts->n_core = cores.n;
    facts->quota = mt_cores_quota();
    facts->n_thread = session->device.n_thread;
    facts->is_alone = share->is_alone ? 1 : 0;
    facts->memory_bytes = mt_memory_available_bytes();
    enum mt_status status =
        mt_job_agree(MT_ALLOCATE(all, 2 * (int64_t)session->comm.topology.n_rank, "doctor"));
    MT_TRY(status);
    status = mt_topology_discover(&place, mt_job_world(), 0);
    if (status == MT_OK) {
        read_machine(machine, place.local[session->comm.rank], facts);
        status = examine(session, &place, all, facts);
        mt_topology_clear(&place);
    }
    mt_memory_free(all);
    return status;
}
