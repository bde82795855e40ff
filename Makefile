# One command for each thing; every target sets up what it needs. Needs Python 3.11 or newer, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet
# A stamp file for each set of packages: demo and benchmarks need none of what the tests need.
BASE := $(VENV)/.base
LINT := $(VENV)/.lint
TEST := $(VENV)/.test

.PHONY: help install develop demo test test-quick lint type check format bench bench-stream torture test-torture clean

help:
	@echo "make demo        everything once on generated cells: build, statistics, training, figures (in demo/)"
	@echo "make install     a virtual environment with ldata and ltrain (in $(VENV)/)"
	@echo "make develop     what tests, linter and type checker need, too"
	@echo "make test        the whole test suite"
	@echo "make test-quick  without the slow tests"
	@echo "make test-torture  every scenario of make torture, shortened"
	@echo "make check       lint, types and tests"
	@echo "make torture     break builds, runs and files at random (SCENARIOS=... SEED=0, COUNT=... or MINUTES=...)"
	@echo "make format      format the code"
	@echo "make bench       how fast a build is on this machine"
	@echo "make bench-stream  how fast batches are, beside other libraries (CACHE=folder for images of your own)"

install: $(BASE)

develop: $(LINT) $(TEST)

# Dependency groups need pip 25.1; the one that a Python brings may be older.
$(BASE): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) --editable .
	@touch $@

$(LINT): $(BASE)
	$(PIP) --group lint
	@touch $@

$(TEST): $(BASE)
	$(PIP) --editable ".[dask,ray,s3,zstd]" --group test
	@touch $@

demo: $(BASE)
	rm -rf demo/run
	$(BIN)/ldata sample demo/images
	$(BIN)/ldata scan demo/images
	$(BIN)/ldata build demo/images --size 128 --size 224 --cache demo/cache --name sample
	$(BIN)/ldata stats --cache demo/cache --size 128
	$(BIN)/ldata stats --cache demo/cache --size 224
	$(BIN)/ldata preview demo/images --out demo/preview.png
	$(BIN)/ltrain --cache demo/cache --size 128 --model resnet18-narrow --epochs 12 --out demo/run
	@echo
	@echo "Done. Look at:"
	@echo "  demo/preview.png           what preprocessing does to each class"
	@echo "  demo/run/history.png       accuracy and loss per epoch"
	@echo "  demo/run/test/summary.md   the results, and how far they can be believed"
	@echo "  demo/run/test/confusion.png"

# Compiled tests are kept: each process would translate all of them anew, in 15 s. Files are in memory where there is room.
IN_MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 {print "PYTEST_DEBUG_TEMPROOT=/dev/shm"}')
TESTS := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(IN_MEMORY) $(BIN)/python -m pytest -n auto --dist loadfile

test: $(TEST)
	$(TESTS) --no-loadscope-reorder

test-quick: $(TEST)
	$(TESTS) --no-loadscope-reorder -m "not slow and not torture"

test-torture: $(TEST)
	$(TESTS) -m torture tests

lint: $(LINT)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# Types are checked against the engines and stores that the tests run.
type: $(LINT) $(TEST)
	$(BIN)/mypy

check: lint type test

format: $(LINT)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BASE)
	$(BIN)/python benchmarks/bench_build.py

# CACHE names a cache of 224 px images; empty, images are generated.
bench-stream: $(TEST)
	$(PIP) --group peers
	$(BIN)/python benchmarks/bench_stream.py $(CACHE)

# Without COUNT each scenario breaks as much as it says itself: 100, or 2,000 layouts of sources.
SEED ?= 0
torture: $(TEST)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture $(SCENARIOS) --seed $(SEED) $(if $(COUNT),--count $(COUNT)) $(if $(MINUTES),--minutes $(MINUTES))

clean:
	rm -rf demo build *.egg-info .mypy_cache .pytest_cache .ruff_cache
