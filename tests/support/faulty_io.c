/* What a process does to the files of one folder: written down, and made to fail.

   Preloaded (LD_PRELOAD), it stands before the C library. FAULTY_FOLDER is the folder, absolute and without links in
   it. With FAULTY_LOG, what changes files is appended to that file, in the order in which it was done: for one call
   after the other is let through. What is in -shm files is left out, for it means nothing after a loss of power.

   Armed by faulty_arm, it makes calls fail, counted from 1 since then: those that open (O) a file of the folder, read
   (R), write (W), sync (S), cut (T), lock (L), map (M) or remove (U) it. Those that only ask about it
   (stat, access) are let be. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "one function has to do for pwrite and for pwrite64");

enum { NOT_OURS, LOGGED, UNLOGGED };
enum { MOST_FILES = 4096 };

struct __attribute__((packed)) head {
    char kind;
    int32_t file;
    int64_t number;
    int32_t length;
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char files[MOST_FILES];
static const char *folder;
static int log_file = -1;
static long calls, first_to_fail, last_to_fail;
static int error_to_give, half_first;
static char counted[16];

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULTY_LOG");
    folder = getenv("FAULTY_FOLDER");
    if (path)
        log_file = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int kind_of_path(const char *path) {
    size_t size = folder ? strlen(folder) : 0, length = strlen(path);
    if (!size || strncmp(path, folder, size) || (path[size] && path[size] != '/'))
        return NOT_OURS;
    return length > 4 && !strcmp(path + length - 4, "-shm") ? UNLOGGED : LOGGED;
}

static int kind_of_file(int file) {
    return file >= 0 && file < MOST_FILES ? files[file] : NOT_OURS;
}

static void put(const void *data, size_t size) {
    if (REAL(write)(log_file, data, size) != (ssize_t)size)
        abort();
}

static void note(char kind, int file, int64_t number, const void *data, size_t length) {
    struct head head = {kind, file, number, (int32_t)length};
    if (log_file < 0)
        return;
    put(&head, sizeof head);
    if (length)
        put(data, length);
}

static void note_of(int file, char kind, int64_t number, const void *data, size_t length) {
    if (kind_of_file(file) == LOGGED)
        note(kind, file, number, data, length);
}

static int is_due(char kind) {
    if (counted[0] && !strchr(counted, kind))
        return 0;
    calls++;
    return first_to_fail <= calls && calls <= last_to_fail;
}

/* Is it this call's turn to fail? Then it does not come back where the process is to be killed. */
static int fails(char kind) {
    if (!is_due(kind))
        return 0;
    if (error_to_give < 0)
        for (;;)
            kill(getpid(), SIGKILL);
    errno = error_to_give;
    return 1;
}

static void begin(void) {
    pthread_mutex_lock(&turn);
}

static void end(void) {
    int kept = errno;
    pthread_mutex_unlock(&turn);
    errno = kept;
}

/* For the tests. */

/* Only calls of these kinds count, or all. */
void faulty_arm(const char *kinds, long first, long last, int error, int half) {
    begin();
    strncpy(counted, kinds, sizeof counted - 1);
    calls = 0, first_to_fail = first, last_to_fail = last, error_to_give = error, half_first = half;
    end();
}

long faulty_calls(void) {
    return calls;
}

void faulty_note(const char *data, int length) {
    begin();
    note('N', -1, 0, data, length);
    end();
}

/* Files and their names. */

static int open_ours(int kind, int at, const char *path, int flags, mode_t mode) {
    begin();
    int file = fails('O') ? -1 : REAL(openat)(at, path, flags, mode);
    if (file >= MOST_FILES)
        abort();
    if (file >= 0) {
        files[file] = kind;
        note_of(file, path[strlen(folder)] ? 'O' : 'D', flags & O_TRUNC, path, strlen(path));
    }
    end();
    return file;
}

#define OPEN(name, parameters, at)                                                                                     \
    int name parameters {                                                                                              \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                                                      \
        va_end(rest);                                                                                                  \
        int kind = kind_of_path(path);                                                                                 \
        return kind ? open_ours(kind, at, path, flags, mode) : REAL(openat)(at, path, flags, mode);                    \
    }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat, (int at, const char *path, int flags, ...), at)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat64, (int at, const char *path, int flags, ...), at)

int close(int file) {
    begin();
    note_of(file, 'C', 0, NULL, 0);
    if (kind_of_file(file))
        files[file] = NOT_OURS;
    int result = REAL(close)(file);
    end();
    return result;
}

int unlink(const char *path) {
    int kind = kind_of_path(path);
    if (!kind)
        return REAL(unlink)(path);
    begin();
    int result = fails('U') ? -1 : REAL(unlink)(path);
    if (!result && kind == LOGGED)
        note('U', -1, 0, path, strlen(path));
    end();
    return result;
}

/* What is in them. */

static ssize_t write_ours(int file, const void *data, size_t size, off_t place) {
    int is_first = calls + 1 == first_to_fail;
    if (half_first && is_first && size > 1) {
        calls++;
        size /= 2;
    } else if (fails('W'))
        return -1;
    ssize_t written = REAL(pwrite)(file, data, size, place);
    if (written > 0)
        note_of(file, 'W', place, data, written);
    return written;
}

static ssize_t pwrite_any(int file, const void *data, size_t size, off_t place) {
    if (!kind_of_file(file))
        return REAL(pwrite)(file, data, size, place);
    begin();
    ssize_t written = write_ours(file, data, size, place);
    end();
    return written;
}

ssize_t pwrite(int file, const void *data, size_t size, off_t place) {
    return pwrite_any(file, data, size, place);
}

ssize_t pwrite64(int file, const void *data, size_t size, off_t place) {
    return pwrite_any(file, data, size, place);
}

ssize_t write(int file, const void *data, size_t size) {
    if (!kind_of_file(file))
        return REAL(write)(file, data, size);
    begin();
    off_t place = lseek(file, 0, SEEK_CUR);
    ssize_t written = write_ours(file, data, size, place);
    if (written > 0)
        lseek(file, place + written, SEEK_SET);
    end();
    return written;
}

#define GUARDED(kind, result_type, name, parameters, file, call)                                                       \
    result_type name parameters {                                                                                      \
        if (!kind_of_file(file))                                                                                       \
            return call;                                                                                               \
        begin();                                                                                                       \
        result_type result = fails(kind) ? (result_type)-1 : call;                                                     \
        end();                                                                                                         \
        return result;                                                                                                 \
    }
GUARDED('R', ssize_t, read, (int file, void *data, size_t size), file, REAL(read)(file, data, size))
GUARDED('R', ssize_t, pread, (int file, void *data, size_t size, off_t place), file,
        REAL(pread)(file, data, size, place))
GUARDED('R', ssize_t, pread64, (int file, void *data, size_t size, off_t place), file,
        REAL(pread)(file, data, size, place))
GUARDED('M', void *, mmap, (void *at, size_t size, int use, int how, int file, off_t place), file,
        REAL(mmap)(at, size, use, how, file, place))
GUARDED('M', void *, mmap64, (void *at, size_t size, int use, int how, int file, off_t place), file,
        REAL(mmap)(at, size, use, how, file, place))

static int cut(int file, off_t size) {
    if (!kind_of_file(file))
        return REAL(ftruncate)(file, size);
    begin();
    int result = fails('T') ? -1 : REAL(ftruncate)(file, size);
    if (!result)
        note_of(file, 'T', size, NULL, 0);
    end();
    return result;
}

int ftruncate(int file, off_t size) {
    return cut(file, size);
}

int ftruncate64(int file, off_t size) {
    return cut(file, size);
}

/* Nothing has to reach a real disk: whoever loses power here reads the log. */
static int sync_any(int file, int (*sync_it)(int)) {
    if (!kind_of_file(file))
        return sync_it(file);
    begin();
    int result = fails('S') ? -1 : 0;
    note_of(file, result ? 'F' : 'S', 0, NULL, 0);
    end();
    return result;
}

int fsync(int file) {
    return sync_any(file, REAL(fsync));
}

int fdatasync(int file) {
    return sync_any(file, REAL(fdatasync));
}

/* Locks: to take one or to look at it may fail. Nothing on a disk of this machine makes it fail to give one back. */

static int takes_lock(int command, const struct flock *lock) {
    return command == F_GETLK || (command == F_SETLK && lock->l_type != F_UNLCK);
}

#define CONTROL(name)                                                                                                  \
    int name(int file, int command, ...) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, command);                                                                                       \
        void *argument = va_arg(rest, void *);                                                                         \
        va_end(rest);                                                                                                  \
        if (!kind_of_file(file) || !takes_lock(command, argument))                                                                  \
            return REAL(fcntl)(file, command, argument);                                                               \
        begin();                                                                                                       \
        int result = fails('L') ? -1 : REAL(fcntl)(file, command, argument);                                           \
        end();                                                                                                         \
        return result;                                                                                                 \
    }
CONTROL(fcntl)
CONTROL(fcntl64)
