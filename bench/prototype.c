/* Winograd convolution written by hand: how near generated code comes to it, on the machine at hand.
 *
 *     cc -O3 -march=native -pthread bench/prototype.c -o prototype -lm
 *     ./prototype C H W K TILE THREADS STORES
 *
 * One 3x3 convolution, stride 1, padding 1, of f32[1, C, H, W] with f32[K, C, 3, 3]; F(4,3) with the points 0, 1, -1, 2, -2, or
 * F(2,3). Weights are transformed once. Sixteen consecutive tiles, rows and columns flattened, are the lanes of a vector; a
 * thread keeps X of a block of tiles as [position][16 tiles][channel][16] and M as [output channel][position][tile] in
 * memory of its own. Products are blocks of 3 vectors by 8 output channels, 2 by 8, 1 by 16, or of 16 output
 * channels by up to 8 tiles that are left. Blocks of tiles and of channels and what threads share out are tried, and the fastest is
 * taken. STORES is `kept`, or `past`: results then go past the caches. Needs AVX-512.
 *
 * It prints a line of JSON with the largest error of some outputs, then one for each line that it reads, a number of
 * seconds: the median time of a call in that time. bench/prototype.py asks. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))
enum { LANES = 16, MOST_SEGMENTS = 16, LEFT = 8 };

static int C, H, W, K, TILE, THREADS, PAST;
static int A, P, TH, TW, T, GROUPS;
static float *in, *out, *weights, *U;

/* Tiles of a group that lie in one row of tiles. */
struct segment {
  int row, col, lane;     /* of the first */
  __mmask16 low[4], high[4]; /* pixels of the input that are there, from the first on and from the fifth on */
  __mmask16 store[4];
};
struct group {
  int count;
  struct segment s[MOST_SEGMENTS];
};
static struct group *groups;

/* What is tried. */
struct plan {
  int groups, channels, terms, split;
};
static struct plan plan;

struct scratch {
  float *x, *m;
};
static struct scratch *scratch;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static float *make(size_t n) {
  void *p = aligned_alloc(1 << 21, (n * sizeof(float) + (1 << 21) - 1) & ~(size_t)((1 << 21) - 1));
  if (!p) exit(1);
  memset(p, 0, n * sizeof(float));
  return p;
}

static long x_group(void) { return (long)C * LANES + LANES; }
static long x_position(void) { return (plan.groups + 1) * x_group() + LANES; }
static long m_position(void) { return (plan.groups + 1) * LANES; }
static long m_channel(void) { return P * m_position() + LANES; }

static void describe_groups(void) {
  groups = calloc(GROUPS, sizeof *groups);
  for (int g = 0; g < GROUPS; g++) {
    struct group *to = &groups[g];
    for (int lane = 0; lane < LANES && g * LANES + lane < T; lane++) {
      int tile = g * LANES + lane, row = tile / TW, col = tile % TW;
      if (!to->count || to->s[to->count - 1].row != row) to->s[to->count++] = (struct segment){.row = row, .col = col, .lane = lane};
      struct segment *s = &to->s[to->count - 1];
      for (int j = 0; j < TILE; j++) {
        int px = TILE * col - 1 + j, at = lane * TILE + j;
        if (px >= 0 && px < W) s->low[at / 16] |= 1u << at % 16;
        if (px + TILE < W && j < 2) s->high[at / 16] |= 1u << at % 16;
        if (px + 1 < W) s->store[at / 16] |= 1u << at % 16;
      }
    }
  }
}

#define PICK(name, f) \
  _mm512_setr_epi32(f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15))
#define EVEN(i) (2 * (i))
#define ODD(i) (2 * (i) + 1)
#define LOW(i) ((i) / 2 + ((i) & 1) * 16)
#define HIGH(i) (8 + (i) / 2 + ((i) & 1) * 16)
#define PERMUTE(a, f, b) _mm512_permutex2var_ps(a, PICK(, f), b)

INLINE void rows_in(const __m512 x[6], __m512 y[6]) {
  const __m512 two = _mm512_set1_ps(2), four = _mm512_set1_ps(4), five = _mm512_set1_ps(5);
  __m512 p = _mm512_fnmadd_ps(four, x[2], x[4]), q = _mm512_fnmadd_ps(four, x[1], x[3]);
  __m512 r = _mm512_sub_ps(x[4], x[2]), s = _mm512_sub_ps(x[3], x[1]);
  y[0] = _mm512_fmadd_ps(four, x[0], _mm512_fnmadd_ps(five, x[2], x[4]));
  y[1] = _mm512_add_ps(p, q);
  y[2] = _mm512_sub_ps(p, q);
  y[3] = _mm512_fmadd_ps(two, s, r);
  y[4] = _mm512_fnmadd_ps(two, s, r);
  y[5] = _mm512_fmadd_ps(four, x[1], _mm512_fnmadd_ps(five, x[3], x[5]));
}

INLINE void rows_out(const __m512 x[6], __m512 y[4]) {
  const __m512 two = _mm512_set1_ps(2), four = _mm512_set1_ps(4), eight = _mm512_set1_ps(8);
  __m512 p = _mm512_add_ps(x[1], x[2]), q = _mm512_sub_ps(x[1], x[2]);
  __m512 r = _mm512_add_ps(x[3], x[4]), s = _mm512_sub_ps(x[3], x[4]);
  y[0] = _mm512_add_ps(_mm512_add_ps(x[0], p), r);
  y[1] = _mm512_fmadd_ps(two, s, q);
  y[2] = _mm512_fmadd_ps(four, r, p);
  y[3] = _mm512_add_ps(_mm512_fmadd_ps(eight, s, q), x[5]);
}

/* X of one channel and group. */
static void input_4(const float *plane, const struct group *g, float *x, long position) {
  __m512 v[6][6];
  __m512 low[4][6], high[4][6];
  for (int k = 0; k < 4; k++) {
    __m512 a[6], b[6];
    for (int r = 0; r < 6; r++) a[r] = b[r] = _mm512_setzero_ps();
    for (int n = 0; n < g->count; n++) {
      const struct segment *s = &g->s[n];
      if (!(s->low[k] | s->high[k])) continue;
      for (int r = 0; r < 6; r++) {
        int y = 4 * s->row - 1 + r;
        if (y < 0 || y >= H) continue;
        const float *at = plane + (long)y * W + 4 * (s->col - s->lane) - 1 + 16 * k;
        a[r] = _mm512_mask_loadu_ps(a[r], s->low[k], at);
        b[r] = _mm512_mask_loadu_ps(b[r], s->high[k], at + 4);
      }
    }
    rows_in(a, low[k]);
    rows_in(b, high[k]);
  }
  for (int i = 0; i < 6; i++) {
    __m512 e0 = PERMUTE(low[0][i], EVEN, low[1][i]), e1 = PERMUTE(low[2][i], EVEN, low[3][i]);
    __m512 o0 = PERMUTE(low[0][i], ODD, low[1][i]), o1 = PERMUTE(low[2][i], ODD, low[3][i]);
    v[i][0] = PERMUTE(e0, EVEN, e1);
    v[i][2] = PERMUTE(e0, ODD, e1);
    v[i][1] = PERMUTE(o0, EVEN, o1);
    v[i][3] = PERMUTE(o0, ODD, o1);
    e0 = PERMUTE(high[0][i], EVEN, high[1][i]), e1 = PERMUTE(high[2][i], EVEN, high[3][i]);
    o0 = PERMUTE(high[0][i], ODD, high[1][i]), o1 = PERMUTE(high[2][i], ODD, high[3][i]);
    v[i][4] = PERMUTE(e0, EVEN, e1);
    v[i][5] = PERMUTE(o0, EVEN, o1);
    __m512 y[6];
    rows_in(v[i], y);
    for (int j = 0; j < 6; j++) _mm512_store_ps(x + (6 * i + j) * position, y[j]);
  }
}

static void output_4(const float *m, long position, const struct group *g, float *plane) {
  __m512 s[4][6];
  for (int j = 0; j < 6; j++) {
    __m512 c[6], y[4];
    for (int i = 0; i < 6; i++) c[i] = _mm512_load_ps(m + (6 * i + j) * position);
    rows_out(c, y);
    for (int i = 0; i < 4; i++) s[i][j] = y[i];
  }
  for (int i = 0; i < 4; i++) {
    __m512 y[4], v[4];
    rows_out(s[i], y);
    __m512 a = PERMUTE(y[0], LOW, y[2]), b = PERMUTE(y[1], LOW, y[3]);
    v[0] = PERMUTE(a, LOW, b);
    v[1] = PERMUTE(a, HIGH, b);
    a = PERMUTE(y[0], HIGH, y[2]), b = PERMUTE(y[1], HIGH, y[3]);
    v[2] = PERMUTE(a, LOW, b);
    v[3] = PERMUTE(a, HIGH, b);
    for (int n = 0; n < g->count; n++) {
      const struct segment *t = &g->s[n];
      int row = 4 * t->row + i;
      if (row >= H) continue;
      float *at = plane + (long)row * W + 4 * (t->col - t->lane);
      for (int k = 0; k < 4; k++) {
        if (!t->store[k]) continue;
        if (PAST && t->store[k] == 0xffff && !((size_t)(at + 16 * k) & 63))
          _mm512_stream_ps(at + 16 * k, v[k]);
        else
          _mm512_mask_storeu_ps(at + 16 * k, t->store[k], v[k]);
      }
    }
  }
}

/* F(2,3) by gathers: where it pays, transforms are a few hundredths of the time. */
static void input_2(const float *plane, int group, float *x, long position) {
  int base[LANES] __attribute__((aligned(64)));
  __mmask16 rows[4], columns[4];
  for (int r = 0; r < 4; r++) rows[r] = columns[r] = 0;
  for (int lane = 0; lane < LANES; lane++) {
    int tile = group * LANES + lane, y = tile / TW * 2 - 1, px = tile % TW * 2 - 1;
    base[lane] = y * W + px;
    for (int r = 0; r < 4 && tile < T; r++) {
      if (y + r >= 0 && y + r < H) rows[r] |= 1u << lane;
      if (px + r >= 0 && px + r < W) columns[r] |= 1u << lane;
    }
  }
  __m512 v[4][4], t[4][4];
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      __m512i at = _mm512_add_epi32(_mm512_load_si512(base), _mm512_set1_epi32(i * W + j));
      v[i][j] = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), rows[i] & columns[j], at, plane, 4);
    }
  for (int j = 0; j < 4; j++) {
    t[0][j] = _mm512_sub_ps(v[0][j], v[2][j]);
    t[1][j] = _mm512_add_ps(v[1][j], v[2][j]);
    t[2][j] = _mm512_sub_ps(v[2][j], v[1][j]);
    t[3][j] = _mm512_sub_ps(v[3][j], v[1][j]);
  }
  for (int i = 0; i < 4; i++) {
    _mm512_store_ps(x + (4 * i) * position, _mm512_sub_ps(t[i][0], t[i][2]));
    _mm512_store_ps(x + (4 * i + 1) * position, _mm512_add_ps(t[i][1], t[i][2]));
    _mm512_store_ps(x + (4 * i + 2) * position, _mm512_sub_ps(t[i][2], t[i][1]));
    _mm512_store_ps(x + (4 * i + 3) * position, _mm512_sub_ps(t[i][3], t[i][1]));
  }
}

static void output_2(const float *m, long position, int group, float *plane) {
  __m512 t[2][4];
  float y[2][2][LANES] __attribute__((aligned(64)));
  for (int j = 0; j < 4; j++) {
    __m512 a = _mm512_load_ps(m + j * position), b = _mm512_load_ps(m + (4 + j) * position);
    __m512 c = _mm512_load_ps(m + (8 + j) * position), d = _mm512_load_ps(m + (12 + j) * position);
    t[0][j] = _mm512_add_ps(_mm512_add_ps(a, b), c);
    t[1][j] = _mm512_add_ps(_mm512_sub_ps(b, c), d);
  }
  for (int i = 0; i < 2; i++) {
    _mm512_store_ps(y[i][0], _mm512_add_ps(_mm512_add_ps(t[i][0], t[i][1]), t[i][2]));
    _mm512_store_ps(y[i][1], _mm512_add_ps(_mm512_sub_ps(t[i][1], t[i][2]), t[i][3]));
  }
  for (int lane = 0; lane < LANES && group * LANES + lane < T; lane++) {
    int tile = group * LANES + lane, row = tile / TW * 2, col = tile % TW * 2;
    for (int i = 0; i < 2 && row + i < H; i++)
      for (int j = 0; j < 2 && col + j < W; j++) plane[(long)(row + i) * W + col + j] = y[i][j][lane];
  }
}

/* `vectors` vectors of tiles by `columns` output channels, of 16 that are neighbours in `u`; adds to m unless it is the first. */
INLINE void product(const float *x, long group, const float *u, long terms, float *m, long channel, int first, const float *next,
                    const int ahead, const int vectors, const int columns) {
  __m512 sum[16][3];
UNROLL
  for (int j = 0; j < columns; j++)
UNROLL
    for (int v = 0; v < vectors; v++) sum[j][v] = first ? _mm512_setzero_ps() : _mm512_load_ps(m + j * channel + v * LANES);
  for (long c = 0; c < terms; c++) {
    __m512 a[3];
UNROLL
    for (int v = 0; v < vectors; v++) a[v] = _mm512_load_ps(x + v * group + c * LANES);
    if (ahead) _mm_prefetch((const char *)(next + c * LANES), _MM_HINT_T0);
UNROLL
    for (int j = 0; j < columns; j++) {
      __m512 b = _mm512_set1_ps(u[c * LANES + j]);
UNROLL
      for (int v = 0; v < vectors; v++) sum[j][v] = _mm512_fmadd_ps(a[v], b, sum[j][v]);
    }
  }
UNROLL
  for (int j = 0; j < columns; j++)
UNROLL
    for (int v = 0; v < vectors; v++) _mm512_store_ps(m + j * channel + v * LANES, sum[j][v]);
}

/* Lanes along output channels, for a few tiles. */
INLINE void product_left(const float *x, const float *u, long terms, float *m, long channel, int first, const int tiles) {
  __m512 sum[LEFT];
  float at[LANES] __attribute__((aligned(64)));
UNROLL
  for (int t = 0; t < tiles; t++) sum[t] = _mm512_setzero_ps();
  for (long c = 0; c < terms; c++) {
    __m512 b = _mm512_load_ps(u + c * LANES);
UNROLL
    for (int t = 0; t < tiles; t++) sum[t] = _mm512_fmadd_ps(b, _mm512_set1_ps(x[c * LANES + t]), sum[t]);
  }
  for (int t = 0; t < tiles; t++) {
    _mm512_store_ps(at, sum[t]);
    for (int k = 0; k < LANES; k++) m[k * channel + t] = first ? at[k] : m[k * channel + t] + at[k];
  }
}

static void left(const float *x, const float *u, long terms, float *m, long channel, int first, int tiles) {
  switch (tiles) {
    case 1: product_left(x, u, terms, m, channel, first, 1); break;
    case 2: product_left(x, u, terms, m, channel, first, 2); break;
    case 3: product_left(x, u, terms, m, channel, first, 3); break;
    case 4: product_left(x, u, terms, m, channel, first, 4); break;
    case 5: product_left(x, u, terms, m, channel, first, 5); break;
    case 6: product_left(x, u, terms, m, channel, first, 6); break;
    case 7: product_left(x, u, terms, m, channel, first, 7); break;
    default: product_left(x, u, terms, m, channel, first, 8); break;
  }
}

static void products(const struct scratch *s, int from, int count, int k0) {
  long xg = x_group(), xp = x_position(), mp = m_position(), mc = m_channel();
  /* A last group of few tiles has its lanes along output channels. */
  int last = T - (from + count - 1) * LANES, few = last <= LEFT ? last : 0, whole = few ? count - 1 : count;
  const float *u = U + (long)k0 * P * C;
  for (int p = 0; p < P; p++)
    for (int c0 = 0; c0 < C; c0 += plan.terms) {
      long terms = C - c0 < plan.terms ? C - c0 : plan.terms;
      for (int k = 0; k < plan.channels; k += LANES, u += terms * LANES) {
        const float *next = u + terms * LANES;
        for (int g = 0; g < whole;) {
          int n = whole - g >= 3 ? 3 : whole - g;
          if (whole - g == 4) n = 2;
          const float *x = s->x + p * xp + g * xg + (long)c0 * LANES;
          float *m = s->m + k * mc + p * mp + g * LANES;
          /* The next panel is on its way while the first tiles are multiplied. */
          if (n == 3 && !g) {
            product(x, xg, u, terms, m, mc, !c0, next, 1, 3, 8);
            product(x, xg, u + 8, terms, m + 8 * mc, mc, !c0, next, 0, 3, 8);
          } else if (n == 3) {
            product(x, xg, u, terms, m, mc, !c0, next, 0, 3, 8);
            product(x, xg, u + 8, terms, m + 8 * mc, mc, !c0, next, 0, 3, 8);
          } else if (n == 2) {
            product(x, xg, u, terms, m, mc, !c0, next, 1, 2, 8);
            product(x, xg, u + 8, terms, m + 8 * mc, mc, !c0, next, 0, 2, 8);
          } else {
            product(x, xg, u, terms, m, mc, !c0, next, 1, 1, 16);
          }
          g += n;
        }
        if (few) left(s->x + p * xp + whole * xg + (long)c0 * LANES, u, terms, s->m + k * mc + p * mp + whole * LANES, mc, !c0, few);
      }
    }
}

static atomic_int next_block;

static void block(const struct scratch *s, int from, int count, int k_from, int k_to) {
  for (int c = 0; c < C; c++)
    for (int g = 0; g < count; g++) {
      float *x = s->x + g * x_group() + (long)c * LANES;
      if (TILE == 4)
        input_4(in + (long)c * H * W, &groups[from + g], x, x_position());
      else
        input_2(in + (long)c * H * W, from + g, x, x_position());
    }
  for (int k0 = k_from; k0 < k_to; k0 += plan.channels) {
    products(s, from, count, k0);
    for (int k = 0; k < plan.channels; k++)
      for (int g = 0; g < count; g++) {
        const float *m = s->m + k * m_channel() + g * LANES;
        float *to = out + (long)(k0 + k) * H * W;
        if (TILE == 4)
          output_4(m, m_position(), &groups[from + g], to);
        else
          output_2(m, m_position(), from + g, to);
      }
  }
}

/* One thread's part of a call. Groups are whole but for the last one, which belongs to the block before it. */
static void part(int thread) {
  int whole = T % LANES && T > LANES ? GROUPS - 1 : GROUPS;
  int blocks = (whole + plan.groups - 1) / plan.groups;
  int each = (K / plan.channels + THREADS - 1) / THREADS * plan.channels;
  int k_from = plan.split ? thread * each : 0, k_to = plan.split ? k_from + each : K;
  if (k_to > K) k_to = K;
  for (int n = 0;; n++) {
    int b = plan.split ? n : atomic_fetch_add(&next_block, 1);
    if (b >= blocks) break;
    int from = b * plan.groups, to = b + 1 == blocks ? GROUPS : from + plan.groups;
    block(&scratch[thread], from, to - from, k_from, k_to);
  }
  _mm_sfence();
}

static atomic_int turn, done;

static void *worker(void *thread) {
  for (int seen = 0;; seen++) {
    while (atomic_load_explicit(&turn, memory_order_acquire) == seen) _mm_pause();
    part((int)(long)thread);
    atomic_fetch_add(&done, 1);
  }
  return 0;
}

static void call(void) {
  atomic_store(&next_block, 0);
  atomic_store(&done, 0);
  atomic_fetch_add(&turn, 1);
  part(0);
  while (atomic_load_explicit(&done, memory_order_acquire) < THREADS - 1) _mm_pause();
}

/* Weights as products read them: [block of output channels][position][block of terms][16 output channels][term][16]. */
static void prepare(void) {
  static const double g4[6][3] = {{.25, 0, 0}, {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
                                  {1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6}, {0, 0, 1}};
  static const double g2[4][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
  for (int k = 0; k < K; k++)
    for (int c = 0; c < C; c++) {
      const float *w = weights + ((long)k * C + c) * 9;
      int c0 = c / plan.terms * plan.terms, terms = C - c0 < plan.terms ? C - c0 : plan.terms;
      int k0 = k / plan.channels * plan.channels;
      for (int p = 0; p < P; p++) {
        double v = 0;
        for (int a = 0; a < 3; a++)
          for (int b = 0; b < 3; b++)
            v += TILE == 4 ? g4[p / 6][a] * g4[p % 6][b] * w[3 * a + b] : g2[p / 4][a] * g2[p % 4][b] * w[3 * a + b];
        long at = (long)k0 * P * C + ((long)p * C + c0) * plan.channels;
        U[at + (long)(k - k0) / LANES * LANES * terms + (long)(c - c0) * LANES + (k - k0) % LANES] = (float)v;
      }
    }
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Median milliseconds of calls in so many seconds, three at least. */
static double median(double seconds) {
  enum { MOST = 100000 };
  static double times[MOST];
  int n = 0;
  call();
  for (double end = now() + seconds; n < 3 || (n < MOST && now() < end); n++) {
    double start = now();
    call();
    times[n] = 1e3 * (now() - start);
  }
  qsort(times, n, sizeof *times, ascending);
  return times[n / 2];
}

static void set_plan(struct plan p) {
  plan = p;
  for (int t = 0; t < THREADS; t++) {
    free(scratch[t].x);
    free(scratch[t].m);
    scratch[t].x = make(P * x_position());
    scratch[t].m = make(plan.channels * m_channel());
  }
  prepare();
}

static void choose(void) {
  static const int sizes[] = {1, 2, 3, 6}, channels[] = {16, 32, 64};
  struct plan best = {0};
  double least = INFINITY;
  for (int g = 0; g < 4; g++)
    for (int k = 0; k < 3; k++)
      for (int c = 0; c < 2; c++)
        for (int split = 0; split < (THREADS > 1 ? 2 : 1); split++) {
          if (K % channels[k] || (c && C <= 128) || sizes[g] > GROUPS) continue;
          set_plan((struct plan){sizes[g], channels[k], c ? C : (C < 128 ? C : 128), split});
          double ms = median(.02);
          if (ms < least) least = ms, best = plan;
        }
  set_plan(best);
}

static double random_normal(void) {
  double a = (rand() + 1.) / (RAND_MAX + 2.), b = rand() / (RAND_MAX + 1.);
  return sqrt(-2 * log(a)) * cos(6.283185307179586 * b);
}

/* Largest error of some outputs over their root mean square. */
static double error(void) {
  double most = 0, squares = 0;
  enum { SOME = 400 };
  for (int n = 0; n < SOME; n++) {
    int k = rand() % K, y = rand() % H, x = rand() % W;
    double v = 0;
    for (int c = 0; c < C; c++)
      for (int a = -1; a <= 1; a++)
        for (int b = -1; b <= 1; b++)
          if (y + a >= 0 && y + a < H && x + b >= 0 && x + b < W)
            v += (double)in[((long)c * H + y + a) * W + x + b] * weights[((long)k * C + c) * 9 + 3 * (a + 1) + b + 1];
    most = fmax(most, fabs(v - out[((long)k * H + y) * W + x]));
    squares += v * v;
  }
  return most / sqrt(squares / SOME);
}

int main(int argc, char **argv) {
  if (argc != 8) {
    fprintf(stderr, "usage: %s C H W K TILE THREADS STORES\n", argv[0]);
    return 2;
  }
  C = atoi(argv[1]), H = atoi(argv[2]), W = atoi(argv[3]), K = atoi(argv[4]), TILE = atoi(argv[5]), THREADS = atoi(argv[6]);
  PAST = !strcmp(argv[7], "past");
  if (C < 1 || H < 1 || W < 1 || K < 1 || K % LANES || (TILE != 2 && TILE != 4) || THREADS < 1 || (!PAST && strcmp(argv[7], "kept"))) {
    fprintf(stderr, "%s: K has to be a multiple of 16, TILE 2 or 4, STORES kept or past\n", argv[0]);
    return 2;
  }
  A = TILE + 2, P = A * A, TH = (H + TILE - 1) / TILE, TW = (W + TILE - 1) / TILE, T = TH * TW;
  GROUPS = (T + LANES - 1) / LANES;
  in = make((long)C * H * W + 64), out = make((long)K * H * W + 64), weights = make((long)K * C * 9), U = make((long)K * C * P + 4096);
  scratch = calloc(THREADS, sizeof *scratch);
  srand(1);
  for (long i = 0; i < (long)C * H * W; i++) in[i] = (float)random_normal();
  for (long i = 0; i < (long)K * C * 9; i++) weights[i] = (float)(random_normal() / sqrt(9. * C));
  describe_groups();
  for (long t = 1; t < THREADS; t++) {
    pthread_t id;
    if (pthread_create(&id, 0, worker, (void *)t)) return 1;
  }
  choose();
  call();
  printf("{\"max_error\": %.3g, \"plan\": \"%d x 16 tiles, %d output channels, %d terms%s\"}\n", error(), plan.groups, plan.channels,
         plan.terms, plan.split ? ", output channels over threads" : "");
  fflush(stdout);
  double seconds;
  while (scanf("%lf", &seconds) == 1) {
    printf("{\"ms\": %.6f}\n", median(seconds));
    fflush(stdout);
  }
  return 0;
}
