// Small looks into WebAssembly files.

/** Whether this engine takes relaxed SIMD: a module with one such instruction is valid. */
export function hasRelaxedSIMD() {
  return WebAssembly.validate(new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0,
    10, 15, 1, 13, 0, 0x41, 0, 0xfd, 15, 0x41, 0, 0xfd, 15, 0xfd, 0x80, 2, 11,
  ]));
}

/** Whether this engine takes 128-bit SIMD at all. */
export function hasSIMD() {
  return WebAssembly.validate(new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0, 10, 8, 1, 6, 0, 0x41, 0, 0xfd, 15, 11,
  ]));
}

/**
 * What an engine with these options is made of on this machine.
 * @param {{threads?: number|'auto', relaxed?: boolean}} options
 * @param {{isolated: boolean, cores: number}} machine
 */
export function choose(options, machine) {
  const asked = options.threads ?? 'auto';
  const threads = asked === 'auto' ? (machine.isolated ? Math.max(1, Math.min(machine.cores, 8)) : 1) : Math.max(1, asked);
  const relaxed = options.relaxed ?? hasRelaxedSIMD();
  const shared = threads > 1;
  return { threads, shared, kernels: `kernels${relaxed ? '-relaxed' : ''}${shared ? '-threads' : ''}.wasm` };
}

const memoryImport = [3, 0x65, 0x6e, 0x76, 6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2]; // "env" "memory", a memory

/** How many bytes of a module hold the import of its memory, which the build writes first. */
export const importBytes = 4096;

/**
 * Makes the memory that the engine imports a shared one.
 * @param {Uint8Array} start the module's first bytes, changed in place
 */
export function shareMemory(start) {
  for (let at = 8; at < Math.min(start.length, importBytes) - memoryImport.length; at++) {
    if (!memoryImport.every((b, i) => start[at + i] === b)) continue;
    start[at + memoryImport.length] |= 2;
    return;
  }
  throw new Error('the engine does not import its memory');
}
