// The engine's instance: memory, kernels, the Go program, and calls across. It runs inside a worker (see engine-worker.js).
import { OutOfMemoryError, RequestError, AbortedError, TemperError, NotIsolatedError } from './errors.js';
import { Exit, wasi } from './wasi.js';
import { choose, hasSIMD } from './link.js';
import { PluginHost } from './plugin.js';

const encoder = new TextEncoder(), decoder = new TextDecoder();

// What the engine's memory starts with: more than the 92 pages that the program itself asks for. Pages that nobody touches cost nothing.
const initialPages = 160;

/**
 * @typedef {object} Platform
 * @property {(name: string, shared?: boolean) => Promise<WebAssembly.Module>} module a file of dist/, compiled, with a shared memory if asked
 * @property {() => {post: (m: any) => void, ready: Promise<void>, end: () => void}} kernelWorker starts an empty kernel thread
 * @property {boolean} isolated whether memory can be shared
 * @property {number} cores
 */

export class Engine {
  /**
   * @param {Platform} platform
   * @param {{threads?: number|'auto', relaxed?: boolean, maxMemory?: number}} options
   */
  static async create(platform, options = {}) {
    if (!hasSIMD()) throw new TemperError('this browser has no WebAssembly SIMD, which the engine needs', 'Unsupported');
    const asked = options.threads ?? 'auto';
    if (asked !== 'auto' && asked > 1 && !platform.isolated) {
      throw new NotIsolatedError(`${asked} threads were asked for, but the page is not cross-origin isolated: serve it with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp, or take threads: 1`);
    }
    const { threads, shared, kernels: kernelName } = choose(options, platform);
    const [module, kernelModule] = await Promise.all([platform.module('temper.wasm', shared), platform.module(kernelName)]);
    const e = new Engine();
    e.memory = makeMemory(initialPages, shared, options.maxMemory);
    e.threads = threads;
    e.log = [];
    e.buffers = new Map();
    e.allocations = 0;
    const kernels = await WebAssembly.instantiate(kernelModule, { env: { memory: e.memory } });
    e.plugins = new PluginHost(e);
    const instance = await WebAssembly.instantiate(module, {
      env: { memory: e.memory },
      temper: kernels.exports,
      temper_page: { plugin: (n, nLen, r, rLen) => e.plugins.call(n, nLen, r, rLen) },
      wasi_snapshot_preview1: wasi(e.memory, (line) => { if (e.log.length < 40) e.log.push(line); }),
    });
    e.exports = /** @type {any} */ (instance.exports);
    e.guard(() => e.exports._initialize());
    const p = e.guard(() => e.exports.threads(threads)) >>> 0;
    e.workers = [];
    if (threads > 1 && p) {
      const [control, stacks, stackBytes] = new Uint32Array(e.memory.buffer, p, 3);
      for (let i = 1; i < threads; i++) {
        const w = platform.kernelWorker();
        w.post({ kernel: { module: kernelModule, memory: e.memory, control, stack: stacks + i * stackBytes, thread: i } });
        e.workers.push(w);
      }
      await Promise.all(e.workers.map((w) => w.ready));
      e.guard(() => e.exports.started(threads - 1));
    }
    e.request = { ptr: 0, size: 0 };
    return e;
  }

  /** Runs f and turns the program's end into a typed error; a program that has ended stays so. */
  guard(f) {
    if (this.dead) throw this.dead;
    try {
      return f();
    } catch (err) {
      const text = this.log.join('\n');
      if (/out of memory|cannot allocate memory/i.test(text)) {
        this.dead = new OutOfMemoryError(`the engine needs more memory than the ${Math.round(this.memory.buffer.byteLength / 1048576)} MB it has`);
      } else {
        this.dead = new TemperError(`the engine failed: ${err instanceof Exit ? text.split('\n').slice(0, 12).join('\n') || err.message : err}${err instanceof Exit ? '' : `\n${text}`}`);
      }
      throw this.dead;
    }
  }

  /** @param {number} bytes @returns {number} address of a buffer of the engine */
  alloc(bytes) {
    const ptr = this.guard(() => this.exports.alloc(bytes)) >>> 0;
    this.buffers.set(ptr, ++this.allocations);
    return ptr;
  }

  /** The number of the buffer that lies there now, undefined when it has been freed. @param {number} ptr */
  buffer(ptr) {
    return this.buffers.get(ptr);
  }

  /** @param {number} ptr */
  free(ptr) {
    this.buffers.delete(ptr);
    this.guard(() => this.exports.free(ptr));
  }

  /** @param {number} ptr @param {Uint8Array} bytes */
  write(ptr, bytes) {
    new Uint8Array(this.memory.buffer, ptr, bytes.length).set(bytes);
  }

  /** A copy of engine memory. @param {number} ptr @param {number} n */
  read(ptr, n) {
    return new Uint8Array(this.memory.buffer, ptr >>> 0, n).slice();
  }

  /**
   * Answers a request. @param {object} request
   * @returns {{value: any, blob: Float32Array}}
   */
  call(request) {
    const body = encoder.encode(JSON.stringify(request));
    if (body.length > this.request.size) {
      if (this.request.ptr) this.free(this.request.ptr);
      this.request.size = Math.max(65536, body.length * 2);
      this.request.ptr = this.alloc(this.request.size);
    }
    this.write(this.request.ptr, body);
    const h = this.guard(() => this.exports.call(this.request.ptr, body.length)) >>> 0;
    const [ptr, n, blobPtr, blobLen] = new Uint32Array(this.memory.buffer, h, 4);
    const r = JSON.parse(decoder.decode(this.read(ptr, n)));
    if (r.error) {
      if (r.error.kind === 'aborted') throw new AbortedError('the call was cancelled');
      throw r.error.kind === 'request' ? new RequestError(r.error.message) : new TemperError(r.error.message);
    }
    const blob = blobLen ? new Float32Array(this.memory.buffer, blobPtr, blobLen).slice() : new Float32Array(0);
    return { value: r.ok, blob };
  }

  /** Ends the threads. */
  close() {
    for (const w of this.workers ?? []) w.end();
    this.dead ??= new TemperError('the engine is closed', 'Closed');
  }
}

// A shared memory reserves its maximum of address space; small machines refuse 4 GiB.
function makeMemory(initial, shared, maxMemory) {
  let error;
  for (const maximum of maxMemory ? [Math.ceil(maxMemory / 65536)] : [65536, 32768, 16384, 8192]) {
    try {
      return new WebAssembly.Memory({ initial, maximum: Math.max(maximum, initial), shared });
    } catch (e) {
      error = e;
    }
  }
  throw new OutOfMemoryError(`no memory for the engine: ${error}`);
}
