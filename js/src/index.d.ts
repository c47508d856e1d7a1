/** What load and Engine.create take. */
export interface EngineOptions {
  /** Threads to use; more than one needs cross-origin isolation. Default 'auto': one per core up to 8 where possible. */
  threads?: number | 'auto';
  /** Whether to use the relaxed-SIMD kernels; default: where the browser has them. */
  relaxed?: boolean;
  /** The most memory, in bytes, that the engine may take. */
  maxMemory?: number;
}

export interface Progress {
  phase: 'download' | 'open';
  /** Bytes so far, of which `cached` came from the cache. */
  loaded: number;
  total: number;
  cached?: number;
  file?: string;
}

export interface LoadOptions extends EngineOptions {
  engine?: Engine;
  name?: string;
  /** Replaces the head that the model names: 'none' for embeddings, 'mlm' to fill masks. */
  head?: 'seqcls' | 'mlm' | 'causal' | 'none';
  /** Cuts texts at this many tokens. */
  maxTokens?: number;
  cache?: 'default' | 'reload' | 'none';
  onProgress?: (p: Progress) => void;
  signal?: AbortSignal;
}

export interface CallOptions<P = unknown> {
  signal?: AbortSignal;
  onProgress?: (p: P) => void;
}

export interface Prediction {
  text: string;
  label: string;
  /** Probability of the label. */
  score: number;
  scores: number[];
}

export interface Encoding {
  ids: number[];
  tokens: string[];
  /** Byte ranges of the text in UTF-8. */
  offsets: [number, number][];
}

export interface Word {
  token: string;
  score: number;
  text: string;
}

export interface GenerateOptions extends CallOptions<{ prompt: number; of: number }> {
  maxTokens?: number;
  stop?: string[];
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repeatPenalty?: number;
  seed?: number;
}

export interface GeneratedToken {
  token: number;
  text: string;
  /** All text so far. */
  whole: string;
}

export interface Generated {
  text: string;
  tokens: number;
  prompt_tokens: number;
  finish_reason: 'stop' | 'length';
  prompt_tokens_per_second: number;
  tokens_per_second: number;
}

export interface Example {
  text: string;
  label: string;
}

export interface TuneProgress {
  step: number;
  steps: number;
  epoch: number;
  loss: number;
  tokensPerSecond: number;
}

export interface TuneOptions extends CallOptions<TuneProgress> {
  /** 'head' (default), 'lora', 'full' or another method of temper tune. */
  method?: string;
  epochs?: number;
  batch?: number;
  lr?: number;
  /** Inverse regularisation of 'head'. */
  c?: number;
  seed?: number;
  maxTokens?: number;
}

export interface AttackProgress {
  queries: number;
  /** One of the texts just tried, and what the model says of it. */
  text: string;
  scores: number[];
}

export interface AttackOptions extends CallOptions<AttackProgress> {
  /** A built-in recipe; see Engine.recipes. Default 'deepwordbug'. */
  recipe?: string;
  plugin?: Plugin | string;
  /** The class to get away from; default: what the model says of the untouched text. */
  label?: string | number;
  budget?: number;
  seed?: number;
  params?: Record<string, string>;
}

export interface AttackResult {
  row: number;
  status: 'won' | 'held' | 'skipped' | string;
  text: string;
  adversarial?: string;
  label: number;
  predicted: number;
  predicted_after: number;
  before: number[];
  after?: number[];
  queries: number;
  words: number;
  changed: number;
}

export interface AttackReport {
  recipe: string;
  labels: string[];
  examples: number;
  clean_accuracy: number;
  accuracy_under_attack: number;
  attack_success_rate: number;
  queries: number;
  seconds: number;
  results: AttackResult[];
}

export interface Plugin {
  id: string;
  name: string;
}

export interface Info {
  level: 'simd128' | 'simd128-relaxed';
  threads: number;
  /** Bytes in use by the engine's heap, and the size of its memory. */
  heap: number;
  memory: number;
  recipes: string[];
}

export class Engine {
  static create(options?: EngineOptions): Promise<Engine>;
  /** The SIMD level in use. */
  readonly level: 'simd128' | 'simd128-relaxed';
  readonly threads: number;
  readonly recipes: string[];
  /** Bytes of the engine's download as sent, 0 where that is not known. */
  readonly bytes: number;
  load(source: Source, options?: LoadOptions): Promise<Model>;
  addPlugin(file: Blob | ArrayBuffer | Uint8Array, limits?: { memory?: number; fuel?: number }): Promise<Plugin>;
  info(): Promise<Info>;
  close(): void;
}

/** An address, one file (a Blob without a name and bytes are a bundle or GGUF), or files. */
export type Source = string | URL | Blob | ArrayBuffer | Uint8Array | Iterable<File | { name: string; data: Blob | ArrayBuffer | Uint8Array }>;

export class Model {
  readonly engine: Engine;
  readonly name: string;
  readonly family: string;
  readonly head: string;
  readonly labels: string[];
  readonly parameters: number;
  readonly maxTokens: number;
  readonly bytes: number;
  readonly level: string;
  readonly threads: number;
  /** What tuning reported, for a model that came from tune. */
  readonly tuned?: Record<string, unknown>;
  classify(text: string, options?: CallOptions): Promise<Prediction>;
  classify(texts: string[], options?: CallOptions): Promise<Prediction[]>;
  /** Vectors of unit length. */
  embed(text: string, options?: CallOptions): Promise<Float32Array>;
  embed(texts: string[], options?: CallOptions): Promise<Float32Array[]>;
  fill(text: string, options?: CallOptions & { n?: number }): Promise<Word[]>;
  tokenize(text: string): Promise<Encoding>;
  tokenize(texts: string[]): Promise<Encoding[]>;
  /** Yields tokens as they come; returns the whole. Leaving the loop stops the work. */
  generate(prompt: string, options?: GenerateOptions): AsyncGenerator<GeneratedToken, Generated, void>;
  chat(messages: { role: string; content: string }[], options?: GenerateOptions): AsyncGenerator<GeneratedToken, Generated, void>;
  /** Teaches classes from examples; resolves to a new model, this one stays as it is. */
  tune(examples: Iterable<Example>, options?: TuneOptions): Promise<Model>;
  attack(text: string, options?: AttackOptions): Promise<AttackReport>;
  attack(examples: Example[], options?: AttackOptions): Promise<AttackReport>;
  /** The model as a bundle, to keep or to load again. */
  save(): Promise<Uint8Array>;
  close(): Promise<void>;
}

export function load(source: Source, options?: LoadOptions): Promise<Model>;

export class TemperError extends Error {
  readonly code: string;
}
export class OutOfMemoryError extends TemperError {}
export class NotIsolatedError extends TemperError {}
export class AbortedError extends TemperError {}
export class CorruptError extends TemperError {}
export class RequestError extends TemperError {}
