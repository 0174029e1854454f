# make demo: from a fresh clone to explained signals.  make test: what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/py$(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])').txt
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export NUMBA_NUM_THREADS ?= 1

.PHONY: demo test coverage lint setup dev constraints clean

demo: setup
	$(BIN)/python -m pipeline.train +experiment=quickstart
	$(BIN)/python -m pipeline.predict +experiment=quickstart output=demo.jsonl report=demo.html
	@echo "open demo.html"

test: dev lint
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=10

coverage: dev  ## the tests once more, two thirds slower: which lines do they reach?
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term --cov-fail-under=90

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.core
dev: $(VENV)/.dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade "pip>=25.1"

$(VENV)/.core: pyproject.toml $(wildcard $(CONSTRAINTS)) | $(VENV)/bin/python
	$(BIN)/pip install -q $(if $(wildcard $(CONSTRAINTS)),-c $(CONSTRAINTS)) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/pip install -q $(if $(wildcard $(CONSTRAINTS)),-c $(CONSTRAINTS)) -e ".[notebooks]" --group dev --group oracles
	touch $@

constraints: dev  ## pin what is installed now
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu//' > $(CONSTRAINTS)

clean:
	rm -rf $(VENV) build dist *.egg-info
