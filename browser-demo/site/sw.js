// Keeps the page for use without a network, and adds the headers that threads need where the host does not send them. Models are cached by
// the package itself, piece by piece.
const cacheName = 'temper-page-v1';
const page = ['./', 'index.html', 'app.js', 'words.js', 'style.css', 'icon.svg', 'manifest.webmanifest', 'models/models.json', 'temper/src/index.js', 'temper/src/errors.js',
  'temper/src/modules.js', 'temper/src/browser-worker.js', 'temper/src/engine-worker.js', 'temper/src/kernel-worker.js', 'temper/src/engine.js', 'temper/src/source.js', 'temper/src/wasi.js',
  'temper/src/link.js', 'temper/src/plugin.js', 'temper/dist/temper.wasm',
  ...['', '-relaxed', '-threads', '-relaxed-threads'].map((k) => `temper/dist/kernels${k}.wasm`)];

self.addEventListener('install', (e) => {
  e.waitUntil(caches.open(cacheName).then((c) => c.addAll(page)).then(() => self.skipWaiting()));
});
self.addEventListener('activate', (e) => {
  e.waitUntil((async () => {
    for (const name of await caches.keys()) if (name.startsWith('temper-page-') && name !== cacheName) await caches.delete(name);
    await self.clients.claim();
  })());
});

function isolated(r) {
  if (r.status === 0) return r;
  const headers = new Headers(r.headers);
  headers.set('Cross-Origin-Opener-Policy', 'same-origin');
  headers.set('Cross-Origin-Embedder-Policy', 'require-corp');
  headers.set('Cross-Origin-Resource-Policy', 'same-origin');
  return new Response(r.body, { status: r.status, statusText: r.statusText, headers });
}

self.addEventListener('fetch', (e) => {
  const url = new URL(e.request.url);
  if (e.request.method !== 'GET' || url.origin !== location.origin || e.request.headers.has('range')) return;
  if (/\.(temper|gguf|safetensors)$/.test(url.pathname)) return;
  e.respondWith((async () => {
    const cache = await caches.open(cacheName);
    try {
      const fresh = await fetch(e.request);
      if (fresh.ok) e.waitUntil(cache.put(e.request, fresh.clone()).catch(() => {}));
      return isolated(fresh);
    } catch (err) {
      const kept = await cache.match(e.request, { ignoreSearch: true });
      if (kept) return isolated(kept);
      throw err;
    }
  })());
});
