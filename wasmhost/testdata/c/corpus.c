// The programs of the corpus: what C programs do with a C library. rust/corpus.rs has the same.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(3);
}

// number is a linear congruential generator.
static uint32_t state = 1;
static uint32_t number(void) { return state = state * 1664525 + 1013904223; }

// move copies all of one descriptor to another, or counts it when that is below zero.
static long long move(int from, int to) {
  static char buffer[64 << 10];
  long long total = 0;
  ssize_t n;
  while ((n = read(from, buffer, sizeof buffer)) > 0) {
    total += n;
    for (ssize_t done = 0, wrote; to >= 0 && done < n; done += wrote)
      if ((wrote = write(to, buffer + done, n - done)) < 0) fail("write");
  }
  if (n < 0) fail("read");
  return total;
}

static int opened(const char *path, int flags) {
  int fd = open(path, flags, 0644);
  if (fd < 0) fail(path);
  return fd;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void walk(const char *dir) {
  DIR *d = opendir(dir);
  if (!d) fail(dir);
  char *names[1000];
  int n = 0;
  for (struct dirent *e; n < 1000 && (e = readdir(d));)
    if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) names[n++] = strdup(e->d_name);
  closedir(d);
  qsort(names, n, sizeof *names, by_name);
  for (int i = 0; i < n; free(names[i++])) {
    char path[4096];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    if (stat(path, &s) < 0) fail(path);
    if (S_ISDIR(s.st_mode)) {
      printf("%s/\n", path);
      walk(path);
    } else {
      printf("%s %lld\n", path, (long long)s.st_size);
    }
  }
}

static unsigned ackermann(unsigned m, unsigned n) {
  return m == 0 ? n + 1 : ackermann(m - 1, n == 0 ? 1 : ackermann(m, n - 1));
}

// memory takes, grows and gives back blocks at random, and looks whether each still has what it held.
static void memory(int rounds) {
  struct { uint8_t *at, fill; uint32_t size; } blocks[256] = {{0}};
  uint32_t sum = 0;
  while (rounds--) {
    int i = number() >> 24;
    uint32_t size = number() >> 17, old = blocks[i].size;
    for (uint32_t k = 0; k < old; k += 97)
      if (blocks[i].at[k] != blocks[i].fill) abort();
    sum = sum * 31 + old;
    blocks[i].at = realloc(blocks[i].at, size + 1);
    if (!blocks[i].at) fail("realloc");
    blocks[i].size = size;
    memset(blocks[i].at, blocks[i].fill = number() >> 24, size + 1);
  }
  printf("%u\n", sum);
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static void sort(int n) {
  uint32_t *list = malloc(n * sizeof *list), sum = 0;
  for (int i = 0; i < n; i++) list[i] = number();
  qsort(list, n, sizeof *list, by_size);
  for (int i = 0; i < n; i++) sum = sum * 31 + list[i];
  printf("%u %u %u\n", list[0], list[n - 1], sum);
}

// words counts those of stdin.
static void words(void) {
  static char *list[1 << 16];
  char word[64];
  int n = 0;
  while (n < 1 << 16 && scanf("%63s", word) == 1) list[n++] = strdup(word);
  qsort(list, n, sizeof *list, by_name);
  for (int i = 0, k; i < n; i += k) {
    for (k = 1; i + k < n && !strcmp(list[i], list[i + k]);) k++;
    printf("%s %d\n", list[i], k);
  }
}

static void doubles(void) {
  double list[] = {0, -0.0, 0.1, 1.0 / 3, 1e300, 5e-324, 123456789.125, 3.141592653589793, -2.5e-10};
  for (unsigned i = 0; i < sizeof list / sizeof *list; i++) printf("%.17g %.3f %e\n", list[i], list[i], list[i]);
}

__attribute__((noinline)) static void the_innermost(volatile int *p) {
  if (*p) __builtin_trap();
}

__attribute__((noinline)) static void the_caller(volatile int *p) {
  the_innermost(p);
  *p = 0;
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  const char *arg = argc > 2 ? argv[2] : "";
  if (!strcmp(what, "args")) {
    for (int i = 2; i < argc; i++) printf("[%s]\n", argv[i]);
  } else if (!strcmp(what, "env")) {
    for (char **e = environ; *e; e++) puts(*e);
  } else if (!strcmp(what, "cat")) {
    move(0, 1);
  } else if (!strcmp(what, "read")) {
    printf("%lld\n", move(opened(arg, O_RDONLY), -1));
  } else if (!strcmp(what, "copy")) {
    int to = opened(argv[3], O_WRONLY | O_CREAT | O_EXCL);
    printf("%lld\n", move(opened(arg, O_RDONLY), to));
    if (close(to) < 0) fail("close");
  } else if (!strcmp(what, "walk")) {
    walk(arg);
  } else if (!strcmp(what, "ackermann")) {
    printf("%u\n", ackermann(2, atoi(arg)));
  } else if (!strcmp(what, "memory")) {
    memory(atoi(arg));
  } else if (!strcmp(what, "sort")) {
    sort(atoi(arg));
  } else if (!strcmp(what, "words")) {
    words();
  } else if (!strcmp(what, "doubles")) {
    doubles();
  } else if (!strcmp(what, "exit")) {
    printf("exits");
    exit(atoi(arg));
  } else if (!strcmp(what, "world")) {
    unsigned char random[16];
    struct timespec hour = {3600, 0};
    if (getentropy(random, sizeof random) < 0) fail("getentropy");
    for (unsigned i = 0; i < sizeof random; i++) printf("%02x", random[i]);
    time_t before = time(0);
    nanosleep(&hour, 0);
    printf(" %lld %lld\n", (long long)before, (long long)(time(0) - before));
  } else if (!strcmp(what, "trap")) {
    volatile int yes = 1;
    the_caller(&yes);
  } else {
    fprintf(stderr, "no such program: %s\n", what);
    return 2;
  }
  return 0;
}
