# `make` lists the commands. They make the environments that they run in: .venv, .venv-core, .venv-extras, .venv-docs.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-docs test-core test-extras docs lint screenshots fuzz kills bench bench-panel bench-families bench-audit clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

install: ## make .venv with everything in it
	@$(PYTHON) bootstrap.py dev

demo: install ## the paper's Figure 1 in small, and EMSA beside Adam on digits, each with a report
	@$(BIN)/pontryagin reproduce sine --quick --methods msa,emsa-paper,emsa,adam --overwrite --out $(OUT)
	@$(BIN)/pontryagin compare --methods emsa,adam --tune 20 --epochs 5 --overwrite --out $(OUT)-digits
	@echo "Open $(OUT)/report.html and $(OUT)-digits/report.html in a browser; the numbers are in the csv files beside them."

lint: install ## style, types, import directions
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

test: lint ## lint and all fast tests
	@$(BIN)/pytest -n 2 --dist worksteal

test-all: lint ## the slow tests too
	@$(BIN)/pytest -n 2 --dist worksteal --run-slow

test-docs: install ## every Python block of README and docs, every command line of theirs, every example
	@$(BIN)/pytest -n 2 --dist worksteal --run-slow tests/docs tests/examples

test-core: ## with the core dependencies alone, in .venv-core: every command works, or says what it lacks
	@$(PYTHON) bootstrap.py --into .venv-core core
	@.venv-core/bin/python tests/core_only.py

test-extras: ## the tests of skorch, Lightning, transformers, pytorch-optimizer and TensorBoard, in .venv-extras
	@$(PYTHON) bootstrap.py --into .venv-extras dev integration baselines track ode
	@.venv-extras/bin/pytest -n 2 --dist worksteal --run-slow --extras

docs: ## the site, in docs/_site; a warning, or a public name without a page, is an error
	@$(PYTHON) bootstrap.py --into .venv-docs docs
	@.venv-docs/bin/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_site
	@echo "Done. Open docs/_site/index.html in a browser."

screenshots: install ## pictures of the reports of make demo, wide and narrow, light and dark, in runs/screenshots; needs chromium
	@$(BIN)/python tests/screenshots.py runs/screenshots $(OUT)/report.html $(OUT)-digits/report.html

fuzz: install ## 10,500 wrong command lines, files of options, data sets and models; a minute
	@for seed in 0 1 2; do OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz.py 3000 500 $$seed || exit 1; done

kills: install ## 200 SIGKILL, SIGTERM and SIGINT at random moments of ten kinds of runs, each resumed bitwise; minutes
	@folder=$$(mktemp -d) && OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/fuzz/kills.py 200 0 $$folder && rm -r $$folder

bench: install ## speed of the maximizers, as ratios
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.maximizers

bench-panel: install ## EMSA beside tuned rivals on a third of the panel, in short runs; needs MNIST in PONTRYAGIN_DATA
	@OMP_NUM_THREADS=1 $(BIN)/pontryagin bench panel --subset --seconds 2 --tuning rate --seeds 1

bench-families: ## EMSA as it comes on seventy families of models, beside AdamW, in .venv-extras; and what it leaves of the passes
	@$(PYTHON) bootstrap.py --into .venv-extras dev integration baselines track ode
	@OMP_NUM_THREADS=1 .venv-extras/bin/python -m benchmarks.families
	@OMP_NUM_THREADS=1 .venv-extras/bin/python -m benchmarks.no_trace

bench-audit: install ## the audit beside the truth: rankings, gap, 25 million weights
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.audit ranking
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.audit gap
	@$(BIN)/python -m benchmarks.audit large

clean: ## remove the environments and caches
	rm -rf .venv .venv-core .venv-extras .venv-docs docs/_site docs/api .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
