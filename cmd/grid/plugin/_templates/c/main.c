// It counts the words of texts: of one, by a function of bytes, or of any number of files on all nodes, by a map and a reduce.
#include <ctype.h>

#define GRID_IMPLEMENTATION
#include "grid.h"

// next_word finds the next word at or behind p, before end, and its length; it is end when there is none.
static const char *next_word(const char *p, const char *end, size_t *len) {
  while (p < end && !isalnum((unsigned char)*p)) p++;
  for (*len = 0; p + *len < end && isalnum((unsigned char)p[*len]);) ++*len;
  return p;
}

// count is for one call: its whole input, and what it prints is the result. A failure is told to the caller.
static void count(char *in, size_t len) {
  size_t words = 0, n;
  for (const char *end = in + len, *p = next_word(in, end, &n); p < end; p = next_word(p + n, end, &n)) words++;
  if (words == 0) grid_fail("there is no word in the text");
  grid_log("counted %zu words", words);
  printf("%zu\n", words);
}

// map is called for each input file. What it emits is combined by grid_add.
static void map(grid_input *in, grid_table *out) {
  grid_buf text = {0};
  grid_rest(in, &text);
  for (size_t i = 0; i < text.len; i++) text.data[i] = tolower((unsigned char)text.data[i]);
  size_t n;
  for (const char *end = text.data + text.len, *p = next_word(text.data, end, &n); p < end; p = next_word(p + n, end, &n))
    grid_emit(out, p, n, 1);
}

// reduce is called once, with every key in order.
static void reduce(grid_table *all) {
  for (size_t i = 0; i < all->len; i++) printf("%lld %s\n", (long long)all->entries[i].value, all->entries[i].key);
}

const grid_function grid_functions[] = {
    {"count", "Counts the words of one text.", .func = count},
    {"map", "Counts the words of input files, for reduce.", .map = map, .combine = grid_add},
    {"reduce", "Adds up what map has counted, and prints it in order of words.", .reduce = reduce, .combine = grid_add},
    {0},
};
