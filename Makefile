# Everything here sets itself up: a virtual environment inside the checkout, its dependencies, the package.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := -p stalegrad

# A strict editable install links the files that it finds, so it is repeated when their list changes.
FILES := $(shell find root simulator models policies analysis -type f -not -path '*/__pycache__/*' | LC_ALL=C sort)
LIST := $(shell printf '%s\n' $(FILES) | cksum | cut -d ' ' -f 1)
READY := $(VENV)/ready-$(LIST)

PEERS ?= .venv-peers/bin/python

.PHONY: help demo docs test test-slow test-lowest golden lint bench bench-gpu bench-peers validate validate-real reproduce notebooks dist clean

help:  ## List what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "stalegrad needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --config-settings editable_mode=strict
	@rm -f $(VENV)/ready-*
	@touch $@

demo: $(READY)  ## Compare five methods on 16 simulated workers; pictures and a table in results/demo
	$(BIN)/stalegrad demo

test: $(READY)  ## Run the tests (the slow ones: make test-slow)
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/docs-$(LIST)  ## Run the slow tests: packaging, the documentation site, long reproductions
	$(BIN)/pytest -m slow

# A part of the tests that touches every dependency. Warnings of old versions are not ours, and plugins are not pinned.
LOWEST := tests/simulator/timing tests/simulator/experiments/test_experiment.py tests/simulator/sweeps/test_store.py \
	tests/simulator/test_cli.py tests/models/test_images.py tests/models/test_fingerprint.py tests/models/test_networks.py \
	tests/models/test_problem.py tests/policies/test_methods.py tests/analysis/plots/test_figures.py \
	tests/analysis/plots/test_timeline.py tests/analysis/plots/test_curves.py tests/analysis/fits/test_delays.py \
	tests/analysis/fits/test_persistence.py tests/analysis/reports/test_report.py

.venv-lowest/bin/python:
	$(PYTHON) -m venv .venv-lowest

test-lowest: .venv-lowest/bin/python  ## Run a part of the tests with the lowest version of every dependency (Python 3.11)
	$(PYTHON) scripts/lowest_versions.py > .venv-lowest/constraints.txt
	rm -rf build/lib
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps .
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint .venv-lowest/constraints.txt pytest hypothesis .
	.venv-lowest/bin/python -m pip list --disable-pip-version-check
	.venv-lowest/bin/pytest -q -o addopts=--import-mode=importlib -o filterwarnings=default -m "not slow" $(LOWEST)

golden: $(READY)  ## Record the golden digests: traces, histories and parameters of tests/golden/specs.toml
	$(BIN)/python tests/golden/digests.py --record

lint: $(READY)  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)

bench: $(READY)  ## Measure speed against plain SGD, side by side
	$(BIN)/python tests/benchmarks/bench.py

# On a machine with an accelerator and no network: any Python that has JAX and the dependencies.
GPU_PYTHON ?= python3

bench-gpu:  ## Check and measure on an accelerator: docs/benchmarks-gpu.md (GPU_PYTHON: a Python with its JAX)
	$(GPU_PYTHON) tests/benchmarks/gpu.py

.venv-peers/ready:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check torch torchvision flgo==0.4.4 appfl==1.12.0
	@touch $@

bench-peers: $(READY) $(if $(filter .venv-peers/%,$(PEERS)),.venv-peers/ready)  ## Measure other software beside it (own environment: FLGo, APPFL, PyTorch; long)
	$(BIN)/python tests/benchmarks/peers/peers.py --peers $(PEERS)

validate: $(READY)  ## Set theory beside simulation: docs/validation.md
	$(BIN)/python scripts/validate_theory.py --out docs/validation.md

validate-real: $(READY)  ## Set a real parameter server beside simulation: docs/validation.md (10 minutes)
	$(BIN)/python scripts/validate_real.py --out docs/validation.md

reproduce: $(READY)  ## Test the claims of the papers on real images: docs/reproduction.md (long)
	$(BIN)/python scripts/reproduce

notebooks: $(READY)  ## Execute the notebooks in full and keep their outputs (about 15 minutes)
	$(BIN)/python scripts/execute_notebooks.py

dist: $(READY)  ## Build the wheel and the sdist in dist, and check them
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

$(VENV)/docs-$(LIST): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]' --config-settings editable_mode=strict
	@rm -f $(VENV)/docs-*
	@touch $@

# Words that codespell takes for misspellings of others
WORDS := simpy

docs: $(VENV)/docs-$(LIST)  ## Build the documentation from guides, docstrings and notebooks: site/html/index.html
	$(BIN)/codespell --ignore-words-list=$(WORDS) --skip '*/data/*' README.md CHANGELOG.md CONTRIBUTING.md docs/*.md root simulator models policies analysis scripts
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -d site/doctrees docs site/html

clean:  ## Remove the environment and everything made
	rm -rf $(VENV) .venv-peers .venv-lowest build dist results site docs/generated *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
