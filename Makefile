# Everything happens in .venv; each target installs what it needs first.
#   make demo    simulate a cohort and run the whole path on it
#   make test    the tests
#   make test-wsi  the tests of momkd extract, with the extra wsi, in .venv-wsi
#   make check   ruff, types, floors
#   make docs    the documentation, into site/
#   make bench   the benchmarks, one table each
# A CPU-only torch from another index: make demo PIP_ARGS="--extra-index-url …"

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-wsi check docs bench clean

demo: $(VENV)/.core
	$(BIN)/momkd demo --out demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-wsi:
	$(MAKE) VENV=.venv-wsi .venv-wsi/.wsi
	.venv-wsi/bin/python -m pytest tests/extract tests/explain tests/cli/test_extract.py tests/test_brca_m2c.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf $(VENV) .venv-wsi demo site

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "momkd needs Python 3.11 or newer; found: $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "python3 -m venv failed; on Debian: apt install python3-venv"; exit 1; }

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[dev]'
	@touch $@ $(VENV)/.core

$(VENV)/.wsi: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[dev,wsi]'
	@touch $@
