// Elementary functions of four values. The coefficients are our own least-maximum fits (see fit.py); errors are relative, over the range named.
#ifndef TEMPER_FUNCTIONS_H
#define TEMPER_FUNCTIONS_H
#include "kernels.h"

// vexp: 2e-9 beyond rounding for x in [-87, 88]; 0 below, 1.65e38 above. NaN stays.
INLINE v4 vexp(v4 x) {
  v4 small = wasm_f32x4_lt(x, SPLAT(-87.0f));
  x = wasm_f32x4_pmax(wasm_f32x4_pmin(x, SPLAT(88.0f)), SPLAT(-87.0f));
  v4 n = wasm_f32x4_nearest(MUL(x, SPLAT(1.442695041f)));
  v4 r = SUB(x, MUL(n, SPLAT(0.693359375f)));
  r = ADD(r, MUL(n, SPLAT(2.12194440e-4f)));
  v4 p = SPLAT(1.383680385e-03f);
  p = MADD(p, r, SPLAT(8.374846540e-03f));
  p = MADD(p, r, SPLAT(4.166822881e-02f));
  p = MADD(p, r, SPLAT(1.666641980e-01f));
  p = MADD(p, r, SPLAT(4.999999106e-01f));
  p = MADD(p, r, SPLAT(1.0f));
  p = MADD(p, r, SPLAT(1.0f));
  v128_t e = wasm_i32x4_shl(wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(n), wasm_i32x4_const_splat(127)), 23);
  return wasm_v128_andnot(MUL(p, e), small);
}

// vcdf is the normal distribution function Φ(x); the lower tail is exact to 2.5e-8 of itself beyond rounding.
INLINE v4 vcdf(v4 x) {
  v4 a = wasm_f32x4_abs(x);
  v4 u = DIV(SPLAT(1), ADD(SPLAT(1), MUL(SPLAT(0.26f), a)));
  v4 p = SPLAT(3.050492145e-02f);
  p = MADD(p, u, SPLAT(-1.528289914e-01f));
  p = MADD(p, u, SPLAT(2.514916062e-01f));
  p = MADD(p, u, SPLAT(-1.509492993e-01f));
  p = MADD(p, u, SPLAT(1.609480679e-01f));
  p = MADD(p, u, SPLAT(5.102760717e-02f));
  p = MADD(p, u, SPLAT(1.030302718e-01f));
  p = MADD(p, u, SPLAT(1.030167490e-01f));
  p = MADD(p, u, SPLAT(1.037590578e-01f));
  v4 tail = MUL(vexp(MUL(SPLAT(-0.5f), MUL(x, x))), MUL(u, p));
  return wasm_v128_bitselect(tail, SUB(SPLAT(1), tail), wasm_f32x4_lt(x, ZERO));
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

INLINE v4 vsigmoid(v4 x) { return DIV(SPLAT(1), ADD(SPLAT(1), vexp(wasm_f32x4_neg(x)))); }

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

#define GELU_C 0.7978845608f
#define GELU_A 0.044715f

INLINE v4 vact(v4 x, i32 kind) {
  switch (kind) {
  case GELU:
    return MUL(x, vcdf(x));
  case GELU_TANH: {
    v4 inner = MUL(MUL(x, SPLAT(GELU_C)), ADD(SPLAT(1), MUL(SPLAT(GELU_A), MUL(x, x))));
    return MUL(x, vsigmoid(MUL(SPLAT(2), inner))); // (1 + tanh u)/2 = sigmoid(2u)
  }
  case QUICK_GELU:
    return MUL(x, vsigmoid(MUL(x, SPLAT(1.702f))));
  case RELU:
    return wasm_v128_andnot(x, wasm_f32x4_lt(x, ZERO));
  case SILU:
    return MUL(x, vsigmoid(x));
  case TANH:
    return vtanh(x);
  case SIGMOID:
    return vsigmoid(x);
  }
  return x;
}

INLINE v4 vact_grad(v4 x, i32 kind) {
  const v4 one = SPLAT(1);
  switch (kind) {
  case GELU: {
    v4 cdf = vcdf(x);
    v4 pdf = MUL(SPLAT(0.3989422804f), vexp(MUL(SPLAT(-0.5f), MUL(x, x))));
    return ADD(cdf, MUL(x, pdf));
  }
  case GELU_TANH: {
    v4 x2 = MUL(x, x);
    // With e = exp(-2|u|): tanh|u| = (1-e)/(1+e), 1 - tanh² = 4e/(1+e)², without cancellation.
    v4 u = MUL(MUL(x, SPLAT(GELU_C)), ADD(one, MUL(SPLAT(GELU_A), x2)));
    v4 e = vexp(MUL(SPLAT(-2), wasm_f32x4_abs(u))), inv = DIV(one, ADD(one, e));
    v4 small = MUL(e, inv), cdf = wasm_v128_bitselect(small, SUB(one, small), wasm_f32x4_lt(u, ZERO));
    v4 d = MUL(SPLAT(GELU_C), ADD(one, MUL(SPLAT(3 * GELU_A), x2)));
    return ADD(cdf, MUL(MUL(MUL(SPLAT(2), x), MUL(small, inv)), d));
  }
  case QUICK_GELU: {
    v4 s = vsigmoid(MUL(x, SPLAT(1.702f)));
    return ADD(s, MUL(MUL(SPLAT(1.702f), x), MUL(s, SUB(one, s))));
  }
  case RELU:
    return wasm_v128_and(one, wasm_f32x4_gt(x, ZERO));
  case SILU: {
    v4 s = vsigmoid(x);
    return ADD(s, MUL(x, MUL(s, SUB(one, s))));
  }
  case TANH: {
    v4 t = vtanh(x);
    return SUB(one, MUL(t, t));
  }
  case SIGMOID: {
    v4 s = vsigmoid(x);
    return MUL(s, SUB(one, s));
  }
  }
  return one;
}

#endif
