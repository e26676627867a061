# make demo   set up, then show the main job: EMA-Net from weights to an engine, on rooms and on a photograph
# make test   set up, then run the tests
# make check  format, lint, types, and the tests: what CI runs
#
# Each makes its own .venv with pinned versions. PYTHON chooses the interpreter (3.10 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: demo test check format clean

demo: $(VENV)/demo.installed
	$(BIN)/emadeploy demo

test: $(VENV)/dev.installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/dev.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(VENV)/dev.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# An extra is installed once, and again when what it is made from changes.
$(VENV)/%.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[$*]' --constraint constraints.txt
	touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "emadeploy needs Python 3.10 or newer; $(PYTHON) is `$(PYTHON) --version`. Try: make PYTHON=python3.12 ..."; exit 1; }
	@# A venv without pip or half made: ensurepip is a package of its own on Debian.
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no venv could be made; on Debian: apt install python3-venv"; exit 1; }
