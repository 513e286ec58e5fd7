# The commands of the README and what CI runs. Everything goes into .venv; PYTHON chooses the interpreter (3.11 or newer). On
# Windows this wants GNU make and the bash of Git, as GitHub's runners have.
PYTHON ?= python3
VENV ?= .venv
ifeq ($(OS),Windows_NT)
SHELL := bash
SCRIPTS := Scripts
else
SCRIPTS := bin
endif
BIN := $(VENV)/$(SCRIPTS)
PARALLEL := -n auto --maxprocesses 8 --dist loadfile
TESTS := $(BIN)/python -m pytest $(PARALLEL)
OLDEST := .venv-oldest/$(SCRIPTS)

.PHONY: demo test check docs install format peers package-test test-oldest container-test

demo: install  ## Fit on the generated storefront and show what comes out.
	$(BIN)/diffgrm demo

test: install  ## All tests; no network and no GPU needed.
	$(TESTS)

check: install  ## Lint, format and types, then the tests.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TESTS)

docs: install  ## The site, into build/site; any warning fails it.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: install  ## Put the code into its one format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

package-test: install  ## Build sdist and wheel, install the wheel with the core dependencies only, and use it there (PyPI needed).
	$(BIN)/python -m pytest -m package tests/package

test-oldest: .venv-oldest/.installed  ## The floors below the networks and one fit, with the oldest supported versions of all but PyTorch.
	$(OLDEST)/python -m pytest $(PARALLEL) tests/foundation tests/data tests/evaluation tests/semantic_ids
	$(OLDEST)/python tests/package/core_only.py "$$(mktemp -d)"

container-test: install  ## Build the server's image, run it on a small model, and wait until it is healthy (Docker needed).
	.ci/container

peers: .venv-cornac/.installed .venv-rectools/.installed  ## Other implementations, each in an environment of its own.

.venv-cornac/.installed: PEER = cornac==3.0.1 transformers pandas pyarrow
.venv-rectools/.installed: PEER = 'rectools[torch]==0.19.0' 'pyarrow<20'
.venv-%/.installed: constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/$(SCRIPTS)/python -m pip install -q -c constraints.txt torch
	.venv-$*/$(SCRIPTS)/python -m pip install -q -c constraints.txt $(PEER)
	@touch $@

.venv-oldest/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	$(OLDEST)/python -m pip install -q -c constraints-oldest.txt torch
	$(OLDEST)/python -m pip install -q -c constraints-oldest.txt -e '.[pandas]' pytest pytest-xdist hypothesis
	@touch $@

install: $(VENV)/.installed

# PyTorch comes first and alone, so that the pinned build is taken and nothing heavier is resolved in its place.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@
