/* moetrain plan CONFIG --print-topology: which rank is where, and what machines consist of. */
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "cli/plan.h"
#include "device/machine.h"

#include <string.h>

enum { MAX_RANKS = 65536, MAX_LINES = 64 };
static const double GIB = 1024.0 * 1024.0 * 1024.0;

/* What a rank tells of itself. Plain data of 8-byte units, exchanged as an array. */
struct place {
    char host[64];
    int64_t start, n, is_alone; /* its cores, as struct mt_core_share */
    struct mt_machine machine;
};
enum { N_PLACE = (int)(sizeof(struct place) / sizeof(int64_t)) };
_Static_assert(sizeof(struct place) % sizeof(int64_t) == 0, "exchanged in units of 8 bytes");

struct picture {
    struct mt_topology topology;
    bool is_found;       /* by the ranks of this job; else given by options and configuration */
    bool has_nodes;      /* --nodes is given */
    struct place *place; /* [R of the job] */
};

/* ---- making it ---- */

/* As `moetrain plan` distributes them: over --nodes evenly, else comm.ranks_per_node a node. */
static enum mt_status init_given(struct mt_topology *topology, const struct mt_config *config,
                                 int n_rank, int n_node)
{
    int *node = NULL;
    if (n_node == 0) {
        return mt_topology_init(topology, n_rank, (int)config->comm.ranks_per_node);
    }
    MT_TRY(MT_ALLOCATE(node, n_rank, "nodes of a plan"));
    for (int m = 0; m < n_node; m++) {
        for (int64_t r = mt_share_start(n_rank, n_node, m);
             r < mt_share_start(n_rank, n_node, m + 1); r++) {
            node[r] = m;
        }
    }
    const enum mt_status status = mt_topology_init_nodes(topology, n_rank, node);
    mt_memory_free(node);
    return status;
}

static enum mt_status read_counts(const struct mt_arguments *arguments, int64_t *n_rank,
                                  int64_t *n_node)
{
    MT_TRY(mt_argument_integer(arguments, "--ranks", mt_job_size(), 1, n_rank));
    MT_TRY(mt_argument_integer(arguments, "--nodes", 0, 1, n_node));
    if (*n_rank > MAX_RANKS || *n_node > *n_rank) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%lld ranks on %lld nodes; expected at most %d ranks, and at least one of "
                       "them on each node",
                       (long long)*n_rank, (long long)*n_node, (int)MAX_RANKS);
    }
    return MT_OK;
}

/* Collective: places of all ranks of the job. */
static enum mt_status gather_places(struct mt_comm *comm, struct picture *picture)
{
    struct place *mine = NULL;
    struct mt_session_place place;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(mt_session_place(comm, &place));
    status = MT_ALLOCATE(mine, 1, "places of ranks");
    if (status == MT_OK) {
        status = MT_ALLOCATE(picture->place, comm->topology.n_rank, "places of ranks");
    }
    if (status == MT_OK) {
        status = mt_comm_reserve_small(comm, N_PLACE);
    }
    MT_TRY_GOTO(mt_job_agree(status));
    (void)snprintf(mine->host, sizeof(mine->host), "%.*s", (int)sizeof(mine->host) - 1,
                   mt_job_host());
    mine->start = place.share.start;
    mine->n = place.share.n;
    mine->is_alone = place.share.is_alone ? 1 : 0;
    mt_machine_read(&mine->machine);
    MT_TRY_GOTO(mt_comm_gather_i64(comm, (const int64_t *)(const void *)mine, N_PLACE,
                                   (int64_t *)(void *)picture->place));
cleanup:
    mt_memory_free(mine);
    return status;
}

/* ---- showing it ---- */

/* "0-3", "0, 2, 5", a long list cut. text [bytes] */
static void list_ranks(const struct mt_topology *topology, int node, char *text, size_t bytes)
{
    const int n = mt_topology_node_size(topology, node);
    const int *member = topology->member + topology->node_start[node];
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < n && used < bytes; i++) {
        const int first = i;
        while (i + 1 < n && member[i + 1] == member[i] + 1) {
            i++;
        }
        used += (size_t)snprintf(text + used, bytes - used, "%s%d", first > 0 ? ", " : "",
                                 member[first]);
        if (i > first && used < bytes) {
            used += (size_t)snprintf(text + used, bytes - used, "-%d", member[i]);
        }
    }
}

/* What the ranks of a node would have on this machine. */
static void print_share(const struct picture *picture, int n_local)
{
    const int n_core = picture->place[0].machine.n_core;
    (void)printf("; %d%s", n_core > n_local ? n_core / n_local : 1,
                 n_core < n_local ? ", shared" : "");
}

static void print_nodes(const struct picture *picture)
{
    const struct mt_topology *topology = &picture->topology;
    (void)printf("%5s %6s  %s\n", "node", "ranks",
                 picture->is_found ? "which; host of the first, cores of each"
                                   : "which; cores of each, on machines like this one");
    for (int node = 0; node < topology->n_node && node < MAX_LINES; node++) {
        char ranks[64];
        list_ranks(topology, node, ranks, sizeof(ranks));
        (void)printf("%5d %6d  %s", node, mt_topology_node_size(topology, node), ranks);
        if (picture->is_found) {
            const struct place *place = &picture->place[mt_topology_leader(topology, node)];
            (void)printf("; %.40s, %lld%s", place->host, (long long)place->n,
                         place->is_alone != 0 ? "" : ", shared");
        } else {
            print_share(picture, mt_topology_node_size(topology, node));
        }
        (void)printf("\n");
    }
    if (topology->n_node > MAX_LINES) {
        (void)printf("and %d more nodes\n", topology->n_node - MAX_LINES);
    }
}

static void print_devices(const struct mt_machine *machine)
{
    if (machine->n_gpu == 0) {
        (void)printf("  no GPU\n");
    }
    for (int i = 0; i < machine->n_gpu; i++) {
        const struct mt_machine_device *gpu = &machine->gpu[i];
        (void)printf("  GPU %d: %s, memory node %d, nearest network card %s\n", i, gpu->name,
                     gpu->numa, gpu->nearest >= 0 ? machine->nic[gpu->nearest].name : "none");
    }
    if (machine->n_nic == 0) {
        (void)printf("  no network card on PCI\n");
    }
    for (int i = 0; i < machine->n_nic; i++) {
        (void)printf("  network card %d: %s, memory node %d\n", i, machine->nic[i].name,
                     machine->nic[i].numa);
    }
}

static void print_machine(const struct place *place)
{
    const struct mt_machine *machine = &place->machine;
    (void)printf(
        "\n%s: %d package%s, %d memory node%s, %d core%s, %d hardware thread%s, %.1f GiB\n",
        place->host, machine->n_package, machine->n_package == 1 ? "" : "s", machine->n_numa,
        machine->n_numa == 1 ? "" : "s", machine->n_core, machine->n_core == 1 ? "" : "s",
        machine->n_unit, machine->n_unit == 1 ? "" : "s", (double)machine->memory_bytes / GIB);
    for (int level = 0; level < 3; level++) {
        if (machine->n_cache[level] > 0) {
            (void)printf("  L%d: %d of %lld KiB\n", level + 1, machine->n_cache[level],
                         (long long)(machine->cache_bytes[level] >> 10));
        }
    }
    print_devices(machine);
}

static bool is_same_device(const struct mt_machine_device *a, const struct mt_machine_device *b)
{
    return strcmp(a->name, b->name) == 0 && a->numa == b->numa && a->nearest == b->nearest;
}

/* In what print_machine shows. */
static bool is_alike(const struct mt_machine *a, const struct mt_machine *b)
{
    bool same = a->n_package == b->n_package && a->n_numa == b->n_numa && a->n_core == b->n_core &&
                a->n_unit == b->n_unit && a->memory_bytes == b->memory_bytes &&
                a->n_gpu == b->n_gpu && a->n_nic == b->n_nic;
    for (int level = 0; level < 3; level++) {
        same = same && a->n_cache[level] == b->n_cache[level] &&
               a->cache_bytes[level] == b->cache_bytes[level];
    }
    for (int i = 0; i < a->n_gpu && same; i++) {
        same = is_same_device(&a->gpu[i], &b->gpu[i]);
    }
    for (int i = 0; i < a->n_nic && same; i++) {
        same = is_same_device(&a->nic[i], &b->nic[i]);
    }
    return same;
}

/* Machines of the first ranks of nodes; one that looks like the one before it is left out. */
static void print_picture(const struct picture *picture, const struct mt_config *config)
{
    const struct mt_topology *topology = &picture->topology;
    const struct place *before = &picture->place[0];
    const char *from = picture->is_found ? "ranks that share memory" : "--ranks and --nodes";
    if (config->comm.ranks_per_node > 0 && !picture->has_nodes) {
        from = "comm.ranks_per_node";
    }
    (void)printf("%d rank%s on %d node%s, by %s\n\n", topology->n_rank,
                 topology->n_rank == 1 ? "" : "s", topology->n_node,
                 topology->n_node == 1 ? "" : "s", from);
    print_nodes(picture);
    print_machine(before);
    for (int node = 1; picture->is_found && node < topology->n_node && node < MAX_LINES; node++) {
        const struct place *place = &picture->place[mt_topology_leader(topology, node)];
        if (!is_alike(&place->machine, &before->machine)) {
            print_machine(place);
        }
        before = place;
    }
}

static enum mt_status show(const struct mt_arguments *arguments, const struct mt_config *config,
                           int n_rank, int n_node)
{
    struct mt_comm comm;
    struct picture picture = {.has_nodes = mt_argument(arguments, "--nodes") != NULL};
    picture.is_found =
        mt_job_size() > 1 && !picture.has_nodes && mt_argument(arguments, "--ranks") == NULL;
    const int ranks_per_node = picture.is_found ? (int)config->comm.ranks_per_node : 0;
    MT_TRY(mt_job_agree(mt_comm_init_mpi(&comm, mt_job_world(), ranks_per_node)));
    enum mt_status status = mt_job_agree(gather_places(&comm, &picture));
    if (status == MT_OK && picture.is_found) {
        status =
            mt_job_agree(mt_topology_init_nodes(&picture.topology, n_rank, comm.topology.node));
    } else if (status == MT_OK) {
        status = mt_job_agree(init_given(&picture.topology, config, n_rank, n_node));
    }
    if (status == MT_OK && mt_job_rank() == 0) {
        print_picture(&picture, config);
    }
    mt_topology_clear(&picture.topology);
    mt_memory_free(picture.place);
    mt_comm_clear(&comm);
    return status;
}

enum mt_status mt_plan_print_topology(const struct mt_arguments *arguments)
{
    struct mt_config *config = NULL;
    int64_t n_rank = 1;
    int64_t n_node = 0;
    MT_TRY(mt_job_agree(read_counts(arguments, &n_rank, &n_node)));
    MT_TRY(mt_load_config(arguments, &config));
    if (config == NULL) {
        return MT_OK;
    }
    const enum mt_status status = show(arguments, config, (int)n_rank, (int)n_node);
    mt_memory_free(config);
    return status;
}
