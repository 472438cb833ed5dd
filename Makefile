# Everything runs in .venv, which the first target makes. Needs Python 3.11+ with venv, and a package index.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# The networks of the demo and of the tests are small: a second thread gains little there, and on a busy machine waiting
# for it takes most of the time.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all lint bench install clean

demo: $(INSTALLED)
	$(BIN)/bitwright run recipes/digits.yaml
	$(BIN)/bitwright run recipes/digits_qat.yaml
	$(BIN)/bitwright search recipes/digits_search.yaml

test: $(INSTALLED)
	$(BIN)/pytest -n auto --dist loadfile -m "not slow" $(PYTEST_ARGS)

test-all: $(INSTALLED)
	$(BIN)/pytest -n auto --dist loadfile $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	@test -n "$(ROW)" || { echo "name the row: make bench ROW=..."; $(BIN)/python -m bitwright.experiments.benchmarks --help; exit 2; }
	$(BIN)/python -m bitwright.experiments.benchmarks $(ROW)

install: $(INSTALLED)

# The stamp is written last, so that an interrupted installation is taken up again.
$(INSTALLED): pyproject.toml setup.py constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e '.[dev,openvino,litert,torchao,postgresql,lightning,transformers]' -c constraints.txt
	touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
