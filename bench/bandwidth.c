/* What a core's caches and memory give, and its multiply-adds: the figures of docs/performance.md about a machine.
 *
 *     cc -O3 -march=native -pthread bench/bandwidth.c -o /tmp/bandwidth && /tmp/bandwidth
 *
 * Each of one and two threads goes through memory of its own again and again, 256 MiB in all, five times; the fastest
 * counts. With a number of milliseconds as an argument it waits so long before each pass, as weights of a network wait
 * for the next run, and the mean of 20 passes counts: other machines on the processor use its cache meanwhile. Needs AVX-512. */
#include <immintrin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { READ, WRITE, STREAM, KINDS };
static const char *const names[KINDS] = {"read", "write", "past the caches"};
static const size_t most = (size_t)128 << 20;
static volatile float sink;
static double pause_before;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

struct job {
  float *at;
  size_t bytes;
  int kind;
  double rate;
};

static void once(const struct job *j) {
  size_t n = j->bytes / sizeof(float);
  __m512 a = _mm512_set1_ps(1), b = a, c = a, d = a;
  if (j->kind == READ) {
    for (size_t i = 0; i < n; i += 64) {
      a = _mm512_add_ps(a, _mm512_load_ps(j->at + i));
      b = _mm512_add_ps(b, _mm512_load_ps(j->at + i + 16));
      c = _mm512_add_ps(c, _mm512_load_ps(j->at + i + 32));
      d = _mm512_add_ps(d, _mm512_load_ps(j->at + i + 48));
    }
    sink = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
  } else if (j->kind == WRITE) {
    for (size_t i = 0; i < n; i += 16) _mm512_store_ps(j->at + i, a);
    __asm__ volatile("" ::: "memory");
  } else {
    for (size_t i = 0; i < n; i += 16) _mm512_stream_ps(j->at + i, a);
    _mm_sfence();
  }
}

static void *run(void *arg) {
  struct job *j = arg;
  if (pause_before > 0) {
    double all = 0;
    once(j);
    for (int pass = 0; pass < 20; pass++) {
      for (double begin = now(); now() - begin < pause_before;) {
      }
      double start = now();
      once(j);
      all += now() - start;
    }
    j->rate = 20 * j->bytes / all * 1e-9;
    return NULL;
  }
  size_t times = ((size_t)256 << 20) / j->bytes;
  for (int round = 0; round < 5; round++) {
    double start = now();
    for (size_t i = 0; i < times; i++) once(j);
    double rate = j->bytes * times / (now() - start) * 1e-9;
    if (rate > j->rate) j->rate = rate;
  }
  return NULL;
}

int main(int count, char **arguments) {
  pause_before = count > 1 ? 1e-3 * atof(arguments[1]) : 0;
  __m512 x[12], m = _mm512_set1_ps(0.999f);
  for (int i = 0; i < 12; i++) x[i] = _mm512_set1_ps(i);
  double start = now();
  for (long i = 0; i < 50000000; i++)
    for (int j = 0; j < 12; j++) x[j] = _mm512_fmadd_ps(x[j], m, m);
  double seconds = now() - start;
  for (int j = 0; j < 12; j++) sink = _mm512_reduce_add_ps(x[j]);
  printf("one core multiplies and adds %.1f GFLOP/s\n", 50e6 * 12 * 32 / seconds * 1e-9);

  float *memory[2];
  for (int t = 0; t < 2; t++) {
    memory[t] = aligned_alloc(4096, most);
    if (!memory[t]) return perror("256 MiB"), 1;
    for (size_t i = 0; i < most / sizeof(float); i++) memory[t][i] = 1;
  }
  for (int threads = 1; threads <= 2; threads++)
    for (size_t bytes = pause_before > 0 ? 8 << 20 : 16 << 10; bytes <= most; bytes *= 2) {
      printf("%d x %6zu KiB:", threads, bytes >> 10);
      for (int kind = 0; kind < KINDS; kind++) {
        struct job jobs[2];
        pthread_t all[2];
        double rate = 0;
        for (int t = 0; t < threads; t++) {
          jobs[t] = (struct job){memory[t], bytes, kind, 0};
          if (pthread_create(&all[t], NULL, run, &jobs[t])) return perror("a thread"), 1;
        }
        for (int t = 0; t < threads; t++) {
          pthread_join(all[t], NULL);
          rate += jobs[t].rate;
        }
        printf("  %s %.1f", names[kind], rate);
      }
      puts(" GB/s");
    }
  return 0;
}
