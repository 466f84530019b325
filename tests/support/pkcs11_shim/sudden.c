/* Preloaded into a worker: it dies by SIGKILL when SoftHSM2 has emptied a file and not yet written it anew. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

int ftruncate(int file, off_t length) {
    int (*behind)(int, off_t) = dlsym(RTLD_NEXT, "ftruncate");
    int done = behind(file, length);
    if (length == 0) kill(getpid(), SIGKILL);
    return done;
}
