// What Linear does to a row after the product.
#ifndef TEMPER_EPILOGUE_H
#define TEMPER_EPILOGUE_H
#include "functions.h"

typedef struct {
  const f32 *bias, *res; // res has the stride of dst
  f32 *pre;
  i32 act;
} epilogue;

INLINE v4 epilogue4(math t, v4 v, const epilogue *ep, i32 act, i32 at, i32 col, i32 n) {
  if (ep->bias) v = ADD(v, load_some(ep->bias + col, n));
  if (ep->pre) store_some(ep->pre + at, v, n);
  if (act) v = vact(t, v, act);
  if (ep->res) v = ADD(v, load_some(ep->res + at, n));
  return v;
}

INLINE void epilogue_row(math t, const f32 *s, f32 *dst, const epilogue *ep, i32 act, i32 at, i32 col, i32 n) {
  i32 j = 0;
  for (; j + 4 <= n; j += 4) ST(dst + at + j, epilogue4(t, LD(s + j), ep, act, at + j, col + j, 4));
  if (j < n) store_part(dst + at + j, epilogue4(t, load_part(s + j, n - j), ep, act, at + j, col + j, n - j), n - j);
}

// finish writes n results of a row, which stand in s, to dst + at; col is the first column.
static void finish(math t, const f32 *s, f32 *dst, const epilogue *ep, i32 at, i32 col, i32 n) {
  switch (ep->act) {
  case GELU:
    epilogue_row(t, s, dst, ep, GELU, at, col, n);
    break;
  case NONE:
    epilogue_row(t, s, dst, ep, NONE, at, col, n);
    break;
  default:
    epilogue_row(t, s, dst, ep, ep->act, at, col, n);
  }
}
#endif
