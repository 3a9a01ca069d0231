// A library in C, as its author would write one for the grid: state is made once, and functions begin from it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *text;
static int calls;

__attribute__((constructor)) static void start(void) {
  text = malloc(1000);
  strcpy(text, "made at the start");
}

// count tells what it found, and leaves its mark.
__attribute__((export_name("count"))) void count(void) {
  printf("%s %d\n", text, ++calls);
  strcat(text, ", used");
  fflush(stdout); // nothing does it later
}

// lines counts those of stdin, and gives 3 when there are none.
__attribute__((export_name("lines"))) int lines(void) {
  int n = 0, c;
  while ((c = getchar()) != EOF) n += c == '\n';
  printf("%d\n", n);
  fflush(stdout);
  return n ? 0 : 3;
}
