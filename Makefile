# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
DEMO_DIR ?= lossi-demo
SERVE ?= 1
WHEELS ?= 1
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

.PHONY: help demo test test-slurm-versions check unit bench format docs release lock clean setup setup-dev

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 21

demo: setup ## set up, then run the main job: a notebook swept, tracked, compared and served (SERVE=0: not served)
	@LOSSI_ALLOW_LOCAL_SCHEDULER=true $(BIN)/lossi demo --directory "$(DEMO_DIR)" $(if $(filter 0,$(SERVE)),--no-serve)

test: setup-dev ## set up, then run every test (all but test-slurm-versions)
	@sh tests/provision.sh
	@$(BIN)/python tests/side_by_side.py $(TEST_OPTIONS)

test-slurm-versions: setup-dev ## root on Debian: the same truth from Slurm 24.11 and 26.05 (with PySlurm), in Debian systems of their own
	@PYTHON="$(CURDIR)/$(BIN)/python" bash tests/slurm/versions.sh

check: setup-dev ## lint, types, layers, unit tests; no root, no services
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest tests/unit -m "not slow" --numprocesses 2

bench: setup-dev ## measure against the named peers (ONLY=P5 runs one)
	@$(BIN)/python tests/bench/run.py $(if $(ONLY),--only $(ONLY))

format: setup-dev ## format the sources
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: setup-dev ## write the reference pages that follow from the code
	@$(BIN)/python docs/generate.py

release: setup ## make build/lossi-VERSION.tar.gz, with all that a host without network needs (WHEELS=0: without)
	@PYTHON="$(CURDIR)/$(BIN)/python" WHEELS="$(WHEELS)" sh release/make.sh

lock: setup-dev ## take newer versions into the lock files
	cd requirements && ../$(UV_COMPILE) --upgrade run.in -o run.lock && ../$(UV_COMPILE) --upgrade dev.in -o dev.lock

clean: ## remove what was built and set up
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache

setup: $(VENV)/.run
setup-dev: $(VENV)/.dev

$(VENV)/.run: requirements/run.lock setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Lossi needs Python 3.11 or later: install it, or say PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) (one to three minutes, once)"
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) lacks venv: on Debian and Ubuntu install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -r requirements/run.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	@echo "Setting up what the tests need (about half a minute, once)"
	@$(PIP) install -r requirements/dev.lock
	@touch $@
