# Needs python3 (3.11 or newer, with venv and pip), make and git. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
LOCKED := --require-hashes --only-binary :all:
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable
HISTORIES := tests/model tests/races
# Against attackers, clumsy hands, other releases; each file with servers of its own. And the bench.
SIEGE := tests/bad_input tests/chaos tests/flows/test_canary.py tests/flows/test_many_messages.py \
    tests/flows/test_missing_secret.py \
    tests/flows/test_upgrade.py tests/models/test_audit_moved.py tests/models/test_grants.py \
    tests/models/test_migrations_under_load.py tests/test_advisories.py tests/test_bench.py \
    tests/worker/cli/test_db.py tests/worker/test_failover.py tests/worker/test_forged_messages.py \
    tests/worker/test_permissions.py tests/worker/test_publisher.py tests/worker/test_stopping.py \
    tests/worker/test_tls.py tests/worker/test_watchdog.py
SAMPLES ?= ../shared/samples
MINUTES ?= 10
BROKER ?= valkey

.DEFAULT_GOAL := help
.PHONY: help install run test siege proof conformance crash-matrix chaos check demo bench lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

install: $(INSTALLED) ## set up .venv; EXTRAS=1 with what the sinks for Vault and AWS need
	@test -z "$(EXTRAS)" || $(PIP) $(LOCKED) --requirement requirements-extras.lock

run: $(INSTALLED) ## run Keyturn in the foreground; Ctrl-C stops it
	@$(BIN)/keyturn up

test: $(TESTABLE) ## run the tests against servers of their own; ARGS='-k word' narrows
	@$(BIN)/python -m pytest -n 3 --maxschedchunk 1 $(HISTORIES:%=--ignore=%) $(SIEGE:%=--ignore=%) $(ARGS)

siege: $(TESTABLE) ## bad input, forged messages, leaks, permissions, upgrades; part of CI
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(SIEGE) $(ARGS)

proof: $(TESTABLE) ## look for unforeseen histories, orders and crashes; part of CI
	@$(BIN)/python -m pytest -n 3 --maxschedchunk 1 tests/faults $(HISTORIES) $(ARGS)

conformance: $(TESTABLE) ## real payloads of producers; SAMPLES=../shared/samples names their directory
	@SAMPLES=$(abspath $(SAMPLES)) $(BIN)/python -m pytest tests/conformance $(ARGS)

crash-matrix: $(TESTABLE) ## break every flow at every point, in every way
	@$(BIN)/python -m pytest tests/faults --whole -n 2 --maxschedchunk 1 $(ARGS)

chaos: $(TESTABLE) ## break running processes and servers under load; MINUTES=10 BROKER=valkey|rabbitmq
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) --broker $(BROKER) $(ARGS)

check: $(TESTABLE) ## lint, format, types, import contracts, security
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit -q -c pyproject.toml -r models tasks worker bench
	@$(BIN)/python -m tests.advisories

demo: $(INSTALLED) ## a dozen accounts through everything, in a minute or two
	@$(BIN)/keyturn demo

bench: $(TESTABLE) ## measure, and write bench/results.json
	@$(BIN)/python -m bench

lock: ## write the lock files anew (needs uv)
	uv pip compile pyproject.toml $(COMPILE) --output-file requirements.lock
	uv pip compile pyproject.toml $(COMPILE) $(SINKS) --constraint requirements.lock \
	    --output-file requirements-extras.lock
	uv pip compile pyproject.toml $(COMPILE) $(SINKS) --extra test \
	    --constraint requirements-extras.lock --output-file requirements-test.lock

clean: ## remove .venv; the data in .keyturn stays
	rm -rf $(VENV)

COMPILE := --extra embedded --extra build --universal --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-header --no-annotate

SINKS := --extra vault --extra aws-secretsmanager

$(INSTALLED): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	    echo "Keyturn needs Python 3.11 or newer and finds no '$(PYTHON)': install it, or name" \
	         "yours: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Keyturn needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	         "Name a newer one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "'$(PYTHON)' has no venv with pip. On Debian and Ubuntu: apt-get install python3-venv" \
	         >&2; exit 1; }
	@echo "Setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) $(LOCKED) --requirement requirements.lock
	@$(PIP) --no-index --no-deps --no-build-isolation --editable .
	@touch $@

$(TESTABLE): $(INSTALLED) requirements-test.lock
	@$(PIP) $(LOCKED) --requirement requirements-test.lock
	@touch $@
