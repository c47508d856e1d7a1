// The engine's thread, and those of its kernels, in Node.
import { parentPort, workerData, Worker } from 'node:worker_threads';
import { createReadStream } from 'node:fs';
import { readFile, readdir, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { serve } from './kernel-worker.js';
import { serveEngine } from './engine-worker.js';
import { shareMemory } from './link.js';

const platform = {
  isolated: true,
  cores: availableParallelism(),
  async module(name, shared) {
    const bytes = new Uint8Array(await readFile(new URL(`../dist/${name}`, import.meta.url)));
    if (shared) shareMemory(bytes);
    return WebAssembly.compile(bytes);
  },
  kernelWorker() {
    const w = new Worker(new URL(import.meta.url), { workerData: { kernel: true }, stdout: false });
    w.unref();
    const ready = new Promise((ok, fail) => {
      w.once('message', () => ok());
      w.once('error', fail);
    });
    return { post: (m) => w.postMessage(m), ready, end: () => w.terminate() };
  },
  // A path or file: address; null for what has to be fetched.
  async readPath(source) {
    if (/^https?:/.test(source)) return null;
    const path = source.startsWith('file:') ? fileURLToPath(source) : source;
    const st = await stat(path);
    const entry = async (p, name) => ({ name, size: (await stat(p)).size, data: createReadStream(p, { highWaterMark: 1 << 20 }) });
    if (!st.isDirectory()) return { name: basename(path), files: [await entry(path, basename(path))] };
    const names = (await readdir(path)).filter((n) => /\.(json|safetensors|jinja)$/.test(n) || n === 'vocab.txt' || n === 'merges.txt');
    const files = [];
    for (const n of names) files.push(await entry(join(path, n), n));
    try {
      files.push(await entry(join(path, '1_Pooling/config.json'), '1_Pooling/config.json'));
    } catch {
      // not a sentence-transformers folder
    }
    return { name: basename(path), files };
  },
};

if (workerData?.kernel) {
  parentPort.once('message', (m) => serve(m.kernel, () => parentPort.postMessage({ ready: true })));
} else {
  const take = serveEngine({
    platform,
    post: (m, transfer) => parentPort.postMessage(m, transfer),
    turn: () => new Promise((ok) => setImmediate(ok)),
  });
  parentPort.on('message', take);
}
