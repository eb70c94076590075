# Everything a contributor or the CI runs. `make help` lists it. Needs Python 3.11 or newer and a C compiler, nothing else.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
RUN_ARGS ?=
BENCH_ARGS ?=
KAFKA_ARGS ?= --port 9092
SOAK_ARGS ?=
PYTEST_ARGS ?=

CODE := $(wildcard services operator tests bench tools)
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(STAMP) ## Create .venv with the locked dependencies and this package (PYTHON=python3.x chooses the interpreter)

$(STAMP): requirements-dev.lock pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { echo "setup: $(PYTHON) is not installed; install Python 3.11 or newer, or run: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), but Postrail needs 3.11 or newer; run: make setup PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "setup: $(PYTHON) has no venv module; on Debian or Ubuntu run: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: run
run: setup ## Show the system at work in one process: the demonstration (RUN_ARGS=...)
	$(BIN)/postrail demo $(RUN_ARGS)

.PHONY: kafka
kafka: setup ## Run a real Kafka on 127.0.0.1:9092 until ctrl-C (needs Java and Maven; KAFKA_ARGS="--port 9092 --brokers 3 --data FOLDER")
	$(BIN)/python -m tools.kafka $(KAFKA_ARGS)

.PHONY: kafka-jars
kafka-jars: setup ## Fetch the Kafka that tests and development use into the cache, once
	$(BIN)/python -m tools.kafka --fetch-only

.PHONY: object-storage
object-storage: setup ## Build the S3 server that tests use into the cache, once (needs Go, 3 minutes)
	$(BIN)/python -m tools.s3_server

.PHONY: helm
helm: setup ## Build Helm, which tests of the chart run, into the cache, once (needs Go, 2 minutes)
	$(BIN)/python -m tools.helm

.PHONY: test
test: setup ## Run the unit, integration and chaos suites in one pytest run
	$(BIN)/pytest $(PYTEST_ARGS) --ignore tests/cluster tests

.PHONY: test-e2e
test-e2e: setup ## Run the end-to-end tests on a Kubernetes cluster: that of KUBECONFIG, or one that POSTRAIL_CLUSTER_TOOL starts
	$(BIN)/python -m tests.cluster $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: setup ## Run the unit suite only: no sockets, no sleeps
	$(BIN)/pytest $(PYTEST_ARGS) tests/unit

.PHONY: test-integration
test-integration: setup ## Run the integration suite against real peers (a missing tool skips; with CI set it fails)
	$(BIN)/pytest $(PYTEST_ARGS) tests/integration

.PHONY: test-chaos
test-chaos: setup ## Run the chaos suite: crashes and outages, with a ledger of losses and duplicates
	$(BIN)/pytest $(PYTEST_ARGS) tests/chaos

.PHONY: lint
lint: setup fmt-check ## Check the code with ruff (rules and formatting)
	$(BIN)/ruff check $(CODE)

.PHONY: types
types: setup ## Check the types with mypy --strict
	$(BIN)/mypy

.PHONY: imports
imports: setup ## Check the layers between the packages with import-linter
	$(BIN)/lint-imports

.PHONY: fmt
fmt: setup ## Format the code and sort its imports
	$(BIN)/ruff check --select I --fix $(CODE)
	$(BIN)/ruff format $(CODE)

.PHONY: fmt-check
fmt-check: setup ## Fail when the code is not formatted
	$(BIN)/ruff format --check $(CODE)

.PHONY: proto
proto: setup ## Regenerate the Python code of protos/ into services/postrail/wire/
	$(BIN)/python protos/generate.py

.PHONY: proto-check
proto-check: setup ## Fail when the generated code differs from protos/
	$(BIN)/python protos/generate.py --check

.PHONY: docs
docs: setup ## Regenerate docs/metrics.md, values.md and reference.md of docs/kubernetes, and the tables of docs/topics.md
	$(BIN)/python tools/metrics_reference.py
	$(BIN)/python tools/topics_reference.py
	$(BIN)/python tools/values_reference.py
	$(BIN)/python tools/crds_reference.py

.PHONY: docs-check
docs-check: setup ## Fail when docs/metrics.md, values.md or reference.md of docs/kubernetes, or docs/topics.md is not current
	$(BIN)/python tools/metrics_reference.py --check
	$(BIN)/python tools/topics_reference.py --check
	$(BIN)/python tools/values_reference.py --check
	$(BIN)/python tools/crds_reference.py --check

.PHONY: crds
crds: setup ## Regenerate the CustomResourceDefinitions in charts/postrail/crds/ from the models of the kinds
	$(BIN)/python tools/crds.py

.PHONY: crds-check
crds-check: setup ## Fail when charts/postrail/crds/ is not current
	$(BIN)/python tools/crds.py --check

.PHONY: lock
lock: setup ## Bring the lock files to the newest allowed versions
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) --extra operator --constraint requirements.lock pyproject.toml --output-file requirements-operator.lock
	$(LOCK) --extra operator --extra dev --constraint requirements-operator.lock pyproject.toml --output-file requirements-dev.lock
	printf 'hatchling\nsetuptools\nwheel\n' | $(LOCK) --constraint requirements-dev.lock - --output-file requirements-build.lock

.PHONY: bench
bench: setup ## Measure throughput and latency on this machine (BENCH_ARGS=...)
	$(BIN)/python -m bench $(BENCH_ARGS)

.PHONY: soak
soak: setup ## Run the benchmark for a long time and watch memory and descriptors (SOAK_ARGS=...)
	$(BIN)/python -m bench soak $(SOAK_ARGS)

.PHONY: soak-kafka
soak-kafka: setup ## Run the chaos tests of load over Kafka at full size: 20,000 messages, 50,000 waiting (an hour; PYTEST_ARGS="-k throttled")
	CHAOS_MESSAGES=$(or $(CHAOS_MESSAGES),20000) CHAOS_BACKLOG=$(or $(CHAOS_BACKLOG),50000) CHAOS_SECONDS=$(or $(CHAOS_SECONDS),30) \
		$(BIN)/pytest $(PYTEST_ARGS) tests/chaos/test_kafka_scaling.py tests/chaos/test_kafka_throttled_site.py tests/chaos/test_kafka_stop_start.py

.PHONY: check
check: lint types imports proto-check docs-check crds-check test ## Run everything that the CI runs

.PHONY: clean
clean: ## Remove .venv, caches and build output
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find services operator tests bench -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	rm -rf services/*.egg-info operator/*.egg-info *.egg-info
