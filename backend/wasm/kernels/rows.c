// Operations on rows: softmax, norms, their gradients, sums over rows, the loss.
#include "functions.h"

// softmax_row writes exp(s - max)/Σ, zeros where every value is -Inf, and returns log Σ exp(s). d may be s.
static f64 softmax_row(math k, f32 *d, const f32 *s, i32 n) {
  f32 top = -__builtin_inff();
  i32 j = 0;
  if (n >= 4) {
    v4 m = LD(s);
    for (j = 4; j + 4 <= n; j += 4) m = wasm_f32x4_pmax(m, LD(s + j));
    top = hmax(m);
  }
  for (; j < n; j++)
    if (s[j] > top) top = s[j];
  if (top == -__builtin_inff()) {
    clear(d, n);
    return top;
  }
  v4 t = SPLAT(top), sum = ZERO;
  for (j = 0; j + 4 <= n; j += 4) {
    v4 v = vexp(k, SUB(LD(s + j), t));
    sum = ADD(sum, v);
    ST(d + j, v);
  }
  f64 total = hsum(sum);
  if (j < n) {
    f32 rest[4];
    v4 v = vexp(k, SUB(load_part(s + j, n - j), t));
    ST(rest, v);
    for (i32 i = 0; j + i < n; i++) total += rest[i];
    store_part(d + j, v, n - j);
  }
  v4 inv = SPLAT((f32)(1 / total));
  for (j = 0; j + 4 <= n; j += 4) ST(d + j, MUL(LD(d + j), inv));
  if (j < n) store_part(d + j, MUL(load_part(d + j, n - j), inv), n - j);
  return (f64)top + dlog(total);
}

typedef struct {
  f32 *dst;
  const f32 *src;
  i32 rows, cols, block;
} softmax_args;

void op_softmax(const void *args, i32 chunk, env *e) {
  const softmax_args *g = args;
  i32 r1 = imin((chunk + 1) * g->block, g->rows);
  for (i32 r = chunk * g->block; r < r1; r++) softmax_row(e->math, g->dst + r * g->cols, g->src + r * g->cols, g->cols);
}

// row_sum is Σ f(x_j) in four sums (j mod 4), added as hsum does, then the rest in order.
#define ROW_SUM(n, EXPR)                            \
  ({                                                \
    v4 acc_ = ZERO;                                 \
    i32 j = 0;                                      \
    for (; j + 4 <= (n); j += 4) {                  \
      const i32 w = 4;                              \
      acc_ = ADD(acc_, (EXPR));                     \
    }                                               \
    if (j < (n)) {                                  \
      i32 w = (n)-j;                                \
      acc_ = ADD(acc_, only((EXPR), w));            \
    }                                               \
    hsum(acc_);                                     \
  })

// only keeps the first n lanes.
INLINE v4 only(v4 v, i32 n) {
  return wasm_v128_and(v, wasm_i32x4_lt(wasm_i32x4_const(0, 1, 2, 3), wasm_i32x4_splat(n)));
}

typedef struct {
  f32 *dst;
  const f32 *x, *gain, *bias;
  f32 *mean, *rstd;
  i32 rows, cols, block;
  f32 eps;
} norm_args;

void op_layernorm(const void *args, i32 chunk, env *e) {
  const norm_args *g = args;
  i32 n = g->cols, r1 = imin((chunk + 1) * g->block, g->rows);
  for (i32 r = chunk * g->block; r < r1; r++) {
    const f32 *x = g->x + r * n;
    f32 *d = g->dst + r * n;
    f32 mean = ROW_SUM(n, load_some(x + j, w)) / (f32)n;
    v4 m = SPLAT(mean);
    f32 var = ROW_SUM(n, ({ v4 c = SUB(load_some(x + j, w), m); MUL(c, c); })) / (f32)n;
    f32 rstd = (f32)(1 / __builtin_sqrt((f64)var + (f64)g->eps));
    v4 rs = SPLAT(rstd);
    for (i32 j = 0; j < n; j += 4) {
      i32 w = n - j;
      v4 v = MUL(SUB(load_some(x + j, w), m), rs);
      if (g->gain) v = MUL(v, load_some(g->gain + j, w));
      if (g->bias) v = ADD(v, load_some(g->bias + j, w));
      store_some(d + j, v, w);
    }
    if (g->mean) g->mean[r] = mean;
    if (g->rstd) g->rstd[r] = rstd;
  }
}

void op_rmsnorm(const void *args, i32 chunk, env *e) {
  const norm_args *g = args;
  i32 n = g->cols, r1 = imin((chunk + 1) * g->block, g->rows);
  for (i32 r = chunk * g->block; r < r1; r++) {
    const f32 *x = g->x + r * n;
    f32 *d = g->dst + r * n;
    f32 sq = ROW_SUM(n, ({ v4 c = load_some(x + j, w); MUL(c, c); })) / (f32)n;
    f32 rstd = (f32)(1 / __builtin_sqrt((f64)sq + (f64)g->eps));
    v4 rs = SPLAT(rstd);
    for (i32 j = 0; j < n; j += 4) {
      i32 w = n - j;
      v4 v = MUL(load_some(x + j, w), rs);
      if (g->gain) v = MUL(v, load_some(g->gain + j, w));
      store_some(d + j, v, w);
    }
    if (g->rstd) g->rstd[r] = rstd;
  }
}

typedef struct {
  f32 *dx;
  const f32 *dy, *x, *gain, *mean, *rstd; // mean is null for RMS norm
  i32 rows, cols, block;
} norm_backward_args;

// norm_backward adds to dx.
void op_norm_backward(const void *args, i32 chunk, env *e) {
  const norm_backward_args *g = args;
  i32 n = g->cols, r1 = imin((chunk + 1) * g->block, g->rows);
  for (i32 r = chunk * g->block; r < r1; r++) {
    const f32 *x = g->x + r * n, *dy = g->dy + r * n;
    f32 *dx = g->dx + r * n;
    v4 mean = SPLAT(g->mean ? g->mean[r] : 0), rs = SPLAT(g->rstd[r]);
#define DYG(j, w) (g->gain ? MUL(load_some(dy + (j), w), load_some(g->gain + (j), w)) : load_some(dy + (j), w))
#define XHAT(j, w) MUL(SUB(load_some(x + (j), w), mean), rs)
    v4 mg = ZERO;
    if (g->mean) mg = SPLAT(ROW_SUM(n, DYG(j, w)) / (f32)n);
    v4 mgx = SPLAT(ROW_SUM(n, MUL(DYG(j, w), XHAT(j, w))) / (f32)n);
    for (i32 j = 0; j < n; j += 4) {
      i32 w = n - j;
      v4 v = SUB(SUB(DYG(j, w), mg), MUL(XHAT(j, w), mgx));
      store_some(dx + j, ADD(load_some(dx + j, w), MUL(rs, v)), w);
    }
  }
}

typedef struct {
  f32 *dst;
  const f32 *x, *dy, *mean, *rstd; // dy null: sums of x; otherwise of dy·(x - mean)·rstd, mean null meaning 0
  i32 rows, cols, block;
} sum_rows_args;

#define ROW_CHUNK 64

// sum_rows adds Σ over rows to dst, rows ascending in chunks of ROW_CHUNK, chunks ascending. Chunks of the job: block columns.
void op_sum_rows(const void *args, i32 chunk, env *e) {
  const sum_rows_args *g = args;
  i32 n = g->cols, c1 = imin((chunk + 1) * g->block, n);
  for (i32 c = chunk * g->block; c < c1; c += 4) {
    i32 w = imin(4, c1 - c);
    v4 total = load_some(g->dst + c, w);
    for (i32 r0 = 0; r0 < g->rows; r0 += ROW_CHUNK) {
      i32 r1 = imin(r0 + ROW_CHUNK, g->rows);
      v4 part = ZERO;
      if (!g->dy)
        for (i32 r = r0; r < r1; r++) part = ADD(part, load_some(g->x + r * n + c, w));
      else
        for (i32 r = r0; r < r1; r++) {
          v4 v = load_some(g->x + r * n + c, w);
          if (g->mean) v = SUB(v, SPLAT(g->mean[r]));
          part = ADD(part, MUL(load_some(g->dy + r * n + c, w), MUL(v, SPLAT(g->rstd[r]))));
        }
      total = ADD(total, part);
    }
    store_some(g->dst + c, total, w);
  }
}

typedef struct {
  const f32 *logits;
  const i32 *targets;
  f32 *dlogits;
  f64 *losses; // per row
  i32 rows, cols, block;
  f32 scale;
} cross_entropy_args;

// log_sum_exp of a row, without writing.
static f64 log_sum_exp(math k, const f32 *s, i32 n) {
  f32 top = -__builtin_inff();
  for (i32 j = 0; j < n; j++)
    if (s[j] > top) top = s[j];
  if (top == -__builtin_inff()) return top;
  // The order of softmax_row, so that the loss has the same bits with and without its gradient.
  v4 t = SPLAT(top), sum = ZERO;
  i32 j = 0;
  for (; j + 4 <= n; j += 4) sum = ADD(sum, vexp(k, SUB(LD(s + j), t)));
  f64 total = hsum(sum);
  if (j < n) {
    f32 rest[4];
    ST(rest, vexp(k, SUB(load_part(s + j, n - j), t)));
    for (i32 i = 0; j + i < n; i++) total += rest[i];
  }
  return (f64)top + dlog(total);
}

void op_cross_entropy(const void *args, i32 chunk, env *e) {
  const cross_entropy_args *g = args;
  i32 n = g->cols, r1 = imin((chunk + 1) * g->block, g->rows);
  for (i32 r = chunk * g->block; r < r1; r++) {
    const f32 *s = g->logits + r * n;
    f32 *d = g->dlogits ? g->dlogits + r * n : 0;
    i32 t = g->targets[r];
    g->losses[r] = 0;
    if (t < 0) {
      if (d) clear(d, n);
      continue;
    }
    f64 at = s[t];
    if (!d) {
      g->losses[r] = log_sum_exp(e->math, s, n) - at;
      continue;
    }
    g->losses[r] = softmax_row(e->math, d, s, n) - at;
    d[t] -= 1;
    v4 sc = SPLAT(g->scale);
    for (i32 j = 0; j < n; j += 4) store_some(d + j, MUL(sc, load_some(d + j, n - j)), n - j);
  }
}
