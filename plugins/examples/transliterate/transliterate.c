// Writes words in another script by sound: Latin letters as Cyrillic or Greek ones ("money" becomes "монеы"), and Cyrillic ones as Latin
// ("деньги" becomes "dengi"). Parameter "script": cyrillic (default) or greek.
#define TEMPER_NAME "transliterate"
#include "temper.h"

typedef struct { const char *from, *to; } pair;

static const pair cyrillic[] = {
  {"sch", "щ"}, {"sh", "ш"}, {"ch", "ч"}, {"zh", "ж"}, {"ya", "я"}, {"yu", "ю"}, {"ts", "ц"}, {"ph", "ф"}, {"th", "т"}, {"ck", "к"},
  {"a", "а"}, {"b", "б"}, {"c", "к"}, {"d", "д"}, {"e", "е"}, {"f", "ф"}, {"g", "г"}, {"h", "х"}, {"i", "и"}, {"j", "дж"}, {"k", "к"},
  {"l", "л"}, {"m", "м"}, {"n", "н"}, {"o", "о"}, {"p", "п"}, {"q", "к"}, {"r", "р"}, {"s", "с"}, {"t", "т"}, {"u", "у"}, {"v", "в"},
  {"w", "в"}, {"x", "кс"}, {"y", "ы"}, {"z", "з"}, {0, 0},
};
static const pair greek[] = {
  {"th", "θ"}, {"ph", "φ"}, {"ch", "χ"}, {"ps", "ψ"}, {"ou", "ου"}, {"a", "α"}, {"b", "μπ"}, {"c", "κ"}, {"d", "ντ"}, {"e", "ε"},
  {"f", "φ"}, {"g", "γκ"}, {"h", "χ"}, {"i", "ι"}, {"j", "τζ"}, {"k", "κ"}, {"l", "λ"}, {"m", "μ"}, {"n", "ν"}, {"o", "ο"}, {"p", "π"},
  {"q", "κ"}, {"r", "ρ"}, {"s", "σ"}, {"t", "τ"}, {"u", "ου"}, {"v", "β"}, {"w", "ου"}, {"x", "ξ"}, {"y", "υ"}, {"z", "ζ"}, {0, 0},
};
static const pair latin[] = {
  {"а", "a"}, {"б", "b"}, {"в", "v"}, {"г", "g"}, {"д", "d"}, {"е", "e"}, {"ё", "yo"}, {"ж", "zh"}, {"з", "z"}, {"и", "i"}, {"й", "y"},
  {"к", "k"}, {"л", "l"}, {"м", "m"}, {"н", "n"}, {"о", "o"}, {"п", "p"}, {"р", "r"}, {"с", "s"}, {"т", "t"}, {"у", "u"}, {"ф", "f"},
  {"х", "kh"}, {"ц", "ts"}, {"ч", "ch"}, {"ш", "sh"}, {"щ", "shch"}, {"ъ", ""}, {"ы", "y"}, {"ь", ""}, {"э", "e"}, {"ю", "yu"},
  {"я", "ya"}, {0, 0},
};

static uint32_t length(const char *z) {
  uint32_t n = 0;
  while (z[n]) n++;
  return n;
}

/* by_table offers word i rewritten by a table, when anything in it changes. */
static void by_table(const temper_text *t, temper_out *out, uint32_t i, const pair *table) {
  temper_str w = temper_word(t, i);
  char *b = temper_new(w.len * 4 + 8);
  uint32_t n = 0, changed = 0;
  for (uint32_t at = 0; at < w.len;) {
    const pair *p = table;
    uint32_t size = 0;
    for (; p->from; p++) {
      size = length(p->from);
      if (size > w.len - at) continue;
      uint32_t j = 0;
      for (; j < size; j++) {
        char c = w.ptr[at + j];
        if (c >= 'A' && c <= 'Z') c |= 0x20;
        if (c != p->from[j]) break;
      }
      if (j == size) break;
    }
    if (p->from) {
      uint32_t m = length(p->to);
      memcpy(b + n, p->to, m);
      n += m;
      at += size;
      changed = 1;
    } else {
      temper_rune(w.ptr + at, w.len - at, &size);
      memcpy(b + n, w.ptr + at, size);
      n += size;
      at += size;
    }
  }
  if (changed && n) temper_emit_word(out, t, i, b, n);
}

void temper_each(const temper_text *t, temper_out *out) {
  int to_greek = temper_equal(temper_param(t, "script", "cyrillic"), "greek");
  for (uint32_t k = 0; k < t->n_may && !temper_full(out); k++) {
    by_table(t, out, t->may[k], to_greek ? greek : cyrillic);
    by_table(t, out, t->may[k], latin);
  }
}
