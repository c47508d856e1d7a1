// Running an operation: the calling thread takes chunks until none is left, and so do the workers where there are any.
#include "functions.h"

static void run_chunk(u32 op, const void *args, i32 chunk, env *e) {
  switch (op) {
#define CASE(name, n) \
  case n:             \
    op_##name(args, chunk, e); \
    break;
    OPS(CASE)
#undef CASE
  }
}

// version lets the engine refuse kernels of another build.
EXPORT(version) u32 version(void) { return 2; }

#ifdef TEMPER_RELAXED
// dots tries the instruction on the largest operands.
static u32 dots(void) {
  volatile u8 all = 255; // nothing is known before the program runs
  v128_t x = wasm_u8x16_splat(all), zero = wasm_i32x4_const_splat(0);
  i32 most = wasm_i32x4_extract_lane(wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_i8x16_splat(all >> 1), x, zero), 0);
  i32 least = wasm_i32x4_extract_lane(wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_u8x16_splat(all & 128), x, zero), 0);
  if (most == 4 * 127 * 255 && least == -4 * 128 * 255) return DOTS_UNSIGNED;
  if (most == -4 * 127 && least == 4 * 128) return DOTS_SIGNED;
  return DOTS_16;
}
#endif

// level: bit 0 relaxed SIMD, bit 1 threads, from bit 2 on DOTS.
EXPORT(level) u32 level(void) {
  u32 l = 0;
#ifdef TEMPER_RELAXED
  l |= 1 | dots() << 2;
#endif
#ifdef TEMPER_THREADS
  l |= 2;
#endif
  return l;
}

#ifdef TEMPER_THREADS

#define LOAD(p) __atomic_load_n(&(p), __ATOMIC_SEQ_CST)
#define STORE(p, v) __atomic_store_n(&(p), (v), __ATOMIC_SEQ_CST)
#define INC(p) __atomic_fetch_add(&(p), 1, __ATOMIC_SEQ_CST)
#define DEC(p) __atomic_fetch_sub(&(p), 1, __ATOMIC_SEQ_CST)

static void take(ctl *c, u32 thread) {
  f32 constants[64];
  math_table(constants);
  env e = {c->scratch + thread * c->scratch_bytes, constants};
  for (;;) {
    u32 i = INC(c->next);
    if (i >= c->chunks) return;
    run_chunk(c->op, c->args, (i32)i, &e);
  }
}

// run executes chunks 0 … chunks-1 of an operation and returns when all are done.
EXPORT(run) void run(ctl *c, u32 op, const void *args, u32 chunks) {
  if (chunks <= 1 || LOAD(c->workers) == 0) {
    f32 constants[64];
    math_table(constants);
    env e = {c->scratch, constants};
    for (u32 i = 0; i < chunks; i++) run_chunk(op, args, (i32)i, &e);
    return;
  }
  c->op = op, c->args = args, c->chunks = chunks;
  STORE(c->next, 0);
  STORE(c->open, 1);
  INC(c->gen);
  __builtin_wasm_memory_atomic_notify((int *)&c->gen, 0x7fffffff);
  take(c, 0);
  // All chunks are taken. A worker that still holds one is active; one that comes now finds the job closed.
  STORE(c->open, 0);
  while (LOAD(c->active) != 0) {
  }
}

// worker serves jobs until stop is set. thread counts from 1; each has its own stack (see stack_set).
EXPORT(worker) void worker(ctl *c, u32 thread) {
  INC(c->ready);
  u32 seen = LOAD(c->gen) - 1;
  while (!LOAD(c->stop)) {
    // Jobs follow closely within a forward pass: look for a while before going to sleep.
    u32 gen = LOAD(c->gen);
    for (i32 spin = 0; gen == seen && spin < 20000; spin++) gen = LOAD(c->gen);
    if (gen == seen) {
      __builtin_wasm_memory_atomic_wait32((int *)&c->gen, (int)seen, -1);
      continue;
    }
    seen = gen;
    INC(c->active);
    if (LOAD(c->open)) take(c, thread);
    DEC(c->active);
  }
  DEC(c->ready);
}

// stop sends the workers home.
EXPORT(stop) void stop(ctl *c) {
  STORE(c->stop, 1);
  INC(c->gen);
  __builtin_wasm_memory_atomic_notify((int *)&c->gen, 0x7fffffff);
}

#else

EXPORT(stop) void stop(ctl *c) { c->stop = 1; }

EXPORT(run) void run(ctl *c, u32 op, const void *args, u32 chunks) {
  f32 constants[64];
  math_table(constants);
  env e = {c->scratch, constants};
  for (u32 i = 0; i < chunks; i++) run_chunk(op, args, (i32)i, &e);
}

#endif
