// Matrix products. The register tile has lanes along k: rows of x [M,K] and of W [N,K] are read as they lie, so weights are never packed
// or copied. Each output is four sums (k mod 4) over blocks of KBLOCK, whatever tile it falls into.
#include "epilogue.h"

#ifdef TEMPER_RELAXED
#define TILE_ROWS 5 // 5×2 sums: fused multiply-add needs no temporary
#else
#define TILE_ROWS 4
#endif
#define KBLOCK 2048
#define COLS 64 // columns of a chunk: the stride of its results in scratch

INLINE void dot_tile(const i32 MR, const i32 NR, const f32 *a, i32 lda, const f32 *b, i32 ldb, i32 k, f32 *out, i32 add) {
  v4 acc[5][4];
  const f32 *ap[5], *bp[4];
  for (int i = 0; i < MR; i++) {
    ap[i] = a + i * lda;
    for (int j = 0; j < NR; j++) acc[i][j] = ZERO;
  }
  for (int j = 0; j < NR; j++) bp[j] = b + j * ldb;
  for (i32 x = k >> 2; x > 0; x--) {
    v4 bv[4];
    for (int j = 0; j < NR; j++) bv[j] = LD(bp[j]), bp[j] += 4;
    for (int i = 0; i < MR; i++) {
      v4 av = LD(ap[i]);
      ap[i] += 4;
      for (int j = 0; j < NR; j++) acc[i][j] = MADD(av, bv[j], acc[i][j]);
    }
  }
  if (k & 3) {
    v4 bv[4];
    for (int j = 0; j < NR; j++) bv[j] = load_part(bp[j], k & 3);
    for (int i = 0; i < MR; i++) {
      v4 av = load_part(ap[i], k & 3);
      for (int j = 0; j < NR; j++) acc[i][j] = MADD(av, bv[j], acc[i][j]);
    }
  }
  for (int i = 0; i < MR; i++) {
    f32 *o = out + i * COLS;
    if (NR == 4) {
      v4 s = hsum4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
      ST(o, add ? ADD(LD(o), s) : s);
    } else if (NR == 2 && i + 1 < MR) {
      v4 s = hsum4(acc[i][0], acc[i][1], acc[i + 1][0], acc[i + 1][1]);
      if (add) s = ADD(wasm_v128_load64_lane(o + COLS, wasm_v128_load64_zero(o), 1), s);
      wasm_v128_store64_lane(o, s, 0);
      wasm_v128_store64_lane(o + COLS, s, 1);
      i++;
    } else
      for (int j = 0; j < NR; j++) {
        f32 s = hsum(acc[i][j]);
        o[j] = add ? o[j] + s : s;
      }
  }
}

#define TILE(MR, NR)                                                                                                    \
  static NOINLINE void tile_##MR##x##NR(const f32 *a, i32 lda, const f32 *b, i32 ldb, i32 k, f32 *out, i32 add) {       \
    dot_tile(MR, NR, a, lda, b, ldb, k, out, add);                                                                      \
  }
TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1)
TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2)
TILE(1, 4) TILE(2, 4)
#if TILE_ROWS == 5
TILE(5, 1) TILE(5, 2)
#endif

// column_group computes nr (1, 2 or 4) columns for all m rows, in tiles of even height: a low tile at the end would wait for its few sums.
INLINE void column_group(const f32 *a, i32 lda, const f32 *b, i32 ldb, i32 m, i32 nr, i32 k, f32 *s, i32 add) {
  if (nr == 4) { // at most two rows
    if (m == 1) tile_1x4(a, lda, b, ldb, k, s, add);
    else tile_2x4(a, lda, b, ldb, k, s, add);
    return;
  }
  for (i32 tiles = ceildiv(m, TILE_ROWS); tiles > 0; tiles--) {
    i32 h = ceildiv(m, tiles);
    switch (h) {
#define ROWS_OF(MR)                                            \
  case MR:                                                     \
    if (nr == 2) tile_##MR##x2(a, lda, b, ldb, k, s, add);     \
    else tile_##MR##x1(a, lda, b, ldb, k, s, add);             \
    break;
      ROWS_OF(1) ROWS_OF(2) ROWS_OF(3) ROWS_OF(4)
#if TILE_ROWS == 5
      ROWS_OF(5)
#endif
    }
    a += h * lda, s += h * COLS, m -= h;
  }
}

// touch reads a line of each 64 bytes, in order: memory answers that quicker than the two or four rows at once of a tile, and the rows of a
// chunk then come from the second cache. Worth it where several rows follow. What it returns must go somewhere, or nothing would be read.
static f32 touch(const f32 *b, i32 n) {
  v4 a0 = ZERO, a1 = ZERO, a2 = ZERO, a3 = ZERO;
  for (; n >= 64; n -= 64, b += 64)
    a0 = wasm_v128_or(a0, LD(b)), a1 = wasm_v128_or(a1, LD(b + 16)), a2 = wasm_v128_or(a2, LD(b + 32)), a3 = wasm_v128_or(a3, LD(b + 48));
  return hsum(wasm_v128_or(wasm_v128_or(a0, a1), wasm_v128_or(a2, a3)));
}

// product writes the m × n (n <= COLS) block of a·bᵀ to s, rows COLS apart.
static void product(const f32 *a, i32 lda, const f32 *b, i32 ldb, i32 m, i32 n, i32 k, f32 *s) {
  i32 from = 0;
  do {
    i32 len = imin(k - from, KBLOCK), j = 0;
    if (m <= 2)
      for (; j + 4 <= n; j += 4) column_group(a + from, lda, b + j * ldb + from, ldb, m, 4, len, s + j, from);
    for (; j + 2 <= n; j += 2) column_group(a + from, lda, b + j * ldb + from, ldb, m, 2, len, s + j, from);
    if (j < n) column_group(a + from, lda, b + j * ldb + from, ldb, m, 1, len, s + j, from);
    from += len;
  } while (from < k);
}

typedef struct {
  f32 *dst;
  const f32 *x, *w;
  i32 rows, in, out, row_block;
  epilogue ep;
} linear_args;

// linear_f32: dst [rows,out] = act(x·wᵀ + bias) + residual. Chunks: blocks of row_block rows by COLS columns. Scratch: row_block·COLS f32.
void op_linear_f32(const void *args, i32 chunk, env *e) {
  const linear_args *g = args;
  i32 across = ceildiv(g->out, COLS);
  i32 r0 = chunk / across * g->row_block, c0 = chunk % across * COLS;
  i32 m = imin(g->row_block, g->rows - r0), n = imin(COLS, g->out - c0);
  f32 *s = (f32 *)e->scratch;
  if (m > 4) *s = touch(g->w + c0 * g->in, n * g->in);
  product(g->x + r0 * g->in, g->in, g->w + c0 * g->in, g->in, m, n, g->in, s);
  for (i32 i = 0; i < m; i++) finish(e->math, s + i * COLS, g->dst, &g->ep, (r0 + i) * g->out + c0, c0, n);
}

typedef struct {
  f32 *c;
  const f32 *a, *b;
  i32 m, n, k, lda, ldb, ldc, row_block, accumulate;
  f32 alpha;
} matmul_args;

// matmul: c [m,n] (+)= alpha · a [m,k] · b [n,k]ᵀ; chunks and scratch as linear_f32. Other transposes are brought to this form.
void op_matmul(const void *args, i32 chunk, env *e) {
  const matmul_args *g = args;
  i32 across = ceildiv(g->n, COLS);
  i32 r0 = chunk / across * g->row_block, c0 = chunk % across * COLS;
  i32 m = imin(g->row_block, g->m - r0), n = imin(COLS, g->n - c0);
  f32 *s = (f32 *)e->scratch;
  product(g->a + r0 * g->lda, g->lda, g->b + c0 * g->ldb, g->ldb, m, n, g->k, s);
  v4 alpha = SPLAT(g->alpha);
  for (i32 i = 0; i < m; i++) {
    f32 *c = g->c + (r0 + i) * g->ldc + c0, *si = s + i * COLS;
    for (i32 j = 0; j < n; j += 4) {
      i32 w = n - j;
      v4 v = MUL(alpha, load_some(si + j, w));
      if (g->accumulate) v = ADD(v, load_some(c + j, w));
      store_some(c + j, v, w);
    }
  }
}

typedef struct {
  f32 *dst;
  const f32 *src;
  i32 rows, cols, ld, block;
} transpose_args;

// transpose: dst [cols,rows] = srcᵀ, src [rows,cols] with stride ld. Chunks: block source columns.
void op_transpose(const void *args, i32 chunk, env *e) {
  const transpose_args *g = args;
  i32 c0 = chunk * g->block, c1 = imin(c0 + g->block, g->cols), c, r;
  for (r = 0; r + 4 <= g->rows; r += 4) {
    const f32 *s = g->src + r * g->ld;
    for (c = c0; c + 4 <= c1; c += 4) {
      v4 x0 = LD(s + c), x1 = LD(s + c + g->ld), x2 = LD(s + c + 2 * g->ld), x3 = LD(s + c + 3 * g->ld);
      v4 a = wasm_i32x4_shuffle(x0, x1, 0, 4, 1, 5), b = wasm_i32x4_shuffle(x2, x3, 0, 4, 1, 5);
      v4 d = wasm_i32x4_shuffle(x0, x1, 2, 6, 3, 7), f = wasm_i32x4_shuffle(x2, x3, 2, 6, 3, 7);
      f32 *o = g->dst + c * g->rows + r;
      ST(o, wasm_i64x2_shuffle(a, b, 0, 2));
      ST(o + g->rows, wasm_i64x2_shuffle(a, b, 1, 3));
      ST(o + 2 * g->rows, wasm_i64x2_shuffle(d, f, 0, 2));
      ST(o + 3 * g->rows, wasm_i64x2_shuffle(d, f, 1, 3));
    }
    for (; c < c1; c++)
      for (i32 i = 0; i < 4; i++) g->dst[c * g->rows + r + i] = s[i * g->ld + c];
  }
  for (; r < g->rows; r++)
    for (c = c0; c < c1; c++) g->dst[c * g->rows + r] = g->src[r * g->ld + c];
}
