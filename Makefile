# `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.
# Variables: PYTHON (interpreter for .venv), TORCH_INDEX (package index for torch alone),
# ARGS (further arguments for demo, bench, listen, train, export and pytest), MUSIC (what else to listen to).

SHELL := bash
export PYTHON TORCH_INDEX

python := .venv/bin/python
sources := codec streaming tests benchmarks training scripts docs server.py client.py

# Tests wait more than they compute: two processes for each core, as far as memory goes.
workers := $(shell n=$$((2 * $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2))); \
	echo $$((n < 8 ? n : 8)))
parallel := -n $(workers) --dist worksteal

# Fewer percent of the branches in streaming/ covered than this fail the tests.
coverage := 95

.DEFAULT_GOAL := help
.PHONY: help demo check test test-slow chaos fuzz soak lint format docs site bench listen train export clean \
	setup-demo setup-listen setup-test setup-train setup-export

help: ## this list
	@echo "Live music at 350 bits per second. Targets:"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'
	@echo "Variables: PYTHON=python3.12  TORCH_INDEX=https://download.pytorch.org/whl/cpu  ARGS=...  MUSIC=..."

setup-demo setup-listen setup-test setup-train setup-export: setup-%:
	@scripts/setup.sh $*

demo: setup-demo ## set up, stream the demo track to a listener, leave demo.wav and demo.png
	@$(python) -m scripts.demo $(ARGS)

check: setup-test lint ## set up, check style and types, run the tests that start no program: a minute
	$(python) -m pytest -m "not slow and not system" $(parallel) $(ARGS)

test: setup-test lint ## set up, check style and types, run the tests with coverage
	$(python) -m pytest -m "not slow" $(parallel) --cov --cov-report=term --cov-report=json:.coverage.json $(ARGS)
	@$(python) -m scripts.branches .coverage.json $(coverage)

test-slow: setup-test ## the tests that take minutes
	$(python) -m pytest -m slow $(ARGS)

chaos: setup-test ## kill, freeze and slow connections, 200 times each
	$(python) -m pytest -v -m "slow or not slow" tests/test_chaos.py $(ARGS)

fuzz: setup-test ## mutate what the parsers read, for an hour or ten million inputs
	$(python) -m tests.fuzz $(ARGS)

soak: setup-test ## an hour of stream with cuts: nothing lost, memory flat
	$(python) -m tests.soak $(ARGS)

lint: setup-test ## ruff and mypy alone
	$(python) -m ruff check $(sources)
	$(python) -m ruff format --check $(sources)
	$(python) -m mypy

format: setup-test ## let ruff mend style and layout
	$(python) -m ruff check --fix $(sources)
	$(python) -m ruff format $(sources)

docs: setup-test ## build the documentation's site in build/docs
	@$(python) -m sphinx -W --keep-going -q docs build/docs $(ARGS)
	@echo "build/docs/index.html"

site: docs ## build the project's site in build/site: excerpts to listen to, player, documentation
	@rm -rf build/site
	@$(python) -m scripts.site

bench: setup-test ## the figures of the README, as tables
	$(python) -m benchmarks.codec --codec nano $(ARGS)
	$(python) -m benchmarks.latency $(ARGS)

listen: setup-listen ## leave a page to listen to in listen-out/; MUSIC=FOLDER adds music of your own
	@$(python) -m benchmarks.quality streaming/data/demo.ogg tests/data/held_*.ogg \
		$(if $(MUSIC),"$(MUSIC)") --out listen-out $(ARGS)

train: setup-train ## render the training music and train the nano codec (two to three hours on two cores)
	$(python) -m training.train_all $(ARGS)

export: setup-export ## write nano's ONNX graphs anew, beside its weights
	@$(python) -m codec.nano.onnx_export $(ARGS)

clean: ## remove what the targets left behind (.venv stays)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis htmlcov .coverage .coverage.*
	rm -rf demo.wav demo.png listen-out
	find $(wildcard $(sources)) -name __pycache__ -type d -prune -exec rm -rf {} +
