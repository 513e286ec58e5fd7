# The three commands of the README. Everything goes into .venv; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TESTS := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

.PHONY: demo test check docs install format peers

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

peers: .venv-cornac/.installed .venv-rectools/.installed  ## Other implementations, each in an environment of its own.

.venv-cornac/.installed: PEER = cornac==3.0.1 transformers pandas pyarrow
.venv-rectools/.installed: PEER = 'rectools[torch]==0.19.0' 'pyarrow<20'
.venv-%/.installed: constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install -q -c constraints.txt torch
	.venv-$*/bin/python -m pip install -q -c constraints.txt $(PEER)
	@touch $@

install: $(VENV)/.installed

# PyTorch comes first and alone, so that the pinned build is taken and nothing heavier is resolved in its place.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@
