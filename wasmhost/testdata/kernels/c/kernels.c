// Kernels compute for a while and print what only the work can tell. The same are in Go and Rust.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// bits is how many it takes to write n.
static int bits(unsigned n) { return n ? 32 - __builtin_clz(n) : 0; }

// SHA-256, FIPS 180-4.
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void block(uint32_t h[8], const uint8_t *p) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + w[i - 7] + (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
  }
  memcpy(s, h, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t a = s[0], e = s[4];
    uint32_t t = s[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + K[i] + w[i];
    uint32_t u = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += t;
    s[0] = t + u;
  }
  for (int i = 0; i < 8; i++) h[i] += s[i];
}

static void sum256(const uint8_t *p, size_t n, uint8_t out[32]) {
  uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint8_t last[64] = {0};
  uint64_t length = n * 8;
  for (; n >= 64; p += 64, n -= 64) block(h, p);
  if (n) memcpy(last, p, n); // callers have whole blocks, or none
  last[n] = 0x80;
  for (int i = 0; i < 8; i++) last[63 - i] = length >> 8 * i;
  block(h, last);
  for (int i = 0; i < 32; i++) out[i] = h[i / 4] >> (24 - i % 4 * 8);
}

static void sha256(int scale) {
  static uint8_t buffer[64 << 10];
  uint8_t sum[32];
  sum256(buffer, 0, sum);
  while (scale--) {
    memcpy(buffer, sum, sizeof sum);
    sum256(buffer, sizeof buffer, sum);
  }
  for (int i = 0; i < 32; i++) printf("%02x", sum[i]);
  puts("");
}

static void quick(uint32_t *list, int n) {
  while (n > 1) {
    uint32_t pivot = list[n / 2];
    int i = 0, j = n - 1;
    for (;; i++, j--) {
      while (list[i] < pivot) i++;
      while (list[j] > pivot) j--;
      if (i >= j) break;
      uint32_t x = list[i];
      list[i] = list[j];
      list[j] = x;
    }
    if (i < n - i) {
      quick(list, i);
      list += i;
      n -= i;
    } else {
      quick(list + i, n - i);
      n = i;
    }
  }
}

static void sort(int scale) {
  int n = 3000 * scale;
  uint32_t *list = malloc(n * sizeof *list), x = 1;
  for (int i = 0; i < n; i++) list[i] = x = x * 1664525 + 1013904223;
  quick(list, n);
  printf("%u\n", list[n / 2]);
}

static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static void matmul(int scale) {
  int n = 16 * bits(scale);
  double *a = malloc(n * n * sizeof *a), *b = malloc(n * n * sizeof *b), *c = malloc(n * n * sizeof *c);
  for (int i = 0; i < n * n; i++) {
    a[i] = i % 7;
    b[i] = i % 5;
  }
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) {
      double sum = 0;
      for (int k = 0; k < n; k++) sum += a[i * n + k] * b[k * n + j];
      c[i * n + j] = sum;
    }
  printf("%.0f\n", c[n + 1]);
}

struct body { double x, y, z, vx, vy, vz, mass; };
static const double sun = 4 * M_PI * M_PI, year = 365.24;

static double energy(const struct body *bodies) {
  double e = 0;
  for (int i = 0; i < 5; i++) {
    struct body b = bodies[i];
    e += b.mass * (b.vx * b.vx + b.vy * b.vy + b.vz * b.vz) / 2;
    for (int j = i + 1; j < 5; j++) {
      double x = b.x - bodies[j].x, y = b.y - bodies[j].y, z = b.z - bodies[j].z;
      e -= b.mass * bodies[j].mass / sqrt(x * x + y * y + z * z);
    }
  }
  return e;
}

static void nbody(int scale) {
  struct body bodies[5] = {
      {.mass = sun},
      {4.84143144246472090, -1.16032004402742839, -0.103622044471123109, 0.00166007664274403694 * year, 0.00769901118419740425 * year, -0.0000690460016972063023 * year, 0.000954791938424326609 * sun},
      {8.34336671824457987, 4.12479856412430479, -0.403523417114321381, -0.00276742510726411228 * year, 0.00499852801234917238 * year, 0.0000230417297573763929 * year, 0.000285885980666130812 * sun},
      {12.8943695621391310, -15.1111514016986312, -0.223307578892655734, 0.00296460137564761618 * year, 0.00237847173959480950 * year, -0.0000296589568540237556 * year, 0.0000436624404335156298 * sun},
      {15.3796971148509165, -25.9193146099879641, 0.179258772950371181, 0.00268067772490389322 * year, 0.00162824170038242295 * year, -0.0000951592254519715870 * year, 0.0000515138902046611451 * sun},
  };
  for (int i = 0; i < 5; i++) {
    bodies[0].vx -= bodies[i].vx * bodies[i].mass / sun;
    bodies[0].vy -= bodies[i].vy * bodies[i].mass / sun;
    bodies[0].vz -= bodies[i].vz * bodies[i].mass / sun;
  }
  double before = energy(bodies);
  const double step = 0.01;
  for (int n = 1000 * scale; n--;) {
    for (int i = 0; i < 5; i++) {
      struct body *b = &bodies[i];
      for (int j = i + 1; j < 5; j++) {
        struct body *c = &bodies[j];
        double x = b->x - c->x, y = b->y - c->y, z = b->z - c->z;
        double square = x * x + y * y + z * z, mag = step / (square * sqrt(square));
        b->vx -= x * c->mass * mag;
        b->vy -= y * c->mass * mag;
        b->vz -= z * c->mass * mag;
        c->vx += x * b->mass * mag;
        c->vy += y * b->mass * mag;
        c->vz += z * b->mass * mag;
      }
    }
    for (int i = 0; i < 5; i++) {
      bodies[i].x += step * bodies[i].vx;
      bodies[i].y += step * bodies[i].vy;
      bodies[i].z += step * bodies[i].vz;
    }
  }
  printf("%.9f %.9f\n", before, energy(bodies));
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int scale = atoi(argv[2]);
  if (!strcmp(argv[1], "sha256")) sha256(scale);
  else if (!strcmp(argv[1], "nbody")) nbody(scale);
  else if (!strcmp(argv[1], "matmul")) matmul(scale);
  else if (!strcmp(argv[1], "sort")) sort(scale);
  else if (!strcmp(argv[1], "fib")) printf("%d\n", fib(20 + bits(scale)));
  else return 2;
  return 0;
}
