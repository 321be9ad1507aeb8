# perception3d: everything a user or a developer runs.  `make help` lists the targets.
SHELL := /bin/bash
PYTHON_FROM := $(origin PYTHON)
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c '' 2> /dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
MODEL ?= dsvt
NATIVE := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: help setup demo test lint bench bench-check sanitize simt-check gpu-check wheel clean

help:
	@echo "make setup      create $(VENV), install the pinned requirements, build the operators"
	@echo "make demo       train, test and draw on a synthetic nuScenes-format data set (MODEL=dsvt, scatterformer, voxel_mamba)"
	@echo "make test       run the tests (no network, no GPU)"
	@echo "make lint       format, lint, types, and nvcc compile of every kernel where nvcc exists"
	@echo "make bench      operators against their peers on this machine, JSON and table"
	@echo "make bench-check  fail if an operator has lost half of its lead over its peers (minutes)"
	@echo "make sanitize   the operators' tests with memory and undefined behaviour checked (minutes)"
	@echo "make simt-check the operators' tests, each call again with the CUDA kernels on the interpreter (minutes)"
	@echo "make gpu-check  everything that needs a CUDA device (PYTHON=python3 works without $(VENV))"
	@echo "make wheel      one wheel for every CPython >= 3.10 and every torch >= 2.10"
	@echo "make clean      remove what was built"

$(VENV)/.ready: requirements.txt requirements-dev.txt tools/setup_environment.sh
	PYTHON="$(PYTHON)" tools/setup_environment.sh $(VENV)
	@touch $@

$(VENV)/.built: $(VENV)/.ready setup.py pyproject.toml $(NATIVE)
	$(BIN)/pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

setup: $(VENV)/.built

demo: setup
	$(BIN)/python tools/run_demo.py --model $(MODEL)

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/python tools/compile_kernels.py

bench: setup
	$(BIN)/python tools/benchmark_ops.py --device cpu --json work_dirs/bench/ops-cpu.json

bench-check: setup
	$(BIN)/python tools/benchmark_ops.py --workload tiny f1 --rounds 3 --check

sanitize: setup
	PYTHON=$(BIN)/python tools/sanitize.sh

simt-check: setup
	$(BIN)/python -m pytest tests/ops --shadow simt

gpu-check:
	PYTHON="$(if $(findstring environment,$(PYTHON_FROM))$(findstring command,$(PYTHON_FROM)),$(PYTHON),$(or $(wildcard $(BIN)/python),$(PYTHON)))" tools/gpu_check.sh

wheel: setup
	rm -rf build dist
	$(BIN)/pip wheel --quiet --no-build-isolation --no-deps -w dist .
	@ls dist

clean:
	rm -rf build dist *.egg-info perception3d/*.so $(VENV)/.built
