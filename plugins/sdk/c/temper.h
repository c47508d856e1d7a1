/* temper.h: write a temper plugin in C. One header, no library; the contract is plugins/ABI.md, version 1.

   Define TEMPER_NAME, include this file in one .c file, and write temper_each: it is called once per text and offers candidates.

       #define TEMPER_NAME "shout"
       #include "temper.h"
       void temper_each(const temper_text *t, temper_out *out) {
         for (uint32_t k = 0; k < t->n_may; k++) temper_emit_word(out, t, t->may[k], "WOW", 3);
       }

   Build: clang --target=wasm32 -O2 -mbulk-memory -nostdlib -ffreestanding -Wl,--no-entry -Wl,--strip-all -o plugin.wasm plugin.c

   Memory comes from an arena that is emptied before each batch of texts: temper_new never fails (it traps), and nothing is freed. */
#ifndef TEMPER_H
#define TEMPER_H

typedef unsigned char uint8_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;
typedef __SIZE_TYPE__ size_t;

typedef struct { const char *ptr; uint32_t len; } temper_str;
typedef struct { uint32_t start, end; } temper_span; /* bytes [start, end) of the text */

typedef struct {
  temper_str text;
  uint64_t seed;           /* the only source of randomness: see temper_random */
  uint32_t label;          /* the true class, an index into labels */
  uint32_t max;            /* candidates wanted at most; more are dropped by temper_emit */
  uint32_t n_words;
  const temper_span *words;
  uint32_t n_may;          /* words that may change, indices into words */
  const uint32_t *may;
  uint32_t index;          /* of this text in the batch: what temper_score wants */
  uint32_t n_labels;
  const temper_str *labels;
  uint32_t n_params;
  const temper_str *params; /* key, value, key, value ... */
} temper_text;

typedef struct { uint8_t *buf; uint32_t len, cap, count, max; } temper_out;

/* What the author writes. */
void temper_each(const temper_text *t, temper_out *out);

#define TEMPER_EXPORT(name) __attribute__((export_name(name), used))
#define TEMPER_IMPORT(name) __attribute__((import_module("temper"), import_name(name)))

/* Negative answers of the host's functions. */
enum { TEMPER_UNAVAILABLE = -1, TEMPER_OVER_BUDGET = -2, TEMPER_BAD_ARGUMENT = -3, TEMPER_FAILED = -4 };

TEMPER_IMPORT("score") int32_t temper_import_score(uint32_t, const void *, uint32_t, void *, uint32_t);
TEMPER_IMPORT("importance") int32_t temper_import_importance(uint32_t, const void *, uint32_t, uint32_t, const void *, uint32_t, void *, uint32_t);
TEMPER_IMPORT("nearest") int32_t temper_import_nearest(const void *, uint32_t, uint32_t, void *, uint32_t);
TEMPER_IMPORT("fill") int32_t temper_import_fill(const void *, uint32_t, uint32_t, uint32_t, uint32_t, void *, uint32_t);
TEMPER_IMPORT("log") void temper_import_log(const void *, uint32_t);

void *memcpy(void *d, const void *s, size_t n) {
  uint8_t *a = d; const uint8_t *b = s;
  while (n--) *a++ = *b++;
  return d;
}
void *memset(void *d, int c, size_t n) {
  uint8_t *a = d;
  while (n--) *a++ = (uint8_t)c;
  return d;
}

/* ---- memory ---- */

extern uint8_t __heap_base;
static uint32_t temper_top;

static void *temper_try(uint32_t size) {
  if (!temper_top) temper_top = ((uint32_t)&__heap_base + 15) & ~15u;
  uint64_t end = (uint64_t)temper_top + size;
  uint64_t have = (uint64_t)__builtin_wasm_memory_size(0) << 16;
  if (end > have) {
    uint64_t pages = (end - have + 65535) >> 16;
    if (end > 0xffff0000ull || __builtin_wasm_memory_grow(0, (uint32_t)pages) == (size_t)-1) return 0;
  }
  uint32_t at = temper_top;
  temper_top = (uint32_t)((end + 15) & ~15ull);
  return (void *)at;
}

/* temper_new returns size bytes that stay until the next batch. */
static void *temper_new(uint32_t size) {
  void *p = temper_try(size ? size : 1);
  if (!p) __builtin_trap();
  return p;
}

/* ---- output ---- */

static void temper_put(temper_out *o, const void *p, uint32_t n) {
  if (n > o->cap - o->len) {
    uint32_t cap = o->cap * 2 + n + 1024;
    uint8_t *b = temper_new(cap);
    memcpy(b, o->buf, o->len);
    o->buf = b;
    o->cap = cap;
  }
  memcpy(o->buf + o->len, p, n);
  o->len += n;
}

static void temper_put32(temper_out *o, uint32_t v) { temper_put(o, &v, 4); }

/* temper_full tells that no more candidates are wanted for this text. */
static int temper_full(const temper_out *o) { return o->count >= o->max; }

/* temper_emit offers a whole text. */
static void temper_emit(temper_out *o, const char *p, uint32_t n) {
  if (temper_full(o)) return;
  temper_put32(o, n);
  temper_put(o, p, n);
  o->count++;
}

/* temper_emit_word offers the text with word i replaced. */
static void temper_emit_word(temper_out *o, const temper_text *t, uint32_t i, const char *p, uint32_t n) {
  if (temper_full(o)) return;
  temper_span s = t->words[i];
  temper_put32(o, t->text.len - (s.end - s.start) + n);
  temper_put(o, t->text.ptr, s.start);
  temper_put(o, p, n);
  temper_put(o, t->text.ptr + s.end, t->text.len - s.end);
  o->count++;
}

/* ---- words, parameters, chance, UTF-8 ---- */

static temper_str temper_word(const temper_text *t, uint32_t i) {
  temper_str s = { t->text.ptr + t->words[i].start, t->words[i].end - t->words[i].start };
  return s;
}

static int temper_equal(temper_str s, const char *z) {
  uint32_t i = 0;
  for (; i < s.len; i++) if (!z[i] || z[i] != s.ptr[i]) return 0;
  return !z[i];
}

/* temper_param returns the value of a parameter, or what stands for it. */
static temper_str temper_param(const temper_text *t, const char *key, const char *otherwise) {
  for (uint32_t i = 0; i < t->n_params; i++)
    if (temper_equal(t->params[2 * i], key)) return t->params[2 * i + 1];
  temper_str s = { otherwise, 0 };
  while (otherwise[s.len]) s.len++;
  return s;
}

/* temper_random draws 64 bits (SplitMix64). Start with state = t->seed. */
static uint64_t temper_random(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

static uint32_t temper_below(uint64_t *state, uint32_t n) { return n < 2 ? 0 : (uint32_t)(temper_random(state) % n); }

/* temper_rune decodes the code point at p, which has n > 0 bytes of valid UTF-8, and sets its size. */
static uint32_t temper_rune(const char *p, uint32_t n, uint32_t *size) {
  const uint8_t *b = (const uint8_t *)p;
  uint32_t k = b[0] < 0x80 ? 1 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
  if (k > n) k = n;
  *size = k;
  if (k == 1) return b[0];
  uint32_t r = b[0] & (0xff >> (k + 1));
  for (uint32_t i = 1; i < k; i++) r = r << 6 | (b[i] & 0x3f);
  return r;
}

/* temper_encode writes a code point and returns its size, at most 4. */
static uint32_t temper_encode(char *p, uint32_t r) {
  if (r < 0x80) { p[0] = (char)r; return 1; }
  if (r < 0x800) { p[0] = (char)(0xc0 | r >> 6); p[1] = (char)(0x80 | (r & 0x3f)); return 2; }
  if (r < 0x10000) { p[0] = (char)(0xe0 | r >> 12); p[1] = (char)(0x80 | (r >> 6 & 0x3f)); p[2] = (char)(0x80 | (r & 0x3f)); return 3; }
  p[0] = (char)(0xf0 | r >> 18); p[1] = (char)(0x80 | (r >> 12 & 0x3f)); p[2] = (char)(0x80 | (r >> 6 & 0x3f)); p[3] = (char)(0x80 | (r & 0x3f));
  return 4;
}

/* ---- questions to the host ---- */

/* temper_importance asks how much each word matters (the gradient's norm); out has n_words numbers. Returns 0, or a negative answer. */
static int32_t temper_importance(const temper_text *t, float *out) {
  int32_t n = temper_import_importance(t->index, t->text.ptr, t->text.len, t->label, t->words, t->n_words, out, t->n_words * 4);
  return n < 0 ? n : 0;
}

/* temper_score asks the model about n texts; out has n * n_labels probabilities. Each text costs a query. Returns 0, or a negative answer. */
static int32_t temper_score(const temper_text *t, const temper_str *texts, uint32_t n, float *out) {
  temper_out o = { 0, 0, 0, 0, 0 };
  temper_put32(&o, n);
  for (uint32_t i = 0; i < n; i++) {
    temper_put32(&o, texts[i].len);
    temper_put(&o, texts[i].ptr, texts[i].len);
  }
  int32_t got = temper_import_score(t->index, o.buf, o.len, out, n * t->n_labels * 4);
  return got < 0 ? got : 0;
}

/* ---- the contract ---- */

typedef struct { const uint8_t *p; uint32_t left; } temper_in;

static uint32_t temper_get32(temper_in *in) {
  uint32_t v;
  if (in->left < 4) __builtin_trap();
  memcpy(&v, in->p, 4);
  in->p += 4;
  in->left -= 4;
  return v;
}

static temper_str temper_get(temper_in *in) {
  temper_str s;
  s.len = temper_get32(in);
  if (s.len > in->left) __builtin_trap();
  s.ptr = (const char *)in->p;
  in->p += s.len;
  in->left -= s.len;
  return s;
}

TEMPER_EXPORT("temper_abi_version") uint32_t temper_abi_version(void) { return 1; }

TEMPER_EXPORT("temper_alloc") void *temper_alloc(uint32_t size) {
  temper_top = 0;
  return temper_try(size ? size : 1);
}

#ifdef TEMPER_NAME
TEMPER_EXPORT("temper_name") uint64_t temper_name(void) {
  static const char name[] = TEMPER_NAME;
  return (uint64_t)(uint32_t)name << 32 | (sizeof name - 1);
}
#endif

TEMPER_EXPORT("temper_perturb") uint64_t temper_perturb(const uint8_t *ptr, uint32_t len) {
  temper_in in = { ptr, len };
  temper_text t;
  t.n_labels = temper_get32(&in);
  if (t.n_labels > in.left / 4) __builtin_trap();
  temper_str *labels = temper_new(t.n_labels * sizeof(temper_str));
  for (uint32_t i = 0; i < t.n_labels; i++) labels[i] = temper_get(&in);
  t.labels = labels;
  t.n_params = temper_get32(&in);
  if (t.n_params > in.left / 8) __builtin_trap();
  temper_str *params = temper_new(t.n_params * 2 * sizeof(temper_str));
  for (uint32_t i = 0; i < 2 * t.n_params; i++) params[i] = temper_get(&in);
  t.params = params;
  uint32_t n = temper_get32(&in);
  temper_out out = { 0, 0, 0, 0, 0 };
  temper_put32(&out, n);
  for (t.index = 0; t.index < n; t.index++) {
    uint64_t low = temper_get32(&in);
    t.seed = low | (uint64_t)temper_get32(&in) << 32;
    t.label = temper_get32(&in);
    t.max = temper_get32(&in);
    t.text = temper_get(&in);
    t.n_words = temper_get32(&in);
    if (t.n_words > in.left / 8) __builtin_trap();
    temper_span *words = temper_new(t.n_words * sizeof(temper_span));
    for (uint32_t i = 0; i < t.n_words; i++) {
      words[i].start = temper_get32(&in);
      words[i].end = temper_get32(&in);
      if (words[i].start > words[i].end || words[i].end > t.text.len) __builtin_trap();
    }
    t.words = words;
    t.n_may = temper_get32(&in);
    if (t.n_may > in.left / 4) __builtin_trap();
    uint32_t *may = temper_new(t.n_may * 4);
    for (uint32_t i = 0; i < t.n_may; i++)
      if ((may[i] = temper_get32(&in)) >= t.n_words) __builtin_trap();
    t.may = may;
    uint32_t at = out.len; /* the number of candidates is filled in afterwards */
    out.count = 0;
    out.max = t.max;
    temper_put32(&out, 0);
    temper_each(&t, &out);
    memcpy(out.buf + at, &out.count, 4);
  }
  return (uint64_t)(uint32_t)out.buf << 32 | out.len;
}

#endif
