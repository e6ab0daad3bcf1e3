# What there is to do here: `make help`.

CLIENTS := tests/clients
NODE_MODULES := $(CLIENTS)/node_modules/.package-lock.json
VENV := $(CLIENTS)/venv/.installed
# Tests of streams over HTTP/1, which there are two ways to serve. (Garbage is asked of both in both_paths.rs, and takes
# 40 s in its own test: an HTTP/2 preface with nothing behind it is pinged before it is closed.)
ON_BOTH_PATHS := live:: resume:: lag:: drain:: wire:: rude_clients:: limits:: overload:: crowd:: clients:: lines:: polling:: ws::handshake socketio::
CARGO_DENY_VERSION := 0.20.2

export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD := 1

.DEFAULT_GOAL := help
.PHONY: help build test test-tools lint pictures bench bench-quick bench-build bench-tools advisories cargo-deny

help: ## show this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

build: ## build the release binary, target/release/tidings
	cargo build --locked --release

test: test-tools ## install what the tests need, and run them all
	node --test $(CLIENTS)/unit.test.mjs $(CLIENTS)/tidings.test.mjs
	cargo test --locked
	TIDINGS_SERVER__HTTP1=library cargo test --locked --test it -- --test-threads 4 $(ON_BOTH_PATHS) --skip limits::garbage
	for example in examples/*.rs; do cargo run --quiet --locked --example $$(basename $$example .rs) || exit 1; done

lint: cargo-deny ## check format, lints, docs, and the dependencies' licences, versions and sources
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps
	cargo deny --log-level error check licenses bans sources

pictures: test-tools ## take the pictures of docs/examples.md
	cargo build --locked --example chat --example dashboard
	node $(CLIENTS)/pictures.mjs $(or $(CARGO_TARGET_DIR),target)/debug/examples

bench: bench-build ## measure the hub and its peers side by side (30 min), and write docs/benchmarks.md
	python3 tests/bench/suite.py

bench-quick: bench-build ## the same in two minutes, into target/bench-quick
	python3 tests/bench/suite.py --quick

bench-build: bench-tools
	cargo build --locked --release --bin tidings --example plain

advisories: cargo-deny ## check for known vulnerabilities in the dependencies (fetches their database)
	cargo deny check advisories

cargo-deny:
	@command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny --version $(CARGO_DENY_VERSION)

# The rules below run only when something is missing or has changed.

test-tools: ## install what the tests need, without running them
	@$(CLIENTS)/debian
	@$(MAKE) --silent $(NODE_MODULES) $(VENV)

bench-tools: ## install what the benchmark needs, without running it
	@tests/bench/debian
	@$(CLIENTS)/debian brokers
	@$(MAKE) --silent $(VENV)

$(NODE_MODULES): $(CLIENTS)/package.json $(CLIENTS)/package-lock.json $(CLIENTS)/.npmrc
	@cd $(CLIENTS) && npm ci --no-audit --no-fund --silent
	@touch $@

$(VENV): $(CLIENTS)/requirements.txt
	@python3 -m venv --clear $(CLIENTS)/venv
	@$(CLIENTS)/venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@
