# Two commands matter: `make demo` runs the main job, `make test` the tests.
# Each sets up what it needs; a machine with Python 3.11 and make is enough.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check check-pages reference docs docs-test bench evidence gpu soak lock release clean

help:           ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

# uv, not pip, resolves the environment: it takes torch and torchvision from one place, so that they match.
# Byte code is compiled once here; without it every process would compile torch anew.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Crosshead needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet "uv>=0.5"
	$(PY) -m uv pip install --quiet --python $(PY) -r requirements.lock
	$(PY) -m uv pip install --quiet --python $(PY) --no-deps -e .
	@echo "compiling byte code, once"
	@$(PY) -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $(READY)

setup: $(READY) ## install everything into .venv

demo: $(READY)  ## train plain and overlapped heads on digits and compare them
	@$(PY) -m crosshead demo

# Two processes, each with files of its own, so that what a file's tests share is made once; one thread each.
test: $(READY)  ## run the tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

check: $(READY) ## lint and type check
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

check-pages:    ## type check and lint the pages' scripts (needs npm)
	npm ci --silent --no-audit --no-fund
	npm run --silent check

reference: $(READY) ## write docs/recipe.md and the recipes' JSON schema
	PYTHONPATH=tests $(PY) tests/recipe/reference.py

docs: $(READY)  ## the documentation's site into build/site, links checked, notebooks executed
	@$(PY) website/build.py

docs-test: $(READY) ## run what the documents show, for minutes
	$(PY) -m pytest -m soak tests/docs

bench: $(READY) ## measure operators, models and engine side by side with their peers
	set -e; for each in overlap talking window models interactions interactive "interactive --only memory" image_size \
		input_pipeline engine "engine --checkpoint" dense detection_step onnx_runtime; do \
		echo "== $$each"; set -- $$each; name=$$1; shift; $(PY) benchmarks/$$name.py "$$@"; done

evidence: $(READY) ## measure the papers' claims, for hours; it goes on where it stopped (docs/evidence.md)
	PYTHONPATH=benchmarks MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=4000000000 $(PY) -m evidence

gpu: $(READY)   ## on a GPU: every operator against its equations, then what it costs
	@$(PY) benchmarks/gpu.py

soak: $(READY)  ## the long fault tests
	$(PY) -m pytest -m soak

lock:           ## renew requirements.lock
	uv pip compile --quiet --universal --no-annotate --no-header --python-version 3.11 --extra train --extra dense --extra docs --extra dev \
		--no-emit-index-url -o requirements.lock pyproject.toml

release: $(READY) ## build wheel and source distribution, and install them into empty environments
	$(PY) .ci/release.py

clean:          ## remove what was built (runs/ is kept)
	rm -rf $(VENV) build dist src/*.egg-info
