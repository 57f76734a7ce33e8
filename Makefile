# Each target sets up .venv by itself; a second run of the set-up does nothing.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-ray test-rest test-cluster lint bench clean

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --upgrade -c constraints.txt pip setuptools
	$(PIP) install --quiet -c constraints.txt -e '.[cluster,notebooks,export,dev]'
	# For its validator of fine-tuning lists, which needs nothing of what its models need.
	$(PIP) install --quiet --no-deps -c constraints.txt voxcpm
	touch $@

# The whole way on the bundled real recordings: clips, references, descriptions, clones by the shipped
# checkpoint, latents, samples, 20 steps of training, and the report that plays it all.
demo: .venv/.ready
	$(BIN)/voxquarry curate tests/data/devset/manifest.csv --out demo-corpus --profile embedded
	$(BIN)/voxquarry mine demo-corpus
	$(BIN)/voxquarry annotate demo-corpus
	$(BIN)/voxquarry clone demo-corpus --checkpoint nano
	$(BIN)/voxquarry encode demo-corpus --checkpoint nano
	$(BIN)/voxquarry compose demo-corpus --checkpoint nano
	$(BIN)/voxquarry train demo-corpus --checkpoint nano --recipe nano --set trainer.steps=20 --out demo-run
	$(BIN)/voxquarry report demo-corpus

# What starts Ray waits more than it computes, so the other tests run beside it.
test: .venv/.ready
	$(MAKE) --jobs 2 --output-sync=line test-ray test-rest

test-ray: .venv/.ready
	$(BIN)/pytest -m "ray and not cluster" --durations 15

# Apart, since Ray's own limits for the start of a node or a dashboard want free cores.
test-cluster: .venv/.ready
	$(BIN)/pytest -m cluster

test-rest: .venv/.ready
	$(BIN)/pytest -m "not ray" --durations 15

lint: .venv/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Prints tables of speeds, each measured in one run; more than an hour on two cores.
bench: .venv/.ready
	$(BIN)/python -m tests.benchmarks.bench_curate
	$(BIN)/python -m tests.benchmarks.bench_core
	$(BIN)/python -m tests.benchmarks.bench_mine
	$(BIN)/python -m tests.benchmarks.bench_annotate
	$(BIN)/python -m tests.benchmarks.bench_audit
	$(BIN)/python -m tests.benchmarks.bench_watermark
	$(BIN)/python -m tests.benchmarks.bench_clone
	$(BIN)/python -m tests.benchmarks.bench_train
	$(BIN)/python -m tests.benchmarks.bench_scaling

clean:
	rm -rf .venv .venv-voxkitchen .venv-voxcpm demo-corpus demo-run bench-out
