// Kernels of the WebAssembly backend. They work in place on the memory of the engine (a Go program), which is imported: pointers come from
// Go, nothing is copied. There is no static data (the build checks it) and no allocation: scratch and stacks come from Go too, because only
// Go may grow the memory.
//
// Every operation is a number of independent chunks; chunk i writes its own outputs, so that any thread may run it. The order of each
// reduction depends on the shape alone.
#ifndef TEMPER_KERNELS_H
#define TEMPER_KERNELS_H

#include <stdint.h>
#include <wasm_simd128.h>

typedef uint8_t u8;
typedef int8_t i8;
typedef uint16_t u16;
typedef int16_t i16;
typedef uint32_t u32;
typedef int32_t i32;
typedef uint64_t u64;
typedef float f32;
typedef double f64;
typedef v128_t v4; // four f32

#define EXPORT(name) __attribute__((export_name(#name)))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

#define LD(p) wasm_v128_load(p)
#define ST(p, v) wasm_v128_store((p), (v))
#define SPLAT(x) wasm_f32x4_splat(x)
#define LDSPLAT(p) wasm_v128_load32_splat(p)
#define ADD(a, b) wasm_f32x4_add(a, b)
#define SUB(a, b) wasm_f32x4_sub(a, b)
#define MUL(a, b) wasm_f32x4_mul(a, b)
#define DIV(a, b) wasm_f32x4_div(a, b)
#define ZERO wasm_f32x4_const(0, 0, 0, 0)

// MADD is a*b + c: fused in the relaxed build where the machine can, two roundings in the plain one.
#ifdef TEMPER_RELAXED
#define MADD(a, b, c) wasm_f32x4_relaxed_madd(a, b, c)
#define NMADD(a, b, c) wasm_f32x4_relaxed_nmadd(a, b, c)
#else
#define MADD(a, b, c) ADD(MUL(a, b), c)
#define NMADD(a, b, c) SUB(c, MUL(a, b))
#endif

INLINE i32 imin(i32 a, i32 b) { return a < b ? a : b; }
INLINE i32 imax(i32 a, i32 b) { return a > b ? a : b; }
INLINE i32 ceildiv(i32 a, i32 b) { return (a + b - 1) / b; }

// hsum adds the lanes as (0+2)+(1+3).
INLINE f32 hsum(v4 v) {
  v = ADD(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  return wasm_f32x4_extract_lane(v, 0) + wasm_f32x4_extract_lane(v, 1);
}
// hsum4 is hsum of four vectors.
INLINE v4 hsum4(v4 a, v4 b, v4 c, v4 d) {
  v4 ab = ADD(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
  v4 cd = ADD(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
  return ADD(wasm_i64x2_shuffle(ab, cd, 0, 2), wasm_i64x2_shuffle(ab, cd, 1, 3));
}
INLINE f32 hmax(v4 v) {
  v = wasm_f32x4_pmax(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  f32 a = wasm_f32x4_extract_lane(v, 0), b = wasm_f32x4_extract_lane(v, 1);
  return a > b ? a : b;
}

// load_part and store_part move the first n (1 to 3) lanes.
INLINE v4 load_part(const f32 *p, i32 n) {
  v4 v = wasm_v128_load32_zero(p);
  if (n > 1) v = wasm_v128_load32_lane(p + 1, v, 1);
  if (n > 2) v = wasm_v128_load32_lane(p + 2, v, 2);
  return v;
}
INLINE void store_part(f32 *p, v4 v, i32 n) {
  wasm_v128_store32_lane(p, v, 0);
  if (n > 1) wasm_v128_store32_lane(p + 1, v, 1);
  if (n > 2) wasm_v128_store32_lane(p + 2, v, 2);
}
// load_some and store_some move n lanes, 1 to 4.
INLINE v4 load_some(const f32 *p, i32 n) { return n >= 4 ? LD(p) : load_part(p, n); }
INLINE void store_some(f32 *p, v4 v, i32 n) {
  if (n >= 4) ST(p, v);
  else store_part(p, v, n);
}

// clear zeroes n values.
INLINE void clear(f32 *p, i32 n) { __builtin_memset(p, 0, (u32)n * 4); }

// DOTS: what the dot instruction of relaxed SIMD does with its second operand beyond 7 bits, which WebAssembly leaves open and level()
// finds out. DOTS_UNSIGNED: bytes are unsigned and sums exact (x86 with VNNI); DOTS_SIGNED: signed and exact (arm64); DOTS_16: neither, so
// that products use 16-bit operands.
enum { DOTS_16, DOTS_UNSIGNED, DOTS_SIGNED };

// ctl is the block that the engine allocates for the threads of one backend.
typedef struct {
  u32 gen;           // counts jobs; workers wait on it
  u32 open;          // 1 while a job may be joined
  u32 active;        // workers inside the job
  u32 next;          // next chunk to take
  u32 stop;          // workers leave
  u32 workers;       // beside the calling thread
  u32 chunks, op;
  const void *args;
  u8 *scratch;       // scratch_bytes for each thread
  u32 scratch_bytes;
  u32 ready;         // workers that have started
} ctl;

// env is what a thread needs to run a chunk.
typedef const f32 *math; // see functions.h
typedef struct {
  u8 *scratch; // this thread's own
  math math;
} env;

// Every operation: its name and the number that the engine calls it by. Keep in step with ops.go.
#define OPS(X)                                                                                                       \
  X(linear_f32, 0) X(matmul, 1) X(transpose, 2) X(softmax, 3) X(layernorm, 4) X(norm_backward, 5) X(rmsnorm, 6)      \
  X(sum_rows, 7) X(act, 8) X(act_backward, 9) X(binary, 10) X(scale, 11) X(add_row, 12) X(dot, 13) X(gather, 14)     \
  X(scatter_add, 15) X(rope, 16) X(attention, 17) X(attention_backward, 18) X(cross_entropy, 19) X(adamw, 20)        \
  X(quantize_rows, 21) X(linear_q8row, 22) X(quantize_blocks, 23) X(linear_blocks, 24) X(row_sums, 25)
#define DECLARE(name, n) void op_##name(const void *args, i32 chunk, env *e);
OPS(DECLARE)
#undef DECLARE

#endif
