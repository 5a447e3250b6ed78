#include "fault/crash_states.h"

#include "base/random.h"
#include "base/size.h"
#include "support/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { MAX_NODES = 512, MAX_STATES = 4096, NAME_BYTES = 256, ROOT = 0, NOWHERE = -1 };

/* A file or folder, whatever its name. */
struct node {
    bool is_folder;
    char *data; /* on the disk before the save */
    int64_t n_byte;
};

/* A name in a folder. */
struct entry {
    int folder, node;
    char name[NAME_BYTES];
};

struct tree {
    int n;
    struct entry entry[MAX_NODES];
};

/* A recorded call, and what it does to nodes: writes bytes of `node`; or gives it a name, takes
 * one away, or both. It lasts once `node` (bytes) or `folder` (names) is synced. */
struct call {
    struct mt_fault_record head;
    char *path, *path_to, *data;
    int node, folder;
    bool changes_names;
    char name[NAME_BYTES], name_to[NAME_BYTES]; /* "": none */
};

struct mt_crash {
    char folder[MT_FAULT_PATH_BYTES];
    int n_node, n_call;
    struct node node[MAX_NODES];
    struct tree before;
    struct call *call;
    int n_state;
    uint64_t state[MAX_STATES]; /* made so far */
};

static void *allocate(int64_t n, size_t size)
{
    void *memory = calloc((size_t)n + 1, size);
    assert_non_null(memory);
    return memory;
}

/* ---- trees ---- */

static int find(const struct tree *tree, int folder, const char *name)
{
    for (int i = 0; i < tree->n; ++i) {
        if (tree->entry[i].folder == folder && strcmp(tree->entry[i].name, name) == 0) {
            return i;
        }
    }
    return NOWHERE;
}

static void take_away(struct tree *tree, int folder, const char *name)
{
    const int i = find(tree, folder, name);
    if (i != NOWHERE) {
        tree->entry[i] = tree->entry[--tree->n];
    }
}

static void put(struct tree *tree, int folder, const char *name, int node)
{
    take_away(tree, folder, name);
    assert_true(tree->n < MAX_NODES);
    struct entry *entry = &tree->entry[tree->n++];
    entry->folder = folder;
    entry->node = node;
    (void)snprintf(entry->name, sizeof(entry->name), "%s", name);
}

static int new_node(struct mt_crash *crash, bool is_folder)
{
    assert_true(crash->n_node < MAX_NODES);
    crash->node[crash->n_node] = (struct node){.is_folder = is_folder};
    return crash->n_node++;
}

/* ---- before the save ---- */

static void read_file(struct node *node, const char *path)
{
    struct stat about;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(stat(path, &about), 0);
    node->n_byte = about.st_size;
    node->data = allocate(node->n_byte, 1);
    assert_int_equal(fread(node->data, 1, (size_t)node->n_byte, file), node->n_byte);
    (void)fclose(file);
}

static void read_folder(struct mt_crash *crash, int folder, const char *path)
{
    DIR *stream = opendir(path);
    assert_non_null(stream);
    for (const struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        char below[MT_FAULT_PATH_BYTES];
        struct stat about;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        (void)snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
        assert_int_equal(stat(below, &about), 0);
        const int node = new_node(crash, S_ISDIR(about.st_mode));
        put(&crash->before, folder, entry->d_name, node);
        if (crash->node[node].is_folder) {
            assert_int_equal(folder, ROOT);
            read_folder(crash, node, below);
        } else {
            read_file(&crash->node[node], below);
        }
    }
    (void)closedir(stream);
}

struct mt_crash *mt_crash_begin(const char *folder)
{
    struct mt_crash *crash = allocate(1, sizeof(*crash));
    (void)snprintf(crash->folder, sizeof(crash->folder), "%s", folder);
    (void)new_node(crash, true); /* ROOT */
    read_folder(crash, ROOT, folder);
    return crash;
}

void mt_crash_end(struct mt_crash *crash)
{
    for (int i = 0; i < crash->n_node; ++i) {
        free(crash->node[i].data);
    }
    for (int i = 0; i < crash->n_call; ++i) {
        free(crash->call[i].path);
        free(crash->call[i].path_to);
        free(crash->call[i].data);
    }
    free(crash->call);
    free(crash);
}

/* ---- the records ---- */

static char *read_text(FILE *file, int64_t n)
{
    char *text = allocate(n, 1);
    assert_int_equal(fread(text, 1, (size_t)n, file), n);
    return text;
}

/* Without the folder in front. */
static void shorten(const struct mt_crash *crash, char *path)
{
    const size_t length = strlen(crash->folder);
    if (path[0] != '\0') {
        assert_int_equal(strncmp(path, crash->folder, length), 0);
        const char *rest = path + length + (path[length] == '/' ? 1 : 0);
        memmove(path, rest, strlen(rest) + 1);
    }
}

static void read_records(struct mt_crash *crash, const char *path)
{
    struct mt_fault_record head;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    while (fread(&head, sizeof(head), 1, file) == 1) {
        crash->call = realloc(crash->call, (size_t)(crash->n_call + 1) * sizeof(*crash->call));
        assert_non_null(crash->call);
        struct call *call = &crash->call[crash->n_call++];
        memset(call, 0, sizeof(*call));
        call->head = head;
        call->path = read_text(file, head.path_bytes);
        call->path_to = read_text(file, head.path_to_bytes);
        call->data = read_text(file, head.n_byte);
        shorten(crash, call->path);
        shorten(crash, call->path_to);
    }
    (void)fclose(file);
}

static int compare_calls(const void *a, const void *b)
{
    const int64_t x = ((const struct call *)a)->head.sequence;
    const int64_t y = ((const struct call *)b)->head.sequence;
    return x < y ? -1 : x > y;
}

/* Folder and name that a path means. */
static int split(const struct tree *now, const char *path, char *name)
{
    const char *slash = strchr(path, '/');
    int folder = ROOT;
    if (slash != NULL) {
        char above[NAME_BYTES];
        (void)snprintf(above, sizeof(above), "%.*s", (int)(slash - path), path);
        const int i = find(now, ROOT, above);
        assert_int_not_equal(i, NOWHERE);
        folder = now->entry[i].node;
    }
    (void)snprintf(name, NAME_BYTES, "%s", slash != NULL ? slash + 1 : path);
    return folder;
}

static int node_at(const struct tree *now, const char *path)
{
    char name[NAME_BYTES];
    if (path[0] == '\0') {
        return ROOT;
    }
    const int folder = split(now, path, name);
    const int i = find(now, folder, name);
    return i != NOWHERE ? now->entry[i].node : NOWHERE;
}

static void apply_names(const struct call *call, struct tree *tree)
{
    if (call->name[0] != '\0') {
        take_away(tree, call->folder, call->name);
    }
    if (call->name_to[0] != '\0') {
        put(tree, call->folder, call->name_to, call->node);
    }
}

/* Nodes and names of one call, as everybody saw them when it was made: `now`. */
static void resolve(struct mt_crash *crash, struct call *call, struct tree *now)
{
    const enum mt_fault_call kind = (enum mt_fault_call)call->head.call;
    call->node = node_at(now, call->path);
    if (kind == MT_CALL_MKDIR || (kind == MT_CALL_OPEN && call->head.creates)) {
        if (call->node != NOWHERE) {
            return; /* it was there */
        }
        call->changes_names = true;
        call->folder = split(now, call->path, call->name_to);
        call->node = new_node(crash, kind == MT_CALL_MKDIR);
    } else if (kind == MT_CALL_RENAME) {
        char other[NAME_BYTES];
        call->changes_names = true;
        call->folder = split(now, call->path, call->name);
        assert_int_equal(split(now, call->path_to, other), call->folder);
        (void)snprintf(call->name_to, sizeof(call->name_to), "%s", other);
    } else if (kind == MT_CALL_LINK) {
        call->changes_names = true;
        call->folder = split(now, call->path_to, call->name_to);
    } else if (kind == MT_CALL_REMOVE) {
        call->changes_names = true;
        call->folder = split(now, call->path, call->name);
    }
    if (call->changes_names) {
        apply_names(call, now);
    }
}

void mt_crash_read(struct mt_crash *crash, const char *control, int n_rank)
{
    static struct tree now;
    for (int r = 0; r < n_rank; ++r) {
        char path[MT_FAULT_PATH_BYTES + 16];
        (void)snprintf(path, sizeof(path), "%s.%d", control, r);
        read_records(crash, path);
    }
    qsort(crash->call, (size_t)crash->n_call, sizeof(*crash->call), compare_calls);
    now = crash->before;
    for (int i = 0; i < crash->n_call; ++i) {
        resolve(crash, &crash->call[i], &now);
    }
}

int mt_crash_n_call(const struct mt_crash *crash)
{
    return crash->n_call;
}

struct mt_crash_call mt_crash_call(const struct mt_crash *crash, int index)
{
    const struct call *call = &crash->call[index];
    return (struct mt_crash_call){.kind = (enum mt_fault_call)call->head.call,
                                  .rank = (int)call->head.rank,
                                  .creates = call->head.creates != 0,
                                  .is_folder = call->head.is_folder != 0,
                                  .path = call->path,
                                  .path_to = call->path_to};
}

/* ---- after the crash ---- */

static bool is_synced(const struct mt_crash *crash, int index, int n)
{
    const struct call *call = &crash->call[index];
    const int waits_for = call->changes_names ? call->folder : call->node;
    for (int i = index + 1; i < n; ++i) {
        if (crash->call[i].head.call == MT_CALL_SYNC && crash->call[i].node == waits_for) {
            return true;
        }
    }
    return false;
}

static bool lasts(const struct mt_crash *crash, int index, int n, enum mt_crash_luck luck,
                  uint64_t seed)
{
    return luck == MT_LUCK_ALL || is_synced(crash, index, n) ||
           (luck == MT_LUCK_ANY && mt_random_u64(seed, (uint64_t)n, (uint64_t)index) % 2 == 0);
}

static void grow(struct node *node, int64_t n_byte)
{
    if (n_byte > node->n_byte) {
        node->data = realloc(node->data, (size_t)n_byte + 1);
        assert_non_null(node->data);
        memset(node->data + node->n_byte, 0, (size_t)(n_byte - node->n_byte));
        node->n_byte = n_byte;
    }
}

static void apply_bytes(const struct call *call, struct node *node, bool is_torn)
{
    const int64_t n_byte = is_torn ? call->head.n_byte / 2 : call->head.n_byte;
    switch (call->head.call) {
    case MT_CALL_WRITE:
        grow(node, call->head.offset + n_byte);
        memcpy(node->data + call->head.offset, call->data, (size_t)n_byte);
        break;
    case MT_CALL_TRUNCATE:
        grow(node, call->head.offset);
        node->n_byte = call->head.offset;
        break;
    case MT_CALL_ALLOCATE:
        grow(node, call->head.offset);
        break;
    default:
        break;
    }
}

static void copy_nodes(const struct mt_crash *crash, struct node *node)
{
    for (int i = 0; i < crash->n_node; ++i) {
        node[i] = crash->node[i];
        node[i].data = allocate(node[i].n_byte, 1);
        if (node[i].n_byte > 0) {
            memcpy(node[i].data, crash->node[i].data, (size_t)node[i].n_byte);
        }
    }
}

/* Names with a dot are of saves and removals under way: no reader looks at them. */
static bool is_seen_by_readers(const struct entry *entry)
{
    return entry->folder != ROOT || entry->name[0] != '.';
}

/* Of what readers see: the same for trees that are the same to them. */
static uint64_t digest(const struct tree *tree, const struct node *node, int folder, uint64_t seed)
{
    uint64_t sum = seed;
    for (int i = 0; i < tree->n; ++i) {
        const struct entry *entry = &tree->entry[i];
        if (entry->folder != folder || !is_seen_by_readers(entry)) {
            continue;
        }
        const struct node *its = &node[entry->node];
        const uint64_t name = XXH3_64bits_withSeed(entry->name, strlen(entry->name), seed);
        sum += its->is_folder ? digest(tree, node, entry->node, name)
                              : XXH3_64bits_withSeed(its->data, (size_t)its->n_byte, name);
    }
    return sum;
}

static bool is_new(struct mt_crash *crash, uint64_t state)
{
    for (int i = 0; i < crash->n_state; ++i) {
        if (crash->state[i] == state) {
            return false;
        }
    }
    assert_true(crash->n_state < MAX_STATES);
    crash->state[crash->n_state++] = state;
    return true;
}

static void write_tree(const struct tree *tree, const struct node *node, int folder,
                       const char *path)
{
    assert_int_equal(mkdir(path, 0777), 0);
    for (int i = 0; i < tree->n; ++i) {
        const struct entry *entry = &tree->entry[i];
        char below[MT_FAULT_PATH_BYTES];
        if (entry->folder != folder || !is_seen_by_readers(entry)) {
            continue;
        }
        (void)snprintf(below, sizeof(below), "%s/%s", path, entry->name);
        if (node[entry->node].is_folder) {
            write_tree(tree, node, entry->node, below);
            continue;
        }
        FILE *file = fopen(below, "wb");
        assert_non_null(file);
        const size_t n = (size_t)node[entry->node].n_byte;
        assert_int_equal(fwrite(node[entry->node].data, 1, n, file), n);
        assert_int_equal(fclose(file), 0);
    }
}

bool mt_crash_make(struct mt_crash *crash, const char *to, int n, enum mt_crash_luck luck,
                   uint64_t seed, bool is_torn)
{
    static struct node node[MAX_NODES];
    static struct tree tree;
    copy_nodes(crash, node);
    tree = crash->before;
    for (int i = 0; i < n; ++i) {
        const struct call *call = &crash->call[i];
        if (call->node == NOWHERE || !lasts(crash, i, n, luck, seed)) {
            continue;
        }
        if (call->changes_names) {
            apply_names(call, &tree);
        } else {
            apply_bytes(call, &node[call->node], is_torn && i == n - 1);
        }
    }
    const bool is_made = is_new(crash, digest(&tree, node, ROOT, 0)) || n == crash->n_call;
    if (is_made) {
        write_tree(&tree, node, ROOT, to);
    }
    for (int i = 0; i < crash->n_node; ++i) {
        free(node[i].data);
    }
    return is_made;
}
