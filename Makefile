VENV := .venv
PYTHON := $(VENV)/bin/python
# Stamps: an environment is built anew only when what it is built from has changed.
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
CODE := src tests tools $(wildcard migrations bench examples)
LAWS := tests/unit/test_laws.py tests/unit/test_explanations.py tests/integration/test_laws.py

PIP_INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input
INSTALL_PROJECT := $(PIP_INSTALL) --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.PHONY: help run test check check-format check-code check-types check-layers check-openapi check-diagrams \
	check-requirements services run-production verify verify-laws verify-lapses verify-api verify-decoders \
	verify-deliveries verify-outage verify-mutations bench format lock development
.DELETE_ON_ERROR:

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUNTIME) ## serve on 127.0.0.1:8000 in one process, with SQLite (first migrates)
	@$(PYTHON) -m lifecycle_engine migrate
	@exec $(PYTHON) -m lifecycle_engine serve

test: $(DEVELOPMENT) ## run all tests, on SQLite and on PostgreSQL and Kafka, which it starts itself
	$(PYTHON) -m pytest -n 2 --dist loadfile

check: check-format check-code check-types check-layers check-openapi check-diagrams check-requirements ## format, lint, types, layers, OpenAPI, AsyncAPI, diagrams, requirements

check-format: $(DEVELOPMENT)
	$(PYTHON) -m ruff format --check $(CODE)

check-code: $(DEVELOPMENT)
	$(PYTHON) -m ruff check $(CODE)

check-types: $(DEVELOPMENT)
	$(PYTHON) -m mypy $(CODE)

check-layers: $(DEVELOPMENT)
	$(VENV)/bin/lint-imports

check-openapi: $(DEVELOPMENT)
	$(PYTHON) -m lifecycle_engine openapi --check
	$(PYTHON) -m lifecycle_engine asyncapi --check

check-diagrams: $(DEVELOPMENT)
	$(PYTHON) -m tools.diagrams --check

check-requirements: $(DEVELOPMENT)
	$(PYTHON) -m tools.lock --check

services: $(DEVELOPMENT) ## run PostgreSQL and Kafka until Ctrl-C, and say how to reach them
	@exec $(PYTHON) -m tools.services

run-production: $(DEVELOPMENT) ## run one process a role, on Kafka and PostgreSQL
	@exec $(PYTHON) -m tools.production

verify: verify-laws verify-lapses verify-api verify-decoders verify-deliveries verify-outage verify-mutations ## all of the following, for some hours

verify-laws: $(DEVELOPMENT) ## look for a counterexample to the laws of the fold in earnest, for an hour or so
	$(PYTHON) -m pytest --hypothesis-profile=laws $(LAWS)

verify-lapses: $(DEVELOPMENT) ## load all of CDNOW in the order of its file while timers are at work
	LIFECYCLE_TEST_CDNOW_CUSTOMERS=23570 $(PYTHON) -m pytest tests/cdnow/test_lapses.py

verify-api: $(DEVELOPMENT) ## try every route as the OpenAPI document describes it, with hundreds of requests each
	LIFECYCLE_TEST_API_EXAMPLES=100 $(PYTHON) -m pytest --timeout 0 tests/bad_input/test_api.py

verify-decoders: $(DEVELOPMENT) ## look for bytes that break a decoder (MINUTES=10)
	LIFECYCLE_TEST_DECODER_MINUTES=$(or $(MINUTES),10) $(PYTHON) -m pytest --timeout 0 tests/bad_input/test_decoders.py

verify-deliveries: $(DEVELOPMENT) ## tell twenty endpoints of 10,000 changes while dispatchers are killed, twenty times at each point
	LIFECYCLE_TEST_HOOK_TOUCHPOINTS=9000 LIFECYCLE_TEST_HOOK_KILLS=20 $(PYTHON) -m pytest --timeout 0 tests/faults/test_dispatchers.py

verify-outage: $(DEVELOPMENT) ## kill the broker for a minute (SECONDS=60) at full load, and say how the way in took it
	LIFECYCLE_TEST_OUTAGE_SECONDS=$(or $(SECONDS),60) $(PYTHON) -m pytest --timeout 0 --log-cli-level=INFO tests/faults/test_outage.py

verify-mutations: $(DEVELOPMENT) ## take out what makes effects happen once, and see the tests go red
	$(PYTHON) -m tests.faults.mutations

bench: $(DEVELOPMENT) ## measure throughput and formats beside the bare floor and the day-one service, the fold, timers, memory
	$(PYTHON) -m bench

format: $(DEVELOPMENT) ## format, and mend what the linter can
	$(PYTHON) -m ruff format $(CODE)
	$(PYTHON) -m ruff check --fix $(CODE)

lock: $(DEVELOPMENT) ## resolve requirements/*.in into *.txt (UPGRADE=1: to newer versions)
	$(PYTHON) -m tools.lock $(if $(UPGRADE),--upgrade)

development: $(DEVELOPMENT)

# Development includes runtime, so the newer of the two stamps is the truth for both.
$(RUNTIME): requirements/runtime.txt requirements/build.txt pyproject.toml | $(PYTHON)
	@echo "Installing what the program needs into $(VENV) …"
	@$(PIP_INSTALL) --no-deps --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@$(INSTALL_PROJECT)
	@touch $@

$(DEVELOPMENT): requirements/development.txt pyproject.toml | $(PYTHON)
	@echo "Installing what the program and its development need into $(VENV) …"
	@$(PIP_INSTALL) --no-deps --require-hashes -r requirements/development.txt
	@$(INSTALL_PROJECT)
	@touch $(RUNTIME) $@

$(PYTHON):
	@for python in python3 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    echo "Creating $(VENV) with $$($$python --version) …"; \
	    $$python -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); \
	    echo "error: '$$python -m venv' failed (on Debian and Ubuntu it needs the package python3-venv)." >&2; exit 1; \
	  fi; \
	done; \
	echo "error: Python 3.11, 3.12 or 3.13 is needed; none of python3, python3.13, python3.12, python3.11 is one." >&2; exit 1
