// Fused attention over packed sequences, forward and backward (Dao et al. 2022, FlashAttention, appendix B.4, with whole rows of scores in
// scratch instead of blocks of keys). The register tile has lanes along the columns of b, which lies [k, n].
#include "functions.h"

// panel: c [m,n] = or += a·b, a(i,x) at a[i·am + x·ak], b(x,j) at b[x·ldb + j]. The order along x is ascending, one sum per element.
INLINE void panel_tile(const i32 MR, const i32 NV, const f32 *a, i32 am, i32 ak, const f32 *b, i32 ldb, i32 k, f32 *c, i32 ldc, i32 add) {
  v4 acc[4][2];
  const f32 *ap[4];
  for (int i = 0; i < MR; i++) {
    ap[i] = a + i * am;
    for (int j = 0; j < NV; j++) acc[i][j] = ZERO;
  }
  for (i32 x = k; x > 0; x--) {
    v4 bv[2];
    for (int j = 0; j < NV; j++) bv[j] = LD(b + j * 4);
    b += ldb;
    for (int i = 0; i < MR; i++) {
      v4 av = LDSPLAT(ap[i]);
      ap[i] += ak;
      for (int j = 0; j < NV; j++) acc[i][j] = MADD(av, bv[j], acc[i][j]);
    }
  }
  for (int i = 0; i < MR; i++)
    for (int j = 0; j < NV; j++) {
      f32 *p = c + i * ldc + j * 4;
      ST(p, add ? ADD(LD(p), acc[i][j]) : acc[i][j]);
    }
}
INLINE void panel_rest(const f32 *a, i32 ak, const f32 *b, i32 ldb, i32 k, f32 *c, i32 add) {
  v4 s = ZERO; // one lane of the same arithmetic
  for (i32 x = 0; x < k; x++) s = MADD(LDSPLAT(a + x * ak), wasm_v128_load32_zero(b + x * ldb), s);
  f32 v = wasm_f32x4_extract_lane(s, 0);
  *c = add ? *c + v : v;
}
#define PANEL(MR, NV)                                                                                                     \
  static NOINLINE void panel_##MR##x##NV(const f32 *a, i32 am, i32 ak, const f32 *b, i32 ldb, i32 k, f32 *c, i32 ldc, i32 add) { \
    panel_tile(MR, NV, a, am, ak, b, ldb, k, c, ldc, add);                                                                \
  }
PANEL(4, 2) PANEL(3, 2) PANEL(2, 2) PANEL(1, 2)
PANEL(4, 1) PANEL(3, 1) PANEL(2, 1) PANEL(1, 1)

static void panel(const f32 *a, i32 am, i32 ak, const f32 *b, i32 ldb, i32 m, i32 n, i32 k, f32 *c, i32 ldc, i32 add) {
  i32 j = 0;
  for (; j + 8 <= n; j += 8) {
    i32 i = 0;
    for (; i + 4 <= m; i += 4) panel_4x2(a + i * am, am, ak, b + j, ldb, k, c + i * ldc + j, ldc, add);
    const f32 *ai = a + i * am;
    f32 *ci = c + i * ldc + j;
    switch (m - i) {
    case 3: panel_3x2(ai, am, ak, b + j, ldb, k, ci, ldc, add); break;
    case 2: panel_2x2(ai, am, ak, b + j, ldb, k, ci, ldc, add); break;
    case 1: panel_1x2(ai, am, ak, b + j, ldb, k, ci, ldc, add); break;
    }
  }
  for (; j + 4 <= n; j += 4) {
    i32 i = 0;
    for (; i + 4 <= m; i += 4) panel_4x1(a + i * am, am, ak, b + j, ldb, k, c + i * ldc + j, ldc, add);
    const f32 *ai = a + i * am;
    f32 *ci = c + i * ldc + j;
    switch (m - i) {
    case 3: panel_3x1(ai, am, ak, b + j, ldb, k, ci, ldc, add); break;
    case 2: panel_2x1(ai, am, ak, b + j, ldb, k, ci, ldc, add); break;
    case 1: panel_1x1(ai, am, ak, b + j, ldb, k, ci, ldc, add); break;
    }
  }
  for (; j < n; j++)
    for (i32 i = 0; i < m; i++) panel_rest(a + i * am, ak, b + j, ldb, k, c + i * ldc + j, add);
}

// item is one block of queries of one sequence.
typedef struct {
  i32 row, n;    // first row of q, number of queries
  i32 first;     // its index in the sequence
  i32 qlen, kstart, klen, bias;
} item;

typedef struct {
  const f32 *q, *k, *v;
  f32 *out;
  const f32 *bias;
  f32 *lse;
  const item *items;
  const f32 *dout;
  f32 *dq, *dk, *dv, *dbias;
  i32 qstride, kstride, vstride, ostride, heads, kvheads, dim, causal, window;
  f32 scale, softcap, dropout;
  u32 seed_lo, seed_hi;
  i32 count, block; // items; backward: queries at a time
  i32 whole;        // backward: a chunk is a key head over all items, because items may share keys or biases
} attention_args;

INLINE void key_range(const attention_args *g, const item *t, i32 i, i32 *lo, i32 *hi) {
  i32 p = t->klen - t->qlen + t->first + i;
  *lo = 0, *hi = t->klen;
  if (g->causal) {
    *hi = imin(*hi, p + 1);
    if (g->window > 0) *lo = imax(*lo, p + 1 - g->window);
  } else if (g->window > 0) {
    *lo = imax(*lo, p - g->window), *hi = imin(*hi, p + g->window + 1);
  }
  *hi = imax(*hi, *lo);
}

// transposed copies keys [lo,hi) of a head to t [dim][ld], zeros beyond.
static void transposed(const f32 *k, i32 stride, i32 n, i32 dim, f32 *t, i32 ld) {
  i32 r = 0, c;
  for (; r + 4 <= n; r += 4) {
    const f32 *s = k + r * stride;
    for (c = 0; c + 4 <= dim; c += 4) {
      v4 x0 = LD(s + c), x1 = LD(s + c + stride), x2 = LD(s + c + 2 * stride), x3 = LD(s + c + 3 * stride);
      v4 a = wasm_i32x4_shuffle(x0, x1, 0, 4, 1, 5), b = wasm_i32x4_shuffle(x2, x3, 0, 4, 1, 5);
      v4 d = wasm_i32x4_shuffle(x0, x1, 2, 6, 3, 7), f = wasm_i32x4_shuffle(x2, x3, 2, 6, 3, 7);
      f32 *o = t + c * ld + r;
      ST(o, wasm_i64x2_shuffle(a, b, 0, 2));
      ST(o + ld, wasm_i64x2_shuffle(a, b, 1, 3));
      ST(o + 2 * ld, wasm_i64x2_shuffle(d, f, 0, 2));
      ST(o + 3 * ld, wasm_i64x2_shuffle(d, f, 1, 3));
    }
    for (; c < dim; c++)
      for (i32 i = 0; i < 4; i++) t[c * ld + r + i] = s[i * stride + c];
  }
  for (; r < ld; r++)
    for (c = 0; c < dim; c++) t[c * ld + r] = r < n ? k[r * stride + c] : 0;
}

// keep_factor repeats backend.DropoutKeep with backend.AttentionIndex.
INLINE f32 keep_factor(const attention_args *g, i32 row, i32 head, i32 key) {
  u64 i = (u64)(row * g->heads + head) << 32 | (u64)(u32)key;
  u64 z = ((u64)g->seed_hi << 32 | g->seed_lo) + (i + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return (f32)(u32)(z >> 40) * (1.0f / (1 << 24)) >= g->dropout ? 1 / (1 - g->dropout) : 0;
}

// biased turns raw products into scores, in place: scale, cap, bias. slope, when not null, gets 1 - tanh² of the cap.
INLINE void biased(const attention_args *g, const item *t, i32 i, i32 head, i32 lo, i32 n, f32 *s, f32 *slope) {
  v4 scale = SPLAT(g->scale), cap = SPLAT(g->softcap), inv = SPLAT(g->softcap > 0 ? 1 / g->softcap : 0);
  const f32 *bias = g->bias ? g->bias + t->bias + (head * t->qlen + t->first + i) * t->klen + lo : 0;
  for (i32 j = 0; j < n; j += 4) {
    i32 w = n - j;
    v4 v = MUL(load_some(s + j, w), scale);
    if (g->softcap > 0) {
      v4 th = vtanh(MUL(v, inv));
      v = MUL(cap, th);
      if (slope) store_some(slope + j, SUB(SPLAT(1), MUL(th, th)), w);
    }
    if (bias) v = ADD(v, load_some(bias + j, w));
    store_some(s + j, v, w);
  }
}

// FEW is the most queries of a decoding step, of guessed tokens too: each gets the bits that it would get alone, and transposing the keys would
// cost more than it saves.
enum { FEW = 32 };

// dots: s(i,j) is the product of query i and key j, both rows of d, with a lane for each fourth element.
INLINE void dots(const i32 MR, const f32 *q, i32 qs, const f32 *k, i32 ks, i32 d, i32 n, f32 *s, i32 ld) {
  for (i32 j = 0; j < n; j++, k += ks) {
    v4 acc[4];
    i32 c = 0;
    for (int i = 0; i < MR; i++) acc[i] = ZERO;
    for (; c + 4 <= d; c += 4) {
      v4 b = LD(k + c);
      for (int i = 0; i < MR; i++) acc[i] = MADD(LD(q + i * qs + c), b, acc[i]);
    }
    if (c < d) {
      v4 b = load_part(k + c, d - c);
      for (int i = 0; i < MR; i++) acc[i] = MADD(load_part(q + i * qs + c, d - c), b, acc[i]);
    }
    for (int i = 0; i < MR; i++) s[i * ld + j] = hsum(acc[i]);
  }
}
#define DOTS(MR)                                                                                                        \
  static NOINLINE void dots_##MR(const f32 *q, i32 qs, const f32 *k, i32 ks, i32 d, i32 n, f32 *s, i32 ld) { dots(MR, q, qs, k, ks, d, n, s, ld); }
DOTS(4) DOTS(3) DOTS(2) DOTS(1)

// attention: chunk = item·heads + head. Scratch: (n + dim) · (klen rounded up to 8) f32.
void op_attention(const void *args, i32 chunk, env *e) {
  const attention_args *g = args;
  const item *t = g->items + chunk / g->heads;
  i32 h = chunk % g->heads, d = g->dim, kh = h / (g->heads / g->kvheads);
  i32 lo, hi, x;
  key_range(g, t, 0, &lo, &x);
  key_range(g, t, t->n - 1, &x, &hi);
  hi = imax(hi, lo);
  i32 n = hi - lo, ld = (n + 7) & ~7;
  f32 *s = (f32 *)e->scratch, *kt = s + t->n * ld;
  const f32 *q = g->q + t->row * g->qstride + h * d;
  const f32 *k = g->k + (t->kstart + lo) * g->kstride + kh * d, *v = g->v + (t->kstart + lo) * g->vstride + kh * d;
  f32 *out = g->out + t->row * g->ostride + h * d;
  if (n > 0 && (t->qlen < 4 || (g->causal && t->qlen <= FEW))) {
    for (i32 i = 0; i < t->n; i += 4) {
      i32 m = imin(4, t->n - i), to;
      key_range(g, t, i + m - 1, &x, &to);
      const f32 *qi = q + i * g->qstride;
      f32 *si = s + i * ld;
      switch (m) {
      case 4: dots_4(qi, g->qstride, k, g->kstride, d, to - lo, si, ld); break;
      case 3: dots_3(qi, g->qstride, k, g->kstride, d, to - lo, si, ld); break;
      case 2: dots_2(qi, g->qstride, k, g->kstride, d, to - lo, si, ld); break;
      case 1: dots_1(qi, g->qstride, k, g->kstride, d, to - lo, si, ld); break;
      }
    }
  } else if (n > 0) {
    transposed(k, g->kstride, n, d, kt, ld);
    for (i32 i = 0; i < t->n; i += 4) { // only keys that some query of the tile sees
      i32 m = imin(4, t->n - i), to;
      key_range(g, t, i + m - 1, &x, &to);
      panel(q + i * g->qstride, g->qstride, 1, kt, ld, m, imin(ld, (to - lo + 7) & ~7), d, s + i * ld, ld, 0);
    }
  }
  for (i32 i = 0; i < t->n; i++) {
    i32 from, to;
    key_range(g, t, i, &from, &to);
    f32 *si = s + i * ld;
    f32 top = -__builtin_inff();
    i32 seen = to - from;
    f32 *p = si + (from - lo);
    biased(g, t, i, h, from, seen, p, 0);
    i32 j = 0;
    if (seen >= 4) {
      v4 m = LD(p);
      for (j = 4; j + 4 <= seen; j += 4) m = wasm_f32x4_pmax(m, LD(p + j));
      top = hmax(m);
    }
    for (; j < seen; j++)
      if (p[j] > top) top = p[j];
    f32 lse = -__builtin_inff();
    if (top == lse) {
      clear(si, n);
    } else {
      v4 tv = SPLAT(top), sum = ZERO;
      for (j = 0; j + 4 <= seen; j += 4) {
        v4 z = vexp(e->math, SUB(LD(p + j), tv));
        sum = ADD(sum, z);
        ST(p + j, z);
      }
      f64 total = hsum(sum);
      if (j < seen) {
        f32 rest[4];
        ST(rest, vexp(e->math, SUB(load_part(p + j, seen - j), tv)));
        for (i32 y = 0; j + y < seen; y++) total += rest[y], p[j + y] = rest[y];
      }
      v4 inv = SPLAT((f32)(1 / total));
      for (j = 0; j < seen; j += 4) store_some(p + j, MUL(load_some(p + j, seen - j), inv), seen - j);
      if (g->lse) lse = (f32)((f64)top + dlog(total));
      if (g->dropout > 0)
        for (j = 0; j < seen; j++) p[j] *= keep_factor(g, t->row + i, h, from + j);
      clear(si, from - lo);
      clear(si + (to - lo), n - (to - lo));
    }
    if (g->lse) g->lse[(t->row + i) * g->heads + h] = lse;
  }
  for (i32 i = 0; i < t->n; i += 4) {
    i32 m = imin(4, t->n - i), to;
    key_range(g, t, i + m - 1, &x, &to);
    panel(s + i * ld, ld, 1, v, g->vstride, m, d, imin(to - lo, n), out + i * g->ostride, g->ostride, 0);
  }
}

static void backward_block(math k, const attention_args *g, const item *t, i32 h, i32 first, i32 m, const f32 *kt, const f32 *vt, i32 ld, f32 *s,
                           f32 *dp, f32 *slope) {
  i32 d = g->dim, kh = h / (g->heads / g->kvheads), row = t->row + first, n = t->klen;
  const f32 *q = g->q + row * g->qstride + h * d, *dout = g->dout + row * g->ostride + h * d, *out = g->out + row * g->ostride + h * d;
  panel(q, g->qstride, 1, kt, ld, m, ld, d, s, ld, 0);
  panel(dout, g->ostride, 1, vt, ld, m, ld, d, dp, ld, 0);
  for (i32 i = 0; i < m; i++) {
    f32 *p = s + i * ld, *ds = dp + i * ld;
    i32 from, to;
    key_range(g, t, first + i, &from, &to);
    clear(p, from), clear(ds, from);
    clear(p + to, ld - to), clear(ds + to, ld - to);
    biased(g, t, first + i, h, from, to - from, p + from, g->softcap > 0 ? slope + from : 0);
    const f32 *a = dout + i * g->ostride, *b = out + i * g->ostride;
    v4 acc = ZERO;
    for (i32 c = 0; c < d; c += 4) acc = MADD(load_some(a + c, d - c), load_some(b + c, d - c), acc);
    v4 delta = SPLAT(hsum(acc)), lse = SPLAT(g->lse[(row + i) * g->heads + h]), scale = SPLAT(g->scale);
    f32 *db = g->dbias ? g->dbias + t->bias + (h * t->qlen + t->first + first + i) * n : 0;
    for (i32 j = from; j < to; j += 4) {
      i32 w = to - j;
      v4 sc = load_some(p + j, w);
      v4 pr = wasm_v128_andnot(vexp(k, SUB(sc, lse)), wasm_f32x4_eq(sc, SPLAT(-__builtin_inff())));
      v4 kept = pr;
      if (g->dropout > 0) {
        f32 f[4] = {0, 0, 0, 0};
        for (i32 y = 0; y < imin(w, 4); y++) f[y] = keep_factor(g, row + i, h, j + y);
        kept = MUL(pr, LD(f));
      }
      v4 v = SUB(MUL(kept, load_some(ds + j, w)), MUL(pr, delta));
      if (db) store_some(db + j, ADD(load_some(db + j, w), v), w);
      if (g->softcap > 0) v = MUL(v, load_some(slope + j, w));
      store_some(ds + j, MUL(v, scale), w);
      store_some(p + j, kept, w);
    }
  }
  i32 krow = t->kstart;
  if (g->dv)
    panel(s, 1, ld, dout, g->ostride, n, d, m, g->dv + krow * g->vstride + kh * d, g->vstride, 1);
  if (g->dq)
    panel(dp, ld, 1, g->k + krow * g->kstride + kh * d, g->kstride, m, d, n, g->dq + row * g->qstride + h * d, g->qstride, 1);
  if (g->dk)
    panel(dp, 1, ld, q, g->qstride, n, d, m, g->dk + krow * g->kstride + kh * d, g->kstride, 1);
}

// attention_backward: items are whole sequences. Scratch: (2·block + 2·dim + 1) · (klen rounded up to 8) f32.
void op_attention_backward(const void *args, i32 chunk, env *e) {
  const attention_args *g = args;
  i32 group = g->heads / g->kvheads;
  i32 t0 = g->whole ? 0 : chunk / g->kvheads, t1 = g->whole ? g->count : t0 + 1;
  i32 kh = g->whole ? chunk : chunk % g->kvheads;
  for (i32 i = t0; i < t1; i++) {
    const item *t = g->items + i;
    if (t->n == 0 || t->klen == 0) continue;
    i32 ld = (t->klen + 7) & ~7, d = g->dim;
    f32 *kt = (f32 *)e->scratch, *vt = kt + d * ld, *s = vt + d * ld, *dp = s + g->block * ld, *slope = dp + g->block * ld;
    transposed(g->k + t->kstart * g->kstride + kh * d, g->kstride, t->klen, d, kt, ld);
    transposed(g->v + t->kstart * g->vstride + kh * d, g->vstride, t->klen, d, vt, ld);
    for (i32 h = kh * group; h < (kh + 1) * group; h++)
      for (i32 from = 0; from < t->n; from += g->block)
        backward_block(e->math, g, t, h, from, imin(g->block, t->n - from), kt, vt, ld, s, dp, slope);
  }
}
