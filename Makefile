# What one does with this tree. `make` alone says so too.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv

.PHONY: help demo up test chaos kill-points fuzz attack schema check format lint types lock clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

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

demo: $(VENV)/run.stamp ## The main job on real images, start to end (DATA=path.zip for your own)
	@$(BIN)/graft demo $(if $(DATA),--data "$(DATA)")

up: $(VENV)/run.stamp ## Start the service on this machine
	@$(BIN)/graft up

# A thread a process: several of them on few cores wait for one another most of the time.
test: $(VENV)/dev.stamp ## Run every test; they start their own PostgreSQL, Redis and S3
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

JOBS ?= 2000
SECONDS ?= 1800
MODE ?= embedded
SEED ?= 1
EVERY ?= 12
chaos: $(VENV)/dev.stamp ## Break a working service: MODE=embedded or team, SECONDS=1800, JOBS=2000, SEED=1, EVERY=12
	@$(BIN)/python -m tests.chaos.run --mode $(MODE) --jobs $(JOBS) --seconds $(SECONDS) --seed $(SEED) --every $(EVERY)

kill-points: $(VENV)/dev.stamp ## Kill a training at each of its steps
	GRAFT_TEST_EVERY_STEP=1 $(BIN)/python -m pytest tests/worker/test_kill_points.py

fuzz: $(VENV)/dev.stamp ## Give archives and images 100,000 broken inputs; some minutes
	GRAFT_TEST_FUZZ=50000 $(BIN)/python -m pytest tests/datasets/test_fuzz.py

attack: $(VENV)/dev.stamp ## Attack a service over sockets, at full size
	GRAFT_TEST_ATTACK=10 $(BIN)/python -m pytest tests/attack

schema: $(VENV)/dev.stamp ## Ask all that the OpenAPI document allows, and much that it does not
	GRAFT_TEST_SCHEMA=100 $(BIN)/python -m pytest tests/api/test_schemathesis.py --timeout 7200

check: format lint types test ## What CI does, after formatting

format: $(VENV)/dev.stamp ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/dev.stamp ## Look for faults in style, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp ## Check the types
	$(BIN)/mypy

lock: | $(UV) ## Pin every dependency again, with hashes and no registry's address
	$(UV) pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url --quiet --upgrade -o requirements.lock
	$(UV) pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --quiet -c requirements.lock -o requirements-dev.lock

clean: ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
