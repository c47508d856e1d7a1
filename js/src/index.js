/**
 * temper in the page: load a model, then classify, embed, fill, generate, chat, teach (tune) and attack it, all in the page.
 * Types are in index.d.ts.
 */
import { AbortedError, RequestError, TemperError, unpackError } from './errors.js';
import { compileModules } from './modules.js';

export { TemperError, OutOfMemoryError, NotIsolatedError, AbortedError, CorruptError, RequestError } from './errors.js';

let startWorker = () => {
  const w = new Worker(new URL('./browser-worker.js', import.meta.url), { type: 'module', name: 'temper' });
  return {
    post: (m, transfer) => w.postMessage(m, transfer ?? []),
    /** @param {any} options */
    modules: (options) => compileModules(options).then((modules) => w.postMessage({ modules }), (e) => w.postMessage({ noModules: String(e?.message ?? e) })),
    onMessage: (f) => { w.onmessage = (e) => f(e.data); },
    onError: (f) => { w.onerror = (e) => f(new Error(e.message || 'the worker could not be started')); },
    end: () => w.terminate(),
  };
};

/** Node sets how threads are started. @param {typeof startWorker} f */
export function setPlatform(f) {
  startWorker = f;
}

/** An engine: one worker with its memory and threads. Several models may live in it. */
export class Engine {
  #worker;
  #next = 1;
  #waiting = new Map();
  /** @private */
  constructor() {
    this.#worker = startWorker();
    this.#worker.onMessage((m) => {
      const w = this.#waiting.get(m.id);
      if (!w) return;
      if ('progress' in m) return w.onProgress?.(m.progress);
      this.#waiting.delete(m.id);
      w.end();
      if (m.error) w.fail(unpackError(m.error));
      else w.ok(m.result);
    });
    this.#worker.onError((e) => {
      for (const w of this.#waiting.values()) w.fail(new TemperError(`the engine's worker failed: ${e.message}`));
      this.#waiting.clear();
    });
  }

  /** @param {{threads?: number|'auto', relaxed?: boolean, maxMemory?: number}} [options] */
  static async create(options = {}) {
    const e = new Engine();
    e.#worker.modules?.(options);
    try {
      const info = await e._send('create', { threads: options.threads, relaxed: options.relaxed, maxMemory: options.maxMemory, early: options._early });
      /** The SIMD level and the number of threads in use. */
      e.level = info.level;
      e.threads = info.threads;
      e.recipes = info.recipes;
      e.bytes = info.bytes ?? 0;
    } catch (err) {
      e.close();
      throw err;
    }
    return e;
  }

  /** @private */
  _send(method, args, { signal, onProgress, transfer } = {}) {
    if (signal?.aborted) return Promise.reject(new AbortedError('the call was cancelled before it began'));
    const id = this.#next++;
    return new Promise((ok, fail) => {
      const cancel = () => this.#worker.post({ cancel: id });
      signal?.addEventListener('abort', cancel);
      this.#waiting.set(id, { ok, fail, onProgress, end: () => signal?.removeEventListener('abort', cancel) });
      this.#worker.post({ id, method, args }, transfer);
    });
  }

  /** Memory and settings in use. */
  info() {
    return this._send('info');
  }

  /** Loads a model into this engine; see load. */
  async load(source, options = {}) {
    source = address(source);
    if (typeof source !== 'string') source = await filesOf(source);
    const info = await this._send('open', { source, name: options.name, head: options.head, maxTokens: options.maxTokens, cache: options.cache },
      { signal: options.signal, onProgress: options.onProgress });
    return new Model(this, info);
  }

  /** Adds an attack plugin (.wasm) and returns what to pass as `plugin`. @param {BufferSource|Blob} file */
  async addPlugin(file, limits) {
    const bytes = new Uint8Array(file instanceof Blob ? await file.arrayBuffer() : file instanceof ArrayBuffer ? file : file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength));
    return this._send('addPlugin', { bytes, limits });
  }

  /** Ends the worker. What is under way fails. */
  close() {
    for (const w of this.#waiting.values()) w.fail(new AbortedError('the engine was closed'));
    this.#waiting.clear();
    this.#worker.post({ method: 'end' });
    this.#worker.end();
  }
}

/** A loaded model. */
export class Model {
  #engine;
  #id;
  #owns;
  constructor(engine, info, owns = false) {
    this.#engine = engine;
    this.#id = info.model;
    this.#owns = owns;
    this.name = info.name;
    this.family = info.family;
    this.head = info.head;
    this.labels = info.labels;
    this.parameters = info.parameters;
    this.maxTokens = info.maxTokens;
    this.bytes = info.bytes ?? 0;
    this.tuned = info.tuned;
  }

  get engine() {
    return this.#engine;
  }

  get level() {
    return this.#engine.level;
  }

  get threads() {
    return this.#engine.threads;
  }

  /** @private */
  _own() {
    this.#owns = true;
    return this;
  }

  async #task(request, options = {}) {
    return this.#engine._send('task', { request: { model: this.#id, ...request } }, options);
  }

  async #call(request) {
    return (await this.#engine._send('call', { request: { model: this.#id, ...request } })).value;
  }

  async classify(texts, options) {
    const r = (await this.#task({ kind: 'classify', texts: list(texts) }, options)).value.results;
    return Array.isArray(texts) ? r : r[0];
  }

  async embed(texts, options) {
    const { value, blob } = await this.#task({ kind: 'embed', texts: list(texts) }, options);
    const rows = [];
    for (let i = 0; i < value.count; i++) rows.push(blob.subarray(i * value.dim, (i + 1) * value.dim));
    return Array.isArray(texts) ? rows : rows[0];
  }

  async fill(text, options = {}) {
    return (await this.#task({ kind: 'fill', text, n: options.n ?? 5 }, options)).value.results;
  }

  async tokenize(texts) {
    const r = (await this.#call({ op: 'tokenize', texts: list(texts) })).encodings;
    return Array.isArray(texts) ? r : r[0];
  }

  async *generate(prompt, options = {}) {
    const { signal, onProgress, ...rest } = options;
    const abort = new AbortController();
    const stop = () => abort.abort();
    signal?.addEventListener('abort', stop);
    if (signal?.aborted) stop();
    const queue = [];
    let wake = () => {}, result, error, done = false;
    const end = this.#task({ kind: 'generate', generation: { ...rest, prompt } }, {
      signal: abort.signal,
      onProgress: (p) => {
        if ('token' in p) {
          queue.push(p);
          wake();
        } else onProgress?.(p);
      },
    }).then((r) => { result = r.value; }, (e) => { error = e; }).finally(() => { done = true; wake(); });
    try {
      for (;;) {
        while (queue.length) yield queue.shift();
        if (done) break;
        await new Promise((ok) => { wake = ok; });
      }
      if (error) throw error;
      return result;
    } finally {
      if (!done) stop(); // the reader has left the loop
      await end;
      signal?.removeEventListener('abort', stop);
    }
  }

  async *chat(messages, options = {}) {
    const { prompt, stop } = await this.#call({ op: 'chatPrompt', messages });
    return yield* this.generate(prompt, { plain: true, stop, ...options });
  }

  async tune(examples, options = {}) {
    const { signal, onProgress, ...rest } = options;
    const { value } = await this.#task({ kind: 'tune', examples: Array.from(examples, ({ text, label }) => ({ text, label })), ...rest }, { signal, onProgress });
    return new Model(this.#engine, value);
  }

  async attack(what, options = {}) {
    const { signal, onProgress, plugin, ...rest } = options;
    if (!rest.recipe && !plugin) rest.recipe = 'deepwordbug';
    const target = typeof what === 'string' ? { text: what } : Array.isArray(what) ? { examples: what } : what;
    if (rest.label !== undefined && typeof rest.label === 'string') {
      const at = this.labels.indexOf(rest.label);
      if (at < 0) throw new RequestError(`the model has no label ${JSON.stringify(rest.label)}, it has ${this.labels.join(', ')}`);
      rest.label = at;
    }
    return (await this.#task({ kind: 'attack', plugin: plugin?.id ?? plugin, ...target, ...rest }, { signal, onProgress })).value;
  }

  async save() {
    const { value, blob } = await this.#engine._send('call', { request: { op: 'save', model: this.#id } });
    return new Uint8Array(blob.buffer, 0, value.bytes);
  }

  async close() {
    if (this.#owns) return this.#engine.close();
    await this.#engine._send('close', { model: this.#id });
  }
}

const address = (source) => {
  if (source instanceof URL) source = source.href;
  return typeof source === 'string' && typeof document !== 'undefined' ? new URL(source, document.baseURI).href : source;
};

/** The files of a source that is no address: one file alone, bytes, or several. @param {any} source */
const filesOf = async (source) => {
  const data = source instanceof ArrayBuffer ? new Uint8Array(source) : ArrayBuffer.isView(source) ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength) : source;
  if (data instanceof Blob || data instanceof Uint8Array) {
    const name = /** @type {any} */ (data).name;
    if (name) return [{ name, data }];
    const first = data instanceof Blob ? new Uint8Array(await data.slice(0, 4).arrayBuffer()) : data.subarray(0, 4);
    return [{ name: String.fromCharCode(...first) === 'GGUF' ? 'model.gguf' : 'model.temper', data }];
  }
  const files = source?.[Symbol.iterator] ? Array.from(source) : [];
  if (!files.length || files.some((f) => !f || typeof f.name !== 'string')) {
    throw new RequestError('load: expected an address, a file, the bytes of one, or files with names');
  }
  return files;
};

const list = (texts) => (Array.isArray(texts) ? texts : [texts]);

/**
 * Loads a model.
 * @param {string|URL|Iterable<any>} source address of a bundle (.temper), of a GGUF file or of a Hugging Face folder; or files
 * @param {any} [options]
 */
export async function load(source, options = {}) {
  if (options.engine) return options.engine.load(source, options);
  // The model's download begins beside the engine's.
  const url = address(source);
  const early = typeof url === 'string' && /^https?:/.test(url) && !options.signal?.aborted ? { url, cache: options.cache } : undefined;
  const engine = await Engine.create({ ...options, _early: early });
  try {
    return (await engine.load(source, options))._own();
  } catch (e) {
    engine.close();
    throw e;
  }
}
