# `make demo` and `make test` need only Python 3.11 or newer: everything else is installed into
# .venv, once and again when pyproject.toml changes.

PYTHON ?= python3
ARGS ?=

# Without this, onnxruntime sends telemetry.
export ORT_DISABLE_TELEMETRY := 1

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -qq --editable

.DEFAULT_GOAL := help
.PHONY: help demo test calendar faults hostile bench bench-large lint format wheel quality clean
# Only one pip may run at a time.
.NOTPARALLEL:

help:
	@echo 'make demo                 start an embedded Postgres, load a sample catalogue and recommend'
	@echo 'make test                 run the tests; ARGS="-k interest" selects some of them'
	@echo 'make calendar             run clock-dependent tests on other dates and in other zones; 10 minutes, needs a C compiler'
	@echo 'make hostile              test tens of thousands of odd and broken inputs; half an hour'
	@echo 'make faults               kill workers and servers, cut connections, fill disks; 20 minutes'
	@echo 'make lint                 check style and types of the Python and the SQL'
	@echo 'make format               format the Python'
	@echo 'make wheel                build dist/pgrec-*.whl'
	@echo 'make bench                time everything beside its baseline, on 100,000 items; writes bench.json and .png'
	@echo 'make bench-large          time a million items, a worker under steady load, and a small encoder; an hour'
	@echo 'make quality DATA=folder  tune on and evaluate three data sets; an hour, writes build/quality'
	@echo 'make clean                remove .venv and everything built; then PYTHON=python3.12 selects another Python'

demo: .venv/.for-demo
	@$(BIN)/pgrec demo $(ARGS)

# Two processes, each with its own server.
test: .venv/.for-test
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

calendar: .venv/.for-test
	@$(BIN)/python tests/calendar/run.py $(ARGS)

hostile: .venv/.for-test
	@$(BIN)/python -m pytest tests/hostile --full --timeout 3600 $(ARGS)

# Ends with a count of survived faults; `make test` includes a small part of them.
faults: .venv/.for-test
	@$(BIN)/python -m pytest tests/faults --full $(ARGS)

lint: .venv/.for-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqruff lint sql

format: .venv/.for-lint
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

wheel: .venv/.made
	$(BIN)/python -m pip wheel --disable-pip-version-check -qq --no-deps --wheel-dir dist .

bench: .venv/.for-test
	@for subject in recommend recall writing folding encoding storage summary; do \
	    $(BIN)/python tests/bench/$$subject.py $(ARGS) || exit 1; done

bench-large: .venv/.for-test
	@$(BIN)/python tests/bench/encoder_cost.py
	@$(BIN)/python tests/bench/large.py $(ARGS)
	@$(BIN)/python tests/bench/summary.py $(ARGS)

# Lists of the shop keep seen items, because people buy them again.
quality: .venv/.for-test
	@mkdir -p build/quality
	@for set in movielens_small movietweetings; do \
	    $(BIN)/pgrec evaluate $(DATA)/$$set --protocol time --tune --oracle \
	        --json build/quality/$$set.json --plot build/quality/$$set.png $(ARGS) || exit 1; done
	@$(BIN)/pgrec evaluate $(DATA)/industrial --protocol rows --tune --keep-seen --oracle \
	    --json build/quality/industrial.json --plot build/quality/industrial.png $(ARGS)

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

.venv/.for-demo: EXTRAS = embedded,encoder
.venv/.for-test: EXTRAS = embedded,encoder,encoder-english,evaluate,privacy,test
.venv/.for-lint: EXTRAS = embedded,encoder,evaluate,test,lint

.venv/.for-demo .venv/.for-test .venv/.for-lint: .venv/.made pyproject.toml
	@echo 'Installing pgrec[$(EXTRAS)] into .venv; once, takes a minute or more'
	@$(INSTALL) '.[$(EXTRAS)]'
	@touch $@

# Debian packages ensurepip separately; without it, a failed venv is left half made.
.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'pgrec needs Python 3.11 or newer, and $(PYTHON) is not; try: make PYTHON=python3.12 ...' >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv' >&2; \
		exit 1; }
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@touch $@
