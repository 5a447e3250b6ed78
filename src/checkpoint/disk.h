/* Files that are on the disk when a call returns: every write, fsync and close is looked at.
 *
 * What fails while writing is MT_ERR_RESOURCE and names the path; what fails while reading is
 * MT_ERR_INPUT. Used by the other files of this room. */
#ifndef MT_CHECKPOINT_DISK_H
#define MT_CHECKPOINT_DISK_H

#include "base/status.h"
#include "config/config.h"

#include <stdint.h>
#include <sys/uio.h>

/* path [MT_PATH_BYTES] = folder/name. MT_ERR_INPUT when that is too long. */
enum mt_status mt_disk_join(char *path, const char *folder, const char *name);

/* Makes the folder and what is missing above it; no error when it is there. */
enum mt_status mt_disk_make_folder(const char *path);
/* One folder that need not outlive a power cut: nothing is synced. No error when it is there. */
enum mt_status mt_disk_make_passing_folder(const char *path);
/* fsync of a folder: what was created, renamed or removed in it stays so. */
enum mt_status mt_disk_sync_folder(const char *path);
/* A file or a folder with everything in it; links are not followed; no error when it is missing. */
enum mt_status mt_disk_remove(const char *path);
/* Within one folder; on the disk when it returns. */
enum mt_status mt_disk_rename(const char *folder, const char *from, const char *to);

enum mt_status mt_disk_open_to_write(const char *path, bool create, int *descriptor);
/* What part [n_part] point to, one behind the other, at offset, whole; the parts are used up. */
enum mt_status mt_disk_write_parts(int descriptor, const char *path, int64_t offset,
                                   struct iovec *part, int n_part);
/* data [n_byte] at offset, whole. */
enum mt_status mt_disk_write(int descriptor, const char *path, int64_t offset, const void *data,
                             int64_t n_byte);
/* Written bytes set out for the disk now, so that the sync at the end has less to wait for; what
 * goes wrong it reports. */
void mt_disk_send(int descriptor, int64_t offset, int64_t n_byte);
/* fsync and close, also after an error: `status` is what happened before and is returned first. */
enum mt_status mt_disk_finish(int descriptor, const char *path, enum mt_status status);
/* A new file with data [n_byte], synced. */
enum mt_status mt_disk_write_file(const char *path, const void *data, int64_t n_byte);

/* The file `from`, complete and synced, with n_byte and this checksum, gets a second name `to`;
 * where the file system has no such thing, a synced copy. MT_ERR_RESOURCE also when `from` is not
 * there, or does not read back as it was written: damage does not spread. */
enum mt_status mt_disk_link(const char *from, const char *to, int64_t n_byte, uint64_t checksum);

enum mt_status mt_disk_open_to_read(const char *path, int *descriptor);
enum mt_status mt_disk_read(int descriptor, const char *path, int64_t offset, void *data,
                            int64_t n_byte);
/* The whole file, with a zero byte behind it; freed by mt_memory_free. MT_ERR_INPUT when it is
 * larger than max_bytes. */
enum mt_status mt_disk_read_file(const char *path, int64_t max_bytes, char **data, int64_t *n_byte);
/* Size of folder/name; -1: it is missing, or not a file. */
int64_t mt_disk_size(const char *folder, const char *name);
/* Size and XXH3-64 of a file. */
enum mt_status mt_disk_checksum(const char *path, int64_t *n_byte, uint64_t *checksum);
/* Size and checksum of a file that was just written and synced, read from the disk where the system
 * lets go of what it holds in memory. MT_ERR_RESOURCE when they are others. */
enum mt_status mt_disk_read_back(const char *path, int64_t n_byte, uint64_t checksum);

/* Names in a folder, sorted, without "." and "..". */
struct mt_disk_names {
    int64_t n, capacity;
    char (*name)[256]; /* [n]; Linux allows 255 bytes */
};
enum mt_status mt_disk_list(const char *folder, struct mt_disk_names *names);
void mt_disk_names_clear(struct mt_disk_names *names);

#endif
