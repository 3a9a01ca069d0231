// Counts letters: a function of one value, and a map with its reduce over many files.
#include <ctype.h>

#define GRID_IMPLEMENTATION
#include "grid.h"

static void shout(char *in, size_t len) {
  for (size_t i = 0; i < len; i++) putchar(toupper((unsigned char)in[i]));
}

static void letters(grid_input *in, grid_table *out) {
  for (int c; (c = fgetc(in->file)) != EOF;) {
    char letter = tolower(c);
    if (isalpha(c)) grid_emit(out, &letter, 1, 1);
  }
}

static void print(grid_table *all) {
  for (size_t i = 0; i < all->len; i++) printf("%s %lld\n", all->entries[i].key, (long long)all->entries[i].value);
}

const grid_function grid_functions[] = {
    {"shout", "Makes letters upper case.", .func = shout},
    {"letters", "Counts the letters of its input files.", .map = letters, .combine = grid_add},
    {"print", "Prints what letters counted.", .reduce = print, .combine = grid_add},
    {0},
};
