// The engine's thread in a browser.
import { serveEngine } from './engine-worker.js';
import { importBytes, shareMemory } from './link.js';

const channel = new MessageChannel();
const waiting = [];
channel.port1.onmessage = () => waiting.shift()?.();

// sharing passes a module through and makes the memory that it imports a shared one.
function sharing() {
  let start = new Uint8Array(0);
  const pass = (to) => {
    shareMemory(start);
    to.enqueue(start);
    start = null;
  };
  return new TransformStream({
    transform(chunk, to) {
      if (!start) return to.enqueue(chunk);
      const joined = new Uint8Array(start.length + chunk.length);
      joined.set(start);
      joined.set(chunk, start.length);
      start = joined;
      if (start.length >= importBytes) pass(to);
    },
    flush(to) {
      if (start) pass(to);
    },
  });
}

const platform = {
  bytes: 0,
  isolated: globalThis.crossOriginIsolated === true && typeof SharedArrayBuffer !== 'undefined',
  cores: navigator.hardwareConcurrency || 1,
  async module(name, shared) {
    const url = new URL(`../dist/${name}`, import.meta.url);
    let r = await fetch(url);
    if (!r.ok) throw new Error(`${url}: the server answered ${r.status}`);
    platform.bytes += Number(r.headers.get('content-length')) || 0;
    // Compiled while it comes; a host that does not know the type of such files is helped.
    const rewrap = shared || !/^application\/wasm$/i.test(r.headers.get('content-type') ?? '');
    if (rewrap) r = new Response(shared ? r.body.pipeThrough(sharing()) : r.body, { headers: { 'Content-Type': 'application/wasm' } });
    return WebAssembly.compileStreaming(r);
  },
  kernelWorker() {
    const w = new Worker(new URL('./kernel-worker.js', import.meta.url), { type: 'module', name: 'temper kernels' });
    const ready = new Promise((ok, fail) => {
      w.onmessage = () => ok();
      w.onerror = (e) => fail(new Error(`kernel thread: ${e.message}`));
    });
    return { post: (m) => w.postMessage(m), ready, end: () => w.terminate() };
  },
};

const take = serveEngine({
  platform,
  post: (m, transfer) => self.postMessage(m, transfer),
  turn: () => new Promise((ok) => {
    waiting.push(ok);
    channel.port2.postMessage(0);
  }),
});
self.onmessage = (e) => take(e.data);
