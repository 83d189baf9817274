# Every command of the project. `make` lists them; each sets up first what it needs.
# Needed on a fresh machine: Python 3.11 or newer with venv, make, and the OpenMP runtime (libgomp1).

VENV := .venv
PACKAGES := auth_server model_server shared cli flex_client
LINTED := $(PACKAGES) training bench tests
# The newest Python that is new enough and has venv; say `make PYTHON=/path/to/python3` for another one.
PYTHON ?= $(eval PYTHON := $(FOUND_PYTHON))$(PYTHON)
FOUND_PYTHON = $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# -- set-up ----------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.runtime ## set up .venv with the locked dependencies (all other targets do it too)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed (on Debian: apt install python3-venv)." >&2; exit 1; }
	@test "$$(uname -s)" != Linux || "$(PYTHON)" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null \
	|| { echo "The OpenMP runtime is missing (on Debian: apt install libgomp1)." >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON); this takes a minute or two, once."
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(VENV)/bin/python -m compileall -q $(PACKAGES)
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.lock
	@touch $@

# -- running ---------------------------------------------------------------------------------------------------------

.PHONY: run
run: $(VENV)/.runtime ## start store, auth server and model server; print calls to paste; Ctrl-C stops all three
	@exec $(VENV)/bin/flex serve all

.PHONY: demo
demo: $(VENV)/.runtime ## the whole story on a throw-away instance; exit 0 only if all of it held
	@exec $(VENV)/bin/flex demo

.PHONY: rotate-keys
rotate-keys: $(VENV)/.runtime ## change the signing key safely (WAIT=0: refuse, FORCE=1: unchecked, EMERGENCY=1: drop it now)
	@exec $(VENV)/bin/flex keys rotate $(if $(filter 0,$(WAIT)),--no-wait) $(if $(filter 1,$(FORCE)),--force) \
		$(if $(filter 1,$(EMERGENCY)),--emergency)

.PHONY: keys-status
keys-status: $(VENV)/.runtime ## every signing key's state and age, and the earliest safe next step
	@exec $(VENV)/bin/flex keys status

# -- checking --------------------------------------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/.dev ## the whole test suite
	$(VENV)/bin/python -m pytest

.PHONY: check
check: $(VENV)/.dev ## format, lint, strict types, import contracts, sizes, then the fast tests
	$(VENV)/bin/ruff format --check $(LINTED)
	$(VENV)/bin/ruff check $(LINTED)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python tests/size_check.py $(LINTED)
	$(VENV)/bin/python -m pytest -m "not slow"

.PHONY: format
format: $(VENV)/.dev ## put all source into the one format and fix what can be fixed
	$(VENV)/bin/ruff format $(LINTED)
	$(VENV)/bin/ruff check --fix $(LINTED)

# -- making ----------------------------------------------------------------------------------------------------------

.PHONY: models
models: $(VENV)/.dev ## train the shipped attribute models again, with their cards
	@exec $(VENV)/bin/python -m training

.PHONY: bench
bench: $(VENV)/.dev ## our servers beside the floor of this machine, as ratios of one run
	@exec $(VENV)/bin/python -m bench

.PHONY: soak
soak: $(VENV)/.dev ## the installation under faults and floods, 15 minutes, into docs/soak.md (QUICK=1: one, into nothing)
	@exec $(VENV)/bin/python -m bench.soak $(if $(filter 1,$(QUICK)),--quick) $(ARGS)

.PHONY: docs
docs: $(VENV)/.runtime ## write what is made from code: docs/configuration.md, errors.md, events.md, a table in operations.md
	@exec $(VENV)/bin/python -m cli.generate_docs

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: lock
lock: ## resolve the dependencies of pyproject.toml again into the two lock files (needs the program uv)
	@command -v uv >/dev/null || { echo "make lock needs uv (pip install uv, in an environment of its own)." >&2; exit 1; }
	$(LOCK) --upgrade --group build pyproject.toml --output-file requirements.lock
	$(LOCK) --constraint requirements.lock --group build --group dev pyproject.toml --output-file requirements-dev.lock
