#include "device/module.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char module_file[] = "libmoetrain_cuda.so";
static const char driver_file[] = "libcuda.so.1";

/* Where the program was built, then where it is installed, beside the program itself. */
static const char *const module_folder[] = {"", "../lib/", "../lib/moetrain/"};
enum { N_FOLDER = sizeof(module_folder) / sizeof(module_folder[0]) };

/* False: it is in none of the folders; path is where it was looked for first. */
static bool find_module(char path[PATH_MAX])
{
    char program[PATH_MAX / 2];
    const ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[n > 0 ? n : 0] = '\0';
    const char *folder = dirname(program);
    for (int i = 0; i < N_FOLDER; ++i) {
        (void)snprintf(path, PATH_MAX, "%s/%s%s", folder, module_folder[i], module_file);
        if (access(path, R_OK) == 0) {
            return true;
        }
    }
    (void)snprintf(path, PATH_MAX, "%s/%s", folder, module_file);
    return false;
}

static enum mt_status probe_driver(void)
{
    void *driver = dlopen(driver_file, RTLD_LAZY | RTLD_LOCAL);
    if (driver == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "device.kind = \"cuda\" needs a GPU, and this machine has no NVIDIA driver "
                       "(%s); expected one that serves the toolkit of %s; set device.kind = "
                       "\"cpu\", or install the driver",
                       driver_file, module_file);
    }
    (void)dlclose(driver);
    return MT_OK;
}

static enum mt_status check(const struct mt_module *module, const char *path)
{
    if (module->version != MT_MODULE_VERSION || strcmp(module->program, MT_VERSION) != 0 ||
        module->device_bytes != (int64_t)sizeof(struct mt_device)) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "%s is of moetrain %s (version %d of the module), and this program is "
                       "moetrain %s (version %d); expected both of one build; build the target "
                       "cuda again, or set device.kind = \"cpu\"",
                       path, module->program, module->version, MT_VERSION, MT_MODULE_VERSION);
    }
    return MT_OK;
}

static enum mt_status open_file(const char *path, const struct mt_module **out)
{
    static const struct mt_module_host host = {.error_set = mt_error_set,
                                               .assert_failed = mt_assert_failed};
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    mt_module_entry_fn entry = NULL;
    if (library != NULL) {
        void *symbol = dlsym(library, "mt_module_entry");
        memcpy(&entry, &symbol, sizeof(entry)); /* ISO C has no conversion for it */
    }
    if (entry == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "the GPU's module %s could not be loaded: %s; expected the CUDA libraries "
                       "it was built with; put them on LD_LIBRARY_PATH, or set device.kind = "
                       "\"cpu\"",
                       path, dlerror());
    }
    const struct mt_module *module = entry(&host);
    MT_TRY(check(module, path));
    *out = module;
    return MT_OK;
}

enum mt_status mt_module_load(const struct mt_module **out)
{
    static const struct mt_module *loaded;
    char path[PATH_MAX];
    const char *given = getenv("MT_CUDA_MODULE");
    if (loaded == NULL && given != NULL) {
        MT_TRY(open_file(given, &loaded));
    } else if (loaded == NULL) {
        if (!find_module(path)) {
            return MT_FAIL(MT_ERR_RESOURCE,
                           "device.kind = \"cuda\" needs a GPU, and this build drives none: %s is "
                           "not there; expected the target cuda to be built; set device.kind = "
                           "\"cpu\", or build it (docs/gpu.md)",
                           path);
        }
        MT_TRY(probe_driver());
        MT_TRY(open_file(path, &loaded));
    }
    *out = loaded;
    return MT_OK;
}
