// Write temper plugins in AssemblyScript: perturbations of texts that might fool a classifier. The contract is plugins/ABI.md, version 1.
//
//   import { Text, register } from "../../sdk/assemblyscript/assembly/index";
//   export { temper_abi_version, temper_alloc, temper_perturb, temper_name } from "../../sdk/assemblyscript/assembly/index";
//
//   register("shout", (t: Text): string[] => {
//     const out: string[] = [];
//     for (let k = 0; k < t.may.length; k++) out.push(t.replace(t.may[k], t.word(t.may[k]).toUpperCase()));
//     return out;
//   });
//
// Build: asc plugin.ts -o plugin.wasm --optimizeLevel 3 --shrinkLevel 1 --runtime stub --exportStart _initialize
//
// Memory comes from the stub runtime, which never frees; the SDK empties it before each batch. Keep nothing across calls that a call made.
// A plugin is deterministic: draw chance from Rand alone.

// @ts-ignore: decorator
@external("temper", "score")
declare function importScore(req: u32, texts: usize, len: u32, out: usize, room: u32): i32;
// @ts-ignore: decorator
@external("temper", "importance")
declare function importImportance(req: u32, text: usize, len: u32, label: u32, spans: usize, count: u32, out: usize, room: u32): i32;
// @ts-ignore: decorator
@external("temper", "nearest")
declare function importNearest(word: usize, len: u32, n: u32, out: usize, room: u32): i32;

/** Negative answers of the host. */
export const UNAVAILABLE: i32 = -1;
export const OVER_BUDGET: i32 = -2;

/** A text to perturb. Offsets of words are bytes of UTF-8, so words are cut from the bytes. */
export class Text {
  bytes: usize = 0;
  size: u32 = 0;
  starts: StaticArray<u32> = new StaticArray<u32>(0);
  ends: StaticArray<u32> = new StaticArray<u32>(0);
  /** Indices of the words that may change. */
  may: i32[] = [];
  /** The largest number of candidates wanted; more are dropped. */
  max: i32 = 0;
  /** The true class, an index into labels. */
  label: i32 = 0;
  labels: string[] = [];
  keys: string[] = [];
  values: string[] = [];
  seed: u64 = 0;
  index: u32 = 0;

  /** The whole text. */
  get text(): string {
    return String.UTF8.decodeUnsafe(this.bytes, this.size);
  }

  /** How many words there are. */
  get words(): i32 {
    return this.starts.length;
  }

  /** Word i. */
  word(i: i32): string {
    return String.UTF8.decodeUnsafe(this.bytes + this.starts[i], this.ends[i] - this.starts[i]);
  }

  /** The text with word i replaced. */
  replace(i: i32, w: string): string {
    return String.UTF8.decodeUnsafe(this.bytes, this.starts[i]) + w + String.UTF8.decodeUnsafe(this.bytes + this.ends[i], this.size - this.ends[i]);
  }

  /** A parameter, or what stands for it. */
  param(key: string, otherwise: string): string {
    const k = this.keys.indexOf(key);
    return k < 0 ? otherwise : this.values[k];
  }

  /** A generator with the text's seed. */
  rand(): Rand {
    return new Rand(this.seed);
  }

  /** The norm of the loss's gradient at each word, or null where the model gives none. */
  importance(): StaticArray<f32> | null {
    const n = this.words;
    const spans = new StaticArray<u32>(2 * n);
    for (let i = 0; i < n; i++) {
      spans[2 * i] = this.starts[i];
      spans[2 * i + 1] = this.ends[i];
    }
    const out = new StaticArray<f32>(n);
    const got = importImportance(this.index, this.bytes, this.size, this.label, changetype<usize>(spans), n, changetype<usize>(out), 4 * n);
    return got < 0 ? null : out;
  }

  /** Class probabilities of texts, one row after another, or null where there is no model or no budget. Each text costs a query. */
  score(texts: string[]): StaticArray<f32> | null {
    const w = new Writer();
    w.u32(texts.length);
    for (let i = 0; i < texts.length; i++) w.str(texts[i]);
    const n = texts.length * this.labels.length;
    const out = new StaticArray<f32>(n);
    const got = importScore(this.index, w.at, w.size, changetype<usize>(out), 4 * n);
    return got < 0 ? null : out;
  }
}

/** Up to n words near word, or none where the host has none. */
export function nearest(word: string, n: u32): string[] {
  const b = String.UTF8.encode(word);
  let room: u32 = 4096;
  while (true) {
    const out = heap.alloc(room);
    const got = importNearest(changetype<usize>(b), b.byteLength, n, out, room);
    if (got < 0) return [];
    if (<u32>got > room) {
      room = got;
      continue;
    }
    const r = new Reader(out, got);
    const list: string[] = [];
    for (let k = r.u32(); k > 0; k--) list.push(r.str());
    return list;
  }
}

/** SplitMix64. */
export class Rand {
  constructor(private state: u64) {}

  next(): u64 {
    this.state += 0x9e3779b97f4a7c15;
    let z = this.state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  /** A number below n, 0 when n is below 2. */
  below(n: i32): i32 {
    return n < 2 ? 0 : <i32>(this.next() % <u64>n);
  }
}

class Reader {
  constructor(public at: usize, public left: u32) {}

  u32(): u32 {
    if (this.left < 4) unreachable();
    const v = load<u32>(this.at);
    this.at += 4;
    this.left -= 4;
    return v;
  }

  u64(): u64 {
    const low = <u64>this.u32();
    return low | (<u64>this.u32() << 32);
  }

  skip(n: u32): usize {
    if (n > this.left) unreachable();
    const at = this.at;
    this.at += n;
    this.left -= n;
    return at;
  }

  str(): string {
    const n = this.u32();
    return String.UTF8.decodeUnsafe(this.skip(n), n);
  }
}

class Writer {
  at: usize = heap.alloc(1024);
  size: u32 = 0;
  room: u32 = 1024;

  private need(n: u32): usize {
    if (this.size + n > this.room) {
      this.room = this.room * 2 + n;
      const b = heap.alloc(this.room);
      memory.copy(b, this.at, this.size);
      this.at = b;
    }
    const p = this.at + this.size;
    this.size += n;
    return p;
  }

  u32(v: u32): void {
    store<u32>(this.need(4), v);
  }

  str(s: string): void {
    const n = String.UTF8.byteLength(s);
    this.u32(n);
    String.UTF8.encodeUnsafe(changetype<usize>(s), s.length, this.need(n));
  }
}

let each: (t: Text) => string[] = (t: Text): string[] => [];
let nameAt: usize = 0;
let nameSize: u32 = 0;
let mark: usize = 0;

/** Names the plugin and says how it perturbs one text. */
export function register(name: string, perturb: (t: Text) => string[]): void {
  each = perturb;
  const b = String.UTF8.encode(name);
  nameAt = changetype<usize>(b);
  nameSize = b.byteLength;
}

export function temper_abi_version(): u32 {
  return 1;
}

export function temper_name(): u64 {
  return (<u64>nameAt << 32) | <u64>nameSize;
}

export function temper_alloc(size: u32): usize {
  // The first call marks where the heap of start-up ends; every later one empties what came after.
  if (mark == 0) mark = heap.alloc(16);
  else heap.reset(), heap.alloc(mark - __heap_base);
  return heap.alloc(size > 0 ? <usize>size : 1);
}

export function temper_perturb(at: usize, size: u32): u64 {
  const r = new Reader(at, size);
  const labels: string[] = [], keys: string[] = [], values: string[] = [];
  for (let k = r.u32(); k > 0; k--) labels.push(r.str());
  for (let k = r.u32(); k > 0; k--) {
    keys.push(r.str());
    values.push(r.str());
  }
  const n = r.u32();
  const w = new Writer();
  w.u32(n);
  for (let i: u32 = 0; i < n; i++) {
    const t = new Text();
    t.index = i;
    t.labels = labels;
    t.keys = keys;
    t.values = values;
    t.seed = r.u64();
    t.label = r.u32();
    t.max = r.u32();
    t.size = r.u32();
    t.bytes = r.skip(t.size);
    const words = r.u32();
    t.starts = new StaticArray<u32>(words);
    t.ends = new StaticArray<u32>(words);
    for (let k: u32 = 0; k < words; k++) {
      t.starts[k] = r.u32();
      t.ends[k] = r.u32();
    }
    for (let k = r.u32(); k > 0; k--) t.may.push(r.u32());
    const list = each(t);
    const m = min(list.length, t.max);
    w.u32(m);
    for (let k = 0; k < m; k++) w.str(list[k]);
  }
  return (<u64>w.at << 32) | <u64>w.size;
}
