// The package in Node 20 and later.
import { Worker } from 'node:worker_threads';
import { setPlatform } from './index.js';

setPlatform(() => {
  const w = new Worker(new URL('./node-worker.js', import.meta.url));
  w.unref();
  let busy = 0;
  return {
    post(m, transfer) {
      if (m.id && busy++ === 0) w.ref(); // the process stays while something is under way
      w.postMessage(m, transfer);
    },
    onMessage(f) {
      w.on('message', (m) => {
        if (!('progress' in m) && --busy === 0) w.unref();
        f(m);
      });
    },
    onError(f) {
      w.on('error', f);
    },
    end: () => w.terminate(),
  };
});

export * from './index.js';
