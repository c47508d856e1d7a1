// Products with quantized weights, which are read as they lie in the file.
//
// Q8_ROW (int8, one scale per output): activations are quantized per row to unsigned bytes around a zero point, as backend.QuantizeActivations
// does; sums are exact in 32 bits. How they are stored is a matter of the dot instruction (see DOTS): as bytes, the zero point being taken
// from the sums afterwards, or less the zero point as 16-bit values.
// GGUF blocks: activations are int8 with one scale per 32 values; sums within a block are exact, blocks are added in f32 in order.
#include "epilogue.h"

typedef struct {
  const f32 *x;
  void *q;     // u8, or i16 where dots is DOTS_16
  f32 *scale;
  i32 *offset; // what Σ over the weights' row is to be multiplied with and added
  i32 rows, cols, ld, block, dots;
} quantize_rows_args;

INLINE f32 max_abs(const f32 *x, i32 n) {
  v4 m = ZERO;
  for (i32 j = 0; j < n; j += 4) m = wasm_f32x4_pmax(m, wasm_f32x4_abs(load_some(x + j, n - j)));
  return hmax(m);
}

INLINE v128_t rounded(v4 x, v4 inv) { return wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(MUL(x, inv))); }

// quantize_rows: q [rows, ld], ld a multiple of 16; what stands beyond cols meets weights of zero.
void op_quantize_rows(const void *args, i32 chunk, env *e) {
  const quantize_rows_args *g = args;
  i32 r1 = imin((chunk + 1) * g->block, g->rows), n = g->cols;
  for (i32 r = chunk * g->block; r < r1; r++) {
    const f32 *x = g->x + r * n;
    v4 low = ZERO, high = ZERO, low2 = ZERO, high2 = ZERO;
    i32 j = 0;
    for (; j + 8 <= n; j += 8) {
      v4 a = LD(x + j), b = LD(x + j + 4);
      low = wasm_f32x4_pmin(low, a), high = wasm_f32x4_pmax(high, a);
      low2 = wasm_f32x4_pmin(low2, b), high2 = wasm_f32x4_pmax(high2, b);
    }
    for (; j < n; j += 4) {
      v4 v = load_some(x + j, n - j);
      low = wasm_f32x4_pmin(low, v), high = wasm_f32x4_pmax(high, v);
    }
    f32 hi = hmax(wasm_f32x4_pmax(high, high2)), lo = -hmax(wasm_f32x4_neg(wasm_f32x4_pmin(low, low2))), inverse = 1;
    i32 zero = 0;
    g->scale[r] = 1;
    if (hi != lo) {
      g->scale[r] = (hi - lo) / 255, inverse = 255 / (hi - lo);
      zero = (i32)__builtin_nearbyintf(-lo * inverse);
    }
    v4 inv = SPLAT(inverse);
    if (g->dots != DOTS_16) {
      // Values are bounded by the row's own range, so that saturation is the clamp.
      u8 *q = (u8 *)g->q + r * g->ld;
      v128_t z = wasm_i32x4_splat(zero), flip = wasm_i8x16_splat(g->dots == DOTS_SIGNED ? -128 : 0);
      g->offset[r] = g->dots == DOTS_SIGNED ? 128 - zero : -zero;
      for (j = 0; j < g->ld; j += 16) {
        v128_t v[4];
        for (i32 i = 0; i < 4; i++)
          v[i] = wasm_i32x4_add(rounded(j + 4 * i < n ? load_some(x + j + 4 * i, n - j - 4 * i) : ZERO, inv), z);
        v128_t b = wasm_u8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(v[0], v[1]), wasm_i16x8_narrow_i32x4(v[2], v[3]));
        ST(q + j, wasm_v128_xor(b, flip));
      }
      continue;
    }
    i16 *q = (i16 *)g->q + r * g->ld;
    v128_t least = wasm_i32x4_splat(-zero), most = wasm_i32x4_splat(255 - zero); // of q less the zero point
    g->offset[r] = 0;
    for (j = 0; j < g->ld; j += 8) {
      v4 a = j < n ? load_some(x + j, n - j) : ZERO, b = j + 4 < n ? load_some(x + j + 4, n - j - 4) : ZERO;
      v128_t p = wasm_i32x4_min(wasm_i32x4_max(rounded(a, inv), least), most), s = wasm_i32x4_min(wasm_i32x4_max(rounded(b, inv), least), most);
      ST(q + j, wasm_i16x8_narrow_i32x4(p, s));
    }
  }
}

typedef struct {
  f32 *dst;
  const void *q;
  const f32 *xscale;
  const i32 *offset;
  const i8 *w;
  const f32 *wscale;
  const i32 *wsum; // Σ of each row of w; unused where offset is 0
  i32 rows, in, ld, out, row_block, dots;
  epilogue ep;
} linear_q8row_args;

#define COLS 64

INLINE v128_t load8(const i8 *p, i32 n) { // n >= 8, or the first n
  if (n >= 8) return wasm_i16x8_load8x8(p);
  i8 t[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (i32 i = 0; i < n; i++) t[i] = p[i];
  return wasm_i16x8_load8x8(t);
}

INLINE i32 hsum_i32(v128_t v) {
  v = wasm_i32x4_add(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  return wasm_i32x4_extract_lane(v, 0) + wasm_i32x4_extract_lane(v, 1);
}

// hsum4 sums four vectors to the four lanes of one.
INLINE v128_t hsum4_i32(v128_t a, v128_t b, v128_t c, v128_t d) {
  v128_t ab = wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
  v128_t cd = wasm_i32x4_add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
  return wasm_i32x4_add(wasm_i64x2_shuffle(ab, cd, 0, 2), wasm_i64x2_shuffle(ab, cd, 1, 3));
}

// Sums of a tile go to scratch, rows COLS apart: acc[i][j] to out[i·COLS + j].
INLINE void put_sums(const i32 MR, const i32 NR, v128_t acc[5][4], i32 *out) {
  for (int i = 0; i < MR; i++) {
    if (NR == 4) ST(out + i * COLS, hsum4_i32(acc[i][0], acc[i][1], acc[i][2], acc[i][3]));
    else if (NR == 2 && i + 1 < MR) {
      v128_t s = hsum4_i32(acc[i][0], acc[i][1], acc[i + 1][0], acc[i + 1][1]);
      wasm_v128_store64_lane(out + i * COLS, s, 0);
      wasm_v128_store64_lane(out + (i + 1) * COLS, s, 1);
      i++;
    } else
      for (int j = 0; j < NR; j++) out[i * COLS + j] = hsum_i32(acc[i][j]);
  }
}

INLINE void q16_tile(const i32 MR, const i32 NR, const i16 *a, i32 lda, const i8 *b, i32 ldb, i32 k, i32 *out) {
  v128_t acc[5][4];
  const i16 *ap[5];
  const i8 *bp[4];
  for (int i = 0; i < MR; i++) {
    ap[i] = a + i * lda;
    for (int j = 0; j < NR; j++) acc[i][j] = wasm_i32x4_const_splat(0);
  }
  for (int j = 0; j < NR; j++) bp[j] = b + j * ldb;
  for (i32 x = k >> 3; x > 0; x--) {
    v128_t bv[4];
    for (int j = 0; j < NR; j++) bv[j] = wasm_i16x8_load8x8(bp[j]), bp[j] += 8;
    for (int i = 0; i < MR; i++) {
      v128_t av = LD(ap[i]);
      ap[i] += 8;
      for (int j = 0; j < NR; j++) acc[i][j] = wasm_i32x4_add(acc[i][j], wasm_i32x4_dot_i16x8(av, bv[j]));
    }
  }
  if (k & 7)
    for (int j = 0; j < NR; j++) {
      v128_t bv = load8(bp[j], k & 7);
      for (int i = 0; i < MR; i++) acc[i][j] = wasm_i32x4_add(acc[i][j], wasm_i32x4_dot_i16x8(LD(ap[i]), bv));
    }
  put_sums(MR, NR, acc, out);
}

#ifdef TEMPER_RELAXED
INLINE v128_t load16(const i8 *p, i32 n) { // the first n of 16
  i8 t[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  for (i32 i = 0; i < n; i++) t[i] = p[i];
  return LD(t);
}

#define DOT(w, x, acc) wasm_i32x4_relaxed_dot_i8x16_i7x16_add(w, x, acc)
INLINE void q8_tile(const i32 MR, const i32 NR, const u8 *a, i32 lda, const i8 *b, i32 ldb, i32 k, i32 *out) {
  v128_t acc[5][4];
  const u8 *ap[5];
  const i8 *bp[4];
  for (int i = 0; i < MR; i++) {
    ap[i] = a + i * lda;
    for (int j = 0; j < NR; j++) acc[i][j] = wasm_i32x4_const_splat(0);
  }
  for (int j = 0; j < NR; j++) bp[j] = b + j * ldb;
  for (i32 x = k >> 5; x > 0; x--) {
    for (int h = 0; h < 2; h++) {
      v128_t bv[4];
      for (int j = 0; j < NR; j++) bv[j] = LD(bp[j] + 16 * h);
      for (int i = 0; i < MR; i++) {
        v128_t av = LD(ap[i] + 16 * h);
        for (int j = 0; j < NR; j++) acc[i][j] = DOT(bv[j], av, acc[i][j]);
      }
    }
    for (int j = 0; j < NR; j++) bp[j] += 32;
    for (int i = 0; i < MR; i++) ap[i] += 32;
  }
  for (i32 rest = k & 31; rest > 0; rest -= 16)
    for (int j = 0; j < NR; j++) {
      i32 at = (k & 31) - rest;
      v128_t bv = rest >= 16 ? LD(bp[j] + at) : load16(bp[j] + at, rest);
      for (int i = 0; i < MR; i++) acc[i][j] = DOT(bv, LD(ap[i] + at), acc[i][j]);
    }
  put_sums(MR, NR, acc, out);
}
#define TYPES(X) X(q16, i16) X(q8, u8)
#else
#define TYPES(X) X(q16, i16)
#endif

#define TILE_OF(T, A, MR, NR)                                                                                         \
  static NOINLINE void T##_##MR##x##NR(const A *a, i32 lda, const i8 *b, i32 ldb, i32 k, i32 *out) {                  \
    T##_tile(MR, NR, a, lda, b, ldb, k, out);                                                                         \
  }
// T_sums writes the sums of m rows and n columns.
#define SUMS_OF(T, A)                                                                                                 \
  TILE_OF(T, A, 4, 2) TILE_OF(T, A, 3, 2) TILE_OF(T, A, 2, 2) TILE_OF(T, A, 1, 2)                                     \
  TILE_OF(T, A, 4, 1) TILE_OF(T, A, 3, 1) TILE_OF(T, A, 2, 1) TILE_OF(T, A, 1, 1) TILE_OF(T, A, 1, 4)                 \
  static void T##_sums(const A *q, i32 ld, const i8 *w, i32 in, i32 m, i32 n, i32 *s) {                               \
    for (i32 j = 0; j < n;) {                                                                                         \
      i32 i = 0, nr = m == 1 && j + 4 <= n ? 4 : j + 2 <= n ? 2 : 1;                                                  \
      if (nr == 2)                                                                                                    \
        for (; i + 4 <= m; i += 4) T##_4x2(q + i * ld, ld, w, in, in, s + i * COLS + j);                              \
      else if (nr == 1)                                                                                               \
        for (; i + 4 <= m; i += 4) T##_4x1(q + i * ld, ld, w, in, in, s + i * COLS + j);                              \
      const A *a = q + i * ld;                                                                                        \
      i32 *o = s + i * COLS + j;                                                                                      \
      if (nr == 4) T##_1x4(a, ld, w, in, in, o);                                                                      \
      else switch (m - i) {                                                                                           \
        case 1: if (nr == 2) T##_1x2(a, ld, w, in, in, o); else T##_1x1(a, ld, w, in, in, o); break;                  \
        case 2: if (nr == 2) T##_2x2(a, ld, w, in, in, o); else T##_2x1(a, ld, w, in, in, o); break;                  \
        case 3: if (nr == 2) T##_3x2(a, ld, w, in, in, o); else T##_3x1(a, ld, w, in, in, o); break;                  \
      }                                                                                                               \
      j += nr, w += nr * in;                                                                                          \
    }                                                                                                                 \
  }
TYPES(SUMS_OF)

// linear_q8row: as linear_f32.
void op_linear_q8row(const void *args, i32 chunk, env *e) {
  const linear_q8row_args *g = args;
  i32 across = ceildiv(g->out, COLS);
  i32 r0 = chunk / across * g->row_block, c0 = chunk % across * COLS;
  i32 m = imin(g->row_block, g->rows - r0), n = imin(COLS, g->out - c0);
  i32 *s = (i32 *)e->scratch;
#ifdef TEMPER_RELAXED
  if (g->dots != DOTS_16) q8_sums((const u8 *)g->q + r0 * g->ld, g->ld, g->w + c0 * g->in, g->in, m, n, s);
  else
#endif
    q16_sums((const i16 *)g->q + r0 * g->ld, g->ld, g->w + c0 * g->in, g->in, m, n, s);
  for (i32 i = 0; i < m; i++) {
    v4 xs = SPLAT(g->xscale[r0 + i]);
    i32 offset = g->offset[r0 + i], *si = s + i * COLS;
    v128_t off = wasm_i32x4_splat(offset);
    for (i32 j = 0; j < n; j += 4) {
      v128_t v = LD(si + j);
      if (offset) v = wasm_i32x4_add(v, wasm_i32x4_mul(off, load_some((const f32 *)g->wsum + c0 + j, n - j)));
      ST(si + j, MUL(MUL(wasm_f32x4_convert_i32x4(v), xs), load_some(g->wscale + c0 + j, n - j)));
    }
    finish(e->math, (f32 *)si, g->dst, &g->ep, (r0 + i) * g->out + c0, c0, n);
  }
}

typedef struct {
  i32 *sum;
  const i8 *w;
  i32 rows, cols, block;
} row_sums_args;

// row_sums: sum [rows] of the rows of w [rows, cols].
void op_row_sums(const void *args, i32 chunk, env *e) {
  const row_sums_args *g = args;
  i32 r1 = imin((chunk + 1) * g->block, g->rows);
  for (i32 r = chunk * g->block; r < r1; r++) {
    const i8 *w = g->w + r * g->cols;
    v128_t acc = wasm_i32x4_const_splat(0);
    i32 j = 0;
    for (; j + 16 <= g->cols; j += 16) acc = wasm_i32x4_add(acc, wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_extadd_pairwise_i8x16(LD(w + j))));
    i32 sum = hsum_i32(acc);
    for (; j < g->cols; j++) sum += w[j];
    g->sum[r] = sum;
  }
}

// ---- GGUF blocks ----

// What a block of 32 activations becomes. In the relaxed build values stay int8; in the plain one they are stored as the 16-bit operands of
// the dot instruction.
#ifdef TEMPER_RELAXED
typedef i8 act_t;
#else
typedef i16 act_t;
#endif

typedef struct {
  const f32 *x;
  act_t *q;
  f32 *scale, *sum; // [rows, cols/32]; sum is the sum of 16 values twice per block: [rows, cols/16], scaled
  i32 rows, cols, block;
} quantize_blocks_args;

void op_quantize_blocks(const void *args, i32 chunk, env *e) {
  const quantize_blocks_args *g = args;
  i32 r1 = imin((chunk + 1) * g->block, g->rows), nb = g->cols / 32;
  for (i32 r = chunk * g->block; r < r1; r++)
    for (i32 b = 0; b < nb; b++) {
      const f32 *x = g->x + r * g->cols + b * 32;
      act_t *q = g->q + r * g->cols + b * 32;
      f32 m = max_abs(x, 32), d = m / 127;
      v4 inv = SPLAT(m > 0 ? 127 / m : 0);
      g->scale[r * nb + b] = d;
      for (i32 h = 0; h < 2; h++) {
        v128_t v0 = rounded(LD(x + h * 16), inv), v1 = rounded(LD(x + h * 16 + 4), inv);
        v128_t v2 = rounded(LD(x + h * 16 + 8), inv), v3 = rounded(LD(x + h * 16 + 12), inv);
        i32 s = hsum_i32(wasm_i32x4_add(wasm_i32x4_add(v0, v1), wasm_i32x4_add(v2, v3)));
        g->sum[(r * nb + b) * 2 + h] = d * (f32)s;
        v128_t lo = wasm_i16x8_narrow_i32x4(v0, v1), hi = wasm_i16x8_narrow_i32x4(v2, v3);
#ifdef TEMPER_RELAXED
        ST(q + h * 16, wasm_i8x16_narrow_i16x8(lo, hi));
#else
        ST(q + h * 16, lo);
        ST(q + h * 16 + 8, hi);
#endif
      }
    }
}

INLINE f32 half(const u8 *p) { // f16 to f32
  u32 h = (u32)p[0] | (u32)p[1] << 8, sign = (h & 0x8000) << 16, rest = h & 0x7fff;
  union { u32 u; f32 f; } v;
  if (rest >= 0x7c00) {
    v.u = sign | 0x7f800000 | (rest & 0x3ff) << 13;
    return v.f;
  }
  v.u = rest << 13;
  v.f *= 0x1p112f; // also right for subnormals
  v.u |= sign;
  return v.f;
}

// dot16u is Σ over 16 unsigned weights below 128 with activations, in four lanes; dot16s takes signed weights.
#ifdef TEMPER_RELAXED
INLINE v128_t dot16u(v128_t w, const act_t *a) {
  return wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_relaxed_dot_i8x16_i7x16(LD(a), w));
}
INLINE v128_t dot32u(v128_t w0, v128_t w1, const act_t *a) { // weights below 64: the 16-bit sums do not overflow
  return wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_add(wasm_i16x8_relaxed_dot_i8x16_i7x16(LD(a), w0), wasm_i16x8_relaxed_dot_i8x16_i7x16(LD(a + 16), w1)));
}
INLINE v128_t dot16s(v128_t w, const act_t *a) {
  v128_t x = LD(a);
  return wasm_i32x4_add(wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(w), wasm_i16x8_extend_low_i8x16(x)),
                        wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(w), wasm_i16x8_extend_high_i8x16(x)));
}
#else
INLINE v128_t dot16s(v128_t w, const act_t *a) {
  return wasm_i32x4_add(wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(w), LD(a)), wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(w), LD(a + 8)));
}
INLINE v128_t dot16u(v128_t w, const act_t *a) { return dot16s(w, a); }
INLINE v128_t dot32u(v128_t w0, v128_t w1, const act_t *a) { return wasm_i32x4_add(dot16s(w0, a), dot16s(w1, a + 16)); }
#endif

#define CVT(v) wasm_f32x4_convert_i32x4(v)
#define NIBBLE wasm_i8x16_const_splat(15)

// Numbers of the block types, as ops.go passes them.
enum { T_Q4_0, T_Q4_1, T_Q5_0, T_Q5_1, T_Q8_0, T_Q4_K, T_Q5_K, T_Q6_K, T_UNPACKED };

// One row of weights times MR rows of activations. q, scale and sum are the first row's; strides between rows are cols, nb, 2·nb.
#define ROWS(MR) for (int i = 0; i < MR; i++)
#define BLOCKS_HEAD                                                               \
  v4 acc[4], low = ZERO; /* low: what mins and offsets take away, lane per row */ \
  f32 off[4] = {0, 0, 0, 0};                                                      \
  ROWS(MR) acc[i] = ZERO;                                                         \
  i32 nb = cols / 32;                                                             \
  (void)low;
#define BLOCKS_TAIL ROWS(MR) out[i * COLS] = hsum(acc[i]) - off[i];
#define SUMS(i, b) (sum[(i * nb + (b)) * 2] + sum[(i * nb + (b)) * 2 + 1])

// high5 spreads 16 bits to bytes of 0 or 16.
INLINE v128_t high5(u32 bits) {
  v128_t v = wasm_i16x8_splat((i16)bits);
  v = wasm_i8x16_shuffle(v, v, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  v128_t m = wasm_i8x16_const(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128);
  return wasm_v128_and(wasm_i8x16_eq(wasm_v128_and(v, m), m), wasm_i8x16_const_splat(16));
}

INLINE void row_q32(const i32 MR, const i32 type, const u8 *w, const act_t *q, const f32 *scale, const f32 *sum, i32 cols, f32 *out) {
  BLOCKS_HEAD
  for (i32 b = 0; b < nb; b++) {
    f32 d = half(w);
    v128_t w0, w1;
    if (type == T_Q8_0) {
      w0 = LD(w + 2), w1 = LD(w + 18);
      w += 34;
      ROWS(MR) {
        const act_t *a = q + i * cols + b * 32;
        acc[i] = ADD(acc[i], MUL(CVT(wasm_i32x4_add(dot16s(w0, a), dot16s(w1, a + 16))), SPLAT(d * scale[i * nb + b])));
      }
      continue;
    }
    f32 min;
    if (type == T_Q4_0) {
      v128_t v = LD(w + 2);
      w0 = wasm_v128_and(v, NIBBLE), w1 = wasm_u8x16_shr(v, 4), min = 8 * d;
      w += 18;
    } else if (type == T_Q4_1) {
      v128_t v = LD(w + 4);
      w0 = wasm_v128_and(v, NIBBLE), w1 = wasm_u8x16_shr(v, 4), min = -half(w + 2);
      w += 20;
    } else if (type == T_Q5_0) {
      v128_t v = LD(w + 6);
      w0 = wasm_v128_or(wasm_v128_and(v, NIBBLE), high5((u32)w[2] | (u32)w[3] << 8));
      w1 = wasm_v128_or(wasm_u8x16_shr(v, 4), high5((u32)w[4] | (u32)w[5] << 8)), min = 16 * d;
      w += 22;
    } else {
      v128_t v = LD(w + 8);
      w0 = wasm_v128_or(wasm_v128_and(v, NIBBLE), high5((u32)w[4] | (u32)w[5] << 8));
      w1 = wasm_v128_or(wasm_u8x16_shr(v, 4), high5((u32)w[6] | (u32)w[7] << 8)), min = -half(w + 2);
      w += 24;
    }
    ROWS(MR) {
      acc[i] = ADD(acc[i], MUL(CVT(dot32u(w0, w1, q + i * cols + b * 32)), SPLAT(d * scale[i * nb + b])));
      off[i] += min * SUMS(i, b);
    }
  }
  BLOCKS_TAIL
}

// Q4_K and Q5_K: 8 blocks of 32 with 6-bit scales and mins.
INLINE void row_q45k(const i32 MR, const i32 five, const u8 *w, const act_t *q, const f32 *scale, const f32 *sum, i32 cols, f32 *out) {
  BLOCKS_HEAD
  for (i32 s = 0; s < nb; s += 8) {
    f32 d = half(w), dmin = half(w + 2);
    const u8 *sc = w + 4, *qs = w + (five ? 48 : 16);
    v128_t h0, h1;
    if (five) h0 = LD(w + 16), h1 = LD(w + 32);
    for (i32 p = 0; p < 4; p++) { // 64 values: low nibbles are block 2p, high ones 2p+1
      v128_t a0 = LD(qs + p * 32), a1 = LD(qs + p * 32 + 16);
      for (i32 hi = 0; hi < 2; hi++) {
        i32 j = 2 * p + hi, b = s + j;
        u32 ls, lm;
        if (j < 4) ls = sc[j] & 63, lm = sc[j + 4] & 63;
        else ls = (sc[j + 4] & 15u) | (u32)(sc[j - 4] >> 6) << 4, lm = (u32)(sc[j + 4] >> 4) | (u32)(sc[j] >> 6) << 4;
        v128_t w0 = hi ? wasm_u8x16_shr(a0, 4) : wasm_v128_and(a0, NIBBLE), w1 = hi ? wasm_u8x16_shr(a1, 4) : wasm_v128_and(a1, NIBBLE);
        if (five) {
          v128_t one = wasm_i8x16_const_splat(1);
          w0 = wasm_v128_or(w0, wasm_i8x16_shl(wasm_v128_and(wasm_u8x16_shr(h0, (u32)j), one), 4));
          w1 = wasm_v128_or(w1, wasm_i8x16_shl(wasm_v128_and(wasm_u8x16_shr(h1, (u32)j), one), 4));
        }
        f32 ds = d * (f32)ls, m = dmin * (f32)lm;
        ROWS(MR) {
          acc[i] = ADD(acc[i], MUL(CVT(dot32u(w0, w1, q + i * cols + b * 32)), SPLAT(ds * scale[i * nb + b])));
          off[i] += m * SUMS(i, b);
        }
      }
    }
    w += five ? 176 : 144;
  }
  BLOCKS_TAIL
}

// Q6_K: 16 groups of 16 with int8 scales; values 0 … 63 less 32.
INLINE void row_q6k(const i32 MR, const u8 *w, const act_t *q, const f32 *scale, const f32 *sum, i32 cols, f32 *out) {
  BLOCKS_HEAD
  const v128_t three = wasm_i8x16_const_splat(3);
  for (i32 s = 0; s < nb; s += 8) {
    f32 d = half(w + 208);
    const i8 *sc = (const i8 *)w + 192;
    for (i32 hb = 0; hb < 2; hb++) { // 128 values: ql 64 bytes, qh 32 bytes
      const u8 *ql = w + hb * 64, *qh = w + 128 + hb * 32;
      v128_t h0 = LD(qh), h1 = LD(qh + 16);
      for (i32 j = 0; j < 4; j++) { // 32 values each
        v128_t l0 = LD(ql + (j & 1) * 32), l1 = LD(ql + (j & 1) * 32 + 16);
        if (j < 2) l0 = wasm_v128_and(l0, NIBBLE), l1 = wasm_v128_and(l1, NIBBLE);
        else l0 = wasm_u8x16_shr(l0, 4), l1 = wasm_u8x16_shr(l1, 4);
        v128_t w0 = wasm_v128_or(l0, wasm_i8x16_shl(wasm_v128_and(wasm_u8x16_shr(h0, 2 * (u32)j), three), 4));
        v128_t w1 = wasm_v128_or(l1, wasm_i8x16_shl(wasm_v128_and(wasm_u8x16_shr(h1, 2 * (u32)j), three), 4));
        i32 b = s + hb * 4 + j;
        f32 s0 = sc[hb * 8 + j * 2], s1 = sc[hb * 8 + j * 2 + 1];
        v128_t i0 = wasm_i32x4_splat((i32)s0), i1 = wasm_i32x4_splat((i32)s1);
        ROWS(MR) {
          const act_t *a = q + i * cols + b * 32;
          v128_t t = wasm_i32x4_add(wasm_i32x4_mul(dot16u(w0, a), i0), wasm_i32x4_mul(dot16u(w1, a + 16), i1));
          acc[i] = ADD(acc[i], MUL(CVT(t), SPLAT(d * scale[i * nb + b])));
          off[i] += 32 * d * (s0 * sum[(i * nb + b) * 2] + s1 * sum[(i * nb + b) * 2 + 1]);
        }
      }
    }
    w += 210;
  }
  BLOCKS_TAIL
}

// Rarer types, unpacked when they were packed: int8 values, and a scale and a minimum for each 16.
INLINE void row_unpacked(const i32 MR, const i8 *w, const f32 *ws, const f32 *wm, const act_t *q, const f32 *scale, const f32 *sum, i32 cols, f32 *out) {
  BLOCKS_HEAD
  for (i32 b = 0; b < nb; b++) {
    v128_t w0 = LD(w + b * 32), w1 = LD(w + b * 32 + 16);
    v4 s0 = SPLAT(ws[2 * b]), s1 = SPLAT(ws[2 * b + 1]);
    ROWS(MR) {
      const act_t *a = q + i * cols + b * 32;
      v4 t = ADD(MUL(CVT(dot16s(w0, a)), s0), MUL(CVT(dot16s(w1, a + 16)), s1));
      acc[i] = ADD(acc[i], MUL(t, SPLAT(scale[i * nb + b])));
      off[i] += wm[2 * b] * sum[(i * nb + b) * 2] + wm[2 * b + 1] * sum[(i * nb + b) * 2 + 1];
    }
  }
  BLOCKS_TAIL
}

typedef struct {
  f32 *dst;
  const act_t *q;
  const f32 *scale, *sum;
  const u8 *w;
  const f32 *ws, *wm; // T_UNPACKED
  i32 rows, in, out, row_block, type, row_bytes;
  epilogue ep;
} linear_blocks_args;

#define ROW_KERNEL(MR)                                                                                                               \
  static NOINLINE void blocks_##MR(i32 type, const u8 *w, const f32 *ws, const f32 *wm, const act_t *q, const f32 *scale, const f32 *sum, i32 cols, f32 *out) {    \
    switch (type) {                                                                                                                  \
    case T_Q4_0: row_q32(MR, T_Q4_0, w, q, scale, sum, cols, out); break;                                                            \
    case T_Q4_1: row_q32(MR, T_Q4_1, w, q, scale, sum, cols, out); break;                                                            \
    case T_Q5_0: row_q32(MR, T_Q5_0, w, q, scale, sum, cols, out); break;                                                            \
    case T_Q5_1: row_q32(MR, T_Q5_1, w, q, scale, sum, cols, out); break;                                                            \
    case T_Q8_0: row_q32(MR, T_Q8_0, w, q, scale, sum, cols, out); break;                                                            \
    case T_Q4_K: row_q45k(MR, 0, w, q, scale, sum, cols, out); break;                                                                \
    case T_Q5_K: row_q45k(MR, 1, w, q, scale, sum, cols, out); break;                                                                \
    case T_UNPACKED: row_unpacked(MR, (const i8 *)w, ws, wm, q, scale, sum, cols, out); break;   \
    case T_Q6_K: row_q6k(MR, w, q, scale, sum, cols, out); break;                                                                    \
    }                                                                                                                                \
  }
ROW_KERNEL(1) ROW_KERNEL(4)

// linear_blocks: as linear_f32, weights in blocks.
void op_linear_blocks(const void *args, i32 chunk, env *e) {
  const linear_blocks_args *g = args;
  i32 across = ceildiv(g->out, COLS), nb = g->in / 32;
  i32 r0 = chunk / across * g->row_block, c0 = chunk % across * COLS;
  i32 m = imin(g->row_block, g->rows - r0), n = imin(COLS, g->out - c0);
  f32 *s = (f32 *)e->scratch;
  for (i32 j = 0; j < n; j++) {
    const u8 *w = g->w + (u32)(c0 + j) * (u32)g->row_bytes;
    const f32 *ws = g->ws + (c0 + j) * nb * 2, *wm = g->wm + (c0 + j) * nb * 2;
    i32 i = 0;
    for (; i + 4 <= m; i += 4) {
      i32 r = r0 + i;
      blocks_4(g->type, w, ws, wm, g->q + r * g->in, g->scale + r * nb, g->sum + r * nb * 2, g->in, s + i * COLS + j);
    }
    for (; i < m; i++) {
      i32 r = r0 + i;
      blocks_1(g->type, w, ws, wm, g->q + r * g->in, g->scale + r * nb, g->sum + r * nb * 2, g->in, s + i * COLS + j);
    }
  }
  for (i32 i = 0; i < m; i++) finish(e->math, s + i * COLS, g->dst, &g->ep, (r0 + i) * g->out + c0, c0, n);
}
