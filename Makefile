# Everything that CI does can be run by hand: make check.
GO ?= go

.PHONY: build test race vet fmt lint cross generate-check fuzz js browser bench check

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o dist/temper ./cmd/temper

test:
	$(GO) test ./...

race:
	$(GO) test -race -short ./core/attack/... ./core/generate ./core/serve ./core/token ./core/hub ./core/pipeline ./plugins/host

vet:
	$(GO) vet ./...
	GOOS=wasip1 GOARCH=wasm $(GO) vet ./core/... ./backend

fmt:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'gofmt would change:'; gofmt -l $$(git ls-files '*.go'); exit 1; }

lint:
	GOBIN=$(CURDIR)/dist $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.2
	dist/staticcheck $$($(GO) list ./... | grep -v cmd/temper-wasm)
	GOOS=wasip1 GOARCH=wasm dist/staticcheck ./backend/wasm
	GOOS=wasip1 GOARCH=wasm dist/staticcheck -checks inherit,-U1000 ./cmd/temper-wasm # all hangs on exports, which it does not know

# One static binary for each of these, and the core for WebAssembly.
cross:
	@set -e; for os in linux darwin windows; do for arch in amd64 arm64; do \
	  echo "build $$os/$$arch"; CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build -o /dev/null ./cmd/temper; done; done
	GOOS=wasip1 GOARCH=wasm $(GO) build ./core/... ./backend

# The committed assembly is what its generators write.
generate-check:
	cd backend/native/_gen && $(GO) run . -check

# Every fuzz target in turn, for as long each. What fails is written to testdata/fuzz beside it, and a test from then on.
FUZZTIME ?= 10s
fuzz:
	@set -e; for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	  echo "$$p $$f"; out=$$($(GO) test -run none -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p 2>&1) || { echo "$$out"; exit 1; }; done; done

.PHONY: js-build verify-ecosystem verify-clients
js-build:
	cd js && npm run build

js: js-build
	cd js && npm test

browser:
	cd tests/browser && $(GO) test ./...

bench:
	$(GO) run ./tests/bench

# What temper writes, loaded by transformers, peft and llama.cpp themselves. PYTHON needs torch, transformers and peft; NODE_PEERS is a folder
# with node_modules/node-llama-cpp; TEMPER_GEMMA is a decoder to quantize.
PYTHON ?= python3
NODE_PEERS ?= $(HOME)/.cache/temper-test/node
TEMPER_GEMMA ?= $(HOME)/.cache/temper-test/gemma-3-270m-q4_k_m.gguf
verify-ecosystem: build
	$(PYTHON) tests/ecosystem/verify.py dist/temper $${TEMPER_PARITY:-../shared/parity} "$(NODE_PEERS)" "$(TEMPER_GEMMA)"

# OpenAI's own clients against the server. PYTHON needs the package openai; NODE_MODULES, a folder with the package of the same name, is for Node.
verify-clients: build
	$(PYTHON) tests/ecosystem/clients.py dist/temper $(DECODER) $(ENCODER) $(NODE_MODULES)

# The arm64 kernels under emulation.
neon:
	GOARCH=arm64 $(GO) test -exec qemu-aarch64-static -run 'Conformance/neon|Pool' ./backend/native

check: fmt vet cross generate-check test race
