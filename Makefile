# One command for each thing; every target sets up what it needs. Needs Python 3.11 or newer, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test test-quick lint type check format bench bench-stream torture clean

help:
	@echo "make demo        everything once on generated cells: build, statistics, training, figures (in demo/)"
	@echo "make test        the whole test suite"
	@echo "make test-quick  without the slow tests"
	@echo "make check       lint, types and tests"
	@echo "make torture     break builds, runs and files at random (SCENARIOS=... SEED=0, COUNT=... or MINUTES=...)"
	@echo "make format      format the code"
	@echo "make bench       how fast a build is on this machine"
	@echo "make bench-stream  how fast batches are, beside other libraries (CACHE=folder for images of your own)"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $(INSTALLED)

demo: $(INSTALLED)
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

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-quick: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

type: $(INSTALLED)
	$(BIN)/mypy

check: lint type test

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)
	$(BIN)/python benchmarks/bench_build.py

# CACHE names a cache of 224 px images; empty, images are generated.
bench-stream: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable ".[dev,peers]"
	$(BIN)/python benchmarks/bench_stream.py $(CACHE)

# Without COUNT each scenario breaks as much as it says itself: 100, or 2,000 layouts of sources.
SEED ?= 0
torture: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture $(SCENARIOS) --seed $(SEED) $(if $(COUNT),--count $(COUNT)) $(if $(MINUTES),--minutes $(MINUTES))

clean:
	rm -rf demo build *.egg-info .mypy_cache .pytest_cache .ruff_cache
