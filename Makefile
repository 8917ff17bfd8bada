# `make` alone lists the targets. `make demo` and `make test` work on a fresh machine: whatever
# they need is made first, and not again until pyproject.toml or constraints.txt change.
#
#   PYTHON       interpreter for the environment, 3.11 or newer
#   TORCH_INDEX  where to look for PyTorch besides the package index; on a machine without an
#                NVIDIA GPU use https://download.pytorch.org/whl/cpu (0.2 GB instead of 3 GB)

PYTHON ?= python3
TORCH_INDEX ?=

BIN := .venv/bin
STAMP := .venv/.installed
DEMO_HOME := .demo
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fmt serve bench clean lint browser

help:
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
	  awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## create .venv with everything that running and testing need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
	  -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP)  ## ingest examples/docs, ask three questions, print the answers
	@PATH="$(CURDIR)/$(BIN):$$PATH" KB_HOME=$(DEMO_HOME) sh examples/demo.sh

# Two halves that take about as long, side by side; each prints its output when it ends.
test: $(STAMP) lint browser  ## everything: check, API, page, examples and kill tests (CI runs this)
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target test-ingest test-others

.PHONY: test-ingest test-others
test-ingest:
	$(PYTEST) -ra -p no:cacheprovider tests/ingest

test-others:
	$(PYTEST) -ra --ignore=tests/ingest

check: $(STAMP) lint  ## before each commit: format, lint, types and unit tests, about a minute
	$(PYTEST) -m "not slow and not browser" --ignore=tests/api

fmt: $(STAMP)  ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

serve: $(STAMP)  ## open the page and the API on the demo's data
	KB_HOME=$(DEMO_HOME) $(BIN)/kb ingest examples/docs --kb demo
	KB_HOME=$(DEMO_HOME) $(BIN)/kb serve

bench: $(STAMP)  ## measure search speed on this machine (benchmarks/README.md has the rest)
	KB_HOME=$(DEMO_HOME) $(BIN)/kb bench search --chunks 100000

clean:  ## remove the environment, caches, build output and the demo's data
	rm -rf .venv $(DEMO_HOME) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The page test needs a Chromium. Only root on a machine with apt (a CI container) gets one
# installed; elsewhere the test says why it is skipped.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v $$name >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; \
	fi || echo "no Chromium could be installed; the page test cannot run" >&2
