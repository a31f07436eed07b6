# Everything a newcomer needs: `make study` runs the main job on a fresh machine, `make test` runs every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
MODEL ?=
ARGS ?=

.PHONY: setup setup-dev study test lint format bench clean help

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.base  ## create .venv with loralet and its pinned dependencies
setup-dev: $(VENV)/.dev  ## the same with everything for tests and linters

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt torch numpy
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,test,lint]'
	touch $@

study: setup  ## set up, then the main job: a 3 x 3 grid with base rows, its table and its report (DATA=..., MODEL=..., ARGS=... to change it)
	$(BIN)/loralet study $(DATA) $(if $(MODEL),--models $(MODEL)) --report $(ARGS)

test: setup-dev  ## set up, then all tests with coverage
	$(BIN)/python -m pytest --numprocesses 2 --cov --cov-report=term $(ARGS)

lint: setup-dev  ## set up, then linters, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup-dev  ## put code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev  ## run the benchmarks, about an hour, and renew the README's tables (DATA=folder with train and test files, MODEL=folder)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,test,lint,bench]'
	$(BIN)/python benchmarks/accuracy.py $(DATA) $(MODEL)
	$(BIN)/python benchmarks/accuracy.py $(DATA) news-tiny --out benchmarks/news_tiny.json
	$(BIN)/python benchmarks/speed.py $(DATA) $(MODEL)
	$(BIN)/python benchmarks/start_up.py $(DATA) $(MODEL)
	$(BIN)/python benchmarks/defaults.py $(DATA) $(MODEL)
	$(BIN)/python scripts/readme_tables.py

clean:  ## remove what the targets made, runs excepted
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .coverage
