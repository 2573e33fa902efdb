# Every target sets itself up: a virtual environment in .venv, pinned by constraints.txt. Stamp files
# remember what is installed, so the next run starts at once.
#
# Variables: PYTHON (makes .venv), WORKERS (of pytest), ARGS (passed on to pytest, the demo or the
# benchmark), BENCH (a module of benchmarks/).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= $(shell python3.11 -c '' >/dev/null 2>&1 && echo python3.11 || echo python3)
WORKERS ?= 2
ARGS ?=
BENCH ?= overhead

VENV := .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --no-input --disable-pip-version-check --quiet -c constraints.txt
DEV := $(VENV)/.installed-dev
# The demo needs less; an environment for developers has it all.
DEMO := $(if $(wildcard $(DEV)),$(DEV),$(VENV)/.installed-demo)

.PHONY: help test long demo bench lint format docs clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile

test: $(DEV) ## Run the tests
	$(PY) -m pytest -n $(WORKERS) $(ARGS)

long: $(DEV) ## Run the long-running checks
	$(PY) -m pytest -m long -n $(WORKERS) $(ARGS)

demo: $(DEMO) ## Train small models with losses of lpdiff (needs no developer's tools)
	$(PY) -m lpdiff demo all --small $(ARGS)

bench: $(DEV) ## Run a benchmark (BENCH=overhead)
	$(PY) -m benchmarks.$(BENCH) $(ARGS)

lint: $(DEV) ## Check style, types and the list of packages
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c "$$CHECK_PACKAGES"

format: $(DEV) ## Format the code, sort the imports
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

docs: $(DEV) ## Build the site into docs/_build/html; a warning is an error
	$(PY) -m sphinx -W --keep-going -n -E -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## Remove what was built (.venv stays)
	rm -rf build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit("lpdiff needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.x ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(PY)
	@echo "Installing lpdiff[$*] into $(VENV) (some minutes the first time)"
	$(INSTALL) -e ".[$*]"
	@touch $@

# Every folder with an __init__.py must be in pyproject.toml's list, or wheels lack it.
define CHECK_PACKAGES
import pathlib, sys, tomllib
listed = set(tomllib.loads(pathlib.Path('pyproject.toml').read_text())['tool']['setuptools']['packages'])
roots = {'lpdiff': 'lpdiff', 'problems': 'lpdiff.problems'}
found = {
    '.'.join([name, *init.parent.relative_to(root).parts])
    for root, name in roots.items()
    for init in pathlib.Path(root).rglob('__init__.py')
}
if listed != found:
    sys.exit(f'pyproject.toml, tool.setuptools.packages: add {sorted(found - listed)}, remove {sorted(listed - found)}')
endef
export CHECK_PACKAGES
