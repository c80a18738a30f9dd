# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
RUN ?= runs/demo
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test types tested install lint format bench bounds gpu-check notebook outputs shots docs clean

demo: $(VENV)/.installed
	$(BIN)/saelab demo --out $(RUN) $(if $(NO_BROWSE)$(NO_BROWSER),--no-browse,)

# Pyright takes one core for minutes: beside the tests.
test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --jobs 2 types tested

types:
	$(BIN)/pyright

tested:
	$(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST)

install: $(VENV)/.installed-dev

lint: $(VENV)/.installed-dev
	$(BIN)/pre-commit run --all-files

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/train_step.py

# The notebooks, in a browser.
notebook: $(VENV)/.installed-notebook
	$(BIN)/jupyter lab --notebook-dir notebooks

# The pictures of the browser that the documentation shows, of a folder of runs.
shots: $(VENV)/.installed-dev
	$(BIN)/python docs/shots.py $(dir $(RUN))

# The guides and the reference as pages in build/site; a link that leads nowhere fails.
docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

# The notebooks' outputs as they are committed, of the demo's run.
outputs: $(VENV)/.installed-dev
	$(BIN)/python notebooks/outputs.py $(RUN)

# What a card says, in at most 8 minutes; a machine that has one may have no network to install by.
gpu-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu_check.py $(GPU)

# The CPU kernels with every array index checked.
bounds: $(VENV)/.installed-dev
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(VENV)/numba-bounds $(BIN)/python -m pytest \
		tests/kernels/test_choose.py tests/kernels/test_certificate.py tests/kernels/test_sparse.py tests/kernels/test_step.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .[dev]
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .[docs]
	touch $@

$(VENV)/.installed-notebook: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .[notebook]
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist
