#include "checkpoint/damage.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/checksum.h"
#include "checkpoint/disk.h"

#include <stdio.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20, TEXT_BYTES = 256 };

/* Bytes that cannot be read are not what was saved either. */
static bool is_whole(int descriptor, const char *path, const struct mt_manifest_tensor *tensor,
                     const struct mt_manifest_piece *piece, char *buffer)
{
    const int64_t n_byte = piece->n_row * mt_manifest_row_bytes(tensor);
    int64_t end = 0;
    XXH3_state_t sum;
    mt_checksum_begin(&sum);
    if (!mt_size_add(piece->offset, n_byte, &end)) {
        return false;
    }
    for (int64_t done = 0; done < n_byte; done += BUFFER_BYTES) {
        const int64_t n = mt_min_i64(BUFFER_BYTES, n_byte - done);
        if (mt_disk_read(descriptor, path, piece->offset + done, buffer, n) != MT_OK) {
            mt_error_clear();
            return false;
        }
        mt_checksum_add(&sum, buffer, (size_t)n);
    }
    return mt_checksum_end(&sum) == piece->checksum;
}

/* In the order of the manifest; false: none is known to be damaged. */
static bool find_damage(int descriptor, const char *path, const struct mt_manifest *manifest,
                        int shard, char *buffer, char *text, size_t n_byte)
{
    for (int64_t t = 0; t < manifest->n_tensor; ++t) {
        const struct mt_manifest_tensor *tensor = &manifest->tensor[t];
        const struct mt_manifest_piece *piece = manifest->piece + tensor->first_piece;
        for (int64_t i = 0; i < tensor->n_piece; ++i) {
            if (piece[i].shard == shard && piece[i].offset >= 0 &&
                !is_whole(descriptor, path, tensor, &piece[i], buffer)) {
                (void)snprintf(text, n_byte, "; the first damage is in rows %lld to %lld of %s",
                               (long long)piece[i].first_row,
                               (long long)(piece[i].first_row + piece[i].n_row - 1), tensor->name);
                return true;
            }
        }
    }
    return false;
}

/* text [n_byte] about file[index] at `path`: "; the first damage is in rows 3 to 5 of /model/norm",
 * or that no tensor has suffered; "" when the manifest cannot tell. A file that is not what it was
 * is never given to HDF5. */
static enum mt_status describe(const char *path, const struct mt_manifest *manifest, int64_t index,
                               char *text, size_t n_byte)
{
    int descriptor = -1;
    char *buffer = NULL;
    text[0] = '\0';
    if (index == 0 || manifest->n_piece == 0 || manifest->piece[0].offset < 0) {
        return MT_OK;
    }
    MT_TRY(mt_disk_open_to_read(path, &descriptor));
    const enum mt_status status = MT_ALLOCATE(buffer, BUFFER_BYTES, "search for damage");
    if (status == MT_OK &&
        !find_damage(descriptor, path, manifest, (int)index - 1, buffer, text, n_byte)) {
        (void)snprintf(text, n_byte, "; no tensor has suffered, only what HDF5 keeps around them");
    }
    mt_memory_free(buffer);
    (void)close(descriptor);
    return status;
}

enum mt_status mt_damage_check_file(const char *folder, const struct mt_manifest *manifest,
                                    int64_t index)
{
    const struct mt_manifest_file *file = &manifest->file[index];
    char path[MT_PATH_BYTES];
    char where[TEXT_BYTES];
    int64_t n_byte = 0;
    uint64_t checksum = 0;
    MT_TRY(mt_disk_join(path, folder, file->name));
    MT_TRY(mt_disk_checksum(path, &n_byte, &checksum));
    if (n_byte == file->n_byte && checksum == file->checksum) {
        return MT_OK;
    }
    MT_TRY(describe(path, manifest, index, where, sizeof(where)));
    if (n_byte != file->n_byte) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has %lld bytes; %lld were expected from the manifest%s; use another "
                       "checkpoint",
                       path, (long long)n_byte, (long long)file->n_byte, where);
    }
    return MT_FAIL(
        MT_ERR_INPUT,
        "%s is damaged: its XXH3 is %016llx; %016llx was expected from the manifest%s; use another "
        "checkpoint",
        path, (unsigned long long)checksum, (unsigned long long)file->checksum, where);
}
