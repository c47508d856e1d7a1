// From an address, a folder's address or files to bytes in the engine's memory: streamed, cached in checked pieces, resumed.
import { AbortedError, CorruptError, TemperError } from './errors.js';

const pieceBytes = 4 << 20;
const cacheName = 'temper-v1';
const magic = [0x74, 0x65, 0x6d, 0x70, 0x65, 0x72, 0x42, 1]; // "temperB" 1
const decoder = new TextDecoder();

async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) return ''; // pages without https have none
  const d = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(d, (b) => b.toString(16).padStart(2, '0')).join('');
}

/** Resolves when the cache has what was downloaded: before buffers are freed, since it is written from them. */
export async function settle() {
  await Promise.all(Array.from(writing.keys(), (url) => written(url).catch(() => {})));
}

/** A cache of pieces by their sums; does nothing where there is no Cache API. */
class Pieces {
  constructor(cache) {
    this.cache = cache;
  }

  static async open(use) {
    if (!use || typeof caches === 'undefined' || !globalThis.crypto?.subtle) return new Pieces(null);
    try {
      return new Pieces(await caches.open(cacheName));
    } catch {
      return new Pieces(null); // private windows may refuse
    }
  }

  static key(name) {
    return new URL(`/.temper-cache/${name}`, globalThis.location?.href ?? 'http://localhost/').href;
  }

  async meta(url) {
    const r = await this.cache?.match(Pieces.key(`meta/${encodeURIComponent(url)}`));
    const m = await r?.json().catch(() => null); // what cannot be read was never there
    return m && (m.missing || (Array.isArray(m.sums) && m.size >= 0)) ? m : null;
  }

  async setMeta(url, meta) {
    await this.put(`meta/${encodeURIComponent(url)}`, JSON.stringify(meta));
  }

  async drop(url) {
    await written(url);
    await this.cache?.delete(Pieces.key(`meta/${encodeURIComponent(url)}`));
  }

  /** A piece whose bytes still have their sum, or null. */
  async get(sum) {
    const r = await this.cache?.match(Pieces.key(`piece/${sum}`));
    if (!r) return null;
    const b = new Uint8Array(await r.arrayBuffer());
    if ((await sha256(b)) !== sum) {
      await this.cache.delete(Pieces.key(`piece/${sum}`));
      return null;
    }
    return b;
  }

  async put(name, body) {
    try {
      await this.cache?.put(Pieces.key(name), new Response(body));
    } catch {
      this.cache = null; // no room: go on without
    }
  }
}

// Bytes that may wait for the engine, and pieces that may wait for the cache.
const waitingBytes = 32 << 20, waitingPieces = 8;

// Streams are read into buffers of this size where the browser can, so that a download leaves no garbage of its own size behind.
const readBytes = 512 << 10;

// release gives a buffer's memory back at once where the browser can, instead of at the next collection.
function release(bytes) {
  if (bytes.buffer.byteLength && /** @type {any} */ (bytes.buffer).transfer) /** @type {any} */ (bytes.buffer).transfer(0);
}

/**
 * Reads a response piece by piece. A piece is only good until the next read, unless fresh is set.
 * @param {Response} response
 */
function reading(response) {
  const body = response.body;
  let reader;
  try {
    reader = body.getReader({ mode: 'byob' });
  } catch {
    return body.getReader(); // no byte stream: pieces as they come
  }
  let buffer = new ArrayBuffer(readBytes);
  return {
    async read(fresh) {
      const r = await reader.read(new Uint8Array(fresh ? new ArrayBuffer(readBytes) : buffer));
      if (!fresh && r.value) buffer = r.value.buffer;
      return r;
    },
    cancel: () => reader.cancel(),
  };
}

// Writes to the cache that still go on, by address, and what makes them hurry: a download of the same file waits for them.
/** @type {Map<string, {link: Promise<void>, hurry: () => void}>} */
const writing = new Map();

// Pieces linger before they are summed and written, in milliseconds: until then the page's first answer needs the processor more.
const lingering = 1000;

function written(url) {
  const w = writing.get(url);
  w?.hurry();
  return w?.link;
}

/** A download that begins before the engine is there: what comes first waits here. Only for one file that the cache knows nothing of. */
export class Early {
  constructor(url, cache) {
    this.url = new URL(url).href;
    this.abort = new AbortController();
    this.chunks = [];
    this.size = 0;
    const path = new URL(url).pathname;
    const file = !path.endsWith('/') && /\.[a-z0-9]+$/i.test(path);
    this.begun = file ? this.begin(cache).catch(() => null) : Promise.resolve(null);
  }

  async begin(cache) {
    if (cache !== 'reload' && (await (await Pieces.open(cache !== 'none')).meta(this.url))) return null;
    const response = await fetch(this.url, { signal: this.abort.signal });
    if (!response.ok || !response.body) {
      this.drop();
      return null;
    }
    const reader = reading(response);
    this.fill(reader);
    return { response, reader: { read: () => this.read(reader), cancel: () => reader.cancel() } };
  }

  fill(reader) {
    this.next = this.taken || this.size >= waitingBytes ? null : reader.read(true).then((r) => {
      if (r.done || this.taken) {
        this.last = r;
        return;
      }
      this.chunks.push(r.value);
      this.size += r.value.length;
      this.fill(reader);
    });
    this.next?.catch(() => {}); // read tells of it
  }

  async read(reader) {
    this.taken = true;
    if (this.given) release(this.given);
    this.given = null;
    if (this.chunks.length) return { done: false, value: (this.given = this.chunks.shift()) };
    if (this.next) {
      const n = this.next;
      this.next = null;
      await n;
    }
    if (this.last) {
      const r = this.last;
      if (!r.done) this.last = null;
      return r;
    }
    return reader.read();
  }

  /** The response and a reader of it, for this address; null when the download has to begin anew. */
  async take(url, signal) {
    if (url !== this.url) return null;
    const got = await this.begun;
    if (got) signal?.addEventListener('abort', () => this.drop());
    if (signal?.aborted) this.drop();
    return got;
  }

  drop() {
    this.abort.abort();
  }
}

/**
 * Where a file's bytes go, and where the cache finds them again: there is no second copy.
 * @typedef {object} Sink
 * @property {(total: number) => void} [begin]
 * @property {(b: Uint8Array) => void|Promise<void>} write
 * @property {(at: number) => number} cut where the piece ends that begins at a place of the file
 * @property {(from: number, to: number) => Uint8Array|null} view bytes of the file that have been written, null when they are gone
 * @property {(from: number, to: number) => string} [sum] their sum, where it is known
 */

/**
 * Streams a file to sink, from the cache as far as it reaches, then from the network.
 * @param {string} url
 * @param {Sink} sink
 * @param {{signal?: AbortSignal, pieces: Pieces, early?: Early, optional?: boolean, onBytes?: (n: number, total: number, cached: boolean) => void}} o
 * @returns {Promise<boolean>} false when an optional file does not exist
 */
async function download(url, sink, o) {
  await written(url);
  let meta = await o.pieces.meta(url);
  let at = 0, good = 0;
  const sums = [];
  if (meta?.missing) {
    if (o.optional) return false;
    meta = null;
  }
  if (meta) {
    sink.begin?.(meta.size);
    for (const sum of meta.sums) {
      const b = await o.pieces.get(sum);
      if (!b) break;
      stopIf(o.signal);
      await sink.write(b);
      sums.push(sum);
      good++;
      at += b.length;
      o.onBytes?.(b.length, meta.size, true);
    }
    if (meta.complete && at === meta.size) return true;
  }
  const headers = {};
  if (at > 0) {
    headers.Range = `bytes=${at}-`;
    if (meta.etag) headers['If-Range'] = meta.etag;
  }
  let response, reader;
  try {
    const early = at === 0 && o.early ? await o.early.take(url, o.signal) : null;
    if (early) ({ response, reader } = early);
    else response = await fetch(url, { signal: o.signal, headers });
  } catch (e) {
    if (o.signal?.aborted) throw new AbortedError(`the download of ${url} was cancelled`);
    throw new AbortedError(`${url} could not be fetched: ${e?.message ?? e}`, { cause: e });
  }
  if (response.status === 404 && o.optional) {
    await o.pieces.setMeta(url, { missing: true });
    return false;
  }
  if (!response.ok) throw new TemperError(`${url}: the server answered ${response.status} ${response.statusText}`, 'NotFound');
  let skip = 0;
  const length = Number(response.headers.get('content-length')) || 0;
  let total = length;
  if (at > 0 && response.status === 206) {
    total = at + length;
    const m = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
    if (m) total = Number(m[1]);
    if (total !== meta.size) throw new CorruptError(`${url} had ${meta.size} bytes when the download began and has ${total} now: load it again with cache: 'reload'`);
  } else if (at > 0) {
    if (meta.etag && response.headers.get('etag') && meta.etag !== response.headers.get('etag')) {
      await o.pieces.drop(url);
      response.body?.cancel();
      throw new CorruptError(`${url} has changed since a part of it was downloaded: load it again`);
    }
    skip = at; // the server sends the whole file: pass over what is there
  } else sink.begin?.(total);
  if (response.headers.get('content-encoding')) total = 0; // the length is that of the compressed bytes
  const etag = response.headers.get('etag') ?? '';
  // Pieces go to the cache beside the download; a few of them may wait.
  let from = at, chain = Promise.resolve();
  const waiting = [];
  let hurry;
  const hurried = new Promise((ok) => { hurry = () => ok(undefined); });
  const after = (f) => {
    const link = chain.then(f, f);
    chain = link;
    writing.set(url, { link, hurry });
    link.finally(() => { if (writing.get(url)?.link === link) writing.delete(url); }).catch(() => {});
    return link;
  };
  let lost = false;
  const flush = async (to) => {
    const begin = from, since = performance.now();
    from = to;
    waiting.push(after(async () => {
      const left = since + lingering - performance.now();
      if (left > 0) {
        let timer;
        await Promise.race([hurried, new Promise((ok) => { timer = setTimeout(ok, left); })]);
        clearTimeout(timer);
      }
      // What was freed meanwhile is not cached, nor what comes after it: a cache is a file's beginning.
      let b = lost ? null : sink.view(begin, to);
      const sum = b && (sink.sum?.(begin, to) || await sha256(b));
      if (b) b = sink.view(begin, to);
      if (!b) {
        lost = true;
        return;
      }
      await o.pieces.put(`piece/${sum}`, b);
      sums.push(sum);
      await o.pieces.setMeta(url, { size: total, etag, sums, complete: false });
    }));
    if (waiting.length > waitingPieces) {
      hurry(); // a long download: it leaves the processor idle at times
      await waiting.shift();
    }
  };
  // Whoever gives up may free the bytes: those that are there are written first.
  const rescue = async () => {
    hurry();
    await chain.catch(() => {});
  };
  reader ??= reading(response);
  try {
    for (;;) {
      stopIf(o.signal);
      const { done, value } = await reader.read();
      if (done) break;
      let b = value;
      if (skip > 0) {
        const n = Math.min(skip, b.length);
        skip -= n;
        b = b.subarray(n);
        if (!b.length) continue;
      }
      await sink.write(b);
      at += b.length;
      o.onBytes?.(b.length, total, false);
      for (let to; o.pieces.cache && (to = sink.cut(from)) <= at && to > from;) await flush(to);
    }
  } catch (e) {
    reader.cancel().catch(() => {});
    await rescue();
    if (e instanceof TemperError) throw e;
    throw new AbortedError(`the download of ${url} broke off after ${at} bytes: ${e?.message ?? e}`, { cause: e });
  }
  if (total && at !== total) {
    await rescue();
    throw new AbortedError(`the download of ${url} ended after ${at} of ${total} bytes`);
  }
  if (o.pieces.cache) {
    if (from < at) await flush(at);
    after(async () => {
      if (!lost) await o.pieces.setMeta(url, { size: at, etag, sums, complete: true });
    }).catch(() => {});
  }
  return true;
}

function stopIf(signal) {
  if (signal?.aborted) throw new AbortedError('the download was cancelled');
}

let scratch = new Uint8Array(0);

// own is a view of engine memory that the browser's interfaces take, until the next call: they refuse shared memory.
function own(engine, at, n) {
  const view = new Uint8Array(engine.memory.buffer, at, n);
  if (view.buffer instanceof ArrayBuffer) return view;
  if (scratch.length < n) scratch = new Uint8Array(n);
  scratch.set(view);
  return scratch.subarray(0, n);
}

/** Collects a file in a buffer of the engine. */
class Buffer {
  constructor(engine) {
    this.engine = engine;
    this.ptr = 0;
    this.room = 0;
    this.size = 0;
  }

  begin(total) {
    if (total > this.room) this.reserve(total);
  }

  reserve(n) {
    const next = this.engine.alloc(n);
    if (this.ptr) {
      new Uint8Array(this.engine.memory.buffer).copyWithin(next, this.ptr, this.ptr + this.size);
      this.engine.free(this.ptr);
    }
    this.ptr = next;
    this.number = this.engine.buffer(next);
    this.room = n;
  }

  write(b) {
    if (this.size + b.length > this.room) this.reserve(Math.max(this.size + b.length, 2 * this.room));
    this.engine.write(this.ptr + this.size, b);
    this.size += b.length;
  }

  cut(at) {
    return (Math.floor(at / pieceBytes) + 1) * pieceBytes;
  }

  view(from, to) {
    return this.engine.buffer(this.ptr) === this.number ? own(this.engine, this.ptr + from, to - from) : null;
  }

  free() {
    if (this.ptr) this.engine.free(this.ptr);
    this.ptr = this.room = this.size = 0;
  }
}

/** Takes the bytes of a bundle: reads the header, puts the data into one buffer and checks its sums. */
class BundleSink {
  constructor(engine, what) {
    this.engine = engine;
    this.what = what;
    this.head = new Uint8Array(0); // of the file, up to its data
    this.header = null;
    this.at = 0;
    this.checked = 0;
    this.checks = [];
  }

  async write(b) {
    if (!this.header) {
      const joined = new Uint8Array(this.head.length + b.length);
      joined.set(this.head);
      joined.set(b, this.head.length);
      this.head = joined;
      if (joined.length < 16) return;
      if (!magic.every((m, i) => joined[i] === m)) throw new CorruptError(`${this.what} is not a temper bundle`);
      const n = Number(new DataView(joined.buffer).getBigUint64(8, true));
      if (n > 16 << 20) throw new CorruptError(`${this.what}: a header of ${n} bytes`);
      const start = (16 + n + 63) & ~63;
      if (joined.length < start) return;
      try {
        this.header = JSON.parse(decoder.decode(joined.subarray(16, 16 + n)));
      } catch {
        throw new CorruptError(`${this.what}: the header is not JSON`);
      }
      const h = this.header;
      if (h.format !== 'temper-bundle' || h.version !== 1) throw new CorruptError(`${this.what}: format ${h.format} version ${h.version}, expected temper-bundle version 1`);
      if (h.chunks.length !== Math.ceil(h.size / h.chunk)) throw new CorruptError(`${this.what}: ${h.chunks.length} sums for ${h.size} bytes`);
      if (!(Number.isInteger(h.chunk) && h.chunk > 0 && h.chunk <= 64 << 20)) throw new CorruptError(`${this.what}: sums of ${h.chunk} bytes each`);
      this.ptr = this.engine.alloc(Math.max(h.size, 1));
      this.number = this.engine.buffer(this.ptr);
      b = joined.subarray(start);
      this.head = joined.slice(0, start);
    }
    if (this.at + b.length > this.header.size) throw new CorruptError(`${this.what} is longer than its header says`);
    this.engine.write(this.ptr + this.at, b);
    this.at += b.length;
    this.check();
  }

  check() {
    const { chunk, size, chunks } = this.header;
    for (;;) {
      const i = this.checked, from = i * chunk, to = Math.min(from + chunk, size);
      if (i === chunks.length || this.at < to) return;
      // Sums go on beside the download.
      this.checks.push(sha256(own(this.engine, this.ptr + from, to - from)).then((sum) => {
        if (sum && sum !== chunks[i]) throw new CorruptError(`${this.what}: bytes ${from} to ${to} of its data do not have the sum that the header names`);
      }));
      this.checks.at(-1).catch(() => {}); // files tells of it
      this.checked++;
    }
  }

  // The cache's pieces are the head, and the chunks that the header names the sums of.
  cut(at) {
    if (!this.header) return Infinity;
    const start = this.head.length, { chunk, size } = this.header;
    return at < start ? start : start + Math.min(size, (Math.floor((at - start) / chunk) + 1) * chunk);
  }

  view(from, to) {
    const start = this.head.length;
    if (to <= start) return this.head.subarray(from, to);
    return from >= start && this.engine.buffer(this.ptr) === this.number ? own(this.engine, this.ptr + from - start, to - from) : null;
  }

  sum(from, to) {
    const { chunk, chunks } = this.header, i = (from - this.head.length) / chunk;
    return from >= this.head.length && Number.isInteger(i) && to === this.cut(from) && /^[0-9a-f]{64}$/.test(chunks[i]) ? chunks[i] : '';
  }

  async files() {
    if (!this.header || this.at !== this.header.size) throw new CorruptError(`${this.what} ends after ${this.at} of ${this.header?.size ?? 'unknown'} bytes`);
    await Promise.all(this.checks);
    return this.header.files.map((f) => {
      if (!(f.offset >= 0 && f.size >= 0 && f.offset + f.size <= this.header.size)) throw new CorruptError(`${this.what}: file ${f.name} lies outside`);
      return { name: f.name, ptr: this.ptr, at: f.offset, len: f.size };
    });
  }
}

const folderFiles = ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'modules.json', '1_Pooling/config.json', 'sentence_bert_config.json', 'generation_config.json', 'chat_template.jinja'];

/**
 * Brings a model's files into the engine.
 * @param {any} engine
 * @param {any} source an address (of a bundle, a GGUF file or a folder), or a list of {name, data}
 * @param {{signal?: AbortSignal, early?: Early|null, cache?: 'default'|'reload'|'none', onProgress?: (p: any) => void, read?: (path: string) => any}} o
 * @returns {Promise<{name: string, files: {name: string, ptr: number, at: number, len: number}[], bytes: number}>}
 */
export async function bring(engine, source, o) {
  const pieces = await Pieces.open(o.cache !== 'none');
  let loaded = 0, fromCache = 0, lastReport = 0, grand = 0;
  const report = (file, final) => {
    const now = Date.now();
    if (!final && now - lastReport < 50) return;
    lastReport = now;
    o.onProgress?.({ phase: 'download', file, loaded, total: Math.max(grand, loaded), cached: fromCache });
  };
  const owned = [];
  const get = async (url, sink, optional) => {
    if (o.cache === 'reload') await pieces.drop(url);
    let known = 0;
    const ok = await download(url, sink, {
      signal: o.signal, pieces, early: o.early, optional,
      onBytes: (n, total, cached) => {
        if (total && !known) grand += known = total;
        loaded += n;
        if (cached) fromCache += n;
        report(url, false);
      },
    });
    report(url, true);
    return ok;
  };
  const whole = async (url, name, optional) => {
    const b = new Buffer(engine);
    owned.push(b);
    if (!(await get(url, b, optional))) return null;
    if (!b.ptr) b.reserve(1);
    return { name, ptr: b.ptr, at: 0, len: b.size };
  };
  const streamInto = async (sink, data) => {
    const stream = data instanceof Uint8Array ? null : data instanceof ArrayBuffer ? null : data.stream ? data.stream() : data;
    if (!stream) {
      const all = data instanceof Uint8Array ? data : new Uint8Array(data);
      for (let at = 0; at < all.length; at += pieceBytes) {
        stopIf(o.signal);
        const b = all.subarray(at, at + pieceBytes);
        await sink.write(b);
        loaded += b.length;
        report('', false);
      }
      return;
    }
    for await (const b of stream) {
      stopIf(o.signal);
      await sink.write(b instanceof Uint8Array ? b : new Uint8Array(b));
      loaded += b.length;
      report('', false);
    }
  };
  try {
    if (typeof source === 'string') {
      const local = o.read && (await o.read(source)); // a path, in Node
      if (local) return await bring(engine, local.files, { ...o, read: undefined, name: local.name });
      const url = new URL(source, globalThis.location?.href ?? 'http://localhost/').href;
      const path = new URL(url).pathname;
      const name = path.replace(/\/$/, '').split('/').pop() ?? path;
      if (/\.gguf$/i.test(path)) return { name, files: [await whole(url, 'model.gguf', false)], bytes: loaded };
      if (!path.endsWith('/') && /\.[a-z0-9]+$/i.test(name)) {
        const sink = new BundleSink(engine, url);
        try {
          await get(url, sink, false);
          return { name, files: await sink.files(), bytes: loaded };
        } catch (e) {
          if (e instanceof CorruptError) await pieces.drop(url);
          throw e;
        }
      }
      const base = url.endsWith('/') ? url : `${url}/`;
      const files = [await whole(`${base}config.json`, 'config.json', false)];
      for (const f of folderFiles) {
        const x = await whole(base + f, f, true);
        if (x) files.push(x);
      }
      const one = await whole(`${base}model.safetensors`, 'model.safetensors', true);
      if (one) files.push(one);
      else {
        const index = await whole(`${base}model.safetensors.index.json`, 'model.safetensors.index.json', false);
        files.push(index);
        const { weight_map: map } = JSON.parse(decoder.decode(own(engine, index.ptr, index.len)));
        for (const shard of new Set(Object.values(map))) files.push(await whole(base + shard, String(shard), false));
      }
      return { name, files, bytes: loaded };
    }
    const list = Array.from(source, (f) => (f.data !== undefined ? f : { name: f.webkitRelativePath?.split('/').slice(1).join('/') || f.name, data: f }));
    grand = list.reduce((n, f) => n + (f.data.size ?? f.data.byteLength ?? f.size ?? 0), 0);
    if (list.length === 1 && !/\.(gguf|json|safetensors)$/i.test(list[0].name)) {
      const sink = new BundleSink(engine, list[0].name);
      await streamInto(sink, list[0].data);
      return { name: list[0].name, files: await sink.files(), bytes: loaded };
    }
    const files = [];
    for (const f of list) {
      const b = new Buffer(engine);
      owned.push(b);
      const size = f.data.size ?? f.data.byteLength ?? f.size;
      if (size) b.begin(size);
      await streamInto(b, f.data);
      if (!b.ptr) b.reserve(1);
      files.push({ name: /\.gguf$/i.test(f.name) ? 'model.gguf' : f.name, ptr: b.ptr, at: 0, len: b.size });
    }
    return { name: o.name ?? list[0]?.name ?? 'files', files, bytes: loaded };
  } catch (e) {
    if (owned.length) await settle();
    if (!engine.dead) for (const b of owned) b.free();
    throw e;
  }
}
