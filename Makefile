# Everything that is done with this repository; `make help` lists it.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# How long each fuzz target runs, which benchmarks do, and which events of the
# comparison how often.
FUZZTIME ?= 60s
BENCH    ?= .
EVENTS   ?=
REPEAT   ?= 10
# How long faults go on in make chaos, and which ones come; 0: others each time.
DURATION ?= 10m
SEED     ?= 0

GOLANGCI_VERSION := v2.15.0
GOLANGCI := .tools/golangci-lint-$(GOLANGCI_VERSION)

# Static, and the same bytes wherever it is built. The version comes from here
# and not from Go's own look at git, which fails where root builds in another
# user's checkout.
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X frond/internal/cli.release=$(VERSION)'

.DEFAULT_GOAL := help
.PHONY: help build lab test test-needs format-check vet lint unit scenarios cross fuzz bench bench-quick bench-versus chaos clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build bin/frond
	$(BUILD) -o bin/frond ./cmd/frond

lab: build ## build, bring up a fabric of namespaces on this machine, prove that it works (root)
	@scripts/lab

# One after the other: tests of timers and namespaces want the processors for
# themselves.
test: ## everything that has to pass (root; installs missing Debian packages)
	@$(MAKE) --no-print-directory test-needs
	@$(MAKE) --no-print-directory format-check vet cross lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory scenarios

test-needs: ## install the Debian packages that the tests use, where missing
	@scripts/install-test-needs

format-check:
	@unformatted=$$(gofmt -l cmd internal); \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:" $$unformatted >&2; exit 1; fi

vet:
	$(GO) vet ./...

lint: $(GOLANGCI) ## golangci-lint, of one fixed version
	$(GOLANGCI) run ./...

$(GOLANGCI):
	@echo "installing golangci-lint $(GOLANGCI_VERSION) into .tools, this takes minutes"
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv .tools/golangci-lint $@

# The kernel is an input that Go's test cache does not see: -count=1.
unit: ## tests of all packages but the lab, with the race detector (root)
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 10m $$($(GO) list ./... | grep -v '/internal/lab$$')

scenarios: build ## whole fabrics in namespaces: the tests of the lab (root)
	$(GO) test -count=1 -timeout 20m ./internal/lab

cross: ## the same source for another architecture
	GOARCH=arm64 $(BUILD) -o /dev/null ./cmd/frond

fuzz: ## run every fuzz target for FUZZTIME
	@scripts/fuzz $(FUZZTIME)

bench: build ## measure; BENCH picks by name (root)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m ./...

bench-quick: build ## frond beside FRR: three events, a few times (root)
	bin/frond lab bench --quick

bench-versus: build ## frond beside FRR and keepalived, all events or EVENTS=a,b REPEAT times, into docs/benchmarks.md (root)
	@scripts/bench-versus '$(EVENTS)' '$(REPEAT)'

chaos: build ## break a fabric at random for DURATION; SEED replays (root)
	$(GO) test -count=1 -v -run TestChaos -timeout 0 ./internal/lab -chaos.duration $(DURATION) -chaos.seed $(SEED)

clean: ## remove what was built and installed here
	rm -rf bin .tools
