// The little of WASI that a Go program needs without files: clock, randomness, stderr.

const ok = 0, badf = 8, nosys = 52;

/** The program ended itself. */
export class Exit extends Error {
  constructor(code) {
    super(`the engine exited with code ${code}`);
    this.code = code;
  }
}

/**
 * @param {WebAssembly.Memory} memory
 * @param {(line: string) => void} onLine gets what the program writes to stdout and stderr, line by line
 */
export function wasi(memory, onLine) {
  const view = () => new DataView(memory.buffer); // made anew: the memory may have grown
  const lines = ['', '', ''];
  const decoder = new TextDecoder();
  const none = (countPtr, sizePtr) => {
    const v = view();
    v.setUint32(countPtr, 0, true);
    v.setUint32(sizePtr, 0, true);
    return ok;
  };
  const imports = {
    args_sizes_get: none,
    args_get: () => ok,
    environ_sizes_get: none,
    environ_get: () => ok,
    clock_time_get(id, precision, out) {
      const ms = id === 0 ? Date.now() : performance.now();
      view().setBigUint64(out, BigInt(Math.round(ms * 1e6)), true);
      return ok;
    },
    clock_res_get(id, out) {
      view().setBigUint64(out, 1000n, true);
      return ok;
    },
    random_get(ptr, len) {
      const b = new Uint8Array(len);
      for (let at = 0; at < len; at += 65536) crypto.getRandomValues(b.subarray(at, Math.min(at + 65536, len)));
      new Uint8Array(memory.buffer).set(b, ptr);
      return ok;
    },
    fd_write(fd, iovs, count, written) {
      if (fd !== 1 && fd !== 2) return badf;
      const v = view();
      let n = 0;
      for (let i = 0; i < count; i++) {
        const p = v.getUint32(iovs + 8 * i, true), len = v.getUint32(iovs + 8 * i + 4, true);
        lines[fd] += decoder.decode(new Uint8Array(memory.buffer).slice(p, p + len));
        n += len;
      }
      for (let at; (at = lines[fd].indexOf('\n')) >= 0; lines[fd] = lines[fd].slice(at + 1)) onLine(lines[fd].slice(0, at));
      v.setUint32(written, n, true);
      return ok;
    },
    fd_fdstat_get(fd, out) {
      if (fd > 2) return badf;
      const v = view();
      for (let i = 0; i < 24; i += 8) v.setBigUint64(out + i, 0n, true);
      v.setUint8(out, 2); // a character device
      return ok;
    },
    poll_oneoff(input, output, count, events) {
      // Sleeping is not possible here; every clock has come.
      const v = view();
      for (let i = 0; i < count; i++) {
        v.setBigUint64(output + 32 * i, v.getBigUint64(input + 48 * i, true), true);
        v.setUint16(output + 32 * i + 8, 0, true);
        v.setUint8(output + 32 * i + 10, v.getUint8(input + 48 * i + 8));
      }
      v.setUint32(events, count, true);
      return ok;
    },
    sched_yield: () => ok,
    proc_exit(code) {
      throw new Exit(code);
    },
    fd_prestat_get: () => badf,
  };
  // Whatever else the program names exists and says that it does nothing. Addresses above 2 GiB come as negative numbers.
  const unsigned = (f) => (...a) => f(...a.map((x) => (typeof x === 'number' ? x >>> 0 : x)));
  return new Proxy(imports, { get: (t, name) => (t[name] ? unsigned(t[name]) : () => nosys), has: () => true });
}
