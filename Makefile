# make run    installs what is missing into .venv and evaluates the demo; make run ARGS="task=… model=…"
# make test   installs, lints, checks types and imports, and tests
# make bench  times evalkit beside sentence-transformers, FlagEmbedding and mteb (some 30 minutes)
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: run test lint bench clean

run: .venv/.installed
	$(BIN)/python -m evalkit $(ARGS)

test: .venv/.installed-dev
	$(MAKE) lint
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

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
