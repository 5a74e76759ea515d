# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first, once per pyproject.toml.

PYTHON ?= python3
TORCH ?= torch==2.13.0
WORKERS ?= 2

BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOG := .venv/setup.log
SHOW := { tail -n 40 $(LOG); exit 1; }

.PHONY: demo test lint bench reproduce setup clean

demo: $(READY)
	@$(BIN)/residua demo

test: lint
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadgroup

lint: $(READY)
	@$(BIN)/lint-imports > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/basedpyright --pythonpath $(BIN)/python > .venv/types.log || { cat .venv/types.log; exit 1; }

bench: $(READY)
	@$(BIN)/python -m benchmarks.run $(NAMES)

reproduce: $(READY)
	@$(BIN)/python -m experiments $(or $(NAME),--list) $(OPTIONS)

setup: $(READY)

# torchvision asks for one exact torch: the constraint keeps pip from replacing the torch chosen here.
$(READY): pyproject.toml
	@echo "setting up .venv (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install "$(TORCH)" > $(LOG) 2>&1 || $(PIP) install torch >> $(LOG) 2>&1 || $(SHOW)
	@$(BIN)/python -c "from importlib.metadata import version; print('torch==' + version('torch'))" > .venv/torch.txt
	@$(PIP) install --constraint .venv/torch.txt --editable ".[test]" >> $(LOG) 2>&1 || $(SHOW)
	@touch $@

clean:
	@rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
