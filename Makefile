# `make demo` shows the main job, `make test` runs every check, `make bench` measures. Everything they install goes into the cache folder.

CACHE := $(or $(PERENNIAL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/perennial)
export PERENNIAL_CACHE := $(CACHE)
# Outside the clone, so that a fresh clone does not compile the AWS SDK again.
export CARGO_TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CACHE)/target)
# The demo's engine: redis, qdrant or weaviate. Its kind of stable address: elastic_ip, network_interface or private_ip; each engine
# has its own unless one is named.
ENGINE ?= redis
ENDPOINT ?=
PYTHON := $(CACHE)/venv/bin/python
# Ours first, so that the pinned versions are the ones that run.
export PATH := $(CACHE)/bin:$(PATH)
# Debug information of crates that nobody steps into costs gigabytes of cache.
export CARGO_TERM_COLOR ?= auto

# The images that the tests take where Docker answers: Qdrant's recordings are of this version.
QDRANT_IMAGE := qdrant/qdrant:v1.18.3
REDIS_IMAGE := redis:7.2

say = @printf '\n== %s\n' "$(1)"

.PHONY: help demo test lint unit azurite containers e2e bench bench-engines build build-release setup setup-demo setup-lint setup-bench clean-cache

help:
	@echo 'make demo    a dead Redis instance comes back with its data, then its address (first run: installs and compiles, ~15 min)'
	@echo '             ENGINE=qdrant or ENGINE=weaviate (~4 min more): another database; ENDPOINT=...: another kind of address'
	@echo 'make test    format, lints, licences, unit, property, conformance and end-to-end tests (what CI runs)'
	@echo 'make lint    only format, clippy, licences, unused dependencies, Python, shell, templates'
	@echo 'make unit    only the Rust tests: unit, property, conformance, the agent against real engines'
	@echo 'make containers  what also runs on the real images of Qdrant and Redis; `make unit` does it where Docker answers'
	@echo 'make azurite the store conformance suite on the emulator of Azure Blob Storage; `make unit` does it where npm installs it'
	@echo 'make e2e     only the end-to-end tests on the local cloud'
	@echo 'make bench   the archive engine beside restic, rclone, s5cmd and shell scripts (~40 min; QUICK=1: ~3 min); docs/benchmarks/'
	@echo 'make bench-engines  each engine by each method: pauses, seconds and bytes of 100,000 rows (~15 min)'
	@echo 'Everything they install is in $(CACHE); `make clean-cache` removes it.'

demo: setup-demo build
	$(call say,demo: a dead instance comes back with its data then its address)
	cd tests && $(PYTHON) -m demo --engine $(ENGINE) $(if $(ENDPOINT),--endpoint $(ENDPOINT))

test: lint unit e2e
	$(call say,all checks passed)

setup:
	@tests/setup

setup-demo:
	@tests/setup --for $(ENGINE)

setup-lint:
	@tests/setup --lint-tools

setup-bench:
	@tests/setup --bench-tools

build:
	$(call say,build: the agent and the functions)
	cargo build --locked --workspace --bins

build-release:
	$(call say,build: the agent as it is released)
	cargo build --locked --release -p perennial

lint: setup-lint
	$(call say,format)
	cargo fmt --all --check
	$(call say,clippy)
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(call say,licences bans sources)
	cargo deny --locked check --hide-inclusion-graph licenses bans sources
	$(call say,unused dependencies)
	cargo machete
	$(call say,Python and shell)
	$(CACHE)/venv/bin/ruff check tests && $(CACHE)/venv/bin/ruff format --check tests
	$(CACHE)/venv/bin/shellcheck infra/user-data.sh infra/second-interface.sh tests/local_cloud/user_data/*.sh .ci/run && echo 'shell: no findings'
	$(call say,templates)
	$(CACHE)/venv/bin/cfn-lint infra/template.yaml infra/group.yaml && echo 'templates: no findings'

unit: setup
	$(call say,Rust tests: unit property conformance and the agent against real engines)
	cargo test --locked --workspace --no-fail-fast
	@if tests/setup --azurite; then $(MAKE) --no-print-directory azurite; \
	else echo 'Azurite cannot be installed here: not run on the emulator of Azure Blob Storage (make azurite)'; fi
	@if docker version >/dev/null 2>&1; then $(MAKE) --no-print-directory containers; \
	else echo 'no Docker daemon answers here: not run on the real images of Qdrant and Redis (make containers)'; fi

azurite:
	@tests/setup --azurite
	$(call say,Rust tests: the store on the emulator of Azure Blob Storage)
	cargo test --locked -p perennial-shared --test azure -- --ignored

containers: setup
	$(call say,Rust tests: on the images $(QDRANT_IMAGE) and $(REDIS_IMAGE))
	@for image in $(QDRANT_IMAGE) $(REDIS_IMAGE); do \
	  docker image inspect $$image >/dev/null 2>&1 || docker pull $$image || \
	    { echo "no image $$image: where no registry is reached, bring it by docker save and docker load" >&2; exit 1; }; \
	done
	QDRANT_IMAGE=$(QDRANT_IMAGE) cargo test --locked -p perennial --no-fail-fast --test qdrant_engine --test qdrant_cli --test qdrant_faults --test qdrant_replace -- --include-ignored
	QDRANT_IMAGE=$(QDRANT_IMAGE) cargo test --locked -p perennial --test conformance -- qdrant
	REDIS_IMAGE=$(REDIS_IMAGE) cargo test --locked -p perennial --test services -- --ignored

e2e: setup build
	$(call say,end-to-end tests on the local cloud)
	cd tests && $(PYTHON) -m pytest -q --durations=5

# QUICK=1: less data, fewer rounds. BENCH: any options of `python -m bench`.
bench: setup-bench build-release
	$(call say,benchmark: the archive engine beside other systems)
	cd tests && $(PYTHON) -m bench $(if $(QUICK),--quick) $(BENCH)

# The conformance suite with 100,000 rows (ROWS) and the program as it is released: pauses, seconds, bytes of each engine and method.
bench-engines: setup build-release
	$(call say,conformance: every engine by every method)
	PERENNIAL_ROWS=$(or $(ROWS),100000) PERENNIAL_PROGRAM=$(CARGO_TARGET_DIR)/release/perennial \
	  cargo test --locked -p perennial --test conformance -- --nocapture --test-threads 1

clean-cache:
	rm -rf $(CACHE)
