// grid.h is the SDK for C: a program for the grid is a list of functions, and this file.
//
//	#define GRID_IMPLEMENTATION // in one file of the program
//	#include "grid.h"
//
//	static void shout(char *in, size_t len) {
//		for (size_t i = 0; i < len; i++) putchar(toupper((unsigned char)in[i]));
//	}
//
//	const grid_function grid_functions[] = {
//		{"shout", "Makes letters upper case.", .func = shout},
//		{0},
//	};
//
//	clang --target=wasm32-wasi -O2 -mexec-model=reactor -o shout.wasm shout.c
//
// Such a program is a library: constructors run once, and every task finds memory as they have left it. So what is costly
// and the same for all tasks belongs into an __attribute__((constructor)). What a task prints on stdout is its result.
//
// Functions that give an int give 0, or an error number of errno.h; grid_error() tells then what happened. One may just
// give up: if (grid_kv_put(...)) grid_fail("%s", grid_error());
//
// docs/abi.md of the grid's repository specifies what lies below; README.md beside this file shows more.
#ifndef GRID_H
#define GRID_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

// grid_buf is bytes that grow. {0} is empty. data has a zero behind its end, and is the caller's to free.
typedef struct {
  char *data;
  size_t len, cap;
} grid_buf;

void grid_append(grid_buf *b, const void *data, size_t len);

// grid_input is an input file of the task, open for reading. {0} is before the first.
typedef struct {
  const char *name; // its path below /in
  FILE *file;
  size_t next; // of the inputs
} grid_input;

// grid_next opens the task's next input, in order of names, and closes the one before. It gives 0 after the last.
// Without input files the only one is stdin.
int grid_next(grid_input *in);
// grid_rest reads all that is left of an input.
void grid_rest(grid_input *in, grid_buf *b);

// grid_table has a number under each of its keys, which are any bytes.
typedef struct {
  const char *key; // with a zero behind its end
  size_t len;
  int64_t value;
} grid_entry;

typedef struct grid_table {
  grid_entry *entries;
  size_t len;
  size_t cap, *slots, mask;
  int64_t (*combine)(int64_t, int64_t);
} grid_table;

// grid_emit adds a value under a key: if there is one already, both are combined.
void grid_emit(grid_table *t, const void *key, size_t len, int64_t value);

// Ways of combining.
int64_t grid_add(int64_t a, int64_t b), grid_min(int64_t a, int64_t b), grid_max(int64_t a, int64_t b);

// grid_function is one function of the program: its name, what it does, and one of func, map, reduce and task.
typedef struct {
  const char *name, *doc;
  const char *input, *output; // of a func: JSON schemas; NULL for bytes as they are

  void (*func)(char *in, size_t len);             // gets its whole input, with a zero behind its end
  void (*map)(grid_input *in, grid_table *out);   // once for each input; the task leaves all that was emitted, each key once
  void (*reduce)(grid_table *all);                // gets what all tasks of a map emitted, in order of keys
  void (*task)(void);                             // anything
  int64_t (*combine)(int64_t a, int64_t b);       // of map and reduce: combines values under one key, in any order
} grid_function;

// grid_functions are the program's, which defines them; the last one is {0}.
extern const grid_function grid_functions[];

// grid_fail ends the task as failed, with a message, to which the function and its input are added.
_Noreturn void grid_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
// grid_error tells what was wrong with the last call that failed.
const char *grid_error(void);
// grid_log writes a line to the task's log.
void grid_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

// grid_args are the stage's arguments, and NULL. The environment is had by getenv.
char **grid_args(void);
// grid_number is the task's number, as text; NULL in stages that have inputs.
const char *grid_number(void);
// grid_create makes a file that the task leaves behind, by its path below /out, with the folders on its way.
FILE *grid_create(const char *path);
// grid_open opens granted data for reading: a file of the DAG with that CID, "" the DAG itself. NULL when there is none.
FILE *grid_open(const char *cid, const char *path);
// grid_secret appends a granted secret.
int grid_secret(const char *name, grid_buf *b);

// grid_progress says how far the task is; total 0 is unknown.
int grid_progress(uint64_t done, uint64_t total);
// grid_count adds to a counter, and grid_observe adds a value to a histogram. Names are of letters, digits and '_'.
int grid_count(const char *name, uint64_t n);
int grid_observe(const char *name, double value);

// The realm's map, as far as it was granted. A version is a number that changes with each write of a key.
int grid_kv_get(const char *key, grid_buf *value, uint64_t *version); // appends; ENOENT: no such key
int grid_kv_put(const char *key, const void *value, size_t len);
int grid_kv_delete(const char *key);

// grid_kv_list calls f for each key that begins with prefix, in order, until it gives something else than 0. They are read
// some at a time, and so need not be of one moment.
int grid_kv_list(const char *prefix, int f(void *arg, const char *key, const char *value, size_t len, uint64_t version), void *arg);

// grid_txn is conditions and writes that are applied together or not at all. {0} is empty.
typedef struct {
  grid_buf conditions, puts, deletes;
  uint32_t n[3];
} grid_txn;

void grid_txn_if(grid_txn *t, const char *key, uint64_t version); // that it still has; 0: that there is no such key
void grid_txn_put(grid_txn *t, const char *key, const void *value, size_t len);
void grid_txn_delete(grid_txn *t, const char *key);
int grid_txn_commit(grid_txn *t); // and empties it; EAGAIN: a condition does not hold, nothing was done

// grid_fetch sends an HTTP request. Headers are lines "name: value\n", or NULL. The caller closes body, and frees head.
typedef struct {
  int status;
  char *head;    // lines "name: value\n", names in lower case and in order
  FILE *body;
} grid_response;

int grid_fetch(const char *method, const char *url, const char *headers, const void *body, size_t len, grid_response *r);

// grid_spawn has a function of this program run as a task of its own, with the bytes as its input. args end with NULL;
// NULL for none. grid_await waits for it, and appends what it printed.
int grid_spawn(const char *function, const void *in, size_t len, const char *const *args, uint32_t *child);
int grid_await(uint32_t child, grid_buf *out);

#endif

#ifdef GRID_IMPLEMENTATION
#undef GRID_IMPLEMENTATION

#ifndef _GNU_SOURCE
int clearenv(void);
#endif
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wasi/api.h>

#define GRID_HOST(name) __attribute__((import_module("grid"), import_name(name)))
GRID_HOST("kv") int grid__kv(const void *p, size_t len, uint32_t *fd);
GRID_HOST("progress") int grid__progress(uint64_t done, uint64_t total);
GRID_HOST("count") int grid__count(const char *p, size_t len, uint64_t n);
GRID_HOST("observe") int grid__observe(const char *p, size_t len, double v);
GRID_HOST("http_open") int grid__http_open(const void *p, size_t len, uint32_t *fd);
GRID_HOST("spawn") int grid__spawn(const void *p, size_t len, uint32_t *child);
GRID_HOST("await") int grid__await(uint32_t child, uint32_t *fd, uint32_t *exit);
GRID_HOST("last_error") int grid__last_error(char *p, size_t len, size_t *used);

static const char *grid__function = "";
static const char *grid__reading; // the input at which the function is, or NULL
static char grid__message[1200];

static void *grid__need(void *p) {
  if (!p) grid_fail("out of memory");
  return p;
}

static char *grid__copy(const char *s, size_t len) {
  char *p = grid__need(malloc(len + 1));
  memcpy(p, s, len);
  p[len] = 0;
  return p;
}

static void grid__room(grid_buf *b, size_t more) {
  if (b->cap - b->len > more) return; // one for the zero
  size_t cap = b->cap ? b->cap : 256;
  while (cap - b->len <= more) {
    if (cap > SIZE_MAX / 2) grid_fail("out of memory");
    cap *= 2;
  }
  b->data = grid__need(realloc(b->data, cap));
  b->cap = cap;
}

void grid_append(grid_buf *b, const void *data, size_t len) {
  grid__room(b, len);
  if (len) memcpy(b->data + b->len, data, len);
  b->data[b->len += len] = 0;
}

static void grid__text(grid_buf *b, const char *s) { grid_append(b, s, strlen(s)); }

// Errors.

// grid__told keeps the message of an error: the host's, or what the number means.
static int grid__told(int err, const char *format, ...) {
  if (!err) return 0;
  char *p = grid__message;
  size_t room = sizeof grid__message, used = 0;
  va_list args;
  va_start(args, format);
  int n = vsnprintf(p, room, format, args);
  va_end(args);
  n = n < 0 ? 0 : n >= (int)room - 64 ? (int)room - 64 : n;
  n += snprintf(p + n, room - n, ": ");
  if (grid__last_error(p + n, room - n - 1, &used) == 0 && used > 0) p[n + used] = 0;
  else snprintf(p + n, room - n, "%s", strerror(err));
  return err;
}

static int grid__system(int err, const char *what, const char *name) {
  if (err) snprintf(grid__message, sizeof grid__message, "%s %.900s: %s", what, name, strerror(err));
  return err;
}

const char *grid_error(void) { return grid__message; }

void grid_log(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  size_t n = strlen(format);
  if (!n || format[n - 1] != '\n') fputc('\n', stderr);
}

_Noreturn void grid_fail(const char *format, ...) {
  fflush(stdout);
  if (*grid__function) fprintf(stderr, "%s: ", grid__function);
  if (grid__reading) fprintf(stderr, "input %s: ", grid__reading);
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
  fflush(NULL);
  __wasi_proc_exit(1);
}

// Arguments. The C library would take those of a command only.

char **grid_args(void) {
  static char **args;
  if (args) return args;
  size_t n = 0, size = 0;
  if (__wasi_args_sizes_get(&n, &size) || n > SIZE_MAX / sizeof(char *) - 2) n = size = 0;
  char **all = grid__need(calloc(n + 2, sizeof *all)), *text = grid__need(malloc(size + 1));
  if (n && __wasi_args_get((uint8_t **)all, (uint8_t *)text)) n = 0;
  all[n] = NULL;
  return args = all + (n > 0);
}

const char *grid_number(void) { return getenv("GRID_TASK"); }

// Inputs.

static char **grid__inputs; // paths
static size_t grid__ninputs;
static int grid__listed;

// grid__left recognises a folder that a task of an earlier stage has left: seven digits and .out.
static int grid__left(const char *name) { return strspn(name, "0123456789") == 7 && !strcmp(name + 7, ".out"); }

static int grid__byname(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// grid__walk lists the files below a folder, folders in their order among files. Of folders that tasks have left only
// their stdouts, which lie beside them, are inputs.
static void grid__walk(const char *path, int depth) {
  DIR *d = opendir(path);
  if (!d) {
    if (depth == 0) return;
    grid_fail("read the folder %s: %s", path, strerror(errno));
  }
  grid_buf names = {0}; // pointers
  for (struct dirent *e; (e = readdir(d));) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    char *name = grid__copy(e->d_name, strlen(e->d_name));
    grid_append(&names, &name, sizeof name);
  }
  closedir(d);
  char **list = (char **)names.data;
  size_t n = names.len / sizeof *list;
  if (n) qsort(list, n, sizeof *list, grid__byname);
  for (size_t i = 0; i < n; i++) {
    grid_buf p = {0};
    struct stat st;
    grid__text(&p, path);
    grid__text(&p, "/");
    grid__text(&p, list[i]);
    if (stat(p.data, &st) == 0 && S_ISDIR(st.st_mode)) {
      if (!(depth <= 1 && grid__left(list[i]))) grid__walk(p.data, depth + 1);
      free(p.data);
    } else {
      grid__inputs = grid__need(realloc(grid__inputs, (grid__ninputs + 1) * sizeof *grid__inputs));
      grid__inputs[grid__ninputs++] = p.data;
    }
    free(list[i]);
  }
  free(names.data);
}

int grid_next(grid_input *in) {
  if (!grid__listed) grid__listed = 1, grid__walk("/in", 0);
  if (in->file && in->file != stdin) fclose(in->file);
  in->file = NULL;
  size_t i = in->next++;
  if (grid__ninputs == 0 && i == 0) {
    in->name = "stdin";
    in->file = stdin;
  } else if (i < grid__ninputs) {
    in->name = grid__inputs[i] + strlen("/in/");
    if (!(in->file = fopen(grid__inputs[i], "r"))) {
      grid__reading = in->name;
      grid_fail("%s", strerror(errno));
    }
    static char buffer[64 << 10]; // one serves all, since one is open at a time
    setvbuf(in->file, buffer, _IOFBF, sizeof buffer);
  } else {
    in->name = grid__reading = NULL;
    return 0;
  }
  grid__reading = in->name;
  return 1;
}

// grid__read reads a file to its end.
static int grid__read(FILE *f, grid_buf *b) {
  grid__room(b, 0);
  b->data[b->len] = 0;
  for (size_t chunk = 4096;; chunk = chunk < 1 << 20 ? 2 * chunk : chunk) {
    grid__room(b, chunk);
    size_t n = fread(b->data + b->len, 1, chunk, f);
    b->data[b->len += n] = 0;
    if (n < chunk) return ferror(f) ? errno : 0;
  }
}

void grid_rest(grid_input *in, grid_buf *b) {
  int err = grid__read(in->file, b);
  if (err) grid_fail("read: %s", strerror(err));
}

// Tables: a list of entries, and their numbers plus one by the hash of the key.

static uint64_t grid__hash(const unsigned char *p, size_t len) {
  uint64_t h = 0xcbf29ce484222325;
  for (size_t i = 0; i < len; i++) h = (h ^ p[i]) * 0x100000001b3;
  return h ^ h >> 32;
}

static void grid__grow(grid_table *t) {
  size_t n = t->mask ? 2 * (t->mask + 1) : 1024;
  free(t->slots);
  t->slots = grid__need(calloc(n, sizeof *t->slots));
  t->mask = n - 1;
  for (size_t i = 0; i < t->len; i++) {
    size_t at = grid__hash((const unsigned char *)t->entries[i].key, t->entries[i].len) & t->mask;
    while (t->slots[at]) at = (at + 1) & t->mask;
    t->slots[at] = i + 1;
  }
}

void grid_emit(grid_table *t, const void *key, size_t len, int64_t value) {
  if (2 * t->len >= t->mask) grid__grow(t);
  size_t at = grid__hash(key, len) & t->mask;
  for (; t->slots[at]; at = (at + 1) & t->mask) {
    grid_entry *e = &t->entries[t->slots[at] - 1];
    if (e->len == len && !memcmp(e->key, key, len)) {
      e->value = t->combine(e->value, value);
      return;
    }
  }
  if (t->len == t->cap) {
    t->cap = t->cap ? 2 * t->cap : 512;
    t->entries = grid__need(realloc(t->entries, t->cap * sizeof *t->entries));
  }
  t->entries[t->len] = (grid_entry){grid__copy(key, len), len, value};
  t->slots[at] = ++t->len;
}

static int grid__bykey(const void *a, const void *b) {
  const grid_entry *x = a, *y = b;
  int c = memcmp(x->key, y->key, x->len < y->len ? x->len : y->len);
  return c ? c : x->len < y->len ? -1 : x->len > y->len;
}

static void grid__sort(grid_table *t) {
  if (t->len) qsort(t->entries, t->len, sizeof *t->entries, grid__bykey);
}

int64_t grid_add(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
int64_t grid_min(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t grid_max(int64_t a, int64_t b) { return a > b ? a : b; }

// Records are lines: a key, a tab and a number. In a key, backslash, tab, newline and carriage return are escaped.

static void grid__records(grid_table *t) {
  grid__sort(t);
  for (size_t i = 0; i < t->len; i++) {
    const grid_entry *e = &t->entries[i];
    for (size_t k = 0; k < e->len; k++) {
      switch (e->key[k]) {
      case '\\': fputs("\\\\", stdout); break;
      case '\t': fputs("\\t", stdout); break;
      case '\n': fputs("\\n", stdout); break;
      case '\r': fputs("\\r", stdout); break;
      default: putchar(e->key[k]);
      }
    }
    printf("\t%" PRId64 "\n", e->value);
  }
}

static void grid__decode(grid_table *t, FILE *f) {
  char *line = NULL;
  size_t cap = 0;
  ssize_t n;
  for (size_t number = 1; (n = getline(&line, &cap, f)) >= 0; number++) {
    size_t key = 0;
    ssize_t i = 0;
    for (; i < n && line[i] != '\t'; i++) {
      char c = line[i];
      if (c == '\\') {
        switch (i + 1 < n ? line[++i] : 0) {
        case '\\': break;
        case 't': c = '\t'; break;
        case 'n': c = '\n'; break;
        case 'r': c = '\r'; break;
        default: grid_fail("line %zu: a backslash that stands for nothing", number);
        }
      }
      line[key++] = c;
    }
    if (i == n) grid_fail("line %zu is no record of a map function: it has no tab", number);
    char *end;
    errno = 0;
    int64_t value = strtoll(line + i + 1, &end, 10);
    if (errno || end == line + i + 1 || (*end && *end != '\n')) grid_fail("line %zu: its value is no whole number", number);
    grid_emit(t, line, key, value);
  }
  if (ferror(f)) grid_fail("read: %s", strerror(errno));
  free(line);
}

// Files.

FILE *grid_create(const char *path) {
  grid_buf p = {0};
  grid__text(&p, "/out/");
  size_t root = p.len;
  grid__text(&p, path);
  for (char *s = p.data + root; (s = strchr(s, '/')); s++) {
    *s = 0;
    if (mkdir(p.data, 0777) && errno != EEXIST) grid_fail("create %s: %s", path, strerror(errno));
    *s = '/';
  }
  FILE *f = fopen(p.data, "w");
  if (!f) grid_fail("create %s: %s", path, strerror(errno));
  free(p.data);
  return f;
}

FILE *grid_open(const char *cid, const char *path) {
  grid_buf p = {0};
  grid__text(&p, "/cid/");
  grid__text(&p, cid);
  if (*path) grid__text(&p, "/"), grid__text(&p, path);
  FILE *f = fopen(p.data, "r");
  if (!f) grid__system(errno, "open", p.data);
  free(p.data);
  return f;
}

int grid_secret(const char *name, grid_buf *b) {
  grid_buf p = {0};
  grid__text(&p, "/secrets/");
  grid__text(&p, name);
  FILE *f = fopen(p.data, "r");
  int err = f ? grid__read(f, b) : errno;
  if (f) fclose(f);
  free(p.data);
  return grid__system(err, "secret", name);
}

// What the host does.

int grid_progress(uint64_t done, uint64_t total) { return grid__told(grid__progress(done, total), "progress"); }
int grid_count(const char *name, uint64_t n) { return grid__told(grid__count(name, strlen(name), n), "count %.64s", name); }
int grid_observe(const char *name, double v) { return grid__told(grid__observe(name, strlen(name), v), "observe %.64s", name); }

// Numbers of the host are little-endian, as those of Wasm are.
static void grid__word(grid_buf *b, const void *p, size_t len) {
  uint32_t n = len;
  grid_append(b, &n, sizeof n);
  grid_append(b, p, len);
}

// grid__drain reads a descriptor to its end, and closes it.
static int grid__drain(uint32_t fd, grid_buf *b) {
  for (;;) {
    grid__room(b, 64 << 10);
    ssize_t n = read(fd, b->data + b->len, 64 << 10);
    int err = errno;
    b->data[b->len += n > 0 ? n : 0] = 0;
    if (n > 0) continue;
    close(fd);
    return n < 0 ? err : 0;
  }
}

// grid__map sends a request to the realm's map, and gives the response.
static int grid__map(grid_buf *request, grid_buf *response, const char *what, const char *key) {
  uint32_t fd;
  int err = grid__kv(request->data, request->len, &fd);
  if (!err) err = grid__drain(fd, response);
  free(request->data);
  *request = (grid_buf){0};
  return grid__told(err, "%s %.200s", what, key);
}

int grid_kv_get(const char *key, grid_buf *value, uint64_t *version) {
  grid_buf request = {0}, r = {0};
  grid_append(&request, "\1", 1);
  grid__word(&request, key, strlen(key));
  int err = grid__map(&request, &r, "get", key);
  if (!err && r.len < 8) err = grid__system(EIO, "get", key);
  if (!err) {
    if (version) memcpy(version, r.data, 8);
    grid_append(value, r.data + 8, r.len - 8);
  }
  free(r.data);
  return err;
}

// grid__take takes n bytes off the front of what is left of a response, NULL when there are not so many.
static char *grid__take(grid_buf *r, size_t *at, size_t n) {
  if (r->len - *at < n) return NULL;
  *at += n;
  return r->data + *at - n;
}

int grid_kv_list(const char *prefix, int f(void *arg, const char *key, const char *value, size_t len, uint64_t version), void *arg) {
  char *after = grid__copy("", 0);
  int err = 0, more = 1;
  while (more) {
    static const uint32_t limit = 1000;
    grid_buf request = {0}, r = {0};
    grid_append(&request, "\2", 1);
    grid_append(&request, &limit, 4);
    grid__word(&request, prefix, strlen(prefix));
    grid__word(&request, after, strlen(after));
    if ((err = grid__map(&request, &r, "list", prefix))) break;
    size_t at = 0;
    char *p = grid__take(&r, &at, 1);
    more = p && *p && r.len > 1;
    while (p && at < r.len) {
      char *key = NULL;
      uint32_t n = 0, size = 0;
      uint64_t version = 0;
      if ((p = grid__take(&r, &at, 4))) memcpy(&n, p, 4), p = grid__take(&r, &at, n);
      if (p) key = grid__copy(p, n), p = grid__take(&r, &at, 8);
      if (p) memcpy(&version, p, 8), p = grid__take(&r, &at, 4);
      if (p) memcpy(&size, p, 4), p = grid__take(&r, &at, size);
      if (!p) {
        free(key);
        break;
      }
      free(after);
      if (f(arg, after = key, p, size, version)) {
        at = r.len;
        more = 0;
      }
    }
    free(r.data);
    if (!p) {
      err = grid__system(EIO, "list", prefix);
      break;
    }
  }
  free(after);
  return err;
}

void grid_txn_if(grid_txn *t, const char *key, uint64_t version) {
  grid__word(&t->conditions, key, strlen(key));
  grid_append(&t->conditions, &version, 8);
  t->n[0]++;
}

void grid_txn_put(grid_txn *t, const char *key, const void *value, size_t len) {
  grid__word(&t->puts, key, strlen(key));
  grid__word(&t->puts, value, len);
  t->n[1]++;
}

void grid_txn_delete(grid_txn *t, const char *key) {
  grid__word(&t->deletes, key, strlen(key));
  t->n[2]++;
}

int grid_txn_commit(grid_txn *t) {
  grid_buf request = {0}, r = {0}, *parts[] = {&t->conditions, &t->puts, &t->deletes};
  grid_append(&request, "\3", 1);
  for (int i = 0; i < 3; i++) {
    grid_append(&request, &t->n[i], 4);
    grid_append(&request, parts[i]->data, parts[i]->len);
    free(parts[i]->data);
  }
  *t = (grid_txn){0};
  int err = grid__map(&request, &r, "commit", "a transaction");
  free(r.data);
  return err;
}

int grid_kv_put(const char *key, const void *value, size_t len) {
  grid_txn t = {0};
  grid_txn_put(&t, key, value, len);
  return grid_txn_commit(&t);
}

int grid_kv_delete(const char *key) {
  grid_txn t = {0};
  grid_txn_delete(&t, key);
  return grid_txn_commit(&t);
}

int grid_fetch(const char *method, const char *url, const char *headers, const void *body, size_t len, grid_response *r) {
  grid_buf b = {0};
  uint32_t fd;
  *r = (grid_response){0};
  grid__text(&b, method), grid__text(&b, " "), grid__text(&b, url), grid__text(&b, "\n");
  if (headers) grid__text(&b, headers);
  grid__text(&b, "\n");
  grid_append(&b, body, len);
  int err = grid__http_open(b.data, b.len, &fd);
  free(b.data);
  if (err) return grid__told(err, "fetch %.400s", url);
  if (!(r->body = fdopen(fd, "r"))) {
    err = errno;
    close(fd);
    return grid__system(err, "fetch", url);
  }
  char *line = NULL;
  size_t cap = 0;
  ssize_t n = getline(&line, &cap, r->body);
  grid_buf head = {0};
  grid_append(&head, "", 0);
  if (n > 0) r->status = atoi(line);
  while (n > 0 && (n = getline(&line, &cap, r->body)) > 1) grid_append(&head, line, n);
  free(line);
  r->head = head.data;
  if (n == 1 && r->status >= 100) return 0;
  err = ferror(r->body) ? errno : EIO;
  fclose(r->body);
  free(r->head);
  *r = (grid_response){0};
  return grid__told(err, "fetch %.400s", url);
}

static grid_buf grid__spawned; // names of functions, char *, by number of child

int grid_spawn(const char *function, const void *in, size_t len, const char *const *args, uint32_t *child) {
  grid_buf b = {0};
  uint32_t n = 0;
  grid__word(&b, function, strlen(function));
  while (args && args[n]) n++;
  grid_append(&b, &n, 4);
  for (uint32_t i = 0; i < n; i++) grid__word(&b, args[i], strlen(args[i]));
  grid_append(&b, in, len);
  int err = grid__spawn(b.data, b.len, child);
  free(b.data);
  if (err) return grid__told(err, "spawn %.64s", function);
  char *name = grid__copy(function, strlen(function));
  grid_append(&grid__spawned, &name, sizeof name);
  return 0;
}

int grid_await(uint32_t child, grid_buf *out) {
  uint32_t fd, exit;
  const char *name = child < grid__spawned.len / sizeof name ? ((char **)grid__spawned.data)[child] : "?";
  int err = grid__await(child, &fd, &exit);
  if (err) return grid__told(err, "task %.64s", name);
  if (exit) {
    close(fd);
    char text[1025], what[128], *t = text;
    size_t used = 0;
    if (grid__last_error(text, sizeof text - 1, &used)) used = 0;
    while (used && text[used - 1] == '\n') used--;
    text[used] = 0;
    size_t n = strlen(name);
    if (!strncmp(t, name, n) && !strncmp(t + n, ": ", 2)) t += n + 2; // as grid_fail has said it there
    snprintf(what, sizeof what, "task %.64s: exit code %" PRIu32, name, exit);
    if (!strncmp(t, what, strlen(what))) snprintf(grid__message, sizeof grid__message, "%s", t); // nor is the same said twice
    else snprintf(grid__message, sizeof grid__message, "%s%s%s", what, *t ? ": " : "", t);
    return ECANCELED;
  }
  return grid__told(grid__drain(fd, out), "task %.64s: read its output", name);
}

// Being called.

static const char *grid__kind(const grid_function *f) {
  return f->func ? "func" : f->map ? "map" : f->reduce ? "reduce" : "task";
}

static void grid__json(const char *s) {
  putchar('"');
  for (; *s; s++) {
    if (*s == '"' || *s == '\\') printf("\\%c", *s);
    else if ((unsigned char)*s < ' ') printf("\\u%04x", *s);
    else putchar(*s);
  }
  putchar('"');
}

static void grid__describe(void) {
  printf("{\"abi\":2,\"functions\":[");
  for (const grid_function *f = grid_functions; f->name; f++) {
    if (f != grid_functions) putchar(',');
    printf("{\"name\":");
    grid__json(f->name);
    printf(",\"kind\":\"%s\"", grid__kind(f));
    if (f->doc) printf(",\"doc\":"), grid__json(f->doc);
    if (f->input) printf(",\"input\":%s", f->input);
    if (f->output) printf(",\"output\":%s", f->output);
    putchar('}');
  }
  printf("]}\n");
}

static const grid_function *grid__pick(const char *name) {
  grid_buf names = {0};
  for (const grid_function *f = grid_functions; f->name; f++) {
    if (name ? !strcmp(name, f->name) : !f[1].name && f == grid_functions) return f;
    if (names.len) grid__text(&names, ", ");
    grid__text(&names, f->name);
  }
  if (!name) grid_fail("no function was named; this program has: %s", names.data ? names.data : "none");
  grid_fail("this program has no function \"%s\", only: %s", name, names.data ? names.data : "none");
}

static void grid__run(const grid_function *f) {
  grid_input in = {0};
  grid_table t = {.combine = f->combine ? f->combine : grid_add};
  grid_buf b = {0};
  grid__function = f->name;
  if (f->func) {
    grid_append(&b, "", 0);
    while (grid_next(&in)) grid_rest(&in, &b);
    f->func(b.data, b.len);
  } else if (f->map) {
    while (grid_next(&in)) f->map(&in, &t);
    grid__records(&t);
  } else if (f->reduce) {
    while (grid_next(&in)) grid__decode(&t, in.file);
    grid__sort(&t);
    f->reduce(&t);
  } else if (f->task) {
    f->task();
  }
}

// grid__environment takes the task's variables in place of those that the C library may have found at its start.
static void grid__environment(void) {
  size_t n = 0, size = 0;
  if (__wasi_environ_sizes_get(&n, &size) || n > SIZE_MAX / sizeof(char *) - 1) return;
  char **all = grid__need(calloc(n + 1, sizeof *all)), *text = grid__need(malloc(size + 1));
  if (n && __wasi_environ_get((uint8_t **)all, (uint8_t *)text)) n = 0;
  clearenv();
  for (size_t i = 0; i < n; i++) putenv(all[i]); // which keeps it
  free(all);
}

// grid_call is where the grid enters, whichever function it wants.
__attribute__((export_name("grid_call"))) int grid_call(void) {
  grid__environment();
  const char *name = getenv("GRID_FUNC");
  if (name && !*name) name = NULL;
  if (name && !strcmp(name, "grid.describe")) grid__describe();
  else grid__run(grid__pick(name));
  if (fflush(stdout) || ferror(stdout)) grid_fail("write to stdout: %s", strerror(errno));
  fflush(NULL);
  return 0;
}

#endif
