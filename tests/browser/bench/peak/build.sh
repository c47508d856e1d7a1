#!/bin/sh
# Builds the loops of peak.c. Needs clang and lld 19.
set -eu
cd "$(dirname "$0")"
${CC:-clang-19} --target=wasm32 -O2 -msimd128 -mrelaxed-simd -nostdlib -Wl,--no-entry -Wl,--import-memory -Wl,--strip-all peak.c -o peak.wasm
