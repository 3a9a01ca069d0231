// The conformance plugin in C: what each function does is said in docs/languages.md.
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define GRID_IMPLEMENTATION
#include "grid.h"

static char *warm; // made before the first task

__attribute__((constructor)) static void start(void) {
  warm = strdup("made at the start");
  getenv("GRID_FUNC"); // what it finds here is not a task's
}

static void echo(char *in, size_t len) { fwrite(in, 1, len, stdout); }

static void upper(char *in, size_t len) {
  for (size_t i = 0; i < len; i++) putchar(toupper((unsigned char)in[i]));
}

static void once(void) {
  puts(warm);
  strcpy(warm, "used");
}

static void args(void) {
  for (char **a = grid_args(); *a; a++) puts(*a);
}

static void env(void) {
  for (char **a = grid_args(); *a; a++) printf("%s=%s\n", *a, getenv(*a) ? getenv(*a) : "(unset)");
}

static void number(void) { puts(grid_number() ? grid_number() : "(none)"); }

static void files(void) {
  for (grid_input in = {0}; grid_next(&in);) {
    grid_buf path = {0}, data = {0};
    grid_append(&path, "copy/", 5);
    grid_append(&path, in.name, strlen(in.name));
    grid_rest(&in, &data);
    FILE *f = grid_create(path.data);
    fwrite(data.data, 1, data.len, f);
    if (fclose(f)) grid_fail("write %s: %s", path.data, strerror(errno));
    printf("%s %zu\n", in.name, data.len);
  }
}

static void lines(void) {
  size_t n = 0, bytes = 0;
  char *line = NULL;
  size_t cap = 0;
  for (grid_input in = {0}; grid_next(&in);)
    for (ssize_t k; (k = getline(&line, &cap, in.file)) > 0; n++) bytes += k - (line[k - 1] == '\n');
  printf("%zu %zu\n", n, bytes);
}

static void words(grid_input *in, grid_table *out) {
  grid_buf b = {0};
  grid_rest(in, &b);
  if (b.data[0] == '!') grid_fail("%s", b.data + 1);
  for (char *s = b.data, *end = b.data + b.len; s < end;) {
    char *stop = memchr(s, ';', end - s);
    if (!stop) stop = end;
    grid_emit(out, s, stop - s, 1);
    s = stop + 1;
  }
}

static void total(grid_table *all) {
  for (size_t i = 0; i < all->len; i++) {
    printf("[");
    fwrite(all->entries[i].key, 1, all->entries[i].len, stdout);
    printf("]=%" PRId64 "\n", all->entries[i].value);
  }
}

static void fail(char *in, size_t len) {
  (void)len;
  grid_fail("%s", in);
}

static void crash(void) { __builtin_trap(); }

static void logs(void) {
  grid_log("one");
  grid_log("%s", "two");
}

static void progress(void) {
  if (grid_progress(1, 4) || grid_progress(4, 4) || grid_progress(7, 0)) grid_fail("%s", grid_error());
}

static void metrics(void) {
  if (grid_count("lines", 3) || grid_count("lines", 4) || grid_observe("size", 0.5) || grid_observe("size", 3)) grid_fail("%s", grid_error());
  if (grid_count("not a name", 1) != EINVAL) grid_fail("it was not refused");
}

static int entry(void *left, const char *key, const char *value, size_t len, uint64_t version) {
  (void)version;
  if (--*(int *)left < 0) return 1;
  printf("%s = %.*s\n", key, (int)len, value);
  return 0;
}

static const char *came(int err) {
  switch (err) {
  case 0: return "done";
  case ENOENT: return "none";
  case EAGAIN: return "conflict";
  case ENOTCAPABLE: return "denied";
  default: return grid_error();
  }
}

static void kv(void) {
  char *line = NULL;
  size_t cap = 0;
  while (getline(&line, &cap, stdin) > 0) {
    char *save, *op = strtok_r(line, " \n", &save), *key = strtok_r(NULL, " \n", &save), *x = strtok_r(NULL, " \n", &save);
    grid_buf v = {0};
    uint64_t version = 0;
    grid_txn t = {0};
    if (!key) {
      grid_fail("no key");
    } else if (!strcmp(op, "get")) {
      int err = grid_kv_get(key, &v, NULL);
      puts(err ? came(err) : v.data);
    } else if (!strcmp(op, "put")) {
      puts(came(grid_kv_put(key, x, strlen(x))));
    } else if (!strcmp(op, "delete")) {
      puts(came(grid_kv_delete(key)));
    } else if (!strcmp(op, "list")) {
      int left = atoi(x), err = grid_kv_list(key, entry, &left);
      puts(err ? came(err) : left < 0 ? "more" : "end");
    } else if (!strcmp(op, "add")) { // to a number, if nobody else writes it meanwhile
      int err = grid_kv_get(key, &v, &version);
      if (!err || err == ENOENT) {
        char sum[32];
        snprintf(sum, sizeof sum, "%lld", (err ? 0 : atoll(v.data)) + atoll(x));
        grid_txn_if(&t, key, version);
        grid_txn_put(&t, key, sum, strlen(sum));
        err = grid_txn_commit(&t);
      }
      puts(came(err));
    } else if (!strcmp(op, "new")) { // two keys or none
      grid_txn_if(&t, key, 0);
      grid_txn_put(&t, key, "", 0);
      grid_txn_delete(&t, x);
      puts(came(grid_txn_commit(&t)));
    } else {
      grid_fail("what is %s?", op);
    }
    free(v.data);
  }
}

static void secret(char *in, size_t len) {
  (void)len;
  grid_buf b = {0};
  if (grid_secret(in, &b)) grid_fail("%s", grid_error());
  fwrite(b.data, 1, b.len, stdout);
}

static void data(void) {
  FILE *f = grid_open(grid_args()[0], grid_args()[1]);
  if (!f) grid_fail("%s", grid_error());
  for (int c; (c = fgetc(f)) != EOF;) putchar(c);
  fclose(f);
}

static void random_(void) {
  unsigned char b[8];
  if (getentropy(b, sizeof b)) grid_fail("%s", strerror(errno));
  for (size_t i = 0; i < sizeof b; i++) printf("%02x", b[i]);
  puts("");
}

static void clock_(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  printf("%lld\n", now.tv_sec * 1000LL + now.tv_nsec / 1000000);
}

static void fib(char *in, size_t len) {
  (void)len;
  int n = atoi(in);
  if (n < 2) {
    printf("%d", n);
    return;
  }
  uint32_t child[2];
  long long sum = 0;
  for (int i = 0; i < 2; i++) {
    char text[16];
    snprintf(text, sizeof text, "%d", n - 1 - i);
    if (grid_spawn("fib", text, strlen(text), NULL, &child[i])) grid_fail("%s", grid_error());
  }
  for (int i = 0; i < 2; i++) {
    grid_buf out = {0};
    if (grid_await(child[i], &out)) grid_fail("%s", grid_error());
    sum += atoll(out.data);
  }
  printf("%lld", sum);
}

static void children(void) {
  static const char *const names[] = {"args", "fail", "crash", "absent"}, *const given[] = {"a", "b c", NULL};
  uint32_t child[4];
  for (int i = 0; i < 4; i++)
    if (grid_spawn(names[i], "on purpose", 10, given, &child[i])) grid_fail("%s", grid_error());
  for (int i = 3; i >= 0; i--) {
    grid_buf out = {0};
    if (grid_await(child[i], &out)) printf("%s\n", grid_error());
    else printf("%s: %s", names[i], out.data);
  }
}

static void fetch(char *in, size_t len) {
  (void)len;
  grid_response r;
  int err = grid_fetch("POST", in, "x-test: yes\n", "hello", 5, &r);
  if (err == ENOTCAPABLE) {
    printf("denied");
  } else if (err) {
    grid_fail("%s", grid_error());
  } else {
    printf("%d %s", r.status, strstr(r.head, "x-answer: yes\n") ? "yes " : "no ");
    for (int c; (c = fgetc(r.body)) != EOF;) putchar(c);
    fclose(r.body);
  }
}

const grid_function grid_functions[] = {
    {"echo", "Gives what it gets.", .func = echo},
    {"upper", "Makes ASCII letters upper case.", .func = upper},
    {"once", "Tells whether it is the first.", .task = once},
    {"args", "Prints its arguments.", .task = args},
    {"env", "Prints variables.", .task = env},
    {"number", "Prints the task's number.", .task = number},
    {"files", "Copies its inputs.", .task = files},
    {"lines", "Counts lines and bytes.", .task = lines},
    {"words", "Counts what is between semicolons.", .map = words, .combine = grid_add},
    {"total", "Prints what words counted.", .reduce = total, .combine = grid_add},
    {"fail", "Fails with its input.", .func = fail},
    {"crash", "Traps.", .task = crash},
    {"log", "Writes to the log.", .task = logs},
    {"progress", "Tells its progress.", .task = progress},
    {"metrics", "Counts and measures.", .task = metrics},
    {"kv", "Works on the realm's map.", .task = kv},
    {"secret", "Tells a secret.", .func = secret},
    {"data", "Prints granted data.", .task = data},
    {"random", "Prints random bytes.", .task = random_},
    {"clock", "Prints the time.", .task = clock_},
    {"fib", "Computes Fibonacci numbers by \"tasks\".", "{\"type\":\"integer\"}", "{\"type\":\"integer\"}", .func = fib},
    {"children", "Has others run.", .task = children},
    {"fetch", "Sends a request.", .func = fetch},
    {0},
};
