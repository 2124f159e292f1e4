VENV ?= .venv
PYTHON ?= python3
PORT ?= 8080
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: install test test-slow test-faults lint demo demo-stop

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'setuptools<81' wheel
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[test]'
	touch $@

test: install
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not slow and not faults' -n 2 --dist loadfile

test-slow: install
	$(BIN)/pytest -m slow

# Kills with SIGKILL and spoilt inputs, with counts: under half an hour on two free cores.
test-faults: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -m faults tests/faults
	OMP_NUM_THREADS=1 $(BIN)/pytest --hypothesis-profile=faults tests/nni_darts/test_inputs.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Starts the quickstart, waits for its table, leaves NNI's page up until `make demo-stop`.
demo: install
	@$(BIN)/nni-darts launch examples/quickstart.yml --port $(PORT) --wait --id-file .demo-experiment
	@echo 'The page stays up; "make demo-stop" ends it.'

demo-stop:
	@test -s .demo-experiment || { echo 'no demo is running'; exit 0; }; \
	$(BIN)/nnictl stop $$(cat .demo-experiment) && rm -f .demo-experiment
