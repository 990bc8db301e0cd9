# `make demo` and `make test` do all their own set-up in a fresh clone.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
# Test files that run side by side; each takes up to 2 GB.
JOBS ?= 2

.PHONY: demo test lint docs clean

demo: $(VENV)/installed
	$(BIN)/alchemdriver demo

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -q --numprocesses $(JOBS) --dist loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/house.py

# The site in build/docs/html; tutorials are executed, warnings are errors.
docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -d build/docs/doctrees docs build/docs/html

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache demo-run
