package main

import "fmt"

// page is one engine in a tab of its own: setup makes globalThis.once, an async function of (batch, seq) for encoders, or prompt and generate
// for decoders.
type page struct {
	Name, Work string // who, and on which weights
	Threads    int
	setup      string
}

// texts has seq-2 words that are one token each; every engine that tokenizes checks it.
const texts = `const text = (seq) => Array(seq - 2).fill('word').join(' ');`

func temperPage(weights string, threads int, relaxed bool) page {
	name := "temper"
	if !relaxed {
		name = "temper plain"
	}
	return page{name, weights, threads, fmt.Sprintf(texts+`
const {load} = await import('/temper/src/index.js');
const m = await load('/m/%s.temper', {threads: %d, relaxed: %v});
globalThis.model = m;
for (const seq of [16, 64, 128]) { const n = (await m.tokenize(text(seq))).ids.length; if (n !== seq) throw new Error('expected ' + seq + ' tokens, got ' + n); }
globalThis.once = (batch, seq) => m.embed(Array(batch).fill(text(seq)));
return m.level + ', ' + m.threads;`, weights, threads, relaxed)}
}

// ortPage is the network alone: ids are made beforehand, nothing is pooled.
func ortPage(weights string, threads int) page {
	return page{"onnxruntime-web", weights, threads, fmt.Sprintf(`
const ort = await import('/ort/ort.wasm.min.mjs');
ort.env.wasm.wasmPaths = '/ort/';
ort.env.wasm.numThreads = %d;
const session = await ort.InferenceSession.create('/peers/minilm/onnx/%s.onnx', {executionProviders: ['wasm']});
globalThis.once = async (batch, seq) => {
  const feeds = {};
  for (const name of session.inputNames) {
    const v = /mask/.test(name) ? new BigInt64Array(batch * seq).fill(1n) : /type/.test(name) ? new BigInt64Array(batch * seq) : BigInt64Array.from({length: batch * seq}, (_, i) => i %% seq === 0 ? 101n : i %% seq === seq - 1 ? 102n : 2773n);
    feeds[name] = new ort.Tensor('int64', v, [batch, seq]);
  }
  await session.run(feeds);
};
return 'numThreads ' + ort.env.wasm.numThreads;`, threads, onnxName(weights))}
}

func onnxName(weights string) string {
	if weights == "int8" {
		return "model_quantized"
	}
	return "model"
}

func transformersPage(weights string, threads int) page {
	dtype := map[string]string{"f32": "fp32", "int8": "q8"}[weights]
	return page{"transformers.js", weights, threads, fmt.Sprintf(texts+`
const {pipeline, env} = await import('/tf/transformers.min.js');
env.allowRemoteModels = false; env.allowLocalModels = true; env.localModelPath = '/peers/'; env.useBrowserCache = false;
env.backends.onnx.wasm.wasmPaths = '/tfort/';
env.backends.onnx.wasm.numThreads = %d;
const p = await pipeline('feature-extraction', 'minilm', {device: 'wasm', dtype: '%s'});
globalThis.once = (batch, seq) => p(Array(batch).fill(text(seq)), {pooling: 'mean', normalize: true});
return 'numThreads ' + env.backends.onnx.wasm.numThreads;`, threads, dtype)}
}

// The prompt of the decoders; what it is matters little, its number of tokens is asked of each engine.
const promptText = `const words = 'the river ran past the old mill and the children sat on the bank and told each other stories about the sea while the sun went down'.split(' ');
const promptOf = (n) => Array.from({length: n}, (_, i) => words[i %% words.length]).join(' ');`

func temperDecoder(threads int) page {
	return page{"temper", "gemma-3-270m Q4_K_M", threads, fmt.Sprintf(promptText+`
const {load} = await import('/temper/src/index.js');
const m = await load('/m/gemma.gguf', {threads: %d, cache: 'none'});
const run = async (prompt, maxTokens) => { const g = m.generate(prompt, {maxTokens, temperature: 0}); for (;;) { const x = await g.next(); if (x.done) return x.value; } };
globalThis.prompt = async (n, salt) => { const r = await run(salt + ' ' + promptOf(n), 1); return {tokens: r.prompt_tokens, rate: r.prompt_tokens_per_second}; };
globalThis.generate = async (n) => { const r = await run('Once upon a time', n); return {tokens: r.tokens, rate: r.tokens_per_second}; };
return m.level + ', ' + m.threads;`, threads)}
}

func wllamaPage(threads int) page {
	return page{"wllama", "gemma-3-270m Q4_K_M", threads, fmt.Sprintf(promptText+`
const {Wllama} = await import('/wllama/index.min.js');
const w = new Wllama({default: '/wllama/wasm/wllama.wasm'}, {suppressNativeLog: true});
const blob = await (await fetch('/m/gemma.gguf')).blob();
await w.loadModel([blob], {n_threads: %d, n_gpu_layers: 0, n_ctx: 1024, n_batch: 512, warmup: false});
const run = async (prompt, max_tokens) => (await w.createCompletion({prompt, max_tokens, temperature: 0, cache_prompt: false})).timings;
globalThis.prompt = async (n, salt) => { const t = await run(salt + ' ' + promptOf(n), 1); return {tokens: t.prompt_n, rate: t.prompt_per_second}; };
globalThis.generate = async (n) => { const t = await run('Once upon a time', n); return {tokens: t.predicted_n, rate: t.predicted_per_second}; };
return 'threads ' + w.getNumThreads();`, threads)}
}
