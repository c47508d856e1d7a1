// Letters as digits and signs: fr33, $3x, w1nn3r. Parameter "level": 1 (digits), 2 (signs too, default), 3 (several signs a letter).
import { Text, register } from "../../sdk/assemblyscript/assembly/index";
export { temper_abi_version, temper_alloc, temper_perturb, temper_name } from "../../sdk/assemblyscript/assembly/index";

const letters = "abegilostz";
const digits: string[] = ["4", "8", "3", "9", "1", "1", "0", "5", "7", "2"];
const signs: string[] = ["@", "8", "€", "9", "!", "|", "0", "$", "+", "2"];
const more = "cdhkmnuvwx";
const several: string[] = ["(", "|)", "|-|", "|<", "|\\/|", "|\\|", "|_|", "\\/", "\\/\\/", "><"];

function rewrite(word: string, table: string[], every: boolean, pick: i32, third: boolean): string {
  let out = "", at = 0;
  for (let i = 0; i < word.length; i++) {
    const c = word.charAt(i), k = letters.indexOf(c.toLowerCase());
    if (k >= 0) {
      out += every || at == pick ? table[k] : c;
      at++;
      continue;
    }
    const m = third ? more.indexOf(c.toLowerCase()) : -1;
    out += m >= 0 ? several[m] : c;
  }
  return out;
}

function count(word: string): i32 {
  let n = 0;
  for (let i = 0; i < word.length; i++) if (letters.indexOf(word.charAt(i).toLowerCase()) >= 0) n++;
  return n;
}

function perturb(t: Text): string[] {
  const out: string[] = [];
  const rand = t.rand();
  const level = <i32>parseInt(t.param("level", "2"));
  for (let k = 0; k < t.may.length && out.length < t.max; k++) {
    const i = t.may[k], word = t.word(i), able = count(word);
    if (able == 0) continue;
    out.push(t.replace(i, rewrite(word, digits, false, rand.below(able), false)));
    out.push(t.replace(i, rewrite(word, digits, true, 0, false)));
    if (level >= 2) out.push(t.replace(i, rewrite(word, signs, true, 0, false)));
    if (level >= 3) out.push(t.replace(i, rewrite(word, signs, true, 0, true)));
  }
  return out;
}

register("leetspeak", perturb);
