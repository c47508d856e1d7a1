// The packed tarball, installed elsewhere, works and has its types.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync, readFileSync, existsSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';

const root = new URL('..', import.meta.url).pathname;

test('the tarball installs and runs', () => {
  const dir = mkdtempSync(join(tmpdir(), 'temper-'));
  try {
    const [{ filename, files }] = JSON.parse(execFileSync('npm', ['pack', '--json', '--pack-destination', dir], { cwd: root, encoding: 'utf8' }));
    const names = files.map((f) => f.path);
    for (const f of ['src/index.js', 'src/index.d.ts', 'src/node.js', 'dist/temper.wasm', 'dist/kernels.wasm', 'dist/kernels-relaxed-threads.wasm', 'LICENSE', 'README.md']) assert.ok(names.includes(f), f);
    assert.ok(!names.some((f) => f.startsWith('test/') || f.endsWith('.go') || f.startsWith('engine/')), names.join(' '));
    writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
    execFileSync('npm', ['install', '--offline', '--no-audit', '--no-fund', `./${filename}`], { cwd: dir, stdio: 'pipe' });
    writeFileSync(join(dir, 'use.mjs'), `import { Engine } from 'temper';\nconst e = await Engine.create({ threads: 1 });\nconsole.log(e.level, e.threads);\ne.close();\n`);
    const out = execFileSync(process.execPath, ['use.mjs'], { cwd: dir, encoding: 'utf8' });
    assert.match(out, /^simd128\S* 1\n$/);
    const pkg = JSON.parse(readFileSync(join(dir, 'node_modules/temper/package.json'), 'utf8'));
    assert.ok(existsSync(join(dir, 'node_modules/temper', pkg.exports['.'].types)));
    assert.equal(pkg.dependencies, undefined);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test('every export has a type', async () => {
  const types = readFileSync(join(root, 'src/index.d.ts'), 'utf8');
  for (const name of Object.keys(await import('../src/index.js'))) {
    if (name === 'setPlatform') continue;
    assert.match(types, new RegExp(`export (class|function) ${name}\\b`), name);
  }
});

test('engine, kernels and package stay small', { timeout: 300000 }, () => {
  const size = (f) => brotliCompressSync(readFileSync(join(root, f)), { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 } }).length;
  const total = ['dist/temper.wasm', 'dist/kernels-relaxed-threads.wasm', 'src/index.js', 'src/modules.js', 'src/browser-worker.js', 'src/engine-worker.js', 'src/engine.js', 'src/source.js', 'src/wasi.js', 'src/plugin.js', 'src/link.js', 'src/errors.js', 'src/kernel-worker.js']
    .reduce((n, f) => n + size(f), 0);
  assert.ok(total <= 1.5e6, `${total} bytes by brotli, at most 1,500,000 are allowed`);
});
