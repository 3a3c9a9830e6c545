# Every target but help and clean first sets up .venv, with the tools it needs inside: only make and Python >= 3.11 have
# to be there. Choose the interpreter with `make PYTHON=python3.13 …` (after `make clean`, if .venv exists).

# A name on PATH may be a shim of a version that is not there, so a candidate counts only if it runs and can make a venv.
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 python
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c '$(USABLE)' 2>/dev/null && echo $$p && break; done)

BIN := .venv/bin
READY := .venv/.ready

# Without this, pyright asks a registry at every run whether there is a newer pyright.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help demo service test lint bench torture clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(READY)  ## run the example that crashes and goes on
	@$(BIN)/python examples/census.py --demo

service: $(READY)  ## run the example service, on port 8000
	@$(BIN)/python -m examples.service

test: lint  ## lint, then every test but the long ones
	$(BIN)/pytest

lint: $(READY)  ## style, types and the import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

bench: $(READY)  ## measure the engine
	$(BIN)/python -m benchmarks

torture: $(READY)  ## the long tests
	$(BIN)/pytest -m torture

clean:  ## remove .venv and all that was built
	rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 with venv found: give one with PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
