package main

import (
	"fmt"
	"io"

	_ "embed"

	"github.com/chromedp/chromedp"
)

//go:embed peak/peak.wasm
var peakModule []byte

// kernelScript drives the kernels without the engine: products of MiniLM's shapes, beside loops that do nothing but the instruction.
const kernelScript = `
const memory = new WebAssembly.Memory({initial: 2048, maximum: 65536});
const get = async (u) => (await WebAssembly.instantiateStreaming(fetch(u), {env: {memory}})).instance.exports;
const peak = await get('/peak.wasm');
const best = (work, f) => { let b = 1e9; for (let end = performance.now() + %[1]d; performance.now() < end;) { const t = performance.now(); f(); b = Math.min(b, performance.now() - t); } return work / b / 1e6; };
const out = [];
const n = 200000, f = Math.random();
out.push({name: 'peak: fused multiply-add', rate: best(n * 8 * 4, () => peak.fma(n, f))});
out.push({name: 'peak: relaxed dot of bytes', rate: best(n * 8 * 16, () => peak.dot8(n, f))});
const u32 = () => new Uint32Array(memory.buffer), f32 = () => new Float32Array(memory.buffer);
for (const [name, relaxed] of [['simd128-relaxed', true], ['simd128', false]]) {
  const k = await get(relaxed ? '/temper/dist/kernels-relaxed.wasm' : '/temper/dist/kernels.wasm');
  const dots = k.level() >> 2;
  // ctl at 1024, arguments at 2048, then operands.
  const ctl = 1024, args = 2048, base = 65536;
  u32().set([0, 0, 0, 0, 0, 0, 0, 0, 0, base, 65536, 0], ctl / 4);
  const x = base + 65536, w = x + (4 << 20), dst = w + (8 << 20), q = dst + (8 << 20), scale = q + (4 << 20), offset = scale + 65536, wscale = offset + 65536, wsum = wscale + 65536;
  for (let i = 0; i < 1 << 20; i++) f32()[x / 4 + i] = Math.sin(i);
  for (let i = 0; i < 2 << 20; i++) f32()[w / 4 + i] = Math.cos(i);
  const run = (op, v, chunks) => { u32().set(v, args / 4); k.run(ctl, op, args, chunks); };
  const up = (a, b) => Math.ceil(a / b);
  for (const rows of [1, 16, 128, 512]) for (const [inn, outn] of [[384, 384], [384, 1536], [1536, 384]]) {
    const most = Math.max(16, Math.min(80, Math.floor(98304 / inn))), block = rows <= most ? rows : up(rows, up(rows, most));
    const chunks = up(rows, block) * up(outn, 64), macs = rows * inn * outn, shape = rows + 'x' + inn + '→' + outn;
    out.push({name: name + ' f32 ' + shape, rate: best(macs, () => run(0, [dst, x, w, rows, inn, outn, block, 0, 0, 0, 0], chunks))});
    out.push({name: name + ' int8 ' + shape, rate: best(macs, () => run(22, [dst, q, scale, offset, w, wscale, wsum, rows, inn, (inn + 15) & ~15, outn, block, dots, 0, 0, 0, 0], chunks))});
  }
  // Weights that no cache holds: the next of 24 matrices each time.
  const cold = wsum + 65536, one = 384 * 1536;
  f32().fill(0.5, cold / 4, cold / 4 + 24 * one);
  let turn = 0;
  const next = () => { turn = (turn + 1) %% 24; return turn; };
  const mean = (work, f) => { for (let i = 0; i < 24; i++) f(); const t = performance.now(); let n = 0; for (; performance.now() - t < 2 * %[1]d; n++) f(); return work * n / (performance.now() - t) / 1e6; };
  out.push({name: name + ' f32 16x384→1536 cold, mean', rate: mean(16 * one, () => run(0, [dst, x, cold + next() * one * 4, 16, 384, 1536, 16, 0, 0, 0, 0], 24))});
  out.push({name: name + ' f32 1x384→1536 cold, mean', rate: mean(one, () => run(0, [dst, x, cold + next() * one * 4, 1, 384, 1536, 1, 0, 0, 0, 0], 24))});
  out.push({name: name + ' read cold, mean, GB/s', rate: mean(one * 4, () => peak.read(one * 4 / 128, cold + next() * one * 4))});
  out.push({name: name + ' quantize 128x384, G values/s', rate: best(128 * 384, () => run(21, [x, q, scale, offset, 128, 384, 384, 43, dots], 3))});
  out.push({name: name + ' gelu 128x1536, G values/s', rate: best(128 * 1536, () => run(8, [dst, x, 128 * 1536, 4096, 1], 48))});
  out.push({name: name + ' softmax 1536x128, G values/s', rate: best(1536 * 128, () => run(3, [dst, x, 1536, 128, 43], 36))});
  out.push({name: name + ' layer norm 128x384, G values/s', rate: best(128 * 384, () => run(4, [dst, x, w, w, 0, 0, 128, 384, 28, 0x3000000], 5))});
}
return out;`

// kernelRates prints what the kernels reach on one thread, in the browser, without the engine around them.
func kernelRates(o options, url string, stdout io.Writer) error {
	b, err := start(o.chromium)
	if err != nil {
		return err
	}
	defer b.close()
	if err := chromedp.Run(b.ctx, chromedp.Navigate(url)); err != nil {
		return err
	}
	var got []struct {
		Name string
		Rate float64
	}
	if err := ask(b.ctx, &got, fmt.Sprintf(kernelScript, o.kernelTime)); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "| one thread | best, G multiply-adds/s |\n|---|---|")
	for _, r := range got {
		fmt.Fprintf(stdout, "| %s | %.1f |\n", r.Name, r.Rate)
	}
	return nil
}

// trace tells where the time to the first result goes, in milliseconds since navigation.
const trace = `
const out = [], mark = (what) => out.push({name: what, rate: performance.now()});
mark('page');
const {Engine} = await import('/temper/src/index.js');
mark('imported');
const e = await Engine.create({threads: 1});
mark('engine created');
const m = await e.load('/m/int8.temper', {onProgress: (p) => { if (p.phase === 'open' || p.loaded === p.total) mark(p.phase + ' ' + p.loaded); }});
mark('model opened');
await m.embed('word');
mark('first result');
await m.embed('word');
mark('second result');
for (const [k, v] of Object.entries(await e.info())) if (typeof v === 'number') out.push({name: k, rate: v});
try {
  const mem = await performance.measureUserAgentSpecificMemory();
  for (const b of mem.breakdown) if (b.bytes) out.push({name: 'bytes: ' + b.types.join(' ') + ' ' + b.attribution.map((a) => a.scope + ' ' + a.url).join(), rate: b.bytes});
} catch (e) {
  out.push({name: String(e), rate: 0});
}
return out;`

func startTrace(o options, url string, stdout io.Writer) error {
	b, err := start(o.chromium)
	if err != nil {
		return err
	}
	defer b.close()
	if err := chromedp.Run(b.ctx, chromedp.Navigate(url)); err != nil {
		return err
	}
	var got []struct {
		Name string
		Rate float64
	}
	if err := ask(b.ctx, &got, trace); err != nil {
		return err
	}
	for _, r := range got {
		fmt.Fprintf(stdout, "%8.0f %s\n", r.Rate, r.Name)
	}
	return nil
}
