# The commands of this project. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Which FAISS: `cpu`, or `gpu` on a machine with CUDA; never both.
EXTRA ?= cpu
# What else to say to `bench-model` and `bench-gpu`: `--base`, `--corpus`, `--threads`, `--only`, ...
BENCH ?=
# Test files at once; each of these processes has servers of its own.
AT_ONCE ?= 2
# Where pip looks for torch; empty means wherever pip looks for everything.
TORCH_INDEX ?=
# For train-default: training files, budget, where it all goes, and how many processes train
# together; DATA for bench-retrieval too.
DATA ?= var/training/data
MINUTES ?= 60
OUT ?= var/training/default
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH_FROM := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: train-default help install dev demo up down test lint format sure bench bench-model bench-gpu bench-queue bench-nights bench-retrieval chaos clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed ## a virtual environment with everything `clara` needs
dev: $(VENV)/.dev ## the same, and what tests and checks need

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet torch==2.13.0 $(TORCH_FROM)
	$(PIP) install --quiet --editable '.[$(EXTRA)]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install --quiet --editable '.[$(EXTRA),dev]'
	@touch $@

demo: install ## ingest the sample shop through the API and ask it 30 questions
	$(BIN)/clara demo

up: install ## start everything on this machine; Ctrl-C stops it
	$(BIN)/clara up

down: install ## clean up after a crash
	$(BIN)/clara down

test: dev ## every test, on real servers; AT_ONCE=1 for one after the other
	$(BIN)/python -m pytest --numprocesses $(AT_ONCE) --dist loadfile --no-loadscope-reorder

lint: dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install ## the benchmarks that need no corpus: ranking, threads
	$(BIN)/python scripts/bench_fusion.py
	$(BIN)/python scripts/bench_threads.py

bench-model: install ## the model library against the plain way; BENCH='--corpus FILE' for your own text
	$(BIN)/python scripts/bench_model.py $(BENCH)

bench-gpu: install ## the same on a GPU, with more of everything
	$(BIN)/python scripts/bench_model.py --device cuda $(BENCH)

chaos: dev ## kill, restart, flood and empty everything while users work; BENCH='--seed 1'
	$(BIN)/python scripts/run_chaos.py $(BENCH)

bench-queue: dev ## what API and queue add to an answer, and how many questions a second are accepted
	$(BIN)/python scripts/bench_queue.py $(BENCH)

bench-nights: dev ## nights, plans and rollbacks of 100,000 passages; BENCH='--passages 10000'
	$(BIN)/python scripts/bench_nights.py $(BENCH)

bench-retrieval: install ## recall and latency of search: make bench-retrieval DATA=dir, laid out as BEIR's
	$(BIN)/python scripts/bench_retrieval.py --data $(DATA) $(BENCH)

train-default: install ## the default checkpoint again: make train-default DATA=dir MINUTES=20 PROCESSES=2
	$(BIN)/clara train default --data $(DATA) --minutes $(MINUTES) --out $(OUT) $(if $(PROCESSES),--processes $(PROCESSES))

format: dev ## rewrite the code as ruff likes it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sure: lint test ## every check there is

clean: ## remove the virtual environment; data under var/ stays
	rm -rf $(VENV)
