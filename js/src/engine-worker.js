// The engine's own thread: it answers messages of index.js, one request after another; tasks go on step by step, so that others get their
// turn and cancelling is heard.
import { Engine } from './engine.js';
import { bring, Early, settle } from './source.js';
import { AbortedError, packError } from './errors.js';

/**
 * @param {{post: (m: any, transfer?: any[]) => void, platform: any, turn: () => Promise<void>}} host
 * @returns {(m: any) => void} takes messages
 */
export function serveEngine(host) {
  let engine = null, opening = null, early = null;
  /** @type {Map<number, AbortController>} */
  const running = new Map();
  const buffers = new Map(); // addresses that a model's weights lie at

  async function task(id, request, signal) {
    const { task: t } = engine.call({ op: 'start', ...request }).value;
    for (;;) {
      if (signal.aborted) engine.call({ op: 'cancel', task: t });
      const { value, blob } = engine.call({ op: 'step', task: t });
      if (!('progress' in value)) return { value: value.done, blob };
      host.post({ id, progress: value.progress });
      await host.turn();
    }
  }

  const methods = {
    async create(options) {
      if (options.early) early = new Early(options.early.url, options.early.cache);
      opening ??= Engine.create(host.platform, options);
      try {
        engine = await opening;
      } catch (e) {
        early?.drop();
        throw e;
      }
      return { ...engine.call({ op: 'info' }).value, bytes: host.platform.bytes ?? 0 };
    },
    info: () => ({ ...engine.call({ op: 'info' }).value, memory: engine.memory.buffer.byteLength }),
    async open({ source, name, head, maxTokens, cache }, { id, signal }) {
      const begun = early;
      early = null;
      const got = await bring(engine, source, {
        signal, cache, early: begun, read: host.platform.readPath, onProgress: (p) => host.post({ id, progress: p }),
      });
      host.post({ id, progress: { phase: 'open', loaded: got.bytes, total: got.bytes } });
      const free = new Set(got.files.map((f) => f.ptr));
      try {
        const { value } = engine.call({ op: 'open', name: name ?? got.name, head, maxTokens, files: got.files });
        buffers.set(value.model, free);
        return { ...value, bytes: got.bytes };
      } catch (e) {
        await settle();
        if (!engine.dead) for (const p of free) engine.free(p);
        throw e;
      }
    },
    async close({ model }) {
      await settle();
      engine.call({ op: 'close', model });
      // A tuned model shares the weights of the one it came from: buffers go with the last of them (the engine's views keep them until then).
      for (const p of buffers.get(model) ?? []) engine.free(p);
      buffers.delete(model);
    },
    call: ({ request }) => engine.call(request),
    task: ({ request }, { id, signal }) => task(id, request, signal),
    addPlugin: async ({ bytes, limits }) => {
      const id = await engine.plugins.add(bytes, limits);
      return { id, name: engine.plugins.plugins.get(id).name };
    },
    end() {
      engine?.close();
    },
  };

  return async (m) => {
    if (m.cancel) {
      running.get(m.cancel)?.abort();
      return;
    }
    const abort = new AbortController();
    running.set(m.id, abort);
    try {
      if (m.method !== 'create') {
        await opening;
        if (!engine) throw new AbortedError('the engine is not there');
      }
      const result = await methods[m.method](m.args ?? {}, { id: m.id, signal: abort.signal });
      host.post({ id: m.id, result }, result?.blob ? [result.blob.buffer] : []);
    } catch (e) {
      host.post({ id: m.id, error: packError(e) });
    } finally {
      running.delete(m.id);
    }
  };
}
