// The page: two models side by side, attacks, teaching, chat.
import { Engine } from './temper/src/index.js';
import { words } from './words.js';

const $ = (id) => document.getElementById(id);
const store = {
  get: (k) => { try { return localStorage.getItem(k); } catch { return null; } },
  set: (k, v) => { try { localStorage.setItem(k, v); } catch { /* private windows */ } },
};
let language = store.get('language') ?? (navigator.language?.startsWith('zh') ? 'zh' : 'en');
const t = (key, values = {}) => (words[language][key] ?? words.en[key] ?? key).replace(/\{(\w+)\}/g, (_, k) => values[k] ?? '');

/** What the page has: for tests and for the curious. */
const state = (globalThis.temperDemo = { engine: null, models: {}, ready: false, attacking: false });
const sides = ['ordinary', 'hardened'];

function setStatus(text, share) {
  $('status').textContent = text;
  $('progress').hidden = share === undefined;
  if (share !== undefined) $('progress').value = share;
}

/** Says something in the visitor's language, and again when that changes. */
const spoken = new Map();
function say(e, key, values) {
  e.textContent = t(key, values);
  spoken.set(e, { key, values, text: e.textContent });
}

/** The fields of the lesson begin with examples in the visitor's language, until they are changed. */
function lesson() {
  const begin = { trial: 'trial-text' };
  for (const x of ['a', 'b']) Object.assign(begin, { [`name-${x}`]: x, [`examples-${x}`]: `${x}-examples` });
  for (const [id, key] of Object.entries(begin)) {
    if (['', ...Object.values(words).map((w) => w[key])].includes($(id).value) && !state.models.taught) $(id).value = t(key);
  }
}

/** Messages to begin with: those that the page's models are known to differ on, or a few plain ones. */
const samples = () => state.samples ?? words[language].messages.map((text) => ({ text }));

function take(sample) {
  $('message').value = sample.text;
  if (sample.recipe) $('recipe').value = sample.recipe;
}

function translate() {
  document.documentElement.lang = language;
  for (const e of document.querySelectorAll('[data-t]')) e.textContent = t(e.dataset.t);
  for (const e of document.querySelectorAll('[data-t-label]')) e.setAttribute('aria-label', t(e.dataset.tLabel));
  $('language').textContent = language === 'zh' ? 'English' : '中文';
  $('language').lang = language === 'zh' ? 'en' : 'zh';
  $('samples').replaceChildren(...samples().map((m) => {
    const b = document.createElement('button');
    b.type = 'button';
    b.textContent = m.text.length > 32 ? `${m.text.slice(0, 30)}…` : m.text;
    b.title = m.text;
    b.onclick = () => { take(m); judge(); };
    return b;
  }));
  decoderWords();
  lesson();
  for (const [e, { key, values, text }] of spoken) if (e.textContent === text) say(e, key, values);
  if (state.ready) { setStatus(t('ready')); facts(); judge(); }
}

/** What a label of the built-in filter means; other models' labels are shown as they are. */
const said = (label) => (label in words.en.labels ? words[language].labels[label] : label);

// ---- verdicts ----

function show(side, p, ms) {
  const e = $(side);
  e.querySelector('.label').textContent = said(p.label);
  const share = Math.round(p.score * 100);
  e.querySelector('.bar span').style.width = `${share}%`;
  e.querySelector('.bar').setAttribute('aria-label', `${said(p.label)}: ${t('sure', { p: share })}`);
  e.querySelector('.detail').textContent = `${t('sure', { p: share })} · ${t('ms', { n: ms.toFixed(ms < 10 ? 1 : 0) })}`;
}

function clean(side) {
  const e = $(side);
  e.classList.remove('fell', 'stands');
  e.querySelector('.trace').textContent = '';
  e.querySelector('.outcome').textContent = '';
}

let judging = false, again = false;
const speeds = [];
async function judge() {
  if (!state.ready || state.attacking) return;
  if (judging) { again = true; return; }
  judging = true;
  try {
    do {
      again = false;
      const text = $('message').value.trim();
      for (const side of sides) {
        clean(side);
        if (!text) continue;
        const began = performance.now();
        const p = await state.models[side].classify(text);
        const ms = performance.now() - began;
        speeds.push(ms);
        if (speeds.length > 20) speeds.shift();
        show(side, p, ms);
      }
      facts();
    } while (again);
  } catch (e) {
    setStatus(t('failed', { why: e.message }));
  } finally {
    judging = false;
  }
}

/** Marks what differs from the original, letter by letter. */
function marked(original, text) {
  const a = Array.from(original), b = Array.from(text), out = document.createDocumentFragment();
  // Longest common subsequence; texts are short.
  const n = a.length, m = b.length, d = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--) for (let j = m - 1; j >= 0; j--) d[i][j] = a[i] === b[j] ? d[i + 1][j + 1] + 1 : Math.max(d[i + 1][j], d[i][j + 1]);
  let run = '', same = true;
  const flush = () => {
    if (!run) return;
    if (same) out.append(run);
    else { const k = document.createElement('mark'); k.textContent = run; out.append(k); }
    run = '';
  };
  const gone = () => { // a letter is missing here
    flush();
    if (out.lastChild?.className === 'gone') return;
    const k = document.createElement('mark');
    k.className = 'gone';
    out.append(k);
  };
  for (let i = 0, j = 0; j < m;) {
    const eq = i < n && a[i] === b[j];
    if (!eq && i < n && d[i + 1][j] >= d[i][j + 1]) { i++; gone(); continue; }
    if (eq !== same) { flush(); same = eq; }
    run += b[j++];
    if (eq) i++;
  }
  flush();
  return out;
}

let stopAttack = null, plugin = null;
async function attackSide(side, text, signal) {
  const e = $(side), model = state.models[side];
  let shown = 0;
  const report = await model.attack(text, {
    ...(plugin && $('recipe').value === plugin.id ? { plugin } : { recipe: $('recipe').value }), budget: 300, seed: 1, signal,
    onProgress: (p) => {
      const now = performance.now();
      if (now - shown < 60) return;
      shown = now;
      e.querySelector('.trace').replaceChildren(marked(text, p.text));
      e.querySelector('.outcome').textContent = t('attacking', { n: p.queries });
    },
  });
  const r = report.results[0];
  if (r.status === 'won') {
    e.classList.add('fell');
    e.querySelector('.trace').replaceChildren(marked(text, r.adversarial));
    e.querySelector('.outcome').textContent = t('fell', { n: r.queries, label: said(report.labels[r.predicted_after]) });
    show(side, { label: report.labels[r.predicted_after], score: r.after[r.predicted_after] }, 0);
    e.querySelector('.detail').textContent = t('sure', { p: Math.round(r.after[r.predicted_after] * 100) });
  } else {
    e.classList.add('stands');
    e.querySelector('.trace').textContent = '';
    e.querySelector('.outcome').textContent = r.status === 'held' ? t('stands', { n: r.queries }) : t('wrong');
  }
  return r;
}

$('attack').onclick = async () => {
  const text = $('message').value.trim();
  if (!text || state.attacking) return;
  state.attacking = true;
  $('attack').disabled = true;
  $('stop').hidden = false;
  stopAttack = new AbortController();
  for (const s of sides) clean(s);
  const ended = await Promise.allSettled(sides.map((s) => attackSide(s, text, stopAttack.signal)));
  for (const [i, r] of ended.entries()) {
    if (r.status === 'rejected') $(sides[i]).querySelector('.outcome').textContent = r.reason.code === 'Aborted' ? '' : t('failed', { why: r.reason.message });
  }
  state.lastAttack = ended.map((r) => r.value);
  state.attacking = false;
  $('attack').disabled = false;
  $('stop').hidden = true;
};
$('stop').onclick = () => stopAttack?.abort();

// ---- plugins ----

async function takePlugin(file) {
  try {
    plugin = await state.engine.addPlugin(file);
    const o = document.createElement('option');
    o.value = plugin.id;
    say(o, 'plugin', { name: plugin.name });
    $('recipe').append(o);
    $('recipe').value = plugin.id;
    setStatus(t('plugin', { name: plugin.name }));
  } catch (e) {
    setStatus(t('failed', { why: e.message }));
  }
}
$('plugin').onchange = (e) => e.target.files[0] && takePlugin(e.target.files[0]);
$('drop').ondragover = (e) => { e.preventDefault(); $('drop').classList.add('over'); };
$('drop').ondragleave = () => $('drop').classList.remove('over');
$('drop').ondrop = (e) => {
  e.preventDefault();
  $('drop').classList.remove('over');
  if (e.dataTransfer.files[0]) takePlugin(e.dataTransfer.files[0]);
};

// ---- facts ----

function duration(ms) {
  const h = ms / 3.6e6;
  return language === 'zh' ? (h < 1 ? `${Math.round(h * 60)} 分钟` : `${h.toFixed(1)} 小时`) : h < 1 ? `${Math.round(h * 60)} minutes` : `${h.toFixed(1)} hours`;
}

function facts() {
  const e = state.engine;
  if (!e) return;
  $('machine').textContent = e.threads === 1 ? t('thread', { level: e.level }) : t('threads', { n: e.threads, level: e.level });
  if (state.bytes) $('size').textContent = t('meg', { n: ((state.bytes + (e.bytes ?? 0)) / 1048576).toFixed(1) });
  if (speeds.length) {
    const ms = [...speeds].sort((a, b) => a - b)[speeds.length >> 1];
    $('speed').textContent = t('ms', { n: ms.toFixed(1) });
    $('here').textContent = `${t('free')}, ${duration(ms * 1e6)}`;
  }
  $('api').textContent = `$${(60 * 0.15 + 5 * 0.6).toFixed(2)}`;
}

// ---- teaching ----

const examplesOf = (x) => $(`examples-${x}`).value.split('\n').map((s) => s.trim()).filter(Boolean).map((text) => ({ text, label: $(`name-${x}`).value.trim() }));
$('teach').onclick = async () => {
  const all = [...examplesOf('a'), ...examplesOf('b')];
  if (all.some((x) => !x.label) || examplesOf('a').length < 2 || examplesOf('b').length < 2) {
    say($('taught'), 'few');
    return;
  }
  $('teach').disabled = true;
  const began = performance.now();
  try {
    const m = await (state.models.encoder ?? state.models.ordinary).tune(all, { method: 'head', onProgress: (p) => { say($('taught'), 'learning', { n: p.step, of: p.steps }); } });
    await state.models.taught?.close();
    state.models.taught = m;
    say($('taught'), 'learned', { n: all.length, s: ((performance.now() - began) / 1000).toFixed(1) });
    $('trial').disabled = false;
    $('keep').hidden = false;
    await tryTaught();
  } catch (e) {
    say($('taught'), 'failed', { why: e.message });
  } finally {
    $('teach').disabled = false;
  }
};
async function tryTaught() {
  const text = $('trial').value.trim();
  if (!state.models.taught || !text) return;
  const p = await state.models.taught.classify(text);
  $('trial-verdict').textContent = `${p.label} · ${t('sure', { p: Math.round(p.score * 100) })}`;
}
$('trial').oninput = tryTaught;
$('keep').onclick = async () => {
  const a = document.createElement('a');
  a.href = URL.createObjectURL(new Blob([await state.models.taught.save()]));
  a.download = 'taught.temper';
  a.click();
  URL.revokeObjectURL(a.href);
};

// ---- chat ----

const history = [];
const asked = { temperature: 0.7, topP: 0.9 };

/** Words of the part that depend on whether the model answers or tells stories. */
function decoderWords() {
  if (!state.decoder?.story) return;
  $('chat-title').textContent = t('story');
  document.querySelector('label[for=line]').textContent = t('story-line');
  $('send').textContent = t('tell');
  if (!$('line').value && !$('log').childElementCount) $('line').value = t('once');
}

$('say').onsubmit = async (e) => {
  e.preventDefault();
  const text = $('line').value.trim();
  if (!text || !state.decoder || $('send').disabled) return;
  $('line').value = '';
  $('send').disabled = true;
  const put = (who, s) => {
    const p = document.createElement('p');
    p.className = who;
    p.textContent = s;
    $('log').append(p);
    $('log').scrollTop = $('log').scrollHeight;
    return p;
  };
  const story = state.decoder.story;
  if (!story) put('you', `${t('you')}: ${text}`);
  const before = story ? text : `${t('model')}: `;
  const p = put('model', before);
  try {
    state.models.decoder ??= await loadModel('decoder', state.decoder);
    const began = performance.now();
    let n = 0, whole = '';
    const words = story ? state.models.decoder.generate(text, { maxTokens: 160, ...asked, seed: Date.now() % 1e9 })
      : state.models.decoder.chat([...history, { role: 'user', content: text }], { maxTokens: 128, ...asked });
    for await (const x of words) {
      whole = x.whole;
      p.textContent = before + whole;
      $('log').scrollTop = $('log').scrollHeight;
      say($('rate'), 'rate', { t: (++n / ((performance.now() - began) / 1000)).toFixed(1) });
    }
    history.push({ role: 'user', content: text }, { role: 'assistant', content: whole });
    setStatus(t('ready'));
    facts();
  } catch (err) {
    p.textContent = t('failed', { why: err.message });
  } finally {
    $('send').disabled = false;
  }
};

// ---- start ----

async function loadModel(role, entry) {
  const m = await state.engine.load(new URL(entry.url, document.baseURI), {
    name: role,
    onProgress: (p) => setStatus(p.phase === 'open' ? t('opening', { what: t(role) || role }) : t('loading', { what: ` ${t(role)}`, n: (p.loaded / 1048576).toFixed(1), of: (p.total / 1048576).toFixed(1) }), p.total ? p.loaded / p.total : 0),
  });
  state.bytes = (state.bytes ?? 0) + m.bytes;
  return m;
}

$('language').onclick = () => { language = language === 'zh' ? 'en' : 'zh'; store.set('language', language); translate(); };
$('theme').onclick = () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
  store.set('theme', root.dataset.theme);
};
$('share').onclick = async () => {
  const data = { title: document.title, url: location.href };
  try {
    if (navigator.share) await navigator.share(data);
    else { await navigator.clipboard.writeText(location.href); setStatus(t('copied')); }
  } catch { /* the visitor changed their mind */ }
};
let pause;
$('message').oninput = () => { clearTimeout(pause); pause = setTimeout(judge, 60); };

async function start() {
  if (store.get('theme')) document.documentElement.dataset.theme = store.get('theme');
  translate();
  const models = await (await fetch('models/models.json')).json();
  state.samples = models.samples;
  translate();
  take(samples()[0]);
  // A host that sets no headers: once the service worker serves the page, it adds them, and the page may use threads.
  const worker = 'serviceWorker' in navigator && isSecureContext;
  const keep = () => navigator.serviceWorker.register('sw.js').catch(() => {});
  if (worker && !globalThis.crossOriginIsolated) {
    const had = navigator.serviceWorker.controller;
    await keep();
    if (!had && !sessionStorage.getItem('reloaded')) {
      await Promise.race([navigator.serviceWorker.ready, new Promise((ok) => setTimeout(ok, 3000))]);
      sessionStorage.setItem('reloaded', '1');
      location.reload();
      return;
    }
  }
  setStatus(t('starting'), 0);
  state.engine = await Engine.create();
  const offered = ['deepwordbug', 'textbugger-chars', 'pruthi', 'bad-characters', 'leetspeak', 'spacing', 'evasions'].filter((r) => state.engine.recipes.includes(r));
  $('recipe').replaceChildren(...offered.map((r) => new Option(r, r)));
  if (samples()[0].recipe) $('recipe').value = samples()[0].recipe;
  facts();
  for (const side of sides) state.models[side] = await loadModel(side, models[side]);
  state.ready = true;
  for (const id of ['attack', 'teach']) $(id).disabled = false;
  if (models.encoder) state.models.encoder = await loadModel('ordinary', models.encoder);
  if (models.decoder) { state.decoder = models.decoder; $('chat').hidden = false; decoderWords(); }
  setStatus(t('ready'));
  facts();
  await judge();
  if (worker && globalThis.crossOriginIsolated) keep(); // not before the models: it fetches the page once more, for visits without a network
}
start().catch((e) => { state.failed = e; setStatus(t('failed', { why: e.message })); });
