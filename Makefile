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

# The main job on the bundled real recordings: clips, the table, the report.
demo: .venv/.ready
	$(BIN)/voxquarry run tests/data/devset/manifest.csv --out demo-corpus --profile embedded

test: .venv/.ready
	$(BIN)/pytest

lint: .venv/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Prints tables of speeds, each measured in one run; about thirty minutes on two cores.
bench: .venv/.ready
	$(BIN)/python -m tests.benchmarks.bench_curate
	$(BIN)/python -m tests.benchmarks.bench_core

clean:
	rm -rf .venv .venv-voxkitchen .venv-voxcpm demo-corpus bench-out
