# The targets for working on this tree; `make` alone lists them.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv

.PHONY: help demo up test test-long chaos kill-points fuzz attack schema docs equal old-home gpu check format lint types lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

# Two stamps: the demo needs no test tools, and the test environment holds all that the demo's does.
$(UV):
	@echo "Making the environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Graftwork needs Python 3.11 or newer: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/run.stamp: requirements.lock pyproject.toml | $(UV)
	@echo "Installing what the service needs (torch is most of it)"
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/run.stamp
	@echo "Installing what the tests need"
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/run.stamp ## Train and predict on real images (DATA=path.zip uses your own)
	@$(BIN)/graft demo $(if $(DATA),--data "$(DATA)")

up: $(VENV)/run.stamp ## Start the service on this machine
	@$(BIN)/graft up

# A thread a process: several of them on few cores wait for one another most of the time. One process more than there are
# cores: many tests wait for a lease, a poll or a process that starts.
PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(min(len(os.sched_getaffinity(0)) + 1, 6))')
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
SPREAD := -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
test: $(VENV)/dev.stamp ## Run the tests, and print the longest; they start their own PostgreSQL, Redis and S3
	$(PYTEST) $(SPREAD) -m "not long"

test-long: $(VENV)/dev.stamp ## Run what is only slow: longer runs of what `make test` proves in short
	$(PYTEST) $(SPREAD) -m long

JOBS ?= 2000
SECONDS ?= 1800
MODE ?= embedded
SEED ?= 1
EVERY ?= 12
chaos: $(VENV)/dev.stamp ## Break a working service: MODE=embedded or team, SECONDS=1800, JOBS=2000, SEED=1, EVERY=12
	@$(BIN)/python -m tests.chaos.run --mode $(MODE) --jobs $(JOBS) --seconds $(SECONDS) --seed $(SEED) --every $(EVERY)

kill-points: $(VENV)/dev.stamp ## Kill a training at each of its steps
	GRAFT_TEST_EVERY_STEP=1 $(BIN)/python -m pytest tests/worker/test_kill_points.py -k one

fuzz: $(VENV)/dev.stamp ## Read 100,000 broken archives and images; takes some minutes
	GRAFT_TEST_FUZZ=50000 $(BIN)/python -m pytest tests/datasets/test_fuzz.py

attack: $(VENV)/dev.stamp ## Attack a service over sockets, at full size
	GRAFT_TEST_ATTACK=10 $(BIN)/python -m pytest tests/attack

schema: $(VENV)/dev.stamp ## Send calls that the OpenAPI document allows, and calls that it does not
	GRAFT_TEST_SCHEMA=100 $(BIN)/python -m pytest tests/api/test_schemathesis.py --timeout 7200

docs: $(VENV)/dev.stamp ## Write the guide's tables that are made from the code
	$(BIN)/python -m app.trainings.reference docs/guide.md

equal: $(VENV)/run.stamp ## Train 13 ways here and at COMMIT=...; the models have to be the same to the bit
	@$(BIN)/python -m bench.equality --commit $(COMMIT) $(if $(ADDED),--added $(ADDED))

old-home: $(VENV)/dev.stamp ## Open, serve and resume here what COMMIT=... has stored
	@$(BIN)/python -m bench.old_home --commit $(COMMIT) $(if $(ADDED),--added $(ADDED))

# Eight minutes at most; a machine that is lent for a quarter of an hour has time for a second run.
gpu: $(VENV)/dev.stamp ## Run all that needs a GPU and print one table; DATA=path.zip for photographs
	@$(BIN)/python -m bench.gpu $(if $(DATA),--data "$(DATA)")

check: format lint types test ## What CI does, after formatting

format: $(VENV)/dev.stamp ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/dev.stamp ## Check format and style without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp ## Check the types
	$(BIN)/mypy

lock: | $(UV) ## Pin every dependency again, with hashes
	$(UV) pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url --quiet --upgrade -o requirements.lock
	$(UV) pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --quiet -c requirements.lock -o requirements-dev.lock

clean: ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
