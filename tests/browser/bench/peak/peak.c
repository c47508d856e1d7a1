// Loops that reach the machine's limits through WebAssembly, for rooflines: each runs n rounds of 8 independent sums.
#include <stdint.h>
#include <wasm_simd128.h>
#define EXPORT(name) __attribute__((export_name(#name)))
#define EIGHT(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define ZERO(i) v128_t a##i = wasm_i32x4_const_splat(0);
#define LOOP(STEP)                                                                                                            \
  EIGHT(ZERO)                                                                                                                 \
  for (; n > 0; n--) { EIGHT(STEP) }                                                                                          \
  v128_t s = wasm_i32x4_add(wasm_i32x4_add(wasm_i32x4_add(a0, a1), wasm_i32x4_add(a2, a3)),                                   \
                            wasm_i32x4_add(wasm_i32x4_add(a4, a5), wasm_i32x4_add(a6, a7)));                                  \
  return wasm_i32x4_extract_lane(s, 0);

// 4 multiply-adds each.
#define FMA(i) a##i = wasm_f32x4_relaxed_madd(x, y, a##i);
EXPORT(fma) int32_t fma_loop(int32_t n, float f) { v128_t x = wasm_f32x4_splat(f), y = wasm_f32x4_splat(f + 1); LOOP(FMA) }
// 16 multiply-adds each.
#define DOT8(i) a##i = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x, y, a##i);
EXPORT(dot8) int32_t dot8_loop(int32_t n, float f) { v128_t x = wasm_i8x16_splat((int8_t)f), y = wasm_i8x16_splat((int8_t)f + 1); LOOP(DOT8) }
// read sums n blocks of 128 bytes.
EXPORT(read) int32_t read_loop(int32_t n, const v128_t *p) {
#define READ(i) a##i = wasm_i32x4_add(a##i, p[i]);
#define READS(i) READ(i)
  EIGHT(ZERO)
  for (; n > 0; n--, p += 8) { EIGHT(READS) }
  v128_t s = wasm_i32x4_add(wasm_i32x4_add(wasm_i32x4_add(a0, a1), wasm_i32x4_add(a2, a3)), wasm_i32x4_add(wasm_i32x4_add(a4, a5), wasm_i32x4_add(a6, a7)));
  return wasm_i32x4_extract_lane(s, 0);
}
