// Takes words apart and runs them together: f r e e, fr ee, f.r.e.e, f-r-e-e, and freemoney.
#define TEMPER_NAME "spacing"
#include "temper.h"

static void spread(const temper_text *t, temper_out *out, uint32_t i, const char *between, uint32_t size) {
  temper_str w = temper_word(t, i);
  char *b = temper_new(w.len * (size + 1) + 1);
  uint32_t n = 0, k;
  for (uint32_t at = 0; at < w.len; at += k) {
    temper_rune(w.ptr + at, w.len - at, &k);
    if (at) { memcpy(b + n, between, size); n += size; }
    memcpy(b + n, w.ptr + at, k);
    n += k;
  }
  temper_emit_word(out, t, i, b, n);
}

void temper_each(const temper_text *t, temper_out *out) {
  uint64_t chance = t->seed;
  for (uint32_t k = 0; k < t->n_may && !temper_full(out); k++) {
    uint32_t i = t->may[k], size, runes = 0;
    temper_str w = temper_word(t, i);
    for (uint32_t at = 0; at < w.len; at += size, runes++) temper_rune(w.ptr + at, w.len - at, &size);
    if (runes < 3) continue;
    uint32_t cut = 1 + temper_below(&chance, runes - 1), at = 0; /* one space, somewhere inside */
    for (uint32_t r = 0; r < cut; r++, at += size) temper_rune(w.ptr + at, w.len - at, &size);
    char *b = temper_new(w.len + 1);
    memcpy(b, w.ptr, at);
    b[at] = ' ';
    memcpy(b + at + 1, w.ptr + at, w.len - at);
    temper_emit_word(out, t, i, b, w.len + 1);
    spread(t, out, i, " ", 1);
    spread(t, out, i, ".", 1);
    spread(t, out, i, "-", 1);
    spread(t, out, i, "\xe2\x80\x8b", 3); /* a space of no width */
  }
  /* Neighbours that may both change, with only white space between, run together. */
  for (uint32_t k = 0; k + 1 < t->n_may && !temper_full(out); k++) {
    if (t->may[k] + 1 != t->may[k + 1]) continue;
    uint32_t end = t->words[t->may[k]].end, next = t->words[t->may[k + 1]].start;
    int space = next > end;
    for (uint32_t j = end; j < next; j++) space = space && t->text.ptr[j] == ' ';
    if (!space) continue;
    char *b = temper_new(t->text.len);
    memcpy(b, t->text.ptr, end);
    memcpy(b + end, t->text.ptr + next, t->text.len - next);
    temper_emit(out, b, end + t->text.len - next);
  }
}
