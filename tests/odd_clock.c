/* Clocks that are wrong, for one process: preloaded, it adds to what the kernel's clocks say.
 *
 * $ODD_CLOCK_FILE is three 64-bit numbers of nanoseconds, read at each call: for the wall clock, for the
 * monotonic clock, and for the one that goes on while the machine sleeps (boottime).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { WALL, MONOTONIC, BOOT, CLOCKS };
enum { BILLION = 1000000000 };

static const volatile int64_t *ahead_ns;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("ODD_CLOCK_FILE");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    void *shared = mmap(NULL, CLOCKS * sizeof *ahead_ns, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || shared == MAP_FAILED)
        abort();
    close(file);
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    ahead_ns = shared;
}

static int64_t ahead_of(clockid_t clock) {
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        return ahead_ns[WALL];
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
        return ahead_ns[MONOTONIC];
    case CLOCK_BOOTTIME:
        return ahead_ns[BOOT];
    default:
        return 0;
    }
}

static struct timespec moved(struct timespec time, int64_t by_ns) {
    int64_t all_ns = time.tv_nsec + by_ns % BILLION;
    time.tv_sec += by_ns / BILLION + (all_ns >= BILLION) - (all_ns < 0);
    time.tv_nsec = (all_ns + BILLION) % BILLION;
    return time;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (ahead_ns == NULL) /* Somebody asks before `begin` has run. */
        return -1;
    int result = real_clock_gettime(clock, time);
    if (result == 0)
        *time = moved(*time, ahead_of(clock));
    return result;
}

time_t time(time_t *seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds != NULL)
        *seconds = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

/* The kernel waits by its own clock: a deadline that was reckoned by ours would be hours away. */
int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict until) {
    int (*real)(sem_t *, clockid_t, const struct timespec *) =
        (int (*)(sem_t *, clockid_t, const struct timespec *))dlsym(RTLD_NEXT, "sem_clockwait");
    struct timespec own = moved(*until, -ahead_of(clock));
    return real(semaphore, clock, &own);
}
