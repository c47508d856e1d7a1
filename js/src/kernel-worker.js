// A thread of the kernels: it serves jobs over the engine's memory until the engine stops it.
export function serve({ module, memory, control, stack, thread }, ready) {
  const instance = new WebAssembly.Instance(module, { env: { memory } });
  /** @type {WebAssembly.Global} */ (instance.exports.__stack_pointer).value = stack;
  ready();
  instance.exports.worker(control, thread);
}

// In a browser's worker. Node enters through node-worker.js.
if (typeof WorkerGlobalScope !== 'undefined' && self instanceof WorkerGlobalScope) {
  self.onmessage = (e) => {
    if (e.data?.kernel) serve(e.data.kernel, () => self.postMessage({ ready: true }));
  };
}
