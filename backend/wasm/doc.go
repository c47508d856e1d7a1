// Package wasm is the backend for WebAssembly: kernels in C with 128-bit SIMD (folder kernels), which run in place on the memory of the Go
// program. The program is linked so that it imports its memory (see link); whoever instantiates it (the page, Node, or the test host) makes
// the memory, instantiates the kernels over it and hands their exports to the program as its module "temper".
//
// With a shared memory other threads instantiate the same kernels and take chunks of each call (see Control).
package wasm
