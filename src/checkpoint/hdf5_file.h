/* HDF5, as far as checkpoints use it: contiguous datasets of one file, without filters, plugins,
 * links out of the file or types of variable length (attributes for h5py aside, never read here).
 *
 * The library is not thread-safe: one thread of a process calls these, which is asserted. */
#ifndef MT_CHECKPOINT_HDF5_FILE_H
#define MT_CHECKPOINT_HDF5_FILE_H

#include "base/job_guard.h"

#include <hdf5.h>
#include <stdint.h>

enum { MT_HDF5_MAX_DIM = 3 };

/* A failed call becomes `code`, naming the call and the library's own innermost reason; path is the
 * file it was about. `result` is what the call returned, negative on failure. */
enum mt_status mt_hdf5_status(int64_t result, enum mt_status code, const char *path,
                              const char *call, const char *file, int line);
#define MT_TRY_HDF5(code, path, call) \
    MT_TRY(mt_hdf5_status((int64_t)(call), (code), (path), #call, __FILE__, __LINE__))
#define MT_TRY_HDF5_GOTO(code, path, call) \
    MT_TRY_GOTO(mt_hdf5_status((int64_t)(call), (code), (path), #call, __FILE__, __LINE__))

/* No printing by the library, no plugins. Before any other call; again at no cost. */
void mt_hdf5_init(void);

/* The file type of elements: float32 or bfloat16, little-endian; H5Tclose. HDF5 knows how to turn
 * either into the other, so that every reader sees numbers. */
enum mt_status mt_hdf5_element_type(bool is_bfloat16, hid_t *type);

/* ---- writing ---- */
/* A new file; nothing in it depends on when it is made. in_memory: an image for mt_hdf5_take_image
 * instead of a file on disk. */
enum mt_status mt_hdf5_create(const char *path, bool in_memory, hid_t *file);
/* The same on disk where a file exists already: what is in it is gone. */
enum mt_status mt_hdf5_create_over(const char *path, hid_t *file);
/* The flushed image of an in-memory file; freed by mt_memory_free. */
enum mt_status mt_hdf5_take_image(hid_t file, const char *path, char **image, int64_t *n_byte);
/* The same again, after changes that need no room: image [n_byte] of the size it had. */
enum mt_status mt_hdf5_renew_image(hid_t file, const char *path, char *image, int64_t n_byte);
/* Closes and looks at the result, also after an error: `status` is returned first. */
enum mt_status mt_hdf5_close(hid_t file, const char *path, enum mt_status status);
/* All groups above `name` ("/model/layers/0/moe/router"). */
enum mt_status mt_hdf5_make_groups(hid_t file, const char *path, const char *name);
/* A creation list for datasets without times; H5Pclose. */
enum mt_status mt_hdf5_dataset_list(hid_t *list);

/* The same for contiguous ones that are allocated early and filled by plain writing. */
enum mt_status mt_hdf5_data_list(hid_t *list);

/* ---- reading files that somebody else may have made ----
 *
 * A checksum says that a file is as it was saved, not that it was saved in good faith, and in files
 * made to do harm HDF5 1.10.8 goes round for ever (free space of no bytes in a global heap) or
 * leaves its buffers. So what follows is called in a child process, and at no start of a run from
 * what this program saved: its manifests say where the bytes are. */

/* look(context, result) in a child, with time for so many objects; result [n_byte]. */
enum mt_status mt_hdf5_guard(const char *path, int64_t n_object, mt_guarded_fn look, void *context,
                             void *result, int64_t n_byte);
enum mt_status mt_hdf5_open(const char *path, hid_t *file);
/* The last name of `name` is a hard link. */
enum mt_status mt_hdf5_check_link(hid_t file, const char *path, const char *name);
/* `name` reached by hard links only; dataset is closed by H5Dclose. */
enum mt_status mt_hdf5_open_dataset(hid_t file, const char *path, const char *name, hid_t *dataset);
/* Without filters and without data in other files. */
bool mt_hdf5_is_contiguous(hid_t dataset);
/* The dataset has this file type and shape dim [n_dim]. Not of a virtual one from elsewhere, whose
 * size the library takes from other files. */
enum mt_status mt_hdf5_check_shape(hid_t dataset, const char *path, const char *name, hid_t type,
                                   int n_dim, const int64_t *dim);
/* Where the bytes of a contiguous dataset start in the file. MT_ERR_INPUT for any other layout, for
 * filters and for data kept in other files. */
enum mt_status mt_hdf5_data_offset(hid_t dataset, const char *path, const char *name,
                                   int64_t *offset);

#endif
