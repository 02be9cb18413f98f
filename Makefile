# `make demo` and `make test` need Python 3.11 or newer and nothing else; the first call makes .venv and installs into it.

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin
WORKERS ?= 2
GPU_WORKERS ?= 8
GPU_TESTS := tests/test_gpu.py tests/test_gpu_dense.py tests/test_gpu_runs.py

.PHONY: demo test test-gpu docs wheel lint format clean

demo: .venv/.demo
	$(BIN)/convnext demo --out runs/demo

# `worksteal` keeps a file's tests on one worker, which makes what they share once.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# On a machine with an NVIDIA GPU; kernels compile side by side. A plugin named benchmark warns under xdist, an error here. The
# files are named: others import packages that a machine with no network may lack, and pytest would not begin.
test-gpu: .venv/.tests
	$(BIN)/python -m pytest -m "gpu and not whole_gpu" -p no:benchmark -n $(GPU_WORKERS) $(GPU_TESTS)
	$(BIN)/python -m pytest -m whole_gpu -p no:benchmark $(GPU_TESTS)

# The site in site/html: pages gathered from docs/ and from the code, built strict and offline, every link checked.
docs: .venv/.docs
	$(BIN)/python docs/make site
	cd site && ../$(BIN)/zensical build --strict
	$(BIN)/python docs/make/check.py site/html

# A wheel for Linux on x86-64 with the CPU kernels inside, compiled for each instruction set (minutes), then tested. Any other
# build, such as `pip wheel .`, is plain Python.
wheel: .venv/.tests .venv/.wheel
	rm -f dist/convnext-*-manylinux_2_28_x86_64.whl
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --wheel-dir dist .
	CONVNEXT_WHEEL=$$(ls dist/convnext-*-manylinux_2_28_x86_64.whl) $(BIN)/python -m pytest tests/test_wheel.py

lint: .venv/.tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy src

format: .venv/.tests
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: an extra is installed once, with torch, and again when pyproject.toml changes.
.venv/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[torch,$*]'
	touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed; name it with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
