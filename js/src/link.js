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
 * Finds the import of env.memory, which the build writes as the first import, and makes it a shared one when asked.
 * @param {Uint8Array} module changed in place
 * @param {boolean} shared
 * @returns {number} the pages that the module needs at start
 */
export function memoryImport(module, shared) {
  const name = [3, 0x65, 0x6e, 0x76, 6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2]; // "env" "memory", a memory
  for (let at = 8; at < Math.min(module.length - 24, 65536); at++) {
    if (!name.every((b, i) => module[at + i] === b)) continue;
    const flags = at + name.length;
    if (shared) module[flags] |= 2;
    let pages = 0;
    for (let i = flags + 1, shift = 0; ; i++, shift += 7) {
      pages |= (module[i] & 127) << shift;
      if (module[i] < 128) break;
    }
    return pages;
  }
  throw new Error('the engine does not import its memory');
}
