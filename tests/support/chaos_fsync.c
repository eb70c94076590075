/* A disk that fails to sync, as a library to be preloaded.
 *
 * While the file named by CHAOS_FSYNC_TRIGGER exists, fsync and fdatasync of files whose path contains CHAOS_FSYNC_PATH fail with
 * EIO. Each such call appends a line to the file named by CHAOS_FSYNC_LOG. All other calls go to the kernel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd)
{
    const char *trigger = getenv("CHAOS_FSYNC_TRIGGER");
    const char *wanted = getenv("CHAOS_FSYNC_PATH");
    const char *log = getenv("CHAOS_FSYNC_LOG");
    char name[64], path[PATH_MAX + 1];
    ssize_t length;
    int out;

    if (!trigger || !wanted || !log || access(trigger, F_OK) != 0)
        return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    length = readlink(name, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    if (!strstr(path, wanted))
        return 0;
    out = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (out >= 0) {
        path[length] = '\n';
        (void)!write(out, path, (size_t)length + 1);
        close(out);
    }
    return 1;
}

int fsync(int fd)
{
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}
