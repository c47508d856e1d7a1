// Replaces Latin letters by Cyrillic and Greek ones that look the same. Parameter "share": the percentage of a word's letters to
// replace in the last candidate of each word (default 100).
#define TEMPER_NAME "homoglyphs"
#include "temper.h"

static uint32_t alike(uint32_t c) {
  switch (c) {
    case 'a': return 0x430; case 'c': return 0x441; case 'd': return 0x501; case 'e': return 0x435; case 'h': return 0x4bb;
    case 'i': return 0x456; case 'j': return 0x458; case 'l': return 0x4cf; case 'o': return 0x43e; case 'p': return 0x440;
    case 'q': return 0x51b; case 's': return 0x455; case 'v': return 0x3bd; case 'w': return 0x51d; case 'x': return 0x445;
    case 'y': return 0x443;
    case 'A': return 0x410; case 'B': return 0x412; case 'C': return 0x421; case 'E': return 0x415; case 'H': return 0x41d;
    case 'I': return 0x406; case 'J': return 0x408; case 'K': return 0x41a; case 'M': return 0x41c; case 'N': return 0x39d;
    case 'O': return 0x41e; case 'P': return 0x420; case 'S': return 0x405; case 'T': return 0x422; case 'X': return 0x425;
    case 'Y': return 0x4ae; case 'Z': return 0x396;
  }
  return 0;
}

void temper_each(const temper_text *t, temper_out *out) {
  uint64_t chance = t->seed;
  temper_str p = temper_param(t, "share", "100");
  uint32_t share = 0;
  for (uint32_t i = 0; i < p.len && i < 3; i++) if (p.ptr[i] >= '0' && p.ptr[i] <= '9') share = share * 10 + (uint32_t)(p.ptr[i] - '0');
  for (uint32_t k = 0; k < t->n_may && !temper_full(out); k++) {
    temper_str w = temper_word(t, t->may[k]);
    char *one = temper_new(w.len * 3 + 4), *all = temper_new(w.len * 3 + 4);
    uint32_t able = 0, size;
    for (uint32_t i = 0; i < w.len; i += size) able += alike(temper_rune(w.ptr + i, w.len - i, &size)) != 0;
    if (!able) continue;
    uint32_t pick = temper_below(&chance, able), at = 0, n1 = 0, n2 = 0;
    for (uint32_t i = 0; i < w.len; i += size) {
      uint32_t r = temper_rune(w.ptr + i, w.len - i, &size), a = alike(r);
      int first = 0, every = 0;
      if (a) { first = at++ == pick; every = temper_below(&chance, 100) < share; }
      n1 += temper_encode(one + n1, first ? a : r);
      n2 += temper_encode(all + n2, every ? a : r);
    }
    temper_emit_word(out, t, t->may[k], one, n1);
    if (able > 1) temper_emit_word(out, t, t->may[k], all, n2);
  }
}
