# What mi-lb needs to be built, tried and tested. Every target installs what it
# misses with the system's package manager, or says in one line what is missing.

GO ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
SOURCES := $(shell find cmd lb watch templates provision deploy -name '*.go' -o -path '*/builtin/*' -o -name '*.html' 2>/dev/null) go.mod go.sum

.PHONY: build tools demo test test-newer lint bench fuzz clean help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: bin/mi-lb ## build bin/mi-lb

bin/mi-lb: $(SOURCES)
	$(GO) build -ldflags "-X main.version=$(VERSION)" -o $@ ./cmd/mi-lb

tools: bin/consul ## build bin/consul, a real Consul, from the pinned module (about 5 minutes, once)

bin/consul: tools/go.mod tools/go.sum
	cd tools && $(GO) build -o ../bin/consul github.com/hashicorp/consul

# An installed Consul that is new enough is as good as one of our own.
.PHONY: consul
consul:
	@test/prerequisites consul || $(MAKE) --no-print-directory tools

demo: prerequisites-demo consul build ## a whole platform on this machine, to try; CHECK=1 tries it itself, DEMO=--help lists what can be moved
	@$(GO) build -o bin/sandbox ./test/sandbox/cmd/sandbox
	@bin/sandbox $(if $(filter-out 0 no false,$(CHECK)),--check) $(DEMO)

prerequisites-%:
	@test/prerequisites $*

# Platforms of a dozen machines come last and alone: they take both cores.
test: consul build ## run all tests, with the race detector
	@test/prerequisites test
	$(GO) test -race -count 1 -timeout 40m $(TESTFLAGS) $$($(GO) list ./... | grep -v '/test/bootstrap$$')
	$(GO) test -count 1 -timeout 60m $(TESTFLAGS) ./test/bootstrap
	@$(MAKE) --no-print-directory test-newer

# The HAProxy of newer releases of Debian, fetched into the user's cache: trixie has
# 3.0, sid 3.2, experimental 3.4.
NEWER ?= trixie
test-newer: consul ## run the tests that use HAProxy with a newer one; NEWER="trixie sid experimental" are more
	@test/prerequisites test
	@directories=$$(test/newer-haproxy $(NEWER)) && for directory in $$directories; do \
	  PATH=$$directory:$$PATH $(GO) test -race -count 1 -timeout 20m $(TESTFLAGS) ./lb/haproxy/... ./test/compile ./test/e2e || exit 1; \
	done

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "not gofmt-clean:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

FUZZTIME ?= 60s
fuzz: ## run every fuzz target for FUZZTIME (60s)
	@test/fuzz $(FUZZTIME)

bench: consul ## measure mi-lb beside its peers (half an hour); tables and charts go to docs/benchmarks; BENCH=-help lists flags
	@test/prerequisites bench
	$(GO) run ./test/bench $(BENCH)

SOAK ?= 10m
soak: consul ## let an edge live through months of faults in SOAK (10m)
	@test/prerequisites bench
	$(GO) run ./test/soak -for $(SOAK)

clean: ## remove what was built
	rm -rf bin
