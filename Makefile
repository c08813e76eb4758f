# What there is to do, each from a fresh clone or a used one; everything is installed into .venv.
# make lock is the one that changes a committed file: the versions that all others use.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := .ci/requirements.lock
# The first Python on PATH that is new enough.
PYTHON ?= $(shell for python in python3 python3.{14,13,12,11}; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$python && break; done)
CODE := socketwarp twisted tests benchmarks etc docs
# What the demonstration shows by hand, and so its test.
tools = command -v openssl && command -v curl
# $(call debian,a command that succeeds when the package is there,the package)
debian = { $(1); } >/dev/null 2>&1 || { apt-get update -q && apt-get install -qy $(2); }

# An environment whose Python has gone is made anew.
ifeq ($(shell $(BIN)/python -c 'print(1)' 2>/dev/null),)
.PHONY: $(STAMP)
endif
.PHONY: help demo test check format bench bench-smoke bench-tools torture docs dist lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

$(STAMP): $(LOCK) setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "socketwarp needs Python 3.11 or later on PATH, or: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(call debian,$(PYTHON) -c 'import ensurepip',python3-venv)
	$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP) ## the main job on real processes, each step printed
	@$(call debian,$(tools),openssl curl)
	@$(BIN)/python etc/demo.py

test: $(STAMP) ## every test, and the coverage they reach
	@$(call debian,$(tools) && PATH=$$PATH:/usr/sbin which nginx tinyproxy,openssl curl nginx-light tinyproxy-bin)
	@$(BIN)/python -m tests.run

check: $(STAMP) ## formatter, linter, import rules, types
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/towncrier build --draft --version next >/dev/null

format: $(STAMP) ## let the formatter and the linter repair what they can
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

# Only the programs are needed, on ports of their own; what Debian may start at once can be stopped.
bench-tools:
	@$(call debian,PATH="$$PATH:/usr/sbin:/sbin" which openssl sshd ip tc nginx wrk,openssl openssh-server iproute2 nginx wrk)

bench: $(STAMP) bench-tools ## measure beside ssh -R and others; results in benchmarks/results
	$(BIN)/python -m benchmarks

bench-smoke: $(STAMP) bench-tools ## run each part of the benchmark for a moment
	$(BIN)/python -m benchmarks --smoke

torture: $(STAMP) ## the long fault tests
	$(BIN)/python -m tests.run --no-coverage tests.torture

docs: $(STAMP) ## the manual, in docs/_build/html
	@mkdir -p docs/_build
	$(BIN)/python -m docutils --report=2 --halt=2 README.rst docs/_build/README.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

dist: $(STAMP) ## source archive and wheel, in dist
	rm -rf dist
	$(BIN)/python -m build --no-isolation

lock: ## resolve the newest versions anew
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --editable '.[dev]'
	build/lock/bin/python -m pip freeze --all --exclude pip --exclude-editable > $(LOCK)
	rm -rf build/lock

clean: ## everything that these recipes made
	rm -rf $(VENV) build dist *.egg-info docs/_build _trial_temp* .coverage* .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find socketwarp twisted tests -name __pycache__ -prune -exec rm -rf {} +
