#!/bin/sh
# Builds the kernel modules: plain and relaxed SIMD, each for one thread and for a shared memory. Needs clang and lld 19.
set -eu
cd "$(dirname "$0")"
CC=${CC:-clang-19}
common="--target=wasm32 -std=gnu17 -O3 -msimd128 -mbulk-memory -mnontrapping-fptoint -msign-ext -ffp-contract=off -fno-jump-tables -nostdlib -Wall -Wno-pass-failed -Wno-unused-parameter
  -Wl,--no-entry -Wl,--import-memory -Wl,--stack-first -Wl,-z,stack-size=12288 -Wl,--export=__stack_pointer -Wl,--strip-all"
sources="run.c gemm.c rows.c elementwise.c attention.c quant.c"
shared="-matomics -DTEMPER_THREADS -Wl,--shared-memory -Wl,--max-memory=4294967296"
out=${1:-..}
$CC $common $sources -o "$out/kernels.wasm"
$CC $common -mrelaxed-simd -DTEMPER_RELAXED $sources -o "$out/kernels-relaxed.wasm"
$CC $common $shared $sources -o "$out/kernels-threads.wasm"
$CC $common $shared -mrelaxed-simd -DTEMPER_RELAXED $sources -o "$out/kernels-relaxed-threads.wasm"
