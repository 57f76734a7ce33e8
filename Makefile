# Each target sets up .venv by itself; a second run of the set-up does nothing.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint bench clean

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --upgrade -c constraints.txt pip setuptools
	$(PIP) install --quiet -c constraints.txt -e '.[cluster,dev]'
	touch $@

# The whole way on the bundled real recordings: clips, references, descriptions, the report; latents by
# the shipped AudioVAE, samples, and 200 steps of a nano model that starts from nothing.
demo: .venv/.ready
	$(BIN)/voxquarry curate tests/data/devset/manifest.csv --out demo-corpus --profile embedded
	$(BIN)/voxquarry mine demo-corpus
	$(BIN)/voxquarry annotate demo-corpus
	$(BIN)/voxquarry report demo-corpus
	test -e demo-model || $(BIN)/voxquarry init --size nano --corpus demo-corpus --vae nano --out demo-model
	$(BIN)/voxquarry encode demo-corpus --checkpoint demo-model
	$(BIN)/voxquarry compose demo-corpus --checkpoint demo-model
	$(BIN)/voxquarry train demo-corpus --checkpoint demo-model --recipe nano --out demo-run

test: .venv/.ready
	$(BIN)/pytest

lint: .venv/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Prints tables of speeds, each measured in one run; about fifty minutes on two cores.
bench: .venv/.ready
	$(BIN)/python -m tests.benchmarks.bench_curate
	$(BIN)/python -m tests.benchmarks.bench_core
	$(BIN)/python -m tests.benchmarks.bench_mine
	$(BIN)/python -m tests.benchmarks.bench_annotate
	$(BIN)/python -m tests.benchmarks.bench_watermark
	$(BIN)/python -m tests.benchmarks.bench_clone
	$(BIN)/python -m tests.benchmarks.bench_train

clean:
	rm -rf .venv .venv-voxkitchen .venv-voxcpm demo-corpus demo-model demo-run bench-out
