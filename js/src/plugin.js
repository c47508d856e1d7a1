// Runs attack plugins (plugins/ABI.md, version 1) under the page's own engine. A plugin is called from inside a call of the engine and may
// ask back: its questions go to the engine's export `nested`, which V8 and the others allow while the outer call waits here.

const encoder = new TextEncoder(), decoder = new TextDecoder('utf-8', { fatal: true });
const pageBytes = 65536;
const maxAnswer = 16 << 20;
const badArguments = -3, hostFailed = -4;
const wasiNames = new Set('args_get args_sizes_get clock_res_get clock_time_get environ_get environ_sizes_get fd_close fd_fdstat_get fd_fdstat_set_flags fd_filestat_get fd_prestat_dir_name fd_prestat_get fd_read fd_seek fd_write path_open poll_oneoff proc_exit random_get sched_yield'.split(' '));
const questions = new Set(['score', 'importance', 'nearest', 'fill', 'tokenize', 'log']);

export class PluginHost {
  /** @param {any} engine */
  constructor(engine) {
    this.engine = engine;
    /** @type {Map<string, {module: WebAssembly.Module, instance: any, limit: number, timeout: number}>} */
    this.plugins = new Map();
    this.next = 1;
  }

  /**
   * Checks and compiles a plugin. @param {Uint8Array} bytes @param {{memory?: number, fuel?: number}} [limits] memory in bytes (64 MiB by default), work a text (500 million)
   * @returns {Promise<string>} the name to attack with
   */
  async add(bytes, limits = {}) {
    if (bytes.length > 32 << 20) throw new Error(`plugin of ${bytes.length} bytes, at most 33554432 are allowed`);
    const limit = limits.memory ?? 64 << 20;
    for (const x of WebAssembly.Module.imports(await WebAssembly.compile(bytes))) {
      const known = x.kind === 'function' && (x.module === 'temper' ? questions.has(x.name) : x.module === 'wasi_snapshot_preview1' ? wasiNames.has(x.name) : x.module === 'env' && x.name === 'abort');
      if (!known) throw new Error(`plugin imports ${x.module}.${x.name} (${x.kind}), which no host offers`);
    }
    // As the native host does: the module is rewritten so that every function and loop pays for its work, and its memory is capped.
    const e = this.engine, ptr = e.alloc(bytes.length);
    e.write(ptr, bytes);
    let metered;
    try {
      const { value, blob } = e.call({ op: 'meter', files: [{ ptr, len: bytes.length }], n: Math.floor(limit / pageBytes) });
      metered = new Uint8Array(blob.buffer, 0, value.bytes);
    } finally {
      if (!e.dead) e.free(ptr);
    }
    const module = await WebAssembly.compile(metered);
    const exports = new Map(WebAssembly.Module.exports(module).map((x) => [x.name, x.kind]));
    for (const [name, kind] of [['memory', 'memory'], ['temper_abi_version', 'function'], ['temper_alloc', 'function'], ['temper_perturb', 'function']]) {
      if (exports.get(name) !== kind) throw new Error(`plugin does not export the ${kind} ${name}`);
    }
    const id = `plugin-${this.next++}`;
    const p = { module, instance: null, limit, fuel: BigInt(limits.fuel ?? 500_000_000) };
    this.plugins.set(id, p);
    try {
      const instance = this.instance(p);
      let name = id;
      if (instance.exports.temper_name) {
        const at = BigInt.asUintN(64, instance.exports.temper_name());
        name = decoder.decode(bytesOf(instance.exports.memory, Number(at >> 32n), Number(at & 0xffffffffn)));
      }
      p.name = name;
    } catch (e) {
      this.plugins.delete(id);
      throw e;
    }
    return id;
  }

  instance(p) {
    if (p.instance) return p.instance;
    const state = { seed: 0n, clock: 1000000000n, out: '' };
    const box = {};
    const memory = () => box.instance.exports.memory;
    const view = () => new DataView(memory().buffer);
    /** Asks the engine. */
    const ask = (op, args, payload, out, cap) => {
      const e = this.engine;
      const body = new Uint8Array(13 + payload.length), v = new DataView(body.buffer);
      body[0] = op.charCodeAt(0);
      args.forEach((a, i) => v.setUint32(1 + 4 * i, a >>> 0, true));
      body.set(payload, 13);
      const ptr = e.exports.alloc(body.length) >>> 0;
      e.write(ptr, body);
      const r = e.exports.nested(ptr, body.length) >>> 0;
      e.exports.free(ptr);
      if (!r) return hostFailed;
      const code = new DataView(e.memory.buffer).getInt32(r + 4, true);
      if (code > 0 && code <= cap >>> 0) new Uint8Array(memory().buffer).set(e.read(r + 8, code), out >>> 0);
      e.exports.free(r);
      return code;
    };
    const guarded = (f) => (...a) => {
      try {
        return f(...a);
      } catch {
        return badArguments;
      }
    };
    const get = (ptr, n) => bytesOf(memory(), ptr >>> 0, n >>> 0).slice();
    const str = (ptr, n) => {
      const b = get(ptr, n), o = new Uint8Array(4 + b.length);
      decoder.decode(b); // valid UTF-8
      new DataView(o.buffer).setUint32(0, b.length, true);
      o.set(b, 4);
      return o;
    };
    const temper = {
      score: guarded((req, texts, n, out, cap) => ask('s', [req], get(texts, n), out, cap)),
      importance: guarded((req, text, n, label, spans, count, out, cap) => {
        const s = str(text, n), raw = get(spans, (count >>> 0) * 8), o = new Uint8Array(s.length + 4 + raw.length);
        o.set(s);
        new DataView(o.buffer).setUint32(s.length, count, true);
        o.set(raw, s.length + 4);
        return ask('i', [req, label], o, out, cap);
      }),
      nearest: guarded((word, n, want, out, cap) => ask('n', [want], str(word, n), out, cap)),
      fill: guarded((text, n, start, end, want, out, cap) => ask('f', [start, end, want], str(text, n), out, cap)),
      tokenize: guarded((text, n, out, cap) => ask('t', [], str(text, n), out, cap)),
      log: () => {},
    };
    const none = (a, b) => {
      view().setUint32(a, 0, true);
      view().setUint32(b, 0, true);
      return 0;
    };
    const wasi = {
      args_sizes_get: none, environ_sizes_get: none, args_get: () => 0, environ_get: () => 0, sched_yield: () => 0,
      clock_res_get: (id, out) => { view().setBigUint64(out, 1000n, true); return 0; },
      clock_time_get: (id, p, out) => { view().setBigUint64(out, state.clock, true); state.clock += 1000n; return 0; },
      random_get: (ptr, n) => {
        const b = bytesOf(memory(), ptr, n);
        for (let i = 0; i < n; i += 8) {
          state.seed = BigInt.asUintN(64, state.seed + 0x9e3779b97f4a7c15n);
          let z = state.seed;
          z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
          z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
          z ^= z >> 31n;
          for (let j = 0; j < 8 && i + j < n; j++) b[i + j] = Number((z >> BigInt(8 * j)) & 255n);
        }
        return 0;
      },
      fd_write: (fd, iovs, count, written) => {
        if (fd !== 1 && fd !== 2) return 8;
        let n = 0;
        for (let i = 0; i < count; i++) {
          const len = view().getUint32(iovs + 8 * i + 4, true);
          state.out = (state.out + new TextDecoder().decode(get(view().getUint32(iovs + 8 * i, true), len))).slice(-4096);
          n += len;
        }
        view().setUint32(written, n, true);
        return 0;
      },
      poll_oneoff: (i, o, n, events) => { view().setUint32(events, 0, true); return 0; },
      proc_exit: (code) => { throw new Error(`plugin exited with code ${code}`); },
    };
    for (const name of wasiNames) wasi[name] ??= () => 8;
    box.instance = new WebAssembly.Instance(p.module, { temper, wasi_snapshot_preview1: wasi, env: { abort: () => { throw new Error('plugin aborted'); } } });
    box.state = state;
    const x = box.instance.exports;
    x.temper_fuel.value = p.fuel;
    x._initialize?.();
    const version = x.temper_abi_version();
    if (version !== 1) throw new Error(`plugin has ABI version ${version}, this host has 1`);
    p.state = state;
    p.instance = box.instance;
    return p.instance;
  }

  /** Called by the engine: runs a plugin on a request and returns a buffer of the engine (length, 0 or 1, answer or error). */
  call(name, nameLen, request, requestLen) {
    const e = this.engine;
    let body;
    const id = new TextDecoder().decode(e.read(name, nameLen));
    try {
      const p = this.plugins.get(id);
      if (!p) throw new Error(`there is no plugin ${id}`);
      try {
        body = this.perturb(p, e.read(request, requestLen));
      } catch (err) {
        const said = p.state?.out ? `\n${p.state.out}` : '';
        const spent = p.instance && p.instance.exports.temper_fuel.value < 0n;
        p.instance = null; // whatever state it is in, it is not used again
        throw new Error(`plugin ${p.name ?? id}: ${spent ? 'used up its fuel (an endless loop, or too much work)' : err?.message ?? err}${said}`);
      }
      const ok = new Uint8Array(1 + body.length);
      ok.set(body, 1);
      body = ok;
    } catch (err) {
      body = encoder.encode(`\u0001${err.message}`);
    }
    const ptr = e.exports.alloc(4 + body.length) >>> 0;
    new DataView(e.memory.buffer).setUint32(ptr, body.length, true);
    e.write(ptr + 4, body);
    return ptr;
  }

  perturb(p, request) {
    const x = this.instance(p).exports;
    p.state.out = '';
    p.state.clock = 1000000000n;
    const first = firstText(request);
    p.state.seed = first.seed;
    x.temper_fuel.value = p.fuel * BigInt(Math.max(first.count, 1)); // as much for each text
    const at = x.temper_alloc(request.length) >>> 0;
    if (at === 0) throw new Error(`has no room for a request of ${request.length} bytes`);
    bytesOf(x.memory, at, request.length).set(request);
    const r = BigInt.asUintN(64, x.temper_perturb(at, request.length));
    if (x.memory.buffer.byteLength > p.limit) throw new Error(`uses ${x.memory.buffer.byteLength / pageBytes} pages of memory, at most ${p.limit / pageBytes} are allowed`);
    const n = Number(r & 0xffffffffn);
    if (n > maxAnswer) throw new Error(`answers with ${n} bytes, at most ${maxAnswer} are allowed`);
    return bytesOf(x.memory, Number(r >> 32n), n).slice();
  }
}

function bytesOf(memory, ptr, n) {
  if (ptr + n > memory.buffer.byteLength) throw new Error(`names ${n} bytes at ${ptr}, its memory has ${memory.buffer.byteLength}`);
  return new Uint8Array(memory.buffer, ptr, n);
}

// How many texts a request has, and the seed of the first: after labels and params.
function firstText(b) {
  const v = new DataView(b.buffer, b.byteOffset, b.length);
  let at = 0;
  const skip = () => { at += 4 + v.getUint32(at, true); };
  const count = () => { const n = v.getUint32(at, true); at += 4; return n; };
  for (let n = count(); n > 0; n--) skip();
  for (let n = count(); n > 0; n--) { skip(); skip(); }
  const texts = count();
  return { count: texts, seed: texts > 0 ? v.getBigUint64(at, true) : 0n };
}
