/* Records, in order, what a process does to one directory, and what it sends and receives on its sockets.
 *
 * Built as a shared object and preloaded (LD_PRELOAD). RECORD_LOG names the log, RECORD_ROOT the directory, RECORD_PORTS
 * the peers' ports ("1883,8080"). power_disk.py reads the log; the kinds of its entries are listed there.
 *
 * A lock is held over each change of the disk and its entry, so that the log has the order that the kernel saw. It is
 * not held over a sync: one entry says that it begins, another that it is done, and only what was written before the
 * first is safe after the second. A send has its entry before it is made: from then on the peer may have the bytes.
 *
 * SIGUSR2 kills the process as SIGKILL does, but between two entries: the log and the disk agree.
 *
 * Calls the kernel directly; for 64-bit Linux. Calls that it can't record (a shared mapping, say) get an entry that
 * makes the reader refuse the log. The reader also compares the replayed log with the real directory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { UNKNOWN = 0, NOTHING, FILE_, UNSEEN, SOCKET_ };
enum { FDS = 65536, PATH = 2 * PATH_MAX };

struct entry {
  uint32_t size; /* of the data that follows */
  uint32_t kind;
  uint64_t object; /* inode, or number of the connection */
  int64_t a, b;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_size;
static int ports[8], ports_count;
static int64_t last_token, last_connection;
static int skips_directory_syncs;

static _Atomic unsigned char kinds[FDS];
static uint64_t objects[FDS];
static unsigned char directories[FDS];

static volatile sig_atomic_t dying;

static void stop(void) { kill(getpid(), SIGABRT); }

static void die_soon(int number) {
  (void)number;
  dying = 1;
}

static void write_entry(int kind, uint64_t object, int64_t a, int64_t b, const void *data, size_t size) {
  struct entry entry = {(uint32_t)size, (uint32_t)kind, object, a, b};
  struct iovec parts[2] = {{&entry, sizeof entry}, {(void *)data, size}};
  if (syscall(SYS_writev, log_fd, parts, size ? 2 : 1) != (long)(sizeof entry + size)) stop();
  if (dying) kill(getpid(), SIGKILL);
}

__attribute__((constructor)) static void begin(void) {
  const char *log = getenv("RECORD_LOG"), *directory = getenv("RECORD_ROOT"), *list = getenv("RECORD_PORTS");
  if (!log || !directory || !list) return;
  root_size = strlen(directory);
  memcpy(root, directory, root_size + 1);
  while (*list && ports_count < 8) {
    ports[ports_count++] = (int)strtol(list, (char **)&list, 10);
    if (*list == ',') list++;
  }
  skips_directory_syncs = getenv("RECORD_NO_DIRECTORY_SYNC") != NULL;
  log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log_fd < 0) stop();
  signal(SIGUSR2, die_soon);
  unsetenv("LD_PRELOAD"); /* children are not recorded */
}

/* --- file descriptors and paths ------------------------------------------------------------------------------ */

static int kind_of(int fd) { return fd >= 0 && fd < FDS ? kinds[fd] : NOTHING; }

static void forget(int fd) {
  if (fd >= 0 && fd < FDS) kinds[fd] = UNKNOWN;
}

/* The path as an absolute one; 0 if it is not in the recorded directory. */
static int in_root(int at, const char *path, char *whole) {
  if (log_fd < 0 || !path) return 0;
  ssize_t size = 0;
  if (path[0] != '/') {
    char name[64] = "/proc/self/cwd";
    if (at != AT_FDCWD) {
      char digits[16], *digit = digits;
      int left = at;
      do *digit++ = (char)('0' + left % 10); while (left /= 10);
      char *end = stpcpy(name, "/proc/self/fd/");
      while (digit > digits) *end++ = *--digit;
      *end = 0;
    }
    size = syscall(SYS_readlinkat, AT_FDCWD, name, whole, PATH_MAX - 1);
    if (size < 0) return 0;
    whole[size++] = '/';
  }
  size_t rest = strlen(path);
  if (rest >= PATH_MAX) return 0;
  memcpy(whole + size, path, rest + 1);
  return !strncmp(whole, root, root_size) && (whole[root_size] == '/' || !whole[root_size]);
}

static int ends_with(const char *text, const char *end) {
  size_t a = strlen(text), b = strlen(end);
  return a >= b && !strcmp(text + a - b, end);
}

/* Whether the descriptor is a connection to one of the ports; found out at its first use. */
static int is_recorded_socket(int fd) {
  if (log_fd < 0) return 0;
  int kind = kind_of(fd);
  if (kind != UNKNOWN) return kind == SOCKET_;
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  if (getpeername(fd, (struct sockaddr *)&peer, &size)) {
    if (errno != ENOTCONN && fd >= 0 && fd < FDS) kinds[fd] = NOTHING;
    return 0;
  }
  int port = -1, found = 0;
  if (peer.ss_family == AF_INET) port = ntohs(((struct sockaddr_in *)&peer)->sin_port);
  if (peer.ss_family == AF_INET6) port = ntohs(((struct sockaddr_in6 *)&peer)->sin6_port);
  for (int n = 0; n < ports_count; n++) found |= ports[n] == port;
  if (fd < 0 || fd >= FDS) return 0;
  if (found) {
    pthread_mutex_lock(&lock);
    objects[fd] = (uint64_t)++last_connection;
    write_entry('c', objects[fd], port, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
  }
  kinds[fd] = found ? SOCKET_ : NOTHING;
  return found;
}

/* --- files ---------------------------------------------------------------------------------------------------- */

static int do_open(int at, const char *path, int flags, mode_t mode) {
  char whole[PATH];
  int saved = errno;
  int recorded = in_root(at, path, whole);
  errno = saved;
  if (!recorded) {
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && fd < FDS) kinds[fd] = log_fd < 0 ? UNKNOWN : NOTHING;
    return fd;
  }
  pthread_mutex_lock(&lock);
  struct stat before, after;
  int existed = !fstatat(at, path, &before, 0);
  int fd = (int)syscall(SYS_openat, at, path, flags, mode);
  saved = errno;
  if (fd >= FDS) stop();
  if (fd >= 0) {
    fstat(fd, &after);
    objects[fd] = after.st_ino;
    directories[fd] = S_ISDIR(after.st_mode);
    /* The shared memory of SQLite's write-ahead log: written through a mapping, rebuilt after a crash. */
    kinds[fd] = ends_with(whole, "-shm") || ends_with(whole, ".reserve") ? UNSEEN : FILE_;
    if (!existed) write_entry('O', after.st_ino, 0, 0, whole, strlen(whole));
    else if (flags & O_TRUNC && kinds[fd] == FILE_) write_entry('T', after.st_ino, 0, 0, NULL, 0);
    if ((flags & O_TMPFILE) == O_TMPFILE) write_entry('X', 0, 0, 0, "O_TMPFILE", 9);
  }
  pthread_mutex_unlock(&lock);
  errno = saved;
  return fd;
}

#define WITH_MODE                                                                                                      \
  mode_t mode = 0;                                                                                                     \
  if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {                                                           \
    va_list rest;                                                                                                      \
    va_start(rest, flags);                                                                                             \
    mode = va_arg(rest, mode_t);                                                                                       \
    va_end(rest);                                                                                                      \
  }

int open(const char *path, int flags, ...) { WITH_MODE return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { WITH_MODE return do_open(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { WITH_MODE return do_open(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { WITH_MODE return do_open(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }

int close(int fd) {
  forget(fd);
  return (int)syscall(SYS_close, fd);
}

int socket(int domain, int type, int protocol) {
  int fd = (int)syscall(SYS_socket, domain, type, protocol);
  forget(fd);
  return fd;
}

static ssize_t write_at(int fd, const void *data, size_t size, off_t offset, int seeks) {
  if (kind_of(fd) != FILE_) {
    return seeks ? syscall(SYS_write, fd, data, size) : syscall(SYS_pwrite64, fd, data, size, offset);
  }
  pthread_mutex_lock(&lock);
  ssize_t done = seeks ? syscall(SYS_write, fd, data, size) : syscall(SYS_pwrite64, fd, data, size, offset);
  int saved = errno;
  if (seeks) offset = syscall(SYS_lseek, fd, 0, SEEK_CUR) - (done > 0 ? done : 0);
  if (done > 0) write_entry('W', objects[fd], offset, 0, data, (size_t)done);
  pthread_mutex_unlock(&lock);
  errno = saved;
  return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return write_at(fd, data, size, offset, 0); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return write_at(fd, data, size, offset, 0); }

static int resize(int fd, off_t size) {
  pthread_mutex_lock(&lock);
  int result = (int)syscall(SYS_ftruncate, fd, size), saved = errno;
  if (!result && kind_of(fd) == FILE_) write_entry('T', objects[fd], size, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  errno = saved;
  return result;
}

int ftruncate(int fd, off_t size) { return resize(fd, size); }
int ftruncate64(int fd, off_t size) { return resize(fd, size); }

static int cut_path(const char *path, off_t size) {
  char whole[PATH];
  if (!in_root(AT_FDCWD, path, whole)) return (int)syscall(SYS_truncate, path, size);
  int fd = do_open(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
  if (fd < 0) return -1;
  int result = resize(fd, size), saved = errno;
  close(fd);
  errno = saved;
  return result;
}

int truncate(const char *path, off_t size) { return cut_path(path, size); }
int truncate64(const char *path, off_t size) { return cut_path(path, size); }

static int allocate(int fd, int mode, off_t offset, off_t size) {
  pthread_mutex_lock(&lock);
  int result = (int)syscall(SYS_fallocate, fd, mode, offset, size), saved = errno;
  if (!result && kind_of(fd) == FILE_) {
    if (mode) write_entry('X', 0, 0, 0, "fallocate with a mode", 21);
    else write_entry('F', objects[fd], offset + size, 0, NULL, 0);
  }
  pthread_mutex_unlock(&lock);
  errno = saved;
  return result;
}

int fallocate(int fd, int mode, off_t offset, off_t size) { return allocate(fd, mode, offset, size); }
int fallocate64(int fd, int mode, off_t offset, off_t size) { return allocate(fd, mode, offset, size); }
int posix_fallocate(int fd, off_t offset, off_t size) { return allocate(fd, 0, offset, size) ? errno : 0; }
int posix_fallocate64(int fd, off_t offset, off_t size) { return allocate(fd, 0, offset, size) ? errno : 0; }

static int sync_fd(int fd, long number) {
  if (kind_of(fd) != FILE_) return (int)syscall(number, fd);
  if (directories[fd] && skips_directory_syncs) return 0;
  uint64_t object = objects[fd];
  pthread_mutex_lock(&lock);
  int64_t token = ++last_token;
  write_entry('s', object, token, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  int result = (int)syscall(number, fd), saved = errno;
  if (!result) {
    pthread_mutex_lock(&lock);
    write_entry('S', object, token, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
  }
  errno = saved;
  return result;
}

int fsync(int fd) { return sync_fd(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_fd(fd, SYS_fdatasync); }

/* sync and sync_file_range don't count: the first need not wait, the second leaves out the file's size. */

static void *map(void *where, size_t size, int protection, int flags, int fd, off_t offset) {
  if (kind_of(fd) == FILE_ && flags & MAP_SHARED && protection & PROT_WRITE) {
    pthread_mutex_lock(&lock);
    write_entry('X', objects[fd], 0, 0, "a shared mapping", 16);
    pthread_mutex_unlock(&lock);
  }
  return (void *)syscall(SYS_mmap, where, size, protection, flags, fd, offset);
}

void *mmap(void *where, size_t size, int protection, int flags, int fd, off_t offset) {
  return map(where, size, protection, flags, fd, offset);
}
void *mmap64(void *where, size_t size, int protection, int flags, int fd, off_t offset) {
  return map(where, size, protection, flags, fd, offset);
}

/* --- names ---------------------------------------------------------------------------------------------------- */

static int change_name(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
  char both[2 * PATH];
  int first = in_root(from_at, from, both);
  size_t size = first ? strlen(both) + 1 : 0;
  int second = in_root(to_at, to, both + size);
  if (!first && !second) return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
  pthread_mutex_lock(&lock);
  int result = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags), saved = errno;
  if (!result) {
    if (first && second && !flags) write_entry('R', 0, 0, 0, both, size + strlen(both + size));
    else write_entry('X', 0, 0, 0, "rename across the root", 22);
  }
  pthread_mutex_unlock(&lock);
  errno = saved;
  return result;
}

int rename(const char *from, const char *to) { return change_name(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) {
  return change_name(from_at, from, to_at, to, 0);
}
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
  return change_name(from_at, from, to_at, to, flags);
}

static int remove_name(int at, const char *path, int flags) {
  char whole[PATH];
  if (!in_root(at, path, whole)) return (int)syscall(SYS_unlinkat, at, path, flags);
  pthread_mutex_lock(&lock);
  int result = (int)syscall(SYS_unlinkat, at, path, flags), saved = errno;
  if (!result) write_entry('U', 0, 0, 0, whole, strlen(whole));
  pthread_mutex_unlock(&lock);
  errno = saved;
  return result;
}

int unlink(const char *path) { return remove_name(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return remove_name(at, path, flags); }
int rmdir(const char *path) { return remove_name(AT_FDCWD, path, AT_REMOVEDIR); }

static int make_directory(int at, const char *path, mode_t mode) {
  char whole[PATH];
  if (!in_root(at, path, whole)) return (int)syscall(SYS_mkdirat, at, path, mode);
  pthread_mutex_lock(&lock);
  int result = (int)syscall(SYS_mkdirat, at, path, mode), saved = errno;
  struct stat made;
  if (!result && !fstatat(at, path, &made, 0)) write_entry('M', made.st_ino, 0, 0, whole, strlen(whole));
  pthread_mutex_unlock(&lock);
  errno = saved;
  return result;
}

int mkdir(const char *path, mode_t mode) { return make_directory(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return make_directory(at, path, mode); }

static int add_name(int from_at, const char *from, int to_at, const char *to, int flags) {
  char whole[PATH];
  int recorded = in_root(to_at, to, whole);
  int result = (int)syscall(SYS_linkat, from_at, from, to_at, to, flags), saved = errno;
  if (!result && recorded) {
    pthread_mutex_lock(&lock);
    write_entry('X', 0, 0, 0, "a hard link", 11);
    pthread_mutex_unlock(&lock);
  }
  errno = saved;
  return result;
}

int link(const char *from, const char *to) { return add_name(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
  return add_name(from_at, from, to_at, to, flags);
}

/* --- sockets -------------------------------------------------------------------------------------------------- */

static ssize_t send_recorded(int fd, const void *data, size_t size, int flags, const struct sockaddr *to,
                             socklen_t to_size) {
  uint64_t connection = objects[fd];
  pthread_mutex_lock(&lock);
  int64_t token = ++last_token;
  write_entry('p', connection, token, 0, data, size);
  pthread_mutex_unlock(&lock);
  ssize_t sent = syscall(SYS_sendto, fd, data, size, flags, to, to_size);
  int saved = errno;
  pthread_mutex_lock(&lock);
  write_entry('P', connection, token, sent, NULL, 0);
  pthread_mutex_unlock(&lock);
  errno = saved;
  return sent;
}

static ssize_t receive_recorded(int fd, void *data, size_t size, int flags, struct sockaddr *from,
                                socklen_t *from_size) {
  ssize_t got = syscall(SYS_recvfrom, fd, data, size, flags, from, from_size);
  int saved = errno;
  if (got > 0 && !(flags & MSG_PEEK)) {
    pthread_mutex_lock(&lock);
    write_entry('r', objects[fd], 0, 0, data, (size_t)got);
    pthread_mutex_unlock(&lock);
  }
  errno = saved;
  return got;
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t to_size) {
  int saved = errno, recorded = is_recorded_socket(fd);
  errno = saved;
  return recorded ? send_recorded(fd, data, size, flags, to, to_size)
                  : syscall(SYS_sendto, fd, data, size, flags, to, to_size);
}
ssize_t send(int fd, const void *data, size_t size, int flags) { return sendto(fd, data, size, flags, NULL, 0); }

ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *from, socklen_t *from_size) {
  int saved = errno, recorded = is_recorded_socket(fd);
  errno = saved;
  return recorded ? receive_recorded(fd, data, size, flags, from, from_size)
                  : syscall(SYS_recvfrom, fd, data, size, flags, from, from_size);
}
ssize_t recv(int fd, void *data, size_t size, int flags) { return recvfrom(fd, data, size, flags, NULL, NULL); }
ssize_t __recv_chk(int fd, void *data, size_t size, size_t room, int flags) {
  if (size > room) stop();
  return recv(fd, data, size, flags);
}

/* In signal handlers too: the lock is taken for recorded files and sockets alone, which handlers leave alone. */
ssize_t write(int fd, const void *data, size_t size) {
  int saved = errno, recorded = kind_of(fd) == UNKNOWN && is_recorded_socket(fd);
  errno = saved;
  if (recorded || kind_of(fd) == SOCKET_) return send_recorded(fd, data, size, 0, NULL, 0);
  return write_at(fd, data, size, 0, 1);
}
ssize_t read(int fd, void *data, size_t size) {
  int saved = errno, recorded = is_recorded_socket(fd);
  errno = saved;
  return recorded ? receive_recorded(fd, data, size, 0, NULL, NULL) : syscall(SYS_read, fd, data, size);
}
ssize_t __read_chk(int fd, void *data, size_t size, size_t room) {
  if (size > room) stop();
  return read(fd, data, size);
}

static void refuse(int fd, const char *what) {
  if (kind_of(fd) == FILE_ || is_recorded_socket(fd)) {
    pthread_mutex_lock(&lock);
    write_entry('X', objects[fd], 0, 0, what, strlen(what));
    pthread_mutex_unlock(&lock);
  }
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  refuse(fd, "writev");
  return syscall(SYS_writev, fd, parts, count);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  refuse(fd, "sendmsg");
  return syscall(SYS_sendmsg, fd, message, flags);
}
ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
  refuse(fd, "recvmsg");
  return syscall(SYS_recvmsg, fd, message, flags);
}
