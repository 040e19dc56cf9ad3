/* A disk that fails when it is told to: loaded before the C library (LD_PRELOAD), it lets system calls on files
 * below one directory fail.
 *
 * FAULTS_BELOW is the directory, FAULTS_CONTROL a file of two words, read at each call: an errno, and letters
 * for the calls that fail with it: o open for writing, r open for reading and read, w write, s sync, t truncate,
 * m rename, u unlink. With h, a write takes half of what it is given; with h and w, every other one, and the
 * rest fail. With z, fdatasync, which is SQLite's, takes a third of a second. With k, the number is of the call, of
 * those that change something, at which the process is killed, in a write when half is done. An empty file, or
 * none, is a sound disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAL(result, name, ...)                                      \
    static result (*real)(__VA_ARGS__);                              \
    if (real == NULL)                                                \
        real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static atomic_uint writes, changes;

static int below(const char *path)
{
    const char *directory = getenv("FAULTS_BELOW");
    size_t length = directory == NULL ? 0 : strlen(directory);
    return length > 0 && strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int opened_below(int descriptor)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

/* What the control file says. */
static void told(int *number, char letters[32])
{
    char text[64] = "";
    int kept = errno;
    const char *control = getenv("FAULTS_CONTROL");
    /* Not `open` and `read`: those are ours. */
    int file = control == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    *number = 0;
    letters[0] = 0;
    if (file >= 0) {
        if (syscall(SYS_read, file, text, sizeof text - 1) > 0)
            sscanf(text, "%d %31s", number, letters);
        syscall(SYS_close, file);
    }
    errno = kept;
}

static int has(char letter)
{
    int number;
    char letters[32];
    told(&number, letters);
    return strchr(letters, letter) != NULL;
}

/* Whether this call, the next of those that change something, is the last. */
static int is_last(void)
{
    int number;
    char letters[32];
    told(&number, letters);
    return strchr(letters, 'k') != NULL && atomic_fetch_add(&changes, 1) + 1 == (unsigned)number;
}

static void die_if_last(void)
{
    if (is_last())
        kill(getpid(), SIGKILL);
}

/* The errno of the calls that `letter` stands for, set; 0 if they work. */
static int fails(char letter)
{
    int number;
    char letters[32];
    told(&number, letters);
    if (letter != 'r')
        die_if_last();
    if (strchr(letters, letter) == NULL)
        return 0;
    errno = number;
    return number;
}

/* How much of `size` bytes is to be written; -1 if it fails. */
static ssize_t granted(int descriptor, const void *data, size_t size)
{
    if (!opened_below(descriptor))
        return (ssize_t)size;
    if (is_last()) {
        syscall(SYS_write, descriptor, data, size / 2);
        kill(getpid(), SIGKILL);
    }
    int halved = has('h') && size > 1;
    if (halved && (!has('w') || atomic_fetch_add(&writes, 1) % 2 == 0))
        return (ssize_t)(size / 2);
    return has('w') && fails('w') ? -1 : (ssize_t)size;
}

static int may_open(const char *path, int flags)
{
    return !below(path) || !fails((flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0 ? 'o' : 'r');
}

#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...)                       \
    {                                                                \
        REAL(int, #name, const char *, int, ...);                    \
        va_list rest;                                                \
        va_start(rest, flags);                                       \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;    \
        va_end(rest);                                                \
        return may_open(path, flags) ? real(path, flags, mode) : -1; \
    }
OPEN(open)
OPEN(open64)

#define WRITE(name, parameters, arguments, ...)                      \
    ssize_t name parameters                                          \
    {                                                                \
        REAL(ssize_t, #name, __VA_ARGS__);                           \
        ssize_t size = granted(descriptor, data, asked);                   \
        return size < 0 ? -1 : real arguments;                       \
    }
WRITE(write, (int descriptor, const void *data, size_t asked), (descriptor, data, (size_t)size), int,
      const void *, size_t)
WRITE(pwrite, (int descriptor, const void *data, size_t asked, off_t at), (descriptor, data, (size_t)size, at),
      int, const void *, size_t, off_t)
WRITE(pwrite64, (int descriptor, const void *data, size_t asked, off64_t at),
      (descriptor, data, (size_t)size, at), int, const void *, size_t, off64_t)

#define ON_DESCRIPTOR(result, name, letter, parameters, arguments, ...)                   \
    result name parameters                                                                \
    {                                                                                     \
        REAL(result, #name, __VA_ARGS__);                                                 \
        return opened_below(descriptor) && fails(letter) ? (result)-1 : real arguments;   \
    }
ON_DESCRIPTOR(ssize_t, read, 'r', (int descriptor, void *data, size_t size), (descriptor, data, size), int, void *,
              size_t)
ON_DESCRIPTOR(ssize_t, pread, 'r', (int descriptor, void *data, size_t size, off_t at),
              (descriptor, data, size, at), int, void *, size_t, off_t)
ON_DESCRIPTOR(ssize_t, pread64, 'r', (int descriptor, void *data, size_t size, off64_t at),
              (descriptor, data, size, at), int, void *, size_t, off64_t)
ON_DESCRIPTOR(int, fsync, 's', (int descriptor), (descriptor), int)
ON_DESCRIPTOR(int, ftruncate, 't', (int descriptor, off_t length), (descriptor, length), int, off_t)
ON_DESCRIPTOR(int, ftruncate64, 't', (int descriptor, off64_t length), (descriptor, length), int, off64_t)

int fdatasync(int descriptor)
{
    REAL(int, "fdatasync", int);
    if (opened_below(descriptor) && has('z'))
        usleep(333000);
    return opened_below(descriptor) && fails('s') ? -1 : real(descriptor);
}

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    return below(to) && fails('m') ? -1 : real(from, to);
}

int unlink(const char *path)
{
    REAL(int, "unlink", const char *);
    return below(path) && fails('u') ? -1 : real(path);
}
