.PHONY: help setup demo test test-fast check up lock clean

PYTHON ?= python3
BIN := .venv/bin
# Two halves, one with everything that starts servers: see tests/conftest.py.
SIDE_BY_SIDE := --numprocesses 2 --dist loadgroup
# No server is started, and nothing of one imported: see tests/fixtures/fast_lane.py.
FAST := tests/support tests/recipe tests/plan tests/methods tests/merge tests/cli tests/evaluation/test_statistics.py tests/evaluation/test_false_alarms.py tests/test_layers.py
# Set-up compiles the files that these import, 6,000 of 27,000: compiling all takes longer than installing them.
IMPORTED := lm_eval.evaluator, lm_eval.models.huggingface, transformers.models.mistral.modeling_mistral, \
	mlflow.server.fastapi_app, prefect.server.api.server
# The rest is compiled when first imported; with this set, every process would compile it anew.
unexport PYTHONDONTWRITEBYTECODE

help:  ## what can be done
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: .venv/ready  ## make .venv with the locked versions

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
# The pip that Python 3.11 brings takes twice as long over the same lock.
	$(BIN)/python -m pip install --quiet pip==26.3
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --editable .
	$(BIN)/python -W ignore -c "import $(IMPORTED)"
	touch $@

demo: setup  ## the main job on the demonstration models
	$(BIN)/python -m deployments.local.demo

up: setup  ## Prefect, MLflow, workers and the demonstration's Hub, in the browser
	$(BIN)/mergeline up --with-hub

test: setup  ## all tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-fast: setup  ## the engine's tests alone, in less than a minute
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow" -p tests.fixtures.fast_lane $(FAST)

check: setup  ## lint, types and tests, as before a commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

lock: setup  ## write requirements.lock from what is installed
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/^torch==2.13.0+.*/torch==2.13.0/' > requirements.lock

clean:  ## remove what runs leave behind
	rm -rf .mergeline .pytest_cache .ruff_cache dist
