// Operations element by element, copies by index, rotation, the optimiser.
#include "functions.h"

typedef struct {
  f32 *dst;
  const f32 *x;
  i32 n, block, kind;
} act_args;

#define EACH(n_, block_, BODY)                                        \
  i32 end = imin((chunk + 1) * (block_), (n_)), i = chunk * (block_); \
  for (; i + 4 <= end; i += 4) {                                      \
    const i32 w = 4;                                                  \
    BODY;                                                             \
  }                                                                   \
  if (i < end) {                                                      \
    const i32 w = end - i;                                            \
    BODY;                                                             \
  }

void op_act(const void *args, i32 chunk, env *e) {
  const act_args *g = args;
  if (g->kind == GELU) {
    EACH(g->n, g->block, store_some(g->dst + i, vact(e->math, load_some(g->x + i, w), GELU), w))
  } else {
    EACH(g->n, g->block, store_some(g->dst + i, vact(e->math, load_some(g->x + i, w), g->kind), w))
  }
}

typedef struct {
  f32 *dx;
  const f32 *dy, *x;
  i32 n, block, kind;
} act_backward_args;

void op_act_backward(const void *args, i32 chunk, env *e) {
  const act_backward_args *g = args;
  EACH(g->n, g->block, {
    v4 v = MUL(load_some(g->dy + i, w), vact_grad(e->math, load_some(g->x + i, w), g->kind));
    store_some(g->dx + i, ADD(load_some(g->dx + i, w), v), w);
  })
}

typedef struct {
  f32 *dst;
  const f32 *a, *b;
  i32 n, block, kind; // 0 a+b, 1 a·b, 2 a + s·b
  f32 s;
} binary_args;

void op_binary(const void *args, i32 chunk, env *e) {
  const binary_args *g = args;
  v4 s = SPLAT(g->s);
  if (g->kind == 0) {
    EACH(g->n, g->block, store_some(g->dst + i, ADD(load_some(g->a + i, w), load_some(g->b + i, w)), w))
  } else if (g->kind == 1) {
    EACH(g->n, g->block, store_some(g->dst + i, MUL(load_some(g->a + i, w), load_some(g->b + i, w)), w))
  } else {
    EACH(g->n, g->block, store_some(g->dst + i, ADD(load_some(g->a + i, w), MUL(s, load_some(g->b + i, w))), w))
  }
}

typedef struct {
  f32 *dst;
  i32 n, block;
  f32 s;
} scale_args;

void op_scale(const void *args, i32 chunk, env *e) {
  const scale_args *g = args;
  v4 s = SPLAT(g->s);
  EACH(g->n, g->block, store_some(g->dst + i, MUL(load_some(g->dst + i, w), s), w))
}

typedef struct {
  f32 *dst;
  const f32 *v;
  i32 rows, cols, block;
} add_row_args;

void op_add_row(const void *args, i32 chunk, env *e) {
  const add_row_args *g = args;
  i32 r1 = imin((chunk + 1) * g->block, g->rows);
  for (i32 r = chunk * g->block; r < r1; r++) {
    f32 *d = g->dst + r * g->cols;
    for (i32 j = 0; j < g->cols; j += 4) {
      i32 w = g->cols - j;
      store_some(d + j, ADD(load_some(d + j, w), load_some(g->v + j, w)), w);
    }
  }
}

typedef struct {
  const f32 *a, *b;
  f64 *out; // one per chunk
  i32 n, block;
} dot_args;

// dot sums products in f64, two lanes at a time; each chunk leaves its part.
void op_dot(const void *args, i32 chunk, env *e) {
  const dot_args *g = args;
  v128_t s0 = wasm_f64x2_const(0, 0), s1 = s0;
  i32 end = imin((chunk + 1) * g->block, g->n), i = chunk * g->block;
  for (; i < end; i += 4) {
    v4 a = load_some(g->a + i, end - i), b = load_some(g->b + i, end - i);
    v128_t ah = wasm_i32x4_shuffle(a, a, 2, 3, 2, 3), bh = wasm_i32x4_shuffle(b, b, 2, 3, 2, 3);
    s0 = wasm_f64x2_add(s0, wasm_f64x2_mul(wasm_f64x2_promote_low_f32x4(a), wasm_f64x2_promote_low_f32x4(b)));
    s1 = wasm_f64x2_add(s1, wasm_f64x2_mul(wasm_f64x2_promote_low_f32x4(ah), wasm_f64x2_promote_low_f32x4(bh)));
  }
  s0 = wasm_f64x2_add(s0, s1);
  g->out[chunk] = wasm_f64x2_extract_lane(s0, 0) + wasm_f64x2_extract_lane(s0, 1);
}

typedef struct {
  f32 *dst;
  const f32 *table;
  const i32 *ids;
  i32 n, cols, block, add;
} gather_args;

void op_gather(const void *args, i32 chunk, env *e) {
  const gather_args *g = args;
  i32 r1 = imin((chunk + 1) * g->block, g->n);
  for (i32 r = chunk * g->block; r < r1; r++) {
    f32 *d = g->dst + r * g->cols;
    const f32 *t = g->table + g->ids[r] * g->cols;
    if (!g->add) {
      __builtin_memcpy(d, t, (u32)g->cols * 4);
      continue;
    }
    for (i32 j = 0; j < g->cols; j += 4) {
      i32 w = g->cols - j;
      store_some(d + j, ADD(load_some(d + j, w), load_some(t + j, w)), w);
    }
  }
}

typedef struct {
  f32 *table;
  const f32 *src;
  const i32 *ids;
  i32 n, cols, block;
} scatter_args;

// scatter_add goes through the ids in order; chunks are blocks of columns, so that no two write the same place.
void op_scatter_add(const void *args, i32 chunk, env *e) {
  const scatter_args *g = args;
  i32 c0 = chunk * g->block, c1 = imin(c0 + g->block, g->cols);
  for (i32 r = 0; r < g->n; r++) {
    f32 *t = g->table + g->ids[r] * g->cols;
    const f32 *s = g->src + r * g->cols;
    for (i32 j = c0; j < c1; j += 4) {
      i32 w = c1 - j;
      store_some(t + j, ADD(load_some(t + j, w), load_some(s + j, w)), w);
    }
  }
}

typedef struct {
  f32 *x;
  const i32 *pos;
  const f32 *cos, *sin;
  i32 rows, stride, heads, dim, rot, interleaved, inverse, block;
} rope_args;

void op_rope(const void *args, i32 chunk, env *e) {
  const rope_args *g = args;
  i32 half = g->rot / 2, r1 = imin((chunk + 1) * g->block, g->rows);
  f32 sign = g->inverse ? -1 : 1;
  for (i32 r = chunk * g->block; r < r1; r++) {
    const f32 *cos = g->cos + g->pos[r] * half, *sin = g->sin + g->pos[r] * half;
    for (i32 h = 0; h < g->heads; h++) {
      f32 *x = g->x + r * g->stride + h * g->dim;
      if (g->interleaved) {
        for (i32 j = 0; j < half; j++) {
          f32 a = x[2 * j], b = x[2 * j + 1], s = sin[j] * sign;
          x[2 * j] = a * cos[j] - b * s, x[2 * j + 1] = b * cos[j] + a * s;
        }
        continue;
      }
      for (i32 j = 0; j < half; j += 4) {
        i32 w = half - j;
        v4 a = load_some(x + j, w), b = load_some(x + half + j, w), c = load_some(cos + j, w);
        v4 s = MUL(load_some(sin + j, w), SPLAT(sign));
        store_some(x + j, SUB(MUL(a, c), MUL(b, s)), w);
        store_some(x + half + j, ADD(MUL(b, c), MUL(a, s)), w);
      }
    }
  }
}

typedef struct {
  f32 *p;
  const f32 *g;
  f32 *m, *v;
  i32 n, block;
  f32 beta1, beta2, c1, c2, lr, decay, eps, scale; // c1, c2: bias corrections; decay: lr·wd
} adamw_args;

void op_adamw(const void *args, i32 chunk, env *e) {
  const adamw_args *a = args;
  v4 b1 = SPLAT(a->beta1), b2 = SPLAT(a->beta2), n1 = SPLAT(1 - a->beta1), n2 = SPLAT(1 - a->beta2), c1 = SPLAT(a->c1), c2 = SPLAT(a->c2);
  v4 lr = SPLAT(a->lr), decay = SPLAT(a->decay), eps = SPLAT(a->eps), scale = SPLAT(a->scale);
  EACH(a->n, a->block, {
    v4 g = MUL(load_some(a->g + i, w), scale);
    v4 m = ADD(MUL(b1, load_some(a->m + i, w)), MUL(n1, g));
    v4 v = ADD(MUL(b2, load_some(a->v + i, w)), MUL(n2, MUL(g, g)));
    store_some(a->m + i, m, w);
    store_some(a->v + i, v, w);
    v4 p = load_some(a->p + i, w);
    p = SUB(p, MUL(decay, p));
    v4 d = ADD(wasm_f32x4_sqrt(MUL(v, c2)), eps);
    store_some(a->p + i, SUB(p, DIV(MUL(lr, MUL(m, c1)), d)), w);
  })
}
