# The three commands of the README. Everything goes into .venv; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check install format peer

demo: install  ## Fit on the generated storefront and show what comes out.
	$(BIN)/diffgrm demo

test: install  ## All tests; no network and no GPU needed.
	$(BIN)/python -m pytest

check: install  ## Lint, format and types, then the tests.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: install  ## Put the code into its one format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

peer:  ## The implementation that benchmarks/run.py measures beside ours, in an environment of its own.
	$(PYTHON) -m venv .venv-cornac
	.venv-cornac/bin/python -m pip install -q -c constraints.txt torch
	.venv-cornac/bin/python -m pip install -q -c constraints.txt cornac==3.0.1

install: $(VENV)/.installed

# PyTorch comes first and alone, so that the pinned build is taken and nothing heavier is resolved in its place.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@
