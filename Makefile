# `make demo` and `make test` need Python 3.11 or newer and a package index; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The compilers of TPUs and GPUs, 3 GiB: for `make ahead` alone.
AHEAD := .venv-ahead
# Another trainer, which pins older packages than constraints.txt: for `make tunix` alone.
TUNIX := .venv-tunix
PYTHON312 ?= python3.12
VENV312 := .venv-312

.PHONY: demo test quick parity lint notebooks docs ahead tunix py312 dist clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# PyTorch and PEFT are oracles of tests/parity alone; nothing imports them at run time.
$(VENV)/installed-parity: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[parity]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Two wheels compile for GPUs; all that they need beside them is for running.
$(AHEAD)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(AHEAD)
	$(AHEAD)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tpu]'
	$(AHEAD)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
		jax-cuda13-plugin jax-cuda13-pjrt
	touch $@

# The lower bounds of pyproject.toml allow what tunix needs; jax and flax are ours.
$(TUNIX)/installed: pyproject.toml
	$(PYTHON) -m venv $(TUNIX)
	$(TUNIX)/bin/pip install --quiet --disable-pip-version-check -e '.[dev]' \
		google-tunix==0.1.7 qwix==0.1.8 jax==0.10.2 flax==0.12.8
	touch $@

# The newest of everything, for the newest Python that jax and flax ask for.
$(VENV312)/installed: pyproject.toml
	@command -v $(PYTHON312) > /dev/null || { echo "no $(PYTHON312) here: install it," \
		"or name one with make py312 PYTHON312=..."; exit 1; }
	$(PYTHON312) -m venv $(VENV312)
	$(VENV312)/bin/pip install --quiet --disable-pip-version-check --upgrade -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/goracs demo

# conftest.py says how programs are compiled.
test: $(VENV)/installed-dev
	$(BIN)/pytest -q -n 2 --dist worksteal

# Under a minute, some checks of every room: for the inner loop.
quick: $(VENV)/installed-dev
	$(BIN)/pytest -q -n 2 @tests/quick.txt

# Programs as users run them, with all optimizations.
parity: $(VENV)/installed-parity
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/pytest -q -n 2 --dist loadfile tests/parity

# pyright reads what the benchmarks import: PyTorch and PEFT too.
lint: $(VENV)/installed-parity
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# That of tunix is for `make tunix`.
notebooks: $(VENV)/installed-dev
	$(BIN)/jupyter nbconvert --to notebook --execute --output-dir $(VENV)/notebooks \
		$(filter-out notebooks/tunix.ipynb,$(wildcard notebooks/*.ipynb))

# Pages into build/site, warnings as errors, which --quiet would hide; tests/test_docs.py
# runs their code.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Every program, compiled for devices that are not here: an hour on two cores. A run that
# was stopped goes on.
ahead: $(AHEAD)/installed
	$(AHEAD)/bin/python benchmarks/ahead.py
	$(AHEAD)/bin/python benchmarks/tables.py

# Another trainer's gradients, and its training on a coreset: minutes on two cores. What is
# asked is whether numbers are right, so programs may be slow.
tunix: export JAX_DISABLE_MOST_OPTIMIZATIONS = 1
tunix: $(TUNIX)/installed
	$(TUNIX)/bin/python benchmarks/trainers.py
	$(TUNIX)/bin/jupyter nbconvert --to notebook --execute --output-dir $(TUNIX)/notebooks \
		notebooks/tunix.ipynb

py312: $(VENV312)/installed
	$(VENV312)/bin/pytest -q -n 2 --dist worksteal

dist: $(VENV)/installed-dev
	$(BIN)/hatchling build -t sdist -t wheel

clean:
	rm -rf $(VENV) $(AHEAD) $(TUNIX) $(VENV312) demo build dist
