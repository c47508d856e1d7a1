// The engine's thread in a browser.
import { serveEngine } from './engine-worker.js';
import { machine } from './modules.js';

const channel = new MessageChannel();
const waiting = [];
channel.port1.onmessage = () => waiting.shift()?.();

// The page compiles the modules (see modules.js) and sends them.
let give, fail;
const given = new Promise((ok, no) => { give = ok; fail = no; });
given.catch(() => {}); // module tells of it

const platform = {
  ...machine(),
  bytes: 0,
  async module(name) {
    const m = (await given).find((m) => m.name === name);
    platform.bytes += m.bytes;
    return m.module;
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
self.onmessage = (e) => {
  if (e.data.modules) give(e.data.modules);
  else if (e.data.noModules) fail(new Error(e.data.noModules));
  else take(e.data);
};
