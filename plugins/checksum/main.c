// Checksums of files, as sha256sum and cksum -a crc32b print them.
#include <string.h>

#define GRID_IMPLEMENTATION
#include "../../sdk/c/grid.h"

static uint32_t crc_table[256];

// What is the same for every task is made before the first one.
__attribute__((constructor)) static void make_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
    crc_table[i] = c;
  }
}

static uint32_t crc_add(uint32_t crc, const unsigned char *p, size_t len) {
  crc = ~crc;
  while (len--) crc = crc >> 8 ^ crc_table[(crc ^ *p++) & 0xff];
  return ~crc;
}

// SHA-256, by FIPS 180-4.
static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha_block(uint32_t h[8], const unsigned char *p) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
  }
  memcpy(s, h, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
    uint32_t t2 = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) h[i] += s[i];
}

static unsigned char buffer[64 << 10]; // whole blocks of SHA-256

// more reads on, and gives 0 at the end. Whoever watches the job sees how many bytes there were.
static size_t more(grid_input *in) {
  size_t n = fread(buffer, 1, sizeof buffer, in->file);
  if (ferror(in->file)) grid_fail("it cannot be read");
  grid_count("bytes", n);
  return n;
}

static void sha256(void) {
  for (grid_input in = {0}; grid_next(&in);) {
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint64_t size = 0;
    unsigned char end[128] = {0};
    for (size_t n; (n = more(&in)) > 0;) {
      size += n;
      size_t whole = n / 64 * 64;
      for (size_t i = 0; i < whole; i += 64) sha_block(h, buffer + i);
      memcpy(end, buffer + whole, n - whole); // only the last time there is a rest
    }
    size_t rest = size % 64, len = rest < 56 ? 64 : 128;
    end[rest] = 0x80;
    for (int i = 0; i < 8; i++) end[len - 1 - i] = size * 8 >> 8 * i;
    for (size_t i = 0; i < len; i += 64) sha_block(h, end + i);
    for (int i = 0; i < 8; i++) printf("%08x", h[i]);
    printf("  %s\n", in.name);
  }
}

static void crc32(void) {
  for (grid_input in = {0}; grid_next(&in);) {
    uint32_t crc = 0;
    for (size_t n; (n = more(&in)) > 0;) crc = crc_add(crc, buffer, n);
    printf("%08x  %s\n", crc, in.name);
  }
}

const grid_function grid_functions[] = {
    {"sha256", "Prints the SHA-256 of each input file.", .task = sha256},
    {"crc32", "Prints the CRC-32 of each input file.", .task = crc32},
    {0},
};
