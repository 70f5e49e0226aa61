# make demo   a trained, registered, servable model on the embedded store (./mlflow.db)
# make quick  the unit tests: no MLflow store, no other process, no server; under a minute
# make test   lint, types, all tests
# make docs   the pages of docs/ as site/, and the JSON Schemas of the clustering analysis
#
# They use the first Python 3.11 to 3.13 on the PATH; make PYTHON=/path/to/python chooses another.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	"$$python" -c '$(FITS)' 2>/dev/null && { echo "$$python"; break; }; done)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PYTEST_ARGS ?= -n 2 --dist loadfile

.PHONY: demo quick test docs lint types format clean

demo: $(VENV)/.demo
	PATH="$(BIN):$$PATH" $(BIN)/mlflow run . --env-manager local

quick: $(VENV)/.test
	PATH="$(BIN):$$PATH" $(BIN)/python -m pytest tests -m "not integration" $(PYTEST_ARGS)

test: lint types
	PATH="$(BIN):$$PATH" $(BIN)/python -m pytest $(PYTEST_ARGS)

docs: $(VENV)/.docs
	$(BIN)/python -m tsclust_model.analysis.schema
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) site build dist *.egg-info

# With the stamps a second call starts at once; a changed pyproject.toml is installed again.
$(VENV)/.made:
	@"$(PYTHON)" -c '$(FITS)' 2>/dev/null || { \
		echo "make: $(if $(PYTHON),$(PYTHON) is no,there is no) Python 3.11, 3.12 or 3.13 here;" \
		"install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.docs: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	@touch $@ $(VENV)/.demo

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[test]"
	@touch $@ $(VENV)/.docs $(VENV)/.demo
