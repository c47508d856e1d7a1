// Elementary functions of four values. The coefficients are our own least-maximum fits (see fit.py); errors are relative, over the range named.
#ifndef TEMPER_FUNCTIONS_H
#define TEMPER_FUNCTIONS_H
#include "kernels.h"

#define GELU_C 0.7978845608f
#define GELU_A 0.044715f

// Constants of these functions stand in a table that the caller makes and holds (env.math): V8 builds a vector constant by several
// instructions each time that it is used, and there are more than registers; a load that spreads one value is a single one.
#define CONSTANTS(X)                                                                                                                     \
  X(ONE, 1.0f) X(MINUS_HALF, -0.5f)                                                                                                      \
  X(EXP_LOW, -87.0f) X(EXP_HIGH, 88.0f) X(LOG2E, 1.442695041f) X(ROUND, 12582912.0f) X(LN2_HIGH, 0.693359375f) X(LN2_LOW, -2.12194440e-4f) \
  X(EXP6, 1.383680385e-03f) X(EXP5, 8.374846540e-03f) X(EXP4, 4.166822881e-02f) X(EXP3, 1.666641980e-01f) X(EXP2, 4.999999106e-01f)      \
  X(CDF_U, 0.26f) X(CDF8, 3.050492145e-02f) X(CDF7, -1.528289914e-01f) X(CDF6, 2.514916062e-01f) X(CDF5, -1.509492993e-01f)              \
  X(CDF4, 1.609480679e-01f) X(CDF3, 5.102760717e-02f) X(CDF2, 1.030302718e-01f) X(CDF1, 1.030167490e-01f) X(CDF0, 1.037590578e-01f)      \
  X(GELU_TWO_C, 2 * GELU_C) X(GELU_TWO_CA, 2 * GELU_C * GELU_A) X(QUICK, 1.702f)
enum {
#define NAME(name, value) name,
  CONSTANTS(NAME)
#undef NAME
};
INLINE void math_table(f32 *t) {
#define SET(name, value) t[name] = value;
  CONSTANTS(SET)
#undef SET
  __asm__ volatile("" : : "r"(t) : "memory"); // the compiler must not see through it
}
#define K(name) LDSPLAT(t + name)

// vexp: 2e-9 beyond rounding for x in [-87, 88]; 0 below, 1.65e38 above. NaN stays.
INLINE v4 vexp(math t, v4 x) {
  v4 small = wasm_f32x4_lt(x, K(EXP_LOW));
  x = wasm_f32x4_pmax(wasm_f32x4_pmin(x, K(EXP_HIGH)), K(EXP_LOW));
  // 1.5·2²³ leaves the nearest whole number in the lowest bits.
  v4 biased = MADD(x, K(LOG2E), K(ROUND));
  v4 n = SUB(biased, K(ROUND));
  v4 r = NMADD(n, K(LN2_HIGH), x);
  r = NMADD(n, K(LN2_LOW), r);
  v4 r2 = MUL(r, r);
  v4 p = MADD(K(EXP6), r, K(EXP5)), q = MADD(K(EXP4), r, K(EXP3)), l = MADD(K(EXP2), r2, ADD(r, K(ONE)));
  p = MADD(p, r2, q);
  p = MADD(p, MUL(r2, r), l);
  v128_t e = wasm_i32x4_add(wasm_i32x4_shl(biased, 23), K(ONE)); // the bits of 1.0 are those of 2⁰
  return wasm_v128_andnot(MUL(p, e), small);
}

// vcdf is the normal distribution function Φ(x); the lower tail is exact to 2.5e-8 of itself beyond rounding.
INLINE v4 vcdf(math t, v4 x) {
  v4 a = wasm_f32x4_abs(x);
  v4 u = DIV(K(ONE), MADD(K(CDF_U), a, K(ONE)));
  v4 u2 = MUL(u, u), u4 = MUL(u2, u2);
  v4 p01 = MADD(K(CDF1), u, K(CDF0)), p23 = MADD(K(CDF3), u, K(CDF2)), p45 = MADD(K(CDF5), u, K(CDF4)), p67 = MADD(K(CDF7), u, K(CDF6));
  v4 p = MADD(MADD(K(CDF8), u2, p67), u2, p45);
  p = MADD(p, u4, MADD(p23, u2, p01));
  v4 tail = MUL(vexp(t, MUL(K(MINUS_HALF), MUL(x, x))), MUL(u, p));
  return wasm_v128_bitselect(tail, SUB(K(ONE), tail), wasm_f32x4_lt(x, ZERO));
}

// vtanh: 1.3e-9 before rounding.
INLINE v4 vtanh(v4 x) {
  v4 far = wasm_f32x4_ge(wasm_f32x4_abs(x), SPLAT(9.0f)), one = wasm_v128_or(wasm_v128_and(x, wasm_i32x4_const_splat((i32)0x80000000)), SPLAT(1));
  x = wasm_f32x4_pmax(wasm_f32x4_pmin(x, SPLAT(9.0f)), SPLAT(-9.0f));
  v4 t = MUL(x, x);
  v4 p = SPLAT(-1.224623094e-11f);
  p = MADD(p, t, SPLAT(3.064250365e-08f));
  p = MADD(p, t, SPLAT(2.803129973e-05f));
  p = MADD(p, t, SPLAT(3.869507462e-03f));
  p = MADD(p, t, SPLAT(1.368085593e-01f));
  p = MADD(p, t, SPLAT(1.0f));
  v4 q = SPLAT(1.289034344e-06f);
  q = MADD(q, t, SPLAT(3.940712486e-04f));
  q = MADD(q, t, SPLAT(2.725015394e-02f));
  q = MADD(q, t, SPLAT(4.701418877e-01f));
  q = MADD(q, t, SPLAT(1.0f));
  return wasm_v128_bitselect(one, DIV(MUL(x, p), q), far);
}

INLINE v4 vsigmoid(math t, v4 x) { return DIV(K(ONE), ADD(K(ONE), vexp(t, wasm_f32x4_neg(x)))); }

// dlog is the natural logarithm of x > 0, to a few ulp of f64: x = m·2^e, m in [√½, √2), log m = 2·atanh((m-1)/(m+1)).
INLINE f64 dlog(f64 x) {
  union { f64 f; u64 u; } v = {x};
  i32 e = (i32)(v.u >> 52) - 1023;
  v.u = (v.u & 0x000fffffffffffffull) | 0x3ff0000000000000ull;
  f64 m = v.f;
  if (m > 1.4142135623730951) m *= 0.5, e++;
  f64 z = (m - 1) / (m + 1), z2 = z * z, s = 0;
  for (i32 k = 21; k >= 1; k -= 2) s = s * z2 + 1.0 / k;
  return 2 * z * s + e * 0.6931471805599453;
}

// Activations by the numbers of backend.Activation.
enum { NONE, GELU, GELU_TANH, QUICK_GELU, RELU, SILU, TANH, SIGMOID };

INLINE v4 vact(math t, v4 x, i32 kind) {
  switch (kind) {
  case GELU:
    return MUL(x, vcdf(t, x));
  case GELU_TANH: {
    // (1 + tanh u)/2 = sigmoid(2u), 2u = 2·C·x·(1 + A·x²)
    return MUL(x, vsigmoid(t, MUL(x, MADD(K(GELU_TWO_CA), MUL(x, x), K(GELU_TWO_C)))));
  }
  case QUICK_GELU:
    return MUL(x, vsigmoid(t, MUL(x, K(QUICK))));
  case RELU:
    return wasm_v128_andnot(x, wasm_f32x4_lt(x, ZERO));
  case SILU:
    return MUL(x, vsigmoid(t, x));
  case TANH:
    return vtanh(x);
  case SIGMOID:
    return vsigmoid(t, x);
  }
  return x;
}

INLINE v4 vact_grad(math t, v4 x, i32 kind) {
  const v4 one = K(ONE);
  switch (kind) {
  case GELU: {
    v4 cdf = vcdf(t, x);
    v4 pdf = MUL(SPLAT(0.3989422804f), vexp(t, MUL(SPLAT(-0.5f), MUL(x, x))));
    return ADD(cdf, MUL(x, pdf));
  }
  case GELU_TANH: {
    v4 x2 = MUL(x, x);
    // With e = exp(-2|u|): tanh|u| = (1-e)/(1+e), 1 - tanh² = 4e/(1+e)², without cancellation.
    v4 u = MUL(MUL(x, SPLAT(GELU_C)), ADD(one, MUL(SPLAT(GELU_A), x2)));
    v4 e = vexp(t, MUL(SPLAT(-2), wasm_f32x4_abs(u))), inv = DIV(one, ADD(one, e));
    v4 small = MUL(e, inv), cdf = wasm_v128_bitselect(small, SUB(one, small), wasm_f32x4_lt(u, ZERO));
    v4 d = MUL(SPLAT(GELU_C), ADD(one, MUL(SPLAT(3 * GELU_A), x2)));
    return ADD(cdf, MUL(MUL(MUL(SPLAT(2), x), MUL(small, inv)), d));
  }
  case QUICK_GELU: {
    v4 s = vsigmoid(t, MUL(x, K(QUICK)));
    return ADD(s, MUL(MUL(K(QUICK), x), MUL(s, SUB(one, s))));
  }
  case RELU:
    return wasm_v128_and(one, wasm_f32x4_gt(x, ZERO));
  case SILU: {
    v4 s = vsigmoid(t, x);
    return ADD(s, MUL(x, MUL(s, SUB(one, s))));
  }
  case TANH: {
    v4 th = vtanh(x);
    return SUB(one, MUL(th, th));
  }
  case SIGMOID: {
    v4 s = vsigmoid(t, x);
    return MUL(s, SUB(one, s));
  }
  }
  return one;
}

#endif
