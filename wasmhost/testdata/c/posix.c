// What POSIX programs take for granted, through the C library: each check that fails is told by its line.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int failed;
#define CHECK(x) do { if (!(x)) { printf("line %d: %s (errno %d)\n", __LINE__, #x, errno); failed = 1; } } while (0)
#define FAILS(x, e) do { errno = 0; CHECK((x) == -1 && errno == (e)); } while (0)

static void seeking(void) {
  char b[16];
  int fd = open("/tmp/seek", O_RDWR | O_CREAT | O_EXCL, 0666);
  CHECK(fd >= 0);
  FAILS(open("/tmp/seek", O_RDWR | O_CREAT | O_EXCL, 0666), EEXIST);
  CHECK(write(fd, "0123456789", 10) == 10);
  CHECK(lseek(fd, 0, SEEK_CUR) == 10 && lseek(fd, -3, SEEK_CUR) == 7 && lseek(fd, -1, SEEK_END) == 9 && lseek(fd, 2, SEEK_SET) == 2);
  FAILS(lseek(fd, -1, SEEK_SET), EINVAL);
  CHECK(lseek(fd, 2, SEEK_CUR) == 4 && read(fd, b, 2) == 2 && !memcmp(b, "45", 2));
  CHECK(pread(fd, b, 4, 8) == 2 && !memcmp(b, "89", 2) && pread(fd, b, 4, 10) == 0 && lseek(fd, 0, SEEK_CUR) == 6);
  CHECK(pwrite(fd, "xy", 2, 12) == 2 && lseek(fd, 0, SEEK_CUR) == 6 && pread(fd, b, 4, 10) == 4 && !memcmp(b, "\0\0xy", 4));
  CHECK(ftruncate(fd, 4) == 0 && lseek(fd, 0, SEEK_END) == 4 && close(fd) == 0);
  FAILS(close(fd), EBADF);
  fd = open("/tmp/seek", O_WRONLY | O_APPEND);
  CHECK(fd >= 0 && lseek(fd, 0, SEEK_SET) == 0 && write(fd, "ab", 2) == 2 && pwrite(fd, "C", 1, 0) == 1 && close(fd) == 0);
  fd = open("/tmp/seek", O_RDONLY);
  CHECK(fd >= 0 && read(fd, b, 16) == 6 && !memcmp(b, "C123ab", 6));
  FAILS(write(fd, "x", 1), EBADF);
  close(fd);
}

static void links(void) {
  struct stat a, b;
  char target[64];
  CHECK(link("/tmp/seek", "/tmp/other") == 0 && stat("/tmp/seek", &a) == 0 && stat("/tmp/other", &b) == 0);
  CHECK(a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_nlink == 2 && a.st_size == 6 && S_ISREG(a.st_mode));
  CHECK(symlink("seek", "/tmp/sym") == 0 && readlink("/tmp/sym", target, sizeof target) == 4 && !memcmp(target, "seek", 4));
  CHECK(lstat("/tmp/sym", &a) == 0 && S_ISLNK(a.st_mode) && stat("/tmp/sym", &a) == 0 && a.st_ino == b.st_ino);
  FAILS(open("/tmp/sym", O_RDONLY | O_NOFOLLOW), ELOOP);
  CHECK(unlink("/tmp/other") == 0 && stat("/tmp/seek", &a) == 0 && a.st_nlink == 1);
  CHECK(rename("/tmp/seek", "/tmp/moved") == 0);
  FAILS(stat("/tmp/sym", &a), ENOENT);
}

static void folders(void) {
  char names[256] = "";
  CHECK(mkdir("/tmp/d", 0777) == 0 && mkdir("/tmp/d/e", 0777) == 0);
  FAILS(mkdir("/tmp/d", 0777), EEXIST);
  FAILS(rmdir("/tmp/d"), ENOTEMPTY);
  FAILS(unlink("/tmp/d/none"), ENOENT);
  int fd = open("/in", O_RDONLY | O_DIRECTORY);
  DIR *dir = fdopendir(fd);
  CHECK(fd >= 0 && dir != NULL);
  for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
    if (e->d_name[0] != '.') strcat(strcat(names, e->d_name), " ");
  }
  CHECK(!strcmp(names, "a.txt b.txt d "));
  rewinddir(dir);
  CHECK(readdir(dir) != NULL && closedir(dir) == 0);
  FAILS(open("/in/a.txt", O_RDONLY | O_DIRECTORY), ENOTDIR);
  CHECK(rmdir("/tmp/d/e") == 0 && rmdir("/tmp/d") == 0);
}

static void refused(void) {
  struct stat st;
  FAILS(open("/in/none", O_RDONLY), ENOENT);
  CHECK(open("/in/new", O_RDWR | O_CREAT, 0666) == -1 && mkdir("/in/x", 0777) == -1 && unlink("/in/a.txt") == -1 && mkdir("/y", 0777) == -1);
  CHECK(open("/../etc/passwd", O_RDONLY) == -1 && open("../etc/passwd", O_RDONLY) == -1 && symlink("/etc/passwd", "/tmp/abs") == -1);
  CHECK(symlink("../../etc/passwd", "/tmp/up") == 0 && open("/tmp/up", O_RDONLY) == -1);
  FAILS(lseek(0, 0, SEEK_SET), ESPIPE);
  for (int fd = 0; fd < 3; fd++) CHECK(!isatty(fd) && fstat(fd, &st) == 0);
}

static void clocks(void) {
  struct timespec r, a, b, nap = {3600, 0};
  CHECK(clock_getres(CLOCK_REALTIME, &r) == 0 && r.tv_sec == 0 && r.tv_nsec > 0 && clock_getres(CLOCK_MONOTONIC, &r) == 0);
  CHECK(clock_gettime(CLOCK_MONOTONIC, &a) == 0 && nanosleep(&nap, NULL) == 0 && clock_gettime(CLOCK_MONOTONIC, &b) == 0);
  CHECK(b.tv_sec - a.tv_sec >= 3600 && b.tv_sec - a.tv_sec <= 3601);
}

int main(void) {
  seeking();
  links();
  folders();
  refused();
  clocks();
  if (!failed) puts("all is well");
  return failed;
}
