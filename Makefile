# Two commands do everything: make demo, make test. PIP_ARGS is handed to pip, for example to name an index of CPU builds:
#   make test PIP_ARGS="--extra-index-url URL"
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIP_ARGS)

.PHONY: demo test lint validate bench clean
.DEFAULT_GOAL := demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# What the main job needs: the core, and torch by its exact pin (extra cpu) to run models.
$(VENV)/.models: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[cpu,models]'
	@touch $@

# Every extra that tests use; torch by its exact pin (extra cpu).
$(VENV)/.full: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[dev,cpu,train,eval,inspect]'
	@touch $(VENV)/.models $@

demo: $(VENV)/.models
	$(BIN)/aligntax demo

test: $(VENV)/.full lint
	ALIGNTAX_REQUIRE_EXTRAS=1 $(BIN)/pytest -n auto --dist worksteal

lint: $(VENV)/.full
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

# Simulations of the statistics as built, faults and kills by many seeds, the smallest models built anew: about an hour and a half on two cores; tables go to build/validation.md.
validate: $(VENV)/.full
	rm -f build/validation.md
	$(BIN)/pytest -m slow tests/validation tests/stats tests/atlas tests/cli/test_atlas_run.py tests/flow/test_diversity.py tests/lab/test_family.py

# Whole-process speed and memory, beside pandas and statsmodels doing the same comparison.
bench: $(VENV)/.full
	$(BIN)/python benchmarks/diff_speed.py
	$(BIN)/python benchmarks/report_speed.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
