# `make help` lists what there is. Each target installs what it needs into .venv on first use.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Byte code is written on first import, where it is needed, not for 20,000 files at installation.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test check types docs reference format constraints system system-test wheel-test bench-quickstart \
	bench-long-form bench-train bench-kernels bench-dit bench-reference-cost bench-control bench-store bench-submit bench-node-death bench-scheduler bench-packing bench-headroom bench-forecast simulate-report chaos clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | expand -t 20

quickstart: $(VENV)/.local system  ## install, start HELIOS, train the five stages, deploy, generate a talking video
	@PATH="$(CURDIR)/$(BIN):$$PATH" ./quickstart.sh

# Tests wait more than they compute, so there may be more processes than cores; `tests/conftest.py` deals the tests out.
WORKERS ?= 3
test: $(VENV)/.dev system system-test  ## run the tests (arguments: ARGS="-k store")
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: $(VENV)/.dev  ## lint, types, floors, docs, the wheel
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(MAKE) --jobs=2 --output-sync=target types docs wheel-test

types: $(VENV)/.dev  ## check types
	$(BIN)/mypy

docs: $(VENV)/.dev  ## build the documentation into site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

reference: $(VENV)/.dev  ## remake the reference pages that are generated from the code
	$(BIN)/python -m helios.spec.reference > docs/reference/spec.md
	$(BIN)/python -m helios.cli.reference > docs/reference/cli.md
	$(BIN)/python tests/platform/cli/test_frozen_flags.py

bench-quickstart:  ## how long the quickstart takes and how much memory it needs, step by step
	$(PYTHON) benchmarks/quickstart.py

bench-long-form: $(VENV)/.dev  ## memory over 60 s of video, seams of chunks; person, lips and light over 11 s (after the quickstart)
	$(BIN)/python benchmarks/long_form.py $(ARGS)

bench-train: $(VENV)/.dev  ## what ZeRO costs a step over plain data parallelism
	$(BIN)/python benchmarks/train_overhead.py

bench-reference-cost: $(VENV)/.dev  ## what a frame of reference costs a denoising step: cached against dense concatenation
	$(BIN)/python benchmarks/reference_cost.py $(ARGS)

bench-kernels: $(VENV)/.dev  ## fused kernels against plain torch on a CUDA device (ARGS=--interpret: errors alone, on the CPU)
	$(BIN)/python benchmarks/kernels.py $(ARGS)

bench-dit: $(VENV)/.dev  ## the transformer against diffusers' Wan on a CUDA device: time and MFU (ARGS="--device cpu --small" tries it)
	$(BIN)/python benchmarks/dit.py $(ARGS)

bench-control: $(VENV)/.dev system-test  ## submit, list, watch with 10,000 queued jobs; SQLite, then two replicas on PostgreSQL
	$(BIN)/python benchmarks/control.py $(ARGS)

bench-store: $(VENV)/.dev system-test  ## writes a second of either database
	$(BIN)/python benchmarks/store.py $(ARGS)

bench-submit: $(VENV)/.dev  ## from `helios submit` to the first line of user code, against `ray job submit`
	$(BIN)/python benchmarks/submit_tax.py $(ARGS)

bench-node-death: $(VENV)/.dev  ## a raylet of a two-node cell is killed: when it is known, when the gang goes on
	$(BIN)/python benchmarks/node_death.py $(ARGS)

bench-scheduler: $(VENV)/.dev  ## what a scheduling cycle takes: steady churn, cold fill, reclaim, growth with nodes and queue
	$(BIN)/python benchmarks/scheduler.py $(ARGS)

bench-packing: $(VENV)/.dev  ## GPUs that stay unallocated when a cluster is filled: FGD against other packing (openb trace)
	$(BIN)/python benchmarks/packing.py $(ARGS)

bench-headroom: $(VENV)/.dev  ## how often demand outgrows the headroom that is held, and how much is held (Earth trace)
	$(BIN)/python benchmarks/headroom.py $(ARGS)

bench-forecast: $(VENV)/.dev  ## what bands of forecast starts cover, and how far forecasts are off (Philly trace, tuning weeks)
	$(BIN)/python benchmarks/forecast.py $(ARGS)

simulate-report: $(VENV)/.dev  ## schedulers compared on the Philly trace: the committed report (ARGS="--quick", "--minutes 30")
	$(BIN)/python benchmarks/simulate_report.py $(ARGS)

chaos: $(VENV)/.dev system-test  ## 2,000 jobs on 15 simulated cells while everything is killed, paused and cut; both databases
	$(BIN)/python -m benchmarks.chaos.run $(ARGS)

wheel-test: $(VENV)/.dev  ## build the wheel, install it without the sources, validate and run the unit tests against it
	$(BIN)/python tests/wheel_check.py

format: $(VENV)/.dev  ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints:  ## resolve every dependency again, in one step, in an empty environment
	$(PYTHON) -m venv --clear build/resolve
	build/resolve/bin/pip install --quiet '.[dev]'
	build/resolve/bin/pip uninstall --quiet --yes helios-platform
	{ head -n 1 constraints.txt; build/resolve/bin/pip freeze --exclude pip --exclude setuptools | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/resolve

system:  ## install the one system package: espeak-ng, which speaks text for the endpoint
	@command -v espeak-ng >/dev/null && exit 0; \
	if ! command -v apt-get >/dev/null; then echo "install espeak-ng with this system's package manager, then run make again" >&2; exit 1; fi; \
	root=""; if [ "$$(id -u)" != 0 ]; then root="sudo"; fi; \
	echo "installing espeak-ng"; \
	$$root apt-get update -qq && $$root apt-get install -qq -y espeak-ng >/dev/null

system-test:  ## install what only tests and benchmarks need: PostgreSQL
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null && exit 0; \
	if ! command -v apt-get >/dev/null; then echo "install PostgreSQL with this system's package manager, then run make again" >&2; exit 1; fi; \
	root=""; if [ "$$(id -u)" != 0 ]; then root="sudo"; fi; \
	echo "installing PostgreSQL"; \
	$$root apt-get update -qq && $$root apt-get install -qq -y postgresql >/dev/null

clean:  ## remove what builds made; .helios (your runs and checkpoints) and .venv stay
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.local: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing HELIOS into $(VENV) (about 2.5 GB, a few minutes)"
	$(INSTALL) -e '.[local]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing HELIOS and its developer tools into $(VENV) (about 3 GB, a few minutes)"
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.local
