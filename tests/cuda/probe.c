/* Asks the driver, not the toolkit: prints a line for each GPU, `NAME, COMPUTE CAPABILITY` (90 for
 * 9.0), or says on stderr why there is none and ends with 77. */
#include <dlfcn.h>
#include <stdio.h>

enum { NO_GPU = 77, MAJOR = 75, MINOR = 76 };

/* The driver's own interface, as its headers are the toolkit's. */
struct driver {
    int (*init)(unsigned flags);
    int (*count)(int *n);
    int (*name)(char *text, int bytes, int device);
    int (*attribute)(int *value, int which, int device);
};

static int refuse(const char *why)
{
    (void)fprintf(stderr, "no GPU: %s\n", why);
    return NO_GPU;
}

int main(void)
{
    struct driver d;
    int n = 0;
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == NULL) {
        return refuse("there is no driver (libcuda.so.1)");
    }
    *(void **)&d.init = dlsym(library, "cuInit");
    *(void **)&d.count = dlsym(library, "cuDeviceGetCount");
    *(void **)&d.name = dlsym(library, "cuDeviceGetName");
    *(void **)&d.attribute = dlsym(library, "cuDeviceGetAttribute");
    if (d.init == NULL || d.count == NULL || d.name == NULL || d.attribute == NULL) {
        return refuse("the driver's library has not the functions of one");
    }
    const int error = d.init(0);
    if (error != 0 || d.count(&n) != 0 || n == 0) {
        return refuse(error == 0 || error == 100 ? "the driver sees none" : "the driver failed");
    }
    for (int i = 0; i < n; i++) {
        char name[128] = "";
        int major = 0;
        int minor = 0;
        (void)d.name(name, (int)sizeof(name), i);
        (void)d.attribute(&major, MAJOR, i);
        (void)d.attribute(&minor, MINOR, i);
        (void)printf("%s, %d%d\n", name, major, minor);
    }
    return 0;
}
