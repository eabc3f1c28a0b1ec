# make run    installs what is missing into .venv and evaluates the demo; make run ARGS="task=… model=…"
# make test   installs, lints, checks types and imports, and tests
# make check  evaluates the demo with both bundled models and compares with results/baseline; ARGS="--junit FILE …"
# make baseline  makes results/baseline anew: after a change that is meant, from a clean checkout
# make bench  times evalkit beside sentence-transformers, FlagEmbedding and mteb (some 30 minutes)
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# the score store would answer for a model that has changed: it stays off
DEMO = $(BIN)/python -m evalkit -m task=demo model=multilingual-e5-small-q4,bm25 cache=off offline=true

.PHONY: run test lint check baseline bench clean

run: .venv/.installed
	$(BIN)/python -m evalkit $(ARGS)

test: .venv/.installed-dev
	$(MAKE) lint
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: .venv/.installed
	rm -rf results/check
	$(DEMO) results_dir=results/check
	$(BIN)/python -m evalkit check --baseline results/baseline --results results/check --tolerance 0.1 $(ARGS)

baseline: .venv/.installed
	rm -rf results/baseline
	$(DEMO) results_dir=results/baseline

bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks $(ARGS)

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/.installed $@

clean:
	rm -rf .venv dist multirun .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
