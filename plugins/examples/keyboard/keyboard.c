// Typing mistakes on a QWERTY keyboard: a neighbouring key instead of the right one, beside it, a doubled key, two keys in the wrong
// order, a key missed. Half of the mistakes keep the first letter, as people's do.
#define TEMPER_NAME "keyboard-typos"
#include "temper.h"

static const char *const rows[3] = { "qwertyuiop", "asdfghjkl", "zxcvbnm" };

static char beside(char c, uint64_t *chance) {
  char lower = (char)(c | 0x20);
  for (int r = 0; r < 3; r++)
    for (int i = 0; rows[r][i]; i++)
      if (rows[r][i] == lower) {
        char near[6];
        uint32_t n = 0;
        if (i > 0) near[n++] = rows[r][i - 1];
        if (rows[r][i + 1]) near[n++] = rows[r][i + 1];
        if (r > 0) { near[n++] = rows[r - 1][i]; near[n++] = rows[r - 1][i + 1]; }
        if (r < 2) {
          int width = 0;
          while (rows[r + 1][width]) width++;
          if (i < width) near[n++] = rows[r + 1][i];
          if (i > 0 && i - 1 < width) near[n++] = rows[r + 1][i - 1];
        }
        char k = near[temper_below(chance, n)];
        return c == lower ? k : (char)(k & ~0x20);
      }
  return 0;
}

static int letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

void temper_each(const temper_text *t, temper_out *out) {
  uint64_t chance = t->seed;
  for (uint32_t k = 0; k < t->n_may && !temper_full(out); k++) {
    temper_str w = temper_word(t, t->may[k]);
    if (w.len < 3) continue;
    for (uint32_t kind = 0; kind < 5; kind++) {
      uint32_t from = temper_below(&chance, 2), i = from + temper_below(&chance, w.len - from);
      if (!letter(w.ptr[i])) continue; /* leaves other scripts, digits and signs alone */
      char *b = temper_new(w.len + 2);
      uint32_t n = 0;
      char near = beside(w.ptr[i], &chance);
      for (uint32_t j = 0; j < w.len; j++) {
        if (j != i) { b[n++] = w.ptr[j]; continue; }
        switch (kind) {
          case 0: b[n++] = near; break;
          case 1: b[n++] = w.ptr[j]; b[n++] = near; break;
          case 2: b[n++] = w.ptr[j]; b[n++] = w.ptr[j]; break;
          case 3:
            if (j + 1 < w.len && letter(w.ptr[j + 1])) { b[n++] = w.ptr[j + 1]; b[n++] = w.ptr[j]; j++; }
            else b[n++] = w.ptr[j];
            break;
          case 4: break;
        }
      }
      temper_emit_word(out, t, t->may[k], b, n);
    }
  }
}
