SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test setup check cross lint bench fuzz soak tools

GOLANGCI := v2.15.0
FUZZTIME ?= 30s
SOAKTIME ?= 12h
ARGS ?=

# Debian keeps servers in sbin, and PostgreSQL's in a folder of its own.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:$(lastword $(sort $(wildcard /usr/lib/postgresql/*/bin)))

# In CI a test that lacks a server fails instead of being skipped.
ifeq ($(CI),true)
export CERTFARM_REQUIRE ?= 1
endif

# These count failed requests under load, or stop whole controllers: nothing runs beside them.
ALONE = /internal/(e2e|several)$$

# A program under the race detector would wait a second at its end; the tests start
# hundreds.
export GORACE ?= atexit_sleep_ms=50

# The race detector needs a C compiler; everything else is built without cgo.
RACE = $$(command -v gcc >/dev/null && echo -race || true)

help: ## list the tasks
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-7s %s\n", $$1, $$2}'

run: ## a whole farm on this machine (ARGS="--nodes 5")
	go run ./cmd/certfarm lab $(ARGS)

test: setup check cross tools ## all that CI runs: servers, format, vet, cross builds, tests
	race=$(RACE); export CGO_ENABLED=$${race:+1}; go build $$race ./...; failed=; \
		run="go test -json -vet=off $$race -timeout 20m"; \
		{ $$run -p 2 $$(go list ./... | grep -vE '$(ALONE)') || failed=yes; \
		$$run -p 1 $$(go list ./... | grep -E '$(ALONE)') || failed=yes; \
		[ -z "$$race" ] || CGO_ENABLED=0 go test -json -vet=off -timeout 20m ./internal/several || failed=yes; [ -z "$$failed" ]; } | bin/tally

setup:
	@scripts/setup

check:
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt these files:"; echo "$$out"; exit 1; }
	go vet ./...

cross:
	@for to in linux/amd64 linux/arm64 windows/amd64 darwin/arm64; do \
		echo "go build for $$to"; CGO_ENABLED=0 GOOS=$${to%/*} GOARCH=$${to#*/} go build ./...; done

tools:
	@CGO_ENABLED=0 go build -o bin/tally ./tools/tally

bin/golangci-lint-$(GOLANGCI):
	CGO_ENABLED=0 GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	mv bin/golangci-lint $@

lint: bin/golangci-lint-$(GOLANGCI) ## the style budgets and what linters find
	bin/golangci-lint-$(GOLANGCI) run ./...

bench: ## one line a figure, about ten minutes (never fails for a slow one; ARGS="-v issue" for one)
	@CGO_ENABLED=0 go build -o bin/bench ./bench
	@bin/bench $(ARGS)

fuzz: ## every fuzz target, FUZZTIME=30s each
	@grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | while IFS=: read -r file name; do \
		name=$${name#func }; dir=$$(dirname "$$file"); echo "$$name in $$dir"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$dir" </dev/null; done

soak: tools ## the tests with many more rounds, SOAKTIME=12h at most; then what takes a quiet machine: a million certificates
	race=$(RACE); CERTFARM_SOAK=1 CGO_ENABLED=$${race:+1} go test -json $$race -count=1 -p 1 -timeout $(SOAKTIME) ./... | bin/tally
	CERTFARM_SOAK=1 go test -count=1 -timeout 1h -v -run Million ./internal/several
