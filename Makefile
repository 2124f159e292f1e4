VENV ?= .venv
PYTHON ?= python3
PORT ?= 8080
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: install test test-narrow test-slow test-faults coverage lint wheel demo demo-stop

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'setuptools<81' wheel
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[test]'
	touch $@

SUITE := -m 'not slow and not faults' -n 3 --dist loadfile --no-loadscope-reorder

# Three processes on two cores: tests of real experiments wait for NNI half of their time.
test: install
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/pytest $(SUITE) --durations=20

# The same with branch coverage, apart because it takes at least a quarter more processor time. What subprocesses run does not count.
coverage: install
	OMP_NUM_THREADS=1 $(BIN)/pytest $(SUITE) --cov --cov-report=term-missing:skip-covered

# The maths again with the narrower instruction set that most desktops and laptops have, on one thread and on two.
NARROW := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 NNI_DARTS_KERNELS_ARCH=x86-64-v3
MATHS := tests/strategies tests/search_spaces tests/nni_darts/training

test-narrow: install
	$(NARROW) OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not slow and not faults' -n 2 --dist loadfile --no-loadscope-reorder $(MATHS)
	$(NARROW) OMP_NUM_THREADS=2 $(BIN)/pytest -m 'not slow and not faults' tests/strategies/test_fast.py tests/strategies/test_exactness.py tests/search_spaces

test-slow: install
	$(BIN)/pytest -m slow

# Kills with SIGKILL and spoilt inputs, with counts: under half an hour on two free cores.
test-faults: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -m faults tests/faults
	OMP_NUM_THREADS=1 $(BIN)/pytest --hypothesis-profile=faults tests/nni_darts/test_inputs.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

wheel: install
	$(BIN)/pip wheel --no-deps --no-build-isolation --wheel-dir dist .

# Starts the quickstart, waits for its table, leaves NNI's page up until `make demo-stop`.
demo: install
	@$(BIN)/nni-darts demo --port $(PORT)

demo-stop: install
	@$(BIN)/nni-darts demo --stop
