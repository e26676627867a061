# make demo   set up, then show the main job: EMA-Net from weights to an engine, on rooms and on a photograph
# make test   set up, then run the tests; make test-slow: those that are marked slow, which take minutes each
# make check  format, lint, types, and the tests: what CI runs
#
# Each makes its own .venv with pinned versions. PYTHON chooses the interpreter (3.10 or newer).
#
# make test-gpu   on a machine with an NVIDIA GPU: the tests that need one
# make bench-gpu  there: published graph against rewritten graph, into docs/gpu.md
#
# These two install what they need where they can; without a network they take PYTHON as it is, with the wheels in the
# folder WHEELS, if that is given, on top.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A file of tests stays on one worker: its fixtures, exported networks among them, are made once. A worker that crashes
# ends the run: pytest-xdist would start another, and in the end wait for ever for the files of the first.
PYTEST_ARGS ?= --numprocesses auto --maxprocesses 4 --dist loadfile --max-worker-restart 0
QUICK := -m 'not slow'

.PHONY: demo test test-slow check format clean test-gpu bench-gpu

demo: $(VENV)/demo.installed
	$(BIN)/emadeploy demo

test: $(VENV)/dev.installed
	$(BIN)/python -m pytest $(QUICK) $(PYTEST_ARGS)

test-slow: QUICK := -m slow
test-slow: test

check: $(VENV)/dev.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(VENV)/dev.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

GPU_EXTRAS := $(VENV)/dev.installed $(VENV)/tensorrt.installed
GPU_SITE := .gpu-site
WHEELS ?=
# One process: there is one GPU, and tests read how much of its memory is free.
GPU_ARGS ?=

test-gpu:
	@$(gpu_python); "$$python" -m pytest -m gpu tests/gpu $(GPU_ARGS)

bench-gpu:
	@$(gpu_python); "$$python" tools/bench_gpu.py $(BENCH_ARGS)

# Sets $$python and its path: an environment made here, or, said so, what there is.
define gpu_python
export PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}"; \
if [ -n "$(WHEELS)" ]; then \
	$(PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target $(GPU_SITE) $(WHEELS)/*.whl || exit 1; \
	export PYTHONPATH="$(CURDIR)/$(GPU_SITE):$$PYTHONPATH"; python=$(PYTHON); \
elif PIP_RETRIES=0 PIP_DEFAULT_TIMEOUT=10 $(MAKE) --no-print-directory $(GPU_EXTRAS) >.gpu-install.log 2>&1; then \
	python=$(BIN)/python; \
else \
	tail -n 3 .gpu-install.log; \
	echo "nothing could be installed (see .gpu-install.log): $(PYTHON) is taken as it is"; python=$(PYTHON); \
fi
endef

clean:
	rm -rf $(VENV) $(GPU_SITE) .gpu-install.log .mypy_cache .pytest_cache .ruff_cache .hypothesis

# An extra is installed once, and again when what it is made from changes.
$(VENV)/%.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[$*]' --constraint constraints.txt
	touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "emadeploy needs Python 3.10 or newer; $(PYTHON) is `$(PYTHON) --version`. Try: make PYTHON=python3.12 ..."; exit 1; }
	@# A venv without pip or half made: ensurepip is a package of its own on Debian.
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no venv could be made; on Debian: apt install python3-venv"; exit 1; }
