// The engine's modules in a browser: fetched and compiled by the page, while its worker is still starting.
import { choose, importBytes, shareMemory } from './link.js';

/** What a page, and its workers, can use. */
export const machine = () => ({
  isolated: globalThis.crossOriginIsolated === true && typeof SharedArrayBuffer !== 'undefined',
  cores: navigator.hardwareConcurrency || 1,
});

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

async function compile(name, shared) {
  const url = new URL(`../dist/${name}`, import.meta.url);
  let r = await fetch(url);
  if (!r.ok) throw new Error(`${url}: the server answered ${r.status}`);
  const bytes = Number(r.headers.get('content-length')) || 0;
  // Compiled while it comes; a host that does not know the type of such files is helped.
  const rewrap = shared || !/^application\/wasm$/i.test(r.headers.get('content-type') ?? '');
  if (rewrap) r = new Response(shared ? r.body.pipeThrough(sharing()) : r.body, { headers: { 'Content-Type': 'application/wasm' } });
  return { name, bytes, module: await WebAssembly.compileStreaming(r) };
}

/**
 * The modules that an engine with these options takes.
 * @param {{threads?: number|'auto', relaxed?: boolean}} options
 * @returns {Promise<{name: string, bytes: number, module: WebAssembly.Module}[]>}
 */
export function compileModules(options) {
  const { shared, kernels } = choose(options, machine());
  return Promise.all([compile('temper.wasm', shared), compile(kernels, false)]);
}
