// The package in Node: exact results, typed errors, tasks. Needs a model folder (TEMPER_MINILM, or temper-test/minilm in the cache folder).
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { load, Engine, AbortedError, CorruptError, RequestError } from '../src/node.js';

const minilm = process.env.TEMPER_MINILM ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'temper-test/minilm');
const skip = existsSync(join(minilm, 'model.safetensors')) ? false : 'no all-MiniLM-L6-v2 folder (set TEMPER_MINILM)';

test('an engine starts, reports its level and threads, and ends', async () => {
  for (const threads of [1, 2]) {
    const e = await Engine.create({ threads });
    assert.equal(e.threads, threads);
    assert.match(e.level, /^simd128/);
    assert.ok(e.recipes.includes('deepwordbug'));
    assert.ok((await e.info()).memory > 1 << 20);
    e.close();
  }
});

test('a folder is read, texts become vectors, threads change nothing', { skip }, async () => {
  const texts = ['hello world', 'a second text, somewhat longer than the first'];
  const rows = [];
  for (const threads of [1, 2]) {
    const m = await load(minilm, { threads });
    assert.equal(m.family, 'bert');
    assert.equal(m.parameters, 22713216);
    const v = await m.embed(texts);
    assert.equal(v.length, 2);
    assert.equal(v[0].length, 384);
    assert.ok(Math.abs(Math.hypot(...v[0]) - 1) < 1e-5);
    assert.deepEqual(await m.embed(texts[0]), v[0], 'alone as in a batch');
    rows.push(v);
    const enc = await m.tokenize('unbelievable prizes');
    assert.deepEqual(enc.ids.slice(0, 1), [101]);
    assert.equal(enc.tokens.length, enc.offsets.length);
    await m.close();
  }
  assert.deepEqual(rows[0], rows[1]);
});

test('teaching, saving, attacking, cancelling', { skip }, async () => {
  const e = await Engine.create({ threads: 1 });
  const base = await e.load(minilm, { maxTokens: 64 });
  const examples = [];
  for (const text of ['great work', 'wonderful, thank you', 'i love it', 'best ever', 'so happy']) examples.push({ text, label: 'praise' });
  for (const text of ['it broke', 'never again', 'where is my refund', 'awful service', 'i am angry']) examples.push({ text, label: 'complaint' });
  const m = await base.tune(examples, { method: 'head' });
  assert.deepEqual([...m.labels].sort(), ['complaint', 'praise']);
  assert.equal((await m.classify('it broke again, awful')).label, 'complaint');
  const saved = await m.save();
  const again = await e.load([{ name: 'taught.temper', data: saved }]);
  for (const alone of [new Uint8Array(await new Blob([saved]).arrayBuffer()), new Blob([saved])]) await (await e.load(alone)).close();
  assert.deepEqual((await again.classify(['so happy with it'])).map((p) => p.scores), (await m.classify(['so happy with it'])).map((p) => p.scores));
  saved[saved.length - 100] ^= 1;
  await assert.rejects(e.load([{ name: 'taught.temper', data: saved }]), CorruptError);

  let seen = 0;
  const r = await m.attack('the service was awful and it broke', { recipe: 'deepwordbug', seed: 1, onProgress: (p) => { seen++; assert.equal(p.scores.length, 2); } });
  assert.ok(seen > 0);
  assert.ok(['won', 'held'].includes(r.results[0].status));
  const twice = await m.attack('the service was awful and it broke', { recipe: 'deepwordbug', seed: 1 });
  assert.deepEqual(twice.results, r.results, 'the same seed, the same attack');

  const abort = new AbortController();
  const long = m.attack(examples, { recipe: 'genetic', signal: abort.signal, onProgress: () => abort.abort() });
  await assert.rejects(long, AbortedError);
  await assert.rejects(base.classify('x'), RequestError);
  await assert.rejects(m.attack('x', { recipe: 'nonsense' }), RequestError);
  e.close();
});

test('what cannot be a model is refused', async () => {
  const e = await Engine.create({ threads: 1 });
  await assert.rejects(e.load([{ name: 'x.temper', data: new Uint8Array(100) }]), CorruptError);
  await assert.rejects(e.load(new Uint8Array(100)), CorruptError);
  for (const gguf of [new TextEncoder().encode('GGUF and no more'), new Blob(['GGUF and no more'])]) await assert.rejects(e.load(gguf), RequestError);
  for (const bad of [undefined, null, 7, [], [1, 2], {}, [{ data: new Uint8Array(4) }]]) await assert.rejects(e.load(/** @type {any} */ (bad)), RequestError);
  await assert.rejects(e.load([{ name: 'config.json', data: new TextEncoder().encode('{"model_type":"nothing"}') }]), RequestError);
  e.close();
});

const gemma = process.env.TEMPER_GEMMA ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'temper-test/gemma-3-270m-q4_k_m.gguf');
test('a decoder speaks, streams and stops', { skip: existsSync(gemma) ? false : 'no gemma-3-270m-q4_k_m.gguf (set TEMPER_GEMMA)' }, async () => {
  const texts = [];
  for (const threads of [1, 2]) {
    const m = await load(gemma, { threads });
    assert.equal(m.head, 'causal');
    let whole = '';
    const g = m.generate('The capital of France is', { maxTokens: 8 });
    let end;
    for (;;) {
      const x = await g.next();
      if (x.done) { end = x.value; break; }
      whole = x.value.whole;
    }
    assert.equal(end.tokens, 8);
    assert.equal(end.text, whole);
    texts.push(whole);
    let n = 0;
    for await (const x of m.generate('Once', { maxTokens: 100 })) if (x.token >= 0 && ++n === 3) break; // leaving the loop stops the work
    for await (const x of m.chat([{ role: 'user', content: 'Hello' }], { maxTokens: 3 })) assert.equal(typeof x.text, 'string');
    await assert.rejects(m.classify('x'), RequestError);
    await m.close();
  }
  assert.equal(texts[0], texts[1], 'threads change nothing');
});

const examples = new URL('../../plugins/examples/', import.meta.url);
const plugins = existsSync(examples) ? readdirSync(examples).map((n) => new URL(`${n}/${n}.wasm`, examples)).filter((u) => existsSync(u)) : [];
test('plugins run in the page, ask back, and fail alone', { skip: skip || (plugins.length ? false : 'no built plugins') }, async () => {
  const e = await Engine.create({ threads: 1 });
  const base = await e.load(minilm, { maxTokens: 64 });
  const m = await base.tune(['good', 'great', 'lovely'].map((text) => ({ text, label: 'praise' })).concat(['bad', 'awful', 'broken'].map((text) => ({ text, label: 'complaint' }))), {});
  for (const u of plugins) {
    const p = await e.addPlugin(readFileSync(u));
    assert.ok(p.name);
    const run = () => m.attack('the service was awful and the phone is broken', { plugin: p, seed: 3, budget: 60 });
    const r = await run();
    assert.ok(r.queries > 1, `${p.name} made no candidates`);
    assert.deepEqual((await run()).results, r.results, `${p.name}: the same seed, the same attack`);
  }
  const starved = await e.addPlugin(readFileSync(plugins[0]), { fuel: 2000 }).catch((x) => x);
  if (!(starved instanceof Error)) await assert.rejects(m.attack('the service was awful', { plugin: starved }), /fuel/);
  await assert.rejects(e.addPlugin(new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0])), /memories|does not export/);
  assert.equal((await m.classify('awful')).label, 'complaint', 'the engine goes on');
  e.close();
});
