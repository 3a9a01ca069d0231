// A library that keeps state: what _initialize makes of it, and what calls leave.
#include <stdlib.h>
#include <string.h>

static char *text;
static int calls;

__attribute__((constructor)) static void start(void) {
  text = malloc(100000);
  strcpy(text, "made at the start");
}

// next gives another number at each call, and depends on all that earlier calls have left.
__attribute__((export_name("next"))) int next(int n) {
  text = realloc(text, 100000 + 1000 * ++calls);
  text[n & 1023] += n;
  int sum = calls;
  for (int i = 0; i < 1024; i++) sum = sum * 31 + text[i];
  return sum;
}

__attribute__((export_name("noop"))) int noop(int n) { return n; }
