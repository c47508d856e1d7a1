// The engine's thread in a browser.
import { serveEngine } from './engine-worker.js';

const channel = new MessageChannel();
const waiting = [];
channel.port1.onmessage = () => waiting.shift()?.();

const platform = {
  isolated: globalThis.crossOriginIsolated === true && typeof SharedArrayBuffer !== 'undefined',
  cores: navigator.hardwareConcurrency || 1,
  async asset(name) {
    const url = new URL(`../dist/${name}`, import.meta.url);
    const r = await fetch(url);
    if (!r.ok) throw new Error(`${url}: the server answered ${r.status}`);
    return new Uint8Array(await r.arrayBuffer());
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
