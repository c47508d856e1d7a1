/** Base of all errors of this package. `code` tells them apart across threads. */
export class TemperError extends Error {
  /** @param {string} message @param {string} [code] @param {ErrorOptions} [options] */
  constructor(message, code = 'Engine', options) {
    super(message, options);
    this.name = 'TemperError';
    this.code = code;
  }
}

/** The page's memory for the engine is used up. The engine cannot be used any more. */
export class OutOfMemoryError extends TemperError {
  constructor(message) {
    super(message, 'OutOfMemory');
    this.name = 'OutOfMemoryError';
  }
}

/** Threads were asked for, but the page is not cross-origin isolated (COOP and COEP headers). */
export class NotIsolatedError extends TemperError {
  constructor(message) {
    super(message, 'NotIsolated');
    this.name = 'NotIsolatedError';
  }
}

/** The call was cancelled through its signal, or the connection broke off. */
export class AbortedError extends TemperError {
  constructor(message, options) {
    super(message, 'Aborted', options);
    this.name = 'AbortedError';
  }
}

/** A file is not what it says: sums, sizes or formats do not fit. */
export class CorruptError extends TemperError {
  constructor(message) {
    super(message, 'Corrupt');
    this.name = 'CorruptError';
  }
}

/** The request does not fit the model: a wrong label, an empty text, no such head. */
export class RequestError extends TemperError {
  constructor(message) {
    super(message, 'Request');
    this.name = 'RequestError';
  }
}

const kinds = { OutOfMemory: OutOfMemoryError, NotIsolated: NotIsolatedError, Aborted: AbortedError, Corrupt: CorruptError, Request: RequestError };

/** What can cross a thread. @param {unknown} e */
export function packError(e) {
  const x = /** @type {any} */ (e);
  return { code: x instanceof TemperError ? x.code : x?.name === 'AbortError' ? 'Aborted' : 'Engine', message: String(x?.message ?? x) };
}

/** @param {{code: string, message: string}} e */
export function unpackError(e) {
  const Kind = kinds[e.code];
  return Kind ? new Kind(e.message) : new TemperError(e.message, e.code);
}
