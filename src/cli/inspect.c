/* moetrain inspect CHECKPOINT, moetrain verify CHECKPOINT */
#include "cli/cli.h"

#include "checkpoint/checkpoint.h"

#include <unistd.h>

enum { OWNERS_BYTES = 1024 };

enum mt_status mt_check_is_no_run(const char *path)
{
    char folder[MT_PATH_BYTES];
    char manifest[MT_PATH_BYTES];
    const size_t room = MT_PATH_BYTES;
    if ((size_t)snprintf(folder, room, "%s/checkpoints", path) < room &&
        (size_t)snprintf(manifest, room, "%s/manifest.json", path) < room &&
        access(folder, F_OK) == 0 && access(manifest, F_OK) != 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s is a run directory; one of its checkpoints was expected; name a folder "
                       "in %s",
                       path, folder);
    }
    return MT_OK;
}

static enum mt_status print_tensor(const char *path, const struct mt_checkpoint_tensor *tensor)
{
    char owners[OWNERS_BYTES];
    char shape[80];
    int used = 0;
    for (int d = 0; d < tensor->n_dim; d++) {
        used += snprintf(shape + used, sizeof(shape) - (size_t)used, "%s%lld", d > 0 ? ", " : "",
                         (long long)tensor->dim[d]);
    }
    MT_TRY(mt_checkpoint_owners(path, tensor->name, owners, sizeof(owners)));
    (void)printf("%-58s [%s] %s  %s\n", tensor->name, shape,
                 tensor->is_bfloat16 ? "bfloat16" : "float32", owners);
    return MT_OK;
}

static enum mt_status fail_file(const char *path, const struct mt_checkpoint_file *file)
{
    char found[48] = "is missing";
    if (file->n_found_byte >= 0) {
        (void)snprintf(found, sizeof(found), "has %lld bytes", (long long)file->n_found_byte);
    }
    return MT_FAIL(MT_ERR_INPUT,
                   "%s/%s %s; %lld bytes were expected from the manifest; use a whole copy, or "
                   "another checkpoint",
                   path, file->name, found, (long long)file->n_byte);
}

/* The first file that is missing or of another size. */
static enum mt_status check_files(const char *path, const struct mt_checkpoint_info *info)
{
    for (int64_t i = 0; i < info->n_file; i++) {
        if (info->file[i].n_found_byte != info->file[i].n_byte) {
            return fail_file(path, &info->file[i]);
        }
    }
    return MT_OK;
}

static void print_files(const struct mt_checkpoint_info *info)
{
    (void)printf("%-58s bytes\n", "file");
    for (int64_t i = 0; i < info->n_file; i++) {
        (void)printf("%-58s %lld\n", info->file[i].name, (long long)info->file[i].n_byte);
    }
}

static void print_head(const char *path, const struct mt_checkpoint_info *info)
{
    (void)printf("checkpoint   %s\nformat       moetrain-checkpoint %lld\nstep         %lld\n"
                 "tokens seen  %lld\nwritten by   %d rank%s\nfiles        %lld, %lld bytes\n"
                 "config hash  %016llx\n\n",
                 path, (long long)info->format_version, (long long)info->step,
                 (long long)info->tokens_seen, info->world_size, info->world_size == 1 ? "" : "s",
                 (long long)info->n_file, (long long)info->n_byte,
                 (unsigned long long)info->config_hash);
}

static void print_parts(const struct mt_checkpoint_info *info)
{
    (void)printf("\nexperts      in %d parts, saved in turn; a start from here loses %lld updates "
                 "of single experts, the starts before it lost %lld\n",
                 MT_EXPERT_PARTS, (long long)mt_checkpoint_lost(info),
                 (long long)info->n_lost_update);
    for (int p = 0; p < MT_EXPERT_PARTS; p++) {
        (void)printf("  part %d     %lld experts as of step %lld, %lld updates ago\n", p,
                     (long long)info->parts.n_expert[p], (long long)info->parts.step[p],
                     (long long)mt_checkpoint_lost_by_part(info, p));
    }
}

/* Of one tensor: its experts part by part. */
static void print_experts(const struct mt_checkpoint_info *info,
                          const struct mt_checkpoint_tensor *tensor)
{
    (void)printf("%-58s", tensor->name);
    for (int p = 0; p < MT_EXPERT_PARTS; p++) {
        (void)printf("  %lld:", (long long)mt_checkpoint_lost_by_part(info, p));
        const int first = (p - tensor->first_part + MT_EXPERT_PARTS) % MT_EXPERT_PARTS;
        for (int64_t e = first; e < tensor->dim[0]; e += MT_EXPERT_PARTS) {
            (void)printf("%s%lld", e > first ? "," : "", (long long)e);
        }
    }
    (void)printf("\n");
}

/* Updates that each expert has lost. */
static void print_lost(const struct mt_checkpoint_info *info)
{
    (void)printf("\n%-58s lost updates:experts\n", "tensor");
    for (int t = 0; t < info->n_tensor; t++) {
        if (info->tensor[t].first_part >= 0) {
            print_experts(info, &info->tensor[t]);
        }
    }
}

enum mt_status mt_command_inspect(const struct mt_arguments *arguments)
{
    const char *path = arguments->positional[0];
    struct mt_checkpoint_info info;
    MT_TRY(mt_check_is_no_run(path));
    MT_TRY(mt_checkpoint_read_info(path, &info));
    enum mt_status status = check_files(path, &info);
    if (status == MT_OK) {
        print_head(path, &info);
        print_files(&info);
        if (info.parts.is_told) {
            print_parts(&info);
        }
        (void)printf("\n%-58s shape, dtype, rank:rows\n", "tensor");
    }
    for (int t = 0; t < info.n_tensor && status == MT_OK; t++) {
        status = print_tensor(path, &info.tensor[t]);
    }
    if (status == MT_OK && mt_checkpoint_lost(&info) > 0) {
        print_lost(&info);
    }
    mt_checkpoint_info_clear(&info);
    return status;
}

enum mt_status mt_command_verify(const struct mt_arguments *arguments)
{
    MT_TRY(mt_check_is_no_run(arguments->positional[0]));
    MT_TRY(mt_checkpoint_verify(arguments->positional[0]));
    (void)printf("%s: every file, tensor and checksum is right\n", arguments->positional[0]);
    return MT_OK;
}
